//! What the parts of one installation share: a broker, a database, and the files that a service
//! reads to reach them.

use std::fs::OpenOptions;
use std::io::Write;
use std::ops::Deref;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::{PostgresServer, RabbitServer, ServerError};

/// What the parts of one installation share.
pub struct Installation {
    /// The broker.
    pub broker: Server<RabbitServer>,
    /// The server of the database.
    pub database: Server<PostgresServer>,
    /// What the names of everything on the broker begin with.
    pub prefix: String,
    /// The address of the database, with its password.
    pub url: String,
    files: TempDir,
}

/// A server of one test, or one that all tests of this process have together.
pub enum Server<T: 'static> {
    /// It may be killed.
    Own(T),
    /// Others need it.
    OfAll(&'static T),
}

impl<T> Deref for Server<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Own(server) => server,
            Self::OfAll(server) => server,
        }
    }
}

impl Installation {
    /// An installation with servers of its own, to be killed.
    ///
    /// # Errors
    /// A server does not start.
    pub async fn start() -> Result<Self, ServerError> {
        let (broker, database) = tokio::join!(RabbitServer::start(), PostgresServer::start());
        Self::on(Server::Own(broker?), Server::Own(database?)).await
    }

    /// An installation of its own on the servers of all tests of this process.
    ///
    /// # Errors
    /// A server does not start.
    pub async fn of_all() -> Result<Self, ServerError> {
        let (broker, database) = tokio::join!(RabbitServer::shared(), PostgresServer::shared());
        Self::on(Server::OfAll(broker?), Server::OfAll(database?)).await
    }

    async fn on(
        broker: Server<RabbitServer>,
        database: Server<PostgresServer>,
    ) -> Result<Self, ServerError> {
        let (prefix, url) = (broker.prefix(), database.database().await?);
        let files = tempfile::tempdir().expect("the system's directory of temporary files");
        Ok(Self { broker, database, prefix, url, files })
    }

    /// Where the keys of the installation are; who needs them first makes the file.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.files.path().join("seal.key")
    }

    /// The settings of a part of the installation, as variables of its environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let (queue, queue_password) = self.without_password(&self.broker.url(), "queue");
        let (database, database_password) = self.without_password(&self.url, "database");
        vec![
            ("SOLSTICE_QUEUE", queue),
            ("SOLSTICE_QUEUE_PREFIX", self.prefix.clone()),
            ("SOLSTICE_QUEUE_PASSWORD_FILE", queue_password),
            ("SOLSTICE_DATABASE", database),
            ("SOLSTICE_DATABASE_PASSWORD_FILE", database_password),
            ("SOLSTICE_SEAL_KEYS", self.key_file().display().to_string()),
        ]
    }

    /// An URL without its password, and the file that has it.
    fn without_password(&self, url: &str, name: &str) -> (String, String) {
        let parts = url.split_once("://").and_then(|(scheme, rest)| {
            let (account, place) = rest.split_once('@')?;
            let (user, password) = account.split_once(':')?;
            Some((format!("{scheme}://{user}@{place}"), password))
        });
        let (url, password) = parts.expect("the servers have passwords");
        let path = self.files.path().join(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&path).and_then(|mut file| file.write_all(password.as_bytes()));
        written.expect("a file in a directory of ours");
        (url, path.display().to_string())
    }
}
