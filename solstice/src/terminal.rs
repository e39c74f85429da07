//! The user's own terminal: its size, and raw mode that is always undone.

use std::io::{self, IsTerminal, Stdin};
use std::os::fd::AsFd;

use nix::sys::termios::{FlushArg, SetArg, Termios, cfmakeraw, tcflush, tcgetattr, tcsetattr};

/// The size where nobody knows it, in columns and rows.
const DEFAULT_SIZE: (u16, u16) = (80, 24);

/// Raw mode: every key goes to the guest, Ctrl-C included. Dropping it restores the terminal, on
/// errors and panics as well.
#[derive(Debug)]
pub(crate) struct RawMode {
    stdin: Stdin,
    before: Termios,
}

impl RawMode {
    /// Switches the terminal of standard input to raw mode; `None` if it is no terminal.
    ///
    /// # Errors
    /// The terminal refuses.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &raw)?;
        Ok(Some(Self { stdin, before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Keys that were meant for the guest are dropped. What the terminal has not shown yet is not
        // waited for: it may be stopped.
        let terminal = self.stdin.as_fd();
        let flushed = tcflush(terminal, FlushArg::TCIFLUSH);
        let restored = tcsetattr(terminal, SetArg::TCSANOW, &self.before);
        if let Err(error) = flushed.and(restored) {
            tracing::warn!(%error, "cannot restore the terminal");
        }
    }
}

/// Columns and rows of the terminal of standard output.
pub(crate) fn size() -> (u16, u16) {
    match console::Term::stdout().size_checked() {
        Some((rows, columns)) if rows > 0 && columns > 0 => (columns, rows),
        _ => DEFAULT_SIZE,
    }
}
