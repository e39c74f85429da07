//! Machines with a real guest: the `tiny` image under QEMU.
//!
//! `SOLSTICE_IMAGE_DIR` names an image store that has the tiny image, `SOLSTICE_TEST_DIR` a directory
//! on disk. Every test has directories of its own and asserts that nothing is left in them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

#[path = "guest/adoption.rs"]
mod adoption;
#[path = "guest/host.rs"]
mod host;
#[path = "guest/owner.rs"]
mod owner;
#[path = "guest/templates.rs"]
mod templates;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use common::infrastructure::Cause;
use common::size::ByteSize;
use common::time::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vm_manager::host::{HostSettings, Instance, kept, sweep_dead, watchdog};
use vm_manager::image::{DiskModel, Entry, Hardware, Image, SeedDevice};
use vm_manager::machine::{Ended, Machine, MachineError, MachineSpec, Privileges};
use vm_manager::ssh::Guest;

use self::host::{
    BOOT, Host, PATIENCE, boot, end_of, hardware, image, last_command, memory, readable_copy, spec,
    spec_with, start, tiny,
};

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
async fn commands_have_the_images_privilege_on_every_connection() {
    let host = Host::new();
    let instance = host.instance();
    let image = tiny(hardware());
    let privilege = ["env", "ROOT=yes"].map(str::to_owned).to_vec();
    let entry = Arc::new(Entry { privilege, ..(*image.entry).clone() });
    let image = Arc::new(Image { entry, ..(*image).clone() });
    let (machine, guest) = boot(&instance, MachineSpec::of(image, "tiny")).await;
    let root = async |guest: &Guest| guest.run("echo $ROOT", None, PATIENCE).await.unwrap().stdout;
    assert_eq!(root(&guest).await, b"yes\n");
    // The server's process for this connection.
    last_command(&guest, "kill -9 $PPID").await;
    tokio::time::timeout(PATIENCE, guest.closed()).await.expect("the connection was not cut");
    let again = machine.connect().await.unwrap();
    assert_eq!(root(&again).await, b"yes\n");
    machine.destroy().await;
    drop(instance);
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
    let host = Host::for_other_users();
    let instance = host.instance();
    let images = memory();
    let image = readable_copy(&tiny(hardware()), images.path());
    let mut spec = MachineSpec::of(Arc::new(image), "tiny");
    let nobody = 65534;
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
    let blank = host.state.path().join("blank.qcow2");
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
