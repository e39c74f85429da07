//! One queue, and the processes around it.

use std::path::Path;
use std::time::Duration;

use common::time::Timestamp;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use queue::embedded::Embedded;
use queue::rabbit::{Rabbit, Settings};
use queue::{ControlReceiver, Delivery, EventReceiver, Heard, JobReceiver, Queue, QueueError};
use simulators::RabbitServer;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection as _};
use tempfile::TempDir;
use tokio::sync::Mutex;

/// How long anything that must happen may take, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a test watches that something does not happen. A queue that is wrong may be too slow to
/// be caught, one that is right is never blamed.
pub(crate) const WATCH: Duration = Duration::from_millis(300);

/// The file of the embedded form.
const FILE: &str = "queue.db";

/// A queue in one of its forms.
pub(crate) enum World {
    Embedded {
        directory: TempDir,
        /// The one process that has the file open.
        process: Mutex<Option<Queue>>,
    },
    Rabbit {
        settings: Settings,
    },
}

impl World {
    pub(crate) fn embedded() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::Embedded { directory, process: Mutex::new(None) }
    }

    pub(crate) async fn rabbit() -> Self {
        Self::on(RabbitServer::shared().await.unwrap())
    }

    pub(crate) fn on(server: &RabbitServer) -> Self {
        Self::Rabbit { settings: Settings::new(server.url(), server.prefix()) }
    }

    /// A process of its own, where the form has many; else the only one.
    pub(crate) async fn process(&self) -> Queue {
        match self {
            Self::Embedded { directory, process } => {
                let mut process = process.lock().await;
                if let Some(queue) = &*process {
                    return queue.clone();
                }
                let path = directory.path().join(FILE);
                let queue = Queue::Embedded(Embedded::open(&path).await.unwrap());
                *process = Some(queue.clone());
                queue
            }
            Self::Rabbit { settings } => Queue::Rabbit(within(Rabbit::connect(settings)).await),
        }
    }

    /// Puts bytes on a queue that is there, past everything of ours. The embedded form has no process
    /// meanwhile.
    pub(crate) async fn put(&self, queue: &str, messages: &[(&str, Vec<u8>)]) {
        match self {
            Self::Embedded { directory, process } => {
                assert!(process.lock().await.is_none(), "the file is in use");
                put_embedded(&directory.path().join(FILE), queue, messages).await;
            }
            Self::Rabbit { settings } => {
                let properties = ConnectionProperties::default();
                let connection = within(Connection::connect(&settings.url, properties)).await;
                let channel = within(connection.create_channel()).await;
                within(channel.confirm_select(ConfirmSelectOptions::default())).await;
                let key = format!("{}.{queue}", settings.prefix);
                for (what, bytes) in messages {
                    put_rabbit(&channel, &key, what, bytes).await;
                }
                within(connection.close(200, "done".into())).await;
            }
        }
    }

    /// Ends a process without a word to the other side. Every process of the embedded form is one.
    pub(crate) async fn end(&self, queue: Queue) {
        queue.close().await;
        if let Self::Embedded { process, .. } = self {
            process.lock().await.take();
        }
    }
}

async fn put_rabbit(channel: &Channel, key: &str, what: &str, bytes: &[u8]) {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let properties = BasicProperties::default();
    let sent = channel.basic_publish("".into(), key.into(), options, bytes, properties);
    let confirmation = within(within(sent).await).await;
    assert!(matches!(confirmation, Confirmation::Ack(None)), "{what}: {confirmation:?}");
}

async fn put_embedded(path: &Path, queue: &str, messages: &[(&str, Vec<u8>)]) {
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = within(options.connect()).await;
    for (what, bytes) in messages {
        let statement = "INSERT INTO message (lane, time, bytes) \
                         SELECT id, $1, $2 FROM lane WHERE name = $3";
        let time = i64::try_from(Timestamp::now().as_micros()).unwrap();
        let query = sqlx::query(statement).bind(time).bind(bytes).bind(queue);
        let done = within(query.execute(&mut connection)).await;
        assert_eq!(done.rows_affected(), 1, "{what}: there is no lane {queue:?}");
    }
    within(connection.close()).await;
}

/// Waits for what must come, and take no error.
pub(crate) async fn within<T, E: std::fmt::Display>(work: impl Future<Output = Result<T, E>>) -> T {
    match patient(work).await {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

/// Waits for what must come, whichever way.
pub(crate) async fn patient<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("nothing happened for a minute")
}

/// Watches that nothing comes.
pub(crate) async fn silent<T: std::fmt::Debug>(work: impl Future<Output = T>) {
    if let Ok(came) = tokio::time::timeout(WATCH, work).await {
        panic!("unexpected: {came:?}");
    }
}

/// Takes the next job of a receiver.
pub(crate) async fn next_job(receiver: &mut JobReceiver) -> Delivery<queue::message::JobMessage> {
    within(receiver.next()).await
}

/// Takes the next batch of events of a receiver.
pub(crate) async fn next_events(
    receiver: &mut EventReceiver,
) -> Delivery<queue::message::EventBatch> {
    within(receiver.next()).await
}

/// Takes what a host hears next, which must be a control message.
pub(crate) async fn next_control(
    receiver: &mut ControlReceiver,
) -> Delivery<queue::message::Control> {
    match within(receiver.next()).await {
        Heard::Control(delivery) => delivery,
        Heard::Reserve(question, _) => panic!("unexpected question {question:?}"),
    }
}

/// Takes and acknowledges so many jobs, and gives their ids.
pub(crate) async fn take_jobs(receiver: &mut JobReceiver, count: usize) -> Vec<common::ids::JobId> {
    let mut jobs = Vec::new();
    while jobs.len() < count {
        let delivery = next_job(receiver).await;
        jobs.push(delivery.message.as_ref().unwrap().envelope().job);
        within(delivery.acknowledge()).await;
    }
    jobs
}

/// Asserts that a call found nobody to take its message.
pub(crate) fn assert_unroutable(result: &Result<(), QueueError>) {
    assert!(matches!(result, Err(QueueError::Unroutable { .. })), "{result:?}");
}
