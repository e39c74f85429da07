//! Templates: the first machine of a shape is booted, frozen and kept, and all others are clones of
//! it.
//!
//! Nothing here ends a job. Whatever fails is one line in its log, and the machine boots.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::infrastructure::Infrastructure;
use common::size::ByteSize;
use common::time::Timestamp;
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use vm_manager::host::{HostError, Instance, Promise};
use vm_manager::image::{Image, Preparation, Progress, Templating};
use vm_manager::machine::qmp::QmpError;
use vm_manager::machine::{
    Ended, Machine, MachineError, MachineSpec, Origin, Privileges, Restored,
};
use vm_manager::ssh::{Guest, SshError};
use vm_manager::template::{
    Facts, Making, StoreSettings, Template, TemplateError, TemplateKey, TemplateStore,
};

use crate::placing;

/// The host name of a guest that is to be frozen; no clone keeps it.
const MOULD: &str = "solstice-template";
/// The host name of the clone that shows whether a template is one.
const TRIAL: &str = "solstice-trial";
/// How long the guest program's upload, the freezing and the trial may take together, beside a boot.
const MAKING: Duration = Duration::from_secs(10 * 60);
/// So many clones in a row whose QEMU was ended make a template one that cannot be used.
const FAILED_CLONES: u32 = 3;
/// How long the SSH server of a clone, which is a machine of its own already, may take to answer.
const CLONE_ANSWER: Duration = Duration::from_secs(60);

/// Where templates are, and how much of the disk they may have.
#[derive(Clone, Debug)]
pub struct TemplateSettings {
    /// Their directory.
    pub directory: PathBuf,
    /// What they may have of the disk together.
    pub quota: ByteSize,
}

/// Why there is no template, or no clone of it.
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
    #[error("making it did not end within {} s", .0.as_secs())]
    Late(Duration),
    #[error("the last try, a short while ago, failed: {0}")]
    Before(String),
}

impl NoTemplate {
    /// Whether somebody or something ended QEMU, which says nothing about the next time.
    fn is_a_kill(&self) -> bool {
        let Self::Machine(error) = self else { return false };
        match error {
            MachineError::BootEnded { ended, .. } => matches!(ended, Ended::QemuGone { .. }),
            MachineError::Qmp(error) => matches!(error, QmpError::Closed { .. }),
            MachineError::Template(error) => {
                matches!(**error, TemplateError::Qmp(QmpError::Closed { .. }))
            }
            _ => false,
        }
    }

    /// Whether the host is to blame, which could not run another template either.
    fn is_of_the_host(&self) -> bool {
        matches!(self, Self::Host(_) | Self::Machine(MachineError::Host(_)))
    }
}

impl From<Infrastructure> for NoTemplate {
    fn from(cause: Infrastructure) -> Self {
        Self::Placing(cause)
    }
}

/// A machine that answers, and the first connection into it.
pub(crate) struct Ready {
    pub(crate) machine: Machine,
    pub(crate) guest: Guest,
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

/// The templates of this host, for machines of one shape.
pub(crate) struct Templates<'a> {
    shape: &'a Shape<'a>,
    templating: &'a Templating,
    store: TemplateStore,
    /// That of the image alone.
    plain: TemplateKey,
    /// That of the image after the label's preparation, if it has one.
    prepared: Option<(TemplateKey, &'a Preparation)>,
}

/// What a template begins with.
#[derive(Clone)]
enum Begin<'a> {
    /// The image boots.
    Image,
    /// Another template goes on, and is prepared.
    Template(Arc<Template>, &'a Preparation),
}

impl Shape<'_> {
    pub(crate) fn spec(&self, hostname: &str, origin: Origin, promise: Promise) -> MachineSpec {
        MachineSpec {
            image: Arc::clone(self.image),
            cpus: self.cpus,
            memory: self.memory,
            hostname: hostname.to_owned(),
            privileges: Privileges::default(),
            promise: Some(promise),
            origin,
            adoptable: false,
        }
    }
}

