//! The settings of the Forgejo runner: a table for each connection, and labels of other kinds.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forgejo_runner::{Label, identity};
use reqwest::Url;

use super::file::Given;
use super::keys::{self, Entry, Section};
use super::{PREFIX, nearest_of};
use crate::exit::CommandError;

/// The table of connections.
pub(super) const CONNECTIONS: &str = "forgejo";
/// The table of labels of other kinds.
pub(super) const LABELS: &str = "forgejo_labels";

/// How often a running job is reported when nobody says so.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How long running jobs are waited for when nobody says so.
pub(crate) const SHUTDOWN: Duration = Duration::from_secs(3 * 3600);

/// The shortest wait between two calls. Tests have servers of their own.
const SHORTEST: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// The longest time for which a job is waited: that of a job.
const LONGEST: Duration = Duration::from_secs(5 * 24 * 3600);
/// The most tasks of one connection.
const CAPACITY: u32 = 1000;
/// What separates labels in a variable: they have colons in them.
const SEPARATOR: char = ',';
/// The longest name of a connection.
const NAME_CHARACTERS: usize = 30;

/// Settings of the Forgejo runner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForgejoKeys {
    /// How often rows and states are sent while a job runs; absent means the default, or what a
    /// settings file of forgejo-runner says.
    pub report_interval: Option<Duration>,
    /// How long running jobs are waited for at the end; absent likewise.
    pub shutdown: Option<Duration>,
    /// The connections by their names.
    pub connections: BTreeMap<String, ConnectionKeys>,
    /// The images that stand for labels of other kinds.
    pub labels: BTreeMap<String, String>,
    /// Where each of them comes from.
    pub label_origins: BTreeMap<String, String>,
}

/// Settings of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionKeys {
    /// The instance.
    pub url: Option<Url>,
    /// The runner's id.
    pub uuid: Option<String>,
    /// The file with its token.
    pub token_file: Option<PathBuf>,
    /// What it offers.
    pub labels: Option<Vec<Label>>,
    /// How many jobs it has at most.
    pub capacity: Option<u32>,
    /// How long it waits between two questions.
    pub fetch_interval: Option<Duration>,
    /// How long one question may take.
    pub fetch_timeout: Option<Duration>,
    /// Certificates that are believed, too.
    pub ca_file: Option<PathBuf>,
    /// Whether any certificate is believed.
    pub insecure: Option<bool>,
    /// A `.runner` file with the identity.
    pub runner_file: Option<PathBuf>,
    /// A settings file of forgejo-runner with identities.
    pub runner_config: Option<PathBuf>,
    /// Where it begins in the settings.
    pub place: String,
    /// Where each key that was given comes from.
    pub origins: BTreeMap<&'static str, String>,
}

/// A key of a connection.
pub(super) struct ConnectionKey {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    apply: fn(&mut ConnectionKeys, &Given) -> Result<(), String>,
    show: fn(&ConnectionKeys) -> Option<String>,
}

