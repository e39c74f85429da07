//! How a machine ended, and how that is found out.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::ConsoleCause;
use super::console::{Console, Farewell};
use super::qmp::Event;
use crate::host::free_space;

/// How a machine ended. The first sign counts: what follows it is its consequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The guest powered itself off.
    PoweredOff,
    /// The guest restarted itself; QEMU ends instead of booting it again.
    Rebooted,
    /// The guest's kernel panicked and told QEMU so.
    Panicked,
    /// A read or write of the disk failed on the host. QEMU has stopped the guest, so that no step
    /// sees the error; the machine can only be destroyed.
    DiskError {
        /// What QEMU says, and how much room the host has.
        reason: String,
        /// Whether the host has no room.
        full: bool,
    },
    /// QEMU ended without the guest or us asking for it, or no longer talks to us.
    QemuGone {
        /// How it ended and its last words.
        detail: String,
    },
    /// We ended it.
    Stopped,
}

impl Ended {
    /// The end that the guest's kernel told on the console. It proves nothing alone: see
    /// [`Console::cause`].
    pub(super) fn told(console: &Console) -> Option<Self> {
        match (console.cause(), console.farewell()) {
            (Some(ConsoleCause::Panic(_)), _) => Some(Self::Panicked),
            (_, Some(Farewell::PowerOff)) => Some(Self::PoweredOff),
            (_, Some(Farewell::Restart)) => Some(Self::Rebooted),
            _ => None,
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PoweredOff => f.write_str("the machine powered itself off"),
            Self::Rebooted => f.write_str("the machine rebooted"),
            Self::Panicked => f.write_str("the guest's kernel panicked"),
            Self::DiskError { reason, .. } => write!(f, "the machine's disk failed: {reason}"),
            Self::QemuGone { detail } => write!(f, "QEMU is gone: {detail}"),
            Self::Stopped => f.write_str("the machine was stopped"),
        }
    }
}

/// Where the end of a machine is noted.
#[derive(Debug)]
pub(super) struct EndedCell {
    sender: watch::Sender<Option<Ended>>,
    stopping: AtomicBool,
    /// The guest's processors were stopped.
    stood_still: Notify,
    console: Console,
    state: PathBuf,
}

impl EndedCell {
    /// `state` is the directory on whose file system the overlay lies.
    pub(super) fn new(console: Console, state: PathBuf) -> Self {
        Self {
            sender: watch::Sender::new(None),
            stopping: AtomicBool::new(false),
            stood_still: Notify::new(),
            console,
            state,
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Ended>> {
        self.sender.subscribe()
    }

    /// The console in which an end may be explained.
    pub(super) fn console(&self) -> &Console {
        &self.console
    }

    /// From now on an end is our own doing.
    pub(super) fn expect_stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Notes an end, unless one is noted already. What the guest wrote until then is in the console
    /// before anybody hears of the end.
    pub(super) fn set(&self, ended: Ended) {
        self.console.poll();
        let ended = if self.stopping.load(Ordering::SeqCst) { Ended::Stopped } else { ended };
        self.sender.send_if_modified(|noted| {
            let first = noted.is_none();
            if first {
                *noted = Some(ended);
            }
            first
        });
    }

    /// Waits until the guest's processors were stopped, by whomever.
    pub(super) async fn stood_still(&self) {
        self.stood_still.notified().await;
    }

    /// Notes the end that an event stands for, if it does.
    pub(super) fn observe(&self, event: &Event) {
        if event.name == "STOP" {
            self.stood_still.notify_one();
        }
        if let Some(ended) = self.meaning(event) {
            self.set(ended);
        }
    }

    /// The events that end a machine (vm-facts 5 and 9). All others, `NIC_RX_FILTER_CHANGED` among
    /// them, mean nothing to us.
    fn meaning(&self, event: &Event) -> Option<Ended> {
        let text = |key: &str| event.data.get(key).and_then(Value::as_str).unwrap_or_default();
        match event.name.as_str() {
            "GUEST_PANICKED" => Some(Ended::Panicked),
            "SHUTDOWN" => match text("reason") {
                "guest-shutdown" => Some(Ended::PoweredOff),
                "guest-reset" => Some(Ended::Rebooted),
                "guest-panic" => Some(Ended::Panicked),
                other => Some(Ended::QemuGone { detail: format!("it shut down: {other}") }),
            },
            "BLOCK_IO_ERROR" => {
                let full = event.data.get("nospace").and_then(Value::as_bool).unwrap_or(false);
                let (operation, reason) = (text("operation"), text("reason"));
                Some(self.disk_error(&format!("{operation} failed with \"{reason}\""), full))
            }
            _ => None,
        }
    }

    /// A failure of the disk, with how much room the host has now.
    pub(super) fn disk_error(&self, what: &str, full: bool) -> Ended {
        let free = match free_space(&self.state) {
            Ok(free) => format!("{free} are free"),
            Err(error) => error.to_string(),
        };
        let reason = format!("{what}; {free} on the host in `{}`", self.state.display());
        Ended::DiskError { reason, full }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cell() -> (tempfile::TempDir, EndedCell) {
        let directory = tempfile::tempdir().unwrap();
        let console = Console::create(&directory.path().join("console.log"), None).unwrap();
        let cell = EndedCell::new(console, directory.path().to_owned());
        (directory, cell)
    }

    #[test]
    fn events_and_their_meaning() {
        let (_directory, cell) = cell();
        let check = |name: &str, data: Value, expected: Option<Ended>| {
            let event = Event { name: name.to_owned(), data };
            assert_eq!(cell.meaning(&event), expected, "{event:?}");
        };
        let shutdown = |reason: &str| json!({ "guest": true, "reason": reason });
        check("SHUTDOWN", shutdown("guest-shutdown"), Some(Ended::PoweredOff));
        check("SHUTDOWN", shutdown("guest-reset"), Some(Ended::Rebooted));
        check("SHUTDOWN", shutdown("guest-panic"), Some(Ended::Panicked));
        let detail = "it shut down: host-signal".to_owned();
        check("SHUTDOWN", shutdown("host-signal"), Some(Ended::QemuGone { detail }));
        check("GUEST_PANICKED", json!({ "action": "poweroff" }), Some(Ended::Panicked));
        check("NIC_RX_FILTER_CHANGED", json!({ "path": "/x" }), None);
        check("RESET", shutdown("guest-reset"), None);

        let data = json!({ "operation": "write", "reason": "No space left on device",
            "nospace": true, "action": "stop" });
        let event = Event { name: "BLOCK_IO_ERROR".to_owned(), data };
        let Some(Ended::DiskError { reason, full: true }) = cell.meaning(&event) else {
            panic!("{:?}", cell.meaning(&event))
        };
        assert!(reason.starts_with("write failed with \"No space"), "{reason}");
        assert!(reason.contains("are free on the host"), "{reason}");
    }

    #[test]
    fn the_first_sign_counts() {
        let (_directory, cell) = cell();
        let watch = cell.subscribe();
        cell.set(Ended::Panicked);
        cell.set(Ended::Rebooted);
        assert_eq!(*watch.borrow(), Some(Ended::Panicked));
    }

    #[test]
    fn an_expected_end_is_a_stop() {
        let (_directory, cell) = cell();
        cell.expect_stop();
        cell.set(Ended::PoweredOff);
        assert_eq!(*cell.subscribe().borrow(), Some(Ended::Stopped));
    }
}
