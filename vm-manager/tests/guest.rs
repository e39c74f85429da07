//! Machines with a real guest: the `tiny` image under QEMU.
//!
//! `SOLSTICE_IMAGE_DIR` names an image store that has the tiny image. Every test has directories of its own and asserts that nothing is left in them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use common::ids::InstanceId;
use common::infrastructure::Cause;
use common::size::ByteSize;
use common::time::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vm_manager::host::{Acceleration, HostSettings, Instance, kept, sweep_dead, watchdog};
use vm_manager::image::{
    Catalogue, DiskModel, Entry, Hardware, Image, ImageStore, SeedDevice, StoreSettings,
};
use vm_manager::machine::{Ended, Machine, MachineError, MachineSpec, Privileges};
use vm_manager::ssh::Guest;

/// The longest boot of the tiny guest on a host that runs other tests as well.
const BOOT: Duration = Duration::from_secs(120);

/// The longest time that anything else may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Directories of one test.
struct Host {
    settings: HostSettings,
    directory: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        // On tmpfs, as sockets and keys want it, and short: a socket's path has 107 bytes.
        let run =
            std::env::var("SOLSTICE_TEST_RUN").unwrap_or_else(|_| std::process::id().to_string());
        let prefix = format!("solstice-test-{run}-");
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir_in("/dev/shm");
        let directory = directory.unwrap();
        Self { settings: settings(directory.path()), directory }
    }

    fn instance(&self) -> Arc<Instance> {
        Instance::create(&self.settings).unwrap()
    }

    /// Asserts that no process, record, file or promise is left.
    fn assert_empty(self) {
        let marker = self.directory.path().to_str().unwrap();
        assert_eq!(processes_with(marker), Vec::<String>::new(), "a process is left");
        for file in walk(self.directory.path()) {
            let name = file.file_name().unwrap().to_str().unwrap();
            let empty_ledger = name == "ledger" && std::fs::read(&file).unwrap() == b"[]";
            assert!(empty_ledger || name == "blank.qcow2", "{} is left", file.display());
        }
    }
}

fn settings(directory: &Path) -> HostSettings {
    HostSettings {
        state: directory.join("s"),
        runtime: directory.join("r"),
        qemu: "/usr/bin/qemu-system-x86_64".into(),
        qemu_img: "/usr/bin/qemu-img".into(),
        disk_reserve: ByteSize(64 << 20),
        acceleration: Some(Acceleration::Tcg),
    }
}

/// Command lines of running processes that mention `marker`; zombies have none.
fn processes_with(marker: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(marker)).collect()
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

/// The catalogue's entry of the tiny image.
fn entry() -> Entry {
    let catalogue = Catalogue::load(None).unwrap();
    Entry { boot_ceiling: BOOT, ..(*catalogue.get("tiny").unwrap()).clone() }
}

fn hardware() -> Hardware {
    entry().hardware
}

/// The tiny image, which the store has already, on this hardware.
fn tiny(hardware: Hardware) -> Arc<Image> {
    let directory = std::env::var_os("SOLSTICE_IMAGE_DIR")
        .expect("set SOLSTICE_IMAGE_DIR to a store with the tiny image; `make test` does it");
    let store = ImageStore::open(Path::new(&directory), StoreSettings::default()).unwrap();
    let image = store.find(&Arc::new(entry())).unwrap();
    let image = image.expect("the tiny image is not in the store; `make test` builds it");
    Arc::new(Image { entry: Arc::new(Entry { hardware, ..entry() }), ..image })
}

/// A disk of any content on this hardware.
fn image(disk: PathBuf, hardware: Hardware) -> Image {
    let entry = Arc::new(Entry { hardware, ..entry() });
    Image { entry, digest: String::new(), disk, kernel: None, initrd: None }
}

fn spec() -> MachineSpec {
    MachineSpec::of(tiny(hardware()), "tiny")
}

/// A tiny guest whose kernel gets another command line.
fn spec_with(command_line: &str) -> MachineSpec {
    let kernel_command_line = Some(command_line.to_owned());
    MachineSpec::of(tiny(Hardware { kernel_command_line, ..hardware() }), "tiny")
}

/// Starts a machine and waits for its guest. Waits for room: tests run beside each other.
async fn boot(instance: &Arc<Instance>, spec: MachineSpec) -> (Machine, Guest) {
    let machine = start(instance, spec).await;
    let guest = machine.wait_ready(BOOT).await.unwrap();
    (machine, guest)
}

async fn start(instance: &Arc<Instance>, mut spec: MachineSpec) -> Machine {
    spec.promise = Some(instance.wait_for_room(spec.memory, spec.cpus).await.unwrap());
    Machine::start(instance, spec).await.unwrap()
}

