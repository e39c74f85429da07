//! The body of a call, as it comes from the guest.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub(crate) use axum::body::Bytes;
use common::call::{CALL_ROOM_BYTES, Reply};
use common::guest::ToGuest;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a body may wait for its guest to send more of it.
const UNSENT: Duration = Duration::from_secs(10 * 60);

/// So much of a body is taken before the guest may send more.
const GRANT_BYTES: usize = CALL_ROOM_BYTES as usize / 4;

/// The parts of a body; an error where it will never be complete.
pub(crate) type Body = BoxStream<'static, io::Result<Bytes>>;

/// The body of an answer.
pub(crate) type OutBody = Box<dyn AsyncRead + Send + Unpin>;

/// One that is at hand.
pub(crate) fn text_body(bytes: Vec<u8>) -> OutBody {
    Box::new(io::Cursor::new(bytes))
}

/// No body.
pub(crate) fn empty() -> Body {
    futures_util::stream::empty().boxed()
}

/// Where the parts of a body go. Dropped before its end, the body is broken.
pub(super) struct Inlet {
    parts: mpsc::UnboundedSender<Part>,
    /// The bytes that the guest may still send.
    room: Arc<AtomicUsize>,
}

enum Part {
    Bytes(Bytes),
    End,
}

impl Inlet {
    /// Takes a part; false if there was no room for it.
    pub(super) fn take(&self, bytes: Vec<u8>) -> bool {
        let count = bytes.len();
        let less = |room: usize| room.checked_sub(count);
        if self.room.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_err() {
            return false;
        }
        // Nobody takes it when the answer has begun.
        drop(self.parts.send(Part::Bytes(bytes.into())));
        true
    }

    /// The body is complete.
    pub(super) fn end(&self) {
        drop(self.parts.send(Part::End));
    }
}

struct Incoming {
    call: u32,
    parts: mpsc::UnboundedReceiver<Part>,
    messages: mpsc::Sender<ToGuest>,
    room: Arc<AtomicUsize>,
    /// Bytes that were taken and for which no room was granted yet.
    taken: usize,
}

/// The body of a call and where its parts go.
pub(super) fn body(call: u32, messages: mpsc::Sender<ToGuest>) -> (Inlet, Body) {
    let (sender, parts) = mpsc::unbounded_channel();
    let room = Arc::new(AtomicUsize::new(CALL_ROOM_BYTES as usize));
    let inlet = Inlet { parts: sender, room: Arc::clone(&room) };
    let incoming = Incoming { call, parts, messages, room, taken: 0 };
    let body = unfold(Some(incoming), |incoming| async {
        let mut incoming = incoming?;
        match incoming.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(incoming))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    (inlet, body.boxed())
}

impl Incoming {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.taken >= GRANT_BYTES {
            let count = std::mem::take(&mut self.taken);
            self.room.fetch_add(count, Ordering::AcqRel);
            let reply = Reply::Room(u32::try_from(count).unwrap_or(u32::MAX));
            drop(self.messages.send(ToGuest::Call { call: self.call, reply }).await);
        }
        match timeout(UNSENT, self.parts.recv()).await {
            Ok(Some(Part::Bytes(bytes))) => {
                self.taken += bytes.len();
                Ok(Some(bytes))
            }
            Ok(Some(Part::End)) => Ok(None),
            Ok(None) => Err(io::Error::other("the connection to the guest was lost")),
            Err(_) => {
                Err(io::Error::other(format!("the guest sent nothing more of it in {UNSENT:?}")))
            }
        }
    }
}