/// Every key of a connection.
pub(super) const CONNECTION_KEYS: &[ConnectionKey] = &[
    ConnectionKey {
        name: "url",
        about: "the instance's address",
        apply: |c, given| identity::address(given.text()?).map(|v| c.url = Some(v)),
        show: |c| c.url.as_ref().map(|url| keys::text(url.as_str().trim_end_matches('/'))),
    },
    ConnectionKey {
        name: "uuid",
        about: "the runner's id",
        apply: |c, given| identity::uuid(given.text()?).map(|v| c.uuid = Some(v)),
        show: |c| c.uuid.as_deref().map(keys::text),
    },
    ConnectionKey {
        name: "token_file",
        about: "a file of mode 0600 with the runner's token",
        apply: |c, given| given.path().map(|v| c.token_file = Some(v)),
        show: |c| c.token_file.as_deref().map(keys::path),
    },
    ConnectionKey {
        name: "labels",
        about: "what it offers: NAME, or NAME:vm://IMAGE?cpus=4&memory=8G",
        apply: |c, given| labels(given).map(|v| c.labels = Some(v)),
        show: |c| {
            let labels = c.labels.as_ref()?;
            Some(keys::texts(&labels.iter().map(ToString::to_string).collect::<Vec<_>>()))
        },
    },
    ConnectionKey {
        name: "capacity",
        about: "how many jobs it has at the same time",
        apply: |c, given| given.number(CAPACITY).map(|v| c.capacity = Some(v)),
        show: |c| c.capacity.map(|capacity| capacity.to_string()),
    },
    ConnectionKey {
        name: "fetch_interval",
        about: "the wait between two questions for jobs",
        apply: |c, given| given.time(SHORTEST, HOUR).map(|v| c.fetch_interval = Some(v)),
        show: |c| c.fetch_interval.map(keys::time),
    },
    ConnectionKey {
        name: "fetch_timeout",
        about: "how long one question may take",
        apply: |c, given| given.time(SECOND, 10 * MINUTE).map(|v| c.fetch_timeout = Some(v)),
        show: |c| c.fetch_timeout.map(keys::time),
    },
    ConnectionKey {
        name: "ca_file",
        about: "a PEM file of certificates that are believed, too",
        apply: |c, given| given.path().map(|v| c.ca_file = Some(v)),
        show: |c| c.ca_file.as_deref().map(keys::path),
    },
    ConnectionKey {
        name: "insecure",
        about: "whether any certificate is believed",
        apply: |c, given| given.boolean().map(|v| c.insecure = Some(v)),
        show: |c| c.insecure.map(|value| value.to_string()),
    },
    ConnectionKey {
        name: "runner_file",
        about: "a .runner file of forgejo-runner, instead of url, uuid and token_file",
        apply: |c, given| given.path().map(|v| c.runner_file = Some(v)),
        show: |c| c.runner_file.as_deref().map(keys::path),
    },
    ConnectionKey {
        name: "runner_config",
        about: "a config.yml of forgejo-runner, for all connections in it",
        apply: |c, given| given.path().map(|v| c.runner_config = Some(v)),
        show: |c| c.runner_config.as_deref().map(keys::path),
    },
];

/// The names of the keys of a connection, for the document's test.
pub fn connection_key_names() -> impl Iterator<Item = &'static str> + Clone {
    CONNECTION_KEYS.iter().map(|key| key.name)
}

/// Whether a text can name a connection: it is part of a file's name and of a variable's.
#[must_use]
pub fn is_connection_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty()
        && name.len() <= NAME_CHARACTERS
        && !name.starts_with('-')
        && name.chars().all(plain)
}

/// What a name of a connection is, for messages.
pub(crate) fn name_rule() -> String {
    format!(
        "a connection's name has at most {NAME_CHARACTERS} of a-z, 0-9 and -, and does not begin with -"
    )
}

/// How often a running job is reported.
pub(super) fn report_interval(given: &Given) -> Result<Duration, String> {
    given.time(SHORTEST, MINUTE)
}

/// How long running jobs are waited for.
pub(super) fn shutdown(given: &Given) -> Result<Duration, String> {
    given.time(Duration::ZERO, LONGEST)
}

/// Takes one of the two tables; every mistake in it is found.
pub(super) fn apply_table(forgejo: &mut ForgejoKeys, given: &Given) -> Vec<CommandError> {
    let entries = match given.table() {
        Ok(entries) => entries,
        Err(problem) => return vec![wrong(&given.place, &given.key, &problem)],
    };
    let mut mistakes = Vec::new();
    for entry in entries {
        if given.key == LABELS {
            mistakes.extend(apply_label(forgejo, entry).err());
        } else {
            mistakes.extend(apply_connection(forgejo, entry));
        }
    }
    mistakes
}

fn wrong(place: &str, key: &str, problem: &str) -> CommandError {
    CommandError::usage(format!("{place}: {key}: {problem}"))
}

