//! The host of one test, its machines, and the image that they boot.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::size::ByteSize;
use tempfile::TempDir;
use vm_manager::host::{Acceleration, HostSettings, Instance, Need};
use vm_manager::image::{Catalogue, Entry, Hardware, Image, ImageStore, StoreSettings};
use vm_manager::machine::{Ended, Machine, MachineSpec};
use vm_manager::ssh::Guest;

/// The longest boot of the tiny guest on a host that runs other tests as well.
pub(crate) const BOOT: Duration = Duration::from_secs(120);

/// The longest time that anything else may take that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Directories of one test.
pub(crate) struct Host {
    pub(crate) settings: HostSettings,
    /// On disk, as that of a user, but for [`Host::for_other_users`].
    pub(crate) state: TempDir,
    /// On tmpfs, as sockets and keys want it, and short: a socket's path has 107 bytes.
    pub(crate) runtime: TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        let base = std::env::var_os("SOLSTICE_TEST_DIR")
            .expect("SOLSTICE_TEST_DIR names the directory of the tests; run `make test`");
        std::fs::create_dir_all(&base).unwrap();
        // scripts/leftovers.sh looks for it.
        let state = tempfile::Builder::new().prefix("t").rand_bytes(5).tempdir_in(base).unwrap();
        Self::with(state)
    }

    /// Where other users can come to, which may not be so on disk: who clones into a home directory
    /// of mode 0700 has the tests' directory below it.
    pub(crate) fn for_other_users() -> Self {
        let host = Self::with(memory());
        let HostSettings { state, runtime, .. } = &host.settings;
        let instances = state.join("instances");
        std::fs::create_dir_all(&instances).unwrap();
        std::fs::create_dir_all(runtime).unwrap();
        for path in [host.state.path(), state, &instances, host.runtime.path(), runtime] {
            std::fs::set_permissions(path, Permissions::from_mode(0o711)).unwrap();
        }
        host
    }

    fn with(state: TempDir) -> Self {
        let runtime = memory();
        Self { settings: settings(state.path(), runtime.path()), state, runtime }
    }

    pub(crate) fn instance(&self) -> Arc<Instance> {
        Instance::create(&self.settings).unwrap()
    }

    /// Asserts that no process, record, file or promise is left.
    pub(crate) fn assert_empty(self) {
        for directory in [self.state.path(), self.runtime.path()] {
            let marker = directory.to_str().unwrap();
            assert_eq!(processes_with(marker), Vec::<String>::new(), "a process is left");
            for file in walk(directory) {
                let name = file.file_name().unwrap().to_str().unwrap();
                let empty_ledger = name == "ledger" && std::fs::read(&file).unwrap() == b"[]";
                assert!(empty_ledger || name == "blank.qcow2", "{} is left", file.display());
            }
        }
    }
}

/// A directory on tmpfs, where scripts/leftovers.sh looks for it.
pub(crate) fn memory() -> TempDir {
    let run = std::env::var("SOLSTICE_TEST_RUN").unwrap_or_else(|_| std::process::id().to_string());
    let prefix = format!("solstice-test-{run}-");
    tempfile::Builder::new().prefix(&prefix).tempdir_in("/dev/shm").unwrap()
}

pub(crate) fn settings(state: &Path, runtime: &Path) -> HostSettings {
    HostSettings {
        state: state.join("s"),
        runtime: runtime.join("r"),
        qemu: "/usr/bin/qemu-system-x86_64".into(),
        qemu_img: "/usr/bin/qemu-img".into(),
        disk_reserve: ByteSize(64 << 20),
        acceleration: Some(Acceleration::Tcg),
        limits: vm_manager::host::CapacityLimits::default(),
    }
}

/// Command lines of running processes that mention `marker`; zombies have none.
pub(crate) fn processes_with(marker: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(marker)).collect()
}

pub(crate) fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

/// The catalogue's entry of the tiny image.
pub(crate) fn entry() -> Entry {
    let catalogue = Catalogue::load(None).unwrap();
    Entry { boot_ceiling: BOOT, ..(*catalogue.get("tiny").unwrap()).clone() }
}

pub(crate) fn hardware() -> Hardware {
    entry().hardware
}

/// The tiny image, which the store has already, on this hardware.
pub(crate) fn tiny(hardware: Hardware) -> Arc<Image> {
    let directory = std::env::var_os("SOLSTICE_IMAGE_DIR")
        .expect("set SOLSTICE_IMAGE_DIR to a store with the tiny image; `make test` does it");
    let store = ImageStore::open(Path::new(&directory), StoreSettings::default()).unwrap();
    let image = store.find(&Arc::new(entry())).unwrap();
    let image = image.expect("the tiny image is not in the store; `make test` builds it");
    Arc::new(Image { entry: Arc::new(Entry { hardware, ..entry() }), ..image })
}

/// A copy of an image that every user can read.
pub(crate) fn readable_copy(image: &Image, directory: &Path) -> Image {
    std::fs::set_permissions(directory, Permissions::from_mode(0o711)).unwrap();
    let copy = |file: &PathBuf| {
        let copy = directory.join(file.file_name().unwrap());
        std::fs::copy(file, &copy).unwrap();
        std::fs::set_permissions(&copy, Permissions::from_mode(0o444)).unwrap();
        copy
    };
    Image {
        disk: copy(&image.disk),
        kernel: image.kernel.as_ref().map(copy),
        initrd: image.initrd.as_ref().map(copy),
        ..image.clone()
    }
}

/// A disk of any content on this hardware.
pub(crate) fn image(disk: PathBuf, hardware: Hardware) -> Image {
    let entry = Arc::new(Entry { hardware, ..entry() });
    Image { entry, digest: String::new(), disk, kernel: None, initrd: None }
}

pub(crate) fn spec() -> MachineSpec {
    MachineSpec::of(tiny(hardware()), "tiny")
}

/// A machine that a service can take up again.
pub(crate) fn adoptable() -> MachineSpec {
    MachineSpec { adoptable: true, ..spec() }
}

/// A tiny guest whose kernel gets another command line.
pub(crate) fn spec_with(command_line: &str) -> MachineSpec {
    let kernel_command_line = Some(command_line.to_owned());
    MachineSpec::of(tiny(Hardware { kernel_command_line, ..hardware() }), "tiny")
}

/// Starts a machine and waits for its guest. Waits for room: tests run beside each other.
pub(crate) async fn boot(instance: &Arc<Instance>, spec: MachineSpec) -> (Machine, Guest) {
    let machine = start(instance, spec).await;
    let guest = machine.wait_ready(BOOT).await.unwrap();
    (machine, guest)
}

pub(crate) async fn start(instance: &Arc<Instance>, mut spec: MachineSpec) -> Machine {
    spec.promise =
        Some(instance.wait_for_room(&Need::whole(spec.memory, spec.cpus)).await.unwrap());
    Machine::start(instance, spec).await.unwrap()
}

/// Runs a command whose connection may be gone before it answers.
pub(crate) async fn last_command(guest: &Guest, command: &str) {
    drop(guest.run(command, None, Duration::from_secs(5)).await);
}

pub(crate) async fn end_of(machine: &Machine) -> Ended {
    let mut ended = machine.ended();
    let end = tokio::time::timeout(PATIENCE, ended.wait_for(Option::is_some)).await;
    end.expect("the machine did not end").unwrap().clone().unwrap()
}
