//! The machines of one orchestrator: its instance, its images, and the way of a job's machine from
//! nothing to a guest that is ready for its job.

mod making;
mod prefetch;
mod starting;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::event::Phase;
use common::guest::NativeCommits;
use common::ids::{InstanceId, VmId};
use common::infrastructure::{Cause, Infrastructure};
use common::request::JobRequest;
use common::size::ByteSize;
use common::time::Timestamp;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use vm_manager::frozen::{self, FrozenStore};
use vm_manager::host::watchdog::{self, Watchdog};
use vm_manager::host::{HostError, HostSettings, Instance, Need, sweep_dead};
use vm_manager::image::{
    Catalogue, CatalogueError, Entry, Image, ImageError, ImageStore, Progress, StoreSettings,
    UnknownLabel,
};
use vm_manager::machine::Machine;
use vm_manager::ssh::Guest;

use crate::cache::{CacheSettings, CacheStore};
use crate::calls::{JobServices, Keepers};
use crate::events::{EventLog, ReceiverGone};
use crate::fetch::{self, ActionStore, FetchSettings, TreeStore};
use crate::freezing::Keys;
use crate::job::{AFTER_LIMIT, TryError};
use crate::record::Recorder;
use crate::templates::{Shape, Tell, TemplateSettings, Templates};
use crate::{placing, program};
use making::MakingNews;
pub(crate) use starting::Started;
use starting::Starting;

/// How long the watchdog may take to see that its instance is closed.
const WATCHDOG_END: Duration = Duration::from_secs(5);

/// Steps of making an image that may wait for the receiver of the events.
const WAITING_PROGRESS: usize = 1000;

/// How often the machines are looked after.
const UPKEEP: Duration = Duration::from_secs(5);

/// What an orchestrator needs to know about its host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directories and programs.
    pub host: HostSettings,
    /// Where images are kept.
    pub images: PathBuf,
    /// Where the guest programs are looked for, in order.
    pub guest_programs: Vec<PathBuf>,
    /// Where templates are; absent means that every machine boots.
    pub templates: Option<TemplateSettings>,
    /// Where what jobs need comes from, and where it is kept.
    pub fetch: FetchSettings,
    /// Where caches are kept, and how much of them.
    pub caches: CacheSettings,
    /// Where the artifacts of runs are that have no forge, each run in a directory of its own.
    pub artifacts: PathBuf,
    /// When the guest program stands for an action whose version is a commit.
    pub native_commits: NativeCommits,
    /// A file of further images.
    pub catalogue: Option<PathBuf>,
    /// The program and arguments of the watchdog; the instance's id is added behind them. Absent
    /// means that nobody cleans up after a crash until the next start.
    pub watchdog: Option<(PathBuf, Vec<OsString>)>,
    /// What everything is sealed with that outlives a machine.
    pub keys: Keys,
    /// For how long the machines of failed jobs are kept frozen that do not say it themselves;
    /// absent means not at all.
    pub freeze_failed: Option<Duration>,
    /// For how long machines are borne with that do not do what they should.
    pub patience: Patience,
}

/// For how long machines are borne with. Only tests have less than the default.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long SSH to a guest may fail to come back before its job is given up. A guest that swaps
    /// may not answer for minutes.
    pub ssh_lost: Duration,
    /// How long after its own limit a job is ended that the guest program did not end.
    pub after_limit: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { ssh_lost: Duration::from_secs(10 * 60), after_limit: AFTER_LIMIT }
    }
}

/// The machines of this host: from a request to a guest that is ready for its job.
#[derive(Debug)]
pub(crate) struct Machines {
    settings: Settings,
    catalogue: Catalogue,
    keepers: Keepers,
    /// Present for a service, whose machines outlive it.
    service: Option<InstanceId>,
    /// Made when the first machine is needed.
    claim: Mutex<Option<Claim>>,
    /// Clones whose jobs are being claimed.
    waiting: prefetch::Waiting,
}

