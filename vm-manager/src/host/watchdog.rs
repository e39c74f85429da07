//! Cleaning up after an owner that was killed.
//!
//! A program that starts machines also starts a watchdog: a copy of itself in its own session that
//! does nothing but wait for the instance's lock. The system releases that lock when the owner ends,
//! in whatever way; the watchdog then ends what is left, waits for kept machines until their time is
//! over, and removes the directories. A service gets some time to come back before that.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::ids::InstanceId;
use common::time::Timestamp;

use super::grace::{Moment, stamp};
use super::instance::absolute;
use super::lock::Lock;
use super::reconcile::Pass;
use super::service::is_service;
use super::{HostError, HostSettings, Instance};
use crate::system::spawn_session;

/// How often a watchdog looks whether a kept machine still runs and whether its time is over or a
/// service is back, and tries again what failed.
const INTERVAL: Duration = Duration::from_secs(2);

/// How often in a row it tries again; then the next program's start has to see to it.
const RETRIES: u32 = 30;

/// How often [`Watchdog::finish`] looks whether the process has ended.
const FINISH_INTERVAL: Duration = Duration::from_millis(5);

/// A watchdog process that this process started.
#[derive(Debug)]
pub struct Watchdog {
    child: Child,
}

/// Starts a watchdog: `program` with `arguments` must call [`guard`]. It lives in its own session
/// without input and output, so that signals to this process's terminal do not reach it.
///
/// # Errors
///
/// When the program cannot be started.
pub fn spawn(program: &Path, arguments: &[OsString]) -> Result<Watchdog, HostError> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/");
    let child = spawn_session(&mut command).map_err(HostError::io("start", program))?;
    Ok(Watchdog { child })
}

impl Watchdog {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended, which it does right after its instance was closed. Says whether it
    /// ended in time; it is not harmed if not. Blocks.
    pub fn finish(mut self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        loop {
            match self.child.try_wait() {
                Ok(Some(_)) => return true,
                Ok(None) if Instant::now() < until => std::thread::sleep(FINISH_INTERVAL),
                _ => return false,
            }
        }
    }
}

/// Waits until the owner of an instance is gone, then ends and removes everything that it left,
/// except that machines which are kept live until their time is over. Blocks for as long as that
/// takes.
///
/// The machines of a service are left alone for [`SERVICE_GRACE`](super::SERVICE_GRACE) first.
/// Meanwhile, and while it has kept machines, the lock is free most of the time; once a new owner has
/// it, this watchdog is done: the new owner has its own.
///
/// # Errors
///
/// When the lock cannot be waited for, or something could not be removed.
pub fn guard(settings: &HostSettings, id: InstanceId) -> Result<(), HostError> {
    let Some(mut instance) = wait(settings, id)? else { return Ok(()) };
    let mut failures = 0;
    loop {
        let swept = instance.sweep();
        let Some(pause) = pause(swept, &mut failures)? else { return Ok(()) };
        if is_service(settings, id) {
            let seen = Moment::read(settings, id)?;
            drop(instance);
            std::thread::sleep(pause);
            match take_again(settings, id, seen.as_ref())? {
                Some(taken) => instance = taken,
                None => return Ok(()),
            }
        } else {
            std::thread::sleep(pause);
        }
    }
}

/// Waits for the lock of an instance; `None` if its owner removed it.
fn wait(settings: &HostSettings, id: InstanceId) -> Result<Option<Instance>, HostError> {
    let settings = &absolute(settings)?;
    let path = settings.instance_lock(id);
    if let Some(lock) = Lock::take_free(&path)? {
        return Ok(Some(Instance::new(id, settings, lock, false)));
    }
    let Some(lock) = Lock::wait(&path)? else { return Ok(None) };
    let instance = Instance::new(id, settings, lock, false);
    if is_service(settings, id) {
        // Until now its owner was there, however long ago it found the time to say so.
        stamp(settings, id)?;
    }
    Ok(Some(instance))
}

/// Takes the lock of a service again that nobody owned when it was last seen; `None` if it has a new
/// owner now, or is gone. Others hold the lock for moments.
fn take_again(
    settings: &HostSettings,
    id: InstanceId,
    seen: Option<&Moment>,
) -> Result<Option<Instance>, HostError> {
    let settings = &absolute(settings)?;
    let path = settings.instance_lock(id);
    loop {
        if let Some(lock) = Lock::take_free(&path)? {
            return Ok(Some(Instance::new(id, settings, lock, false)));
        }
        if !path.exists() || Moment::read(settings, id)?.as_ref() != seen {
            return Ok(None);
        }
        std::thread::sleep(INTERVAL);
    }
}

/// How long to wait after a sweep; `None` once nothing is left to wait for.
fn pause(
    swept: Result<Pass, HostError>,
    failures: &mut u32,
) -> Result<Option<Duration>, HostError> {
    let (kept_until, adoptable, error) = match swept {
        Ok(mut pass) => (pass.kept_until, pass.adoptable, pass.errors.pop()),
        Err(error) => (None, false, Some(error)),
    };
    let Some(error) = error else {
        *failures = 0;
        let kept = kept_until.map(|until| until.since(Timestamp::now()).min(INTERVAL));
        return Ok(kept.or(adoptable.then_some(INTERVAL)));
    };
    // A machine that is kept or waits for its owner has nobody else, whatever is wrong with the
    // others.
    if *failures == RETRIES && kept_until.is_none() && !adoptable {
        return Err(error);
    }
    *failures = (*failures + 1).min(RETRIES);
    Ok(Some(INTERVAL))
}

#[cfg(test)]
mod tests {
    use common::ids::VmId;

    use super::*;
    use crate::host::{Record, create_private_directory};

    #[test]
    fn the_guard_removes_what_the_owner_left() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        let instance = Instance::create(&settings).unwrap();
        let (id, vm) = (instance.id(), VmId::new());
        let paths = settings.machine(id, vm);
        create_private_directory(&paths.state).unwrap();
        Record::new(vm, "tiny").write(&paths.record()).unwrap();
        let watch = {
            let settings = settings.clone();
            std::thread::spawn(move || guard(&settings, id))
        };
        drop(instance);
        watch.join().unwrap().unwrap();
        assert!(!settings.instance_state(id).exists());
        assert!(!settings.instance_runtime(id).exists());
    }

    #[test]
    fn the_guard_of_a_closed_instance_ends() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        guard(&settings, InstanceId::new()).unwrap();
    }

    #[test]
    fn a_watchdog_is_its_own_session_and_is_collected() {
        let watchdog = spawn(Path::new("/bin/sleep"), &["1000".into()]).unwrap();
        let pid = nix::unistd::Pid::from_raw(watchdog.id().cast_signed());
        assert_eq!(nix::unistd::getsid(Some(pid)).unwrap(), pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        assert!(watchdog.finish(Duration::from_secs(10)));
        assert!(spawn(Path::new("/nonexistent"), &[]).is_err());
    }
}
