//! The instance of a service, which outlives the process that owns it.
//!
//! A service has the same instance each time it runs. A small file in the instance's directory says
//! so, and a note beside its machines says when the owner was last there. While that is not longer
//! ago than [`SERVICE_GRACE`], everybody else leaves the machines alone, those
//! that have ended as well: the service that is started again adopts the ones and learns from the
//! console how the others ended.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::ids::InstanceId;
use serde::{Deserialize, Serialize};

use super::files::{Trust, make_directory, read_bounded, write_private};
use super::grace::{SERVICE_GRACE, stamp};
use super::instance::absolute;
use super::lock::Lock;
use super::reconcile::directories;
use super::{HostError, HostSettings, Instance, ProcessIdentity};

/// How long others may hold the lock after the last owner's end: a watchdog or another program that
/// looks whether the grace is over, or is ending machines because it is.
const OPEN_DEADLINE: Duration = Duration::from_secs(15);

/// How often the lock is tried meanwhile.
const OPEN_INTERVAL: Duration = Duration::from_millis(20);

/// The version of the mark that this program writes and reads.
const VERSION: u16 = 1;

/// A mark has some ten bytes.
const MARK_BYTES: u64 = 4 * 1024;

/// Says that an instance is that of a service, and who owned it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    version: u16,
    owner: Option<ProcessIdentity>,
}

impl Instance {
    /// Takes the instance of a service, or makes it. The id is the service's own, the same each time
    /// it runs. Machines that an earlier owner left are neither ended nor removed for the next
    /// [`SERVICE_GRACE`], whatever has become of them: what
    /// [`Instance::machines`] says is to be [adopted](crate::machine::Machine::adopt) or
    /// [destroyed](Instance::destroy) one by one meanwhile; the first
    /// [`maintain`](Instance::maintain) after that ends what nobody has claimed.
    ///
    /// Blocks: a moment, or some seconds where a watchdog still cleans up.
    ///
    /// # Errors
    ///
    /// [`HostError::InUse`] when another process is the service already, or the directories cannot
    /// be made or are those of a newer program.
    pub fn open_service(settings: &HostSettings, id: InstanceId) -> Result<Arc<Self>, HostError> {
        Self::open_service_within(settings, id, OPEN_DEADLINE)
    }

    fn open_service_within(
        settings: &HostSettings,
        id: InstanceId,
        deadline: Duration,
    ) -> Result<Arc<Self>, HostError> {
        let settings = &absolute(settings)?;
        settings.check_socket_paths()?;
        settings.make_directories()?;
        settings.warn_of_disk();
        let path = settings.instance_service(id);
        let until = Instant::now() + deadline;
        let lock = loop {
            if let Some(lock) = take_or_make(settings, id)? {
                break lock;
            }
            let owner = Mark::read(&path)?.and_then(Mark::living_owner);
            if owner.is_some() || Instant::now() >= until {
                let holder = owner.map_or_else(
                    || "a process that did not say who it is".to_owned(),
                    |owner| format!("the process {}", owner.pid),
                );
                return Err(HostError::InUse { path: settings.instance_state(id), holder });
            }
            std::thread::sleep(OPEN_INTERVAL);
        };
        // Nothing is changed for a newer program.
        Mark::read(&path)?;
        let instance = Self::new(id, settings, lock, true);
        make_directory(&settings.instance_runtime(id), Trust::Ours)?;
        // First when, then that: a mark without a time means that nobody comes back.
        stamp(settings, id)?;
        Mark::ours()?.write(&path)?;
        for vm in directories(&instance)? {
            instance.expect_adoption(vm, SERVICE_GRACE);
        }
        Ok(Arc::new(instance))
    }
}

/// Whether an instance is that of a service. A mark of a newer program counts as well.
pub(super) fn is_service(settings: &HostSettings, id: InstanceId) -> bool {
    std::fs::symlink_metadata(settings.instance_service(id)).is_ok()
}

impl Mark {
    fn ours() -> Result<Self, HostError> {
        let proc = PathBuf::from("/proc/self/stat");
        let owner = ProcessIdentity::of(std::process::id().cast_signed());
        Ok(Self { version: VERSION, owner: owner.map_err(HostError::io("read", &proc))? })
    }

    /// The owner, if that very process still runs. It may run in another container, where we cannot
    /// see it.
    fn living_owner(self) -> Option<ProcessIdentity> {
        let owner = self.owner?;
        (ProcessIdentity::of(owner.pid).ok()? == Some(owner)).then_some(owner)
    }

    fn write(self, path: &Path) -> Result<(), HostError> {
        let text = serde_json::to_vec(&self).expect("a mark has a JSON form");
        write_private(path, &text)
    }