/// What this process holds on its host.
#[derive(Debug)]
struct Claim {
    instance: Arc<Instance>,
    watchdog: Option<Watchdog>,
    upkeep: AbortOnDropHandle<()>,
}

impl Machines {
    /// The machines of a process that ends them when it ends. Nothing is written before the first.
    ///
    /// # Errors
    /// The catalogue cannot be read.
    pub(crate) fn of_process(settings: Settings) -> Result<Self, CatalogueError> {
        Self::new(settings, None)
    }

    /// The machines of a service, which a later process with the same id adopts.
    ///
    /// # Errors
    /// The catalogue cannot be read.
    pub(crate) fn of_service(settings: Settings, id: InstanceId) -> Result<Self, CatalogueError> {
        Self::new(settings, Some(id))
    }

    /// What this host does for the guest of a job.
    pub(crate) fn services(&self, request: &JobRequest) -> Arc<JobServices> {
        Arc::new(JobServices::new(request, self.keepers.clone()))
    }

    fn new(settings: Settings, service: Option<InstanceId>) -> Result<Self, CatalogueError> {
        let catalogue = Catalogue::load(settings.catalogue.as_deref())?;
        let keepers = Keepers {
            actions: ActionStore::new(settings.fetch.clone()),
            trees: TreeStore::new(settings.fetch.clone()),
            caches: CacheStore::new(settings.caches.clone()),
            artifacts: settings.artifacts.clone(),
        };
        Ok(Self {
            settings,
            catalogue,
            keepers,
            service,
            claim: Mutex::default(),
            waiting: Default::default(),
        })
    }

    /// For how long machines are borne with.
    pub(crate) fn patience(&self) -> Patience {
        self.settings.patience
    }

    /// Everything that can be booted.
    pub(crate) fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// The image that a label names.
    ///
    /// # Errors
    /// There is none; the error names the nearest label.
    pub(crate) fn image(&self, label: &str) -> Result<Arc<Entry>, UnknownLabel> {
        self.catalogue.get(label)
    }

    /// How machines run on this host.
    ///
    /// # Errors
    /// The host's directories or QEMU cannot be used.
    pub(crate) async fn acceleration(&self) -> Result<String, HostError> {
        let instance = self.instance().await?;
        let (_, accelerator) = instance.qemu().await?;
        Ok(accelerator.acceleration.name().to_owned())
    }

    /// The images that are on this host's disk.
    ///
    /// # Errors
    /// The store of images cannot be read.
    pub(crate) fn images(&self) -> Result<ImageStore, ImageError> {
        let reserve = self.settings.host.disk_reserve;
        let settings = StoreSettings { reserve, ..StoreSettings::default() };
        ImageStore::open(&self.settings.images, settings)
    }

    /// Gives the host's resources back. Machines that are kept, or left to be adopted, stay, guarded
    /// by the watchdog.
    pub(crate) async fn shutdown(&self) {
        self.waiting.remove(true).await;
        let claim = self.claim.lock().await.take();
        let Some(Claim { instance, watchdog, upkeep }) = claim else { return };
        upkeep.abort();
        // Its share of the instance goes with it; an end by abort is no failure.
        drop(upkeep.await);
        // Files are removed and a process is waited for.
        let closed = tokio::task::spawn_blocking(move || match instance.close() {
            Ok(true) => watchdog.map(|watchdog| watchdog.finish(WATCHDOG_END)),
            Ok(false) => None,
            Err(error) => {
                tracing::warn!(%error, "cannot close the instance");
                None
            }
        });
        if let Ok(Some(false)) = closed.await {
            tracing::warn!("the watchdog did not end with its instance");
        }
    }

