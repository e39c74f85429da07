//! Watching a machine for its end.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::console::Console;
use super::ended::{Ended, EndedCell};
use super::launch::how_ended;
use super::qmp::Qmp;
use super::status;
use crate::host::{MachinePaths, Process};

/// How long QEMU may take to end after it closed its monitor, before we say that it no longer talks.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// What the task that watches a machine holds.
#[derive(Debug)]
pub(super) struct Watcher {
    /// A hold of its own: the process may end while its machine is being dropped.
    pub(super) process: Process,
    pub(super) qmp: Arc<Qmp>,
    pub(super) ended: Arc<EndedCell>,
    pub(super) paths: MachinePaths,
}

impl Watcher {
    /// Watches the process and follows the console until the handles are dropped.
    pub(super) fn spawn(self, console: &Console) -> (Arc<EndedCell>, Vec<AbortOnDropHandle<()>>) {
        let ended = Arc::clone(&self.ended);
        let follow = console.clone().follow(self.paths.qemu_log());
        let tasks = vec![
            AbortOnDropHandle::new(tokio::spawn(follow)),
            AbortOnDropHandle::new(tokio::spawn(self.run())),
        ];
        (ended, tasks)
    }

    /// Notes the end of the process, after everything that the monitor still had to say.
    async fn run(self) {
        let closed = self.qmp.closed();
        tokio::pin!(closed);
        let detail = loop {
            tokio::select! {
                // A process that cannot be watched any more is as good as gone.
                _ = self.process.ended() => {
                    drop(tokio::time::timeout(END_DEADLINE, &mut closed).await);
                    break how_ended(&self.process, &self.paths.qemu_log());
                }
                reason = &mut closed => {
                    break match tokio::time::timeout(END_DEADLINE, self.process.ended()).await {
                        Ok(_) => how_ended(&self.process, &self.paths.qemu_log()),
                        Err(_) => format!("it runs but no longer talks to us: {reason}"),
                    };
                }
                () = self.ended.stood_still() => self.ask_why().await,
            }
        };
        self.ended.set(Ended::QemuGone { detail });
    }

    /// The guest stands still: by our wish, or for good.
    async fn ask_why(&self) {
        if let Ok(state) = status::of(&self.qmp).await
            && status::is_dead(&state)
        {
            self.ended.set(status::stopped_for_good(&state));
        }
    }
}
