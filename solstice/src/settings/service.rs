//! The settings of the service: `solstice serve` and `solstice orchestrator`.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::limits::GIB;
use common::size::ByteSize;
use reqwest::Url;

use super::file::Given;
use crate::exit::CommandError;

/// A password file has one line; more is not one.
const PASSWORD_BYTES: u64 = 4096;

/// Where the page of metrics is when nobody says so: the port that Prometheus lists for OpenTelemetry
/// exporters, on loopback.
const METRICS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464);

/// Settings of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceKeys {
    /// The host's name for people.
    pub host_name: String,
    /// The labels that this host offers; absent means every image of the catalogue.
    pub labels: Option<Vec<String>>,
    /// Virtual processors that jobs may use together; absent means what the host has.
    pub max_cpus: Option<u32>,
    /// Memory likewise.
    pub max_memory: Option<ByteSize>,
    /// Where jobs are remembered.
    pub database: Database,
    /// The file with the database's password.
    pub database_password_file: Option<PathBuf>,
    /// How jobs come and events go.
    pub queue: Queue,
    /// The file with the broker's password.
    pub queue_password_file: Option<PathBuf>,
    /// What the names of everything on the broker begin with.
    pub queue_prefix: String,
    /// Files with keys that the hosts share; absent means one of this host's own.
    pub seal_keys: Option<Vec<PathBuf>>,
    /// The operators' socket; absent means `solstice.sock` in the runtime directory.
    pub socket: Option<PathBuf>,
    /// Where the page of metrics is, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Days for which the events of finished jobs are kept.
    pub keep_events_days: u32,
    /// Bytes that they may take together.
    pub keep_events_size: ByteSize,
    /// For how long machines of failed jobs are kept frozen; absent means not at all.
    pub freeze_failed: Option<Duration>,
}

/// Where jobs are remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// In `solstice.db` in the state directory.
    Default,
    /// In a file of this host.
    File(PathBuf),
    /// In a PostgreSQL database, which hosts may share.
    Postgres(Url),
}

/// How jobs come and events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queue {
    /// In this process.
    Embedded,
    /// Over a RabbitMQ broker.
    Broker(Url),
}

impl Default for ServiceKeys {
    fn default() -> Self {
        Self {
            host_name: host_name(),
            labels: None,
            max_cpus: None,
            max_memory: None,
            database: Database::Default,
            database_password_file: None,
            queue: Queue::Embedded,
            queue_password_file: None,
            queue_prefix: "solstice".to_owned(),
            seal_keys: None,
            socket: None,
            metrics_listen: Some(METRICS),
            keep_events_days: 14,
            keep_events_size: ByteSize(5 * GIB),
            freeze_failed: None,
        }
    }
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}

pub(super) fn database(given: &Given) -> Result<Database, String> {
    let text = given.text()?;
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return url(text, "database_password_file").map(Database::Postgres);
    }
    if text.contains("://") {
        return Err("write a path, or an URL that begins with postgres://".to_owned());
    }
    given.path().map(Database::File)
}

pub(super) fn queue(given: &Given) -> Result<Queue, String> {
    let text = given.text()?;
    match text {
        "embedded" => Ok(Queue::Embedded),
        _ if text.starts_with("amqp://") || text.starts_with("amqps://") => {
            url(text, "queue_password_file").map(Queue::Broker)
        }
        _ => Err("write embedded, or an URL that begins with amqp:// or amqps://".to_owned()),
    }
}

/// Passwords in settings files end up in backups and tickets. That of a broker's guest, which works
/// on its own host only, is none.
fn url(text: &str, key: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("it is not an URL: {error}"))?;
    let known = url.username() == "guest" && url.password() == Some("guest");
    if url.password().is_some() && !known {
        return Err(format!(
            "a password does not belong here; write it into a file and name that file in `{key}`"
        ));
    }
    Ok(url)
}

/// An URL with the password from its file.
///
/// # Errors
/// The file cannot be read, or others may read it.
pub(crate) fn with_password(url: &Url, file: Option<&Path>) -> Result<String, CommandError> {
    let Some(path) = file else { return Ok(url.to_string()) };
    let cannot = |what: &dyn std::fmt::Display| {
        CommandError::usage(format!("cannot use the password file {}: {what}", path.display()))
    };
    let file = std::fs::File::open(path).map_err(|error| cannot(&error))?;
    let metadata = file.metadata().map_err(|error| cannot(&error))?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
    if mode & 0o077 != 0 {
        return Err(cannot(&"others may read it").hint(format!("chmod 600 {}", path.display())));
    }
    let mut text = String::new();
    file.take(PASSWORD_BYTES + 1).read_to_string(&mut text).map_err(|error| cannot(&error))?;
    if text.len() as u64 > PASSWORD_BYTES {
        return Err(cannot(&format!("it has over {PASSWORD_BYTES} bytes")));
    }
    let mut url = url.clone();
    url.set_password(Some(text.trim_end_matches(['\n', '\r'])))
        .map_err(|()| cannot(&"the URL has no host"))?;
    Ok(url.to_string())
}

pub(super) fn metrics_listen(given: &Given) -> Result<Option<SocketAddr>, String> {
    match given.text()? {
        "off" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            format!("{text:?} is not an address with a port, such as {METRICS}, or off")
        }),
    }
}

pub(super) fn labels(given: &Given) -> Result<Vec<String>, String> {
    let labels = given.texts()?;
    let strange = |label: &&String| {
        label.is_empty()
            || label.starts_with(['-', '.'])
            || !label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    };
    match labels.iter().find(strange) {
        Some(label) => Err(format!("{label:?} cannot be a label")),
        None => Ok(labels),
    }
}

pub(super) fn prefix(given: &Given) -> Result<String, String> {
    let text = given.text()?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if text.len() <= 50 && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("write at most 50 of the characters a-z, 0-9, - and _".to_owned())
    }
}
