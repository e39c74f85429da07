//! The life of a step's process: it ends by itself, or is ended by the ladder.
//!
//! ```text
//!  running ──cancel, limit──▶ INT sent ──7.5 s──▶ TERM sent ──2.5 s──▶ KILL sent
//!     │                          │                    │                    │
//!     └──────── process ended ───┴────────────────────┴────────────────────┘
//! ```
//!
//! When the process itself ends on the ladder and others of its group are left, they get TERM at
//! once and KILL after the ladder's last wait.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::system::{Control, Exit, Signal, SystemError};

use super::dialect::Ladder;

/// Why a process was ended before it ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The job was cancelled.
    Cancelled,
    /// The step reached its own limit.
    StepLimit,
    /// The job reached its limit.
    JobLimit,
}

/// What ends a step.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// A cancel of the job; absent when it has been cancelled already.
    pub(super) cancel: Option<CancellationToken>,
    /// The step's own limit.
    pub(super) step: Option<Instant>,
    /// The job's limit, or after a cancel the limit of what may still run.
    pub(super) job: Instant,
    /// How long the step may go on after a cancel or the job's limit: a step whose condition asks
    /// for a cancelled job is not ended at once.
    pub(super) reprieve: Duration,
}

/// A process that has ended.
pub(super) struct Ended {
    /// How.
    pub(super) exit: Result<Exit, SystemError>,
    /// Why it was ended, if it was.
    pub(super) stop: Option<Stop>,
    /// Its group, where processes may be left.
    pub(super) control: Box<dyn Control>,
}

/// How long a process may take to end after KILL: one that waits for a dead disk never does.
const AFTER_KILL: Duration = Duration::from_secs(10);

/// How often an ended process's group is looked at while others of it are left.
const GROUP_POLL: Duration = Duration::from_millis(50);

impl Limits {
    /// Those of what tidies up: so much time from now on, whatever ended the step.
    pub(super) fn within(time: Duration) -> Self {
        Self { cancel: None, step: None, job: Instant::now() + time, reprieve: Duration::ZERO }
    }

