//! The versions of the tables, and how a database gets from each to the next.
//!
//! A version is a file in each of `migrations/sqlite` and `migrations/postgres`. A file that was
//! released is never changed again; the next change of the tables is a further file, with a filled
//! database of the version before as test data.

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};

use super::StoreError;

/// The steps to the newest version; the first makes version 1.
const SQLITE: &[&str] = &[include_str!("migrations/sqlite/0001_first.sql")];
const POSTGRES: &[&str] = &[include_str!("migrations/postgres/0001_first.sql")];

/// The newest versions.
pub(super) const SQLITE_VERSION: usize = SQLITE.len();
pub(super) const POSTGRES_VERSION: usize = POSTGRES.len();

/// The advisory lock under which one orchestrator changes the tables while others wait. Another one
/// than jobs come in under.
const ADVISORY: i64 = 0x534f_4c53_0000;

/// The version of a SQLite database; 0 if it is empty.
///
/// # Errors
/// It is newer than this program, or it cannot be read.
pub(super) async fn sqlite_version(connection: &mut SqliteConnection) -> Result<usize, StoreError> {
    let row = sqlx::query("PRAGMA user_version").fetch_one(connection).await?;
    known(row.try_get::<i64, _>(0)?, SQLITE.len())
}

/// Brings a SQLite database to the newest version.
pub(super) async fn sqlite(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    while sqlite_version(connection).await? < SQLITE.len() {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        // Somebody else may have been faster.
        let version = sqlite_version(&mut transaction).await?;
        if let Some(step) = SQLITE.get(version) {
            sqlx::raw_sql(*step).execute(&mut *transaction).await?;
            let stamp = format!("PRAGMA user_version = {}", version + 1);
            sqlx::raw_sql(AssertSqlSafe(stamp)).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
    }
    Ok(())
}

/// Brings a PostgreSQL database to the newest version. Several may do so at the same time.
pub(super) async fn postgres(connection: &mut PgConnection) -> Result<(), StoreError> {
    loop {
        let mut transaction = connection.begin().await?;
        // Large tables take longer than any other statement may.
        sqlx::raw_sql("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
            .execute(&mut *transaction)
            .await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(ADVISORY)
            .execute(&mut *transaction)
            .await?;
        let version = postgres_version(&mut transaction).await?;
        let Some(step) = POSTGRES.get(version) else { return Ok(transaction.commit().await?) };
        if version == 0 {
            sqlx::raw_sql(
                "CREATE TABLE solstice_schema (version BIGINT NOT NULL);
                 INSERT INTO solstice_schema VALUES (0)",
            )
            .execute(&mut *transaction)
            .await?;
        }
        sqlx::raw_sql(*step).execute(&mut *transaction).await?;
        sqlx::query("UPDATE solstice_schema SET version = $1")
            .bind(i64::try_from(version + 1).expect("there are few versions"))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
    }
}

/// The version of a PostgreSQL database; 0 if it has no tables of ours.
///
/// # Errors
/// It is newer than this program, or it cannot be read.
pub(super) async fn postgres_version(connection: &mut PgConnection) -> Result<usize, StoreError> {
    let made = sqlx::query("SELECT to_regclass('solstice_schema') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !made.try_get::<bool, _>(0)? {
        return Ok(0);
    }
    let row = sqlx::query("SELECT version FROM solstice_schema").fetch_one(connection).await?;
    known(row.try_get::<i64, _>(0)?, POSTGRES.len())
}

fn known(found: i64, known: usize) -> Result<usize, StoreError> {
    match usize::try_from(found) {
        Ok(version) if version <= known => Ok(version),
        Ok(_) => {
            let known = i64::try_from(known).expect("there are few versions");
            Err(StoreError::Newer { found, known })
        }
        Err(_) => Err(StoreError::Malformed { reason: format!("its version is {found}") }),
    }
}