    fn read(path: &Path) -> Result<Option<Self>, HostError> {
        let Some(text) = read_bounded(path, MARK_BYTES)? else { return Ok(None) };
        let malformed = |reason| HostError::Record { path: path.to_owned(), reason };
        let mark: Self =
            serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        if mark.version != VERSION {
            let version = mark.version;
            return Err(malformed(format!(
                "it has version {version}, this program reads {VERSION}"
            )));
        }
        Ok(Some(mark))
    }
}

/// Takes the lock of an instance that is there, or makes the instance; `None` if somebody holds the
/// lock, or is about to make or remove the instance.
fn take_or_make(settings: &HostSettings, id: InstanceId) -> Result<Option<Lock>, HostError> {
    let state = settings.instance_state(id);
    match make_directory(&state, Trust::Ours) {
        // It was there, and was removed before it could be looked at.
        Err(HostError::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {
            return Ok(None);
        }
        made => made?,
    }
    let directory = match File::open(&state) {
        Ok(directory) => directory,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HostError::io("open", &state)(error)),
    };
    // Whoever makes or removes the instance holds this one.
    if directory.try_lock().is_err() || !is_still(&directory, &state) {
        return Ok(None);
    }
    let lock = settings.instance_lock(id);
    if lock.exists() { Lock::take_free(&lock) } else { Lock::create_again(&lock).map(Some) }
}

