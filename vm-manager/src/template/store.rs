//! The templates of this host.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use common::size::ByteSize;

use super::files::{self, DEVICE, DISK, MEMORY};
use super::{Facts, TemplateError, TemplateKey};
use crate::host::HostError;
use crate::image::{ImageLock, Progress, WorkDirectory, remove_stale};

/// What is written down.
const FACTS: &str = "template.json";
/// Touched by each clone.
const USED: &str = "used";
/// Facts have some hundred bytes; more are not ours.
const FACTS_BYTES: u64 = 64 * 1024;

/// The templates of this host. Any number of processes may have it open.
#[derive(Clone, Debug)]
pub struct TemplateStore {
    directory: PathBuf,
    quota: ByteSize,
}

/// A template of which clones can be made.
#[derive(Clone, Debug)]
pub struct Template {
    directory: PathBuf,
    facts: Facts,
}

/// A template that is being made. Dropping it removes what was made so far.
pub struct Making {
    key: TemplateKey,
    store: TemplateStore,
    work: WorkDirectory,
    _lock: ImageLock,
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

impl Template {
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
}

impl TemplateStore {
    /// Opens the store in a directory, which is made if it is not there, and removes what dead
    /// makers left. Templates have `quota` of the disk together.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn open(directory: &Path, quota: ByteSize) -> Result<Self, TemplateError> {
        for name in ["ready", "locks", "partial"] {
            let path = directory.join(name);
            // QEMU may run as a user of its own, and maps the files.
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&path);
            made.map_err(HostError::io("create", &path))?;
        }
        remove_stale(&directory.join("partial"))?;
        Ok(Self { directory: directory.to_owned(), quota })
    }

    fn ready(&self, key: &TemplateKey) -> PathBuf {
        self.directory.join("ready").join(key.to_string())
    }

    /// The template of this name, if there is one; it counts as used then.
    ///
    /// # Errors
    /// It is there, and a file of it cannot be used: [`TemplateStore::remove`] it.
    pub fn find(&self, key: &TemplateKey) -> Result<Option<Arc<Template>>, TemplateError> {
        let directory = self.ready(key);
        let Some(facts) = read_facts(&directory)? else { return Ok(None) };
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
        touch(&directory.join(USED))?;
        Ok(Some(Arc::new(Template { directory, facts })))
    }

    /// The right to make a template, once nobody else makes it. Look again whether it is there then.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn make(
        &self,
        key: &TemplateKey,
        label: &str,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Making, TemplateError> {
        let lock = self.directory.join("locks").join(format!("{key}.lock"));
        let lock = ImageLock::acquire(&lock, label, progress).await?;
        let work = WorkDirectory::create(&self.directory.join("partial"))?;
        Ok(Making { key: key.clone(), store: self.clone(), work, _lock: lock })
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
            let bytes = ByteSize([MEMORY, DEVICE, DISK].map(blocks).iter().sum());
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

    /// Removes a template that cannot be restored. Clones of it go on.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn discard(&self, template: &Template) -> Result<(), TemplateError> {
        let name = template.directory.file_name().and_then(|name| name.to_str());
        name.and_then(TemplateKey::parse).map_or(Ok(()), |key| self.remove(&key))
    }

    /// Removes the least recently used templates until the rest, with `key` among it, keeps to the
    /// quota.
    fn trim(&self, key: &TemplateKey) -> Result<(), TemplateError> {
        let all = self.list()?;
        let mut sum: u64 = all.iter().map(|template| template.bytes.0).sum();
        for template in all.iter().filter(|template| template.key != *key) {
            if sum <= self.quota.0 {
                break;
            }
            tracing::info!(label = template.facts.label, key = %template.key, "template removed: quota");
            self.remove(&template.key)?;
            sum -= template.bytes.0;
        }
        Ok(())
    }
}

impl Making {
    /// Where the files of the frozen guest belong.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.work.path()
    }

    /// The files of the frozen guest as a template, for a clone that shows whether it is one.
    ///
    /// # Errors
    /// A file is missing.
    pub fn on_trial(&self, mut facts: Facts) -> Result<Template, TemplateError> {
        facts.files.clear();
        for name in [MEMORY, DEVICE, DISK] {
            let path = self.work.path().join(name);
            // Nobody may change what clones share.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o444))
                .map_err(HostError::io("set the mode of", &path))?;
            let file = fs::metadata(&path).map_err(HostError::io("look at", &path))?;
            facts.files.push((name.to_owned(), file.len()));
        }
        Ok(Template { directory: self.work.path().to_owned(), facts })
    }

    /// Makes it a template, in one step, and removes others for which there is no room then.
    ///
    /// # Errors
    /// The store cannot be written; nothing was made then.
    pub fn publish(self, template: &Template) -> Result<Arc<Template>, TemplateError> {
        let path = template.directory.join(FACTS);
        let text = serde_json::to_vec_pretty(&template.facts).expect("facts have a JSON form");
        fs::write(&path, text).map_err(HostError::io("write", &path))?;
        touch(&template.directory.join(USED))?;
        for name in [MEMORY, DEVICE, DISK, FACTS] {
            let path = template.directory.join(name);
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(HostError::io("write", &path))?;
        }
        let ready = self.store.ready(&self.key);
        // One that was damaged may stand there.
        self.store.remove(&self.key)?;
        fs::rename(self.work.path(), &ready).map_err(HostError::io("create", &ready))?;
        self.store.trim(&self.key)?;
        Ok(Arc::new(Template { directory: ready, facts: template.facts.clone() }))
    }
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

fn touch(path: &Path) -> Result<(), TemplateError> {
    let touched = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .and_then(|file| file.set_modified(SystemTime::now()));
    touched.map_err(|error| HostError::io("touch", path)(error).into())
}