/// Runs a command whose connection may be gone before it answers.
async fn last_command(guest: &Guest, command: &str) {
    drop(guest.run(command, None, Duration::from_secs(5)).await);
}

async fn end_of(machine: &Machine) -> Ended {
    let mut ended = machine.ended();
    let end = tokio::time::timeout(PATIENCE, ended.wait_for(Option::is_some)).await;
    end.expect("the machine did not end").unwrap().clone().unwrap()
}

#[tokio::test]
async fn a_guest_boots_answers_and_leaves_nothing() {
    let host = Host::new();
    let instance = host.instance();
    let (machine, guest) = boot(&instance, spec()).await;
    let done = guest.run("hostname; cat", Some(b"input"), PATIENCE).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "tiny\ninput");
    assert!(machine.console().written() > 0);
    assert!(!machine.console().tail(5).is_empty());
    let again = machine.connect().await.unwrap();
    assert!(again.run("true", None, PATIENCE).await.unwrap().success());
    machine.stop().await;
    assert!(instance.close().unwrap());
    host.assert_empty();
}

#[tokio::test]
async fn a_paused_guest_goes_on_where_it_was() {
    let host = Host::new();
    let instance = host.instance();
    let (machine, guest) = boot(&instance, spec()).await;
    machine.pause().await.unwrap();
    let answer = guest.run("echo on", None, PATIENCE);
    tokio::pin!(answer);
    // Paused processors run nothing, however long one waits; half a second tells.
    tokio::select! {
        _ = &mut answer => panic!("a paused guest answered"),
        () = tokio::time::sleep(Duration::from_millis(500)) => {}
    }
    machine.resume().await.unwrap();
    assert_eq!(answer.await.unwrap().stdout, b"on\n");
    machine.destroy().await;
    drop(instance);
    host.assert_empty();
}

#[tokio::test]
async fn ends_are_told_apart() {
    let host = Host::new();
    let instance = host.instance();
    let table = [
        ("poweroff -f", Ended::PoweredOff, Cause::GuestPoweredOff),
        ("reboot -f", Ended::Rebooted, Cause::GuestRebooted),
        ("echo c >/proc/sysrq-trigger", Ended::Panicked, Cause::GuestPanic),
    ];
    for (command, expected, cause) in table {
        let (machine, guest) = boot(&instance, spec()).await;
        last_command(&guest, command).await;
        let ended = end_of(&machine).await;
        assert_eq!(ended, expected, "{command}");
        let failure = machine.failure(&ended);
        assert_eq!(failure.cause, cause, "{failure}");
        if cause == Cause::GuestPanic {
            assert!(failure.message.contains("Kernel panic - not syncing"), "{failure}");
        }
    }
    drop(instance);
    host.assert_empty();
}

#[tokio::test]
async fn a_killed_qemu_is_named() {
    let host = Host::new();
    let instance = host.instance();
    let machine = start(&instance, spec()).await;
    kill(Pid::from_raw(machine.process_id().unwrap()), Signal::SIGKILL).unwrap();
    let ended = end_of(&machine).await;
    let Ended::QemuGone { detail } = &ended else { panic!("{ended:?}") };
    assert!(detail.contains("SIGKILL"), "{detail}");
    assert_eq!(machine.failure(&ended).cause, Cause::QemuKilled);
    let error = machine.wait_ready(BOOT).await.unwrap_err();
    assert_eq!(error.cause(), Cause::QemuKilled, "{error}");
    drop(machine);
    drop(instance);
    host.assert_empty();
}

#[tokio::test]
async fn a_disk_that_fails_on_the_host_stops_the_guest() {
    let host = Host::new();
    let instance = host.instance();
    let mut spec = spec();
    spec.privileges.limits.file_bytes = Some(16 << 20);
    let (machine, guest) = boot(&instance, spec).await;
    let write = "dd if=/dev/urandom of=/big bs=1M count=64; sync";
    let ended = tokio::select! {
        ended = end_of(&machine) => ended,
        done = guest.run(write, None, PATIENCE) => panic!("the guest went on: {done:?}"),
    };
    let Ended::DiskError { reason, full: false } = &ended else { panic!("{ended:?}") };
    assert!(reason.contains("File too large") && reason.contains("are free"), "{reason}");
    assert_eq!(machine.failure(&ended).cause, Cause::GuestDiskError);
    machine.destroy().await;
    drop(instance);
    host.assert_empty();
}

#[tokio::test]
async fn a_guest_that_never_answers_is_given_up_with_its_console() {
    let host = Host::new();
    let instance = host.instance();
    let machine = start(&instance, spec_with("console=ttyS0 rdinit=/bin/sh")).await;
    let mut lines = machine.console().lines();
    let seen = async {
        while let Some(line) = lines.next().await {
            if line.contains("Linux version") {
                return;
            }
        }
    };
    tokio::time::timeout(BOOT, seen).await.expect("the kernel did not start");
    let error = machine.wait_ready(Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, MachineError::BootTimeout { .. }), "{error}");
    assert_eq!(error.cause(), Cause::BootTimeout);
    assert!(error.to_string().contains("end of its console:\n    "), "{error}");
    drop(machine);
    drop(instance);
    host.assert_empty();
}

