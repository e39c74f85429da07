//! What to do about a job, from what is recorded and what is seen. Pure: the service does the I/O.
//!
//! [`decide`] is asked about every job of a host when the service starts, every few seconds, and when
//! something happened to the job. A job with a worker (a task of this process that carries it
//! through) is left to it, except that its deadline and a wish to end it are passed on. A job
//! without one was left by a process that died: its machine is adopted where its steps may run, and
//! else it is tried again or ended, so that no job can be stuck.

use common::infrastructure::Cause;

use crate::store::JobState;

/// Infrastructure failures after which a job is tried again; the failure after them is its result.
pub const RETRIES: u32 = 2;

/// What is seen of a job's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineSeen {
    /// There is none, and no record of one.
    None,
    /// It runs.
    Running,
    /// There is a record, and its process is gone.
    Gone,
}

/// What is seen of a job's segment, the durable copy of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSeen {
    /// There is none.
    None,
    /// It goes on; no step of the user has started.
    Open,
    /// It goes on; a step of the user has started.
    StepStarted,
    /// The guest has said how the job ended.
    Ended,
    /// It has the final event.
    Final,
}

/// Everything that is seen of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Whether the job is this host's.
    pub ours: bool,
    /// Whether a worker of this process has it.
    pub worker: bool,
    /// Its machine.
    pub machine: MachineSeen,
    /// Its log.
    pub log: LogSeen,
    /// Whether its end was asked for.
    pub cancel: bool,
    /// Whether the deadline of its state has passed.
    pub late: bool,
    /// Whether it may be tried again.
    pub tries_left: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Leave,
    /// Tell the worker that the job's end was asked for.
    PassCancel,
    /// End the worker's try: its state took too long.
    Expire,
    /// End the worker without another word: the job is another host's now.
    Abandon,
    /// Go on with the machine that runs.
    Adopt,
    /// Remove the machine; nothing else is to be done.
    RemoveMachine,
    /// Remove the machine if there is one, and try again on a fresh one.
    TryAgain,
    /// Remove the machine if there is one; the job ends as the guest said.
    FinishAsSaid,
    /// The final event is written: record the end.
    RecordEnd,
    /// Remove the machine if there is one; the job ends as cancelled.
    FinishCancelled,
    /// Remove the machine if there is one; the job ends by a failure of the infrastructure.
    Fail(Cause),
}

/// What to do about a job.
#[must_use]
pub fn decide(state: JobState, seen: &Observed) -> Action {
    if !seen.ours && state != JobState::Queued {
        return not_ours(seen);
    }
    match state {
        JobState::Done => finished(seen),
        JobState::Queued => queued(seen),
        _ if seen.worker => with_worker(state, seen),
        _ => without_worker(state, seen),
    }
}

fn not_ours(seen: &Observed) -> Action {
    match (seen.worker, seen.machine) {
        (true, _) => Action::Abandon,
        (false, MachineSeen::None) => Action::Leave,
        (false, MachineSeen::Running | MachineSeen::Gone) => Action::RemoveMachine,
    }
}

/// A machine may outlive its job on purpose only as a kept one, which is not seen here.
fn finished(seen: &Observed) -> Action {
    match (seen.worker, seen.machine) {
        // It is about to remove its machine.
        (true, _) | (false, MachineSeen::None) => Action::Leave,
        (false, MachineSeen::Running | MachineSeen::Gone) => Action::RemoveMachine,
    }
}

fn queued(seen: &Observed) -> Action {
    match (seen.worker, seen.machine) {
        (true, _) => Action::Abandon,
        (false, MachineSeen::Running | MachineSeen::Gone) => Action::RemoveMachine,
        (false, MachineSeen::None) if seen.cancel => Action::FinishCancelled,
        (false, MachineSeen::None) if seen.late => Action::Fail(Cause::NoHost),
        (false, MachineSeen::None) => Action::Leave,
    }
}

fn with_worker(state: JobState, seen: &Observed) -> Action {
    if seen.late {
        Action::Expire
    } else if seen.cancel && state != JobState::Cancelling {
        Action::PassCancel
    } else {
        Action::Leave
    }
}

