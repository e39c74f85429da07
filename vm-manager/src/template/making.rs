//! A template that is being made.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;

use super::files::{BASE, DEVICE, DISK, MEMORY};
use super::store::{FACTS, USED, touch};
use super::{Facts, Template, TemplateError, TemplateKey, TemplateStore};
use crate::host::{HostError, HostSettings};
use crate::image::{ImageLock, WorkDirectory};

/// How long the copy of a guest's memory may take: a gibibyte takes a second.
const COPY: Duration = Duration::from_secs(10 * 60);

/// A template that is being made. Dropping it removes what was made so far.
pub struct Making {
    key: TemplateKey,
    store: TemplateStore,
    work: WorkDirectory,
    _lock: ImageLock,
}

impl Making {
    pub(super) fn new(
        key: TemplateKey,
        store: TemplateStore,
        work: WorkDirectory,
        lock: ImageLock,
    ) -> Self {
        Self { key, store, work, _lock: lock }
    }

    /// Where the files of the frozen guest belong.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.work.path()
    }

    /// Copies a template that this one goes on from. Its disk is shared with it, and stays when that
    /// template is removed.
    ///
    /// # Errors
    /// The copy fails.
    pub async fn copy(&self, base: &Template, host: &HostSettings) -> Result<(), TemplateError> {
        let disk = self.directory().join(BASE);
        fs::hard_link(base.disk(), &disk).map_err(HostError::io("create", &disk))?;
        let below = base.directory().join(BASE);
        if below.exists() {
            let reason = "it goes on from another one".to_owned();
            return Err(TemplateError::Damaged { path: below, reason });
        }
        // It leaves out what is empty, so that the copy is no larger than the template.
        let memory = self.directory().join(MEMORY);
        let mut command = Command::new(&host.qemu_img);
        command
            .args(["convert", "-q", "-f", "raw", "-O", "raw"])
            .args([&base.memory(), &memory])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let what = "copying a guest's memory";
        let output = tokio::time::timeout(COPY, command.output())
            .await
            .map_err(|_| TemplateError::Timeout { what, deadline: COPY })?
            .map_err(HostError::io("run", &host.qemu_img))?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(TemplateError::Damaged { path: memory, reason });
        }
        Ok(())
    }

    /// The files of the frozen guest as a template, for a clone that shows whether it is one.
    ///
    /// # Errors
    /// A file is missing.
    pub fn on_trial(&self, mut facts: Facts) -> Result<Template, TemplateError> {
        facts.files.clear();
        for name in [MEMORY, DEVICE, DISK, BASE] {
            let path = self.directory().join(name);
            if name == BASE && !path.exists() {
                continue;
            }
            // Nobody may change what clones share.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o444))
                .map_err(HostError::io("set the mode of", &path))?;
            let file = fs::metadata(&path).map_err(HostError::io("look at", &path))?;
            facts.files.push((name.to_owned(), file.len()));
        }
        Ok(Template::new(self.directory().to_owned(), facts))
    }

    /// Makes it a template, in one step, and removes others for which there is no room then.
    ///
    /// # Errors
    /// The store cannot be written; nothing was made then.
    pub async fn publish(self, template: &Template) -> Result<Arc<Template>, TemplateError> {
        let facts = template.facts().clone();
        let published = tokio::task::spawn_blocking(move || self.rename(facts)).await;
        published.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    fn rename(self, facts: Facts) -> Result<Arc<Template>, TemplateError> {
        let directory = self.directory();
        let path = directory.join(FACTS);
        let text = serde_json::to_vec_pretty(&facts).expect("facts have a JSON form");
        fs::write(&path, text).map_err(HostError::io("write", &path))?;
        touch(&directory.join(USED))?;
        for name in [MEMORY, DEVICE, DISK, FACTS] {
            let path = directory.join(name);
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(HostError::io("write", &path))?;
        }
        let ready = self.store.ready(&self.key);
        // One that was damaged may stand there.
        self.store.remove(&self.key)?;
        fs::rename(directory, &ready).map_err(HostError::io("create", &ready))?;
        // Another time it could be made after all.
        self.store.forget_failure(&self.key);
        self.store.keep_to_quota(&self.key);
        Ok(Arc::new(Template::new(ready, facts)))
    }
}