    /// The way of a job's machine up to its start, and what it is started from.
    pub(crate) async fn prepare(
        &self,
        request: &JobRequest,
        record: &Recorder,
        log: &mut EventLog,
    ) -> Result<Started, TryError> {
        let envelope = &request.envelope;
        let entry = self
            .image(&envelope.label)
            .map_err(|error| Infrastructure::new(Cause::ImageUnknown, error.to_string()))?;
        let begun = Instant::now();
        let image = Arc::new(self.fetch_image(&entry, log).await?);
        record.phase_took(Phase::Image, begun.elapsed());
        let instance = self.instance().await.map_err(|error| host_failure(&error))?;
        let program =
            program::find(&self.settings.guest_programs, &entry.runner_os, &entry.runner_arch)?;
        let shape = Shape {
            instance: &instance,
            image: &image,
            cpus: envelope.size.cpus.unwrap_or(entry.cpus),
            memory: envelope.size.memory.unwrap_or(entry.memory),
            program: &program,
        };
        let starting = Starting { request, record, shape: &shape, waiting: &self.waiting };
        let (machine, guest) = starting.start(self.settings.templates.as_ref(), log).await?;
        let accelerator = machine.accelerator();
        let name = accelerator.acceleration.name();
        log.notice(&match &accelerator.reason {
            Some(reason) => format!("Running under {name}, which is slow: {reason}"),
            None => format!("Running under {name}."),
        })
        .await?;
        Ok(Started { machine, image, guest })
    }

    /// Makes the template for machines of an image's own size, unless it is there.
    pub(crate) async fn warm(&self, image: Arc<Image>, tell: Tell<'_>) -> Result<(), String> {
        let Some(settings) = &self.settings.templates else {
            return Err("there are no templates; give them a `template_quota`".to_owned());
        };
        let entry = &image.entry;
        let programs = &self.settings.guest_programs;
        let program = program::find(programs, &entry.runner_os, &entry.runner_arch)
            .map_err(|cause| cause.message)?;
        let instance = self.instance().await.map_err(|error| error.to_string())?;
        let (cpus, memory) = (entry.cpus, entry.memory);
        let shape = Shape { instance: &instance, image: &image, cpus, memory, program: &program };
        let templates = Templates::of(&shape, settings).await.map_err(|error| error.to_string())?;
        let Some(templates) = templates else {
            let reason = "its entry in the catalogue has no `template`, so its machines boot";
            return Err(reason.to_owned());
        };
        if templates.find().map_err(|error| error.to_string())?.is_some() {
            return Ok(());
        }
        let need = Need::whole(memory, cpus);
        let promise = match instance.reserve(&need) {
            Err(HostError::NoRoom(vm_manager::host::NoRoom::Now { .. })) => {
                tell("Waiting for room.");
                instance.wait_for_room(&need).await
            }
            promise => promise,
        };
        let promise = promise.map_err(|error| error.to_string())?;
        templates.forget_failure();
        templates.make(promise, tell).await.map(drop).map_err(|error| error.to_string())
    }

    /// For how long the machine of a failed job is kept, and whether frozen.
    pub(crate) fn keep(&self, request: &JobRequest) -> Option<(Duration, bool)> {
        let body = &request.body;
        let asked = body.keep.map(|time| (time, body.keep_frozen));
        asked.or(self.settings.freeze_failed.map(|time| (time, true)))
    }

    /// Freezes a machine that is kept.
    ///
    /// # Errors
    /// A sentence about why it cannot be; it runs on.
    pub(crate) async fn freeze(&self, name: &str, until: Timestamp) -> Result<(), String> {
        let cipher = self.settings.keys.cipher().map_err(|error| error.to_string())?;
        let frozen = frozen::freeze(&self.settings.host, name, until, cipher).await;
        frozen.map(drop).map_err(|error| error.to_string())
    }

    /// Takes over a machine that runs since before this process.
    ///
    /// # Errors
    /// A sentence about why it cannot be used; it still runs, or is gone.
    pub(crate) async fn adopt(&self, vm: VmId) -> Result<Machine, String> {
        let instance = self.instance().await.map_err(|error| error.to_string())?;
        Machine::adopt(&instance, vm).await.map_err(|error| error.to_string())
    }

