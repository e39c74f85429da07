//! A command that runs in the guest.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use russh::{ChannelMsg, ChannelReadHalf, Sig};

use super::connection::Lease;
use super::{SshError, Stdin, StreamReader, Window};

/// The number of an SSH data message that is standard error (RFC 4254, section 5.2).
const STANDARD_ERROR: u32 = 1;

/// The characters of a signal's name that are kept.
const SIGNAL_NAME: usize = 32;

/// What a command gives from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Bytes of its standard output, as they came: at most 32 KiB, cut anywhere.
    Stdout(Bytes),
    /// Bytes of its standard error, likewise. The order between the two streams is the server's.
    Stderr(Bytes),
    /// How it ended. Output may still follow.
    Exit(ExitStatus),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It ended by itself with this code.
    Code(u32),
    /// A signal ended it; the name is without `SIG`: `KILL`.
    Signal(String),
}

impl ExitStatus {
    /// Whether the command ended with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        *self == Self::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(name) => write!(f, "signal {name}"),
        }
    }
}

/// A command that runs in the guest. Dropping both parts closes the channel; whether that ends the
/// command is up to it and the server (OpenSSH closes its pipes, and its terminal if it has one).
#[derive(Debug)]
pub struct Session {
    /// Its standard input. Dropping it sends the end of the input.
    pub stdin: Stdin,
    /// Its output and its end.
    pub output: Outputs,
}

impl Session {
    /// The next piece of output; see [`Outputs::next`].
    ///
    /// # Errors
    ///
    /// As for [`Outputs::next`].
    pub async fn next(&mut self) -> Result<Option<Output>, SshError> {
        self.output.next().await
    }

    /// The command as two byte streams, for a protocol over its standard input and output.
    #[must_use]
    pub fn into_split(self) -> (StreamReader, Stdin) {
        (StreamReader::new(self.output), self.stdin)
    }
}

/// The output side of a command.
pub struct Outputs {
    read: ChannelReadHalf,
    /// What came before the server's answer to our request.
    early: VecDeque<ChannelMsg>,
    lease: Arc<Lease>,
    ended: bool,
}

/// What the reading side of a channel sees.
pub(super) enum Event {
    Output(Output),
    /// No more output follows; the end status still may.
    EndOfOutput,
}

impl Outputs {
    /// The output of what was started on a channel; `early` came before that was known.
    pub(super) fn new(
        read: ChannelReadHalf,
        early: VecDeque<ChannelMsg>,
        lease: Arc<Lease>,
    ) -> Self {
        Self { read, early, lease, ended: false }
    }

    /// The next piece of output or the end status; `None` when the command has ended and everything
    /// was read. Waits as long as the command is quiet. It may be cancelled without loss.
    ///
    /// # Errors
    ///
    /// [`SshError::Lost`] when the connection went away before the command ended.
    pub async fn next(&mut self) -> Result<Option<Output>, SshError> {
        loop {
            match self.event().await? {
                Some(Event::Output(output)) => return Ok(Some(output)),
                Some(Event::EndOfOutput) => {}
                None => return Ok(None),
            }
        }
    }

    /// What knows and changes the size of the terminal that this output comes from.
    pub(super) fn window(&self) -> Window {
        Window::new(Arc::clone(&self.lease))
    }

    pub(super) async fn event(&mut self) -> Result<Option<Event>, SshError> {
        while !self.ended {
            let message = match self.early.pop_front() {
                Some(message) => Some(message),
                None => self.read.wait().await,
            };
            let output = match message {
                Some(ChannelMsg::Data { data }) if !data.is_empty() => Output::Stdout(data),
                Some(ChannelMsg::ExtendedData { data, ext: STANDARD_ERROR })
                    if !data.is_empty() =>
                {
                    Output::Stderr(data)
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => {
                    Output::Exit(ExitStatus::Code(exit_status))
                }
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    Output::Exit(ExitStatus::Signal(name_of(&signal_name)))
                }
                Some(ChannelMsg::Eof) => return Ok(Some(Event::EndOfOutput)),
                Some(ChannelMsg::Close) => {
                    self.ended = true;
                    continue;
                }
                Some(_) => continue,
                None => {
                    self.ended = true;
                    return Err(self.lease.connection.lost());
                }
            };
            return Ok(Some(Event::Output(output)));
        }
        Ok(None)
    }
}

impl fmt::Debug for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outputs").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// The name of a signal, as the guest wrote it but short and harmless.
fn name_of(signal: &Sig) -> String {
    let name = match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name,
    };
    name.chars().filter(char::is_ascii_alphanumeric).take(SIGNAL_NAME).collect()
}
