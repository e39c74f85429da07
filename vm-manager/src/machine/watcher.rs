//! Watching a machine for its end.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::ended::{Ended, EndedCell};
use super::launch::how_ended;
use super::qmp::{COMMAND_DEADLINE, Qmp};
use crate::host::{MachinePaths, Process};

/// How long QEMU may take to end after it closed its monitor, before we say that it no longer talks.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// The states in which a guest's processors stand still for good (QEMU's `RunState`), although no
/// event that we know names the cause. A failing accelerator ends in the first.
const DEAD_STATES: [&str; 3] = ["internal-error", "io-error", "guest-panicked"];

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
    /// Notes the end of the process, after everything that the monitor still had to say.
    pub(super) async fn run(self) {
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
        let answer = self.qmp.execute("query-status", Value::Null, COMMAND_DEADLINE).await;
        let Ok(answer) = answer else { return };
        let status = answer.get("status").and_then(Value::as_str).unwrap_or_default();
        if DEAD_STATES.contains(&status) {
            let detail = format!("it stopped the guest for good and gives as its state `{status}`");
            self.ended.set(Ended::QemuGone { detail });
        }
    }
}
