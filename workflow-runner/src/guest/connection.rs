//! One attached host, and the greeting before it.

use std::io;
use std::time::Duration;

use common::JobId;
use common::frame::{self, Decoder, FrameError};
use common::guest::{ATTACH_VERSION, FromGuest, ToGuest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::spool::Spool;

/// How long a new connection may take to say what it wants, and to take in why it is refused.
const GREETING_DEADLINE: Duration = Duration::from_secs(10);

/// The bytes of frames that are gathered for one write.
const WRITE_BYTES: usize = 64 * 1024;

/// The bytes that one read takes: about those of one part of a call.
const READ_BYTES: usize = 32 * 1024;

/// A connection that said which events it wants.
pub(super) struct Greeted {
    stream: UnixStream,
    decoder: Decoder,
    from: u64,
}

/// Reads the first frame of a new connection. `None` if the connection is not one that can be
/// served; where it spoke at all it is told why.
pub(super) async fn greet(mut stream: UnixStream) -> Option<Greeted> {
    let mut decoder = Decoder::default();
    let first = timeout(GREETING_DEADLINE, first_frame(&mut stream, &mut decoder)).await.ok()?;
    let reason = match &first {
        Ok(ToGuest::Attach { version: ATTACH_VERSION, from: 1.. }) => None,
        Ok(ToGuest::Attach { version: ATTACH_VERSION, .. }) => {
            Some("events are numbered from 1".to_owned())
        }
        Ok(ToGuest::Attach { version, .. }) => Some(format!(
            "this guest program speaks version {ATTACH_VERSION} and the host version {version}"
        )),
        Ok(_) => Some("the first frame must be an attach".to_owned()),
        Err(Fault::Malformed(error)) => Some(error.to_string()),
        Err(Fault::Closed) => return None,
    };
    match (first, reason) {
        (Ok(ToGuest::Attach { from, .. }), None) => Some(Greeted { stream, decoder, from }),
        (_, reason) => {
            let refused = refusal(reason.unwrap_or_default());
            drop(timeout(GREETING_DEADLINE, stream.write_all(&refused)).await);
            None
        }
    }
}

/// The frame that tells a host why it is not served.
pub(super) fn refusal(mut reason: String) -> Vec<u8> {
    // Frames have a limit; a sentence is far below it.
    reason.truncate(reason.floor_char_boundary(4096));
    frame::encode(&FromGuest::Refused { reason }).expect("a sentence fits in a frame")
}

/// Why there is no first frame.
enum Fault {
    Closed,
    Malformed(FrameError),
}

async fn first_frame(stream: &mut UnixStream, decoder: &mut Decoder) -> Result<ToGuest, Fault> {
    let mut buffer = [0; READ_BYTES];
    loop {
        if let Some(frame) = decoder.next_frame().map_err(Fault::Malformed)? {
            return Ok(frame);
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return Err(Fault::Closed),
            Ok(bytes) => decoder.push(&buffer[..bytes]),
        }
    }
}

/// What happened on a connection.
pub(super) enum Turn {
    /// Bytes came or went; there may be frames now, and room for more.
    Moved,
    /// It is over.
    Closed,
}

/// An attached host.
pub(super) struct Connection {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    decoder: Decoder,
    incoming: Box<[u8; READ_BYTES]>,
    /// Whole frames, of which the first `written` bytes are on their way.
    out: Vec<u8>,
    written: usize,
    /// The next event to put into `out`.
    next: u64,
    /// The bytes of other messages in `out`.
    said: usize,
    /// Nothing is sent or heard after what is in `out`.
    refused: bool,
}

impl Connection {
    /// Answers a greeting.
    pub(super) fn answer(greeted: Greeted, job: JobId, spool: &Spool) -> Self {
        let Greeted { stream, decoder, from } = greeted;
        let (reader, writer) = stream.into_split();
        let next = from.max(spool.first());
        let mut connection = Self {
            reader,
            writer,
            decoder,
            incoming: Box::new([0; READ_BYTES]),
            out: Vec::new(),
            written: 0,
            next,
            said: 0,
            refused: false,
        };
        if next > spool.next() {
            let made = spool.next() - 1;
            connection.refuse(format!("event {from} is wanted, but only {made} were made"));
        } else {
            let attached = FromGuest::Attached { version: ATTACH_VERSION, job, next };
            frame::encode_into(&mut connection.out, &attached).expect("it fits in a frame");
        }
        connection
    }

    /// Gathers events to send, if what was gathered before is gone.
    pub(super) fn fill(&mut self, spool: &Spool) {
        if self.refused || self.written < self.out.len() {
            return;
        }
        self.out.clear();
        self.written = 0;
        self.said = 0;
        // One large event must not hold its memory for the rest of the job.
        self.out.shrink_to(4 * WRITE_BYTES);
        match spool.read(self.next, WRITE_BYTES, &mut self.out) {
            Ok(next) => self.next = next,
            Err(error) => self.refuse(format!("the spool cannot be read: {error}")),
        }
    }

    /// Whether another message may go with the events that are on their way: about as much as of
    /// those, so that neither keeps the other waiting.
    pub(super) fn has_room(&self) -> bool {
        !self.refused && self.said < WRITE_BYTES
    }

    /// Sends a message that is no event.
    pub(super) fn say(&mut self, message: &FromGuest) {
        let before = self.out.len();
        frame::encode_into(&mut self.out, message).expect("parts of calls fit in a frame");
        self.said += self.out.len() - before;
    }

    /// The next frame that the host sent. A stream that makes no sense is refused.
    pub(super) fn next_frame(&mut self) -> Option<ToGuest> {
        if self.refused {
            return None;
        }
        match self.decoder.next_frame() {
            Ok(frame) => frame,
            Err(error) => {
                self.refuse(error.to_string());
                None
            }
        }
    }

    /// Whether the event was sent here, or is older than everything sent here.
    pub(super) fn has_sent(&self, seq: u64) -> bool {
        seq < self.next
    }

    /// Ends the conversation with a reason, behind the frames that are on their way.
    pub(super) fn refuse(&mut self, reason: String) {
        self.refused = true;
        self.out.extend_from_slice(&refusal(reason));
    }

    /// Waits until bytes come or go. Can be dropped and called again at any time.
    pub(super) async fn turn(&mut self) -> Turn {
        let waiting = &self.out[self.written..];
        if self.refused && waiting.is_empty() {
            return Turn::Closed;
        }
        let moved: io::Result<usize> = tokio::select! {
            written = self.writer.write(waiting), if !waiting.is_empty() => {
                written.inspect(|bytes| self.written += bytes)
            }
            read = self.reader.read(&mut self.incoming[..]), if !self.refused => {
                read.inspect(|bytes| self.decoder.push(&self.incoming[..*bytes]))
            }
        };
        // No bytes written and no bytes read both mean that the other side is gone.
        if matches!(moved, Ok(1..)) { Turn::Moved } else { Turn::Closed }
    }
}
