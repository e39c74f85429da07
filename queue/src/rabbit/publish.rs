//! Publishing: a call returns when the broker has the message.
//!
//! One task owns the channel. It sends what waits as one group and looks at the answers when it has
//! all of them, because of how a message that cannot be routed comes back: the broker returns the
//! message and then acknowledges it, and lapin attaches what was returned to whichever
//! acknowledgement comes next, which may be another message's when the broker acknowledges several
//! at once. Over a whole group the ids of the returned messages are complete.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::PUBLISH;
use super::link::{Link, Pauses};
use super::topology::QueueName;
use crate::QueueError;

/// How long the broker may take to confirm a group.
const CONFIRM: Duration = Duration::from_secs(12);

/// Messages in one group.
const GROUP: usize = 128;

/// Bytes after which a group takes no further message.
const GROUP_BYTES: usize = 8 << 20;

/// Messages that wait for the task; more wait for room.
const WAITING: usize = 256;

/// Where a message goes.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// What the message is, for errors.
    what: &'static str,
    exchange: ShortString,
    key: ShortString,
}

/// Publishes on a channel of its own.
#[derive(Debug)]
pub(super) struct Publisher {
    requests: mpsc::Sender<Request>,
    closed: CancellationToken,
}

struct Request {
    target: Target,
    properties: BasicProperties,
    body: Arc<[u8]>,
    answer: oneshot::Sender<Answer>,
}

/// What became of one attempt.
#[derive(Debug)]
enum Answer {
    Taken,
    Unroutable,
    /// The broker has it and refuses it: a queue is full.
    Refused,
    /// Whether the broker has it is unknown.
    Lost(String),
}

impl Target {
    /// A queue, which must be there.
    pub(super) fn queue(what: &'static str, queue: QueueName) -> Self {
        Self::key(what, queue.name)
    }

    /// Something that the default exchange routes to.
    pub(super) fn key(what: &'static str, key: ShortString) -> Self {
        Self { what, exchange: "".into(), key }
    }

    /// Every queue that is bound to an exchange, of which there must be one.
    pub(super) fn exchange(what: &'static str, exchange: ShortString) -> Self {
        Self { what, exchange, key: "".into() }
    }

    fn name(&self) -> &str {
        if self.key.as_str().is_empty() { self.exchange.as_str() } else { self.key.as_str() }
    }
}

impl Publisher {
    /// Starts the task. It ends with the publisher or when the queue is closed.
    pub(super) fn start(link: Arc<Link>, closed: CancellationToken) -> Self {
        let (requests, waiting) = mpsc::channel(WAITING);
        let ended = closed.clone();
        tokio::spawn(async move { ended.run_until_cancelled(run(&link, waiting)).await });
        Self { requests, closed }
    }

    /// Publishes durably. What the broker does not confirm is published again for [`PUBLISH`].
    pub(super) async fn publish(&self, target: &Target, body: Vec<u8>) -> Result<(), QueueError> {
        self.publish_with(target, BasicProperties::default(), body).await
    }

    /// As [`Publisher::publish`], with properties.
    pub(super) async fn publish_with(
        &self,
        target: &Target,
        properties: BasicProperties,
        body: Vec<u8>,
    ) -> Result<(), QueueError> {
        let deadline = Instant::now() + PUBLISH;
        let body: Arc<[u8]> = body.into();
        let mut pauses = Pauses::new();
        loop {
            let attempt = self.attempt(target, properties.clone(), Arc::clone(&body));
            let answer = match self.closed.run_until_cancelled(timeout_at(deadline, attempt)).await
            {
                None => return Err(QueueError::Closed),
                Some(Ok(answer)) => answer?,
                Some(Err(_)) => Answer::Lost("it did not confirm in time".to_owned()),
            };
            let reason = match answer {
                Answer::Taken => return Ok(()),
                Answer::Unroutable => {
                    let queue = target.name().to_owned();
                    return Err(QueueError::Unroutable { what: target.what, queue });
                }
                Answer::Refused => {
                    let queue = target.name();
                    let reason = format!("the queue {queue:?} takes no more: it is full");
                    return Err(QueueError::Unavailable { reason });
                }
                Answer::Lost(reason) => reason,
            };
            let pause = pauses.next();
            if Instant::now() + pause >= deadline {
                return Err(QueueError::Unavailable {
                    reason: format!("{} was not published: {reason}", target.what),
                });
            }
            tracing::debug!(what = target.what, reason, "publishing again");
            if self.closed.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Err(QueueError::Closed);
            }
        }
    }

    /// Publishes once, to whom it may concern: an answer to somebody who may be gone.
    pub(super) async fn publish_once(
        &self,
        target: &Target,
        properties: BasicProperties,
        body: Vec<u8>,
    ) {
        let deadline = Instant::now() + CONFIRM;
        let attempt = self.attempt(target, properties, body.into());
        drop(self.closed.run_until_cancelled(timeout_at(deadline, attempt)).await);
    }

    async fn attempt(
        &self,
        target: &Target,
        properties: BasicProperties,
        body: Arc<[u8]>,
    ) -> Result<Answer, QueueError> {
        let (answer, answered) = oneshot::channel();
        let request = Request { target: target.clone(), properties, body, answer };
        // The task ends only when the queue is closed.
        self.requests.send(request).await.map_err(|_| QueueError::Closed)?;
        answered.await.map_err(|_| QueueError::Closed)
    }
}