fn apply_connection(forgejo: &mut ForgejoKeys, given: &Given) -> Vec<CommandError> {
    let name = &given.key;
    let table = format!("{CONNECTIONS}.{name}");
    if !is_connection_name(name) {
        // Of someone who forgot the name, the keys lie here.
        let mistake = wrong(&given.place, CONNECTIONS, &format!("{name:?} cannot be a name"));
        return vec![mistake.hint(match CONNECTION_KEYS.iter().any(|key| key.name == name) {
            true => format!("write [{CONNECTIONS}.NAME] above the keys of a connection"),
            false => name_rule(),
        })];
    }
    let entries = match given.table() {
        Ok(entries) => entries,
        Err(problem) => {
            let hint = format!("write [{CONNECTIONS}.NAME] above the keys of a connection");
            return vec![wrong(&given.place, &table, &problem).hint(hint)];
        }
    };
    let connection = forgejo.connections.entry(name.clone()).or_default();
    connection.place.clone_from(&given.place);
    let mut mistakes = Vec::new();
    for entry in entries {
        let applied = find(entry).and_then(|key| connection.apply(name, key, entry));
        mistakes.extend(applied.err());
    }
    mistakes
}

fn find(given: &Given) -> Result<&'static ConnectionKey, CommandError> {
    CONNECTION_KEYS.iter().find(|key| key.name == given.key).ok_or_else(|| {
        let error = CommandError::usage(format!("{}: unknown key {:?}", given.place, given.key));
        if given.key == "token" {
            return error.hint("write the token into a file, and name that file in `token_file`");
        }
        match nearest_of(&given.key, connection_key_names()) {
            Some(near) => error.hint(format!("did you mean {near:?}?")),
            None => {
                let all: Vec<&str> = connection_key_names().collect();
                error.hint(format!("the keys of a connection are {}", all.join(", ")))
            }
        }
    })
}

impl ConnectionKeys {
    fn apply(
        &mut self,
        name: &str,
        key: &'static ConnectionKey,
        given: &Given,
    ) -> Result<(), CommandError> {
        (key.apply)(self, given).map_err(|problem| {
            wrong(&given.place, &format!("{CONNECTIONS}.{name}.{}", key.name), &problem)
        })?;
        self.origins.insert(key.name, given.place.clone());
        Ok(())
    }

    /// Every key with its value.
    fn entries(&self) -> impl Iterator<Item = Entry> {
        CONNECTION_KEYS.iter().map(|key| Entry {
            name: key.name.into(),
            about: key.about,
            value: (key.show)(self),
            origin: self.origins.get(key.name).cloned(),
        })
    }
}

fn apply_label(forgejo: &mut ForgejoKeys, given: &Given) -> Result<(), CommandError> {
    let key = format!("{LABELS}.{:?}", given.key);
    let image = given.text().map_err(|problem| {
        wrong(&given.place, &key, &problem).hint(
            "write LABEL = \"IMAGE\"; a label with a dot stands in quotes: \"ubuntu-22.04\" = \
             \"debian-12\"",
        )
    })?;
    let added = add_label(forgejo, &given.key, image, &given.place);
    added.map_err(|problem| wrong(&given.place, &key, &problem))
}

fn add_label(
    forgejo: &mut ForgejoKeys,
    name: &str,
    image: &str,
    place: &str,
) -> Result<(), String> {
    let text = format!("{name}:vm://{}", image.strip_prefix("vm://").unwrap_or(image));
    let label: Label =
        text.parse().map_err(|error: forgejo_runner::LabelError| error.to_string())?;
    if label.name != name {
        return Err("a label has no colon in its name".to_owned());
    }
    forgejo.labels.insert(name.to_owned(), image.to_owned());
    forgejo.label_origins.insert(name.to_owned(), place.to_owned());
    Ok(())
}

/// Labels of the kind that runs here, each with another name.
fn labels(given: &Given) -> Result<Vec<Label>, String> {
    let texts = given.texts_by(SEPARATOR)?;
    if texts.is_empty() {
        return Err("a runner without labels gets no job; leave the key out to offer every image"
            .to_owned());
    }
    parse_labels(&texts)
}

/// Labels of the kind that runs here, each with another name.
///
/// # Errors
/// One is of another kind or none at all, or two have one name.
pub(crate) fn parse_labels(texts: &[String]) -> Result<Vec<Label>, String> {
    let mut labels: Vec<Label> = Vec::new();
    for text in texts {
        let label: Label = text.trim().parse().map_err(|error| match error {
            forgejo_runner::LabelError::Schema { .. } => {
                format!("{error}; write NAME:vm://IMAGE")
            }
            error => error.to_string(),
        })?;
        if labels.iter().any(|other| other.name == label.name) {
            return Err(format!("the label {:?} is there twice", label.name));
        }
        labels.push(label);
    }
    Ok(labels)
}

