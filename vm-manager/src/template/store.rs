//! The templates of this host.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::size::ByteSize;
use common::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::files::{self, BASE, DEVICE, DISK, MEMORY};
use super::{Facts, Making, TemplateError, TemplateKey};
use crate::host::{HostError, Trust, check_reserve, make_directory, write_private};
use crate::image::{ImageLock, Progress, WorkDirectory, remove_stale};

/// What is written down.
pub(super) const FACTS: &str = "template.json";
/// Touched by each clone.
pub(super) const USED: &str = "used";
/// The clones in a row that did not become machines of their own.
const SUSPECT: &str = "suspect";
/// Facts have some hundred bytes; more are not ours.
const FACTS_BYTES: u64 = 64 * 1024;
/// After a failure nobody tries again for so long: it would delay each job by a boot.
const FAILURE: Duration = Duration::from_secs(10 * 60);

/// The templates of this host. Any number of processes may have it open.
#[derive(Clone, Debug)]
pub struct TemplateStore {
    directory: PathBuf,
    settings: StoreSettings,
}

/// What the templates of a host may use.
#[derive(Clone, Copy, Debug)]
pub struct StoreSettings {
    /// What they may have of the disk together.
    pub quota: ByteSize,
    /// What stays free on the disk whatever happens.
    pub reserve: ByteSize,
}

/// A template of which clones can be made.
#[derive(Clone, Debug)]
pub struct Template {
    directory: PathBuf,
    facts: Facts,
}

/// A template on this host.
#[derive(Clone, Debug)]
pub struct StoredTemplate {
    /// Its name.
    pub key: TemplateKey,
    /// What is written down about it.
    pub facts: Facts,
    /// What its files use of the disk.
    pub bytes: ByteSize,
    /// When the last clone was made.
    pub used: SystemTime,
}

/// What is written down about a template that could not be made.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    reason: String,
    at: Timestamp,
}

impl Template {
    pub(super) fn new(directory: PathBuf, facts: Facts) -> Self {
        Self { directory, facts }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn memory(&self) -> PathBuf {
        files::memory(&self.directory)
    }

    pub(crate) fn device(&self) -> PathBuf {
        files::device(&self.directory)
    }

    pub(crate) fn disk(&self) -> PathBuf {
        files::disk(&self.directory)
    }

    /// What is written down about it.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Notes that no good clone came of it, and gives how often that was in a row.
    #[must_use]
    pub fn note_failed_clone(&self) -> u32 {
        let path = self.directory.join(SUSPECT);
        // A byte for each. A template that is gone needs no note.
        let file = OpenOptions::new().create(true).append(true).open(&path);
        drop(file.and_then(|mut file| io::Write::write_all(&mut file, b"!")));
        fs::metadata(&path).map_or(0, |file| u32::try_from(file.len()).unwrap_or(u32::MAX))
    }

    /// Notes that a good clone came of it.
    pub fn note_good_clone(&self) {
        drop(fs::remove_file(self.directory.join(SUSPECT)));
    }
}

impl TemplateStore {
    /// Opens the store in a directory, which is made if it is not there, and removes what dead
    /// makers left.
    ///
    /// # Errors
    /// The directory cannot be used, or others can write to it.
    pub fn open(directory: &Path, settings: StoreSettings) -> Result<Self, TemplateError> {
        make_directory(directory, Trust::Ours)?;
        for name in ["ready", "locks", "partial", "failed"] {
            make_directory(&directory.join(name), Trust::Ours)?;
        }
        remove_stale(&directory.join("partial"))?;
        Ok(Self { directory: directory.to_owned(), settings })
    }

    pub(super) fn ready(&self, key: &TemplateKey) -> PathBuf {
        self.directory.join("ready").join(key.to_string())
    }

    fn lock(&self, key: &TemplateKey) -> PathBuf {
        self.directory.join("locks").join(format!("{key}.lock"))
    }

    /// The template of this name, if there is one whose files are whole; it counts as used then.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn find(&self, key: &TemplateKey) -> Result<Option<Arc<Template>>, TemplateError> {
        let directory = self.ready(key);
        match read_template(&directory) {
            Ok(Some(template)) => {
                touch(&directory.join(USED))?;
                Ok(Some(Arc::new(template)))
            }
            Err(error @ TemplateError::Damaged { .. }) => {
                tracing::warn!(%key, %error, "a damaged template counts as none");
                Ok(None)
            }
            other => other.map(|_| None),
        }
    }