/// What hears of the work on a template.
pub(crate) type Tell<'a> = &'a (dyn Fn(&'static str) + Sync);

impl<'a> Templates<'a> {
    /// The templates for machines of a shape; none where the image has no way to them.
    ///
    /// # Errors
    /// The store, QEMU or the guest program cannot be used.
    pub(crate) async fn of(
        shape: &'a Shape<'a>,
        settings: &TemplateSettings,
    ) -> Result<Option<Self>, NoTemplate> {
        let Some(templating) = &shape.image.entry.template else { return Ok(None) };
        let reserve = shape.instance.settings().disk_reserve;
        let limits = StoreSettings { quota: settings.quota, reserve };
        let store = TemplateStore::open(&settings.directory, limits)?;
        let program = digest_of(shape.program).await?;
        let size = (shape.cpus, shape.memory);
        let key = async |script: &str| {
            TemplateKey::of(shape.instance, shape.image, size, &program, script).await
        };
        let prepared = match &shape.image.entry.prepare {
            Some(preparation) => Some((key(&preparation.script).await?, preparation)),
            None => None,
        };
        Ok(Some(Self { shape, templating, store, plain: key("").await?, prepared }))
    }

    /// The name of the template that jobs start from.
    pub(crate) fn key(&self) -> &TemplateKey {
        self.prepared.as_ref().map_or(&self.plain, |(key, _)| key)
    }

    /// The template, if it is there.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn find(&self) -> Result<Option<Arc<Template>>, NoTemplate> {
        Ok(self.store.find(self.key())?)
    }

    /// Why it could not be made a short while ago, if so.
    pub(crate) fn failure(&self) -> Option<NoTemplate> {
        self.store.failure(self.key()).map(NoTemplate::Before)
    }

    /// Lets it be tried again.
    pub(crate) fn forget_failure(&self) {
        self.store.forget_failure(self.key());
    }

    /// The template, made unless somebody else makes it, with the room of a machine that starts from
    /// it afterwards. The room is lost where this fails.
    ///
    /// # Errors
    /// There is none, and none could be made.
    pub(crate) async fn make(
        &self,
        promise: Promise,
        tell: Tell<'_>,
    ) -> Result<(Arc<Template>, Promise), NoTemplate> {
        let (plain, promise) = match self.store.find(&self.plain)? {
            Some(template) => (template, promise),
            None => self.ensure(&self.plain, Begin::Image, promise, tell).await?,
        };
        let Some((key, preparation)) = &self.prepared else { return Ok((plain, promise)) };
        self.ensure(key, Begin::Template(plain, preparation), promise, tell).await
    }

    async fn ensure(
        &self,
        key: &TemplateKey,
        begin: Begin<'_>,
        promise: Promise,
        tell: Tell<'_>,
    ) -> Result<(Arc<Template>, Promise), NoTemplate> {
        let progress = |step: Progress| {
            if matches!(step, Progress::Waiting) {
                tell("Waiting for a template that somebody else makes.");
            }
        };
        let (work, news) = match &begin {
            Begin::Image => (
                self.shape.image.entry.boot_ceiling,
                "Making a template, from which later machines start at once.",
            ),
            Begin::Template(_, preparation) => {
                (preparation.deadline, "Preparing a template, from which later machines start.")
            }
        };
        let deadline = work + MAKING;
        let made = async {
            let making = self.store.make(key, self.shape.memory, deadline, &progress).await?;
            // Whoever had the right before may have made it, or failed.
            if let Some(template) = self.store.find(key)? {
                return Ok((template, promise));
            }
            if let Some(reason) = self.store.failure(key) {
                return Err(NoTemplate::Before(reason));
            }
            tell(news);
            let made = timeout(deadline, self.make_anew(making, begin, promise)).await;
            made.unwrap_or(Err(NoTemplate::Late(deadline)))
        };
        let made = made.await;
        // Whoever asks for the prepared one shall not try the plain one again.
        match &made {
            Err(NoTemplate::Before(_)) | Ok(_) => {}
            Err(error) if error.is_a_kill() => {}
            Err(error) => self.store.note_failure(self.key(), &error.to_string()),
        }
        made
    }

    async fn make_anew(
        &self,
        making: Making,
        begin: Begin<'_>,
        promise: Promise,
    ) -> Result<(Arc<Template>, Promise), NoTemplate> {
        let Shape { instance, image, cpus, memory, program } = *self.shape;
        let directory = making.directory().to_owned();
        let base = match &begin {
            Begin::Image => None,
            Begin::Template(base, _) => Some(Arc::clone(base)),
        };
        if let Some(base) = &base {
            making.copy(base, instance.settings()).await?;
        }
        let origin = Origin::Mould { directory: directory.clone(), base };
        let mould = Machine::start(instance, self.shape.spec(MOULD, origin, promise)).await?;
        let login_key = mould.keys().login_public_line();
        let guest = mould.wait_ready(image.entry.boot_ceiling).await?;
        match begin {
            Begin::Image => placing::program(&guest, program).await?,
            Begin::Template(_, preparation) => placing::prepare(&guest, preparation).await?,
        }
        let port = mould.port().await?;
        placing::listen(&guest, self.templating).await?;
        port.greeted().await?;
        guest.close().await;
        drop(guest);
        let promise = mould.freeze(&directory).await?;
        let template = Arc::new(making.on_trial(Facts {
            label: image.entry.label.clone(),
            image: image.digest.clone(),
            cpus,
            memory,
            made: Timestamp::now(),
            login_key,
            files: Vec::new(),
        })?);
        // A clone that can be logged in to by its own key and not by the template's shows that the
        // template is one.
        let origin = Origin::Clone(Arc::clone(&template));
        let clone = Restored::new(instance, self.shape.spec(TRIAL, origin, promise)).await?;
        let Ready { machine, guest } = go_on(clone, TRIAL).await?;
        guest.close().await;
        drop(guest);
        let promise = machine.destroy_for_another().await?;
        Ok((making.publish(&template).await?, promise))
    }

    /// Notes that no good clone came of a template. It is removed, so that the next job makes another;
    /// where the clone's QEMU was ended, only after some times in a row.
    pub(crate) fn note_failed_clone(&self, template: &Template, error: &NoTemplate) {
        if error.is_of_the_host() {
            return;
        }
        if error.is_a_kill() && template.note_failed_clone() < FAILED_CLONES {
            return;
        }
        if let Err(error) = self.store.discard(template) {
            tracing::warn!(%error, "cannot remove a template of which no good clone came");
        }
    }
}

/// Lets a clone go on: it is a machine of its own then, and lets us in and its template not.
pub(crate) async fn go_on(clone: Restored, hostname: &str) -> Result<Ready, NoTemplate> {
    let machine = clone.become_own(hostname).await?;
    match machine.login_to_clone(CLONE_ANSWER).await {
        Ok(guest) => Ok(Ready { machine, guest }),
        Err(error) => {
            machine.destroy().await;
            Err(error.into())
        }
    }
}

async fn digest_of(program: &Path) -> Result<String, NoTemplate> {
    let read = tokio::fs::read(program).await;
    let bytes = read.map_err(|reason| NoTemplate::Program { path: program.to_owned(), reason })?;
    Ok(hex::encode(Sha256::digest(&bytes)))
}
