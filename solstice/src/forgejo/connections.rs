//! From the settings, the stored identities and the files of forgejo-runner to the connections of
//! the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::limits::{GIB, MACHINE_CPUS};
use common::request::Secret;
use forgejo_runner::identity::mapping::{self, Mapping};
use forgejo_runner::identity::runner_config::{self, RunnerConfig};
use forgejo_runner::identity::runner_file;
use forgejo_runner::identity::stored::{Identities, Stored};
use forgejo_runner::{Connection, Label, Patience, RunnerSettings, Trust};
use reqwest::Url;
use vm_manager::host::Capacity;
use vm_manager::image::Catalogue;

use crate::exit::CommandError;
use crate::host::host_settings;
use crate::image::catalogue;
use crate::settings::{
    ConnectionKeys, ONE_IDENTITY, REPORT_INTERVAL, SHUTDOWN, Settings, is_connection_name,
    parse_labels,
};

/// The wait between two questions when nobody says so.
pub(crate) const FETCH_INTERVAL: Duration = Duration::from_secs(2);
/// How long one question may take when nobody says so.
pub(crate) const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// The shortest wait between two questions to Codeberg, by its operators' wish.
const CODEBERG_INTERVAL: Duration = Duration::from_secs(30);
/// The most jobs of a connection that says no number.
pub(crate) const MOST_JOBS: u32 = 8;
/// What the machine of a job has, as far as nothing else is said: to count how many have room.
const JOB_CPUS: u32 = 2;
const JOB_MEMORY: u64 = GIB;

/// A connection, as far as it is known.
#[derive(Debug)]
pub(crate) struct Known {
    /// Its name.
    pub(crate) name: String,
    /// Where its identity is from.
    pub(crate) source: String,
    /// What it is, or why it cannot be used.
    pub(crate) connection: Result<Connection, CommandError>,
    /// Sentences about what looks like a mistake.
    pub(crate) warnings: Vec<String>,
}

/// Where identities are kept.
pub(crate) fn identities(settings: &Settings) -> Identities {
    Identities::new(state(settings))
}

/// The directory of the daemon.
fn state(settings: &Settings) -> PathBuf {
    settings.state_dir.join("forgejo")
}

/// The connections of the settings and those that are stored.
fn names(settings: &Settings) -> Result<BTreeSet<String>, CommandError> {
    let stored = identities(settings).names()?;
    let stored = stored.into_iter().filter(|name| is_connection_name(name));
    Ok(settings.forgejo.connections.keys().cloned().chain(stored).collect())
}

/// Every connection, in the order of their names. `room` is the capacity of those that say none.
///
/// # Errors
/// The catalogue or the directory of the stored identities cannot be read.
pub(crate) fn known(settings: &Settings, room: u32) -> Result<Vec<Known>, CommandError> {
    let names = names(settings)?;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let catalogue = catalogue(settings)?;
    let maker = Maker { settings, catalogue: &catalogue, room };
    let mut known: Vec<Known> = names.iter().flat_map(|name| maker.make(name)).collect();
    refuse_twins(&mut known);
    Ok(known)
}

/// Two with one identity would take each other's jobs.
fn refuse_twins(known: &mut [Known]) {
    let mut seen: BTreeMap<(Url, String), String> = BTreeMap::new();
    for one in known {
        let Ok(connection) = &one.connection else { continue };
        let identity = (connection.url.clone(), connection.uuid.clone());
        if let Some(other) = seen.get(&identity) {
            let text = format!("forgejo.{}: forgejo.{other} has the same identity", one.name);
            one.connection = Err(CommandError::usage(text).hint(ONE_IDENTITY));
        } else {
            seen.insert(identity, one.name.clone());
        }
    }
}

/// How many ordinary machines have room on this host, at most [`MOST_JOBS`].
pub(crate) fn room(settings: &Settings) -> u32 {
    let Ok(capacity) = Capacity::within(&host_settings(settings).limits) else { return 1 };
    let by_memory = u32::try_from(capacity.memory.0 / JOB_MEMORY).unwrap_or(u32::MAX);
    (capacity.cpus / JOB_CPUS).min(by_memory).clamp(1, MOST_JOBS)
}