async fn run(link: &Link, mut waiting: mpsc::Receiver<Request>) {
    let mut channel: Option<Channel> = None;
    while let Some(first) = waiting.recv().await {
        let mut bytes = first.body.len();
        let mut group = vec![first];
        while group.len() < GROUP
            && bytes < GROUP_BYTES
            && let Ok(next) = waiting.try_recv()
        {
            bytes += next.body.len();
            group.push(next);
        }
        // Whoever gave up meanwhile does not want a copy on the broker.
        group.retain(|request| !request.answer.is_closed());
        let open = match channel.take().filter(|channel| channel.status().connected()) {
            Some(open) => Ok(open),
            None => confirming(link).await,
        };
        match open {
            Ok(open) => {
                // After a group with a loss the next one begins on a new channel, so that no late
                // answer is taken for one of its own.
                if send(&open, group).await {
                    channel = Some(open);
                }
            }
            Err(error) => {
                for request in group {
                    drop(request.answer.send(Answer::Lost(error.to_string())));
                }
            }
        }
    }
}

/// A channel that confirms.
async fn confirming(link: &Link) -> Result<Channel, QueueError> {
    let channel = link.channel().await?;
    let select = channel.confirm_select(ConfirmSelectOptions::default());
    match timeout_at(Instant::now() + CONFIRM, select).await {
        Ok(Ok(())) => Ok(channel),
        Ok(Err(error)) => Err(link.error("have messages confirmed", &error)),
        Err(_) => Err(QueueError::Unavailable { reason: "the broker does not answer".to_owned() }),
    }
}

/// Publishes a group and answers everyone in it. Gives whether the channel can be used again.
async fn send(channel: &Channel, group: Vec<Request>) -> bool {
    let deadline = Instant::now() + CONFIRM;
    let mut sent = Vec::with_capacity(group.len());
    for (index, request) in group.iter().enumerate() {
        let confirm = publish(channel, index, request);
        sent.push(settled(timeout_at(deadline, confirm).await));
    }
    let mut confirmed = Vec::with_capacity(sent.len());
    for confirm in sent {
        confirmed.push(match confirm {
            Ok(confirm) => settled(timeout_at(deadline, confirm).await),
            Err(reason) => Err(reason),
        });
    }
    let (answers, returned): (Vec<_>, Vec<_>) = confirmed.into_iter().map(read).unzip();
    let returned: HashSet<String> = returned.into_iter().flatten().collect();
    let mut whole = true;
    for (index, (request, answer)) in group.into_iter().zip(answers).enumerate() {
        let answer = match answer {
            Answer::Taken if returned.contains(&id(index)) => Answer::Unroutable,
            answer => answer,
        };
        whole &= !matches!(answer, Answer::Lost(_));
        // Whoever asked may have given up.
        drop(request.answer.send(answer));
    }
    whole
}

async fn publish(
    channel: &Channel,
    index: usize,
    request: &Request,
) -> lapin::Result<PublisherConfirm> {
    let Target { exchange, key, .. } = &request.target;
    let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    // 2 is persistent.
    let properties =
        request.properties.clone().with_delivery_mode(2).with_message_id(id(index).into());
    channel.basic_publish(exchange.clone(), key.clone(), mandatory, &request.body, properties).await
}

/// A message's id within its group, by which it is known when it is returned.
fn id(index: usize) -> String {
    index.to_string()
}

fn settled<T>(outcome: Result<lapin::Result<T>, tokio::time::error::Elapsed>) -> Result<T, String> {
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the broker did not confirm in time".to_owned()),
    }
}

/// The answer as far as it is known, and the id of a message of the group that was returned.
fn read(confirmation: Result<Confirmation, String>) -> (Answer, Option<String>) {
    let id = |returned: Option<BasicReturnMessage>| {
        let id = returned?.delivery.properties.message_id().clone()?;
        Some(id.as_str().to_owned())
    };
    match confirmation {
        Ok(Confirmation::Ack(returned)) => (Answer::Taken, id(returned)),
        Ok(Confirmation::Nack(returned)) => (Answer::Refused, id(returned)),
        Ok(Confirmation::NotRequested) => {
            (Answer::Lost("the channel does not confirm".to_owned()), None)
        }
        Err(reason) => (Answer::Lost(reason), None),
    }
}
