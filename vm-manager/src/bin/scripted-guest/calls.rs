//! The guest's end of the calls to its host, as the real guest program has it (`workflow-runner`,
//! `guest::calls`): a call that has no answer yet is made again on the next connection.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::call::{
    Ask, CALL_DATA_BYTES, CALL_ROOM_BYTES, CallAnswer, CallError, CallErrorKind, HostCall, Reply,
};
use common::guest::FromGuest;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// How long a call may wait for its answer to begin, connections included.
const ANSWER: Duration = Duration::from_secs(10 * 60);

/// How often a call is made again because its connection was lost.
const ATTEMPTS: u32 = 20;

/// Messages that wait for the connection.
const CHANNEL_MESSAGES: usize = 16;

/// So much of an answer is read before room for more of it is granted.
const GRANT_BYTES: u32 = CALL_ROOM_BYTES / 4;

/// Makes calls.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// The connection on which they are made, while there is one.
    current: watch::Sender<Option<Arc<Connection>>>,
}

/// A connection on which calls are made.
#[derive(Debug)]
struct Connection {
    messages: mpsc::Sender<FromGuest>,
    /// `None` once it is lost.
    open: Mutex<Option<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    last: u32,
    /// Where the replies to each open call go. The host never sends more of an answer than it has
    /// room for, so this is bounded.
    replies: HashMap<u32, mpsc::UnboundedSender<Reply>>,
}

impl Connection {
    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a connection; its calls are lost when this is dropped.
pub(crate) struct Attached<'a> {
    calls: &'a Calls,
    connection: Arc<Connection>,
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        drop(self.connection.open().take());
        let is_it = |current: &Option<Arc<Connection>>| {
            current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &self.connection))
        };
        self.calls.current.send_if_modified(|current| is_it(current) && current.take().is_some());
    }
}

impl Attached<'_> {
    /// Takes what the host says about a call. One that the guest has dropped may still get some.
    pub(crate) fn take(&self, call: u32, reply: Reply) {
        let mut open = self.connection.open();
        let Some(open) = open.as_mut() else { return };
        let ends = matches!(reply, Reply::End | Reply::Broken(_) | Reply::Head(Err(_)));
        let Some(replies) = open.replies.get(&call) else { return };
        if replies.send(reply).is_err() || ends {
            open.replies.remove(&call);
        }
    }
}

/// Why a call has no answer, or no whole one.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection was lost.
    Lost,
    /// The host says this, or breaks the rules.
    Error(CallError),
}

impl Failure {
    fn broken(what: &str) -> Self {
        Self::Error(CallError::new(CallErrorKind::Invalid, what))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost => f.write_str("the connection to the host was lost"),
            Self::Error(error) => error.fmt(f),
        }
    }
}

impl Calls {
    /// There is a new connection, with its place and what is to be sent on it; calls of the one
    /// before are lost.
    pub(crate) fn attach(&self) -> (Attached<'_>, mpsc::Receiver<FromGuest>) {
        let (messages, receiver) = mpsc::channel(CHANNEL_MESSAGES);
        let open = Mutex::new(Some(Open::default()));
        let connection = Arc::new(Connection { messages, open });
        if let Some(before) = self.current.send_replace(Some(Arc::clone(&connection))) {
            drop(before.open().take());
        }
        (Attached { calls: self, connection }, receiver)
    }

    /// Makes a call, once more whenever its connection is lost, until its answer begins.
    pub(crate) async fn call(&self, call: &HostCall, body: &[u8]) -> Result<Answer, Failure> {
        let attempts = async {
            for _ in 0..ATTEMPTS {
                match self.attempt(call, body).await {
                    Err(Failure::Lost) => {}
                    other => return other,
                }
            }
            Err(Failure::Lost)
        };
        timeout(ANSWER, attempts).await.unwrap_or_else(|_| {
            let text = format!("the host gave no answer in {ANSWER:?}");
            Err(Failure::Error(CallError::new(CallErrorKind::Unavailable, text)))
        })
    }

