//! A command that runs in the guest.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use russh::{ChannelMsg, ChannelReadHalf, Sig};
use tokio::io::AsyncWrite;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::connection::{Connection, Lease, SILENCE};
use super::error::within;
use super::{SshError, StreamReader, Window};

/// The number of an SSH data message that is standard error (RFC 4254, section 5.2).
const STANDARD_ERROR: u32 = 1;

/// Messages that a server may send before it has answered our request; more break the protocol.
const EARLY_MESSAGES: usize = 64;

/// Channels that are opened for one request before it is given up.
const ATTEMPTS: u32 = 8;

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

/// The standard input of a command, as a byte stream.
///
/// `shutdown` sends the end of the input, and so does dropping it. Writing waits while the guest
/// takes nothing, and fails with `BrokenPipe` once the command has ended or the connection is gone.
/// A write that was cancelled half-way may have been sent: do not repeat it.
pub struct Stdin {
    write: Pin<Box<dyn AsyncWrite + Send>>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    lease: Arc<Lease>,
    finished: bool,
}

impl Stdin {
    fn new(lease: Arc<Lease>) -> Self {
        Self {
            write: Box::pin(lease.write.make_writer()),
            closed: Box::pin(lease.closed.clone().cancelled_owned()),
            lease,
            finished: false,
        }
    }

    /// Unless the other side takes it first, the end of the channel ends a write: the library would
    /// wait for room in the guest's window forever.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.closed.as_mut().poll(cx).map(|()| {
            io::Error::new(io::ErrorKind::BrokenPipe, "the command in the guest takes no input")
        })
    }
}

impl AsyncWrite for Stdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if let Poll::Ready(error) = self.poll_broken(cx) {
            return Poll::Ready(Err(error));
        }
        self.write.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.finished || self.poll_broken(cx).is_ready() {
            self.finished = true;
            return Poll::Ready(Ok(()));
        }
        let shutdown = self.write.as_mut().poll_shutdown(cx);
        self.finished |= shutdown.is_ready();
        shutdown
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        if self.finished || self.lease.closed.is_cancelled() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let lease = Arc::clone(&self.lease);
        // A drop cannot wait for room in the queue. Where the message cannot be sent the connection
        // is gone, and the command's input with it.
        runtime.spawn(async move { drop(lease.write.eof().await) });
    }
}

impl fmt::Debug for Stdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdin").field("finished", &self.finished).finish_non_exhaustive()
    }
}

/// A request on a fresh channel.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    Exec(&'a str),
    Subsystem(&'static str),
    Shell,
    Terminal { term: &'a str, columns: u16, rows: u16 },
}

impl Request<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Exec(_) => "a command",
            Self::Subsystem(_) => "a subsystem",
            Self::Shell => "a login shell",
            Self::Terminal { .. } => "a terminal",
        }
    }
}

/// Opens a channel and makes `requests` on it, of which the last one starts something. Returns once
/// the server has taken them all.
///
/// Dropbear closes a channel on which nothing was started yet when a process of any other channel
/// ends at that moment (seen with 2022.83). It starts nothing on it any more, so another channel is
/// tried.
pub(super) async fn start(
    connection: &Arc<Connection>,
    requests: &[Request<'_>],
) -> Result<Session, SshError> {
    let mut attempt = 1;
    loop {
        let mut opening = Opening::new(connection).await?;
        match opening.make(requests).await? {
            Answer::Taken => return Ok(opening.into_session()),
            Answer::Closed if attempt < ATTEMPTS => attempt += 1,
            Answer::Closed => {
                let text = format!("a channel, which it closed {ATTEMPTS} times");
                return Err(SshError::Rejected(text));
            }
        }
    }
}

/// What the server made of our requests.
enum Answer {
    Taken,
    /// It closed the channel before it answered.
    Closed,
}

/// A channel on which nothing was started yet.
struct Opening {
    read: ChannelReadHalf,
    early: VecDeque<ChannelMsg>,
    lease: Arc<Lease>,
}

impl Opening {
    async fn new(connection: &Arc<Connection>) -> Result<Self, SshError> {
        let (read, lease) = connection.channel().await?;
        Ok(Self { read, early: VecDeque::new(), lease })
    }

    async fn make(&mut self, requests: &[Request<'_>]) -> Result<Answer, SshError> {
        for request in requests {
            let what = || format!("the request for {}", request.name());
            let answer = within(SILENCE, what, self.request(*request)).await?;
            if matches!(answer, Answer::Closed) {
                return Ok(answer);
            }
        }
        Ok(Answer::Taken)
    }

    /// Sends a request and waits until the server has answered it.
    async fn request(&mut self, request: Request<'_>) -> Result<Answer, SshError> {
        let write = &self.lease.write;
        let sent = match request {
            Request::Exec(command) => write.exec(true, command).await,
            Request::Subsystem(name) => write.request_subsystem(true, name).await,
            Request::Shell => write.request_shell(true).await,
            Request::Terminal { term, columns, rows } => {
                let (columns, rows) = (u32::from(columns), u32::from(rows));
                write.request_pty(true, term, columns, rows, 0, 0, &[]).await
            }
        };
        sent.map_err(|_| self.lease.connection.lost())?;
        loop {
            match self.read.wait().await {
                Some(ChannelMsg::Success) => return Ok(Answer::Taken),
                Some(ChannelMsg::Failure) => {
                    return Err(SshError::Rejected(request.name().to_owned()));
                }
                Some(ChannelMsg::Close) => return Ok(Answer::Closed),
                Some(ChannelMsg::WindowAdjusted { .. }) => {}
                Some(message) if self.early.len() < EARLY_MESSAGES => {
                    self.early.push_back(message);
                }
                Some(_) => {
                    let name = request.name();
                    let text = format!("it sent output before it answered the request for {name}");
                    return Err(SshError::Protocol(text));
                }
                None => return Err(self.lease.connection.lost()),
            }
        }
    }

    fn into_session(self) -> Session {
        let Self { read, early, lease } = self;
        Session {
            stdin: Stdin::new(Arc::clone(&lease)),
            output: Outputs { read, early, lease, ended: false },
        }
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
