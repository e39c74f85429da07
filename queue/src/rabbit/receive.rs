//! Consuming: receivers that subscribe again after the broker was away.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use common::ids::HostId;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Consumer};
use tokio::time::{sleep, timeout};

use super::link::Pauses;
use super::topology::QueueName;
use super::{Inner, Replier, dead};
use crate::delivery::Reader;
use crate::message::{Control, Message, MessageError, Reserve};
use crate::{Delivery, Heard, QueueError};

/// How long the broker may take to declare and subscribe.
const SUBSCRIBE: Duration = Duration::from_secs(20);

/// How long an acknowledgement may take to be on its way.
const ACKNOWLEDGE: Duration = Duration::from_secs(10);

/// Control messages, and questions, that one orchestrator has at once.
const CONTROL_PREFETCH: u16 = 64;

/// Which delivery.
pub struct Token {
    inner: Arc<Inner>,
    acker: Acker,
    queue: QueueName,
    /// The beginning of the message, for the dead letters.
    beginning: Vec<u8>,
}

/// Messages of one kind.
#[derive(Debug)]
pub struct Receiver<T> {
    subscription: Subscription,
    reader: Reader<T>,
}

/// What one orchestrator is told.
#[derive(Debug)]
pub struct ControlReceiver {
    subscription: Subscription,
}

/// Consumers on one channel, of queues in this order.
struct Subscription {
    inner: Arc<Inner>,
    queues: Vec<QueueName>,
    prefetch: u16,
    live: Option<Live>,
}

/// Dropping it closes the channel, whereupon the broker gives what was not acknowledged to others.
struct Live {
    channel: Channel,
    consumers: Vec<Consumer>,
}

impl<T> Receiver<T> {
    pub(super) async fn start(
        inner: &Arc<Inner>,
        queue: QueueName,
        prefetch: u16,
        reader: Reader<T>,
    ) -> Result<Self, QueueError> {
        let subscription = Subscription::start(inner, vec![queue], prefetch).await?;
        Ok(Self { subscription, reader })
    }

    pub(crate) async fn next(&mut self) -> Result<Delivery<T>, QueueError> {
        let (_, delivery) = self.subscription.next().await?;
        Ok(self.subscription.read(0, delivery, &self.reader))
    }
}

impl ControlReceiver {
    const HOST: usize = 0;
    const RELEASE: usize = 1;

    pub(super) async fn start(inner: &Arc<Inner>, host: HostId) -> Result<Self, QueueError> {
        let names = &inner.names;
        let queues = vec![names.host(host), names.release(), names.reserve()];
        let subscription = Subscription::start(inner, queues, CONTROL_PREFETCH).await?;
        Ok(Self { subscription })
    }

    pub(crate) async fn next(&mut self) -> Result<Heard, QueueError> {
        let (index, delivery) = self.subscription.next().await?;
        if index == Self::HOST || index == Self::RELEASE {
            let reader = Reader::new(Control::decode);
            return Ok(Heard::Control(self.subscription.read(index, delivery, &reader)));
        }
        let way_back = delivery.properties.reply_to().clone();
        let correlation = delivery.properties.correlation_id().clone();
        let reader = Reader::new(Reserve::decode);
        let question = self.subscription.read(index, delivery, &reader);
        let error = match (question.message, way_back) {
            (Ok(asked), Some(to)) => {
                // In a task of its own, because this may be dropped at any await. A question
                // that is lost with this process is asked again.
                if let crate::delivery::Token::Rabbit(token) = question.token {
                    tokio::spawn(token.acknowledge());
                }
                let inner = Arc::clone(&self.subscription.inner);
                let replier = Replier::new(inner, to, correlation);
                return Ok(Heard::Reserve(asked, crate::Replier::Rabbit(replier)));
            }
            (Ok(_), None) => {
                MessageError::Malformed { reason: "a question without a way back".to_owned() }
            }
            (Err(error), _) => error,
        };
        let token = question.token;
        Ok(Heard::Control(Delivery { message: Err(error), answerable: None, token }))
    }
}

impl Subscription {
    /// Declares and subscribes, or fails.
    async fn start(
        inner: &Arc<Inner>,
        queues: Vec<QueueName>,
        prefetch: u16,
    ) -> Result<Self, QueueError> {
        // 0 would be no limit.
        let prefetch = prefetch.max(1);
        let mut subscription = Self { inner: Arc::clone(inner), queues, prefetch, live: None };
        subscription.live = Some(subscription.subscribe().await?);
        Ok(subscription)
    }

