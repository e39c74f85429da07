//! What a machine consists of on the host, and its removal.

use std::time::Duration;

use common::size::ByteSize;

use super::MachineError;
use crate::host::{
    HostError, MachineName, MachinePaths, Owned, Process, Promise, create_private_directory,
    remove_directory,
};

/// How long a killed QEMU may take to go: the system frees the guest's memory meanwhile.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// The process, directories and promises of one machine. Dropping it ends and removes them all, in
/// that order, and blocks for as long as that takes.
#[derive(Debug)]
pub(super) struct Body {
    name: MachineName,
    paths: MachinePaths,
    process: Option<Process>,
    /// Absent once the machine is left to itself.
    promise: Option<Promise>,
    left: bool,
    /// Last: until everything is removed, the machine is ours.
    owned: Owned,
}

impl Body {
    /// Makes the directories. The machine is owned before it has any, so that no pass over the
    /// instance takes it for an abandoned one.
    pub(super) fn create(
        name: MachineName,
        paths: MachinePaths,
        owned: Owned,
        promise: Promise,
    ) -> Result<Self, MachineError> {
        let body = Self { name, paths, process: None, promise: Some(promise), left: false, owned };
        create_private_directory(&body.paths.state)?;
        create_private_directory(&body.paths.runtime)?;
        Ok(body)
    }

    /// Takes over a machine that is there already; without a process and a promise if it has ended.
    pub(super) fn adopt(
        name: MachineName,
        paths: MachinePaths,
        owned: Owned,
        running: Option<(Process, Promise)>,
    ) -> Self {
        let (process, promise) = running.unzip();
        Self { name, paths, process, promise, left: false, owned }
    }

    pub(super) fn paths(&self) -> &MachinePaths {
        &self.paths
    }

    pub(super) fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Takes over the process, which from now on ends with this value.
    pub(super) fn set_process(&mut self, process: Process) -> Result<(), HostError> {
        let identity = process.identity();
        self.process = Some(process);
        self.promise.as_ref().map_or(Ok(()), |promise| promise.used_by(identity))
    }

    /// The processors and the memory that were promised to it.
    pub(super) fn size(&self) -> Option<(u32, ByteSize)> {
        self.promise.as_ref().map(|promise| (promise.cpus(), promise.memory()))
    }

    /// Another hold on the process, for whoever watches it.
    pub(super) fn second_hold(&self) -> std::io::Result<Process> {
        let gone = || std::io::Error::other("there is no process");
        self.process.as_ref().ok_or_else(gone)?.try_clone()
    }

    /// Ends the process and removes the files; the room is for another machine then.
    pub(super) fn clear(mut self) -> Result<Promise, HostError> {
        self.end()?;
        self.remove_files()?;
        let promise = self.promise.take();
        // A machine that is cleared was started by this process, with room.
        promise.expect("a machine that runs has room").renew()
    }

    /// Leaves everything as it is: the machine outlives this process.
    pub(super) fn leave(mut self) {
        self.left = true;
        if let Some(promise) = self.promise.take() {
            promise.leave();
        }
    }

    /// Like [`Body::leave`], for a new owner that is expected to come soon.
    pub(super) fn leave_for_adoption(self) {
        self.owned.leave_for_adoption();
        self.leave();
    }

    /// Ends the process and waits for it to be gone.
    fn end(&self) -> Result<(), HostError> {
        if let Some(process) = &self.process {
            let pid = process.identity().pid;
            let proc = std::path::PathBuf::from(format!("/proc/{pid}"));
            process.kill().map_err(HostError::io("kill", &proc))?;
            let gone = process.wait(KILL_DEADLINE).map_err(HostError::io("wait for", &proc))?;
            // Collected by us or, where somebody else did, by them.
            drop(process.collect());
            if !gone {
                return Err(HostError::Stuck { pid, name: self.name });
            }
        }
        Ok(())
    }

    fn remove_files(&self) -> Result<(), HostError> {
        remove_directory(&self.paths.runtime)?;
        remove_directory(&self.paths.state)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let mut result = self.end();
        if result.is_ok() {
            result = self.remove_files();
        } else if let Some(promise) = self.promise.take() {
            // It may still run and use its memory. Its files stay, with the record by which a later
            // pass finds it, and that pass gives the room back.
            promise.leave();
        }
        if let Err(error) = result {
            tracing::error!(vm.id = %self.name.vm, %error, "cannot remove a machine");
        }
    }
}

#[cfg(test)]
mod tests {
    use common::limits::MIB;
    use common::size::ByteSize;

    use super::*;
    use crate::host::fake::FakeMachine;
    use crate::host::{HostSettings, Instance};

    /// One that waits for a broken disk does not end before the disk answers.
    #[test]
    fn a_qemu_that_cannot_be_killed_keeps_its_room_and_its_record() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        let instance = Instance::create(&settings).unwrap();
        let mut qemu = FakeMachine::run(&instance);
        let name = MachineName { instance: instance.id(), vm: qemu.vm };
        let promise = instance.take_over(qemu.vm, ByteSize(MIB), 1, qemu.identity()).unwrap();
        let stuck = Process::stuck(qemu.identity());
        let owned = Owned::new(&instance, qemu.vm);
        let promised = || std::fs::read_to_string(settings.ledger()).unwrap();

        drop(Body::adopt(name, qemu.paths.clone(), owned, Some((stuck, promise))));
        assert!(qemu.runs() && qemu.paths.record().exists());
        assert!(promised().contains(&qemu.vm.to_string()), "{}", promised());

        // A later pass finds it, and by then it can be ended.
        assert_eq!(instance.destroy_all().unwrap(), [qemu.vm]);
        assert!(qemu.was_ended() && !qemu.paths.record().exists());
        assert_eq!(promised(), "[]");
        assert!(instance.close().unwrap());
    }
}
