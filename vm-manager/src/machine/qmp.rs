//! QEMU's monitor protocol (QMP): lines of JSON over a unix socket.
//!
//! A client of our own, for three reasons: every command has a deadline, a line has a limit, and
//! values that a newer QEMU adds disturb nothing that we do not ask for.

mod blocking;
mod client;
mod error;
mod message;
mod usernet;

pub(crate) use blocking::ask_name;
pub(crate) use client::{COMMAND_DEADLINE, Qmp};
pub use error::QmpError;
pub(super) use message::Event;
pub(super) use usernet::forwarded_port;