    /// The next delivery and the index of its queue. Safe to cancel: nothing is taken from a
    /// consumer before this returns.
    async fn next(&mut self) -> Result<(usize, lapin::message::Delivery), QueueError> {
        let closed = self.inner.closed.clone();
        closed.run_until_cancelled(self.wait()).await.ok_or(QueueError::Closed)
    }

    async fn wait(&mut self) -> (usize, lapin::message::Delivery) {
        let mut pauses = Pauses::new();
        loop {
            let Some(live) = &mut self.live else {
                match self.subscribe().await {
                    Ok(live) => self.live = Some(live),
                    Err(error) => {
                        tracing::debug!(%error, "not subscribed yet");
                        sleep(pauses.next()).await;
                    }
                }
                continue;
            };
            let reason = match live.next().await {
                (index, Some(Ok(delivery))) => return (index, delivery),
                (_, Some(Err(error))) => error.to_string(),
                (_, None) => "the broker ended the subscription".to_owned(),
            };
            let queue = self.queues[0].name.as_str();
            tracing::warn!(queue, reason, "lost a queue, subscribing again");
            self.live = None;
        }
    }

    async fn subscribe(&self) -> Result<Live, QueueError> {
        let link = &self.inner.consuming;
        let work = async {
            let channel = link.channel().await?;
            let consumers = self.consume(&channel).await;
            let consumers = consumers.map_err(|error| link.error("subscribe", &error))?;
            Ok(Live { channel, consumers })
        };
        let late = || QueueError::Unavailable { reason: "the broker does not answer".to_owned() };
        timeout(SUBSCRIBE, self.inner.or_closed(work)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn consume(&self, channel: &Channel) -> lapin::Result<Vec<Consumer>> {
        // Counts for each consumer that comes after it.
        channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
        let mut consumers = Vec::with_capacity(self.queues.len());
        for queue in &self.queues {
            queue.declare(channel).await?;
            let (name, tag) = (queue.name.clone(), "".into());
            let options = BasicConsumeOptions::default();
            let consumer = channel.basic_consume(name, tag, options, FieldTable::default());
            consumers.push(consumer.await?);
        }
        Ok(consumers)
    }

    fn read<T>(
        &self,
        index: usize,
        delivery: lapin::message::Delivery,
        reader: &Reader<T>,
    ) -> Delivery<T> {
        let beginning = delivery.data[..delivery.data.len().min(dead::KEPT)].to_vec();
        let queue = self.queues[index].clone();
        let inner = Arc::clone(&self.inner);
        let token = Token { inner, acker: delivery.acker, queue, beginning };
        reader.delivery(&delivery.data, crate::delivery::Token::Rabbit(token))
    }
}

impl Live {
    async fn next(&mut self) -> (usize, Option<lapin::Result<lapin::message::Delivery>>) {
        poll_fn(|context| {
            for (index, consumer) in self.consumers.iter_mut().enumerate() {
                if let Poll::Ready(item) = consumer.poll_next_unpin(context) {
                    return Poll::Ready((index, item));
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Left to itself lapin first cancels each consumer: its successor would be given new
        // messages before those that this one still holds. The first poll queues the frame and
        // marks the consumers as ended; nobody needs the answer.
        drop(self.channel.close(200, "dropped".into()).now_or_never());
    }
}

impl Token {
    pub(crate) async fn acknowledge(self) -> Result<(), QueueError> {
        let sent = timeout(ACKNOWLEDGE, self.acker.ack(BasicAckOptions::default())).await;
        let reason = match sent {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => "its connection is gone".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the broker does not take it".to_owned(),
        };
        let queue = self.queue.name.as_str();
        let reason = format!("a message of the queue {queue:?} cannot be acknowledged: {reason}");
        Err(QueueError::Unavailable { reason })
    }

    pub(crate) async fn reject(self, reason: &str) -> Result<(), QueueError> {
        // First the dead letter: a crash between the two makes it a second one, not a lost one.
        dead::bury(&self.inner, self.queue.name.as_str(), reason, &self.beginning).await?;
        self.acknowledge().await
    }
}

impl fmt::Debug for Token {
    /// Without anything of the message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("queue", &self.queue.name.as_str()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queues: Vec<_> = self.queues.iter().map(|queue| queue.name.as_str()).collect();
        f.debug_struct("Subscription").field("queues", &queues).finish_non_exhaustive()
    }
}
