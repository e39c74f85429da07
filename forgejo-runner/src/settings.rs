//! What a runner daemon is told: which instances it works for, and how.

use std::path::PathBuf;
use std::time::Duration;

use common::request::Secret;
use reqwest::Url;

use crate::label::Label;

/// Settings of the daemon.
#[derive(Clone, Debug)]
pub struct RunnerSettings {
    /// The directory of the journal; only this process uses it.
    pub state: PathBuf,
    /// The instances, each under another name.
    pub connections: Vec<Connection>,
    /// How often rows and states are sent while something changes.
    pub report_interval: Duration,
    /// How long running jobs may take after the daemon was told to end, before they are cancelled.
    pub shutdown: Duration,
    /// When a task is given up that a server does not want.
    pub patience: Patience,
}

/// For how long the reports of a task are offered to a server that takes none, before the task is
/// given up and its job cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The server does not know the runner.
    pub unknown: Duration,
    /// The server refuses the task: it is somebody else's, or the server's database is away.
    pub refused: Duration,
    /// The server does not answer, or answers what nobody can use.
    pub unreachable: Duration,
}

impl Default for Patience {
    /// 10 minutes, 6 hours, 48 hours.
    fn default() -> Self {
        Self {
            unknown: Duration::from_secs(10 * 60),
            refused: Duration::from_secs(6 * 3600),
            unreachable: Duration::from_secs(48 * 3600),
        }
    }
}

/// One runner of one instance: an identity, and what it offers there.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its name in the settings; also in the journal, so that a task is reported to where it is from.
    pub name: String,
    /// Where the instance is, with the sub-path that it may be under; without a final slash.
    pub url: Url,
    /// The runner's id on the server.
    pub uuid: String,
    /// The runner's token.
    pub token: Secret,
    /// What it offers; never empty.
    pub labels: Vec<Label>,
    /// How many tasks it has in hand at most.
    pub capacity: u32,
    /// How long it waits between two questions for tasks, at least.
    pub fetch_interval: Duration,
    /// How long one question may take.
    pub fetch_timeout: Duration,
    /// Which certificates it believes.
    pub trust: Trust,
}

/// Which certificates of an instance are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those that the host's own store signs.
    #[default]
    Host,
    /// Those that this file of PEM certificates signs, too.
    Also(PathBuf),
    /// Any (forgejo-runner's `insecure`).
    Any,
}
