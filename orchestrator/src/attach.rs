//! The host's side of the conversation with the guest program, over any stream of bytes.
//!
//! The stream may be cut at any moment: [`Conversation`] remembers the next event that it wants, and
//! the caller opens a new stream and goes on. What the guest sends is bounded by the frame limit and
//! checked by [`EventLog`]. It keeps its events until they are acknowledged, which is when
//! [`EventLog::synced`] says so: nothing here waits for the disk.

mod silence;

use std::sync::Arc;
use std::time::Duration;

use common::JobId;
use common::event::JobResult;
use common::frame::{Decoder, FrameError, encode};
use common::guest::{ATTACH_VERSION, FromGuest, ToGuest};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::calls::{Calls, JobServices};
use crate::events::{EventLog, HOLD_LINES, ReceiverGone, Violation};
pub(crate) use silence::Silence;

/// How long the guest program may take to answer an attach. Generous: a guest that swaps is slow,
/// not lost.
const ATTACH_ANSWER: Duration = Duration::from_secs(60);
/// How long a frame to the guest may take to be written.
const WRITE: Duration = Duration::from_secs(60);
/// What is kept of a reason that a guest gives.
const REASON_BYTES: usize = 4096;
/// Bytes that are read at once: as much as one message of the SSH connection brings.
const READ_BYTES: usize = 32 * 1024;
/// Recorded events of so many bytes are committed without waiting for the end of what was read.
const COMMIT_BYTES: usize = 64 * 1024;
/// How long the guest's events that cause none of ours may wait for their commit, so that a guest
/// cannot fill the disk with them.
const QUIET: Duration = Duration::from_secs(1);
/// So many bytes of such events are committed at once.
const QUIET_BYTES: usize = 1024 * 1024;
/// How long the guest's last event may take to be on disk and acknowledged. It is a courtesy: the
/// guest program would linger without it.
const LAST_SYNC: Duration = Duration::from_secs(5);

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

impl From<Violation> for Interrupted {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation.to_string())
    }
}

/// What comes from a guest on one connection.
struct Incoming<'a, R> {
    reader: &'a mut R,
    decoder: Decoder,
    buffer: &'a mut [u8],
    calls: Calls,
}

/// How far the conversation about one job has come.
#[derive(Debug)]
pub struct Conversation {
    job: JobId,
    next: u64,
    result: Option<JobResult>,
    last_contact: Instant,
    silence: Silence,
    /// What the host does for the guest, if anything.
    services: Option<Arc<JobServices>>,
    /// Since when and of how many bytes there are guest's events to commit that caused none of ours.
    quiet: Option<(Instant, usize)>,
}

impl Conversation {
    /// A conversation that has not begun in this process; `next` is the first event that is wanted,
    /// [`EventLog::next_guest_event`].
    #[must_use]
    pub fn new(job: JobId, next: u64) -> Self {
        Self {
            job,
            next,
            result: None,
            last_contact: Instant::now(),
            silence: Silence::default(),
            services: None,
            quiet: None,
        }
    }

    /// The same, with something that answers the guest's calls.
    #[must_use]
    pub(crate) fn serving(mut self, services: Arc<JobServices>) -> Self {
        self.services = Some(services);
        self
    }

    /// Whose conversation it is.
    #[must_use]
    pub fn job(&self) -> JobId {
        self.job
    }

    /// When the guest was last heard, or the conversation was made.
    #[must_use]
    pub fn last_contact(&self) -> Instant {
        self.last_contact
    }

    /// Waits until there is something to say in the log about the guest's silence, and says it.
    ///
    /// # Errors
    /// The receiver is gone.
    pub(crate) async fn watch_silence(&mut self, log: &mut EventLog) -> Result<(), ReceiverGone> {
        sleep_until(self.silence.due(self.last_contact)).await;
        self.silence.look(self.last_contact, log).await
    }

