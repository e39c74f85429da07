//! The host's side of the conversation with the guest program, over any stream of bytes.
//!
//! The stream may be cut at any moment: [`Conversation`] remembers the next event that it wants, and
//! the caller opens a new stream and goes on. What the guest sends is bounded by the frame limit and
//! checked by [`EventLog`].

use std::time::Duration;

use common::JobId;
use common::event::JobResult;
use common::frame::{Decoder, FrameError, encode};
use common::guest::{ATTACH_VERSION, FromGuest, ToGuest};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::events::{EventLog, HOLD_LINES, ReceiverGone, RecordError};

/// How long the guest program may take to answer an attach. Generous: a guest that swaps is slow,
/// not lost.
const ATTACH_ANSWER: Duration = Duration::from_secs(60);
/// How long a frame to the guest may take to be written.
const WRITE: Duration = Duration::from_secs(60);
/// What is kept of a reason that a guest gives.
const REASON_BYTES: usize = 4096;
/// Bytes that are read at once.
const READ_BYTES: usize = 128 * 1024;

/// Why a stream ended before the job did.
#[derive(Debug, thiserror::Error)]
pub enum Interrupted {
    /// The stream was cut; a new one can go on.
    #[error("the connection to the guest program was lost: {0}")]
    Lost(String),
    /// The guest program is not there or cannot serve.
    #[error("the guest program does not answer: {0}")]
    Refused(String),
    /// The guest broke the rules; nothing that it says can be used.
    #[error("{0}")]
    Violation(String),
    /// Nobody reads the job's events any more.
    #[error(transparent)]
    ReceiverGone(#[from] ReceiverGone),
}

impl From<FrameError> for Interrupted {
    fn from(error: FrameError) -> Self {
        Self::Violation(error.to_string())
    }
}

impl From<RecordError> for Interrupted {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Violation(violation) => Self::Violation(violation.to_string()),
            RecordError::ReceiverGone(gone) => Self::ReceiverGone(gone),
        }
    }
}

/// How far the conversation about one job has come.
#[derive(Debug)]
pub struct Conversation {
    job: JobId,
    next: u64,
    result: Option<JobResult>,
    last_contact: Instant,
}

impl Conversation {
    /// A conversation that has not begun.
    #[must_use]
    pub fn new(job: JobId) -> Self {
        Self { job, next: 1, result: None, last_contact: Instant::now() }
    }

    /// When the guest program was last heard, or the conversation was made.
    #[must_use]
    pub fn last_contact(&self) -> Instant {
        self.last_contact
    }

    /// Takes the job's events from one stream until the job has ended, passing on a cancel.
    ///
    /// # Errors
    /// The stream ended first; see [`Interrupted`] for whether another one may help.
    pub async fn hold<R, W>(
        &mut self,
        mut reader: R,
        writer: W,
        log: &mut EventLog,
        cancel: &CancellationToken,
    ) -> Result<JobResult, Interrupted>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let writer = Mutex::new(writer);
        let attach = ToGuest::Attach { version: ATTACH_VERSION, from: self.next };
        write(&writer, &attach).await?;
        let mut decoder = Decoder::default();
        let mut buffer = vec![0; READ_BYTES];
        timeout(ATTACH_ANSWER, self.attached(&mut reader, &mut decoder, &mut buffer))
            .await
            .map_err(|_| lost(format!("no answer to an attach in {ATTACH_ANSWER:?}")))??;
        self.last_contact = Instant::now();
        // Beside the reading, which may wait for a slow receiver of the events.
        let pass_cancel = async {
            cancel.cancelled().await;
            match write(&writer, &ToGuest::Cancel).await {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        tokio::select! {
            result = self.read_events(&mut reader, decoder, &mut buffer, &writer, log) => result,
            error = pass_cancel => Err(error),
        }
    }

    async fn read_events<R, W>(
        &mut self,
        reader: &mut R,
        mut decoder: Decoder,
        buffer: &mut [u8],
        writer: &Mutex<W>,
        log: &mut EventLog,
    ) -> Result<JobResult, Interrupted>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut acknowledged = self.next;
        loop {
            while let Some(frame) = decoder.next_frame::<FromGuest>()? {
                self.take(frame, log).await?;
            }
            if self.next > acknowledged {
                acknowledged = self.next;
                let written = write(writer, &ToGuest::Ack { seq: self.next - 1 }).await;
                // With the result at hand the acknowledgement is a courtesy.
                if let Some(result) = self.result {
                    return Ok(result);
                }
                written?;
            }
            tokio::select! {
                read = reader.read(buffer) => match read {
                    Ok(0) => return Err(lost("end of stream")),
                    Ok(count) => {
                        self.last_contact = Instant::now();
                        decoder.push(&buffer[..count]);
                    }
                    Err(error) => return Err(lost(error)),
                },
                () = sleep(HOLD_LINES), if log.is_holding_lines() => log.flush_lines().await?,
            }
        }
    }

    async fn attached<R: AsyncRead + Unpin>(
        &self,
        reader: &mut R,
        decoder: &mut Decoder,
        buffer: &mut [u8],
    ) -> Result<(), Interrupted> {
        let frame = loop {
            if let Some(frame) = decoder.next_frame::<FromGuest>()? {
                break frame;
            }
            match reader.read(buffer).await {
                Ok(0) => return Err(lost("end of stream before an answer")),
                Ok(count) => decoder.push(&buffer[..count]),
                Err(error) => return Err(lost(error)),
            }
        };
        match frame {
            FromGuest::Attached { version: ATTACH_VERSION, job, next }
                if job == self.job && next == self.next =>
            {
                Ok(())
            }
            FromGuest::Refused { reason } => Err(refused(&reason)),
            other => Err(Interrupted::Violation(format!(
                "the answer to an attach at event {} of job {} is {}",
                self.next,
                self.job,
                name(&other)
            ))),
        }
    }

    async fn take(&mut self, frame: FromGuest, log: &mut EventLog) -> Result<(), Interrupted> {
        match frame {
            FromGuest::Event { seq, event } if seq == self.next && self.result.is_none() => {
                self.result = log.record(event).await?;
                self.next += 1;
                Ok(())
            }
            FromGuest::Refused { reason } => Err(refused(&reason)),
            other => Err(Interrupted::Violation(format!(
                "event {} was due and {} came",
                self.next,
                name(&other)
            ))),
        }
    }
}

/// A frame in words for a message; never its content.
fn name(frame: &FromGuest) -> String {
    match frame {
        FromGuest::Attached { version, job, next } => {
            format!("version {version} of job {job} at event {next}")
        }
        FromGuest::Event { seq, .. } => format!("event {seq}"),
        FromGuest::Refused { .. } => "a refusal".to_owned(),
    }
}

/// A reason that a guest gives, cut to what fits in a message.
fn refused(reason: &str) -> Interrupted {
    Interrupted::Refused(reason[..reason.floor_char_boundary(REASON_BYTES)].to_owned())
}

async fn write<W>(writer: &Mutex<W>, frame: &ToGuest) -> Result<(), Interrupted>
where
    W: AsyncWrite + Unpin,
{
    let bytes = encode(frame)?;
    let written = timeout(WRITE, async {
        let mut writer = writer.lock().await;
        writer.write_all(&bytes).await?;
        writer.flush().await
    });
    match written.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(lost(error)),
        Err(_) => Err(lost(format!("a write took longer than {WRITE:?}"))),
    }
}

fn lost(reason: impl std::fmt::Display) -> Interrupted {
    Interrupted::Lost(reason.to_string())
}

#[cfg(test)]
mod tests;
