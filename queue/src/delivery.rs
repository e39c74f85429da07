//! What consumers take from a queue.

use crate::message::{Control, EventBatch, JobMessage, MessageError, Reserve, Reserved};
use crate::{QueueError, embedded, rabbit};

/// A message that was delivered and waits for its acknowledgement.
#[derive(Debug)]
#[must_use = "a delivery that is neither acknowledged nor rejected comes again"]
pub struct Delivery<T> {
    /// The message, or why it cannot be used.
    pub message: Result<T, MessageError>,
    /// Of a message that cannot be used, as much as it takes to tell its sender so; see
    /// [`JobMessage::answerable`]. Absent where nobody can be told.
    pub answerable: Option<T>,
    pub(crate) token: Token,
}

/// How messages of one kind are read.
#[derive(Debug)]
pub(crate) struct Reader<T> {
    read: fn(&[u8]) -> Result<T, MessageError>,
    rescue: fn(&[u8]) -> Option<T>,
}

impl<T> Reader<T> {
    /// A kind whose senders are not told of what cannot be read.
    pub(crate) fn new(read: fn(&[u8]) -> Result<T, MessageError>) -> Self {
        Self { read, rescue: |_| None }
    }

    /// Reads a message.
    pub(crate) fn delivery(&self, bytes: &[u8], token: Token) -> Delivery<T> {
        let message = (self.read)(bytes);
        let answerable = if message.is_err() { (self.rescue)(bytes) } else { None };
        Delivery { message, answerable, token }
    }
}

impl Reader<JobMessage> {
    /// How jobs are read.
    pub(crate) fn jobs() -> Self {
        Self { read: JobMessage::decode, rescue: JobMessage::answerable }
    }
}

/// Which delivery.
#[derive(Debug)]
pub(crate) enum Token {
    /// A row of the embedded queue.
    Embedded(embedded::Token),
    /// A delivery of the broker.
    Rabbit(rabbit::Token),
}

impl<T> Delivery<T> {
    /// The message was taken: it does not come again, unless the process or the connection is lost
    /// at the same time.
    ///
    /// # Errors
    /// The queue cannot be used, or the connection on which the message came is gone. It comes again.
    pub async fn acknowledge(self) -> Result<(), QueueError> {
        match self.token {
            Token::Embedded(token) => token.acknowledge().await,
            Token::Rabbit(token) => token.acknowledge().await,
        }
    }

    /// The message cannot be used: it goes to the dead letters with a reason.
    ///
    /// # Errors
    /// As [`Delivery::acknowledge`].
    pub async fn reject(self, reason: &str) -> Result<(), QueueError> {
        match self.token {
            Token::Embedded(token) => token.reject(reason).await,
            Token::Rabbit(token) => token.reject(reason).await,
        }
    }
}

/// Jobs for orchestrators.
#[derive(Debug)]
pub enum JobReceiver {
    /// From the embedded queue.
    Embedded(embedded::Receiver<JobMessage>),
    /// From a broker.
    Rabbit(rabbit::Receiver<JobMessage>),
}

impl JobReceiver {
    /// The next job. Waits out a broker that is away. Safe to cancel.
    ///
    /// # Errors
    /// The queue was closed.
    pub async fn next(&mut self) -> Result<Delivery<JobMessage>, QueueError> {
        match self {
            Self::Embedded(receiver) => receiver.next().await,
            Self::Rabbit(receiver) => receiver.next().await,
        }
    }
}

/// Events for one forge runner.
#[derive(Debug)]
pub enum EventReceiver {
    /// From the embedded queue.
    Embedded(embedded::Receiver<EventBatch>),
    /// From a broker.
    Rabbit(rabbit::Receiver<EventBatch>),
}

impl EventReceiver {
    /// The next batch. Waits out a broker that is away. Safe to cancel.
    ///
    /// # Errors
    /// The queue was closed.
    pub async fn next(&mut self) -> Result<Delivery<EventBatch>, QueueError> {
        match self {
            Self::Embedded(receiver) => receiver.next().await,
            Self::Rabbit(receiver) => receiver.next().await,
        }
    }
}

/// What an orchestrator hears outside of the jobs.
#[derive(Debug)]
pub enum Heard {
    /// Something to do, or a message of whichever kind that cannot be used.
    Control(Delivery<Control>),
    /// A question that wants an answer.
    Reserve(Reserve, Replier),
}

/// What one orchestrator is told.
#[derive(Debug)]
pub enum ControlReceiver {
    /// From the embedded queue.
    Embedded(embedded::ControlReceiver),
    /// From a broker.
    Rabbit(rabbit::ControlReceiver),
}

impl ControlReceiver {
    /// What comes next. Waits out a broker that is away. Safe to cancel.
    ///
    /// # Errors
    /// The queue was closed.
    pub async fn next(&mut self) -> Result<Heard, QueueError> {
        match self {
            Self::Embedded(receiver) => receiver.next().await,
            Self::Rabbit(receiver) => receiver.next().await,
        }
    }
}

/// The way back to whoever asked.
#[derive(Debug)]
pub enum Replier {
    /// In this process.
    Embedded(tokio::sync::oneshot::Sender<Reserved>),
    /// Over a broker.
    Rabbit(rabbit::Replier),
}

impl Replier {
    /// Answers. An asker who is gone misses it.
    pub async fn answer(self, answer: Reserved) {
        match self {
            Self::Embedded(sender) => drop(sender.send(answer)),
            Self::Rabbit(replier) => replier.answer(answer).await,
        }
    }
}
