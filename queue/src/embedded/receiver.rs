//! Receivers, and what they give out.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use super::lane::{Lane, Next};
use super::writer::Op;
use super::{CONTROL_PREFETCH, Shared};
use crate::delivery::Reader;
use crate::message::{Control, Message};
use crate::{Delivery, Heard, QueueError};

/// Which delivery. Dropped without a word, it comes again.
pub struct Token {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    id: i64,
    receiver: u64,
}

/// Messages of one kind.
pub struct Receiver<T> {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    id: u64,
    prefetch: u16,
    reader: Reader<T>,
}

/// What one orchestrator is told.
#[derive(Debug)]
pub struct ControlReceiver {
    host: Receiver<Control>,
    release: Receiver<Control>,
}

impl<T> Receiver<T> {
    pub(super) fn new(
        shared: &Arc<Shared>,
        lane: Arc<Lane>,
        prefetch: u16,
        reader: Reader<T>,
    ) -> Self {
        let id = lane.join();
        Self { shared: Arc::clone(shared), lane, id, prefetch: prefetch.max(1), reader }
    }

    pub(crate) async fn next(&mut self) -> Result<Delivery<T>, QueueError> {
        let closed = self.shared.closed.clone();
        closed.run_until_cancelled(self.wait()).await.unwrap_or(Err(QueueError::Closed))
    }

    async fn wait(&mut self) -> Result<Delivery<T>, QueueError> {
        loop {
            let mut changed = pin!(self.lane.changed.notified());
            changed.as_mut().enable();
            match self.lane.next(self.id, self.prefetch) {
                Next::Message(id, bytes) => {
                    let (shared, lane) = (Arc::clone(&self.shared), Arc::clone(&self.lane));
                    let token = Token { shared, lane, id, receiver: self.id };
                    let token = crate::delivery::Token::Embedded(token);
                    return Ok(self.reader.delivery(&bytes, token));
                }
                Next::Read => {
                    // First the place in the line, because this may be dropped while it waits.
                    let place = self.shared.writer.reserve().await;
                    let place = place.map_err(|_| QueueError::Closed)?;
                    if self.lane.start_reading() {
                        place.send(Op::Read { lane: Arc::clone(&self.lane) });
                    }
                }
                Next::Wait => changed.await,
            }
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.lane.leave(self.id);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("lane", &self.lane.kind).finish_non_exhaustive()
    }
}

impl ControlReceiver {
    pub(super) fn new(shared: &Arc<Shared>, host: Arc<Lane>, release: Arc<Lane>) -> Self {
        let start =
            |lane| Receiver::new(shared, lane, CONTROL_PREFETCH, Reader::new(Control::decode));
        Self { host: start(host), release: start(release) }
    }

    pub(crate) async fn next(&mut self) -> Result<Heard, QueueError> {
        let shared = Arc::clone(&self.host.shared);
        tokio::select! {
            delivery = self.host.next() => delivery.map(Heard::Control),
            delivery = self.release.next() => delivery.map(Heard::Control),
            (question, answer) = shared.questions.next() => {
                Ok(Heard::Reserve(question, crate::Replier::Embedded(answer)))
            }
        }
    }
}

impl Token {
    pub(crate) async fn acknowledge(self) -> Result<(), QueueError> {
        self.shared.open()?;
        let place = self.shared.writer.reserve().await.map_err(|_| QueueError::Closed)?;
        if self.lane.finish(self.id, self.receiver).is_none() {
            return Err(self.lost());
        }
        place.send(Op::Acknowledge { lane: self.lane.id, id: self.id });
        Ok(())
    }

    pub(crate) async fn reject(self, reason: &str) -> Result<(), QueueError> {
        let shared = Arc::clone(&self.shared);
        let reason = reason.to_owned();
        shared.ask(|done| Op::Reject { token: self, reason, done }).await
    }

    pub(super) fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    pub(super) fn id(&self) -> i64 {
        self.id
    }

    /// It was put to the dead letters.
    pub(super) fn finish(self) {
        self.lane.finish(self.id, self.receiver);
    }

    /// The message, as long as the receiver is there that gave it out.
    pub(super) fn bytes(&self) -> Result<Arc<[u8]>, QueueError> {
        self.lane.look(self.id, self.receiver).ok_or_else(|| self.lost())
    }

    fn lost(&self) -> QueueError {
        let queue = self.lane.kind.name();
        let reason =
            format!("a message of the queue {queue:?} comes again, because its receiver is gone");
        QueueError::Unavailable { reason }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.lane.give_back(self.id, self.receiver);
    }
}

impl fmt::Debug for Token {
    /// Without anything of the message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("lane", &self.lane.kind).field("id", &self.id).finish()
    }
}
