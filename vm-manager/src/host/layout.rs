//! Where the files of instances and machines lie.

use std::path::PathBuf;

use common::ids::{InstanceId, VmId};

use super::files::{Trust, check_directory, make_directory};
use super::{HostError, HostSettings, is_on_tmpfs};

/// The name of the file that QEMU writes a machine's console to.
const CONSOLE_LOG: &str = "console.log";

/// The name of the file that takes QEMU's own output.
const QEMU_LOG: &str = "qemu.log";

/// The bytes of `sun_path`, without the NUL at its end.
const SOCKET_PATH_LIMIT: usize = 107;

impl HostSettings {
    /// The directory of all instances' state.
    pub(crate) fn instances(&self) -> PathBuf {
        self.state.join("instances")
    }

    pub(crate) fn instance_state(&self, id: InstanceId) -> PathBuf {
        self.instances().join(id.to_string())
    }

    pub(crate) fn instance_lock(&self, id: InstanceId) -> PathBuf {
        self.instance_state(id).join("lock")
    }

    /// Says that the instance is that of a service.
    pub(crate) fn instance_service(&self, id: InstanceId) -> PathBuf {
        self.instance_state(id).join("service.json")
    }

    /// Says when the owner of a service's instance was last there.
    pub(crate) fn instance_last_seen(&self, id: InstanceId) -> PathBuf {
        self.instance_runtime(id).join("last-seen")
    }

    pub(crate) fn instance_machines(&self, id: InstanceId) -> PathBuf {
        self.instance_state(id).join("machines")
    }

    pub(crate) fn instance_runtime(&self, id: InstanceId) -> PathBuf {
        self.runtime.join(id.to_string())
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.runtime.join("ledger")
    }

    pub(crate) fn machine(&self, instance: InstanceId, vm: VmId) -> MachinePaths {
        MachinePaths {
            state: self.instance_machines(instance).join(vm.to_string()),
            runtime: self.instance_runtime(instance).join(vm.short()),
        }
    }

    /// Makes the directories that instances share, if they are not there, and checks them. The
    /// configured ones may be such as `/dev/shm`; what lies below is for us alone.
    pub(crate) fn make_directories(&self) -> Result<(), HostError> {
        make_directory(&self.state, Trust::OursOrSticky)?;
        make_directory(&self.runtime, Trust::OursOrSticky)?;
        make_directory(&self.instances(), Trust::Ours)
    }

    /// Says in the log if login keys would reach a disk. Each process makes one instance.
    pub(crate) fn warn_of_disk(&self) {
        match is_on_tmpfs(&self.runtime) {
            Ok(true) => {}
            Ok(false) => tracing::warn!(
                path = %self.runtime.display(),
                "the runtime directory is not on a tmpfs, so login keys of machines reach a disk; \
                 set `runtime_dir` to a directory below /run or /dev/shm"
            ),
            Err(error) => tracing::warn!(%error, "cannot see whether login keys reach a disk"),
        }
    }

    /// Refuses a runtime directory in which somebody else could put, remove or exchange our files.
    ///
    /// # Errors
    ///
    /// [`HostError::Untrusted`], or it cannot be looked at.
    pub fn check_runtime_directory(&self) -> Result<(), HostError> {
        check_directory(&self.runtime, Trust::OursOrSticky)
    }

    /// Checks those of them that are there.
    pub(crate) fn check_directories(&self) -> Result<(), HostError> {
        check_directory(&self.state, Trust::OursOrSticky)?;
        check_directory(&self.runtime, Trust::OursOrSticky)?;
        check_directory(&self.instances(), Trust::Ours)
    }

    /// Refuses a runtime directory below which a socket's path would be too long for the system.
    pub(crate) fn check_socket_paths(&self) -> Result<(), HostError> {
        let longest = self.machine(InstanceId::new(), VmId::new()).qmp();
        let length = longest.as_os_str().len();
        if length <= SOCKET_PATH_LIMIT {
            return Ok(());
        }
        Err(HostError::PathTooLong { path: self.runtime.clone(), length, limit: SOCKET_PATH_LIMIT })
    }
}

/// The files of one machine.
#[derive(Clone, Debug)]
pub(crate) struct MachinePaths {
    /// On disk: the record and what grows.
    pub(crate) state: PathBuf,
    /// On tmpfs: sockets, keys, and what must not outlive the host's boot.
    pub(crate) runtime: PathBuf,
}

impl MachinePaths {
    pub(crate) fn record(&self) -> PathBuf {
        self.state.join("record.json")
    }

    pub(crate) fn overlay(&self) -> PathBuf {
        self.state.join("disk.qcow2")
    }

    /// The second serial port.
    pub(crate) fn port(&self) -> PathBuf {
        self.runtime.join("port")
    }

    pub(crate) fn qmp(&self) -> PathBuf {
        self.runtime.join("qmp")
    }

    /// Holds the guest's private host key, therefore on tmpfs.
    pub(crate) fn seed(&self) -> PathBuf {
        self.runtime.join("seed.iso")
    }

    pub(crate) fn console(&self) -> PathBuf {
        self.runtime.join(CONSOLE_LOG)
    }

    /// QEMU's own standard output and error.
    pub(crate) fn qemu_log(&self) -> PathBuf {
        self.runtime.join(QEMU_LOG)
    }

    /// The private login key of a machine that may outlive its owner.
    pub(crate) fn login_key(&self) -> PathBuf {
        self.runtime.join("login-key")
    }
}
