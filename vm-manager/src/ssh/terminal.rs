//! An interactive terminal in the guest.

use std::fmt;
use std::sync::Arc;

use super::connection::Lease;
use super::{Outputs, SshError, Stdin};

/// A command or a login shell on a terminal of the guest.
///
/// Both output streams of the program arrive as [`Output::Stdout`](super::Output::Stdout): a
/// terminal has only one.
#[derive(Debug)]
pub struct Terminal {
    /// Keystrokes, as raw bytes.
    pub stdin: Stdin,
    /// What the terminal shows, and the end status.
    pub output: Outputs,
    /// The size of the terminal.
    pub window: Window,
}

/// The size of a terminal in the guest. Clones speak for the same terminal.
#[derive(Clone)]
pub struct Window {
    lease: Arc<Lease>,
}

impl Window {
    pub(super) fn new(lease: Arc<Lease>) -> Self {
        Self { lease }
    }

    /// Tells the guest that the terminal has another size now, in characters.
    ///
    /// # Errors
    ///
    /// [`SshError::Lost`] when the connection is gone.
    pub async fn resize(&self, columns: u16, rows: u16) -> Result<(), SshError> {
        self.lease
            .write
            .window_change(u32::from(columns), u32::from(rows), 0, 0)
            .await
            .map_err(|_| self.lease.connection.lost())
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window").finish_non_exhaustive()
    }
}