/// Takes a variable whose name begins as those of connections do. `None` if it is none of them.
pub(super) fn apply_variable(
    forgejo: &mut ForgejoKeys,
    name: &str,
    value: &OsStr,
    directory: &Path,
) -> Option<Result<(), CommandError>> {
    let rest = name.strip_prefix(PREFIX)?.strip_prefix("FORGEJO_")?.to_ascii_lowercase();
    let given =
        |key: &str| Given::from_variable(name, value, directory).map(|given| given.of_key(key));
    if rest == "labels" {
        return Some(given(LABELS).and_then(|given| label_variable(forgejo, &given)));
    }
    let (connection, key) = CONNECTION_KEYS.iter().find_map(|key| {
        let connection = rest.strip_suffix(key.name)?.strip_suffix('_')?.replace('_', "-");
        is_connection_name(&connection).then_some((connection, key))
    })?;
    let keys = forgejo.connections.entry(connection.clone()).or_default();
    if keys.place.is_empty() {
        keys.place = name.to_owned();
    }
    Some(given(key.name).and_then(|given| keys.apply(&connection, key, &given)))
}

/// `docker=debian-12,ubuntu-latest=debian-12`; it takes the place of the whole table.
fn label_variable(forgejo: &mut ForgejoKeys, given: &Given) -> Result<(), CommandError> {
    let mistake = |problem: String| wrong(&given.place, LABELS, &problem);
    let texts = given.texts_by(SEPARATOR).map_err(mistake)?;
    forgejo.labels.clear();
    forgejo.label_origins.clear();
    for text in texts {
        let (name, image) =
            text.split_once('=').ok_or_else(|| mistake(format!("{text:?} is not LABEL=IMAGE")))?;
        add_label(forgejo, name, image, &given.place).map_err(mistake)?;
    }
    Ok(())
}

/// What a variable that is nearly one of a connection's was probably meant to be.
pub(super) fn nearest_variable(rest: &str) -> Option<String> {
    let rest = rest.strip_prefix("forgejo_")?;
    rest.match_indices('_').find_map(|(at, _)| {
        let (connection, key) = (&rest[..at], &rest[at + 1..]);
        let key = nearest_of(key, connection_key_names())?;
        Some(format!(
            "{PREFIX}FORGEJO_{}_{}",
            connection.to_ascii_uppercase(),
            key.to_ascii_uppercase()
        ))
    })
}

/// The tables with every key that is set in them.
pub(super) fn sections(forgejo: &ForgejoKeys) -> Vec<Section> {
    let mut sections: Vec<Section> = forgejo
        .connections
        .iter()
        .map(|(name, keys)| Section {
            name: format!("{CONNECTIONS}.{name}"),
            entries: keys.entries().filter(|entry| entry.value.is_some()).collect(),
        })
        .collect();
    if !forgejo.labels.is_empty() {
        let entries = forgejo.labels.iter().map(|(name, image)| Entry {
            name: keys::text(name).into(),
            about: "the image for a label of another kind",
            value: Some(keys::text(image)),
            origin: forgejo.label_origins.get(name).cloned(),
        });
        sections.push(Section { name: LABELS.to_owned(), entries: entries.collect() });
    }
    sections
}

