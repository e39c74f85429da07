//! What a database is, before anybody opens it. Nothing is made or changed.

use std::path::Path;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::{Result, Store, migrations};

/// The version of a database's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Theirs; 0 if there are none.
    pub found: usize,
    /// The one to which this program brings them when it opens the database.
    pub known: usize,
}

impl Store {
    /// Looks at a SQLite file that is there, whether or not a process has it open.
    ///
    /// # Errors
    /// [`StoreError::Newer`](super::StoreError::Newer).
    pub async fn look_at_sqlite(path: &Path) -> Result<Tables> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            // Otherwise whoever reads a file without a log makes one.
            .immutable(!Path::new(&log).exists())
            .disable_statement_logging();
        let mut connection = options.connect().await?;
        let found = migrations::sqlite_version(&mut connection).await?;
        connection.close().await?;
        Ok(Tables { found, known: migrations::SQLITE_VERSION })
    }

    /// Looks at a PostgreSQL database. Waits for as long as it does not answer.
    ///
    /// # Errors
    /// [`StoreError::Newer`](super::StoreError::Newer).
    pub async fn look_at_postgres(url: &str) -> Result<Tables> {
        let options: PgConnectOptions = url.parse()?;
        let options = options
            .application_name("solstice")
            .options([("default_transaction_read_only", "on")])
            .disable_statement_logging();
        let mut connection = PgConnection::connect_with(&options).await?;
        let found = migrations::postgres_version(&mut connection).await?;
        connection.close().await?;
        Ok(Tables { found, known: migrations::POSTGRES_VERSION })
    }
}
