//! The body of a call, as it comes from the guest.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) use axum::body::Bytes;
use common::call::{CALL_ROOM_BYTES, Reply};
use common::guest::ToGuest;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use tokio::io::AsyncRead;
use tokio::sync::{Notify, mpsc};
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

/// What has come and was not taken yet. However small the parts are in which it comes, it is no larger
/// than the room that the guest has.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// The bytes that the guest may still send.
    room: usize,
    end: Option<End>,
    /// Nobody takes it any more.
    is_unwanted: bool,
}

#[derive(Clone, Copy)]
enum End {
    Whole,
    Lost,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    more: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the parts of a body go. Dropped before its end, the body is broken.
pub(super) struct Inlet(Arc<Shared>);

impl Inlet {
    /// Takes a part; false if there was no room for it.
    pub(super) fn take(&self, bytes: &[u8]) -> bool {
        let mut waiting = self.0.lock();
        let Some(room) = waiting.room.checked_sub(bytes.len()) else { return false };
        waiting.room = room;
        // Nobody takes it when the answer has begun.
        if !waiting.is_unwanted {
            waiting.bytes.extend_from_slice(bytes);
        }
        drop(waiting);
        self.0.more.notify_one();
        true
    }

    /// The body is complete.
    pub(super) fn end(&self) {
        self.end_by(End::Whole);
    }

    fn end_by(&self, end: End) {
        self.0.lock().end.get_or_insert(end);
        self.0.more.notify_one();
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.end_by(End::Lost);
    }
}

struct Incoming {
    call: u32,
    shared: Arc<Shared>,
    messages: mpsc::Sender<ToGuest>,
    /// Bytes that were taken and for which no room was granted yet.
    taken: usize,
}

/// The body of a call and where its parts go.
pub(super) fn body(call: u32, messages: mpsc::Sender<ToGuest>) -> (Inlet, Body) {
    let shared = Arc::new(Shared::default());
    shared.lock().room = CALL_ROOM_BYTES as usize;
    let incoming = Incoming { call, shared: Arc::clone(&shared), messages, taken: 0 };
    let body = unfold(Some(incoming), |incoming| async {
        let mut incoming = incoming?;
        match incoming.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(incoming))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    (Inlet(shared), body.boxed())
}

impl Incoming {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.taken >= GRANT_BYTES {
            let count = std::mem::take(&mut self.taken);
            self.shared.lock().room += count;
            let reply = Reply::Room(u32::try_from(count).unwrap_or(u32::MAX));
            drop(self.messages.send(ToGuest::Call { call: self.call, reply }).await);
        }
        loop {
            let (bytes, end) = {
                let mut waiting = self.shared.lock();
                (std::mem::take(&mut waiting.bytes), waiting.end)
            };
            if !bytes.is_empty() {
                self.taken += bytes.len();
                return Ok(Some(bytes.into()));
            }
            match end {
                Some(End::Whole) => return Ok(None),
                Some(End::Lost) => {
                    return Err(io::Error::other("the connection to the guest was lost"));
                }
                None => {}
            }
            if timeout(UNSENT, self.shared.more.notified()).await.is_err() {
                let text = format!("the guest sent nothing more of it in {UNSENT:?}");
                return Err(io::Error::other(text));
            }
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let mut waiting = self.shared.lock();
        waiting.is_unwanted = true;
        waiting.bytes = Vec::new();
    }
}