#[tokio::test]
async fn a_kernel_that_panics_while_it_boots_is_named_at_once() {
    let host = Host::new();
    let instance = host.instance();
    // The one ends QEMU, the other stands still for ever.
    for panic in ["panic=-1", "panic=0"] {
        let spec = spec_with(&format!("console=ttyS0 root=/dev/none {panic}"));
        let machine = start(&instance, spec).await;
        let error = machine.wait_ready(BOOT).await.unwrap_err();
        assert!(matches!(error, MachineError::BootPanic { .. }), "{panic}: {error}");
        assert_eq!(error.cause(), Cause::GuestPanic);
    }
    drop(instance);
    host.assert_empty();
}

#[tokio::test]
async fn a_panic_in_the_owner_removes_the_machine() {
    let host = Host::new();
    let instance = host.instance();
    let owner = Arc::clone(&instance);
    let task = tokio::spawn(async move {
        let _machine = start(&owner, spec()).await;
        panic!("on purpose");
    });
    assert!(task.await.unwrap_err().is_panic());
    drop(instance);
    host.assert_empty();
}

#[tokio::test]
async fn a_start_that_fails_leaves_nothing() {
    let host = Host::new();
    let fail = async |settings: &HostSettings, change: fn(&mut MachineSpec), expected: Cause| {
        let instance = Instance::create(settings).unwrap();
        let mut spec = spec();
        change(&mut spec);
        let error = Machine::start(&instance, spec).await.unwrap_err();
        assert_eq!(error.cause(), expected, "{error}");
        error.to_string()
    };
    let no_card = |spec: &mut MachineSpec| {
        let hardware = Hardware { network: "no-such-card".to_owned(), ..hardware() };
        spec.image = tiny(hardware);
    };
    let message = fail(&host.settings, no_card, Cause::QemuStart).await;
    assert!(message.contains("no-such-card"), "{message}");
    fail(&host.settings, |spec| spec.memory = ByteSize(1 << 50), Cause::HostMemory).await;
    let mut settings = host.settings.clone();
    settings.disk_reserve = ByteSize(1 << 60);
    fail(&settings, |_| {}, Cause::HostDiskFull).await;
    settings.disk_reserve = ByteSize(0);
    settings.qemu_img = "/nonexistent/qemu-img".into();
    fail(&settings, |_| {}, Cause::QemuMissing).await;
    settings.qemu = "/nonexistent/qemu".into();
    fail(&settings, |_| {}, Cause::QemuMissing).await;
    host.assert_empty();
}

/// Another user needs root; without it the start fails and says so.
#[tokio::test]
async fn qemu_runs_as_another_user() {
    let host = Host::new();
    let instance = host.instance();
    let nobody = 65534;
    // The way to the directories of this test, as an installed state directory has it.
    let instances = host.settings.state.join("instances");
    for path in [host.directory.path(), &host.settings.state, &instances, &host.settings.runtime] {
        let pass = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(path, pass).unwrap();
    }
    let mut spec = spec();
    spec.privileges = Privileges {
        uid: Some(nobody),
        gid: Some(nobody),
        groups: Some(vec![]),
        ..Privileges::default()
    };
    if nix::unistd::geteuid().is_root() {
        let (machine, _guest) = boot(&instance, spec).await;
        let status = format!("/proc/{}/status", machine.process_id().unwrap());
        let status = std::fs::read_to_string(status).unwrap();
        let value = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1)
        };
        assert_eq!(value("Uid:"), Some("65534"));
        assert_eq!(value("Groups:"), None);
        assert_eq!(value("Seccomp:"), Some("2"));
        assert_eq!(value("NoNewPrivs:"), Some("1"));
    } else {
        assert!(matches!(Machine::start(&instance, spec).await, Err(MachineError::Host(_))));
    }
    drop(instance);
    host.assert_empty();
}

/// No guest: QEMU must take every combination of devices that the catalogue can ask for.
#[tokio::test]
async fn qemu_accepts_every_hardware() {
    let host = Host::new();
    let instance = host.instance();
    let blank = host.directory.path().join("blank.qcow2");
    let made = Command::new(&host.settings.qemu_img)
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&blank)
        .arg("64M")
        .status()
        .unwrap();
    assert!(made.success());
    for machine in ["q35", "pc"] {
        for disk in [DiskModel::Virtio, DiskModel::Scsi, DiskModel::Ide] {
            for seed in [SeedDevice::Virtio, SeedDevice::IdeCdrom, SeedDevice::ScsiCdrom] {
                let network = if disk == DiskModel::Ide { "e1000" } else { "virtio-net-pci" };
                let hardware = Hardware {
                    machine: machine.to_owned(),
                    disk,
                    seed,
                    network: network.to_owned(),
                    firmware: None,
                    kernel_command_line: None,
                };
                let spec = MachineSpec::of(Arc::new(image(blank.clone(), hardware)), "x");
                start(&instance, spec).await.destroy().await;
            }
        }
    }
    drop(instance);
    host.assert_empty();
}

