//! Questions for a reservation and their answers.
//!
//! A question goes to a queue that all orchestrators share; the answer comes back through the
//! broker's direct reply-to, which needs no queue for the asker. Nothing of it is durable: whoever
//! has no answer in time asks again.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Consumer};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::Inner;
use super::link::{Link, Pauses};
use super::publish::Target;
use super::topology::QueueName;
use crate::message::{Message, Reserved};
use crate::{QueueError, RESERVE_ANSWER};

/// The name by which the broker knows the way back to a channel.
const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Asks over a channel of its own, on which the answers come.
pub(super) struct Asker {
    link: Arc<Link>,
    queue: QueueName,
    live: tokio::sync::Mutex<Option<Live>>,
}

#[derive(Clone)]
struct Live {
    channel: Channel,
    waiting: Waiting,
    _answers: Arc<AbortOnDropHandle<()>>,
}

/// Who waits for which answer.
type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<Vec<u8>>>>>;

/// The way back to whoever asked.
pub struct Replier {
    inner: Arc<Inner>,
    to: ShortString,
    correlation: Option<ShortString>,
}

/// Takes a question from those that wait.
struct Forget<'a> {
    waiting: &'a Waiting,
    id: &'a str,
}

impl Asker {
    pub(super) fn new(link: Arc<Link>, queue: QueueName) -> Self {
        Self { link, queue, live: tokio::sync::Mutex::new(None) }
    }

    /// Asks and waits for the answer, over reconnects: asking twice is one question.
    pub(super) async fn ask(&self, question: &[u8]) -> Result<Reserved, QueueError> {
        let deadline = Instant::now() + RESERVE_ANSWER;
        let mut pauses = Pauses::new();
        // Why it could not be asked, if it could not.
        let mut failed = None;
        loop {
            match timeout_at(deadline, self.live()).await {
                Ok(Ok(live)) => match timeout_at(deadline, self.ask_once(&live, question)).await {
                    Ok(Ok(answer)) => return Ok(Reserved::decode(&answer)?),
                    Ok(Err(error)) => failed = Some(error),
                    Err(_) => return Err(QueueError::NoAnswer { deadline: RESERVE_ANSWER }),
                },
                Ok(Err(error)) => failed = Some(error),
                Err(_) => {}
            }
            let pause = pauses.next();
            if Instant::now() + pause >= deadline {
                return Err(failed.unwrap_or(QueueError::NoAnswer { deadline: RESERVE_ANSWER }));
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask_once(&self, live: &Live, question: &[u8]) -> Result<Vec<u8>, QueueError> {
        let id = uuid::Uuid::now_v7().to_string();
        let (answer, answered) = oneshot::channel();
        live.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), answer);
        let _forget = Forget { waiting: &live.waiting, id: &id };
        let properties = BasicProperties::default()
            .with_reply_to(REPLY_TO.into())
            .with_correlation_id(id.as_str().into());
        let options = BasicPublishOptions::default();
        let (exchange, key) = ("".into(), self.queue.name.clone());
        let sent = live.channel.basic_publish(exchange, key, options, question, properties).await;
        drop(sent.map_err(|error| self.link.error("ask", &error))?);
        let lost = || QueueError::Unavailable { reason: "lost the connection".to_owned() };
        answered.await.map_err(|_| lost())
    }

    async fn live(&self) -> Result<Live, QueueError> {
        let mut slot = self.live.lock().await;
        if let Some(live) = slot.as_ref().filter(|live| live.channel.status().connected()) {
            return Ok(live.clone());
        }
        *slot = None;
        let channel = self.link.channel().await?;
        // The way back has to be consumed from before a question names it.
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer =
            channel.basic_consume(REPLY_TO.into(), "".into(), options, FieldTable::default());
        let consumer = consumer.await.map_err(|error| self.link.error("ask", &error))?;
        let waiting = Waiting::default();
        let answers = tokio::spawn(hand_out(consumer, Arc::clone(&waiting)));
        let answers = Arc::new(AbortOnDropHandle::new(answers));
        let live = Live { channel, waiting, _answers: answers };
        *slot = Some(live.clone());
        Ok(live)
    }
}

/// Gives answers to those who wait for them, until the channel is gone.
async fn hand_out(mut consumer: Consumer, waiting: Waiting) {
    while let Some(Ok(delivery)) = consumer.next().await {
        let id = delivery.properties.correlation_id().as_ref().map(ShortString::as_str);
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = id.and_then(|id| waiting.remove(id));
        // Whoever asked may have given up.
        if let Some(asked) = asked {
            drop(asked.send(delivery.data));
        }
    }
    // They ask again.
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

impl Replier {
    pub(super) fn new(
        inner: Arc<Inner>,
        to: ShortString,
        correlation: Option<ShortString>,
    ) -> Self {
        Self { inner, to, correlation }
    }

    pub(crate) async fn answer(self, answer: Reserved) {
        let body = match answer.encode() {
            Ok(body) => body,
            Err(error) => {
                tracing::warn!(%error, "a reservation cannot be answered");
                return;
            }
        };
        let mut properties = BasicProperties::default();
        if let Some(correlation) = self.correlation {
            properties = properties.with_correlation_id(correlation);
        }
        let target = Target::key("an answer", self.to);
        self.inner.publisher.publish_once(&target, properties, body).await;
    }
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(self.id);
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").field("queue", &self.queue.name.as_str()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Replier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replier").finish_non_exhaustive()
    }
}
