//! The SSH connection to a guest.
//!
//! [`Keys`] are made for one machine and pin both directions: the guest knows our login key and we
//! know its host key, because both reach it on the [seed](crate::seed). [`Guest`] is one
//! authenticated connection; over it go [commands](Guest::exec) with live output, [byte
//! streams](Guest::exec_stream), [files](Guest::upload) and [terminals](Guest::terminal).
//!
//! The guest is hostile: what it sends is kept in bounded buffers and a slow consumer blocks the
//! guest, not the host's memory. That back-pressure acts on the whole connection, because the SSH
//! library has no window of its own for each channel: while one [`Session`] is not read, nothing
//! else moves on the same [`Guest`]. Whoever must get through meanwhile opens a second [`Guest`];
//! a session that nobody wants to read is dropped, which closes it.
//!
//! Nothing here retries: a lost connection ends every session with [`SshError::Lost`], and the
//! caller connects again.

mod connection;
mod error;
mod guest;
mod heard;
mod keys;
mod opening;
mod quote;
mod refused;
mod run;
mod session;
mod sftp;
mod stdin;
mod stream;
mod terminal;
#[cfg(test)]
mod tests;
mod transfer;

pub use error::{SshError, says_full};
pub use guest::Guest;
pub use keys::{KeyError, Keys};
pub(crate) use keys::{parse_private, parse_public, private_file, public_line};
pub use quote::{quote, quote_path};
pub use run::Completed;
pub use session::{ExitStatus, Output, Outputs, Session};
pub use stdin::Stdin;
pub use stream::{Ending, StreamReader};
pub use terminal::{Terminal, Window};
