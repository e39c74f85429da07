//! A guest, logged in.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::connection::Connection;
use super::error::within;
use super::opening::{Request, start};
use super::quote::shell_command;
use super::run::collect;
use super::{Completed, Keys, Session, SshError, Stdin, StreamReader, Terminal};

/// The longest name of a terminal type that is sent.
const TERMINAL_NAME: usize = 64;

/// One authenticated connection to a guest. Clones share the connection; it closes when the last
/// clone and the last session are gone.
#[derive(Clone)]
pub struct Guest {
    pub(super) connection: Arc<Connection>,
    pub(super) privilege: Arc<[String]>,
    /// Set once the server has refused an SFTP session, so that it is not asked again.
    pub(super) without_sftp: Arc<AtomicBool>,
}

impl Guest {
    /// Connects to `address`, checks that the server shows the host key of `keys`, and logs in as
    /// `user`, all within `deadline`.
    ///
    /// # Errors
    ///
    /// [`SshError::Unreachable`] when nothing speaks SSH there yet, [`SshError::HostKey`],
    /// [`SshError::Refused`], [`SshError::Timeout`], or [`SshError::Protocol`].
    pub async fn connect(
        address: SocketAddr,
        user: &str,
        keys: &Keys,
        deadline: Duration,
    ) -> Result<Self, SshError> {
        Ok(Self::new(Connection::open(address, user, keys, deadline).await?))
    }

    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection: Arc::new(connection),
            privilege: Arc::default(),
            without_sftp: Arc::default(),
        }
    }

    /// The same connection, with commands and files handled as root: `prefix` stands in front of
    /// each command, such as `["sudo", "-n"]`. An empty prefix changes nothing. Login shells on a
    /// terminal stay the user's.
    #[must_use]
    pub fn with_privilege(mut self, prefix: &[String]) -> Self {
        self.privilege = prefix.into();
        self
    }

    /// Starts `command` in the guest's `/bin/sh` and returns once the server has taken it.
    ///
    /// It stands on the guest's process list and has to fit there: servers take about 8 KiB
    /// (dropbear). Anything longer or secret goes in over standard input.
    ///
    /// # Errors
    ///
    /// [`SshError::Lost`], [`SshError::Rejected`], or [`SshError::Timeout`] after 10 minutes
    /// without an answer.
    pub async fn exec(&self, command: &str) -> Result<Session, SshError> {
        let line = self.command_line(command)?;
        start(&self.connection, &[Request::Exec(&line)]).await
    }

    /// Starts `command` as [`Guest::exec`] does, for a protocol over its standard input and output.
    ///
    /// # Errors
    ///
    /// As for [`Guest::exec`].
    pub async fn exec_stream(&self, command: &str) -> Result<(StreamReader, Stdin), SshError> {
        Ok(self.exec(command).await?.into_split())
    }

    /// Runs `command` to its end with `stdin` as its input and keeps up to 1 MiB of each output.
    ///
    /// # Errors
    ///
    /// As for [`Guest::exec`], and [`SshError::Timeout`] when it has not ended after `deadline`;
    /// its channel is closed then.
    pub async fn run(
        &self,
        command: &str,
        stdin: Option<&[u8]>,
        deadline: Duration,
    ) -> Result<Completed, SshError> {
        let what = || format!("the command {:?} in the guest", abridge(command));
        let work = async { collect(self.exec(command).await?, stdin.unwrap_or_default()).await };
        within(deadline, what, work).await
    }

    /// Starts `command`, or the user's login shell, on a terminal of type `term` with
    /// `(columns, rows)` characters.
    ///
    /// # Errors
    ///
    /// As for [`Guest::exec`].
    pub async fn terminal(
        &self,
        command: Option<&str>,
        term: &str,
        (columns, rows): (u16, u16),
    ) -> Result<Terminal, SshError> {
        let line = command.map(|command| self.command_line(command)).transpose()?;
        let known = |c: char| c.is_ascii_alphanumeric() || "-+._".contains(c);
        let harmless = !term.is_empty() && term.len() <= TERMINAL_NAME && term.chars().all(known);
        let term = if harmless { term } else { "vt100" };
        let program = line.as_deref().map_or(Request::Shell, Request::Exec);
        let requests = [Request::Terminal { term, columns, rows }, program];
        let Session { stdin, output } = start(&self.connection, &requests).await?;
        let window = output.window();
        Ok(Terminal { stdin, output, window })
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// When the guest's SSH server was last heard. It is asked for a sign of life every 15 s, so a
    /// guest that has nothing to say is heard all the same; nothing is heard while a session is not
    /// read.
    #[must_use]
    pub fn last_heard(&self) -> tokio::time::Instant {
        self.connection.last_heard()
    }

    /// Waits until the connection has ended and says why: always [`SshError::Lost`].
    pub async fn closed(&self) -> SshError {
        self.connection.closed().await
    }

    /// Closes the connection for all its clones and waits until it is closed. Sessions that still
    /// run end with [`SshError::Lost`]. Where one of them is not read, this returns after 5 s and
    /// the connection closes when that session is dropped.
    pub async fn close(&self) {
        self.connection.close().await;
    }

    fn command_line(&self, command: &str) -> Result<String, SshError> {
        if command.contains('\0') || self.privilege.iter().any(|word| word.contains('\0')) {
            return Err(SshError::Nul("a command"));
        }
        Ok(shell_command(&self.privilege, command))
    }

    /// Whether files can go over SFTP: the server has it as far as is known, and it has the rights
    /// that commands have.
    pub(super) fn may_use_sftp(&self) -> bool {
        self.privilege.is_empty() && !self.without_sftp.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// The beginning of a command for a message.
fn abridge(command: &str) -> String {
    command.chars().take(80).collect()
}
