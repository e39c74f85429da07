//! One process's claim on this host.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use common::ids::{InstanceId, VmId};
use common::size::ByteSize;
use common::time::Timestamp;
use tokio::sync::OnceCell;

use super::files::{remove_directory, remove_empty_directory};
use super::lock::Lock;
use super::reconcile::{Pass, Reach, pass};
use super::{
    Accelerator, HostError, HostSettings, Ledger, Promise, Qemu, create_private_directory,
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
    /// Machines with a live owner in this process.
    owned: Mutex<BTreeSet<VmId>>,
    qemu: OnceCell<(Qemu, Accelerator)>,
}

/// So long after its last change, an instance's directory without a lock file is not one that is
/// being made.
const UNFINISHED: Duration = Duration::from_secs(60);

/// What a sweep over dead instances did and left.
#[derive(Debug, Default)]
pub struct SweepReport {
    /// Machines that were ended or whose files were removed.
    pub removed: Vec<VmId>,
    /// Instances with a machine that is still kept, and until when; each needs a
    /// [watchdog](super::watchdog) again.
    pub kept: Vec<(InstanceId, Timestamp)>,
    /// What could not be looked at or removed; the next sweep tries again.
    pub errors: Vec<HostError>,
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
        let id = InstanceId::new();
        create_private_directory(&settings.instance_state(id))?;
        let result = Lock::create(&settings.instance_lock(id)).and_then(|lock| {
            create_private_directory(&settings.instance_runtime(id))?;
            Ok(Self::new(id, settings, lock))
        });
        if result.is_err() {
            // The first error is the one to report.
            drop(remove_directory(&settings.instance_state(id)));
        }
        result.map(Arc::new)
    }

    /// Takes over every instance whose owner is dead, with what it left behind. One that cannot be
    /// taken is left out; [`sweep_dead`] says why.
    ///
    /// # Errors
    ///
    /// When the directory of all instances cannot be read or is not ours.
    pub fn adopt_dead(settings: &HostSettings) -> Result<Vec<Arc<Self>>, HostError> {
        Ok(Self::dead(settings)?.0)
    }

    /// The instances whose owner is dead, and what failed on the way to further ones.
    fn dead(settings: &HostSettings) -> Result<(Vec<Arc<Self>>, Vec<HostError>), HostError> {
        let settings = &absolute(settings)?;
        settings.check_directories()?;
        let (mut dead, mut errors) = (Vec::new(), Vec::new());
        for id in ids(settings)? {
            let free = Lock::take_free(&settings.instance_lock(id));
            let taken = free.and_then(|lock| match lock {
                None => unfinished(settings, id),
                held => Ok(held),
            });
            match taken {
                Ok(Some(lock)) => dead.push(Arc::new(Self::new(id, settings, lock))),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(instance.id = %id, %error, "cannot look after an instance");
                    errors.push(error);
                }
            }
        }
        Ok((dead, errors))
    }

    /// Waits for the lock of an instance; `None` if its owner removed it.
    pub(super) fn wait_for(
        settings: &HostSettings,
        id: InstanceId,
    ) -> Result<Option<Self>, HostError> {
        let settings = &absolute(settings)?;
        let lock = Lock::wait(&settings.instance_lock(id))?;
        Ok(lock.map(|lock| Self::new(id, settings, lock)))
    }

    fn new(id: InstanceId, settings: &HostSettings, lock: Lock) -> Self {
        Self {
            id,
            settings: settings.clone(),
            _lock: lock,
            owned: Mutex::default(),
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
    pub fn reserve(&self, memory: ByteSize, cpus: u32) -> Result<Promise, HostError> {
        let lock = self.settings.instance_lock(self.id);
        Ledger::new(&self.settings).reserve(self.id, VmId::new(), &lock, memory, cpus)
    }

    /// Promises room to one machine as soon as there is some. Waits without a limit: the caller has
    /// the job's deadline.
    ///
    /// # Errors
    ///
    /// At once when the host could never give that much, or when the ledger cannot be used.
    pub async fn wait_for_room(&self, memory: ByteSize, cpus: u32) -> Result<Promise, HostError> {
        let lock = self.settings.instance_lock(self.id);
        Ledger::new(&self.settings).wait_for_room(self.id, VmId::new(), &lock, memory, cpus).await
    }

    /// Brings records and processes together: files without a process are removed, processes with
    /// this instance's id but without a record are ended, and so are machines kept for too long.
    /// Machines that are only without an owner are left, to be adopted. Blocks.
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
    /// [watchdog](super::watchdog) does it once the owner is gone. Says which machines were removed.
    /// Blocks: a moment, or for as long as killed processes take to go.
    ///
    /// # Errors
    ///
    /// The first failure, after everything was tried; the next call tries again.
    pub fn maintain(&self) -> Result<Vec<VmId>, HostError> {
        self.reconcile()
    }

    /// Ends every machine without an owner, except those that are still kept. Blocks.
    pub(super) fn sweep(&self) -> Result<Pass, HostError> {
        pass(self, Reach::Abandoned, Timestamp::now())
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
        self.owned().contains(&vm)
    }

    /// The machines with an owner in this process at this moment.
    pub(super) fn owned_now(&self) -> BTreeSet<VmId> {
        self.owned().clone()
    }

    fn owned(&self) -> MutexGuard<'_, BTreeSet<VmId>> {
        // The set is whole at every moment, whoever panicked.
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = self.remove_if_empty() {
            tracing::warn!(instance.id = %self.id, %error, "cannot remove an instance's directories");
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
    pub(crate) fn new(instance: &Arc<Instance>, vm: VmId) -> Self {
        instance.owned().insert(vm);
        Self { instance: Arc::clone(instance), vm }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.instance.owned().remove(&self.vm);
    }
}

/// Cleans up after every dead instance of this host. Blocks. Programs do this when they start. What
/// fails for one instance or machine stands in the report and stops nothing else.
///
/// # Errors
///
/// When the directory of all instances cannot be read or is not ours.
pub fn sweep_dead(settings: &HostSettings) -> Result<SweepReport, HostError> {
    let (dead, errors) = Instance::dead(settings)?;
    let mut report = SweepReport { errors, ..SweepReport::default() };
    for instance in dead {
        match instance.sweep() {
            Ok(pass) => {
                report.removed.extend(pass.removed);
                report.kept.extend(pass.kept_until.map(|until| (instance.id(), until)));
                report.errors.extend(pass.errors);
            }
            Err(error) => report.errors.push(error),
        }
    }
    Ok(report)
}

/// Takes an instance whose owner died before it had a lock file, or after it had removed it. `None`
/// if there is a lock file, or one may still come.
fn unfinished(settings: &HostSettings, id: InstanceId) -> Result<Option<Lock>, HostError> {
    let (state, lock) = (settings.instance_state(id), settings.instance_lock(id));
    let at = |action| HostError::io(action, &state);
    let directory = match fs::File::open(&state) {
        Ok(directory) => directory,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at("open")(error)),
    };
    // One of all processes that sweep at once; to the others it belongs to somebody.
    if directory.try_lock().is_err() || lock.exists() {
        return Ok(None);
    }
    let changed = directory.metadata().and_then(|found| found.modified());
    let age = SystemTime::now().duration_since(changed.map_err(at("look at"))?);
    if age.unwrap_or_default() < UNFINISHED {
        return Ok(None);
    }
    Lock::create_again(&lock).map(Some)
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
fn absolute(settings: &HostSettings) -> Result<HostSettings, HostError> {
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
    use std::os::unix::process::CommandExt;

    use super::*;
    use crate::host::{Keep, MachineName, ProcessIdentity, Record};

    fn settings(directory: &Path) -> HostSettings {
        HostSettings {
            state: directory.join("state"),
            runtime: directory.join("run"),
            qemu: "/nonexistent/qemu".into(),
            qemu_img: "/nonexistent/qemu-img".into(),
            disk_reserve: ByteSize(0),
            acceleration: None,
        }
    }

    #[test]
    fn an_instance_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
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
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
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
    fn what_a_dead_owner_left_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let instance = Instance::create(&settings).unwrap();
        let (id, vm) = (instance.id(), VmId::new());
        let paths = settings.machine(id, vm);
        create_private_directory(&paths.state).unwrap();
        fs::write(paths.record(), "not a record").unwrap();
        assert!(!instance.close().unwrap(), "a machine is left");
        // A test beside this one may be between fork and exec, where its child still has the lock.
        drop(Lock::wait(&settings.instance_lock(id)).unwrap());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let report = loop {
            let report = sweep_dead(&settings).unwrap();
            if !report.removed.is_empty() || std::time::Instant::now() > deadline {
                break report;
            }
            std::thread::yield_now();
        };
        assert_eq!(report.removed, [vm]);
        assert!(report.kept.is_empty());
        assert!(!settings.instance_state(id).exists());
    }

    /// A process that looks like a machine's QEMU, with the record of a kept machine.
    fn kept(instance: &Instance, until: Timestamp) -> (VmId, std::process::Child) {
        let vm = VmId::new();
        let paths = instance.settings().machine(instance.id(), vm);
        create_private_directory(&paths.state).unwrap();
        create_private_directory(&paths.runtime).unwrap();
        let name = MachineName { instance: instance.id(), vm };
        let child = std::process::Command::new("/bin/sh")
            .arg0("qemu-system-test")
            .args(["-c", "read line", "sh", "-name", &name.to_string()])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut record = Record::new(vm, "tiny");
        record.process = ProcessIdentity::of(child.id().cast_signed()).unwrap();
        record.keep = Some(Keep {
            name: "r1".to_owned(),
            until,
            address: ([127, 0, 0, 1], 2222).into(),
            user: "root".to_owned(),
            host_key: "ssh-ed25519 AAAA".to_owned(),
        });
        record.write(&paths.record()).unwrap();
        (vm, child)
    }

    #[test]
    fn an_owner_that_lives_ends_its_kept_machines_in_time() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let instance = Instance::create(&settings).unwrap();
        let other = Instance::create(&settings).unwrap();
        let (vm, mut child) = kept(&instance, Timestamp::from_micros(u64::MAX));
        let console = settings.machine(instance.id(), vm).console();
        fs::write(&console, vec![b'x'; 8 << 20]).unwrap();
        assert_eq!(instance.maintain().unwrap(), []);
        assert_eq!(other.maintain().unwrap(), [], "not its machine");
        let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&console).unwrap());
        assert!(blocks * 512 < 4 << 20, "{blocks} blocks");
        crate::host::kept::release(&settings, "r1").unwrap();
        assert_eq!(other.maintain().unwrap(), [], "not its machine");
        assert_eq!(instance.maintain().unwrap(), [vm]);
        assert!(child.wait().is_err(), "it was ended and collected");
        assert!(!console.exists());
        assert!(instance.close().unwrap() && other.close().unwrap());
    }

    #[test]
    fn one_instance_that_cannot_be_read_does_not_stop_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let broken = settings.instance_state(InstanceId::new());
        create_private_directory(&settings.instances().join("x")).unwrap();
        // Nobody, not even root, can open a directory for writing.
        fs::create_dir_all(broken.join("lock")).unwrap();
        // One whose owner died long before it had its lock, and one that may get it.
        let long_ago = settings.instance_state(InstanceId::new());
        let new = settings.instance_state(InstanceId::new());
        for path in [&long_ago, &new] {
            create_private_directory(path).unwrap();
            fs::write(path.join("lock.new"), "").unwrap();
        }
        let changed = SystemTime::now() - 2 * UNFINISHED;
        fs::File::open(&long_ago).unwrap().set_modified(changed).unwrap();
        let report = sweep_dead(&settings).unwrap();
        assert_eq!(report.errors.len(), 1, "{report:?}");
        assert!(report.errors[0].to_string().contains("lock"), "{report:?}");
        assert!(!long_ago.exists() && new.exists() && broken.exists());
    }

    #[test]
    fn a_runtime_directory_for_which_sockets_have_no_room_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(directory.path());
        settings.runtime = directory.path().join("x".repeat(80));
        let error = Instance::create(&settings).unwrap_err();
        assert!(error.to_string().contains("set a shorter one"), "{error}");
        assert!(!settings.state.exists());
    }
}