/// The settings of the daemon, and what it should warn of; `None` where it has no connection.
///
/// # Errors
/// A connection cannot be used.
pub(crate) fn runner_settings(
    settings: &Settings,
    room: u32,
) -> Result<Option<(RunnerSettings, Vec<String>)>, CommandError> {
    let known = known(settings, room)?;
    if known.is_empty() {
        return Ok(None);
    }
    let mut warnings = Vec::new();
    let mut connections = Vec::new();
    for one in known {
        warnings.extend(one.warnings);
        connections.push(one.connection?);
    }
    let (of_file, problems) = times_of_files(settings);
    warnings.extend(problems);
    let mut told = BTreeSet::new();
    warnings.retain(|warning| told.insert(warning.clone()));
    let forgejo = &settings.forgejo;
    let runner = RunnerSettings {
        state: state(settings),
        connections,
        report_interval: forgejo.report_interval.or(of_file.0).unwrap_or(REPORT_INTERVAL),
        shutdown: forgejo.shutdown.or(of_file.1).unwrap_or(SHUTDOWN),
        patience: Patience::default(),
    };
    Ok(Some((runner, warnings)))
}

/// What the first settings file of forgejo-runner says of the two times that all connections share,
/// and a warning where another one says something else.
fn times_of_files(settings: &Settings) -> ((Option<Duration>, Option<Duration>), Vec<String>) {
    let mut times = (None, None);
    let mut warnings = Vec::new();
    for path in settings.forgejo.connections.values().filter_map(|c| c.runner_config.as_ref()) {
        // One that cannot be read was refused before.
        let Ok(config) = read_config(path) else { continue };
        for (time, said, key, ours) in [
            (&mut times.0, config.report_interval, "report_interval", "forgejo_report_interval"),
            (&mut times.1, config.shutdown, "shutdown_timeout", "forgejo_shutdown"),
        ] {
            if time.is_some() && said.is_some() && *time != said {
                warnings.push(format!(
                    "`runner.{key}` of {} is not taken over: another file says something else; set \
                     `{ours}`",
                    path.display()
                ));
            }
            *time = time.or(said);
        }
    }
    (times, warnings)
}

fn read_config(path: &Path) -> Result<RunnerConfig, CommandError> {
    // For systemd's credentials in `token_url`.
    let variable = |name: &str| std::env::var(name).ok();
    Ok(runner_config::read(path, &variable)?)
}

/// Who a runner is, and what the file that says so adds. The settings win over the latter.
struct Identity {
    url: Url,
    uuid: String,
    token: Secret,
    labels: Labels,
    capacity: Option<u32>,
    fetch_interval: Option<Duration>,
    fetch_timeout: Option<Duration>,
    trust: Trust,
}

/// Labels beside an identity.
enum Labels {
    /// None are.
    Unsaid,
    /// Of the kind that runs here.
    Ours(Vec<String>),
    /// Of a file of forgejo-runner.
    Theirs { labels: Vec<String>, file: String },
}

/// Makes connections.
struct Maker<'a> {
    settings: &'a Settings,
    catalogue: &'a Catalogue,
    room: u32,
}