/// Whether a directory that was opened has not been removed meanwhile.
fn is_still(directory: &File, path: &Path) -> bool {
    match (directory.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(ours), Ok(found)) => (ours.dev(), ours.ino()) == (found.dev(), found.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;
    use crate::host::fake::FakeMachine;
    use crate::host::grace::{grace_left, tests::let_pass};
    use crate::host::{FoundMachine, sweep_dead, watchdog};

    /// How long anything may take that a test waits for.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Opens an instance whose owner is gone. In these tests that owner was this very process, so a
    /// lock that a watchdog or a fork holds for a moment seems to be its own.
    fn reopen(settings: &HostSettings, id: InstanceId) -> Arc<Instance> {
        let until = Instant::now() + PATIENCE;
        loop {
            match Instance::open_service(settings, id) {
                Err(HostError::InUse { .. }) if Instant::now() < until => std::thread::yield_now(),
                other => return other.unwrap(),
            }
        }
    }

    /// What a killed owner of this id leaves: one machine that runs, and one that ended.
    fn killed(settings: &HostSettings, id: InstanceId) -> (FakeMachine, FakeMachine) {
        let instance = reopen(settings, id);
        let (running, mut ended) = (FakeMachine::run(&instance), FakeMachine::run(&instance));
        ended.end();
        (running, ended)
    }

    #[test]
    fn a_service_without_machines_leaves_nothing_behind() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        let id = InstanceId::new();
        for _ in 0..3 {
            let instance = reopen(&settings, id);
            assert!(instance.id() == id && is_service(&settings, id));
            assert_eq!(instance.maintain().unwrap(), []);
            assert!(instance.close().unwrap());
            assert!(!settings.instance_state(id).exists());
            assert!(!settings.instance_runtime(id).exists());
        }
    }

    #[test]
    fn two_services_cannot_have_one_id() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        let id = InstanceId::new();
        let instance = Instance::open_service(&settings, id).unwrap();
        let error = Instance::open_service(&settings, id).unwrap_err().to_string();
        let expected = [&*id.to_string(), &format!("the process {};", std::process::id())];
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");

        // One that we cannot see, as in another container.
        let other = Mark { version: VERSION, owner: None };
        other.write(&settings.instance_service(id)).unwrap();
        let error = Instance::open_service_within(&settings, id, Duration::from_millis(50));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("a process that did not say who it is"), "{error}");
        drop(instance);
    }

    #[test]
    fn nobody_but_the_service_touches_its_machines_for_a_while() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        let id = InstanceId::new();
        let (running, ended) = killed(&settings, id);
        let report = sweep_dead(&settings).unwrap();
        assert!(report.removed.is_empty() && report.errors.is_empty(), "{report:?}");
        assert!(Instance::adopt_dead(&settings).unwrap().is_empty());
        let other = Instance::create(&settings).unwrap();
        assert_eq!(other.maintain().unwrap(), []);
        assert!(running.runs() && ended.paths.record().exists());

        let instance = reopen(&settings, id);
        assert_eq!(instance.maintain().unwrap(), []);
        assert_eq!(instance.reconcile().unwrap(), []);
        let found = |vm, running| FoundMachine {
            vm,
            label: Some("tiny".to_owned()),
            running,
            owned: false,
            kept: false,
        };
        let mut expected = [found(running.vm, true), found(ended.vm, false)];
        expected.sort_by_key(|machine| machine.vm);
        assert_eq!(instance.machines().unwrap(), expected);
    }

    #[test]
    fn machines_are_swept_after_the_grace() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        let id = InstanceId::new();
        let (mut running, ended) = killed(&settings, id);
        let_pass(&settings, id);
        let until = Instant::now() + PATIENCE;
        let mut removed = Vec::new();
        // A test beside this one may be between fork and exec, where its child still has the lock.
        while removed.len() < 2 && Instant::now() < until {
            removed.extend(sweep_dead(&settings).unwrap().removed);
        }
        removed.sort();
        assert_eq!(removed, [running.vm.min(ended.vm), running.vm.max(ended.vm)]);
        assert!(running.was_ended());
        assert!(!settings.instance_state(id).exists());
    }

    #[test]
    fn what_a_service_does_not_claim_is_ended_one_by_one_or_in_the_end() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        let id = InstanceId::new();
        let (mut first, ended) = killed(&settings, id);
        let (mut second, other_ended) = killed(&settings, id);
        let instance = reopen(&settings, id);
        assert!(instance.destroy(first.vm).unwrap() && instance.destroy(ended.vm).unwrap());
        assert!(first.was_ended() && second.runs());
        for vm in [second.vm, other_ended.vm] {
            instance.expect_adoption(vm, Duration::ZERO);
        }
        assert_eq!(instance.maintain().unwrap().len(), 2);
        assert!(second.was_ended());
        assert_eq!(instance.machines().unwrap(), []);
        assert!(instance.close().unwrap());
    }

    /// Waits until somebody waits for the instance's lock, or nobody does.
    fn wait_for_waiter(settings: &HostSettings, id: InstanceId, expected: bool) {
        let lock = std::fs::metadata(settings.instance_lock(id)).unwrap().ino();
        let ours = format!(":{lock} 0 EOF");
        eventually(|| {
            let locks = std::fs::read_to_string("/proc/locks").unwrap();
            locks.lines().any(|line| line.contains("->") && line.ends_with(&ours)) == expected
        });
    }

    fn eventually(mut holds: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < until, "not in {PATIENCE:?}");
            std::thread::sleep(OPEN_INTERVAL);
        }
    }

    #[test]
    fn the_watchdog_waits_and_leaves_the_lock_to_the_service() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        let id = InstanceId::new();
        let (mut machine, _ended) = killed(&settings, id);
        let guard = |settings: &HostSettings| {
            let settings = settings.clone();
            std::thread::spawn(move || watchdog::guard(&settings, id))
        };
        // An owner that was killed before it found the time to say that it is there.
        let owner = Lock::wait(&settings.instance_lock(id)).unwrap().unwrap();
        let_pass(&settings, id);
        let first = guard(&settings);
        wait_for_waiter(&settings, id, true);
        drop(owner);
        eventually(|| grace_left(&settings, id).is_some());
        let instance = reopen(&settings, id);
        eventually(|| first.is_finished());
        first.join().unwrap().unwrap();
        assert!(machine.runs());

        let second = guard(&settings);
        wait_for_waiter(&settings, id, true);
        drop(instance);
        wait_for_waiter(&settings, id, false);
        assert!(grace_left(&settings, id).is_some() && machine.runs());
        eventually(|| {
            // The watchdog itself notes once that the owner was there until now.
            if grace_left(&settings, id).is_some() {
                let_pass(&settings, id);
            }
            second.is_finished()
        });
        second.join().unwrap().unwrap();
        assert!(machine.was_ended());
        assert!(!settings.instance_state(id).exists());
    }

    #[test]
    fn a_newer_program_is_left_alone() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        let id = InstanceId::new();
        let (running, _) = killed(&settings, id);
        let mark = settings.instance_service(id);
        for (content, expected) in
            [("{\"version\": 2}", "version 2"), ("x", "cannot be understood")]
        {
            std::fs::write(&mark, content).unwrap();
            let error = Instance::open_service(&settings, id).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(sweep_dead(&settings).unwrap().removed, []);
        }
        assert!(running.runs());
    }

    #[test]
    fn whoever_comes_and_goes_at_once_only_one_has_it() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        let id = InstanceId::new();
        let (held, times) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while times.load(Ordering::SeqCst) < 100 {
                        match Instance::open_service(&settings, id) {
                            Ok(instance) => {
                                assert!(!held.swap(true, Ordering::SeqCst), "two have it");
                                times.fetch_add(1, Ordering::SeqCst);
                                assert!(settings.instance_lock(id).exists());
                                held.store(false, Ordering::SeqCst);
                                drop(instance);
                            }
                            Err(HostError::InUse { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                        sweep_dead(&settings).unwrap();
                    }
                });
            }
        });
        assert!(!settings.instance_state(id).exists());
    }
}
