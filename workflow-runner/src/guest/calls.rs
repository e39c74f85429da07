//! The guest's end of the calls to its host (see [`common::call`]).
//!
//! [`Calls`] is what the engine has: it makes calls, and makes them again when the connection was lost
//! before an answer began. [`Switchboard`] is what the house has: it passes messages between the calls
//! and the connection of the moment.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use common::call::{
    Ask, CALL_DATA_BYTES, CALL_ROOM_BYTES, CallAnswer, CallError, CallErrorKind, HostCall,
    OPEN_CALLS, Reply,
};
use common::guest::FromGuest;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

/// How long a call may wait for its answer to begin, connections included: the host may be fetching a
/// large repository over a slow line.
const ANSWER: Duration = Duration::from_secs(30 * 60);

/// How often a call is made again because its connection was lost.
const ATTEMPTS: u32 = 20;

/// Messages between the calls and the connection.
const CHANNEL_MESSAGES: usize = 16;

/// So much of an answer is read before room for more of it is granted.
const GRANT_BYTES: u32 = CALL_ROOM_BYTES / 4;

/// A message of a call, and of which connection the call is.
type Message = (u64, FromGuest);

/// Makes calls.
#[derive(Clone)]
pub(super) struct Calls {
    shared: Arc<Mutex<Shared>>,
    messages: mpsc::Sender<Message>,
    /// The number of the connection, while there is one.
    attached: watch::Receiver<Option<u64>>,
    /// One for each call that may be open.
    open: Arc<Semaphore>,
}

/// Passes messages on.
pub(super) struct Switchboard {
    shared: Arc<Mutex<Shared>>,
    messages: mpsc::Receiver<Message>,
    attached: watch::Sender<Option<u64>>,
    connections: u64,
}

#[derive(Default)]
struct Shared {
    last: u32,
    /// Where the replies to each open call go.
    open: HashMap<u32, mpsc::UnboundedSender<Reply>>,
}

/// Both ends.
pub(super) fn calls() -> (Calls, Switchboard) {
    let (sender, receiver) = mpsc::channel(CHANNEL_MESSAGES);
    let (attached, is_attached) = watch::channel(None);
    let shared = Arc::new(Mutex::new(Shared::default()));
    let open = Arc::new(Semaphore::new(OPEN_CALLS));
    let calls =
        Calls { shared: Arc::clone(&shared), messages: sender, attached: is_attached, open };
    (calls, Switchboard { shared, messages: receiver, attached, connections: 0 })
}

impl Switchboard {
    /// There is a new connection; calls of the one before are lost.
    pub(super) fn attach(&mut self) {
        self.detach();
        self.connections += 1;
        self.attached.send_replace(Some(self.connections));
    }

    /// The connection is gone, and all calls with it.
    pub(super) fn detach(&mut self) {
        self.attached.send_replace(None);
        lock(&self.shared).open.clear();
    }

    /// The next message to send on the connection. Can be dropped and called again at any time.
    pub(super) async fn next(&mut self) -> FromGuest {
        loop {
            match self.messages.recv().await {
                Some(message) => {
                    if let Some(message) = self.of_this_connection(message) {
                        return message;
                    }
                }
                // The engine is gone, and makes no calls any more.
                None => std::future::pending().await,
            }
        }
    }

    /// The same, if there is one already.
    pub(super) fn try_next(&mut self) -> Option<FromGuest> {
        loop {
            let message = self.messages.try_recv().ok()?;
            if let Some(message) = self.of_this_connection(message) {
                return Some(message);
            }
        }
    }

    fn of_this_connection(&self, (connection, message): Message) -> Option<FromGuest> {
        (*self.attached.borrow() == Some(connection)).then_some(message)
    }

