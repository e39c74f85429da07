//! Processes that look like QEMU, for tests.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use common::ids::VmId;
use common::time::Timestamp;

use super::{
    Instance, Keep, MachineName, MachinePaths, Process, ProcessIdentity, Record,
    create_private_directory,
};

/// A directory for an instance. On tmpfs, where `scripts/leftovers.sh` looks for it, and short: a
/// socket's path has 107 bytes.
pub(crate) fn directory() -> tempfile::TempDir {
    let run = std::env::var("SOLSTICE_TEST_RUN").unwrap_or_else(|_| std::process::id().to_string());
    let prefix = format!("solstice-test-{run}-");
    tempfile::Builder::new().prefix(&prefix).tempdir_in("/dev/shm").unwrap()
}

/// A machine with directories, a record, and a shell under the name of a QEMU. Ends when dropped.
pub(crate) struct FakeMachine {
    pub(crate) vm: VmId,
    pub(crate) paths: MachinePaths,
    child: Child,
    identity: ProcessIdentity,
}

impl FakeMachine {
    /// Starts a machine that nobody owns.
    pub(crate) fn run(instance: &Instance) -> Self {
        let vm = VmId::new();
        let paths = instance.settings().machine(instance.id(), vm);
        create_private_directory(&paths.state).unwrap();
        create_private_directory(&paths.runtime).unwrap();
        let name = MachineName { instance: instance.id(), vm };
        let child = Command::new("/bin/sh")
            .arg0("qemu-system-test")
            .args(["-c", "read line", "sh", "-name", &name.to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let identity = ProcessIdentity::of(child.id().cast_signed()).unwrap().unwrap();
        // The system shows its command line a moment after it was started.
        let process = Process::open(identity).unwrap().unwrap();
        while process.machine_name().unwrap() != Some(name) {
            std::thread::yield_now();
        }
        let mut record = Record::new(vm, "tiny");
        record.process = Some(identity);
        record.write(&paths.record()).unwrap();
        Self { vm, paths, child, identity }
    }

    /// Changes its record.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Record)) {
        let mut record = Record::read(&self.paths.record()).unwrap().unwrap();
        change(&mut record);
        record.write(&self.paths.record()).unwrap();
    }

    /// Keeps it under a name.
    pub(crate) fn keep(&self, name: &str, until: Timestamp) {
        self.note(|record| {
            record.keep = Some(Keep {
                name: name.to_owned(),
                until,
                address: ([127, 0, 0, 1], 2222).into(),
                user: "root".to_owned(),
                host_key: "ssh-ed25519 AAAA".to_owned(),
            });
        });
    }

    pub(crate) fn identity(&self) -> ProcessIdentity {
        self.identity
    }

    pub(crate) fn runs(&self) -> bool {
        ProcessIdentity::of(self.identity.pid).unwrap() == Some(self.identity)
    }

    /// Ends it, as a guest does that powers itself off.
    pub(crate) fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether somebody ended and collected it.
    pub(crate) fn was_ended(&mut self) -> bool {
        self.child.wait().is_err()
    }
}

impl Drop for FakeMachine {
    fn drop(&mut self) {
        // Its number may be another's once it was collected.
        if self.runs() {
            self.end();
        }
    }
}
