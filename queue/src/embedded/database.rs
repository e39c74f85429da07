//! The file: its shape, and every statement.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use common::time::Timestamp;
use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteLockingMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row};

use super::lane::{AHEAD_BYTES, AHEAD_MESSAGES};
use crate::{DeadLetter, QueueError};

/// The version of the file's shape that this program writes (`user_version`).
const VERSION: i64 = 1;

/// Names a file of ours (`application_id`): `SOLQ`.
const APPLICATION: i64 = 0x534f_4c51;

/// The permissions of the file; those of its log are the same.
const MODE: u32 = 0o600;

/// Dead letters that are kept; the oldest goes when a new one comes.
const DEAD_LETTERS: i64 = 1_000;

/// What is kept of a dead letter's message.
pub(super) const DEAD_BYTES: usize = 1024;

/// Rows that wait between SQLite's thread and whoever reads them. They may be large.
const ROWS: usize = 4;

/// The open file. It has one connection, which locks it: no other process can use it.
#[derive(Debug)]
pub(super) struct Database {
    connection: SqliteConnection,
    path: String,
}

/// A message that waits, without its bytes.
pub(super) struct Waiting {
    pub(super) lane: i64,
    pub(super) id: i64,
    pub(super) bytes: u64,
    pub(super) time: Timestamp,
}

type Messages = Vec<(i64, Arc<[u8]>)>;

impl Database {
    pub(super) async fn open(path: &Path) -> Result<Self, QueueError> {
        let name = path.display().to_string();
        make_private(path).map_err(|error| unavailable(&name, &error))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .locking_mode(SqliteLockingMode::Exclusive)
            .synchronous(SqliteSynchronous::Full)
            .row_buffer_size(ROWS)
            .disable_statement_logging();
        let connection = options.connect().await.map_err(|error| unavailable(&name, &error))?;
        let mut database = Self { connection, path: name };
        database.check_version().await?;
        Ok(database)
    }

    /// Refuses a file that [`Database::open`] would refuse. Nothing is changed or locked, so that it
    /// may be in use; what its user has not yet written back from its log is not seen.
    pub(super) async fn look(path: &Path) -> Result<(), QueueError> {
        let name = path.display().to_string();
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .immutable(true)
            .disable_statement_logging();
        let connection = options.connect().await.map_err(|error| unavailable(&name, &error))?;
        let mut database = Self { connection, path: name };
        let shaped = database.shaped().await;
        database.close().await;
        shaped.map(drop)
    }

    /// Refuses a file of a newer program before anything in it is changed, and shapes a new one.
    async fn check_version(&mut self) -> Result<(), QueueError> {
        if self.shaped().await? {
            self.execute("PRAGMA journal_mode = WAL").await
        } else {
            self.shape().await
        }
    }

    /// Whether the file has our shape; one that is empty has none yet.
    async fn shaped(&mut self) -> Result<bool, QueueError> {
        let application = self.number("PRAGMA application_id").await?;
        let found = self.number("PRAGMA user_version").await?;
        let tables = self.number("SELECT count(*) FROM sqlite_schema").await?;
        match (application, found, tables) {
            (0, 0, 0) => Ok(false),
            (APPLICATION, VERSION, _) => Ok(true),
            (APPLICATION, VERSION.., _) => {
                Err(QueueError::Newer { path: self.path.clone(), found, known: VERSION })
            }
            _ => Err(unavailable(&self.path, &"it is not a queue's file")),
        }
    }

    async fn shape(&mut self) -> Result<(), QueueError> {
        // Before there is a table, and before the log: later it would take a rewrite of the file.
        self.execute("PRAGMA auto_vacuum = INCREMENTAL").await?;
        self.execute("PRAGMA journal_mode = WAL").await?;
        self.execute(
            "BEGIN IMMEDIATE;
             CREATE TABLE lane (
                 id INTEGER PRIMARY KEY,
                 name TEXT NOT NULL UNIQUE
             ) STRICT;
             CREATE TABLE message (
                 id INTEGER PRIMARY KEY,
                 lane INTEGER NOT NULL REFERENCES lane (id),
                 time INTEGER NOT NULL,
                 bytes BLOB NOT NULL
             ) STRICT;
             CREATE INDEX message_of_lane ON message (lane, id);
             CREATE TABLE dead_letter (
                 id INTEGER PRIMARY KEY,
                 time INTEGER NOT NULL,
                 queue TEXT NOT NULL,
                 reason TEXT NOT NULL,
                 bytes BLOB NOT NULL
             ) STRICT;
             PRAGMA application_id = 1397705809;
             PRAGMA user_version = 1;
             COMMIT",
        )
        .await
    }