    /// Takes what the host says about a call. One that the guest has dropped may still get some.
    pub(super) fn take(&mut self, call: u32, reply: Reply) {
        let mut shared = lock(&self.shared);
        let ends = matches!(reply, Reply::End | Reply::Broken(_) | Reply::Head(Err(_)));
        let Some(open) = shared.open.get(&call) else { return };
        if open.send(reply).is_err() || ends {
            shared.open.remove(&call);
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why an attempt brought no answer.
enum Failure {
    /// The connection was lost.
    Lost,
    Error(CallError),
}

impl Calls {
    /// Makes a call, once more whenever its connection is lost, until its answer begins.
    ///
    /// # Errors
    /// What the host says, or that it says nothing.
    pub(super) async fn call(&self, call: &HostCall) -> Result<Answer, CallError> {
        self.call_with(call, &[]).await
    }

    /// The same with a body.
    pub(super) async fn call_with(
        &self,
        call: &HostCall,
        body: &[u8],
    ) -> Result<Answer, CallError> {
        let attempts = async {
            for _ in 0..ATTEMPTS {
                let mut body = body;
                match self.attempt(call, &mut body).await {
                    Ok(answer) => return Ok(answer),
                    Err(Failure::Error(error)) => return Err(error),
                    Err(Failure::Lost) => {}
                }
            }
            Err(unavailable(format!("the connection to the host was lost {ATTEMPTS} times")))
        };
        in_time(attempts).await
    }

    /// The same with a body that can be read once, and so once only.
    pub(super) async fn call_once(
        &self,
        call: &HostCall,
        body: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<Answer, CallError> {
        let attempt = async {
            self.attempt(call, body).await.map_err(|failure| match failure {
                Failure::Error(error) => error,
                Failure::Lost => unavailable("the connection to the host was lost".to_owned()),
            })
        };
        in_time(attempt).await
    }

    async fn attempt(
        &self,
        call: &HostCall,
        body: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<Answer, Failure> {
        let permit = Arc::clone(&self.open).acquire_owned().await.map_err(|_| Failure::Lost)?;
        let mut attached = self.attached.clone();
        let connection = match attached.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(connection)) => *connection,
            _ => return Err(Failure::Lost),
        };
        let (sender, replies) = mpsc::unbounded_channel();
        let number = {
            let mut shared = lock(&self.shared);
            if *self.attached.borrow() != Some(connection) {
                return Err(Failure::Lost);
            }
            shared.last = shared.last.wrapping_add(1);
            let number = shared.last;
            shared.open.insert(number, sender);
            number
        };
        let mut line = Line {
            calls: self.clone(),
            connection,
            number,
            replies,
            is_over: false,
            _permit: permit,
        };
        line.say(Ask::Begin(call.clone())).await;
        let mut sending = Sending::new(body, call.has_body());
        if !sending.is_open {
            line.say(Ask::End).await;
        }
        loop {
            let reply = tokio::select! {
                // What the host says counts before what it does not know yet.
                biased;
                reply = line.replies.recv() => reply,
                part = sending.next(), if sending.may_send() => {
                    let part = part.map_err(|error| {
                        let text = format!("what is to be sent cannot be read: {error}");
                        Failure::Error(CallError::new(CallErrorKind::Invalid, text))
                    })?;
                    line.say(part).await;
                    continue;
                }
            };
            match reply {
                Some(Reply::Head(Ok(head))) => return Ok(Answer { head, body: Body::new(line) }),
                Some(Reply::Head(Err(error)) | Reply::Broken(error)) => {
                    line.is_over = true;
                    return Err(Failure::Error(error));
                }
                Some(Reply::Room(bytes)) => sending.room += bytes as usize,
                Some(Reply::Data(_) | Reply::End) => {
                    let text = "the host sent the body of an answer without its head";
                    return Err(Failure::Error(CallError::new(CallErrorKind::Invalid, text)));
                }
                None => return Err(Failure::Lost),
            }
        }
    }
}

fn unavailable(message: String) -> CallError {
    CallError::new(CallErrorKind::Unavailable, message)
}

async fn in_time(
    attempts: impl Future<Output = Result<Answer, CallError>>,
) -> Result<Answer, CallError> {
    match timeout(ANSWER, attempts).await {
        Ok(answered) => answered,
        Err(_) => Err(unavailable(format!("the host gave no answer in {ANSWER:?}"))),
    }
}

/// The body of a call on its way.
struct Sending<'a> {
    body: &'a mut (dyn AsyncRead + Send + Unpin),
    /// How much the host takes.
    room: usize,
    /// Whether there may be more of it.
    is_open: bool,
    buffer: Vec<u8>,
}

impl<'a> Sending<'a> {
    fn new(body: &'a mut (dyn AsyncRead + Send + Unpin), is_open: bool) -> Self {
        let buffer = if is_open { vec![0; CALL_DATA_BYTES] } else { Vec::new() };
        Self { body, room: CALL_ROOM_BYTES as usize, is_open, buffer }
    }

    fn may_send(&self) -> bool {
        self.is_open && self.room > 0
    }

    /// The next part, or the end. Can be dropped and called again at any time.
    async fn next(&mut self) -> io::Result<Ask> {
        let most = self.buffer.len().min(self.room);
        let count = self.body.read(&mut self.buffer[..most]).await?;
        if count == 0 {
            self.is_open = false;
            return Ok(Ask::End);
        }
        self.room -= count;
        Ok(Ask::Data(self.buffer[..count].to_vec()))
    }
}

/// One call on one connection.
struct Line {
    calls: Calls,
    connection: u64,
    number: u32,
    replies: mpsc::UnboundedReceiver<Reply>,
    /// The host has nothing more to say.
    is_over: bool,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Line {
    fn message(&self, ask: Ask) -> Message {
        (self.connection, FromGuest::Call { call: self.number, ask })
    }

    async fn say(&self, ask: Ask) {
        // Without the house the program is about to end.
        drop(self.calls.messages.send(self.message(ask)).await);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if lock(&self.calls.shared).open.remove(&self.number).is_none() || self.is_over {
            return;
        }
        let (messages, message) = (self.calls.messages.clone(), self.message(Ask::Drop));
        if let Err(mpsc::error::TrySendError::Full(message)) = messages.try_send(message) {
            tokio::spawn(async move { messages.send(message).await });
        }
    }
}

/// An answer that has begun.
pub(super) struct Answer {
    /// What it is.
    pub(super) head: CallAnswer,
    /// What follows.
    pub(super) body: Body,
}

/// The body of an answer.
pub(super) struct Body {
    line: Line,
    rest: Vec<u8>,
    at: usize,
    /// Bytes that were read and for which no room was granted yet.
    taken: u32,
    granting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    loss: Loss,
}

/// Whether the connection was lost before an answer was complete.
#[derive(Clone, Debug, Default)]
pub(super) struct Loss(Arc<AtomicBool>);

impl Loss {
    /// Whether it was.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Body {
    fn new(line: Line) -> Self {
        Self { line, rest: Vec::new(), at: 0, taken: 0, granting: None, loss: Loss::default() }
    }

    /// Says later whether the connection was lost while this was read.
    pub(super) fn loss(&self) -> Loss {
        self.loss.clone()
    }
}

impl AsyncRead for Body {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let body = &mut *self;
        loop {
            if let Some(granting) = &mut body.granting {
                ready!(granting.as_mut().poll(context));
                body.granting = None;
            }
            let rest = &body.rest[body.at..];
            if !rest.is_empty() {
                let count = rest.len().min(buffer.remaining());
                buffer.put_slice(&rest[..count]);
                body.at += count;
                body.taken += u32::try_from(count).unwrap_or(u32::MAX);
                if body.taken >= GRANT_BYTES && !body.line.is_over {
                    let room = std::mem::take(&mut body.taken);
                    let message = body.line.message(Ask::Room(room));
                    let messages = body.line.calls.messages.clone();
                    body.granting = Some(Box::pin(async move {
                        drop(messages.send(message).await);
                    }));
                }
                return Poll::Ready(Ok(()));
            }
            if body.line.is_over {
                return Poll::Ready(Ok(()));
            }
            match ready!(body.line.replies.poll_recv(context)) {
                Some(Reply::Data(bytes)) => (body.rest, body.at) = (bytes, 0),
                Some(Reply::End) => body.line.is_over = true,
                Some(Reply::Broken(error)) => {
                    body.line.is_over = true;
                    return Poll::Ready(Err(io::Error::other(error)));
                }
                Some(Reply::Room(_)) => {}
                Some(Reply::Head(_)) => {
                    let text = "the host answered a call twice";
                    return Poll::Ready(Err(io::Error::other(text)));
                }
                None => {
                    body.loss.0.store(true, Ordering::Release);
                    let text = "the connection to the host was lost";
                    return Poll::Ready(Err(io::Error::other(text)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
