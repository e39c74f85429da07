//! One conversation with either database, so that what the store does is written once.

use std::time::Duration;

use common::time::Timestamp;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{PgConnection, Postgres, Sqlite, SqliteConnection, Transaction};

use super::StoreError;
use super::value::{Row, Value, values};
use crate::clock::Clock;

/// The longest time that one call of the store may take. Then it ends with
/// [`StoreError::Unavailable`]: a database that does not answer is one that is not there.
const CALL: Duration = Duration::from_secs(60);

/// A statement, where the two databases need different words for it.
#[derive(Clone, Copy)]
pub(super) struct Sql {
    pub(super) sqlite: &'static str,
    pub(super) postgres: &'static str,
}

impl From<&'static str> for Sql {
    fn from(same: &'static str) -> Self {
        Self { sqlite: same, postgres: same }
    }
}

/// A connection, mostly inside a transaction that whoever made the session ends.
pub(super) struct Session {
    link: Link,
    wake: bool,
}

enum Link {
    Writer(Box<SqliteConnection>, Clock),
    Reader(PoolConnection<Sqlite>, Clock),
    Transaction(Transaction<'static, Postgres>),
    Postgres(PoolConnection<Postgres>),
}

/// The parts of the schedule that are changed by one transaction at a time.
///
/// SQLite has one writer anyway; on PostgreSQL these are the modes of one advisory lock, which ends
/// with the transaction. A statement after it sees everything that earlier holders committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    /// Jobs come in. Many may do so at once.
    Arriving,
    /// Nothing may come in meanwhile: reservations are granted, the end of an unknown job is noted.
    Granting,
}

/// Which advisory lock of the database; any number that nothing else in it uses.
const ADVISORY: i64 = 0x534f_4c53_0001;

impl Session {
    pub(super) fn sqlite_writer(connection: SqliteConnection, clock: Clock) -> Self {
        Self::new(Link::Writer(Box::new(connection), clock))
    }

    pub(super) fn sqlite_reader(connection: PoolConnection<Sqlite>, clock: Clock) -> Self {
        Self::new(Link::Reader(connection, clock))
    }

    pub(super) fn postgres(transaction: Transaction<'static, Postgres>) -> Self {
        Self::new(Link::Transaction(transaction))
    }

    pub(super) fn postgres_reader(connection: PoolConnection<Postgres>) -> Self {
        Self::new(Link::Postgres(connection))
    }

    fn new(link: Link) -> Self {
        Self { link, wake: false }
    }

    /// The time by the store's own clock.
    pub(super) async fn now(&mut self) -> Result<Timestamp, StoreError> {
        const NOW: &str =
            "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS time";
        match &self.link {
            Link::Writer(_, clock) | Link::Reader(_, clock) => Ok(clock.now()),
            Link::Transaction(_) | Link::Postgres(_) => self.row(NOW, &[]).await?.map_or_else(
                || Err(StoreError::Malformed { reason: "the database has no time".into() }),
                |row| row.time("time"),
            ),
        }
    }

    /// Waits until no other transaction holds the lock in a mode that excludes this one.
    pub(super) async fn lock(&mut self, lock: Lock) -> Result<(), StoreError> {
        let statement = match (&self.link, lock) {
            (Link::Writer(..) | Link::Reader(..), _) => return Ok(()),
            (_, Lock::Arriving) => "SELECT pg_advisory_xact_lock_shared($1)",
            (_, Lock::Granting) => "SELECT pg_advisory_xact_lock($1)",
        };
        self.execute(statement, values![ADVISORY]).await.map(drop)
    }

    /// Says that there may be something to claim once this transaction is committed.
    pub(super) fn wake(&mut self) {
        self.wake = true;
    }

    /// Whether somebody said so since it was asked last.
    pub(super) fn take_wake(&mut self) -> bool {
        std::mem::take(&mut self.wake)
    }

    /// Runs a statement; how many rows it changed.
    pub(super) async fn execute(
        &mut self,
        statement: impl Into<Sql>,
        values: &[Value],
    ) -> Result<u64, StoreError> {
        let sql = statement.into();
        let changed = match self.link() {
            Either::Sqlite(link) => sqlite(sql, values).execute(link).await?.rows_affected(),
            Either::Postgres(link) => postgres(sql, values).execute(link).await?.rows_affected(),
        };
        Ok(changed)
    }

    /// Runs a statement; all its rows.
    pub(super) async fn rows(
        &mut self,
        statement: impl Into<Sql>,
        values: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        let sql = statement.into();
        Ok(match self.link() {
            Either::Sqlite(link) => {
                let rows = sqlite(sql, values).fetch_all(link).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Either::Postgres(link) => {
                let rows = postgres(sql, values).fetch_all(link).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// Runs a statement that has one row at most.
    pub(super) async fn row(
        &mut self,
        statement: impl Into<Sql>,
        values: &[Value],
    ) -> Result<Option<Row>, StoreError> {
        let sql = statement.into();
        Ok(match self.link() {
            Either::Sqlite(link) => {
                sqlite(sql, values).fetch_optional(link).await?.map(Row::Sqlite)
            }
            Either::Postgres(link) => {
                postgres(sql, values).fetch_optional(link).await?.map(Row::Postgres)
            }
        })
    }

    /// Ends the transaction of a session on PostgreSQL; SQLite's is ended by its writer.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        match self.link {
            Link::Transaction(transaction) => Ok(transaction.commit().await?),
            Link::Writer(..) | Link::Reader(..) | Link::Postgres(..) => Ok(()),
        }
    }

    /// The connection of SQLite's writer, to be closed.
    pub(super) fn into_writer(self) -> Option<SqliteConnection> {
        match self.link {
            Link::Writer(connection, _) => Some(*connection),
            Link::Reader(..) | Link::Transaction(..) | Link::Postgres(..) => None,
        }
    }

    fn link(&mut self) -> Either<'_> {
        match &mut self.link {
            Link::Writer(connection, _) => Either::Sqlite(connection),
            Link::Reader(connection, _) => Either::Sqlite(connection),
            Link::Transaction(transaction) => Either::Postgres(transaction),
            Link::Postgres(connection) => Either::Postgres(connection),
        }
    }
}

enum Either<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

macro_rules! bind {
    ($text:expr, $values:expr) => {{
        let mut query = sqlx::query($text);
        for value in $values {
            query = match value {
                Value::Integer(value) => query.bind(*value),
                Value::Text(value) => query.bind(value.as_deref()),
                Value::Bytes(value) => query.bind(value.as_slice()),
                Value::Flag(value) => query.bind(*value),
            };
        }
        query
    }};
}

fn sqlite(sql: Sql, values: &[Value]) -> Query<'static, Sqlite, SqliteArguments> {
    bind!(sql.sqlite, values)
}

fn postgres(sql: Sql, values: &[Value]) -> Query<'static, Postgres, PgArguments> {
    bind!(sql.postgres, values)
}

/// Gives up a call that takes longer than [`CALL`].
pub(super) async fn in_time<T>(
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(CALL, call).await.unwrap_or_else(|_| {
        let reason = format!("it did not answer within {} s", CALL.as_secs());
        Err(StoreError::Unavailable { reason })
    })
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::error::ErrorKind;
        let reason = error.to_string();
        match &error {
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::TypeNotFound { .. } => Self::Malformed { reason },
            // A rule of the tables was broken: to try again does not help.
            sqlx::Error::Database(database) if database.kind() != ErrorKind::Other => {
                Self::Malformed { reason }
            }
            _ => Self::Unavailable { reason },
        }
    }
}
