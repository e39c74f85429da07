//! Templates: the first machine of a shape is booted, frozen and kept, and all others are clones of
//! it.
//!
//! Nothing here ends a job. Whatever fails is one line in its log, and the machine boots.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::infrastructure::Infrastructure;
use common::size::ByteSize;
use common::time::Timestamp;
use sha2::{Digest, Sha256};
use vm_manager::host::{HostError, Instance};
use vm_manager::image::{Image, Progress};
use vm_manager::machine::{Machine, MachineError, MachineSpec, Origin, Privileges};
use vm_manager::ssh::SshError;
use vm_manager::template::{Facts, Making, Template, TemplateError, TemplateKey, TemplateStore};

use crate::placing;

/// The host name of a guest that is to be frozen; no clone keeps it.
const MOULD: &str = "solstice-template";
/// The host name of the clone that shows whether a template is one.
const TRIAL: &str = "solstice-trial";

/// Where templates are, and how much of the disk they may have.
#[derive(Clone, Debug)]
pub struct TemplateSettings {
    /// Their directory.
    pub directory: PathBuf,
    /// What they may have of the disk together.
    pub quota: ByteSize,
}

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoTemplate {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Ssh(#[from] SshError),
    #[error("{}", .0.message)]
    Placing(Infrastructure),
    #[error("cannot read the guest program {}: {reason}", path.display())]
    Program { path: PathBuf, reason: std::io::Error },
}

impl NoTemplate {
    /// Whether the files of the template are to blame, and no other would do better with them.
    pub(crate) fn is_of_the_template(&self) -> bool {
        let Self::Machine(MachineError::Template(error)) = self else { return false };
        matches!(**error, TemplateError::Migration { .. })
    }
}

impl From<Infrastructure> for NoTemplate {
    fn from(cause: Infrastructure) -> Self {
        Self::Placing(cause)
    }
}

/// What machines start from the same template.
pub(crate) struct Shape<'a> {
    pub(crate) instance: &'a Arc<Instance>,
    pub(crate) image: &'a Arc<Image>,
    pub(crate) cpus: u32,
    pub(crate) memory: ByteSize,
    /// The guest program for it.
    pub(crate) program: &'a Path,
}

impl Shape<'_> {
    /// The template for machines of this shape. Whoever needs it first makes it, and says so;
    /// everybody else waits for that.
    ///
    /// # Errors
    /// There is none, and none could be made.
    pub(crate) async fn template(
        &self,
        settings: &TemplateSettings,
        tell: &(dyn Fn(&'static str) + Sync),
    ) -> Result<Arc<Template>, NoTemplate> {
        let store = TemplateStore::open(&settings.directory, settings.quota)?;
        let shape = (self.cpus, self.memory);
        let program = digest_of(self.program).await?;
        let key = TemplateKey::of(self.instance, self.image, shape, &program).await?;
        if let Some(template) = found(&store, &key)? {
            return Ok(template);
        }
        let progress = |step: Progress| {
            if matches!(step, Progress::Waiting) {
                tell("Waiting for a template that somebody else makes.");
            }
        };
        let making = store.make(&key, &self.image.entry.label, &progress).await?;
        if let Some(template) = found(&store, &key)? {
            return Ok(template); // whoever held the lock made it
        }
        tell("Making a template, from which later machines start at once.");
        self.make(making).await
    }

    pub(crate) fn spec(&self, hostname: &str, origin: Origin) -> MachineSpec {
        MachineSpec {
            image: Arc::clone(self.image),
            cpus: self.cpus,
            memory: self.memory,
            hostname: hostname.to_owned(),
            privileges: Privileges::default(),
            promise: None,
            origin,
            adoptable: false,
        }
    }

    async fn make(&self, making: Making) -> Result<Arc<Template>, NoTemplate> {
        let entry = &self.image.entry;
        let templating = entry
            .template
            .as_ref()
            .ok_or_else(|| TemplateError::Unsupported { label: entry.label.clone() })?;
        let directory = making.directory().to_owned();
        let promise = self.instance.wait_for_room(self.memory, self.cpus).await?;
        let spec = self.spec(MOULD, Origin::Mould(directory.clone()));
        let mould =
            Machine::start(self.instance, MachineSpec { promise: Some(promise), ..spec }).await?;
        let login_key = mould.keys().login_public_line();
        let guest = mould.wait_ready(entry.boot_ceiling).await?;
        placing::program(&guest, self.program).await?;
        let port = mould.port().await?;
        placing::listen(&guest, &templating.port).await?;
        port.greeted().await?;
        guest.close().await;
        drop(guest);
        mould.freeze(&directory).await?;
        let template = making.on_trial(Facts {
            label: entry.label.clone(),
            image: self.image.digest.clone(),
            cpus: self.cpus,
            memory: self.memory,
            made: Timestamp::now(),
            login_key,
            files: Vec::new(),
        })?;
        self.try_out(&template).await?;
        Ok(making.publish(&template)?)
    }

    /// A clone that can be logged in to by its own key and not by the template's shows that the
    /// template is one.
    async fn try_out(&self, template: &Template) -> Result<(), NoTemplate> {
        let clone = self.clone_of(Arc::new(template.clone()), TRIAL).await?;
        let guest = clone.wait_ready(self.image.entry.boot_ceiling).await?;
        guest.close().await;
        drop(guest);
        clone.destroy().await;
        Ok(())
    }

    /// A machine that is a clone, and a machine of its own.
    async fn clone_of(
        &self,
        template: Arc<Template>,
        hostname: &str,
    ) -> Result<Machine, NoTemplate> {
        let promise = self.instance.wait_for_room(self.memory, self.cpus).await?;
        let spec = self.spec(hostname, Origin::Clone(template));
        self.start(MachineSpec { promise: Some(promise), ..spec }).await
    }

    /// Starts a machine; a clone is a machine of its own then.
    pub(crate) async fn start(&self, spec: MachineSpec) -> Result<Machine, NoTemplate> {
        let is_clone = matches!(spec.origin, Origin::Clone(_));
        let hostname = spec.hostname.clone();
        let machine = Machine::start(self.instance, spec).await?;
        let Some(template) = self.image.entry.template.as_ref().filter(|_| is_clone) else {
            return Ok(machine);
        };
        match machine.personalise(&hostname, template.script).await {
            Ok(_) => Ok(machine),
            Err(error) => {
                machine.destroy().await;
                Err(error.into())
            }
        }
    }
}

/// The template of a name; one that is damaged is removed, as if it were not there.
fn found(store: &TemplateStore, key: &TemplateKey) -> Result<Option<Arc<Template>>, TemplateError> {
    match store.find(key) {
        Err(error @ TemplateError::Damaged { .. }) => {
            tracing::warn!(%key, %error, "a damaged template is removed");
            store.remove(key)?;
            Ok(None)
        }
        other => other,
    }
}

async fn digest_of(program: &Path) -> Result<String, NoTemplate> {
    let read = tokio::fs::read(program).await;
    let bytes = read.map_err(|reason| NoTemplate::Program { path: program.to_owned(), reason })?;
    Ok(hex::encode(Sha256::digest(&bytes)))
}
