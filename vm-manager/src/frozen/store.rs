//! The frozen machines of this host.

use std::fs;
use std::path::{Path, PathBuf};

use common::size::ByteSize;
use common::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::FrozenError;
use crate::host::{
    HostError, HostSettings, RecordedShape, Trust, make_directory, read_bounded, write_private,
};
use crate::image::{WorkDirectory, remove_stale};

/// What is written down, without a secret.
pub(super) const FACTS: &str = "machine.json";
/// Facts have some hundred bytes; more are not ours.
const FACTS_BYTES: u64 = 64 * 1024;

/// The frozen machines of a host.
#[derive(Clone, Debug)]
pub struct FrozenStore {
    directory: PathBuf,
}

/// A frozen machine.
#[derive(Clone, Debug)]
pub struct FrozenMachine {
    pub(super) directory: PathBuf,
    pub(super) facts: Facts,
}

/// What is written down about a frozen machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) label: String,
    pub(super) user: String,
    pub(super) host_key: String,
    pub(super) shape: RecordedShape,
    pub(super) frozen: Timestamp,
    pub(super) until: Timestamp,
}

impl FrozenMachine {
    /// The name under which it was kept.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// The label of its image.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.facts.label
    }

    /// The digest of its image.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.facts.shape.image
    }

    /// Its virtual processors and the memory of its guest.
    #[must_use]
    pub fn size(&self) -> (u32, ByteSize) {
        (self.facts.shape.cpus, self.facts.shape.memory)
    }

    /// When it was frozen.
    #[must_use]
    pub fn frozen(&self) -> Timestamp {
        self.facts.frozen
    }

    /// When it is removed.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.facts.until
    }

    /// What it uses of the disk.
    #[must_use]
    pub fn bytes(&self) -> ByteSize {
        use std::os::unix::fs::MetadataExt;
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        // What it shares with a template counts there.
        let own =
            entries.filter_map(|entry| entry.metadata().ok()).filter(|file| file.nlink() == 1);
        ByteSize(own.map(|file| file.blocks() * 512).sum())
    }
}

impl FrozenStore {
    /// Those below the host's state directory.
    #[must_use]
    pub fn of(settings: &HostSettings) -> Self {
        Self { directory: settings.state.join("frozen") }
    }

    /// All of them by their names.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<FrozenMachine>, FrozenError> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            entries => entries.map_err(HostError::io("read", &self.directory))?,
        };
        for entry in entries.flatten() {
            let directory = entry.path();
            // One that nobody understands is left to its owner.
            if let Some(facts) = read(&directory) {
                found.push(FrozenMachine { directory, facts });
            }
        }
        found.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(found)
    }

    /// The machine that is frozen under a name.
    ///
    /// # Errors
    /// There is none; the error has the names that there are.
    pub fn find(&self, name: &str) -> Result<FrozenMachine, FrozenError> {
        let all = self.list()?;
        let known = all.iter().map(|machine| machine.name().to_owned()).collect();
        let found = all.into_iter().find(|machine| machine.name() == name);
        found.ok_or_else(|| FrozenError::Unknown { name: name.to_owned(), known })
    }

    /// Removes a frozen machine.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, machine: &FrozenMachine) -> Result<(), FrozenError> {
        // Out of sight in one step; the working directory then removes it.
        let work = WorkDirectory::create(&self.partial())?;
        fs::rename(&machine.directory, work.path().join("removed"))
            .map_err(HostError::io("remove", &machine.directory))?;
        Ok(())
    }

    /// Removes those whose time is over, and gives their names; and what dead makers left.
    ///
    /// # Errors
    /// One cannot be removed.
    pub fn remove_expired(&self) -> Result<Vec<String>, FrozenError> {
        let mut removed = Vec::new();
        if self.partial().is_dir() {
            remove_stale(&self.partial())?;
        }
        for machine in self.list()? {
            if machine.until() <= Timestamp::now() {
                self.remove(&machine)?;
                removed.push(machine.name().to_owned());
            }
        }
        Ok(removed)
    }

    /// A directory for a machine that is to be frozen under a name.
    pub(super) fn begin(&self, name: &str) -> Result<WorkDirectory, FrozenError> {
        if self.directory.join(name).exists() {
            return Err(FrozenError::There { name: name.to_owned() });
        }
        make_directory(&self.directory, Trust::Ours)?;
        make_directory(&self.partial(), Trust::Ours)?;
        remove_stale(&self.partial())?;
        Ok(WorkDirectory::create(&self.partial())?)
    }

    /// Makes it one.
    pub(super) fn finish(
        &self,
        work: &WorkDirectory,
        facts: Facts,
    ) -> Result<FrozenMachine, FrozenError> {
        let text = serde_json::to_vec_pretty(&facts).expect("facts have a JSON form");
        write_private(&work.path().join(FACTS), &text)?;
        let directory = self.directory.join(&facts.name);
        fs::rename(work.path(), &directory).map_err(HostError::io("create", &directory))?;
        Ok(FrozenMachine { directory, facts })
    }

    fn partial(&self) -> PathBuf {
        self.directory.join("partial")
    }
}

fn read(directory: &Path) -> Option<Facts> {
    let text = read_bounded(&directory.join(FACTS), FACTS_BYTES).ok()??;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::host::Acceleration;

    fn freeze(store: &FrozenStore, name: &str, until: SystemTime) -> FrozenMachine {
        let work = store.begin(name).unwrap();
        fs::write(work.path().join("guest"), "sealed").unwrap();
        let shape = RecordedShape {
            image: "sha256:1".to_owned(),
            cpus: 1,
            memory: ByteSize(1),
            acceleration: Acceleration::Tcg,
            clone: false,
        };
        let facts = Facts {
            name: name.to_owned(),
            label: "tiny".to_owned(),
            user: "root".to_owned(),
            host_key: "ssh-ed25519 AAAA".to_owned(),
            shape,
            frozen: Timestamp::now(),
            until: until.into(),
        };
        store.finish(&work, facts).unwrap()
    }

    #[test]
    fn frozen_machines_go_when_their_time_is_over_and_not_before() {
        let directory = tempfile::tempdir().unwrap();
        let store = FrozenStore::of(&HostSettings::below(directory.path()));
        assert!(store.list().unwrap().is_empty() && store.remove_expired().unwrap().is_empty());
        fs::create_dir(directory.path().join("state")).unwrap();
        let now = SystemTime::now();
        let old = freeze(&store, "old", now - Duration::from_secs(1));
        let new = freeze(&store, "new", now + Duration::from_secs(3600));
        let error = store.begin("new").err().unwrap();
        assert!(matches!(error, FrozenError::There { .. }), "{error}");
        // One that was being made when its maker died.
        let dead = store.partial().join("dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.with_extension("lock"), "").unwrap();

        assert_eq!(store.remove_expired().unwrap(), ["old"]);
        assert!(!old.directory.exists() && new.directory.exists() && !dead.exists());
        assert_eq!(store.find("new").unwrap().bytes(), new.bytes());
        let error = store.find("old").unwrap_err();
        assert!(error.to_string().contains("frozen are new"), "{error}");
        store.remove(&new).unwrap();
        assert!(store.list().unwrap().is_empty());
        assert_eq!(fs::read_dir(store.partial()).unwrap().count(), 0, "nothing stays");
    }
}
