//! How far runs, jobs, tasks and steps are.

use std::fmt;

use forgejo_proto::runner::TaskResult;

/// The server's own status of a run, job, task or step. The first four numbers are those of results on
/// the wire, the others never get there (forgejo-runner-protocol 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// It ended well.
    Success = 1,
    /// It failed.
    Failure = 2,
    /// It was cancelled.
    Cancelled = 3,
    /// It was not needed.
    Skipped = 4,
    /// Nobody has taken it.
    Waiting = 5,
    /// A runner has it.
    Running = 6,
    /// It needs others that have not ended.
    Blocked = 7,
}

impl Status {
    /// Whether nothing changes any more.
    #[must_use]
    pub fn is_done(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Cancelled | Self::Skipped)
    }

    /// Whether a step with it has run: neither skipped nor cancelled.
    #[must_use]
    pub fn has_run(self) -> bool {
        matches!(self, Self::Success | Self::Failure)
    }

    /// The status of a result; none of one that is not final.
    pub(super) fn of(result: TaskResult) -> Option<Self> {
        match result {
            TaskResult::RESULT_UNSPECIFIED => None,
            TaskResult::RESULT_SUCCESS => Some(Self::Success),
            TaskResult::RESULT_FAILURE => Some(Self::Failure),
            TaskResult::RESULT_CANCELLED => Some(Self::Cancelled),
            TaskResult::RESULT_SKIPPED => Some(Self::Skipped),
        }
    }

    /// What the wire says of it: unspecified means that it is not final.
    pub(super) fn result(self) -> TaskResult {
        match self {
            Self::Success => TaskResult::RESULT_SUCCESS,
            Self::Failure => TaskResult::RESULT_FAILURE,
            Self::Cancelled => TaskResult::RESULT_CANCELLED,
            Self::Skipped => TaskResult::RESULT_SKIPPED,
            Self::Waiting | Self::Running | Self::Blocked => TaskResult::RESULT_UNSPECIFIED,
        }
    }

    /// The word that APIs and expressions have for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Blocked => "blocked",
        }
    }

    /// The status of several jobs together: of a run, or of the legs of a matrix.
    pub(super) fn of_all(all: impl IntoIterator<Item = Self>) -> Self {
        let all: Vec<_> = all.into_iter().collect();
        let has = |status| all.contains(&status);
        if all.iter().all(|status| status.is_done()) {
            return if has(Self::Failure) {
                Self::Failure
            } else if has(Self::Cancelled) {
                Self::Cancelled
            } else if has(Self::Success) {
                Self::Success
            } else {
                Self::Skipped
            };
        }
        if has(Self::Running) || all.iter().any(|status| status.is_done()) {
            Self::Running
        } else if has(Self::Waiting) {
            Self::Waiting
        } else {
            Self::Blocked
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_jobs_have_one_status() {
        use Status::{Blocked, Cancelled, Failure, Running, Skipped, Success, Waiting};
        let cases: &[(&[Status], Status)] = &[
            (&[Success, Skipped], Success),
            (&[Skipped, Skipped], Skipped),
            (&[Success, Cancelled], Cancelled),
            (&[Cancelled, Failure, Success], Failure),
            (&[Failure, Waiting], Running),
            (&[Running, Blocked], Running),
            (&[Waiting, Blocked], Waiting),
            (&[Blocked], Blocked),
        ];
        for (all, expected) in cases {
            assert_eq!(Status::of_all(all.iter().copied()), *expected, "{all:?}");
        }
    }
}
