//! What the service of this host needs: its database, its queue, its keys, its socket. A host without
//! a service has none of them yet, which is no fault. Nothing is made or changed: files are read, a
//! database is asked for the version of its tables, and a broker is connected to.

use std::fmt::Display;
use std::fs;
use std::io::{Error, ErrorKind};
use std::path::Path;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};
use orchestrator::store::{Store, StoreError, Tables};
use queue::seal::KeyRing;
use queue::{QueueError, embedded, rabbit};
use reqwest::Url;
use tokio::time::timeout;

use super::Check;
use crate::client::{Client, ClientError};
use crate::exit::CommandError;
use crate::settings::{self, Settings, with_password};

/// How long a database may take to say the version of its tables.
const DATABASE: Duration = Duration::from_secs(10);

/// How long a broker may take to let us in and out again.
const BROKER: Duration = Duration::from_secs(15);

/// How long the disk may take to show the head of the queue's file.
const QUEUE_FILE: Duration = Duration::from_secs(10);

/// Every check of the service. They wait for others, so they wait together.
pub(super) async fn all(settings: &Settings) -> [Check; 4] {
    let socket = settings.socket_path();
    let (database, queue, service) =
        tokio::join!(database(settings), queue(settings), service(&socket));
    [database, queue, seal_keys(settings), service]
}

async fn database(settings: &Settings) -> Check {
    let service = &settings.service;
    match &service.database {
        settings::Database::Postgres(url) => {
            match with_password(url, service.database_password_file.as_deref()) {
                Ok(with_password) => postgres(&place(url), &with_password).await,
                Err(error) => unusable("database", &error),
            }
        }
        settings::Database::Default | settings::Database::File(_) => {
            sqlite(&settings.database_path().unwrap_or_default()).await
        }
    }
}

async fn sqlite(path: &Path) -> Check {
    let (id, shown) = ("database", path.display());
    match writable(path) {
        Ok(true) => {}
        Ok(false) => {
            return Check::ok(id, format!("{shown} is made by the first start of a service"));
        }
        Err(reason) => return Check::failed(id, reason, give("database")),
    }
    let looked = timeout(DATABASE, Store::look_at_sqlite(path)).await;
    let cure = "restore a copy, or set another `database`";
    match looked {
        Ok(found) => tables(id, &shown, found, cure),
        Err(_) => Check::failed(id, late(&shown, DATABASE), "end what keeps it locked"),
    }
}

async fn postgres(place: &str, url: &str) -> Check {
    let id = "database";
    let cure = "start PostgreSQL, or correct `database` and `database_password_file`";
    match timeout(DATABASE, Store::look_at_postgres(url)).await {
        Ok(found) => tables(id, &place, found, cure),
        Err(_) => Check::failed(id, late(&place, DATABASE), cure),
    }
}

/// What the version of the tables says.
fn tables(
    id: &'static str,
    shown: &dyn Display,
    found: Result<Tables, StoreError>,
    cure: &str,
) -> Check {
    match found {
        Ok(Tables { found: 0, .. }) => Check::ok(
            id,
            format!("{shown}, without tables; the first start of a service makes them"),
        ),
        Ok(Tables { found, known }) if found < known => Check::ok(
            id,
            format!("{shown} has version {found}; the next start brings it to version {known}"),
        ),
        Ok(Tables { found, .. }) => Check::ok(id, format!("{shown}, version {found}")),
        Err(error @ StoreError::Newer { .. }) => {
            Check::failed(id, format!("{shown}: {error}"), "use the newer program")
        }
        Err(error) => Check::failed(id, format!("{shown}: {error}"), cure),
    }
}

async fn queue(settings: &Settings) -> Check {
    let service = &settings.service;
    match &service.queue {
        settings::Queue::Embedded => queue_file(&settings.state_dir.join("queue.db")).await,
        settings::Queue::Broker(url) => {
            match with_password(url, service.queue_password_file.as_deref()) {
                Ok(with_password) => broker(url, with_password, &service.queue_prefix).await,
                Err(error) => unusable("queue", &error),
            }
        }
    }
}

