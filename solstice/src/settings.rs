//! `solstice.toml` and its overrides from the environment. docs/configuration.md describes each key.
//!
//! One table, [`KEYS`], names the keys; the file, the environment, the error for an unknown key and
//! the test of the document all read it.

mod actions;
mod defaults;
mod file;
mod forgejo;
mod keys;
mod service;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use common::size::ByteSize;

use crate::exit::CommandError;
use file::Given;
use keys::{KEYS, Key};

pub use actions::ActionKeys;
pub use forgejo::{ConnectionKeys, ForgejoKeys, connection_key_names, is_connection_name};
pub(crate) use forgejo::{ONE_IDENTITY, REPORT_INTERVAL, SHUTDOWN, name_rule, parse_labels};
pub use keys::{Entry, Section, entries, example_sections, key_names, sections};
pub(crate) use service::with_password;
pub use service::{Database, Queue, ServiceKeys};

/// Settings of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Machines' disks and locks.
    pub state_dir: PathBuf,
    /// Images, which several state directories may share; absent means `images` in `state_dir`.
    pub image_dir: Option<PathBuf>,
    /// Frozen guests, which several state directories may share; absent means `templates` in
    /// `state_dir`.
    pub template_dir: Option<PathBuf>,
    /// What templates may have of the disk together; zero means that every machine boots.
    pub template_quota: ByteSize,
    /// Where the actions of jobs come from and are kept.
    pub actions: ActionKeys,
    /// Sockets and keys of running machines; must be on tmpfs.
    pub runtime_dir: PathBuf,
    /// A file of further images.
    pub catalogue: Option<PathBuf>,
    /// Bytes that stay free on the disk of `state_dir`.
    pub disk_reserve: ByteSize,
    /// The emulator; absent means that it is looked up in `PATH`.
    pub qemu: Option<PathBuf>,
    /// The disk image tool; absent means that it is looked up in `PATH`.
    pub qemu_img: Option<PathBuf>,
    /// Directories in which the programs for guests are looked up, in this order.
    pub guest_programs: Vec<PathBuf>,
    /// Which acceleration machines use.
    pub acceleration: Acceleration,
    /// Settings of the service.
    pub service: ServiceKeys,
    /// Settings of the Forgejo runner.
    pub forgejo: ForgejoKeys,
    /// The file that was read, if there was one.
    pub source: Option<PathBuf>,
    /// Where each key that was given comes from.
    pub origins: BTreeMap<&'static str, String>,
    /// Sentences about settings that look like mistakes.
    pub warnings: Vec<String>,
}

/// Which acceleration machines use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceleration {
    /// KVM where a machine really runs under it, else TCG.
    Auto,
    /// KVM, or an error.
    Kvm,
    /// Emulation.
    Tcg,
}

impl Settings {
    /// The operators' socket.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        let socket = self.service.socket.clone();
        socket.unwrap_or_else(|| self.runtime_dir.join("solstice.sock"))
    }

    /// The file of the jobs, where they are not in a database of several hosts.
    #[must_use]
    pub fn database_path(&self) -> Option<PathBuf> {
        match &self.service.database {
            Database::Default => Some(self.state_dir.join("solstice.db")),
            Database::File(path) => Some(path.clone()),
            Database::Postgres(_) => None,
        }
    }
}

impl Acceleration {
    /// The name in settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What the settings are made from, apart from the file.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Environment variables.
    pub variables: BTreeMap<String, OsString>,
    /// Effective user id.
    pub user_id: u32,
    /// The working directory.
    pub directory: PathBuf,
    /// The directory of this program.
    pub program_directory: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        let program = std::env::current_exe().ok().and_then(|path| path.canonicalize().ok());
        Self {
            variables,
            user_id: nix::unistd::geteuid().as_raw(),
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            program_directory: program.and_then(|path| path.parent().map(Path::to_path_buf)),
        }
    }

    /// A variable that is set and not empty.
    fn path(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }
}

/// What the names of all environment variables of Solstice begin with.
const PREFIX: &str = "SOLSTICE_";

/// Variables of Solstice that override no key.
const OTHER_VARIABLES: &[&str] = &["SOLSTICE_CONFIG", "SOLSTICE_LOG", "SOLSTICE_FORGEJO_TOKEN"];

/// The tables, which have keys of their own.
const TABLES: [&str; 2] = [forgejo::CONNECTIONS, forgejo::LABELS];

/// Reads the settings: defaults, then the file, then the environment.
///
/// # Errors
/// The file that was asked for cannot be read, it is not TOML, a key is unknown, or a value is of
/// the wrong kind; the text names the place.
pub fn load(
    surroundings: &Surroundings,
    requested: Option<&Path>,
) -> Result<Settings, CommandError> {
    let (settings, mistakes) = load_all(surroundings, requested)?;
    mistakes.into_iter().next().map_or(Ok(settings), Err)
}

