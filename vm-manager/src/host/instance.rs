//! One process's claim on this host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::ids::{InstanceId, VmId};
use common::size::ByteSize;
use common::time::Timestamp;
use tokio::sync::OnceCell;

use super::files::{remove_directory, remove_empty_directory};
use super::grace::{SERVICE_GRACE, grace_left, stamp};
use super::ledger::Claim;
use super::lock::Lock;
use super::reconcile::{Pass, Reach, pass};
use super::service::is_service;
use super::{
    Accelerator, HostError, HostSettings, Ledger, Need, ProcessIdentity, Promise, Qemu, Share,
    create_private_directory,
};

/// One process's claim on this host: directories that it alone writes to while it holds their lock.
///
/// Dropping the last reference removes the directories if no machine is left in them.
#[derive(Debug)]
pub struct Instance {
    id: InstanceId,
    settings: HostSettings,
    /// Held for as long as the instance lives.
    _lock: Lock,
    machines: Mutex<Machines>,
    /// Whether this process is the service whose instance it is.
    serves: bool,
    qemu: OnceCell<(Qemu, Accelerator)>,
}

/// To whom the machines of an instance belong, as far as this process knows.
#[derive(Debug, Default)]
struct Machines {
    /// Machines with a live owner in this process.
    owned: BTreeSet<VmId>,
    /// Machines that may still be adopted, and until when they are left alone for that.
    expected: BTreeMap<VmId, Instant>,
}

impl Instance {
    /// Makes a new instance.
    ///
    /// # Errors
    ///
    /// When the directories cannot be made, or the runtime directory's path is too long for sockets.
    pub fn create(settings: &HostSettings) -> Result<Arc<Self>, HostError> {
        let settings = &absolute(settings)?;
        settings.check_socket_paths()?;
        settings.make_directories()?;
        settings.warn_of_disk();
        let id = InstanceId::new();
        create_private_directory(&settings.instance_state(id))?;
        let result = Lock::create(&settings.instance_lock(id)).and_then(|lock| {
            create_private_directory(&settings.instance_runtime(id))?;
            Ok(Self::new(id, settings, lock, false))
        });
        if result.is_err() {
            // The first error is the one to report.
            drop(remove_directory(&settings.instance_state(id)));
        }
        result.map(Arc::new)
    }