async fn queue_file(path: &Path) -> Check {
    let (id, shown) = ("queue", path.display());
    match writable(path) {
        Ok(true) => {}
        Ok(false) => {
            return Check::ok(id, format!("{shown} is made by the first start of a service"));
        }
        Err(reason) => return Check::failed(id, reason, give("state_dir")),
    }
    match timeout(QUEUE_FILE, embedded::Embedded::look(path)).await {
        Ok(Ok(())) => Check::ok(id, shown.to_string()),
        Ok(Err(error @ QueueError::Newer { .. })) => {
            Check::failed(id, error.to_string(), "use the newer program")
        }
        Ok(Err(error)) => Check::failed(id, error.to_string(), "restore a copy"),
        Err(_) => Check::failed(id, late(&shown, QUEUE_FILE), "look at the disk"),
    }
}

async fn broker(url: &Url, with_password: String, prefix: &str) -> Check {
    let (id, place) = ("queue", place(url));
    let cure = "start RabbitMQ, or correct `queue` and `queue_password_file`";
    let settings = rabbit::Settings::new(with_password, prefix);
    match timeout(BROKER, rabbit::Rabbit::look(&settings)).await {
        Ok(Ok(())) => Check::ok(id, format!("the broker {place} answers")),
        Ok(Err(error)) => Check::failed(id, error.to_string(), cure),
        Err(_) => Check::failed(id, late(&place, BROKER), cure),
    }
}

fn seal_keys(settings: &Settings) -> Check {
    let id = "seal-keys";
    let own = settings.state_dir.join("seal.key");
    let paths = match &settings.service.seal_keys {
        Some(paths) => paths.as_slice(),
        None if fs::symlink_metadata(&own).is_err() => {
            return Check::ok(
                id,
                format!("{} is made by the first start of a service", own.display()),
            );
        }
        None => std::slice::from_ref(&own),
    };
    let shown = || paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    match KeyRing::load(paths) {
        Ok(_) => Check::ok(id, shown().join(", ")),
        Err(error) => Check::failed(
            id,
            error.to_string(),
            "put the key of the installation there for this user alone, or correct `seal_keys`",
        ),
    }
}

/// Whether a service answers. None is no fault: `solstice run` does without.
async fn service(socket: &Path) -> Check {
    let (id, shown) = ("service", socket.display());
    let health = match Client::open(socket) {
        Ok(client) => client.health().await,
        Err(error) => Err(error),
    };
    match health {
        Ok(health) if health.problems.is_empty() => {
            Check::ok(id, format!("version {} answers on {shown}", health.version))
        }
        Ok(health) => Check::warning(
            id,
            format!("the service on {shown} says: {}", health.problems.join("; ")),
            "see the other checks and the service's log",
        ),
        Err(error @ ClientError::Absent { .. }) => Check::ok(id, error.to_string()),
        Err(error) => {
            let error = CommandError::from(error);
            let cure = error.advice().unwrap_or("look at the service's log");
            Check::warning(id, error.to_string(), cure)
        }
    }
}

/// Whether the file is there; a sentence if it is and a service could not write it, or is not and
/// could not be made. SQLite has further files beside it.
fn writable(path: &Path) -> Result<bool, String> {
    let cannot =
        |path: &Path, error: &dyn Display| format!("{} cannot be written: {error}", path.display());
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    let may =
        |path: &Path, flags| access(path, flags).map_err(|errno| cannot(path, &Error::from(errno)));
    may(directory, AccessFlags::W_OK | AccessFlags::X_OK)?;
    match fs::metadata(path) {
        Ok(found) if found.is_file() => {
            may(path, AccessFlags::R_OK | AccessFlags::W_OK).map(|()| true)
        }
        Ok(_) => Err(cannot(path, &"it is no file")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(cannot(path, &error)),
    }
}

fn give(key: &str) -> String {
    format!("give the file and its directory to this user, or set `{key}`")
}

fn late(what: &dyn Display, deadline: Duration) -> String {
    format!("{what} does not answer within {} s", deadline.as_secs())
}

/// A password that cannot be read.
fn unusable(id: &'static str, error: &CommandError) -> Check {
    let cure = error.advice().unwrap_or("correct the setting that names the file");
    Check::failed(id, error.to_string(), cure)
}

/// Where an URL leads, without anything that may be secret.
fn place(url: &Url) -> String {
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}{port}{}", url.host_str().unwrap_or_default(), url.path())
}
