//! The store in one SQLite file: one connection that writes, a few that read.
//!
//! A commit waits for the disk. So that it is not one wait for each change, everything that waits
//! for the writer at one moment shares a transaction, each in a savepoint of its own; nobody is
//! answered before the transaction is on the disk.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{mpsc, oneshot};

use super::session::Session;
use super::signal::Signal;
use super::{StoreError, migrations};
use crate::clock::Clock;

/// How long a statement waits for another process that has the file, such as a backup.
const BUSY: Duration = Duration::from_secs(10);
/// Connections that read.
const READERS: u32 = 4;
/// Changes that wait for the writer; whoever comes next waits to be let in.
const WAITING: usize = 256;
/// Changes that share one transaction at most, so that the first need not wait for many.
const SHARED: usize = 64;
/// The size to which the log of changes is cut after it was written to the file.
const LOG_BYTES: &str = "67108864";

/// The store in one SQLite file. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Sqlite {
    writer: mpsc::Sender<Message>,
    readers: SqlitePool,
    signal: Arc<Signal>,
    clock: Clock,
}

enum Message {
    Work(Work),
    Close(oneshot::Sender<()>),
}

/// A change, to be made inside the writer's transaction.
type Work = Box<dyn for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, Outcome> + Send>;

/// What became of a change, before its transaction is over.
struct Outcome {
    /// Whether it is to be kept.
    keep: bool,
    /// Answers whoever asked for it, with the reason if the transaction was not committed.
    answer: Answer,
}

type Answer = Box<dyn FnOnce(Result<(), &str>) + Send>;

impl Sqlite {
    pub(super) async fn open(path: &Path, clock: Clock) -> Result<Self, StoreError> {
        refuse_newer(path).await?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            .pragma("journal_size_limit", LOG_BYTES)
            .disable_statement_logging();
        let mut connection = options.connect().await?;
        migrations::sqlite(&mut connection).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(BUSY)
            .connect_with(options.clone().read_only(true))
            .await?;

        let signal = Arc::new(Signal::new());
        let (writer, inbox) = mpsc::channel(WAITING);
        let session = Session::sqlite_writer(connection, clock.clone());
        let task = Writer { session, options, clock: clock.clone(), signal: Arc::clone(&signal) };
        tokio::spawn(task.run(inbox));
        Ok(Self { writer, readers, signal, clock })
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn signal(&self) -> &Signal {
        &self.signal
    }

    pub(super) async fn read(&self) -> Result<Session, StoreError> {
        Ok(Session::sqlite_reader(self.readers.acquire().await?, self.clock.clone()))
    }

    /// Makes a change. It is made even if the caller does not wait for the answer.
    pub(super) async fn write<T, F>(&self, change: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'s> FnOnce(&'s mut Session) -> BoxFuture<'s, Result<T, StoreError>> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let work: Work = Box::new(move |session| {
            Box::pin(async move {
                let result = match AssertUnwindSafe(change(session)).catch_unwind().await {
                    Ok(result) => result,
                    Err(_) => Err(unavailable("the change ended in a panic")),
                };
                let keep = result.is_ok();
                let answer: Answer = Box::new(move |committed| {
                    let result = committed.map_err(unavailable).and(result);
                    // Whoever asked may have gone: then nobody needs the answer.
                    drop(sender.send(result));
                });
                Outcome { keep, answer }
            })
        });
        if self.writer.send(Message::Work(work)).await.is_err() {
            return Err(unavailable("it is closed"));
        }
        receiver.await.unwrap_or_else(|_| {
            Err(unavailable(
                "the change was not begun: it is closed, or its file cannot be written",
            ))
        })
    }

    /// Ends after everything that was asked for before is on the disk.
    pub(super) async fn close(&self) {
        self.readers.close().await;
        let (sender, receiver) = oneshot::channel();
        if self.writer.send(Message::Close(sender)).await.is_ok() {
            // An error means the same: the writer is gone.
            drop(receiver.await);
        }
    }
}

fn unavailable(reason: &str) -> StoreError {
    StoreError::Unavailable { reason: reason.to_owned() }
}

/// Looks at the version of a file that is there before anything opens it to write; makes an empty
/// one that only its owner can read otherwise.
async fn refuse_newer(path: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => {
            return Err(StoreError::Unavailable { reason: format!("{}: {error}", path.display()) });
        }
    }
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY);
    let mut connection = options.disable_statement_logging().connect().await?;
    migrations::sqlite_version(&mut connection).await?;
    Ok(connection.close().await?)
}

/// The task that has the writing connection.
struct Writer {
    session: Session,
    options: SqliteConnectOptions,
    clock: Clock,
    signal: Arc<Signal>,
}

impl Writer {
    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let closed = loop {
            let first = match inbox.recv().await {
                Some(Message::Work(work)) => work,
                Some(Message::Close(closed)) => break Some(closed),
                None => break None,
            };
            let mut waiting = vec![first];
            let mut closing = None;
            while closing.is_none() && waiting.len() < SHARED {
                match inbox.try_recv() {
                    Ok(Message::Work(work)) => waiting.push(work),
                    Ok(Message::Close(closed)) => closing = Some(closed),
                    Err(_) => break,
                }
            }
            self.change(waiting).await;
            if closing.is_some() {
                break closing;
            }
        };
        inbox.close();
        if let Some(connection) = self.session.into_writer()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(error = %error, "the store's file was not closed cleanly");
        }
        // Whoever closes it may not wait any more.
        if let Some(closed) = closed {
            closed.send(()).unwrap_or_default();
        }
    }

    async fn change(&mut self, waiting: Vec<Work>) {
        let mut answers = Vec::with_capacity(waiting.len());
        let result = self.transaction(waiting, &mut answers).await;
        let wake = self.session.take_wake();
        let committed = match result {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!(error = %error, "a transaction of the store failed");
                self.recover().await;
                Err(error.to_string())
            }
        };
        if wake {
            self.signal.raise();
        }
        for answer in answers {
            answer(committed.as_ref().copied().map_err(String::as_str));
        }
    }

    /// Makes all changes and commits them; after an error none of them stands. Those that are
    /// dropped here without an answer were not begun.
    async fn transaction(
        &mut self,
        waiting: Vec<Work>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), StoreError> {
        self.session.execute("BEGIN IMMEDIATE", &[]).await?;
        for work in waiting {
            self.session.execute("SAVEPOINT one", &[]).await?;
            let outcome = work(&mut self.session).await;
            answers.push(outcome.answer);
            if !outcome.keep {
                // An error here means that SQLite gave up the whole transaction, such as on a full
                // disk: then nothing of it may be answered with success.
                self.session.execute("ROLLBACK TO one", &[]).await?;
            }
            self.session.execute("RELEASE one", &[]).await?;
        }
        self.session.execute("COMMIT", &[]).await.map(drop)
    }

    /// Leaves no transaction open, by a new connection if need be.
    async fn recover(&mut self) {
        if self.session.execute("ROLLBACK", &[]).await.is_ok() {
            return;
        }
        // Without a transaction ROLLBACK is an error too, and the connection is as good as new.
        if self.session.execute("BEGIN", &[]).await.is_ok()
            && self.session.execute("ROLLBACK", &[]).await.is_ok()
        {
            return;
        }
        let connected: Result<SqliteConnection, _> = self.options.connect().await;
        match connected {
            Ok(connection) => {
                self.session = Session::sqlite_writer(connection, self.clock.clone());
            }
            Err(error) => tracing::warn!(error = %error, "the store's file cannot be opened again"),
        }
    }
}