    /// `serves`: whether this process is the service whose instance it is.
    pub(super) fn new(id: InstanceId, settings: &HostSettings, lock: Lock, serves: bool) -> Self {
        Self {
            id,
            settings: settings.clone(),
            _lock: lock,
            machines: Mutex::default(),
            serves,
            qemu: OnceCell::new(),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> InstanceId {
        self.id
    }

    /// The settings that it was made with.
    #[must_use]
    pub fn settings(&self) -> &HostSettings {
        &self.settings
    }

    /// The QEMU of this host and how it runs guests; found out once.
    ///
    /// # Errors
    ///
    /// When there is no usable QEMU or the probe cannot use its files.
    pub async fn qemu(&self) -> Result<&(Qemu, Accelerator), HostError> {
        let find = || async {
            let qemu = Qemu::find(&self.settings.qemu).await?;
            let accelerator = Accelerator::probe(&self.settings, &qemu).await?;
            Ok((qemu, accelerator))
        };
        self.qemu.get_or_try_init(find).await
    }

    /// Promises room to one machine, if there is some now.
    ///
    /// # Errors
    ///
    /// [`HostError::NoRoom`], or the ledger cannot be used.
    pub fn reserve(&self, need: &Need) -> Result<Promise, HostError> {
        Ledger::new(&self.settings).reserve(&self.claim(need))
    }

    /// Promises room to one machine as soon as there is some. Waits without a limit: the caller has
    /// the job's deadline.
    ///
    /// # Errors
    ///
    /// At once when the host could never give that much, or when the ledger cannot be used.
    pub async fn wait_for_room(&self, need: &Need) -> Result<Promise, HostError> {
        Ledger::new(&self.settings).wait_for_room(&self.claim(need)).await
    }

    /// What this instance's machines may use together beside everything else on this host. Kept
    /// machines count as somebody else's. Blocks.
    ///
    /// # Errors
    ///
    /// When the ledger or `/proc/meminfo` cannot be used.
    pub fn share(&self) -> Result<Share, HostError> {
        let ours = |claim: &Claim| {
            claim.instance == self.id && (self.owns(claim.vm) || !self.keeps(claim.vm))
        };
        Ledger::new(&self.settings).share(ours)
    }

    /// How many machines run on this host: those of this instance and of all others with the same
    /// runtime directory, kept ones as well. Blocks.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be used.
    pub fn running(&self) -> Result<usize, HostError> {
        Ledger::new(&self.settings).running()
    }

    /// A new machine's claim to room.
    fn claim(&self, need: &Need) -> Claim {
        let lock = self.settings.instance_lock(self.id);
        let Need { memory, cpus, clone } = need.clone();
        Claim { instance: self.id, vm: VmId::new(), lock, memory, cpus, clone }
    }

    /// Takes the promise to a machine over that runs already, from whoever had it. The room is in
    /// use, so it is not asked whether there is some.
    pub(crate) fn take_over(
        &self,
        vm: VmId,
        memory: ByteSize,
        cpus: u32,
        process: ProcessIdentity,
    ) -> Result<Promise, HostError> {
        let claim = Claim { vm, ..self.claim(&Need::whole(memory, cpus)) };
        Ledger::new(&self.settings).take_over(&claim, process)
    }

    /// Takes the promise to a machine back that has ended.
    pub(crate) fn take_back(&self, vm: VmId) -> Result<(), HostError> {
        Ledger::new(&self.settings).forget(vm)
    }

    /// Brings records and processes together: files without a process are removed, processes with
    /// this instance's id but without a record are ended, and so are machines kept for too long.
    /// Machines that are only without an owner are left, to be adopted; those that a
    /// [service](Instance::open_service) found or left are not touched at all until
    /// [`SERVICE_GRACE`] has passed, and then ended if nobody has adopted them. Blocks.
    ///
    /// # Errors
    ///
    /// The first failure, after everything was tried.
    pub fn reconcile(&self) -> Result<Vec<VmId>, HostError> {
        pass(self, Reach::Contradictions, Timestamp::now())?.into_removed()
    }

    /// What an owner that lives does every few seconds for the machines that it keeps: ends those
    /// whose time is over or was [ended](super::kept::release), gives the memory behind the
    /// consoles of the others back, and does what [`Instance::reconcile`] does. The
    /// [watchdog](super::watchdog) does it once the owner is gone. A service notes that it is there.
    /// Says which machines were removed. Blocks: a moment, or for as long as killed processes take
    /// to go.
    ///
    /// # Errors
    ///
    /// The first failure, after everything was tried; the next call tries again.
    pub fn maintain(&self) -> Result<Vec<VmId>, HostError> {
        let stamped = if self.serves { stamp(&self.settings, self.id) } else { Ok(()) };
        let removed = self.reconcile()?;
        stamped.map(|()| removed)
    }

    /// Ends every machine without an owner, except those that are still kept, and those of a service
    /// that may still come back. Blocks.
    pub(super) fn sweep(&self) -> Result<Pass, HostError> {
        let service = is_service(&self.settings, self.id);
        let left = if service { grace_left(&self.settings, self.id) } else { None };
        let reach = if left.is_some() { Reach::Expired } else { Reach::Abandoned };
        pass(self, reach, Timestamp::now())
    }

    /// Ends every machine of this instance that no live [`Machine`](crate::machine::Machine) of this
    /// process owns, kept ones as well, and removes its files. Blocks.
    ///
    /// # Errors
    ///
    /// The first failure, after everything was tried.
    pub fn destroy_all(&self) -> Result<Vec<VmId>, HostError> {
        pass(self, Reach::All, Timestamp::now())?.into_removed()
    }

    /// Gives the claim back. The directories are removed if no machine is left in them; says whether
    /// they were.
    ///
    /// # Errors
    ///
    /// When they cannot be removed.
    pub fn close(self: Arc<Self>) -> Result<bool, HostError> {
        match Arc::into_inner(self) {
            Some(instance) => instance.remove_if_empty(),
            // A machine holds on to it still; the last reference does it.
            None => Ok(false),
        }
    }

    fn remove_if_empty(&self) -> Result<bool, HostError> {
        let state = self.settings.instance_state(self.id);
        if !remove_empty_directory(&self.settings.instance_machines(self.id))? {
            return Ok(false);
        }
        // A service of the same id may be about to make the directory again.
        let directory = match fs::File::open(&state) {
            Ok(directory) => directory,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(HostError::io("open", &state)(error)),
        };
        directory.lock().map_err(HostError::io("lock", &state))?;
        remove_directory(&self.settings.instance_runtime(self.id))?;
        // The lock file goes last, while its lock is held: whoever waits for it finds that out.
        let lock = self.settings.instance_lock(self.id);
        match fs::remove_file(&lock) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(HostError::io("remove", &lock)(error));
            }
            _ => {}
        }
        remove_directory(&state)?;
        Ok(true)
    }

