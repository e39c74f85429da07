//! The host's end of the calls that guests make (see [`common::call`]).
//!
//! A guest is not trusted: how many calls it may have open, how much it may send before it is asked to
//! go on, and how long an answer may wait for a guest that does not read it, is bounded here. What the
//! calls do is in [`JobServices`].

mod body;
mod forward;
mod pack;
mod services;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::call::{
    Ask, CALL_DATA_BYTES, CALL_ROOM_BYTES, CallAnswer, CallError, CallErrorKind, HostCall,
    OPEN_CALLS, Reply,
};
use common::guest::ToGuest;
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

#[cfg(test)]
pub(crate) use body::Bytes;
use body::Inlet;
pub(crate) use body::{Body, OutBody, empty, text_body};
pub(crate) use services::{JobServices, Keepers};

/// How long an answer may wait for its guest to read on.
const UNREAD: Duration = Duration::from_secs(10 * 60);

/// How long it may take to send an answer.
const SENT: Duration = Duration::from_secs(60 * 60);

/// Messages that wait for the connection.
const CHANNEL_MESSAGES: usize = 16;

/// Calls beyond [`OPEN_CALLS`] whose refusal waits for the connection.
const REFUSALS: usize = 64 * 1024;

/// The calls of one connection. Dropping this ends them.
pub(crate) struct Calls {
    services: Option<Arc<JobServices>>,
    open: HashMap<u32, Open>,
    /// The highest number that the guest has used.
    last: u32,
    messages: mpsc::Sender<ToGuest>,
    /// The calls that are refused because too many are open. Nothing that is read from the connection
    /// may wait for what is written to it: each waits for the other then.
    too_many: mpsc::Sender<u32>,
    _refusing: AbortOnDropHandle<()>,
}

struct Open {
    /// How much of the answer the guest takes.
    room: Arc<Semaphore>,
    /// Where its body goes, until that is complete.
    inlet: Option<Inlet>,
    work: AbortOnDropHandle<()>,
}

impl Calls {
    /// The calls of a new connection, and what is to be sent on it.
    /// Without services each is answered by an error.
    pub(crate) fn new(services: Option<Arc<JobServices>>) -> (Self, mpsc::Receiver<ToGuest>) {
        let (messages, receiver) = mpsc::channel(CHANNEL_MESSAGES);
        let (too_many, refused) = mpsc::channel(REFUSALS);
        let refusing = AbortOnDropHandle::new(tokio::spawn(refuse(refused, messages.clone())));
        let open = HashMap::new();
        (Self { services, open, last: 0, messages, too_many, _refusing: refusing }, receiver)
    }

    /// Takes what the guest says about a call.
    ///
    /// # Errors
    /// The guest breaks the rules: a sentence.
    pub(crate) async fn take(&mut self, call: u32, ask: Ask) -> Result<(), String> {
        match ask {
            Ask::Begin(wish) => self.begin(call, wish),
            Ask::Data(bytes) => self.data(call, &bytes),
            Ask::End => {
                if let Some(inlet) = self.open.get_mut(&call).and_then(|open| open.inlet.take()) {
                    inlet.end();
                }
                Ok(())
            }
            Ask::Room(bytes) => match self.open.get(&call) {
                Some(open) if open.room.available_permits() + bytes as usize > most_room() => {
                    Err(format!("call {call} grants more room than there was"))
                }
                Some(open) => {
                    open.room.add_permits(bytes as usize);
                    Ok(())
                }
                // Its answer was complete already.
                None => Ok(()),
            },
            Ask::Drop => {
                self.open.remove(&call);
                Ok(())
            }
        }
    }

    fn data(&mut self, call: u32, bytes: &[u8]) -> Result<(), String> {
        if call > self.last {
            return Err(format!("some of the body of call {call} came before the call"));
        }
        let Some(open) = self.open.get(&call) else {
            // Its answer was complete already.
            return Ok(());
        };
        match &open.inlet {
            None => Err(format!("call {call} has no body, and some of one came")),
            Some(inlet) if !inlet.take(bytes) => {
                Err(format!("more of the body of call {call} came than there was room for"))
            }
            Some(_) => Ok(()),
        }
    }

