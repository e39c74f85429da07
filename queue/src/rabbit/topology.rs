//! What is on the broker, and under which names.
//!
//! | name | what | kept |
//! | --- | --- | --- |
//! | `jobs` | jobs; all orchestrators share it | until acknowledged |
//! | `control` | exchange; copies to every `host.ID` | |
//! | `host.ID` | what one orchestrator host is told | 7 days without the host |
//! | `reserve` | questions for a reservation; one orchestrator takes each | 5 s |
//! | `release` | what is given back; one orchestrator takes each | 60 s |
//! | `events.ADDRESS` | events for one forge runner | 7 days without the runner |
//! | `dead` | the beginning of what nobody could use | the latest 1 000 |
//!
//! Quorum queues cannot be exclusive, deleted automatically or not durable; nothing here needs to.
//! The queues of one consumer have a *single active consumer*: a connection that is half dead
//! cannot take messages from between those of its successor.

use common::ids::HostId;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};

use super::Settings;
use crate::{Address, QueueError, RESERVE_ANSWER};

/// How long a queue is kept that nobody has consumed from, in milliseconds: 7 days.
const EXPIRES: i64 = 7 * 24 * 3600 * 1000;

/// How long a message on `release` is kept, in milliseconds: a reservation lapses before that.
const RELEASE_TTL: i64 = 60_000;

/// Dead letters on the broker; the oldest goes when a new one comes.
const DEAD_LETTERS: i64 = 1000;

/// Deliveries of one message after which the broker would drop it. Later versions of RabbitMQ have
/// a limit of 20 by default, which a few restarts would reach; none of ours is to be dropped.
const DELIVERY_LIMIT: i64 = 1_000_000;

/// The longest prefix. With the longest address it is still short enough for a name on a broker.
const PREFIX: usize = 64;

/// The names under one prefix.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
    event_queue_bytes: i64,
}

/// A queue with how it is declared.
#[derive(Clone, Debug)]
pub(super) struct QueueName {
    pub(super) name: ShortString,
    arguments: FieldTable,
    /// Bound to the control exchange of this name.
    bound: Option<ShortString>,
}

impl Names {
    pub(super) fn new(settings: &Settings) -> Result<Self, QueueError> {
        let prefix = settings.prefix.clone();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if prefix.is_empty() || prefix.len() > PREFIX || !prefix.chars().all(plain) {
            let reason = format!(
                "the prefix {prefix:?} is not 1 to {PREFIX} letters, digits, `.`, `_` and `-`"
            );
            return Err(QueueError::Unavailable { reason });
        }
        let event_queue_bytes = i64::try_from(settings.event_queue_bytes).unwrap_or(i64::MAX);
        Ok(Self { prefix, event_queue_bytes })
    }

    pub(super) fn control(&self) -> ShortString {
        self.name("control")
    }

    pub(super) fn jobs(&self) -> QueueName {
        self.queue("jobs", &[])
    }

    pub(super) fn reserve(&self) -> QueueName {
        let ttl = i64::try_from(RESERVE_ANSWER.as_millis()).expect("a few seconds");
        self.queue("reserve", &[("x-message-ttl", ttl.into())])
    }

    pub(super) fn release(&self) -> QueueName {
        self.queue("release", &[("x-message-ttl", RELEASE_TTL.into())])
    }

    pub(super) fn dead(&self) -> QueueName {
        self.queue("dead", &[("x-max-length", DEAD_LETTERS.into())])
    }

    pub(super) fn host(&self, host: HostId) -> QueueName {
        let arguments =
            [("x-expires", EXPIRES.into()), ("x-single-active-consumer", AMQPValue::Boolean(true))];
        let queue = self.queue(&format!("host.{host}"), &arguments);
        QueueName { bound: Some(self.control()), ..queue }
    }

    pub(super) fn events(&self, address: &Address) -> QueueName {
        let arguments = [
            ("x-expires", EXPIRES.into()),
            ("x-single-active-consumer", AMQPValue::Boolean(true)),
            ("x-max-length-bytes", self.event_queue_bytes.into()),
            // Not the default, which drops the oldest without a word.
            ("x-overflow", AMQPValue::LongString("reject-publish".into())),
        ];
        self.queue(&format!("events.{address}"), &arguments)
    }

    /// Declares what both sides share.
    pub(super) async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let arguments = FieldTable::default();
        channel.exchange_declare(self.control(), ExchangeKind::Fanout, durable, arguments).await?;
        for queue in [self.jobs(), self.reserve(), self.release(), self.dead()] {
            queue.declare(channel).await?;
        }
        Ok(())
    }

    fn name(&self, name: &str) -> ShortString {
        // Prefix and address are bounded: this fits into 255 bytes.
        format!("{}.{name}", self.prefix).into()
    }

    fn queue(&self, name: &str, arguments: &[(&str, AMQPValue)]) -> QueueName {
        let mut table = FieldTable::default();
        table.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        table.insert("x-delivery-limit".into(), DELIVERY_LIMIT.into());
        for (key, value) in arguments {
            table.insert((*key).into(), value.clone());
        }
        QueueName { name: self.name(name), arguments: table, bound: None }
    }
}

impl QueueName {
    /// Declares the queue, which changes nothing if it is there.
    pub(super) async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(self.name.clone(), durable, self.arguments.clone()).await?;
        if let Some(exchange) = &self.bound {
            let (queue, exchange) = (self.name.clone(), exchange.clone());
            let options = QueueBindOptions::default();
            channel.queue_bind(queue, exchange, "".into(), options, FieldTable::default()).await?;
        }
        Ok(())
    }
}