    /// Whether a live [`Machine`](crate::machine::Machine) of this process is the owner.
    pub(super) fn owns(&self, vm: VmId) -> bool {
        self.known().owned.contains(&vm)
    }

    /// The machines with an owner in this process at this moment.
    pub(super) fn owned_now(&self) -> BTreeSet<VmId> {
        self.known().owned.clone()
    }

    /// From now on and for so long, the machine may be adopted.
    pub(super) fn expect_adoption(&self, vm: VmId, within: Duration) {
        self.known().expected.insert(vm, Instant::now() + within);
    }

    /// The machine was adopted or is gone: nobody has to be waited for.
    pub(crate) fn expect_nobody(&self, vm: VmId) {
        self.known().expected.remove(&vm);
    }

    /// How far a pass over all machines may go with this one.
    pub(super) fn reach_of(&self, vm: VmId, asked: Reach) -> Reach {
        match self.known().expected.get(&vm) {
            _ if asked == Reach::All => Reach::All,
            Some(until) if Instant::now() < *until => Reach::Expired,
            Some(_) => Reach::Abandoned,
            None => asked,
        }
    }

    fn known(&self) -> MutexGuard<'_, Machines> {
        // Both collections are whole at every moment, whoever panicked.
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let result = match self.remove_if_empty() {
            // Until now its owner was there; from now on it is waited for.
            Ok(false) if self.serves => stamp(&self.settings, self.id),
            other => other.map(drop),
        };
        if let Err(error) = result {
            tracing::warn!(instance.id = %self.id, %error, "cannot leave an instance's directories");
        }
    }
}

/// Ownership of one machine: while it lives, passes over the instance leave the machine alone.
#[derive(Debug)]
pub(crate) struct Owned {
    instance: Arc<Instance>,
    vm: VmId,
}

impl Owned {
    /// Owns a machine that is about to be made.
    pub(crate) fn new(instance: &Arc<Instance>, vm: VmId) -> Self {
        instance.known().owned.insert(vm);
        Self { instance: Arc::clone(instance), vm }
    }

    /// Takes a machine that nobody in this process owns; `None` if somebody does.
    pub(crate) fn take(instance: &Arc<Instance>, vm: VmId) -> Option<Self> {
        let taken = instance.known().owned.insert(vm);
        taken.then(|| Self { instance: Arc::clone(instance), vm })
    }

    /// The machine runs on without this owner, for another one.
    pub(crate) fn leave_for_adoption(&self) {
        self.instance.expect_adoption(self.vm, SERVICE_GRACE);
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.instance.known().owned.remove(&self.vm);
    }
}