/// The tables of an example: each key once, in connections of each kind.
pub(super) fn example() -> Vec<Section> {
    let about = |name: &str| CONNECTION_KEYS.iter().find(|key| key.name == name);
    let entry = |(name, value): &(&'static str, &str)| Entry {
        name: (*name).into(),
        about: about(name).map_or("", |key| key.about),
        value: Some((*value).to_owned()),
        origin: None,
    };
    let section = |name: &str, entries: &[(&'static str, &str)]| Section {
        name: format!("{CONNECTIONS}.{name}"),
        entries: entries.iter().map(entry).collect(),
    };
    let label = Entry {
        name: "docker".into(),
        about: "the image for a label of another kind in files of forgejo-runner",
        value: Some("\"debian-12\"".to_owned()),
        origin: None,
    };
    vec![
        section("codeberg", EXAMPLE),
        section("moved", &[("runner_file", "\"/var/lib/forgejo-runner/.runner\"")]),
        section("all", &[("runner_config", "\"/etc/forgejo-runner/config.yml\"")]),
        Section { name: LABELS.to_owned(), entries: vec![label] },
    ]
}

const EXAMPLE: &[(&str, &str)] = &[
    ("url", "\"https://codeberg.org\""),
    ("uuid", "\"30303131-3232-3333-3434-353536363737\""),
    ("token_file", "\"/etc/solstice/codeberg.token\""),
    ("labels", "[\"debian-12\", \"big:vm://debian-12?cpus=8&memory=16G\"]"),
    ("capacity", "2"),
    ("fetch_interval", "\"30s\""),
    ("fetch_timeout", "\"30s\""),
    ("ca_file", "\"/etc/solstice/ca.pem\""),
    ("insecure", "false"),
];

/// What contradicts itself, or is not whole, when everything was read.
pub(super) fn check(forgejo: &ForgejoKeys) -> Vec<CommandError> {
    let mut mistakes: Vec<CommandError> = forgejo
        .connections
        .iter()
        .flat_map(|(name, keys)| {
            keys.check().map(|(place, problem)| mistake(name, place, &problem))
        })
        .collect();
    let mut seen: Vec<(&str, Vec<String>)> = Vec::new();
    for (name, keys) in &forgejo.connections {
        let identity = keys.identity();
        let same = |other: &&(&str, Vec<String>)| !identity.is_empty() && other.1 == identity;
        if let Some((other, _)) = seen.iter().find(same) {
            let problem = format!("{CONNECTIONS}.{other} has the same identity");
            mistakes.push(mistake(name, &keys.place, &problem).hint(ONE_IDENTITY));
        }
        seen.push((name, identity));
    }
    mistakes
}

/// What to do about two connections with one identity.
pub(crate) const ONE_IDENTITY: &str = "two runners with one identity take each other's jobs: remove \
                                       one, or register it as a runner of its own";

fn mistake(connection: &str, place: &str, problem: &str) -> CommandError {
    wrong(place, &format!("{CONNECTIONS}.{connection}"), problem)
}

impl ConnectionKeys {
    /// Where a key was given, else where the connection begins.
    fn place_of(&self, key: &str) -> &str {
        self.origins.get(key).unwrap_or(&self.place)
    }

    /// What is wrong with the keys together, each with its place.
    fn check(&self) -> impl Iterator<Item = (&str, String)> {
        let given = |key: &str| self.origins.contains_key(key);
        let mut wrong = Vec::new();
        let mut beside = |file: &str, others: &[&'static str]| {
            for key in others.iter().filter(|key| given(file) && given(key)) {
                wrong.push((*key, format!("`{key}` and `{file}` exclude each other")));
            }
        };
        beside("runner_config", &["url", "uuid", "token_file", "runner_file"]);
        beside("runner_file", &["uuid", "token_file"]);
        let of_a_file = given("runner_file") || given("runner_config");
        if !of_a_file && (given("uuid") || given("token_file")) {
            for key in ["url", "uuid", "token_file"].into_iter().filter(|key| !given(key)) {
                wrong.push(("", format!("`{key}` is missing")));
            }
        }
        if self.insecure == Some(true) && given("ca_file") {
            wrong.push(("insecure", "`insecure` and `ca_file` exclude each other".to_owned()));
        }
        if self.insecure == Some(true) && self.url.as_ref().is_some_and(|u| u.scheme() == "http") {
            wrong.push(("insecure", "`insecure` is for an URL with https".to_owned()));
        }
        wrong.into_iter().map(|(key, problem)| (self.place_of(key), problem))
    }

    /// What is the same for two connections with one identity; empty if it is not known here.
    fn identity(&self) -> Vec<String> {
        let shown = |path: &PathBuf| path.display().to_string();
        match (&self.runner_config, &self.runner_file, &self.url, &self.uuid) {
            (Some(path), ..) | (_, Some(path), ..) => vec![shown(path)],
            (_, _, Some(url), Some(uuid)) => vec![url.to_string(), uuid.clone()],
            _ => Vec::new(),
        }
    }
}