/// Like [`load`], with every mistake instead of the first.
///
/// # Errors
/// There is no place for the state, or the file cannot be read at all.
pub fn load_all(
    surroundings: &Surroundings,
    requested: Option<&Path>,
) -> Result<(Settings, Vec<CommandError>), CommandError> {
    let mut settings = defaults::settings(surroundings)?;
    let mut mistakes = Vec::new();
    if let Some(path) = defaults::file(surroundings, requested) {
        let required = requested.is_some();
        if let Some(text) = file::read(&path, required)? {
            for given in file::parse(&path, &text)? {
                if TABLES.contains(&given.key.as_str()) {
                    mistakes.extend(forgejo::apply_table(&mut settings.forgejo, &given));
                    continue;
                }
                let applied = find(&given).and_then(|key| apply(key, &mut settings, &given));
                mistakes.extend(applied.err());
            }
            settings.source = Some(path);
        }
    }
    for (name, value) in &surroundings.variables {
        let applied = apply_variable(surroundings, &mut settings, name, value);
        mistakes.extend(applied.err());
    }
    if mistakes.is_empty() {
        mistakes = forgejo::check(&settings.forgejo);
    }
    Ok((settings, mistakes))
}

fn apply_variable(
    surroundings: &Surroundings,
    settings: &mut Settings,
    name: &str,
    value: &OsStr,
) -> Result<(), CommandError> {
    let Some(rest) = name.strip_prefix(PREFIX) else { return Ok(()) };
    let directory = &surroundings.directory;
    if OTHER_VARIABLES.contains(&name) {
        return Ok(());
    }
    if let Some(key) = KEYS.iter().find(|key| key.variable() == name) {
        if value.is_empty() {
            return Ok(());
        }
        let given = Given::from_variable(name, value, directory)?;
        return apply(key, settings, &given);
    }
    // An empty one counts as unset; whether it is one is seen without taking it.
    let scratch = &mut ForgejoKeys::default();
    let forgejo = if value.is_empty() { scratch } else { &mut settings.forgejo };
    if let Some(applied) = forgejo::apply_variable(forgejo, name, value, directory) {
        return if value.is_empty() { Ok(()) } else { applied };
    }
    let rest = rest.to_ascii_lowercase();
    let right = forgejo::nearest_variable(&rest)
        .or_else(|| nearest(&rest).map(|near| format!("{PREFIX}{}", near.to_ascii_uppercase())));
    if let Some(right) = right {
        settings.warnings.push(format!("{name} has no effect; did you mean {right}?"));
    }
    Ok(())
}

fn find(given: &Given) -> Result<&'static Key, CommandError> {
    KEYS.iter().find(|key| key.name == given.key).ok_or_else(|| {
        let error = CommandError::usage(format!("{}: unknown key {:?}", given.place, given.key));
        match nearest(&given.key) {
            Some(near) => error.hint(format!("did you mean {near:?}?")),
            None => {
                let all: Vec<&str> = key_names().chain(TABLES).collect();
                error.hint(format!("the keys are {}", all.join(", ")))
            }
        }
    })
}

fn apply(key: &Key, settings: &mut Settings, given: &Given) -> Result<(), CommandError> {
    (key.apply)(settings, given).map_err(|problem| {
        CommandError::usage(format!("{}: {}: {problem}", given.place, key.name))
    })?;
    settings.origins.insert(key.name, given.place.clone());
    Ok(())
}

/// The key that was probably meant: the one with the fewest slips of the hand (a letter too many or
/// too few, another one, two exchanged), and of several the one that has the same letters. A name
/// that is cut short is none of these slips, but begins like its key.
fn nearest(name: &str) -> Option<&'static str> {
    nearest_of(name, key_names().chain(TABLES))
}

/// As [`nearest`], of other names.
fn nearest_of(
    name: &str,
    names: impl Iterator<Item = &'static str> + Clone,
) -> Option<&'static str> {
    /// A slip for so many letters is likely, more are another word.
    const LETTERS: usize = 3;
    /// Below this similarity a suggestion confuses more than it helps.
    const SIMILAR: f64 = 0.85;
    let letters = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    let most = (name.chars().count() / LETTERS).max(1);
    let slips = names.clone().filter_map(|key| {
        let slips = strsim::damerau_levenshtein(key, name);
        let others = letters(key) != letters(name);
        (slips <= most || !others).then_some((slips, others, key))
    });
    let begins_alike = || {
        let similar = names.map(|key| (strsim::jaro_winkler(key, name), key));
        let similar = similar.filter(|(similarity, _)| *similarity >= SIMILAR);
        similar.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, key)| key)
    };
    slips
        .min_by_key(|(slips, others, _)| (*slips, *others))
        .map(|(.., key)| key)
        .or_else(begins_alike)
}

#[cfg(test)]
mod tests;