    /// Takes the job's events from one stream until the job has ended, passing on a cancel.
    ///
    /// `heard` says when the connection below the stream last had a sign of life, which counts as
    /// contact while the guest has nothing to say.
    ///
    /// # Errors
    /// The stream ended first; see [`Interrupted`] for whether another one may help.
    pub async fn hold<R, W>(
        &mut self,
        mut reader: R,
        writer: W,
        log: &mut EventLog,
        cancel: &CancellationToken,
        heard: impl Fn() -> Instant,
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
        // Both beside the reading, which may wait for a slow receiver of the events.
        let pass_cancel = async {
            cancel.cancelled().await;
            match write(&writer, &ToGuest::Cancel).await {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        let acknowledged = watch::Sender::new(0);
        let acknowledge = acknowledge(&writer, log.synced(), &acknowledged);
        let (calls, mut replies) = Calls::new(self.services.clone());
        let pass_replies = async {
            while let Some(reply) = replies.recv().await {
                if let Err(error) = write(&writer, &reply).await {
                    return error;
                }
            }
            std::future::pending().await
        };
        let mut stream = Incoming { reader: &mut reader, decoder, buffer: &mut buffer, calls };
        let ended = tokio::select! {
            ended = self.read_events(&mut stream, acknowledged.subscribe(), log, &heard) => ended,
            error = pass_cancel => Err(error),
            error = acknowledge => Err(error),
            error = pass_replies => Err(error),
        };
        match (ended, self.result) {
            // The guest has nothing more to say that a new stream could bring.
            (Err(Interrupted::Lost(_)), Some(result)) if !log.is_dirty() => Ok(result),
            (ended, _) => ended,
        }
    }

    async fn read_events<R: AsyncRead + Unpin>(
        &mut self,
        stream: &mut Incoming<'_, R>,
        mut acknowledged: watch::Receiver<u64>,
        log: &mut EventLog,
        heard: &impl Fn() -> Instant,
    ) -> Result<JobResult, Interrupted> {
        loop {
            while let Some(frame) = stream.decoder.next_frame::<FromGuest>()? {
                match frame {
                    FromGuest::Call { call, ask } => {
                        stream.calls.take(call, ask).await.map_err(Interrupted::Violation)?;
                    }
                    frame => self.take(frame, log)?,
                }
                if log.pending_bytes() >= COMMIT_BYTES {
                    self.commit(log).await?;
                }
            }
            if log.has_events() || self.result.is_some() || self.is_quiet_over() {
                self.commit(log).await?;
            }
            if let Some(result) = self.result {
                let all = self.next - 1;
                drop(timeout(LAST_SYNC, acknowledged.wait_for(|seq| *seq >= all)).await);
                return Ok(result);
            }
            if log.is_dirty() {
                self.quiet.get_or_insert_with(|| (Instant::now(), 0));
            }
            tokio::select! {
                read = stream.reader.read(stream.buffer) => match read {
                    Ok(0) => return Err(lost("end of stream")),
                    Ok(count) => {
                        self.last_contact = Instant::now();
                        stream.decoder.push(&stream.buffer[..count]);
                        if let Some((_, bytes)) = &mut self.quiet {
                            *bytes += count;
                        }
                    }
                    Err(error) => return Err(lost(error)),
                },
                () = sleep(HOLD_LINES), if log.is_holding_lines() => log.flush_lines(),
                () = self.quiet_over() => {}
                () = sleep_until(self.silence.due(self.last_contact.max(heard()))) => {}
            }
            self.last_contact = self.last_contact.max(heard());
            self.silence.look(self.last_contact, log).await?;
        }
    }

    async fn commit(&mut self, log: &mut EventLog) -> Result<(), ReceiverGone> {
        self.quiet = None;
        if !log.is_dirty() {
            return Ok(());
        }
        log.commit().await?;
        // Nothing was read meanwhile, so that nothing was heard.
        self.last_contact = Instant::now();
        Ok(())
    }

    fn is_quiet_over(&self) -> bool {
        let over =
            |(since, bytes): (Instant, usize)| since.elapsed() >= QUIET || bytes >= QUIET_BYTES;
        self.quiet.is_some_and(over)
    }

    async fn quiet_over(&self) {
        match self.quiet {
            Some((since, _)) => sleep_until(since + QUIET).await,
            None => std::future::pending().await,
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

    fn take(&mut self, frame: FromGuest, log: &mut EventLog) -> Result<(), Interrupted> {
        match frame {
            FromGuest::Event { seq, event } if seq == self.next && self.result.is_none() => {
                self.result = log.record(event)?;
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

/// Acknowledges what is on disk as soon as it is, until that fails.
async fn acknowledge<W>(
    writer: &Mutex<W>,
    mut synced: watch::Receiver<u64>,
    acknowledged: &watch::Sender<u64>,
) -> Interrupted
where
    W: AsyncWrite + Unpin,
{
    let mut last = 0;
    loop {
        let seq = *synced.borrow_and_update();
        if seq > last {
            if let Err(error) = write(writer, &ToGuest::Ack { seq }).await {
                return error;
            }
            last = seq;
            acknowledged.send_replace(seq);
        }
        if synced.changed().await.is_err() {
            // The log is gone and whoever held the conversation goes as well.
            std::future::pending::<()>().await;
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
        FromGuest::Call { call, .. } => format!("a part of call {call}"),
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
