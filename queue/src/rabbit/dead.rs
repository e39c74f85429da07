//! Messages that nobody could use: on a queue of their own, with the reason.
//!
//! The broker's own dead-lettering knows only its own reasons, and keeps no order of trust between
//! "stored as a dead letter" and "gone from its queue"; so the consumer publishes the letter itself,
//! confirmed, and acknowledges the message then.

use std::collections::VecDeque;
use std::time::Duration;

use common::time::Timestamp;
use lapin::BasicProperties;
use lapin::message::BasicGetMessage;
use lapin::options::BasicGetOptions;
use lapin::types::{AMQPValue, FieldTable};
use tokio::time::timeout;

use super::Inner;
use super::publish::Target;
use crate::{DeadLetter, QueueError};

/// The bytes of a message that a dead letter keeps.
pub(super) const KEPT: usize = 1024;

/// The bytes of a reason.
const REASON: usize = 1024;

/// How long reading may take.
const READ: Duration = Duration::from_secs(30);

const REASON_HEADER: &str = "solstice-reason";
const QUEUE_HEADER: &str = "solstice-queue";
/// Microseconds since 1970.
const TIME_HEADER: &str = "solstice-time";

/// Puts the beginning of a message to the dead letters, durably.
pub(super) async fn bury(
    inner: &Inner,
    queue: &str,
    reason: &str,
    bytes: &[u8],
) -> Result<(), QueueError> {
    let reason = &reason[..reason.floor_char_boundary(REASON)];
    let time = i64::try_from(Timestamp::now().as_micros()).expect("years up to 9999 fit");
    let mut headers = FieldTable::default();
    headers.insert(REASON_HEADER.into(), AMQPValue::LongString(reason.into()));
    headers.insert(QUEUE_HEADER.into(), AMQPValue::LongString(queue.into()));
    headers.insert(TIME_HEADER.into(), AMQPValue::LongLongInt(time));
    let properties = BasicProperties::default().with_headers(headers);
    let target = Target::queue("a dead letter", inner.names.dead());
    tracing::warn!(queue, reason, "a message cannot be used, it goes to the dead letters");
    inner.publisher.publish_with(&target, properties, bytes.to_vec()).await
}

/// The latest dead letters, newest first. They stay on their queue.
pub(super) async fn latest(inner: &Inner, most: usize) -> Result<Vec<DeadLetter>, QueueError> {
    // What one reader holds another does not see; one in another process sees a part.
    let _reading = inner.reading_dead_letters.lock().await;
    let link = &inner.consuming;
    let read = async {
        let channel = link.channel().await?;
        let queue = inner.names.dead();
        let mut latest = VecDeque::new();
        let mut failed = None;
        loop {
            match channel.basic_get(queue.name.clone(), BasicGetOptions::default()).await {
                Ok(Some(message)) => latest.push_front(letter(message)),
                Ok(None) => break,
                Err(error) => {
                    failed = Some(link.error("read dead letters", &error));
                    break;
                }
            }
            latest.truncate(most);
        }
        // This gives them back.
        let closed = channel.close(200, "read".into()).await;
        match (failed, closed) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(link.error("give dead letters back", &error)),
            (None, Ok(())) => Ok(latest.into()),
        }
    };
    let late = || QueueError::Unavailable { reason: "the broker does not answer".to_owned() };
    timeout(READ, read).await.unwrap_or_else(|_| Err(late()))
}

fn letter(message: BasicGetMessage) -> DeadLetter {
    let delivery = message.delivery;
    let headers = delivery.properties.headers().clone().unwrap_or_default();
    let text = |key: &str| match headers.inner().get(key) {
        Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        _ => String::new(),
    };
    let time = match headers.inner().get(TIME_HEADER) {
        Some(AMQPValue::LongLongInt(micros)) => u64::try_from(*micros).unwrap_or_default(),
        _ => 0,
    };
    let mut bytes = delivery.data;
    bytes.truncate(KEPT);
    DeadLetter {
        reason: text(REASON_HEADER),
        time: Timestamp::from_micros(time),
        queue: text(QUEUE_HEADER),
        bytes,
    }
}