    /// The right to make a template for guests with so much memory, once nobody else makes it and
    /// there is room for it. Look again whether it is there then.
    ///
    /// # Errors
    /// Somebody else makes it for longer than `wait`, there is no room, or the store cannot be
    /// written.
    pub async fn make(
        &self,
        key: &TemplateKey,
        memory: ByteSize,
        wait: Duration,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Making, TemplateError> {
        let path = self.lock(key);
        let lock = ImageLock::acquire(&path, "template", progress);
        let what = "waiting for somebody else who makes this template";
        let late = |_| TemplateError::Timeout { what, deadline: wait };
        let lock = tokio::time::timeout(wait, lock).await.map_err(late)??;
        let quota = self.settings.quota;
        if memory > quota {
            return Err(TemplateError::Quota { memory, quota });
        }
        let room = ByteSize(quota.0 - memory.0);
        self.trim(key, room);
        let needed = ByteSize(memory.0.saturating_add(self.settings.reserve.0));
        check_reserve(&self.directory, needed)?.map_err(TemplateError::Disk)?;
        let work = WorkDirectory::create(&self.directory.join("partial"))?;
        Ok(Making::new(key.clone(), self.clone(), work, lock))
    }

    /// All templates, the least recently used first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn list(&self) -> Result<Vec<StoredTemplate>, TemplateError> {
        let path = self.directory.join("ready");
        let mut found = Vec::new();
        for entry in fs::read_dir(&path).map_err(HostError::io("read", &path))? {
            let directory = entry.map_err(HostError::io("read", &path))?.path();
            let name = directory.file_name().and_then(|name| name.to_str());
            let Some(key) = name.and_then(TemplateKey::parse) else { continue };
            // Somebody may remove it just now.
            let Ok(Some(facts)) = read_facts(&directory) else { continue };
            let used = fs::metadata(directory.join(USED)).and_then(|file| file.modified());
            let used = used.unwrap_or(SystemTime::UNIX_EPOCH);
            let blocks = |name: &str| {
                fs::metadata(directory.join(name)).map_or(0, |file| file.blocks() * 512)
            };
            let bytes = ByteSize([MEMORY, DEVICE, DISK, BASE].map(blocks).iter().sum());
            found.push(StoredTemplate { key, facts, bytes, used });
        }
        found.sort_by_key(|template| template.used);
        Ok(found)
    }

    /// Removes a template. Clones of it go on.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, key: &TemplateKey) -> Result<(), TemplateError> {
        let path = self.ready(key);
        // Out of sight in one step; the working directory then removes it.
        let work = WorkDirectory::create(&self.directory.join("partial"))?;
        match fs::rename(&path, work.path().join("removed")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(HostError::io("remove", &path)(error).into())
            }
            _ => Ok(()),
        }
    }

    /// Removes this very template, of which no good clone came, unless somebody is about to replace
    /// it anyway.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn discard(&self, template: &Template) -> Result<(), TemplateError> {
        let name = template.directory.file_name().and_then(|name| name.to_str());
        let Some(key) = name.and_then(TemplateKey::parse) else { return Ok(()) };
        let Some(_lock) = ImageLock::try_acquire(&self.lock(&key))? else { return Ok(()) };
        match read_facts(&self.ready(&key)) {
            Ok(Some(found)) if found != template.facts => Ok(()),
            _ => self.remove(&key),
        }
    }

    /// Why a template could not be made a short while ago, if so.
    #[must_use]
    pub fn failure(&self, key: &TemplateKey) -> Option<String> {
        let text = fs::read(self.failed(key)).ok()?;
        let Failure { reason, at } = serde_json::from_slice(&text).ok()?;
        let age = SystemTime::now().duration_since(at.into()).ok()?;
        (age < FAILURE).then_some(reason)
    }

    /// Notes that a template could not be made.
    pub fn note_failure(&self, key: &TemplateKey, reason: &str) {
        let path = self.failed(key);
        let failure = Failure { reason: reason.to_owned(), at: Timestamp::now() };
        let text = serde_json::to_vec(&failure).expect("a failure has a JSON form");
        if let Err(error) = write_private(&path, &text) {
            tracing::warn!(%key, %error, "cannot note that a template could not be made");
        }
    }

    /// Forgets that a template could not be made.
    pub fn forget_failure(&self, key: &TemplateKey) {
        drop(fs::remove_file(self.failed(key)));
    }

    fn failed(&self, key: &TemplateKey) -> PathBuf {
        self.directory.join("failed").join(format!("{key}.json"))
    }

    /// Removes the least recently used templates but `key` until the rest keeps to the quota.
    pub(super) fn keep_to_quota(&self, key: &TemplateKey) {
        self.trim(key, self.settings.quota);
    }

    /// Removes the least recently used templates but `key` until there are no more than `most` bytes.
    fn trim(&self, key: &TemplateKey, most: ByteSize) {
        let trim = || {
            let all = self.list()?;
            let mut sum: u64 = all.iter().map(|template| template.bytes.0).sum();
            for template in all.iter().filter(|template| template.key != *key) {
                if sum <= most.0 {
                    break;
                }
                tracing::info!(label = template.facts.label, key = %template.key, "template removed: quota");
                self.remove(&template.key)?;
                sum -= template.bytes.0;
            }
            Ok::<_, TemplateError>(())
        };
        if let Err(error) = trim() {
            tracing::warn!(%error, "cannot keep the templates to their quota");
        }
    }
}

/// The template in a directory, if all its files are there.
fn read_template(directory: &Path) -> Result<Option<Template>, TemplateError> {
    let Some(facts) = read_facts(directory)? else { return Ok(None) };
    for (name, size) in &facts.files {
        let path = directory.join(name);
        let found = fs::metadata(&path).map(|metadata| metadata.len());
        let reason = match found {
            Ok(found) if found == *size => continue,
            Ok(found) => format!("it has {found} bytes instead of {size}"),
            Err(error) => error.to_string(),
        };
        return Err(TemplateError::Damaged { path, reason });
    }
    Ok(Some(Template::new(directory.to_owned(), facts)))
}

fn read_facts(directory: &Path) -> Result<Option<Facts>, TemplateError> {
    let path = directory.join(FACTS);
    let text = match File::open(&path) {
        Ok(file) => {
            let mut text = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(file, FACTS_BYTES), &mut text)
                .map_err(HostError::io("read", &path))?;
            text
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HostError::io("open", &path)(error).into()),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| TemplateError::Damaged { path, reason: error.to_string() })
}

pub(super) fn touch(path: &Path) -> Result<(), TemplateError> {
    let touched = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .and_then(|file| file.set_modified(SystemTime::now()));
    touched.map_err(|error| HostError::io("touch", path)(error).into())
}
