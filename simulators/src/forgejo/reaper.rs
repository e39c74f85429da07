//! What the server does by its clock (forgejo-runner-protocol 6.5).

use std::time::Duration;

use super::state::State;
use super::status::Status;

/// How long a task may go without an `UpdateTask`.
const ZOMBIE: Duration = Duration::from_secs(10 * 60);

/// How long a task may run.
const ENDLESS: Duration = Duration::from_secs(3 * 60 * 60);

/// How long a job may wait.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

impl State {
    /// Ends what took too long. Only `UpdateTask` keeps a task from being a zombie: whether rows do is
    /// not known (forgejo-runner-protocol 15), and who relies on it is found out here.
    pub(super) fn reap(&mut self) {
        let now = self.clock.now();
        let lost: Vec<_> = self
            .tasks
            .values()
            .filter(|task| task.status == Status::Running)
            .filter(|task| task.updated + ZOMBIE < now || task.started + ENDLESS < now)
            .map(|task| task.id)
            .collect();
        for task in lost {
            self.stop_task(task, Status::Failure, true);
        }
        self.abandon(now - ABANDONED);
    }
}
