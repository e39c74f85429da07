//! A command as a byte stream.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::sync::ReusableBoxFuture;

use super::session::Event;
use super::{ExitStatus, Output, Outputs, SshError};

/// Standard error kept beside the stream; the oldest bytes go first.
const STANDARD_ERROR_TAIL: usize = 16 * 1024;

/// The standard output of a command, as a byte stream.
///
/// It ends where the command closes its output. A lost connection is an error of kind
/// `ConnectionReset`, never an end. Standard error is read along and its tail kept for
/// [`StreamReader::finish`].
pub struct StreamReader {
    /// Reads one message; holds the channel.
    pending: ReusableBoxFuture<'static, Step>,
    chunk: Bytes,
    end: Option<End>,
    status: Option<ExitStatus>,
    stderr: Vec<u8>,
}

type Step = (Outputs, Result<Option<Event>, SshError>);

/// Why no more bytes come.
enum End {
    /// The command closed its output, but has not ended.
    OfOutput,
    /// The channel is closed.
    OfCommand,
    /// The connection is gone.
    Lost(String),
}

/// How a command behind a [`StreamReader`] ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Its status; `None` when the server closed the channel without telling it.
    pub status: Option<ExitStatus>,
    /// The last 16 KiB of its standard error.
    pub stderr: Vec<u8>,
}

impl StreamReader {
    pub(super) fn new(outputs: Outputs) -> Self {
        Self {
            pending: ReusableBoxFuture::new(step(outputs)),
            chunk: Bytes::new(),
            end: None,
            status: None,
            stderr: Vec::new(),
        }
    }

    /// Waits for the end of the command, dropping output that was not read.
    ///
    /// # Errors
    ///
    /// [`SshError::Lost`] when the connection went away before the command ended.
    pub async fn finish(mut self) -> Result<Ending, SshError> {
        while !matches!(self.end, Some(End::OfCommand)) {
            if let Some(End::Lost(reason)) = self.end {
                return Err(SshError::Lost { reason });
            }
            std::future::poll_fn(|cx| self.poll_step(cx)).await;
            self.chunk.clear();
        }
        Ok(Ending { status: self.status, stderr: self.stderr })
    }

    /// Takes one message into `self`.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (outputs, result) = ready!(self.pending.poll(cx));
        self.pending.set(step(outputs));
        match result {
            Ok(Some(Event::Output(Output::Stdout(bytes)))) => self.chunk = bytes,
            Ok(Some(Event::Output(Output::Stderr(bytes)))) => {
                let excess = (self.stderr.len() + bytes.len()).saturating_sub(STANDARD_ERROR_TAIL);
                self.stderr.extend_from_slice(&bytes);
                self.stderr.drain(..excess);
            }
            Ok(Some(Event::Output(Output::Exit(status)))) => self.status = Some(status),
            Ok(Some(Event::EndOfOutput)) => self.end = Some(End::OfOutput),
            Ok(None) => self.end = Some(End::OfCommand),
            Err(error) => {
                let reason = match error {
                    SshError::Lost { reason } => reason,
                    other => other.to_string(),
                };
                self.end = Some(End::Lost(reason));
            }
        }
        Poll::Ready(())
    }
}

async fn step(mut outputs: Outputs) -> Step {
    let result = outputs.event().await;
    (outputs, result)
}

impl AsyncRead for StreamReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.chunk.is_empty() {
                let count = self.chunk.len().min(buffer.remaining());
                buffer.put_slice(&self.chunk[..count]);
                self.chunk.advance(count);
                return Poll::Ready(Ok(()));
            }
            match &self.end {
                Some(End::Lost(reason)) => {
                    let error = SshError::Lost { reason: reason.clone() };
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error)));
                }
                Some(End::OfOutput | End::OfCommand) => return Poll::Ready(Ok(())),
                None => ready!(self.poll_step(cx)),
            }
        }
    }
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReader").field("status", &self.status).finish_non_exhaustive()
    }
}