    fn begin(&mut self, call: u32, wish: HostCall) -> Result<(), String> {
        if call <= self.last {
            return Err(format!("call {call} came after call {}", self.last));
        }
        self.last = call;
        self.open.retain(|_, open| !open.work.is_finished());
        if self.open.len() >= OPEN_CALLS {
            return self.too_many.try_send(call).map_err(|_| {
                format!("call {call} came while the refusals of {REFUSALS} others were not read")
            });
        }
        let messages = self.messages.clone();
        let room = Arc::new(Semaphore::new(CALL_ROOM_BYTES as usize));
        let mut line = Line { call, messages, room: Arc::clone(&room) };
        let services = self.services.clone();
        let (inlet, body) = if wish.has_body() {
            let (inlet, body) = body::body(call, line.messages.clone());
            (Some(inlet), body)
        } else {
            (None, empty())
        };
        let work = tokio::spawn(async move {
            let answer = match services {
                Some(services) => services.serve(wish, body).await,
                None => Err(CallError::new(CallErrorKind::Refused, "this host serves no calls")),
            };
            let last = match answer {
                Ok(answer) => line.answer(answer).await,
                Err(error) => Reply::Head(Err(error)),
            };
            line.say(last).await;
        });
        self.open.insert(call, Open { room, inlet, work: AbortOnDropHandle::new(work) });
        Ok(())
    }
}

/// Refuses calls, as fast as the guest reads.
async fn refuse(mut refused: mpsc::Receiver<u32>, messages: mpsc::Sender<ToGuest>) {
    while let Some(call) = refused.recv().await {
        let text = format!("{OPEN_CALLS} calls are open already");
        let reply = Reply::Head(Err(CallError::new(CallErrorKind::Busy, text)));
        // Nobody takes it when the connection is gone, and this with it.
        drop(messages.send(ToGuest::Call { call, reply }).await);
    }
}

/// The room that a guest may have granted at one time.
const fn most_room() -> usize {
    2 * CALL_ROOM_BYTES as usize
}

/// An answer that can be sent.
pub(crate) struct Answer {
    pub(crate) head: CallAnswer,
    pub(crate) body: OutBody,
    /// Its place among the calls of its job, until it is sent.
    pub(crate) turn: Option<OwnedSemaphorePermit>,
}

/// One call on its connection.
struct Line {
    call: u32,
    messages: mpsc::Sender<ToGuest>,
    room: Arc<Semaphore>,
}

impl Line {
    async fn say(&mut self, reply: Reply) {
        // Nobody takes it when the connection is gone, and this with it.
        drop(self.messages.send(ToGuest::Call { call: self.call, reply }).await);
    }

    /// Sends an answer; gives how it ends.
    async fn answer(&mut self, answer: Answer) -> Reply {
        match timeout(SENT, self.send(answer)).await {
            Ok(last) => last,
            Err(_) => {
                let text = format!("the answer was not read to its end in {SENT:?}");
                Reply::Broken(CallError::new(CallErrorKind::Unavailable, text))
            }
        }
    }

    async fn send(&mut self, answer: Answer) -> Reply {
        let Answer { head, mut body, turn: _turn } = answer;
        self.say(Reply::Head(Ok(head))).await;
        let mut buffer = vec![0; CALL_DATA_BYTES];
        loop {
            let count = match body.read(&mut buffer).await {
                Ok(0) => return Reply::End,
                Ok(count) => count,
                Err(error) => {
                    let text = format!("the host cannot read what it has fetched: {error}");
                    return Reply::Broken(CallError::new(CallErrorKind::Unavailable, text));
                }
            };
            let room = u32::try_from(count).unwrap_or(u32::MAX);
            match timeout(UNREAD, self.room.acquire_many(room)).await {
                Ok(Ok(permit)) => permit.forget(),
                Ok(Err(_)) | Err(_) => {
                    let text = format!("the answer was not read for {UNREAD:?}");
                    return Reply::Broken(CallError::new(CallErrorKind::Unavailable, text));
                }
            }
            self.say(Reply::Data(buffer[..count].to_vec())).await;
        }
    }
}
