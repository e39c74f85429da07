//! What the daemon must not forget when it is killed: the tasks that it took, how far each was
//! reported, the rows that the server does not have, and the request key under which more may wait.
//!
//! Everything of a job is sealed with the keys of the installation.

use std::path::Path;
use std::time::Duration;

use common::ids::{HostId, JobId};
use common::time::Timestamp;
use queue::message::{JobMessage, MessageError, Progress};
use queue::seal::{KeyRing, SealError, Sealed};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row as _, SqliteConnection};

use crate::report::{Report, Row};

/// How long a statement waits for another process that has the file, such as a backup.
const BUSY: Duration = Duration::from_secs(10);
/// The version of the tables.
const VERSION: i64 = 1;
/// The purpose for which everything here is sealed; the owner is the job.
const PURPOSE: &str = "forgejo-journal";

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS runner (only INTEGER PRIMARY KEY CHECK (only = 1), address TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS fetches (connection TEXT PRIMARY KEY, request_key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tasks (
    job TEXT PRIMARY KEY,
    connection TEXT NOT NULL,
    task INTEGER NOT NULL,
    taken INTEGER NOT NULL,
    request BLOB,
    report BLOB NOT NULL,
    UNIQUE (connection, task)
);
CREATE TABLE IF NOT EXISTS rows (
    job TEXT NOT NULL REFERENCES tasks (job) ON DELETE CASCADE,
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (job, first)
);
";

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be read or written.
    #[error("the journal of tasks cannot be used: {0}")]
    Database(#[from] sqlx::Error),
    /// It was written by a newer program.
    #[error("the journal of tasks is of version {0}, and this program knows {VERSION}; upgrade it")]
    Newer(i64),
    /// What is in it cannot be read.
    #[error("a task in the journal cannot be read: {0}")]
    Unreadable(String),
    /// It was sealed with a key that is gone.
    #[error(
        "a task in the journal cannot be opened: {0}; give back the key that it was sealed with"
    )]
    Sealed(#[from] SealError),
}

impl From<MessageError> for JournalError {
    fn from(error: MessageError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// The journal of one daemon.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    pool: SqlitePool,
    keys: KeyRing,
}

/// Which task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TaskId {
    /// The connection that it came over.
    pub(crate) connection: String,
    /// The server's number for it.
    pub(crate) number: i64,
}

/// How far a task was reported: everything but its rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// What the server shows, or will.
    pub(crate) report: Report,
    /// The events that it was made of.
    pub(crate) progress: Option<Progress>,
    /// The host that has the job.
    pub(crate) host: Option<HostId>,
    /// The rows that the server has.
    pub(crate) acknowledged: u64,
    /// Whether the server takes no more rows.
    pub(crate) log_closed: bool,
    /// Whether the job was told to end.
    pub(crate) cancelled: bool,
    /// When the job must have ended, whoever runs it.
    pub(crate) deadline: Timestamp,
}

/// A task as it is kept.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) id: TaskId,
    pub(crate) job: JobId,
    /// The request, until the queue has it.
    pub(crate) request: Option<JobMessage>,
    pub(crate) standing: Standing,
    /// Rows that the server may not have, in order.
    pub(crate) rows: Vec<Row>,
}

