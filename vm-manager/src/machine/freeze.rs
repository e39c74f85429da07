//! From a running guest to the files of a template.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::port::Port;
use super::{Machine, MachineError, migration};
use crate::host::{HostError, Promise};
use crate::template::{TemplateError, files};

/// How long QEMU may take to end: it writes what is left of the disk.
const END: Duration = Duration::from_secs(60);

/// How long a guest may take to come to rest. It is frozen then, whatever it does.
const REST: Duration = Duration::from_secs(30);

/// How long connections into a guest may take to end.
const CONNECTIONS: Duration = Duration::from_secs(30);

/// A guest is at rest when its QEMU used no more than a tenth of a processor for so long.
const REST_WINDOW: Duration = Duration::from_millis(400);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

impl Machine {
    /// The host's end of the guest's second serial port. What the guest wrote before is lost.
    ///
    /// # Errors
    /// The machine has none, or somebody else has it.
    pub async fn port(&self) -> Result<Port, TemplateError> {
        Port::open(&self.body.paths().port()).await
    }

    /// Freezes a guest that was started as a [mould](super::Origin::Mould), once it is at rest, into
    /// the files of a template in this directory, that of the mould. The guest ends; its room is for
    /// another machine then.
    ///
    /// # Errors
    /// Connections are open into it, or QEMU cannot save it.
    pub async fn freeze(self, directory: &Path) -> Result<Promise, MachineError> {
        self.save(directory).await.map_err(Box::new)?;
        self.destroy_for_another().await
    }

    async fn save(&self, directory: &Path) -> Result<(), TemplateError> {
        self.wait_unconnected().await?;
        self.wait_rest().await;
        self.ended.expect_stop();
        self.pause().await?;
        if let Some(qmp) = &self.qmp {
            migration::save(qmp, &files::device(directory)).await?;
        }
        // What it wrote to its disk is in the file when it has ended.
        drop(self.command("quit").await);
        if let Some(process) = self.body.process() {
            let ended = tokio::time::timeout(END, process.ended()).await;
            let what = "QEMU's way out of a frozen guest";
            ended
                .map_err(|_| TemplateError::Timeout { what, deadline: END })?
                .map_err(HostError::io("wait for", directory))?;
        }
        Ok(())
    }

    /// A connection that is open when a guest is frozen would be there in every clone.
    async fn wait_unconnected(&self) -> Result<(), TemplateError> {
        let Some(qmp) = &self.qmp else { return Ok(()) };
        let deadline = Instant::now() + CONNECTIONS;
        loop {
            let table = qmp.human("info usernet").await?;
            if !table.lines().any(is_open) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let what = "the connections into the guest";
                return Err(TemplateError::Timeout { what, deadline: CONNECTIONS });
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until the guest does nothing, for a while at most.
    async fn wait_rest(&self) {
        let Some(process) = self.body.process() else { return };
        let pid = process.identity().pid;
        let deadline = Instant::now() + REST;
        while Instant::now() < deadline {
            let before = processor_time(pid);
            sleep(REST_WINDOW).await;
            match (before, processor_time(pid)) {
                (Some(before), Some(after)) if after - before <= REST_WINDOW / 10 => return,
                (Some(_), Some(_)) => {}
                _ => return,
            }
        }
        tracing::info!(vm.id = %self.id(), "a guest that does not come to rest is frozen all the same");
    }
}

/// Whether a line of `info usernet` is that of a connection of which the guest knows: not where
/// QEMU waits for the next one, or for late packets of one that was.
fn is_open(line: &str) -> bool {
    let state = line.trim_start().strip_prefix("TCP[").and_then(|line| line.split_once(']'));
    state.is_some_and(|(state, _)| !["HOST_FORWARD", "TIME_WAIT", "CLOSED"].contains(&state))
}

/// The processor time that a process has used (proc(5), fields 14 and 15 of `stat`).
fn processor_time(pid: i32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let per_second =
        nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten()?.unsigned_abs();
    Some(Duration::from_millis((ticks(11)? + ticks(12)?) * 1000 / per_second.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_a_clone_would_have() {
        for (state, expected) in [
            ("ESTABLISHED", true),
            ("SYN_SENT", true),
            ("FIN_WAIT_2", true),
            ("CLOSE_WAIT", true),
            ("HOST_FORWARD", false),
            ("TIME_WAIT", false),
        ] {
            let line = format!("  TCP[{state}]  12  127.0.0.1 1111  10.0.2.15  22  0  0\r");
            assert_eq!(is_open(&line), expected, "{state}");
        }
        assert!(!is_open("Hub -1 (n0):") && !is_open("  UDP[234 sec] 9 * 68 10.0.2.2 67 0 0"));
    }
}
