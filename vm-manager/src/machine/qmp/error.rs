//! What can go wrong between us and QEMU.

use std::io;
use std::time::Duration;

/// A failure of the monitor connection or of one command.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket cannot be used.
    #[error("cannot talk to QEMU's monitor: {0}")]
    Io(#[from] io::Error),
    /// A line that is longer than anything QEMU says to us.
    #[error("QEMU's monitor sent a line of more than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// A line that is not QMP.
    #[error("QEMU's monitor sent something that is not its protocol: {0}")]
    Malformed(String),
    /// QEMU refused a command.
    #[error("QEMU refused `{command}`: {reason}")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's own words.
        reason: String,
    },
    /// No answer in time.
    #[error("QEMU did not answer `{command}` within {deadline:?}")]
    Timeout {
        /// The command, or "greeting".
        command: &'static str,
        /// How long we waited.
        deadline: Duration,
    },
    /// The connection ended; QEMU is ending.
    #[error("QEMU closed its monitor before it answered `{command}`")]
    Closed {
        /// The command.
        command: &'static str,
    },
    /// The answer does not have what we need.
    #[error("QEMU's answer to `{command}` has no {what}")]
    Incomplete {
        /// The command.
        command: &'static str,
        /// What is missing.
        what: &'static str,
    },
}