impl Journal {
    pub(crate) async fn open(path: &Path, keys: KeyRing) -> Result<Self, JournalError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&pool).await?;
        if found > VERSION {
            return Err(JournalError::Newer(found));
        }
        sqlx::raw_sql(TABLES).execute(&pool).await?;
        sqlx::raw_sql("PRAGMA user_version = 1").execute(&pool).await?;
        Ok(Self { pool, keys })
    }

    /// The address to which events go; the same in every life of this journal.
    pub(crate) async fn address(&self) -> Result<String, JournalError> {
        const MAKE: &str =
            "INSERT INTO runner (only, address) VALUES (1, $1) ON CONFLICT DO NOTHING";
        let made = format!("forgejo-{}", uuid::Uuid::new_v4().simple());
        sqlx::query(MAKE).bind(made).execute(&self.pool).await?;
        let query = sqlx::query_scalar("SELECT address FROM runner");
        Ok(query.fetch_one(&self.pool).await?)
    }

    /// The request key of a connection that may not have been answered.
    pub(crate) async fn request_key(
        &self,
        connection: &str,
    ) -> Result<Option<String>, JournalError> {
        let query = sqlx::query_scalar("SELECT request_key FROM fetches WHERE connection = $1");
        Ok(query.bind(connection).fetch_optional(&self.pool).await?)
    }

    /// Keeps a request key before it is sent.
    pub(crate) async fn keep_key(&self, connection: &str, key: &str) -> Result<(), JournalError> {
        const KEEP: &str = "INSERT INTO fetches (connection, request_key) VALUES ($1, $2) \
                            ON CONFLICT (connection) DO UPDATE SET request_key = excluded.request_key";
        sqlx::query(KEEP).bind(connection).bind(key).execute(&self.pool).await?;
        Ok(())
    }

    /// Keeps what an answer brought, and forgets the key under which it came, in one step. A task
    /// that is here already is left as it is, and is not among those that are given back.
    pub(crate) async fn take(
        &self,
        connection: &str,
        tasks: Vec<Kept>,
    ) -> Result<Vec<Kept>, JournalError> {
        const PUT: &str = "INSERT INTO tasks (job, connection, task, taken, request, report) \
                           VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let mut taken = Vec::new();
        let mut transaction = self.pool.begin().await?;
        for task in tasks {
            let standing = self.seal(task.job, 0, &task.standing)?;
            let put = sqlx::query(PUT)
                .bind(task.job.to_string())
                .bind(&task.id.connection)
                .bind(task.id.number)
                .bind(i64::try_from(Timestamp::now().as_micros()).unwrap_or(i64::MAX))
                .bind(task.request.as_ref().map(JobMessage::encode))
                .bind(standing)
                .execute(&mut *transaction)
                .await?;
            if put.rows_affected() > 0 {
                self.put_rows(&mut transaction, task.job, 0, &task.rows).await?;
                taken.push(task);
            }
        }
        let forget = sqlx::query("DELETE FROM fetches WHERE connection = $1");
        forget.bind(connection).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(taken)
    }

    /// The queue has the request.
    pub(crate) async fn published(&self, job: JobId) -> Result<(), JournalError> {
        let query = sqlx::query("UPDATE tasks SET request = NULL WHERE job = $1");
        query.bind(job.to_string()).execute(&self.pool).await?;
        Ok(())
    }

    /// Keeps how far a task was reported, with rows that are new from number `first` on; forgets
    /// those that the server has.
    pub(crate) async fn save(
        &self,
        job: JobId,
        standing: &Standing,
        first: u64,
        rows: &[Row],
    ) -> Result<(), JournalError> {
        const SAVE: &str = "UPDATE tasks SET report = $2 WHERE job = $1";
        const FORGET: &str = "DELETE FROM rows WHERE job = $1 AND first + count <= $2";
        let mut transaction = self.pool.begin().await?;
        let sealed = self.seal(job, 0, standing)?;
        let save = sqlx::query(SAVE).bind(job.to_string()).bind(sealed);
        save.execute(&mut *transaction).await?;
        self.put_rows(&mut transaction, job, first, rows).await?;
        let held = if standing.log_closed { u64::MAX } else { standing.acknowledged };
        let forget = sqlx::query(FORGET).bind(job.to_string()).bind(number(held));
        forget.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Forgets a task whose end the server has.
    pub(crate) async fn remove(&self, job: JobId) -> Result<(), JournalError> {
        let query = sqlx::query("DELETE FROM tasks WHERE job = $1");
        query.bind(job.to_string()).execute(&self.pool).await?;
        Ok(())
    }

    /// Every task, oldest first.
    pub(crate) async fn tasks(&self) -> Result<Vec<Kept>, JournalError> {
        const ALL: &str =
            "SELECT job, connection, task, request, report FROM tasks ORDER BY taken, job";
        let found = sqlx::query(ALL).fetch_all(&self.pool).await?;
        let mut tasks = Vec::new();
        for row in &found {
            tasks.push(self.read(row).await?);
        }
        Ok(tasks)
    }

    async fn read(&self, row: &SqliteRow) -> Result<Kept, JournalError> {
        const ROWS: &str = "SELECT first, sealed FROM rows WHERE job = $1 ORDER BY first";
        let text: String = row.try_get("job")?;
        let unreadable =
            |error: &dyn std::fmt::Display| JournalError::Unreadable(error.to_string());
        let job: JobId = text.parse().map_err(|error| unreadable(&error))?;
        let request: Option<Vec<u8>> = row.try_get("request")?;
        let standing: Standing = self.open_sealed(job, 0, &row.try_get::<Vec<u8>, _>("report")?)?;
        let mut rows = Vec::new();
        for found in sqlx::query(ROWS).bind(&text).fetch_all(&self.pool).await? {
            let first: i64 = found.try_get("first")?;
            let first = u64::try_from(first).map_err(|error| unreadable(&error))?;
            let part: Vec<Row> =
                self.open_sealed(job, first + 1, &found.try_get::<Vec<u8>, _>("sealed")?)?;
            let known = standing.acknowledged.saturating_sub(first);
            rows.extend(part.into_iter().skip(usize::try_from(known).unwrap_or(usize::MAX)));
        }
        Ok(Kept {
            id: TaskId { connection: row.try_get("connection")?, number: row.try_get("task")? },
            job,
            request: request.map(|bytes| JobMessage::decode(&bytes)).transpose()?,
            standing,
            rows,
        })
    }

    async fn put_rows(
        &self,
        connection: &mut SqliteConnection,
        job: JobId,
        first: u64,
        rows: &[Row],
    ) -> Result<(), JournalError> {
        const PUT: &str = "INSERT INTO rows (job, first, count, sealed) VALUES ($1, $2, $3, $4)";
        if rows.is_empty() {
            return Ok(());
        }
        let sealed = self.seal(job, first + 1, rows)?;
        let put = sqlx::query(PUT).bind(job.to_string()).bind(number(first));
        put.bind(number(rows.len() as u64)).bind(sealed).execute(connection).await?;
        Ok(())
    }

    /// Seals something of a job; `place` tells it from everything else of the job.
    fn seal(
        &self,
        job: JobId,
        place: u64,
        value: &(impl Serialize + ?Sized),
    ) -> Result<Vec<u8>, JournalError> {
        let plain = rmp_serde::to_vec_named(value)
            .map_err(|error| JournalError::Unreadable(error.to_string()))?;
        let owner = job.to_string().into_bytes();
        Ok(self.keys.seal(PURPOSE, &owner, &place.to_be_bytes(), &plain).to_bytes())
    }

    fn open_sealed<T: for<'a> Deserialize<'a>>(
        &self,
        job: JobId,
        place: u64,
        bytes: &[u8],
    ) -> Result<T, JournalError> {
        let sealed = Sealed::from_bytes(bytes)
            .ok_or_else(|| JournalError::Unreadable("it is not sealed".to_owned()))?;
        let owner = job.to_string().into_bytes();
        let plain = self.keys.open(PURPOSE, &owner, &place.to_be_bytes(), &sealed)?;
        rmp_serde::from_slice(&plain).map_err(|error| JournalError::Unreadable(error.to_string()))
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(connection: &str, number: i64) -> Kept {
        let mut report = Report::new(1);
        let rows = report.open(Timestamp::from_micros(1), &["canary-line".to_owned()]);
        Kept {
            id: TaskId { connection: connection.to_owned(), number },
            job: JobId::new(),
            request: None,
            standing: Standing {
                report,
                progress: None,
                host: None,
                acknowledged: 0,
                log_closed: false,
                cancelled: false,
                deadline: Timestamp::from_micros(9),
            },
            rows,
        }
    }

    #[tokio::test]
    async fn what_was_kept_is_there_again() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("journal.db");
        let keys = KeyRing::ephemeral();
        let journal = Journal::open(&path, keys.clone()).await.expect("a journal");
        let address = journal.address().await.expect("an address");
        journal.keep_key("a", "k1").await.expect("kept");
        assert_eq!(journal.request_key("a").await.expect("a key").as_deref(), Some("k1"));
        let taken = journal.take("a", vec![kept("a", 7), kept("a", 7)]).await.expect("taken");
        assert_eq!(taken.len(), 1, "the same task twice is one task");
        assert_eq!(journal.request_key("a").await.expect("none"), None);
        let mut standing = taken[0].standing.clone();
        standing.acknowledged = 1;
        let more = [Row::new(Timestamp::from_micros(2), "third")];
        journal.save(taken[0].job, &standing, 2, &more).await.expect("saved");
        drop(journal);

        let journal = Journal::open(&path, keys).await.expect("a journal");
        assert_eq!(journal.address().await.expect("an address"), address);
        let tasks = journal.tasks().await.expect("tasks");
        let texts: Vec<&str> = tasks[0].rows.iter().map(|row| row.text.as_str()).collect();
        assert_eq!(texts, ["canary-line", "third"], "the row that the server has is skipped");
        standing.acknowledged = 3;
        journal.save(tasks[0].job, &standing, 3, &[]).await.expect("saved");
        assert!(journal.tasks().await.expect("tasks")[0].rows.is_empty());
        journal.remove(tasks[0].job).await.expect("removed");
        assert!(journal.tasks().await.expect("tasks").is_empty());
    }

    #[tokio::test]
    async fn nothing_of_a_job_lies_there_in_plain_text() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("journal.db");
        let journal = Journal::open(&path, KeyRing::ephemeral()).await.expect("a journal");
        journal.take("a", vec![kept("a", 1)]).await.expect("taken");
        journal.pool.close().await;
        for entry in std::fs::read_dir(place.path()).expect("a directory") {
            let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
            assert!(!bytes.windows(6).any(|part| part == b"canary"));
        }
        let other = Journal::open(&path, KeyRing::ephemeral()).await.expect("a journal");
        assert!(matches!(other.tasks().await, Err(JournalError::Sealed(_))));
    }
}
