//! What a service is started with.

use std::path::PathBuf;

use crate::Settings;
use crate::clock::Clock;

/// What a service is started with.
#[derive(Clone, Debug)]
pub struct ServiceSettings {
    /// The host's directories, programs and images.
    pub machines: Settings,
    /// Where the service keeps its id and its journals.
    pub state: PathBuf,
    /// The host's name for people.
    pub name: String,
    /// The labels that it offers; absent means all images of the catalogue.
    pub labels: Option<Vec<String>>,
    /// Where jobs are remembered.
    pub database: Database,
    /// How jobs come and events go.
    pub transport: Transport,
    /// Days for which the events of finished jobs are kept.
    pub keep_days: u32,
    /// Bytes that the events of finished jobs may take together.
    pub keep_bytes: u64,
    /// The clocks.
    pub clock: Clock,
}

/// Where jobs are remembered.
#[derive(Clone, Debug)]
pub enum Database {
    /// In a file of this host.
    Sqlite(PathBuf),
    /// In a PostgreSQL database that hosts share; an URL, which may hold a password.
    Postgres(String),
}

/// How jobs come and events go.
#[derive(Clone, Debug)]
pub enum Transport {
    /// In this process, durable in a file.
    Embedded(PathBuf),
    /// Over a RabbitMQ broker.
    Rabbit(queue::rabbit::Settings),
}