    /// Waits until the step must end.
    pub(super) async fn reached(&self) -> Stop {
        let cancelled = async {
            match &self.cancel {
                Some(cancel) => cancel.cancelled().await,
                None => std::future::pending().await,
            }
            sleep(self.reprieve).await;
        };
        let step = async {
            match self.step {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cancelled => Stop::Cancelled,
            () = step => Stop::StepLimit,
            () = sleep_until(self.job + self.reprieve) => Stop::JobLimit,
        }
    }
}

/// Waits until a process has ended, and ends its group by the ladder when a limit is reached.
pub(super) async fn supervise(
    mut control: Box<dyn Control>,
    limits: Limits,
    ladder: Ladder,
) -> Ended {
    let stop = tokio::select! {
        exit = control.wait() => return Ended { exit, stop: None, control },
        stop = limits.reached() => stop,
    };
    let exit = climb(&mut *control, ladder).await;
    Ended { exit, stop: Some(stop), control }
}

/// Ends a group and waits until its first process has ended.
async fn climb(control: &mut dyn Control, ladder: Ladder) -> Result<Exit, SystemError> {
    for (signal, patience) in
        [(Signal::Interrupt, ladder.after_interrupt), (Signal::Terminate, ladder.after_terminate)]
    {
        control.signal(signal);
        if let Ok(exit) = timeout(patience, control.wait()).await {
            end_rest(control, ladder.after_terminate).await;
            return exit;
        }
    }
    control.signal(Signal::Kill);
    match timeout(AFTER_KILL, control.wait()).await {
        Ok(exit) => exit,
        Err(_) => {
            let source = io::Error::new(io::ErrorKind::TimedOut, "it did not end after KILL");
            Err(SystemError::new("end", "the process of this step", source))
        }
    }
}

/// Ends what is left of a group whose first process has ended.
pub(super) async fn end_rest(control: &dyn Control, patience: Duration) {
    if !control.is_alive() {
        return;
    }
    control.signal(Signal::Terminate);
    let gone = async {
        while control.is_alive() {
            sleep(GROUP_POLL).await;
        }
    };
    if timeout(patience, gone).await.is_err() {
        control.signal(Signal::Kill);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::watch;

    use super::*;
    use crate::system::Pending;

    /// A process that ends at a signal, or never, and notes which signals came when.
    struct Fake {
        ends_at: Option<Signal>,
        rest_ends_at: Option<Signal>,
        ended: watch::Sender<Option<Exit>>,
        rest: Arc<Mutex<bool>>,
        notes: Arc<Mutex<Vec<(Signal, u128)>>>,
        start: Instant,
    }

    impl Control for Fake {
        fn wait(&mut self) -> Pending<'_, Result<Exit, SystemError>> {
            let mut ended = self.ended.subscribe();
            Box::pin(async move { Ok(ended.wait_for(Option::is_some).await.unwrap().unwrap()) })
        }

        fn signal(&self, signal: Signal) {
            self.notes.lock().unwrap().push((signal, self.start.elapsed().as_millis()));
            if self.ends_at == Some(signal) || signal == Signal::Kill {
                self.ended.send_replace(Some(Exit::Signal(2)));
            }
            if self.rest_ends_at == Some(signal) || signal == Signal::Kill {
                *self.rest.lock().unwrap() = false;
            }
        }

        fn is_alive(&self) -> bool {
            *self.rest.lock().unwrap()
        }
    }

    const LADDER: Ladder = Ladder {
        after_interrupt: Duration::from_millis(7_500),
        after_terminate: Duration::from_millis(2_500),
    };

    /// Cancels a process after a second; gives the signals with their times in milliseconds.
    async fn cancel(
        ends_at: Option<Signal>,
        rest: bool,
        rest_ends_at: Option<Signal>,
    ) -> (Option<Stop>, Vec<(Signal, u128)>) {
        let notes = Arc::default();
        let start = Instant::now();
        let fake = Fake {
            ends_at,
            rest_ends_at,
            ended: watch::Sender::new(None),
            rest: Arc::new(Mutex::new(rest)),
            notes: Arc::clone(&notes),
            start,
        };
        let token = CancellationToken::new();
        let limits = Limits {
            cancel: Some(token.clone()),
            step: None,
            job: start + Duration::from_secs(3600),
            reprieve: Duration::ZERO,
        };
        let task = tokio::spawn(supervise(Box::new(fake), limits, LADDER));
        sleep(Duration::from_secs(1)).await;
        token.cancel();
        let ended = task.await.unwrap();
        let notes = notes.lock().unwrap().clone();
        (ended.stop, notes)
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_obeys_gets_one_signal() {
        let (stop, notes) = cancel(Some(Signal::Interrupt), false, None).await;
        assert_eq!(stop, Some(Stop::Cancelled));
        assert_eq!(notes, [(Signal::Interrupt, 1_000)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_ignores_everything_is_killed_in_time() {
        let (_, notes) = cancel(None, false, None).await;
        assert_eq!(
            notes,
            [(Signal::Interrupt, 1_000), (Signal::Terminate, 8_500), (Signal::Kill, 11_000)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_of_the_group_is_ended_too() {
        let (_, notes) = cancel(Some(Signal::Interrupt), true, Some(Signal::Terminate)).await;
        assert_eq!(notes, [(Signal::Interrupt, 1_000), (Signal::Terminate, 1_000)]);
        let (_, notes) = cancel(Some(Signal::Interrupt), true, None).await;
        assert_eq!(notes.last().unwrap(), &(Signal::Kill, 3_500));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_limit_counts() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut limits = Limits {
            cancel: Some(CancellationToken::new()),
            step: Some(start + 5 * second),
            job: start + 4 * second,
            reprieve: Duration::ZERO,
        };
        assert_eq!(limits.reached().await, Stop::JobLimit);
        assert_eq!(start.elapsed(), 4 * second);
        limits.reprieve = 10 * second;
        assert_eq!(limits.reached().await, Stop::StepLimit);
        assert_eq!(start.elapsed(), 5 * second);
    }
}