#[tokio::test]
async fn a_kept_machine_is_found_again_and_ends_in_time() {
    let host = Host::new();
    let instance = host.instance();
    let id = instance.id();
    let (machine, guest) = boot(&instance, spec()).await;
    guest.run("echo mine >/root/file", None, PATIENCE).await.unwrap();
    let until = Timestamp::from(SystemTime::now() + Duration::from_secs(20));
    machine.keep("r1", until).unwrap();
    drop((instance, guest));

    // Another program cleans up when it starts, and leaves the machine.
    // Until every process that another test forked meanwhile has become its own program, the lock
    // may seem held.
    let deadline = Instant::now() + PATIENCE;
    let report = loop {
        let report = sweep_dead(&host.settings).unwrap();
        if !report.kept.is_empty() || Instant::now() > deadline {
            break report;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((report.removed, report.kept), (vec![], vec![(id, until)]));
    let guard = {
        let settings = host.settings.clone();
        std::thread::spawn(move || watchdog::guard(&settings, id))
    };
    let kept = kept::find(&host.settings, "r1").unwrap();
    assert_eq!((kept.label.as_str(), kept.until), ("tiny", until));
    let guest = Guest::connect(kept.address, &kept.user, &kept.keys, PATIENCE).await.unwrap();
    assert_eq!(guest.run("cat /root/file", None, PATIENCE).await.unwrap().stdout, b"mine\n");
    let error = kept::find(&host.settings, "r2").unwrap_err();
    assert!(error.to_string().ends_with("kept are: r1"), "{error}");

    tokio::task::spawn_blocking(|| guard.join().unwrap().unwrap()).await.unwrap();
    assert!(Timestamp::now() >= until);
    assert!(kept::list(&host.settings).unwrap().is_empty());
    host.assert_empty();
}

/// Started by the tests below in a process of its own: starts a machine, says so, and waits to be
/// killed. Does nothing as a test.
#[tokio::test]
async fn owner_process() {
    let Some(directory) = std::env::var_os("SOLSTICE_TEST_OWNER") else { return };
    let instance = Instance::create(&settings(Path::new(&directory))).unwrap();
    let machine = start(&instance, spec()).await;
    let line = format!("\nowner: {} {}\n", instance.id(), machine.process_id().unwrap());
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    std::future::pending::<()>().await;
}

/// Runs [`owner_process`] until its machine runs, and kills it.
fn killed_owner(host: &Host) -> InstanceId {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner_process", "--nocapture"])
        .env("SOLSTICE_TEST_OWNER", host.directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find(|line| line.starts_with("owner: "));
    owner.kill().unwrap();
    owner.wait().unwrap();
    let line = line.expect("the owner started no machine");
    let words: Vec<&str> = line.split(' ').collect();
    assert!(Path::new("/proc").join(words[2]).exists(), "QEMU does not outlive its owner");
    words[1].parse().unwrap()
}

#[test]
fn what_a_killed_owner_left_is_adopted_and_ended() {
    let host = Host::new();
    let id = killed_owner(&host);
    let adopted = Instance::adopt_dead(&host.settings).unwrap();
    assert_eq!(adopted.iter().map(|instance| instance.id()).collect::<Vec<_>>(), [id]);
    for instance in adopted {
        // A machine that only lost its owner may be adopted, so this leaves it.
        assert!(instance.reconcile().unwrap().is_empty());
        assert_eq!(instance.destroy_all().unwrap().len(), 1);
        assert!(instance.close().unwrap());
    }
    host.assert_empty();
}

#[test]
fn the_watchdog_ends_what_a_killed_owner_left() {
    let host = Host::new();
    let id = killed_owner(&host);
    watchdog::guard(&host.settings, id).unwrap();
    host.assert_empty();
}

#[test]
fn a_process_without_a_record_is_ended() {
    let host = Host::new();
    let id = killed_owner(&host);
    let machines = host.settings.state.join("instances").join(id.to_string()).join("machines");
    std::fs::remove_dir_all(machines).unwrap();
    for instance in Instance::adopt_dead(&host.settings).unwrap() {
        assert_eq!(instance.reconcile().unwrap().len(), 1);
        assert!(instance.close().unwrap());
    }
    host.assert_empty();
}
