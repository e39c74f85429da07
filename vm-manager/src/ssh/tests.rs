//! The connection against a real OpenSSH server, and against a server that misbehaves.

mod bytes;
mod commands;
mod files;
mod login;
mod misbehaving;
mod scripted;
mod sshd;
mod terminals;

use std::time::Duration;

/// The longest that anything in these tests may take.
const PATIENCE: Duration = Duration::from_secs(60);
