//! The queue between many processes: a RabbitMQ broker, version 3.10 or later.
//!
//! Everything on the broker is a quorum queue, durable and replicated where the broker is a
//! cluster, and is declared by whoever connects first (`topology`). A process has two
//! connections: the broker stops reading from those that publish when it is short of memory or
//! disk, and acknowledgements must not wait behind that.
//!
//! - Publishing (`publish`) returns when the broker has confirmed the message. What is not
//!   confirmed, because the broker restarts, is published again for [`PUBLISH`]: a consumer may see
//!   a message twice.
//! - Consuming (`receive`) goes on by itself after the broker was away. What was delivered before
//!   and not acknowledged comes again; its old delivery cannot be acknowledged any more.
//! - The broker closes the channel of a consumer that leaves a delivery unacknowledged for 30
//!   minutes (`consumer_timeout`), and gives its deliveries to others. So a consumer acknowledges
//!   as soon as it has stored a message, and never waits for work to be done.
//!
//! RabbitMQ 3.10 that is killed within three seconds of the first declaration of a queue may come up
//! with that queue empty and without a leader, so that nothing published to it is confirmed; another
//! restart of the broker ends that. Nothing on our side can: to us the broker is slow.
//!
//! A message may be as large as [`common::limits::JOB_REQUEST_BYTES`] and its frame; the broker's
//! own limit (`max_message_size`) must be above that, which it is by default before RabbitMQ 4.

mod ask;
mod dead;
mod link;
mod publish;
mod receive;
mod settings;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use common::ids::{HostId, JobId};
use common::time::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::delivery::Reader;
use crate::message::{
    Control, EventBatch, JobMessage, Message, Progress, Release, Reserve, Reserved,
};
use crate::{Address, DeadLetter, EventReceiver, JobReceiver, QueueError};

pub use ask::Replier;
pub use receive::{ControlReceiver, Receiver, Token};
pub use settings::Settings;

use ask::Asker;
use link::Link;
use publish::{Publisher, Target};
use topology::Names;

/// How long a message that the broker does not confirm is published again.
pub const PUBLISH: Duration = Duration::from_secs(30);

/// What lapin may write into a log, as a directive for the log's filter: it writes whole messages
/// when one cannot be routed, and whole frames below the level of information.
pub const LOG_DIRECTIVES: [&str; 2] = ["lapin=info", "lapin::returned_messages=off"];

/// How long a broker may take to answer who asks whether it is there.
const CHECK: Duration = Duration::from_secs(3);