    async fn attempt(&self, call: &HostCall, mut body: &[u8]) -> Result<Answer, Failure> {
        let mut line = self.begin(call).await?;
        let mut room = CALL_ROOM_BYTES as usize;
        let mut is_open = call.has_body();
        if !is_open {
            line.say(Ask::End).await;
        }
        loop {
            let may_send = is_open && (room > 0 || body.is_empty());
            let reply = tokio::select! {
                // What the host says counts before what it does not know yet.
                biased;
                reply = line.replies.recv() => reply,
                () = async {}, if may_send => {
                    let (part, rest) = body.split_at(body.len().min(room).min(CALL_DATA_BYTES));
                    (room, body, is_open) = (room - part.len(), rest, !part.is_empty());
                    line.say(if is_open { Ask::Data(part.to_vec()) } else { Ask::End }).await;
                    continue;
                }
            };
            match reply {
                Some(Reply::Head(Ok(head))) => return Ok(Answer { head, line, taken: 0 }),
                Some(Reply::Head(Err(error)) | Reply::Broken(error)) => {
                    line.is_over = true;
                    return Err(Failure::Error(error));
                }
                Some(Reply::Room(bytes)) => room += bytes as usize,
                Some(Reply::Data(_) | Reply::End) => {
                    return Err(Failure::broken("the host sent a body without a head"));
                }
                None => return Err(Failure::Lost),
            }
        }
    }

    /// Begins a call and says nothing more about it.
    pub(crate) async fn begin(&self, call: &HostCall) -> Result<Line, Failure> {
        let mut current = self.current.subscribe();
        let connection = match current.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(connection)) => Arc::clone(connection),
            _ => return Err(Failure::Lost),
        };
        let (sender, replies) = mpsc::unbounded_channel();
        let number = {
            let mut open = connection.open();
            let open = open.as_mut().ok_or(Failure::Lost)?;
            open.last = open.last.wrapping_add(1);
            open.replies.insert(open.last, sender);
            open.last
        };
        let line = Line { connection, number, replies, is_over: false };
        line.say(Ask::Begin(call.clone())).await;
        Ok(line)
    }
}

/// One call on one connection.
#[derive(Debug)]
pub(crate) struct Line {
    connection: Arc<Connection>,
    number: u32,
    /// What the host says; ends with the connection.
    pub(crate) replies: mpsc::UnboundedReceiver<Reply>,
    /// The host has nothing more to say.
    is_over: bool,
}

impl Line {
    /// Says something about it, as soon as the connection takes it.
    pub(crate) async fn say(&self, ask: Ask) {
        let message = FromGuest::Call { call: self.number, ask };
        // One that is lost ends the replies too.
        drop(self.connection.messages.send(message).await);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let open = self.connection.open().as_mut().and_then(|o| o.replies.remove(&self.number));
        if open.is_none() || self.is_over {
            return;
        }
        let message = FromGuest::Call { call: self.number, ask: Ask::Drop };
        let messages = self.connection.messages.clone();
        if let Err(mpsc::error::TrySendError::Full(message)) = messages.try_send(message) {
            tokio::spawn(async move { drop(messages.send(message).await) });
        }
    }
}

/// An answer that has begun.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What it is.
    pub(crate) head: CallAnswer,
    line: Line,
    /// Bytes that were read and for which no room was granted yet.
    taken: u32,
}

impl Answer {
    /// The next part of its body; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        if self.taken >= GRANT_BYTES && !self.line.is_over {
            self.line.say(Ask::Room(std::mem::take(&mut self.taken))).await;
        }
        loop {
            match self.line.replies.recv().await {
                Some(Reply::Data(bytes)) => {
                    self.taken += u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    return Ok(Some(bytes));
                }
                Some(Reply::End) => {
                    self.line.is_over = true;
                    return Ok(None);
                }
                Some(Reply::Broken(error)) => {
                    self.line.is_over = true;
                    return Err(Failure::Error(error));
                }
                Some(Reply::Room(_)) => {}
                Some(Reply::Head(_)) => {
                    return Err(Failure::broken("the host answered a call twice"));
                }
                None if self.line.is_over => return Ok(None),
                None => return Err(Failure::Lost),
            }
        }
    }
}