/// The ids of all instances in the state directory.
pub(super) fn ids(settings: &HostSettings) -> Result<Vec<InstanceId>, HostError> {
    let path = settings.instances();
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(HostError::io("list", &path)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(HostError::io("list", &path))?;
        if let Some(id) = parse_id(entry.file_name().as_ref()) {
            found.push(id);
        }
    }
    found.sort();
    Ok(found)
}

/// The settings with directories that stay right whatever the working directory is: QEMU has one of
/// its own, and the ledger is read by other processes.
pub(super) fn absolute(settings: &HostSettings) -> Result<HostSettings, HostError> {
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(HostError::io("find the working directory for", path))
    };
    Ok(HostSettings {
        state: absolute(&settings.state)?,
        runtime: absolute(&settings.runtime)?,
        ..settings.clone()
    })
}

fn parse_id(name: &Path) -> Option<InstanceId> {
    name.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Record;
    use crate::host::fake::FakeMachine;

    #[test]
    fn an_instance_leaves_nothing_behind() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        let instance = Instance::create(&settings).unwrap();
        let state = settings.instance_state(instance.id());
        assert!(state.exists());
        assert!(Instance::adopt_dead(&settings).unwrap().is_empty(), "its owner lives");
        assert!(instance.close().unwrap());
        assert!(!state.exists());
        assert_eq!(fs::read_dir(&settings.runtime).unwrap().count(), 0);
    }

    #[test]
    fn records_without_a_process_go_with_their_files() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        let instance = Instance::create(&settings).unwrap();
        let (abandoned, owned) = (VmId::new(), VmId::new());
        for vm in [abandoned, owned] {
            let paths = settings.machine(instance.id(), vm);
            create_private_directory(&paths.state).unwrap();
            create_private_directory(&paths.runtime).unwrap();
            Record::new(vm, "tiny").write(&paths.record()).unwrap();
        }
        let guard = Owned::new(&instance, owned);
        assert_eq!(instance.reconcile().unwrap(), [abandoned]);
        assert!(!settings.machine(instance.id(), abandoned).runtime.exists());
        assert!(settings.machine(instance.id(), owned).record().exists());
        drop(guard);
        assert_eq!(instance.destroy_all().unwrap(), [owned]);
        assert!(instance.close().unwrap());
    }

    #[test]
    fn an_owner_that_lives_ends_its_kept_machines_in_time() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        let instance = Instance::create(&settings).unwrap();
        let other = Instance::create(&settings).unwrap();
        let mut fake = FakeMachine::run(&instance);
        fake.keep("r1", Timestamp::from_micros(u64::MAX));
        let vm = fake.vm;
        let console = settings.machine(instance.id(), vm).console();
        fs::write(&console, vec![b'x'; 8 << 20]).unwrap();
        assert_eq!(instance.maintain().unwrap(), []);
        assert_eq!(other.maintain().unwrap(), [], "not its machine");
        let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&console).unwrap());
        assert!(blocks * 512 < 4 << 20, "{blocks} blocks");
        crate::host::kept::release(&settings, "r1").unwrap();
        assert_eq!(other.maintain().unwrap(), [], "not its machine");
        assert_eq!(instance.maintain().unwrap(), [vm]);
        assert!(fake.was_ended());
        assert!(!console.exists());
        assert!(instance.close().unwrap() && other.close().unwrap());
    }

    #[test]
    fn a_runtime_directory_for_which_sockets_have_no_room_is_refused() {
        let directory = crate::host::fake::directory();
        let mut settings = HostSettings::below(directory.path());
        settings.runtime = directory.path().join("x".repeat(80));
        let error = Instance::create(&settings).unwrap_err();
        assert!(error.to_string().contains("set a shorter one"), "{error}");
        assert!(!settings.state.exists());
    }
}
