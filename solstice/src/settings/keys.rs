//! The one table of keys: the file, the environment, `solstice config`, the error for an unknown key
//! and the test of the document all read it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::actions;
use super::file::Given;
use super::forgejo;
use super::service::{self, Database, Queue};
use super::{Acceleration, PREFIX, Settings};

/// A key of `solstice.toml`.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) apply: fn(&mut Settings, &Given) -> Result<(), String>,
    /// What it is, in one line.
    about: &'static str,
    /// The effective value as TOML; `None` where nothing is set and the default has no value.
    show: fn(&Settings) -> Option<String>,
}

impl Key {
    /// The environment variable that overrides the key.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.to_ascii_uppercase())
    }
}

/// A key with its value, for people.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub name: Cow<'static, str>,
    /// What it is, in one line.
    pub about: &'static str,
    /// The effective value as TOML, where there is one.
    pub value: Option<String>,
    /// `solstice.toml:3:1` or the name of a variable; absent for a default.
    pub origin: Option<String>,
}

/// A table of the settings, for people.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its name: `forgejo.codeberg`.
    pub name: String,
    /// Its keys.
    pub entries: Vec<Entry>,
}

/// The tables with what is set in them.
#[must_use]
pub fn sections(settings: &Settings) -> Vec<Section> {
    forgejo::sections(&settings.forgejo)
}

/// The tables of an example.
#[must_use]
pub fn example_sections() -> Vec<Section> {
    forgejo::example()
}

/// The names of the keys, for the document's test.
pub fn key_names() -> impl Iterator<Item = &'static str> + Clone {
    KEYS.iter().map(|key| key.name)
}

/// Every key with its effective value.
pub fn entries(settings: &Settings) -> impl Iterator<Item = Entry> {
    KEYS.iter().map(|key| Entry {
        name: key.name.into(),
        about: key.about,
        value: (key.show)(settings),
        origin: settings.origins.get(key.name).cloned(),
    })
}