    /// Gives the space back that earlier messages took.
    pub(super) async fn shrink(&mut self) -> Result<(), QueueError> {
        self.execute("PRAGMA incremental_vacuum").await
    }

    /// The lanes: their rows and names.
    pub(super) async fn lanes(&mut self) -> Result<Vec<(i64, String)>, QueueError> {
        let rows = sqlx::query("SELECT id, name FROM lane").fetch_all(&mut self.connection).await;
        let read = |rows: Vec<sqlx::sqlite::SqliteRow>| {
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
        };
        rows.and_then(read).map_err(|error| unavailable(&self.path, &error))
    }

    /// Everything that waits, oldest first.
    pub(super) async fn waiting(&mut self) -> Result<Vec<Waiting>, QueueError> {
        let read = async {
            let statement = "SELECT lane, id, length(bytes), time FROM message ORDER BY id";
            let mut rows = sqlx::query(statement).fetch(&mut self.connection);
            let mut waiting = Vec::new();
            while let Some(row) = rows.try_next().await? {
                let (lane, id) = (row.try_get(0)?, row.try_get(1)?);
                let (bytes, time): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
                let time = Timestamp::from_micros(time.unsigned_abs());
                waiting.push(Waiting { lane, id, bytes: bytes.unsigned_abs(), time });
            }
            Ok(waiting)
        };
        read.await.map_err(|error: sqlx::Error| unavailable(&self.path, &error))
    }

    /// The messages of a lane after one of them, up to the bounds of reading ahead, and whether
    /// these are all.
    pub(super) async fn read(
        &mut self,
        lane: i64,
        after: i64,
    ) -> Result<(Messages, bool), QueueError> {
        let read = async {
            let statement = "SELECT id, bytes FROM message WHERE lane = $1 AND id > $2 ORDER BY id";
            let query = sqlx::query(statement).bind(lane).bind(after);
            let mut rows = query.fetch(&mut self.connection);
            let (mut messages, mut bytes) = (Messages::new(), 0);
            while bytes < AHEAD_BYTES && messages.len() < AHEAD_MESSAGES {
                let Some(row) = rows.try_next().await? else { return Ok((messages, true)) };
                let message: &[u8] = row.try_get(1)?;
                bytes += message.len();
                messages.push((row.try_get(0)?, message.into()));
            }
            Ok((messages, false))
        };
        read.await.map_err(|error: sqlx::Error| unavailable(&self.path, &error))
    }

    pub(super) async fn dead_letters(
        &mut self,
        most: usize,
    ) -> Result<Vec<DeadLetter>, QueueError> {
        let read = async {
            let statement =
                "SELECT time, queue, reason, bytes FROM dead_letter ORDER BY id DESC LIMIT $1";
            let query = sqlx::query(statement).bind(i64::try_from(most).unwrap_or(i64::MAX));
            let letter = |row: &sqlx::sqlite::SqliteRow| {
                let time: i64 = row.try_get(0)?;
                let time = Timestamp::from_micros(time.unsigned_abs());
                let (queue, reason, bytes) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
                Ok(DeadLetter { reason, time, queue, bytes })
            };
            query
                .fetch_all(&mut self.connection)
                .await?
                .iter()
                .map(letter)
                .collect::<Result<_, _>>()
        };
        read.await.map_err(|error: sqlx::Error| unavailable(&self.path, &error))
    }

    pub(super) async fn begin(&mut self) -> Result<(), QueueError> {
        self.execute("BEGIN IMMEDIATE").await
    }

    /// Writes everything since [`Database::begin`] to the disk.
    pub(super) async fn commit(&mut self) -> Result<(), QueueError> {
        self.execute("COMMIT").await
    }