impl Maker<'_> {
    /// The connections of a name: one, or those of a settings file of forgejo-runner.
    fn make(&self, name: &str) -> Vec<Known> {
        let nothing = ConnectionKeys::default();
        let keys = self.settings.forgejo.connections.get(name).unwrap_or(&nothing);
        let stored = identities(self.settings).path(name);
        let of_settings = keys.uuid.is_some();
        let source = match (&keys.runner_config, &keys.runner_file) {
            (Some(path), _) | (_, Some(path)) => path.clone(),
            _ if of_settings => PathBuf::from(&keys.place),
            _ => stored.clone(),
        };
        let source = source.display().to_string();
        let refused = |error: CommandError| Known {
            name: name.to_owned(),
            source: source.clone(),
            connection: Err(error),
            warnings: Vec::new(),
        };
        if source != stored.display().to_string() && stored.exists() {
            return vec![refused(two_identities(name, &source, &stored))];
        }
        if let Some(path) = &keys.runner_config {
            return self.of_config(name, keys, path).unwrap_or_else(|error| vec![refused(error)]);
        }
        let mut warnings = Vec::new();
        let identity = match &keys.runner_file {
            Some(path) => of_runner_file(path, keys, &mut warnings),
            None if of_settings => of_settings_file(keys),
            None => self.of_stored(name, keys),
        };
        let connection =
            identity.and_then(|identity| self.connection(name, keys, identity, &mut warnings));
        vec![Known { name: name.to_owned(), source, connection, warnings }]
    }

    fn of_stored(&self, name: &str, keys: &ConnectionKeys) -> Result<Identity, CommandError> {
        let stored = identities(self.settings).load(name)?.ok_or_else(|| {
            let text = format!("{}: forgejo.{name} has no identity", keys.place);
            let url = keys.url.as_ref().map_or("URL", Url::as_str);
            CommandError::usage(text).hint(format!(
                "register it: solstice forgejo register --connection {name} --url {url}; or set \
                 `url`, `uuid` and `token_file`"
            ))
        })?;
        let url = match &keys.url {
            Some(url) => url.clone(),
            None => stored.address().map_err(CommandError::usage)?,
        };
        let trust = stored.trust();
        let Stored { uuid, token, labels, .. } = stored;
        let labels = if labels.is_empty() { Labels::Unsaid } else { Labels::Ours(labels) };
        Ok(Identity { url, uuid, token, labels, trust, ..Identity::nobody() })
    }

    /// The connections of a settings file of forgejo-runner; where it has none, that of its
    /// `.runner` file.
    fn of_config(
        &self,
        name: &str,
        keys: &ConnectionKeys,
        path: &Path,
    ) -> Result<Vec<Known>, CommandError> {
        let config = read_config(path)?;
        let file = path.display().to_string();
        let trust = if config.insecure { Trust::Any } else { Trust::Host };
        let common = |labels: Vec<String>| Identity {
            labels: theirs(if labels.is_empty() { config.labels.clone() } else { labels }, &file),
            capacity: config.capacity,
            fetch_interval: config.fetch_interval,
            fetch_timeout: config.fetch_timeout,
            trust: trust.clone(),
            ..Identity::nobody()
        };
        if config.connections.is_empty() {
            let place = config.file.clone().unwrap_or_else(|| PathBuf::from(".runner"));
            let place = path.parent().unwrap_or(Path::new("/")).join(place);
            let known = self.of_runner_file_of(name, keys, &place, &config, common(Vec::new()));
            return Ok(vec![known]);
        }
        let alone = config.connections.len() == 1;
        let mut known = Vec::new();
        for one in &config.connections {
            let name = if alone { name.to_owned() } else { format!("{name}-{}", plain(&one.name)) };
            let identity = Identity {
                url: one.url.clone(),
                uuid: one.uuid.clone(),
                token: one.token.clone(),
                fetch_interval: one.fetch_interval.or(config.fetch_interval),
                ..common(one.labels.clone())
            };
            let mut warnings = config.warnings.clone();
            let connection = self.connection(&name, keys, identity, &mut warnings);
            known.push(Known { name, source: file.clone(), connection, warnings });
        }
        Ok(known)
    }

    fn of_runner_file_of(
        &self,
        name: &str,
        keys: &ConnectionKeys,
        place: &Path,
        config: &RunnerConfig,
        common: Identity,
    ) -> Known {
        let mut warnings = config.warnings.clone();
        let connection = of_runner_file(place, keys, &mut warnings).and_then(|file| {
            let said = !matches!(common.labels, Labels::Unsaid);
            let labels = if said { common.labels } else { file.labels };
            let Identity { url, uuid, token, .. } = file;
            let identity = Identity { url, uuid, token, labels, ..common };
            self.connection(name, keys, identity, &mut warnings)
        });
        let source = place.display().to_string();
        Known { name: name.to_owned(), source, connection, warnings }
    }

    fn connection(
        &self,
        name: &str,
        keys: &ConnectionKeys,
        identity: Identity,
        warnings: &mut Vec<String>,
    ) -> Result<Connection, CommandError> {
        let labels = self.labels(name, keys, identity.labels, warnings)?;
        let asked = keys.fetch_interval.or(identity.fetch_interval);
        let trust = match (keys.insecure, &keys.ca_file) {
            (Some(true), _) => Trust::Any,
            (_, Some(path)) => Trust::Also(path.clone()),
            (Some(false), None) if identity.trust == Trust::Any => Trust::Host,
            _ => identity.trust,
        };
        if let Trust::Also(path) = &trust {
            check_certificates(name, path)?;
        }
        let trust = if identity.url.scheme() == "http" { Trust::Host } else { trust };
        Ok(Connection {
            name: name.to_owned(),
            fetch_interval: fetch_interval(name, &identity.url, asked, warnings),
            url: identity.url,
            uuid: identity.uuid,
            token: identity.token,
            labels,
            capacity: keys.capacity.or(identity.capacity).unwrap_or(self.room),
            fetch_timeout: keys.fetch_timeout.or(identity.fetch_timeout).unwrap_or(FETCH_TIMEOUT),
            trust,
        })
    }

    fn labels(
        &self,
        name: &str,
        keys: &ConnectionKeys,
        beside: Labels,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Label>, CommandError> {
        let place = || {
            let given = keys.origins.get("labels").map(|place| format!("{place}: "));
            format!("{}forgejo.{name}.labels", given.unwrap_or_default())
        };
        let labels = match (&keys.labels, beside) {
            (Some(labels), _) => labels.clone(),
            (None, Labels::Ours(texts)) => parse_labels(&texts)
                .map_err(|problem| CommandError::usage(format!("{}: {problem}", place())))?,
            (None, Labels::Unsaid) => all_labels(self.settings, self.catalogue),
            (None, Labels::Theirs { labels, file }) => {
                return self.mapped(name, &labels, &file, warnings);
            }
        };
        for label in &labels {
            check_label(self.catalogue, label).map_err(|problem| {
                CommandError::usage(format!("{}: {problem}", place()))
                    .hint("see `solstice image list` for the images")
            })?;
            warnings.extend(self.not_here(name, label));
        }
        Ok(labels)
    }

    /// A sentence about a label whose image this host does not offer.
    fn not_here(&self, name: &str, label: &Label) -> Option<String> {
        let offered = self.settings.service.labels.as_ref()?;
        let image = self.catalogue.get(&label.image).ok()?;
        let is =
            |label: &String| self.catalogue.get(label).is_ok_and(|one| one.label == image.label);
        (!offered.iter().any(is)).then(|| {
            format!(
                "forgejo.{name}: jobs for {:?} wait for another host: `labels` of this one does not \
                 have {:?}",
                label.name, image.label
            )
        })
    }

    /// Labels of a file of forgejo-runner. Those that nothing stands for are warned of.
    fn mapped(
        &self,
        name: &str,
        labels: &[String],
        file: &str,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Label>, CommandError> {
        let is_image = |label: &str| self.catalogue.get(label).is_ok();
        let mapping = Mapping { images: &self.settings.forgejo.labels, is_image: &is_image };
        let (labels, unmapped) = mapping::offered(labels, file, mapping);
        let first = unmapped.first().cloned();
        warnings.extend(unmapped);
        for label in &labels {
            check_label(self.catalogue, label).map_err(|problem| {
                let origin = self.settings.forgejo.label_origins.get(&label.name);
                let origin = origin.map_or_else(|| file.to_owned(), Clone::clone);
                let text = format!("{origin}: the label {:?} of {file}: {problem}", label.name);
                CommandError::usage(text).hint("see `solstice image list` for the images")
            })?;
        }
        if labels.is_empty() {
            let text = format!("forgejo.{name} would offer no label of {file}");
            let advice = format!(
                "{}; or set `labels` in [forgejo.{name}]",
                first.unwrap_or_else(|| "add labels to that file".to_owned())
            );
            return Err(CommandError::usage(text).hint(advice));
        }
        Ok(labels)
    }
}

impl Identity {
    /// What is filled in afterwards.
    fn nobody() -> Self {
        Self {
            url: Url::parse("http://localhost").expect("an URL of our own"),
            uuid: String::new(),
            token: Secret::new(""),
            labels: Labels::Unsaid,
            capacity: None,
            fetch_interval: None,
            fetch_timeout: None,
            trust: Trust::Host,
        }
    }
}

fn two_identities(name: &str, source: &str, stored: &Path) -> CommandError {
    let stored = stored.display();
    let text = format!("forgejo.{name} has two identities: in {source} and in {stored}");
    CommandError::usage(text).hint(format!(
        "remove one: either that of the settings, or `solstice forgejo unregister {name}`"
    ))
}

fn of_settings_file(keys: &ConnectionKeys) -> Result<Identity, CommandError> {
    let (Some(url), Some(uuid), Some(file)) = (&keys.url, &keys.uuid, &keys.token_file) else {
        let text = format!("{}: `url`, `uuid` and `token_file` belong together", keys.place);
        return Err(CommandError::usage(text));
    };
    let token = forgejo_runner::identity::token(file)?;
    Ok(Identity { url: url.clone(), uuid: uuid.clone(), token, ..Identity::nobody() })
}

fn of_runner_file(
    path: &Path,
    keys: &ConnectionKeys,
    warnings: &mut Vec<String>,
) -> Result<Identity, CommandError> {
    let file = runner_file::read(path)?;
    warnings.extend(file.warnings);
    Ok(Identity {
        // A file from a container may name the instance as only containers reach it.
        url: keys.url.clone().unwrap_or(file.url),
        uuid: file.uuid,
        token: file.token,
        labels: theirs(file.labels, &path.display().to_string()),
        ..Identity::nobody()
    })
}

fn theirs(labels: Vec<String>, file: &str) -> Labels {
    if labels.is_empty() {
        Labels::Unsaid
    } else {
        Labels::Theirs { labels, file: file.to_owned() }
    }
}

/// A connection's name of theirs as one of ours.
fn plain(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    name.chars().map(plain).collect()
}

/// The labels that this host offers: those of the settings, else all of the catalogue.
pub(super) fn all_labels(settings: &Settings, catalogue: &Catalogue) -> Vec<Label> {
    let names = match &settings.service.labels {
        Some(labels) => labels.clone(),
        None => catalogue.labels().into_iter().collect(),
    };
    let label = |name: String| Label { image: name.clone(), name, size: Default::default() };
    names.into_iter().map(label).collect()
}

/// Whether an image stands behind a label, and a machine can have its size.
pub(super) fn check_label(catalogue: &Catalogue, label: &Label) -> Result<(), String> {
    catalogue.get(&label.image).map_err(|error| error.to_string())?;
    if label.size.cpus.is_some_and(|cpus| cpus > MACHINE_CPUS) {
        return Err(format!("{:?}: a machine has at most {MACHINE_CPUS} processors", label.name));
    }
    Ok(())
}

fn check_certificates(name: &str, path: &Path) -> Result<(), CommandError> {
    let opened = std::fs::File::open(path);
    opened.map(drop).map_err(|error| {
        let text =
            format!("forgejo.{name}: cannot read the certificates {}: {error}", path.display());
        CommandError::usage(text)
            .hint("write the certificate of the instance's own authority there")
    })
}

fn fetch_interval(
    name: &str,
    url: &Url,
    asked: Option<Duration>,
    warnings: &mut Vec<String>,
) -> Duration {
    let interval = asked.unwrap_or(FETCH_INTERVAL);
    let codeberg = url.host_str().is_some_and(|host| host.ends_with("codeberg.org"));
    if !codeberg || interval >= CODEBERG_INTERVAL {
        return interval;
    }
    if asked.is_some() {
        warnings.push(format!(
            "forgejo.{name}: the fetch_interval of Codeberg is 30s at least, and not {}",
            humantime::format_duration(interval)
        ));
    }
    CODEBERG_INTERVAL
}

#[cfg(test)]
mod tests;