/// Every key.
pub(super) const KEYS: &[Key] = &[
    Key {
        name: "state_dir",
        about: "disks of machines, the database, journals of jobs",
        apply: |s, given| given.path().map(|v| s.state_dir = v),
        show: |s| Some(path(&s.state_dir)),
    },
    Key {
        name: "image_dir",
        about: "images, which several state directories may share",
        apply: |s, given| given.path().map(|v| s.image_dir = Some(v)),
        show: |s| s.image_dir.as_deref().map(path),
    },
    Key {
        name: "template_dir",
        about: "frozen guests from which machines start; several state directories may share it",
        apply: |s, given| given.path().map(|v| s.template_dir = Some(v)),
        show: |s| s.template_dir.as_deref().map(path),
    },
    Key {
        name: "template_quota",
        about: "what frozen guests may have of the disk; 0 lets every machine boot",
        apply: |s, given| given.size().map(|v| s.template_quota = v),
        show: |s| Some(s.template_quota.0.to_string()),
    },
    Key {
        name: "fetch_dir",
        about: "what was fetched for jobs: actions, and mirrors of repositories",
        apply: |s, given| given.path().map(|v| s.actions.directory = Some(v)),
        show: |s| s.actions.directory.as_deref().map(path),
    },
    Key {
        name: "fetch_quota",
        about: "what all that was fetched may have of the disk",
        apply: |s, given| given.size().map(|v| s.actions.quota = v),
        show: |s| Some(s.actions.quota.0.to_string()),
    },
    Key {
        name: "cache_dir",
        about: "the caches that jobs save and restore",
        apply: |s, given| given.path().map(|v| s.actions.caches = Some(v)),
        show: |s| s.actions.caches.as_deref().map(path),
    },
    Key {
        name: "cache_quota",
        about: "what all caches may have of the disk",
        apply: |s, given| given.size().map(|v| s.actions.cache_quota = v),
        show: |s| Some(s.actions.cache_quota.0.to_string()),
    },
    Key {
        name: "actions_commits",
        about: "when an action whose version is a commit is done by the runner itself",
        apply: |s, given| actions::commits(given).map(|v| s.actions.commits = v),
        show: |s| Some(text(actions::commits_word(s.actions.commits))),
    },
    Key {
        name: "actions_github",
        about: "where actions are that name no host, in jobs of GitHub's dialect",
        apply: |s, given| actions::origin(given).map(|v| s.actions.github = v),
        show: |s| Some(text(&s.actions.github.to_string())),
    },
    Key {
        name: "actions_forgejo",
        about: "the same in jobs of Forgejo, unless the server says where",
        apply: |s, given| actions::origin(given).map(|v| s.actions.forgejo = v),
        show: |s| Some(text(&s.actions.forgejo.to_string())),
    },
    Key {
        name: "actions_gitea",
        about: "the same in jobs of Gitea, unless the server says where",
        apply: |s, given| actions::origin(given).map(|v| s.actions.gitea = v),
        show: |s| Some(text(&s.actions.gitea.to_string())),
    },
    Key {
        name: "actions_allow",
        about: "places from which actions may come although they are private or not https",
        apply: |s, given| actions::origins(given).map(|v| s.actions.allow = v),
        show: |s| {
            let origins: Vec<String> = s.actions.allow.iter().map(ToString::to_string).collect();
            (!origins.is_empty()).then(|| texts(&origins))
        },
    },
    Key {
        name: "runtime_dir",
        about: "sockets and login keys of running machines; must be on tmpfs",
        apply: |s, given| given.path().map(|v| s.runtime_dir = v),
        show: |s| Some(path(&s.runtime_dir)),
    },
    Key {
        name: "catalogue",
        about: "a file of further images",
        apply: |s, given| given.path().map(|v| s.catalogue = Some(v)),
        show: |s| s.catalogue.as_deref().map(path),
    },
    Key {
        name: "disk_reserve",
        about: "what stays free on the disk of state_dir",
        apply: |s, given| given.size().map(|v| s.disk_reserve = v),
        show: |s| Some(s.disk_reserve.0.to_string()),
    },
    Key {
        name: "qemu",
        about: "the emulator",
        apply: |s, given| given.program().map(|v| s.qemu = Some(v)),
        show: |s| s.qemu.as_deref().map(path),
    },
    Key {
        name: "qemu_img",
        about: "the tool for disk images, of the same release",
        apply: |s, given| given.program().map(|v| s.qemu_img = Some(v)),
        show: |s| s.qemu_img.as_deref().map(path),
    },
    Key {
        name: "guest_programs",
        about: "directories with the programs that run inside guests",
        apply: |s, given| given.paths().map(|v| s.guest_programs = v),
        show: |s| Some(paths(&s.guest_programs)),
    },
    Key {
        name: "acceleration",
        about: "auto, kvm or tcg",
        apply: |s, given| acceleration(given).map(|v| s.acceleration = v),
        show: |s| Some(text(s.acceleration.name())),
    },
    Key {
        name: "host_name",
        about: "service: the host's name for people",
        apply: |s, given| given.text().map(|v| s.service.host_name = v.to_owned()),
        show: |s| Some(text(&s.service.host_name)),
    },
    Key {
        name: "labels",
        about: "service: the labels that this host offers; all of the catalogue when absent",
        apply: |s, given| service::labels(given).map(|v| s.service.labels = Some(v)),
        show: |s| s.service.labels.as_ref().map(|labels| texts(labels)),
    },
    Key {
        name: "max_cpus",
        about: "virtual processors that machines may have together",
        apply: |s, given| given.number(100_000).map(|v| s.service.max_cpus = Some(v)),
        show: |s| s.service.max_cpus.map(|cpus| cpus.to_string()),
    },
    Key {
        name: "max_memory",
        about: "memory that machines may have together",
        apply: |s, given| given.size().map(|v| s.service.max_memory = Some(v)),
        show: |s| s.service.max_memory.map(|memory| memory.0.to_string()),
    },
    Key {
        name: "database",
        about: "service: a file, or a postgres:// URL that hosts share",
        apply: |s, given| service::database(given).map(|v| s.service.database = v),
        show: |s| match &s.service.database {
            Database::Default => None,
            Database::File(file) => Some(path(file)),
            Database::Postgres(url) => Some(text(url.as_str())),
        },
    },
    Key {
        name: "database_password_file",
        about: "service: a file of mode 0600 with the database's password",
        apply: |s, given| given.path().map(|v| s.service.database_password_file = Some(v)),
        show: |s| s.service.database_password_file.as_deref().map(path),
    },
    Key {
        name: "queue",
        about: "service: embedded, or an amqp:// or amqps:// URL of a RabbitMQ broker",
        apply: |s, given| service::queue(given).map(|v| s.service.queue = v),
        show: |s| match &s.service.queue {
            Queue::Embedded => Some(text("embedded")),
            Queue::Broker(url) => Some(text(url.as_str())),
        },
    },
    Key {
        name: "queue_password_file",
        about: "service: a file of mode 0600 with the broker's password",
        apply: |s, given| given.path().map(|v| s.service.queue_password_file = Some(v)),
        show: |s| s.service.queue_password_file.as_deref().map(path),
    },
    Key {
        name: "queue_prefix",
        about: "service: what the names of everything on the broker begin with",
        apply: |s, given| service::prefix(given).map(|v| s.service.queue_prefix = v),
        show: |s| Some(text(&s.service.queue_prefix)),
    },
    Key {
        name: "seal_keys",
        about: "service: files with the keys that hosts share; the first seals, all open",
        apply: |s, given| given.paths().map(|v| s.service.seal_keys = Some(v)),
        show: |s| s.service.seal_keys.as_ref().map(|keys| paths(keys)),
    },
    Key {
        name: "socket",
        about: "service: the operators' socket",
        apply: |s, given| given.path().map(|v| s.service.socket = Some(v)),
        show: |s| s.service.socket.as_deref().map(path),
    },
    Key {
        name: "metrics_listen",
        about: "service: address and port of /metrics and /health, or off",
        apply: |s, given| service::metrics_listen(given).map(|v| s.service.metrics_listen = v),
        show: |s| {
            let address = s.service.metrics_listen.map(|address| address.to_string());
            Some(text(address.as_deref().unwrap_or("off")))
        },
    },
    Key {
        name: "keep_events_days",
        about: "service: days for which the logs of finished jobs are kept",
        apply: |s, given| given.number(36_500).map(|v| s.service.keep_events_days = v),
        show: |s| Some(s.service.keep_events_days.to_string()),
    },
    Key {
        name: "keep_events_size",
        about: "service: bytes that the logs of finished jobs may take together",
        apply: |s, given| given.size().map(|v| s.service.keep_events_size = v),
        show: |s| Some(s.service.keep_events_size.0.to_string()),
    },
    Key {
        name: "freeze_failed",
        about: "service: how long the machines of failed jobs are kept frozen, or off",
        apply: |s, given| freeze_failed(given).map(|v| s.service.freeze_failed = v),
        show: |s| Some(s.service.freeze_failed.map_or_else(|| text("off"), time)),
    },
    Key {
        name: "forgejo_report_interval",
        about: "Forgejo: how often a running job's log and state are sent",
        apply: |s, given| {
            forgejo::report_interval(given).map(|v| s.forgejo.report_interval = Some(v))
        },
        show: |s| Some(time(s.forgejo.report_interval.unwrap_or(forgejo::REPORT_INTERVAL))),
    },
    Key {
        name: "forgejo_shutdown",
        about: "Forgejo: how long the end waits for running jobs before it cancels them",
        apply: |s, given| forgejo::shutdown(given).map(|v| s.forgejo.shutdown = Some(v)),
        show: |s| Some(time(s.forgejo.shutdown.unwrap_or(forgejo::SHUTDOWN))),
    },
];

