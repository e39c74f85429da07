//! Time as the guest has it: it stands still while the machine is stopped.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The guest's clock.
#[derive(Debug)]
pub(crate) struct Clock {
    stopped: watch::Sender<bool>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { stopped: watch::Sender::new(false) }
    }

    /// Stops the clock, or lets it go on; says whether that changed anything.
    pub(crate) fn set_stopped(&self, stopped: bool) -> bool {
        self.stopped.send_if_modified(|now| std::mem::replace(now, stopped) != stopped)
    }

    /// Waits as long as the machine is stopped.
    pub(crate) async fn running(&self) {
        let mut stopped = self.stopped.subscribe();
        // The sender lives as long as this value.
        drop(stopped.wait_for(|stopped| !*stopped).await);
    }

    /// Waits until the guest's time has gone on by so much.
    pub(crate) async fn sleep(&self, mut left: Duration) {
        let mut stopped = self.stopped.subscribe();
        loop {
            drop(stopped.wait_for(|stopped| !*stopped).await);
            let begun = Instant::now();
            tokio::select! {
                () = tokio::time::sleep(left) => return,
                _ = async { stopped.wait_for(|stopped| *stopped).await.map(|_| ()) } => {
                    left = left.saturating_sub(begun.elapsed());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stopped_clock_costs_no_time() {
        let clock = Clock::new();
        let begun = Instant::now();
        let stop = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert!(clock.set_stopped(true));
            assert!(!clock.set_stopped(true));
            tokio::time::sleep(Duration::from_secs(180)).await;
            assert!(clock.set_stopped(false));
        };
        tokio::join!(clock.sleep(Duration::from_secs(10)), stop);
        assert_eq!(begun.elapsed(), Duration::from_secs(190));
        clock.running().await;
    }
}