fn without_worker(state: JobState, seen: &Observed) -> Action {
    match seen.log {
        LogSeen::Final => return Action::RecordEnd,
        LogSeen::Ended => return Action::FinishAsSaid,
        LogSeen::None | LogSeen::Open | LogSeen::StepStarted => {}
    }
    let cancel = seen.cancel || state == JobState::Cancelling;
    let may_have_begun = match state {
        JobState::Running => true,
        // A dead host's log is not here to say why the job was about to end.
        JobState::Finishing => matches!(seen.log, LogSeen::None | LogSeen::StepStarted),
        _ => seen.log == LogSeen::StepStarted,
    };
    // Steps that run are ended by the rules of the job, whether or not its end was asked for.
    let reachable = seen.machine == MachineSeen::Running && !seen.late;
    if reachable && (may_have_begun || state == JobState::Cancelling) {
        return Action::Adopt;
    }
    if cancel {
        return Action::FinishCancelled;
    }
    if may_have_begun {
        return Action::Fail(match seen.machine {
            MachineSeen::Running => Cause::Deadline,
            MachineSeen::None | MachineSeen::Gone => Cause::HostRestarted,
        });
    }
    // What was lost is a boot: the job begins again, however late it was with it.
    if seen.tries_left { Action::TryAgain } else { Action::Fail(Cause::HostRestarted) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINES: [MachineSeen; 3] = [MachineSeen::None, MachineSeen::Running, MachineSeen::Gone];
    const LOGS: [LogSeen; 5] =
        [LogSeen::None, LogSeen::Open, LogSeen::StepStarted, LogSeen::Ended, LogSeen::Final];

    /// Every state with everything that can be seen of it.
    fn every(mut check: impl FnMut(JobState, Observed, Action)) {
        let flags = [false, true];
        for state in JobState::ALL {
            for machine in MACHINES {
                for log in LOGS {
                    for bits in 0..32_usize {
                        let flag = |bit: usize| flags[bits >> bit & 1];
                        let seen = Observed {
                            ours: flag(0),
                            worker: flag(1),
                            machine,
                            log,
                            cancel: flag(2),
                            late: flag(3),
                            tries_left: flag(4),
                        };
                        check(state, seen, decide(state, &seen));
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_is_stuck() {
        every(|state, seen, action| {
            let over = state == JobState::Done || !seen.ours;
            if action != Action::Leave || over {
                return;
            }
            // Somebody has the job, with a deadline that has not passed; or it waits its turn.
            let waits = state == JobState::Queued && !seen.late && !seen.cancel;
            assert!(waits || (seen.worker && !seen.late), "{state:?} {seen:?}");
        });
    }

    #[test]
    fn no_machine_is_left_behind() {
        every(|state, seen, action| {
            let orphan = !seen.worker && seen.machine != MachineSeen::None;
            if orphan {
                assert_ne!(action, Action::Leave, "{state:?} {seen:?}");
            }
        });
    }

    #[test]
    fn a_job_whose_steps_may_have_begun_is_never_begun_again() {
        every(|state, seen, action| {
            let begun = seen.log != LogSeen::None && seen.log != LogSeen::Open;
            let unknown = state == JobState::Finishing && seen.log == LogSeen::None;
            if begun || unknown || state == JobState::Running {
                assert_ne!(action, Action::TryAgain, "{state:?} {seen:?}");
            }
        });
    }

    #[test]
    fn nothing_but_the_end_is_done_about_a_job_of_another_host() {
        every(|state, seen, action| {
            if !seen.ours && state != JobState::Queued {
                let allowed = [Action::Leave, Action::Abandon, Action::RemoveMachine];
                assert!(allowed.contains(&action), "{state:?} {seen:?}: {action:?}");
            }
        });
    }

    #[test]
    fn a_result_that_was_said_is_the_result() {
        every(|state, seen, action| {
            let asked = seen.ours && !seen.worker && state.is_leased();
            if asked && seen.log == LogSeen::Ended {
                assert_eq!(action, Action::FinishAsSaid, "{state:?} {seen:?}");
            }
            if asked && seen.log == LogSeen::Final {
                assert_eq!(action, Action::RecordEnd, "{state:?} {seen:?}");
            }
        });
    }

    #[test]
    fn what_happens_after_a_restart() {
        let seen = Observed {
            ours: true,
            worker: false,
            machine: MachineSeen::Running,
            log: LogSeen::Open,
            cancel: false,
            late: false,
            tries_left: true,
        };
        let gone = Observed { machine: MachineSeen::Gone, ..seen };
        let check = |state, seen, expected| assert_eq!(decide(state, &seen), expected, "{state:?}");
        for state in [JobState::Claimed, JobState::Preparing, JobState::Booting, JobState::Ready] {
            check(state, seen, Action::TryAgain);
            check(state, gone, Action::TryAgain);
            check(state, Observed { cancel: true, ..seen }, Action::FinishCancelled);
            let tried = Observed { tries_left: false, ..gone };
            check(state, tried, Action::Fail(Cause::HostRestarted));
        }
        check(JobState::Running, seen, Action::Adopt);
        check(JobState::Running, Observed { cancel: true, ..seen }, Action::Adopt);
        check(JobState::Running, Observed { late: true, ..seen }, Action::Fail(Cause::Deadline));
        check(JobState::Running, gone, Action::Fail(Cause::HostRestarted));
        check(JobState::Running, Observed { cancel: true, ..gone }, Action::FinishCancelled);
        // With its log, what was about to end after failed boots is known to have run nothing.
        check(JobState::Finishing, gone, Action::TryAgain);
        let dead = Observed { machine: MachineSeen::None, log: LogSeen::None, ..seen };
        check(JobState::Finishing, dead, Action::Fail(Cause::HostRestarted));
        check(JobState::Booting, dead, Action::TryAgain);
        check(JobState::Cancelling, seen, Action::Adopt);
        check(JobState::Cancelling, Observed { late: true, ..seen }, Action::FinishCancelled);
    }

    #[test]
    fn what_happens_while_a_worker_has_the_job() {
        let seen = Observed {
            ours: true,
            worker: true,
            machine: MachineSeen::Running,
            log: LogSeen::Open,
            cancel: true,
            late: false,
            tries_left: true,
        };
        assert_eq!(decide(JobState::Booting, &seen), Action::PassCancel);
        assert_eq!(decide(JobState::Cancelling, &seen), Action::Leave);
        let late = Observed { late: true, ..seen };
        assert_eq!(decide(JobState::Booting, &late), Action::Expire);
        assert_eq!(decide(JobState::Cancelling, &late), Action::Expire);
        let lost = Observed { ours: false, ..seen };
        assert_eq!(decide(JobState::Running, &lost), Action::Abandon);
    }
}