/// The longest time for which machines are kept frozen.
const LONGEST_FROZEN: Duration = Duration::from_secs(365 * 24 * 3600);

/// A time, or not at all.
fn freeze_failed(given: &Given) -> Result<Option<Duration>, String> {
    let text = given.text()?;
    if text == "off" {
        return Ok(None);
    }
    given.time(Duration::from_secs(1), LONGEST_FROZEN).map(Some)
}

fn acceleration(given: &Given) -> Result<Acceleration, String> {
    let text = given.text()?;
    [Acceleration::Auto, Acceleration::Kvm, Acceleration::Tcg]
        .into_iter()
        .find(|known| known.name() == text)
        .ok_or_else(|| format!("{text:?} is not auto, kvm or tcg"))
}

pub(super) fn text(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}

pub(super) fn path(value: &Path) -> String {
    text(&value.to_string_lossy())
}

pub(super) fn texts(values: &[String]) -> String {
    toml::Value::Array(values.iter().cloned().map(toml::Value::String).collect()).to_string()
}

pub(super) fn time(value: Duration) -> String {
    text(&humantime::format_duration(value).to_string().replace(' ', ""))
}

fn paths(values: &[PathBuf]) -> String {
    let values: Vec<String> =
        values.iter().map(|value| value.to_string_lossy().into_owned()).collect();
    texts(&values)
}
