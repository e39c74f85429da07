//! Cleaning up after an owner that was killed.
//!
//! A program that starts machines also starts a watchdog: a copy of itself in its own session that
//! does nothing but wait for the instance's lock. The system releases that lock when the owner ends,
//! in whatever way; the watchdog then ends what is left, waits for kept machines until their time is
//! over, and removes the directories.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::ids::InstanceId;
use common::time::Timestamp;

use super::reconcile::Pass;
use super::{HostError, HostSettings, Instance};
use crate::system::spawn_session;

/// How often a watchdog looks whether a kept machine still runs and whether its time is over, and
/// tries again what failed.
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
/// # Errors
///
/// When the lock cannot be waited for, or something could not be removed.
pub fn guard(settings: &HostSettings, id: InstanceId) -> Result<(), HostError> {
    let Some(instance) = Instance::wait_for(settings, id)? else {
        return Ok(());
    };
    let mut failures = 0;
    loop {
        let pause = match instance.sweep() {
            Ok(Pass { kept_until, mut errors, .. }) => match (kept_until, errors.pop()) {
                (None, None) => return Ok(()),
                (Some(until), None) => {
                    failures = 0;
                    until.since(Timestamp::now()).min(INTERVAL)
                }
                (None, Some(error)) if failures == RETRIES => return Err(error),
                // A machine that is kept has nobody else, whatever is wrong with the others.
                (_, Some(_)) => {
                    failures = (failures + 1).min(RETRIES);
                    INTERVAL
                }
            },
            Err(error) if failures == RETRIES => return Err(error),
            Err(_) => {
                failures += 1;
                INTERVAL
            }
        };
        std::thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use common::ids::VmId;
    use common::size::ByteSize;

    use super::*;
    use crate::host::{Record, create_private_directory};

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
    fn the_guard_removes_what_the_owner_left() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
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
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
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