/// A connection to a broker. Clones share it.
#[derive(Clone, Debug)]
pub struct Rabbit {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    names: Names,
    /// Ends every wait of receivers and publishers.
    closed: CancellationToken,
    consuming: Link,
    publishing: Arc<Link>,
    /// Jobs, control messages and dead letters.
    publisher: Publisher,
    /// Events, which are large and many: they do not hold up the others.
    events: Publisher,
    asker: Asker,
    reading_dead_letters: tokio::sync::Mutex<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl Rabbit {
    /// Connects and declares everything that both sides share.
    ///
    /// # Errors
    /// The broker cannot be reached, or refuses.
    pub async fn connect(settings: &Settings) -> Result<Self, QueueError> {
        let names = Names::new(settings)?;
        let closed = CancellationToken::new();
        let link = |purpose| Link::new(settings, &names, purpose, closed.clone());
        let (publishing, consuming) = (Arc::new(link("publish")?), link("consume")?);
        // Fails here, with a reason, and not at the first message.
        publishing.channel().await?;
        let publisher = || Publisher::start(Arc::clone(&publishing), closed.clone());
        Ok(Self {
            inner: Arc::new(Inner {
                publisher: publisher(),
                events: publisher(),
                asker: Asker::new(Arc::clone(&publishing), names.reserve()),
                names,
                closed,
                consuming,
                publishing,
                reading_dead_letters: tokio::sync::Mutex::new(()),
            }),
        })
    }

    /// Connects and does nothing else: nothing is declared.
    ///
    /// # Errors
    /// As [`Rabbit::connect`].
    pub async fn look(settings: &Settings) -> Result<(), QueueError> {
        let names = Names::new(settings)?;
        Link::new(settings, &names, "look", CancellationToken::new())?.look().await
    }

    pub(crate) async fn check(&self) -> Result<(), QueueError> {
        let opened = async {
            let channel = self.inner.publishing.channel().await?;
            let closing = channel.close(200, "checked".into()).await;
            closing.map_err(|error| self.inner.publishing.error("close a channel", &error))
        };
        let late = |_| QueueError::Unavailable {
            reason: format!("the broker does not answer within {} s", CHECK.as_secs()),
        };
        tokio::time::timeout(CHECK, opened).await.map_err(late)?
    }

    pub(crate) async fn publish_job(&self, job: &JobMessage) -> Result<(), QueueError> {
        let target = Target::queue("a job", self.inner.names.jobs());
        self.inner.publisher.publish(&target, job.encode()).await
    }

    pub(crate) async fn cancel(&self, job: JobId) -> Result<(), QueueError> {
        let target = Target::exchange("a cancel", self.inner.names.control());
        let message = Control::Cancel { job, time: Timestamp::now() };
        self.inner.publisher.publish(&target, message.encode()?).await
    }

    pub(crate) async fn progress(
        &self,
        host: HostId,
        progress: Progress,
    ) -> Result<(), QueueError> {
        let target = Target::queue("progress", self.inner.names.host(host));
        self.inner.publisher.publish(&target, Control::Progress(progress).encode()?).await
    }

    pub(crate) async fn reserve(&self, question: &Reserve) -> Result<Reserved, QueueError> {
        self.inner.or_closed(self.inner.asker.ask(&question.encode()?)).await
    }

    pub(crate) async fn release(&self, release: Release) -> Result<(), QueueError> {
        let target = Target::queue("a release", self.inner.names.release());
        self.inner.publisher.publish(&target, Control::Release(release).encode()?).await
    }

    pub(crate) async fn events(
        &self,
        address: &Address,
        prefetch: u16,
    ) -> Result<EventReceiver, QueueError> {
        let queue = self.inner.names.events(address);
        let read = Reader::new(EventBatch::decode);
        Receiver::start(&self.inner, queue, prefetch, read).await.map(EventReceiver::Rabbit)
    }

    pub(crate) async fn jobs(&self, prefetch: u16) -> Result<JobReceiver, QueueError> {
        let queue = self.inner.names.jobs();
        let read = Reader::jobs();
        Receiver::start(&self.inner, queue, prefetch, read).await.map(JobReceiver::Rabbit)
    }

    pub(crate) async fn control(&self, host: HostId) -> Result<crate::ControlReceiver, QueueError> {
        let receiver = ControlReceiver::start(&self.inner, host).await?;
        Ok(crate::ControlReceiver::Rabbit(receiver))
    }

    pub(crate) async fn publish_events(
        &self,
        to: &Address,
        batch: &EventBatch,
    ) -> Result<(), QueueError> {
        let target = Target::queue("events", self.inner.names.events(to));
        self.inner.events.publish(&target, batch.encode()?).await
    }

    pub(crate) async fn dead_letters(&self, most: usize) -> Result<Vec<DeadLetter>, QueueError> {
        self.inner.or_closed(dead::latest(&self.inner, most)).await
    }

    pub(crate) async fn close(&self) {
        self.inner.closed.cancel();
        self.inner.publishing.close().await;
        self.inner.consuming.close().await;
    }
}

impl Inner {
    async fn or_closed<T>(
        &self,
        work: impl Future<Output = Result<T, QueueError>>,
    ) -> Result<T, QueueError> {
        self.closed.run_until_cancelled(work).await.unwrap_or(Err(QueueError::Closed))
    }
}
