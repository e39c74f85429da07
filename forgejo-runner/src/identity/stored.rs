//! What `solstice forgejo register` keeps: a file for each connection in a directory of the state.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::request::Secret;
use common::time::Timestamp;
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::{IdentityError, address, file, uuid};
use crate::settings::Trust;

/// A file has some lines.
const FILE_BYTES: u64 = common::limits::MIB;

/// An identity with what was said when it was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stored {
    /// The instance.
    pub url: String,
    /// The runner's id.
    pub uuid: String,
    /// Its token.
    pub token: Secret,
    /// Its name for people.
    pub name: String,
    /// The server's number for it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// When it was stored.
    pub registered: Timestamp,
    /// The labels that were asked for; none means those of the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// For which repositories it works, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// A file of certificates that are believed, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Whether any certificate is believed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
}

impl Stored {
    /// The instance's address.
    ///
    /// # Errors
    /// Somebody changed it to something else.
    pub fn address(&self) -> Result<Url, String> {
        address(&self.url)
    }

    /// Which certificates are believed.
    #[must_use]
    pub fn trust(&self) -> Trust {
        match &self.ca_file {
            _ if self.insecure => Trust::Any,
            Some(path) => Trust::Also(path.clone()),
            None => Trust::Host,
        }
    }
}

/// The directory of the stored identities.
#[derive(Clone, Debug)]
pub struct Identities {
    directory: PathBuf,
}

impl Identities {
    /// Those in a directory, which need not exist yet.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The file of a connection.
    #[must_use]
    pub fn path(&self, connection: &str) -> PathBuf {
        self.directory.join(format!("{connection}.json"))
    }

    /// The connections that have a file, in the order of their names.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn names(&self) -> Result<Vec<String>, IdentityError> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.cannot("read", &self.directory, &error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| self.cannot("read", &self.directory, &error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let name = name.strip_suffix(".json").filter(|name| !name.starts_with('.'));
            names.extend(name.map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// The identity of a connection; `None` if it has none.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it is damaged.
    pub fn load(&self, connection: &str) -> Result<Option<Stored>, IdentityError> {
        let path = self.path(connection);
        let shown = path.display();
        let (text, shared) = match file::read(&path, FILE_BYTES) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.cannot("read", &path, &error)),
        };
        if shared {
            let message = format!("the identity in {shown} cannot be used: others may read it");
            return Err(IdentityError::new(message).hint(format!("chmod 600 {shown}")));
        }
        let damaged = |problem: String| {
            IdentityError::new(format!("the identity in {shown} cannot be used: {problem}")).hint(
                format!(
                    "register again: solstice forgejo register --replace --connection {connection}"
                ),
            )
        };
        // Its own words might show the token.
        let stored: Stored = serde_json::from_str(&text)
            .map_err(|error| damaged(format!("it is damaged at line {}", error.line())))?;
        stored.address().map_err(&damaged)?;
        uuid(&stored.uuid).map_err(&damaged)?;
        if stored.token.expose().is_empty() {
            return Err(damaged("it has no token".to_owned()));
        }
        Ok(Some(stored))
    }

    /// Makes the directory and shows that files can be made in it. What a server tells only once must
    /// find its place.
    ///
    /// # Errors
    /// They cannot.
    pub fn prepare(&self) -> Result<(), IdentityError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.and_then(|()| fs::set_permissions(&self.directory, PermissionsExt::from_mode(0o700)))
            .and_then(|()| {
                let draft = self.draft("probe");
                File::create(&draft)?;
                fs::remove_file(&draft)
            })
            .map_err(|error| self.cannot("write to", &self.directory, &error))
    }

    /// Keeps an identity: whole or not at all, and for its owner alone.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, connection: &str, stored: &Stored) -> Result<(), IdentityError> {
        self.prepare()?;
        let path = self.path(connection);
        let mut text = serde_json::to_vec_pretty(stored)
            .map_err(|error| self.cannot("write", &path, &error.into()))?;
        text.push(b'\n');
        let draft = self.draft(connection);
        let written = write(&draft, &text).and_then(|()| fs::rename(&draft, &path));
        if written.is_err() {
            // What is left of it would hold the token.
            drop(fs::remove_file(&draft));
        }
        written
            .and_then(|()| File::open(&self.directory)?.sync_all())
            .map_err(|error| self.cannot("write", &path, &error))
    }

    /// Removes the identity of a connection; whether there was one.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, connection: &str) -> Result<bool, IdentityError> {
        let path = self.path(connection);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.cannot("remove", &path, &error)),
        }
    }

    fn draft(&self, connection: &str) -> PathBuf {
        self.directory.join(format!(".{connection}.{}.json", std::process::id()))
    }

    fn cannot(&self, what: &str, path: &Path, error: &io::Error) -> IdentityError {
        IdentityError::new(format!("cannot {what} {}: {error}", path.display()))
            .hint("run it as the user of the service, or give that user `state_dir`")
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Stored {
        Stored {
            url: "https://example.org/git".to_owned(),
            uuid: "33834eef-e758-48c4-a676-1745426747aa".to_owned(),
            token: Secret::new("hunter2"),
            name: "build-1".to_owned(),
            id: Some(7),
            registered: Timestamp::from_micros(1_700_000_000_000_000),
            labels: vec!["debian-12".to_owned()],
            scope: None,
            ca_file: None,
            insecure: false,
        }
    }

    #[test]
    fn an_identity_is_kept_for_its_owner_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().join("state/forgejo");
        let identities = Identities::new(place.clone());
        assert_eq!(identities.names(), Ok(Vec::new()));
        assert!(identities.load("home").expect("none").is_none());
        identities.save("home", &identity()).expect("saved");
        identities.save("away", &Stored { labels: Vec::new(), ..identity() }).expect("saved");
        assert_eq!(identities.names().expect("names"), ["away", "home"]);
        let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        assert_eq!((mode(&place), mode(&place.join("home.json"))), (0o700, 0o600));
        let read = identities.load("home").expect("an identity").expect("one");
        assert_eq!((read.token.expose(), read.labels.len()), ("hunter2", 1));
        assert_eq!(read.trust(), Trust::Host);
        assert_eq!(identities.remove("home"), Ok(true));
        assert_eq!(identities.remove("home"), Ok(false));
        assert_eq!(fs::read_dir(&place).expect("a directory").count(), 1);
    }

    #[test]
    fn a_damaged_identity_is_refused_without_its_token() {
        let directory = tempfile::tempdir().expect("a directory");
        let identities = Identities::new(directory.path().to_owned());
        identities.save("home", &identity()).expect("saved");
        let path = identities.path("home");
        let good = fs::read_to_string(&path).expect("a text");
        for (text, expected) in [
            (good.replace("\"hunter2\"", "[\"hunter2\"]"), "it is damaged at line 4"),
            (good.replace("hunter2", ""), "it has no token"),
            (good.replace("https://", ""), "not an URL"),
            (good.replace("33834eef-", ""), "is not a UUID"),
            (good[..good.len() / 2].to_owned(), "it is damaged"),
        ] {
            fs::write(&path, text).expect("written");
            let error = identities.load("home").expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
            assert!(error.advice().is_some_and(|hint| hint.contains("--connection home")));
        }
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("a mode");
        let error = identities.load("home").expect_err("open to all");
        assert!(error.to_string().ends_with("others may read it"), "{error}");
    }
}
