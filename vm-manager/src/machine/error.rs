//! Why a machine did not start, come up or go on, and what that means for a job.

use std::path::PathBuf;
use std::time::Duration;

use common::infrastructure::{Cause, Infrastructure};

use super::qmp::QmpError;
use super::{CONSOLE_TAIL_LINES, Console, ConsoleCause, Ended};
use crate::frozen::FrozenError;
use crate::host::{DiskShort, HostError};
use crate::seed::SeedError;
use crate::ssh::{KeyError, SshError};
use crate::template::TemplateError;

/// Why a machine did not start or come up.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A size that no machine can have.
    #[error("a machine cannot have {reason}")]
    Size {
        /// What was asked for and what is possible.
        reason: String,
    },
    /// The image is for another processor.
    #[error(
        "the image `{label}` is for {wanted}, and QEMU here is that for {there}; choose an image for \
         {there} (see `solstice image list`)"
    )]
    Architecture {
        /// The image.
        label: String,
        /// What it is for.
        wanted: String,
        /// What machines are made for.
        there: &'static str,
    },
    /// A file of the image is missing.
    #[error(
        "the image `{label}` is incomplete: `{}`: {reason}; run `solstice image pull {label}`",
        path.display()
    )]
    ImageFile {
        /// The image.
        label: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The host's disk has too little room.
    #[error(transparent)]
    DiskShort(#[from] DiskShort),
    /// The host's side failed: directories, records, room, QEMU's absence.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The machine's disk could not be made.
    #[error("cannot make the machine's disk: {reason}")]
    Overlay {
        /// What `qemu-img` said.
        reason: String,
    },
    /// The seed could not be made.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// Keys could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// QEMU refused to start.
    #[error("QEMU did not start: {reason}")]
    QemuStart {
        /// QEMU's own words.
        reason: String,
    },
    /// QEMU's monitor failed.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// A template could not be restored.
    #[error("the template cannot be used: {0}")]
    Template(#[from] Box<TemplateError>),
    /// A frozen machine could not go on.
    #[error("the frozen machine cannot go on: {0}")]
    Frozen(#[from] Box<FrozenError>),
    /// No SSH server answered in time.
    #[error("the guest did not answer within {}{}", seconds(*ceiling), with_console(console))]
    BootTimeout {
        /// How long we waited.
        ceiling: Duration,
        /// The last lines of its console.
        console: Vec<String>,
    },
    /// The machine ended while it booted.
    #[error("{ended} while it booted{}", with_console(console))]
    BootEnded {
        /// How.
        ended: Ended,
        /// The last lines of its console.
        console: Vec<String>,
    },
    /// The guest's kernel panicked while it booted.
    #[error("the guest's kernel panicked while it booted: {line}{}", with_console(console))]
    BootPanic {
        /// What it said.
        line: String,
        /// The last lines of its console.
        console: Vec<String>,
    },
    /// The guest's SSH server answers but does not let us in.
    #[error("the guest answers but login failed: {source}{}", with_console(console))]
    Login {
        /// The last attempt.
        #[source]
        source: SshError,
        /// The last lines of its console.
        console: Vec<String>,
    },
}

impl MachineError {
    /// The cause that stands in the job's log.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Size { .. } => Cause::HostMemory,
            Self::Architecture { .. } => Cause::QemuMissing,
            Self::ImageFile { .. } => Cause::ImageUnavailable,
            Self::DiskShort(_) => Cause::HostDiskFull,
            Self::Host(error) => error.cause(),
            Self::Overlay { reason } if reason.contains("No space left") => Cause::HostDiskFull,
            Self::Seed(SeedError::Write { source, .. }) if crate::host::is_full(source) => {
                Cause::HostDiskFull
            }
            Self::Overlay { .. } | Self::QemuStart { .. } | Self::Qmp(_) => Cause::QemuStart,
            Self::Seed(_) | Self::Key(_) | Self::Template(_) | Self::Frozen(_) => Cause::Internal,
            Self::BootTimeout { .. } => Cause::BootTimeout,
            Self::BootEnded { ended, .. } => match ended {
                Ended::Panicked => Cause::GuestPanic,
                Ended::DiskError { full: true, .. } => Cause::HostDiskFull,
                Ended::DiskError { .. } => Cause::GuestDiskError,
                Ended::QemuGone { .. } => Cause::QemuKilled,
                Ended::PoweredOff | Ended::Rebooted | Ended::Stopped => Cause::BootFailed,
            },
            Self::BootPanic { .. } => Cause::GuestPanic,
            Self::Login { .. } => Cause::GuestLogin,
        }
    }

    /// The cause with this occurrence as a sentence.
    #[must_use]
    pub fn infrastructure(&self) -> Infrastructure {
        Infrastructure::new(self.cause(), self.to_string())
    }
}

/// What the end of a machine means for the job that ran on it. The console names a cause that QEMU
/// cannot see: a kernel that panics without a device to tell it only seems to reboot.
pub(super) fn ended(ended: &Ended, console: &Console) -> Infrastructure {
    let tail = console.tail(CONSOLE_TAIL_LINES);
    let said = console.cause();
    let cause = match (ended, &said) {
        (Ended::Panicked, _) | (Ended::Rebooted, Some(ConsoleCause::Panic(_))) => Cause::GuestPanic,
        (Ended::PoweredOff, _) => Cause::GuestPoweredOff,
        (Ended::Rebooted, _) => Cause::GuestRebooted,
        (Ended::DiskError { full: true, .. }, _) => Cause::HostDiskFull,
        (Ended::DiskError { .. }, _) => Cause::GuestDiskError,
        (Ended::QemuGone { .. }, _) => Cause::QemuKilled,
        (Ended::Stopped, _) => Cause::Internal,
    };
    let detail = match said {
        Some(ConsoleCause::Panic(line)) if cause == Cause::GuestPanic => format!(": {line}"),
        _ => String::new(),
    };
    let what = if cause == Cause::GuestPanic { &Ended::Panicked } else { ended };
    // The host's own troubles are not explained by what the guest wrote.
    let tail = if matches!(cause, Cause::QemuKilled | Cause::HostDiskFull) { vec![] } else { tail };
    Infrastructure::new(cause, format!("{what}{detail}{}", with_console(&tail)))
}

fn seconds(time: Duration) -> String {
    format!("{:.0} s", time.as_secs_f64().ceil())
}

fn with_console(lines: &[String]) -> String {
    if lines.is_empty() {
        return "; its console is empty".to_owned();
    }
    let mut text = "; the end of its console:".to_owned();
    for line in lines {
        text.push_str("\n    ");
        text.push_str(line);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn ends_and_their_causes() {
        let gone = Ended::QemuGone { detail: "was ended by SIGKILL".to_owned() };
        let full = Ended::DiskError { reason: "x".to_owned(), full: true };
        let broken = Ended::DiskError { reason: "x".to_owned(), full: false };
        let panic = "[1.0] Kernel panic - not syncing: Attempted to kill init!\n";
        let check = |console_text: &str, how: &Ended, expected: Cause| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("console.log");
            let console = Console::create(&path, None).unwrap();
            let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all(console_text.as_bytes()).unwrap();
            console.poll();
            let found = ended(how, &console);
            assert_eq!(found.cause, expected, "{found}");
        };
        check("", &Ended::PoweredOff, Cause::GuestPoweredOff);
        check("", &Ended::Rebooted, Cause::GuestRebooted);
        check(panic, &Ended::Rebooted, Cause::GuestPanic);
        check("", &Ended::Panicked, Cause::GuestPanic);
        check("", &gone, Cause::QemuKilled);
        // A step that writes such a line does not make a killed QEMU its own fault.
        check(panic, &gone, Cause::QemuKilled);
        check("", &full, Cause::HostDiskFull);
        check("", &broken, Cause::GuestDiskError);
    }

    #[test]
    fn messages_carry_the_console() {
        let error = MachineError::BootTimeout {
            ceiling: Duration::from_secs(180),
            console: vec!["one".to_owned(), "two".to_owned()],
        };
        assert_eq!(
            error.infrastructure().message,
            "the guest did not answer within 180 s; the end of its console:\n    one\n    two"
        );
        let error =
            MachineError::BootTimeout { ceiling: Duration::from_millis(1), console: vec![] };
        assert!(error.to_string().ends_with("its console is empty"), "{error}");
    }
}