    /// Forgets everything since [`Database::begin`].
    pub(super) async fn roll_back(&mut self) {
        // After some errors SQLite has done so by itself, and says that there is nothing to do.
        if let Err(error) = self.execute("ROLLBACK").await {
            tracing::debug!(%error, "nothing to roll back");
        }
    }

    /// Makes a lane and gives its row.
    pub(super) async fn add_lane(&mut self, name: &str) -> Result<i64, QueueError> {
        let query = sqlx::query_scalar("INSERT INTO lane (name) VALUES ($1) RETURNING id");
        let row = query.bind(name).fetch_one(&mut self.connection).await;
        row.map_err(|error| unavailable(&self.path, &error))
    }

    pub(super) async fn insert(
        &mut self,
        lane: i64,
        id: i64,
        now: Timestamp,
        bytes: &Arc<[u8]>,
    ) -> Result<(), QueueError> {
        let query =
            sqlx::query("INSERT INTO message (id, lane, time, bytes) VALUES ($1, $2, $3, $4)");
        let query = query.bind(id).bind(lane).bind(micros(now)).bind(&**bytes);
        self.run(query).await
    }

    /// Removes messages.
    pub(super) async fn remove(
        &mut self,
        ids: impl Iterator<Item = i64>,
    ) -> Result<(), QueueError> {
        let ids: Vec<_> = ids.map(|id| id.to_string()).collect();
        let ids = format!("[{}]", ids.join(","));
        let query =
            sqlx::query("DELETE FROM message WHERE id IN (SELECT value FROM json_each($1))");
        self.run(query.bind(ids)).await
    }

    pub(super) async fn bury(&mut self, letter: &DeadLetter) -> Result<(), QueueError> {
        let query = sqlx::query(
            "INSERT INTO dead_letter (time, queue, reason, bytes) VALUES ($1, $2, $3, $4)",
        );
        let DeadLetter { reason, time, queue, bytes } = letter;
        self.run(query.bind(micros(*time)).bind(queue).bind(reason).bind(bytes)).await?;
        let query = sqlx::query(
            "DELETE FROM dead_letter
             WHERE id <= (SELECT max(id) FROM dead_letter) - $1",
        );
        self.run(query.bind(DEAD_LETTERS)).await
    }

    pub(super) async fn close(self) {
        if let Err(error) = self.connection.close().await {
            tracing::warn!(path = self.path, %error, "the queue's file was not closed in order");
        }
    }

    #[cfg(test)]
    pub(super) async fn alter(&mut self, statement: &'static str) {
        self.execute(statement).await.unwrap();
    }

    /// An error about this file.
    pub(super) fn error(&self, error: &dyn std::fmt::Display) -> QueueError {
        unavailable(&self.path, error)
    }

    async fn number(&mut self, statement: &'static str) -> Result<i64, QueueError> {
        let row = sqlx::query_scalar(statement).fetch_one(&mut self.connection).await;
        row.map_err(|error| unavailable(&self.path, &error))
    }

    async fn execute(&mut self, statement: &'static str) -> Result<(), QueueError> {
        let result = sqlx::raw_sql(statement).execute(&mut self.connection).await;
        result.map(drop).map_err(|error| unavailable(&self.path, &error))
    }

    async fn run(
        &mut self,
        query: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<(), QueueError> {
        let result = query.execute(&mut self.connection).await;
        result.map(drop).map_err(|error| unavailable(&self.path, &error))
    }
}

/// Makes the file if it is not there, for its owner only.
fn make_private(path: &Path) -> io::Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path);
    match made {
        Ok(file) => {
            file.sync_all()?;
            match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
                _ => File::open(".")?.sync_all(),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(path, Permissions::from_mode(MODE))
        }
        Err(error) => Err(error),
    }
}

fn micros(time: Timestamp) -> i64 {
    i64::try_from(time.as_micros()).expect("the year 9999 is below 2^63 microseconds")
}

fn unavailable(path: &str, error: &dyn std::fmt::Display) -> QueueError {
    QueueError::Unavailable { reason: format!("{path}: {error}") }
}