    async fn fetch_image(&self, entry: &Arc<Entry>, log: &mut EventLog) -> Result<Image, TryError> {
        log.phase(Phase::Image, Some(entry.label.clone())).await?;
        let store = self.images().map_err(|error| image_failure(&error))?;
        let (sender, mut progress) = mpsc::channel(WAITING_PROGRESS);
        // Progress that nobody takes in time is dropped.
        let report = move |step: Progress| drop(sender.try_send(step));
        let ensure = store.ensure(entry, &report);
        // Beside the work, which must not wait for a slow receiver of the events.
        let tell = async {
            let mut news = MakingNews::default();
            while let Some(step) = progress.recv().await {
                if let Some(text) = news.line(step, Instant::now()) {
                    log.notice(&text).await?;
                }
            }
            std::future::pending::<Result<(), ReceiverGone>>().await
        };
        tokio::select! {
            image = ensure => Ok(image.map_err(|error| image_failure(&error))?),
            Err(gone) = tell => Err(gone.into()),
        }
    }

    /// Waits until the guest answers, with its console in the log.
    pub(crate) async fn follow_boot(
        &self,
        machine: &Machine,
        ceiling: Duration,
        log: &mut EventLog,
    ) -> Result<(), TryError> {
        follow_boot(machine, ceiling, log).await
    }

    /// Logs in to a machine that has booted.
    pub(crate) async fn login(
        &self,
        machine: &Machine,
        record: &Recorder,
        log: &mut EventLog,
    ) -> Result<Guest, TryError> {
        log.phase(Phase::Ready, None).await?;
        let begun = Instant::now();
        let guest = machine.login().await.map_err(|error| error.infrastructure())?;
        record.phase_took(Phase::Ready, begun.elapsed());
        Ok(guest)
    }

    /// Places the guest program and the tree.
    pub(crate) async fn place(
        &self,
        request: &JobRequest,
        machine: &Machine,
        entry: &Entry,
        guest: &Guest,
        record: &Recorder,
        log: &mut EventLog,
    ) -> Result<(), TryError> {
        let begun = Instant::now();
        // A clone has the program of its template.
        let upload = self.upload(request, entry, guest, machine.is_clone(), log);
        or_ended(machine, upload).await?;
        record.phase_took(Phase::Upload, begun.elapsed());
        Ok(())
    }

    /// Hands the job to the guest program.
    pub(crate) async fn start_job(
        &self,
        request: &JobRequest,
        machine: &Machine,
        entry: &Entry,
        guest: &Guest,
    ) -> Result<(), TryError> {
        let name = machine.name().to_string();
        let start = async {
            Ok(placing::start(guest, entry, &name, (request, self.settings.native_commits)).await?)
        };
        or_ended(machine, start).await
    }

    async fn upload(
        &self,
        request: &JobRequest,
        entry: &Entry,
        guest: &Guest,
        is_clone: bool,
        log: &mut EventLog,
    ) -> Result<(), TryError> {
        log.phase(Phase::Upload, None).await?;
        if !is_clone {
            let programs = &self.settings.guest_programs;
            let program = program::find(programs, &entry.runner_os, &entry.runner_arch)?;
            placing::program(guest, &program).await?;
            if let Some(preparation) = &entry.prepare {
                log.notice("Preparing the machine, as its label asks.").await?;
                placing::prepare(guest, preparation).await?;
            }
        }
        let Some(root) = placing::tree_of(entry, request) else { return Ok(()) };
        let size = placing::tree(guest, root).await?;
        let bytes = ByteSize(size.bytes);
        log.notice(&format!("Placed the working tree: {} files, {bytes}.", size.files)).await?;
        Ok(())
    }

    /// This process's claim on the host.
    ///
    /// # Errors
    /// The directories cannot be used, or another process has the service's.
    pub(crate) async fn instance(&self) -> Result<Arc<Instance>, HostError> {
        let mut claim = self.claim.lock().await;
        if let Some(claim) = claim.as_ref() {
            return Ok(Arc::clone(&claim.instance));
        }
        self.sweep().await;
        let instance = match self.service {
            Some(id) => Instance::open_service(&self.settings.host, id)?,
            None => Instance::create(&self.settings.host)?,
        };
        let watchdog = self.guard(instance.id())?;
        let upkeep = AbortOnDropHandle::new(tokio::spawn(upkeep(Arc::clone(&instance))));
        *claim = Some(Claim { instance: Arc::clone(&instance), watchdog, upkeep });
        Ok(instance)
    }

    /// Removes what dead instances left, and what was being fetched for them, and guards what they
    /// keep.
    async fn sweep(&self) {
        fetch::sweep(&self.settings.fetch).await;
        let host = self.settings.host.clone();
        let swept = tokio::task::spawn_blocking(move || sweep_dead(&host)).await;
        match swept {
            Ok(Ok(report)) => {
                for error in report.errors {
                    tracing::warn!(%error, "cannot remove something that a dead instance left");
                }
                for (instance, _) in report.kept {
                    if let Err(error) = self.guard(instance) {
                        tracing::warn!(instance.id = %instance, %error, "cannot guard a kept machine");
                    }
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot remove what a dead instance left"),
            Err(error) => tracing::warn!(%error, "the sweep of dead instances failed"),
        }
    }

    /// Starts a watchdog for an instance.
    fn guard(&self, instance: InstanceId) -> Result<Option<Watchdog>, HostError> {
        let Some((program, arguments)) = &self.settings.watchdog else { return Ok(None) };
        let mut arguments = arguments.clone();
        arguments.push(instance.to_string().into());
        watchdog::spawn(program, &arguments).map(Some)
    }
}

/// Looks after an instance as long as its owner lives: ends kept machines whose time is over, and
/// whatever contradicts the records. Frozen machines of the host go when their time is over.
async fn upkeep(instance: Arc<Instance>) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        let instance = Arc::clone(&instance);
        let upkeep = tokio::task::spawn_blocking(move || {
            instance.maintain()?;
            FrozenStore::of(instance.settings()).remove_expired()
        });
        if let Ok(Err(error)) = upkeep.await {
            tracing::warn!(%error, "cannot look after the machines; trying again");
        }
    }
}

/// Does something in a guest; the end of its machine explains more than what it breaks.
async fn or_ended<T>(
    machine: &Machine,
    work: impl Future<Output = Result<T, TryError>>,
) -> Result<T, TryError> {
    let mut ended = machine.ended();
    let end = tokio::select! {
        done = work => return done,
        end = async { ended.wait_for(Option::is_some).await.map(|end| end.clone()) } => end,
    };
    Err(match end.ok().flatten() {
        Some(end) => machine.failure(&end).into(),
        None => Infrastructure::new(Cause::Internal, "nobody watches the machine").into(),
    })
}

/// Waits until the guest answers, with its console in the log.
async fn follow_boot(
    machine: &Machine,
    ceiling: Duration,
    log: &mut EventLog,
) -> Result<(), TryError> {
    let mut console = machine.console().lines();
    // Beside the waiting, which must not wait for a slow receiver of the events.
    let forward = async {
        while let Some(line) = console.next().await {
            log.console(&line).await?;
        }
        std::future::pending::<Result<(), ReceiverGone>>().await
    };
    tokio::select! {
        answer = machine.wait_answer(ceiling) => Ok(answer.map_err(|error| error.infrastructure())?),
        Err(gone) = forward => Err(gone.into()),
    }
}

fn image_failure(error: &ImageError) -> Infrastructure {
    Infrastructure::new(error.cause(), error.to_string())
}

fn host_failure(error: &HostError) -> Infrastructure {
    Infrastructure::new(error.cause(), error.to_string())
}
