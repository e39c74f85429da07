//! The program as a process: what it says, what it costs, and what it refuses.

use std::process::{Command, Output};
use std::time::Duration;

use simulators::ScriptedHost;
use tokio::time::Instant;
use vm_manager::host::{Acceleration, Accelerator, Qemu};

use crate::host::{Host, PATIENCE};

/// What one guest may use of memory for itself while it waits for its job. Pages of the program are
/// shared by all guests of a host.
const MEMORY: u64 = 2 << 20;

fn call(program: std::path::PathBuf, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

#[tokio::test]
async fn it_is_found_as_qemu_is() {
    let host = Host::new();
    let qemu = Qemu::find(&host.settings.qemu).await.unwrap();
    let said = call(host.scripted.qemu_img(), &["--version"]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.starts_with(&format!("qemu-img version {}", qemu.version)), "{said}");
    // With KVM or without: the probe guest gets through wherever it is run.
    let mut settings = host.settings.clone();
    settings.acceleration = None;
    let found = Accelerator::probe(&settings, &qemu).await.unwrap();
    let opens = std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
    let expected = if opens { Acceleration::Kvm } else { Acceleration::Tcg };
    assert_eq!(found.acceleration, expected, "{found:?}");
    std::fs::remove_file(settings.state.join("acceleration.json")).ok();
    host.assert_empty();
}

#[test]
fn its_role_is_its_name_or_its_first_argument() {
    let directory = tempfile::tempdir().unwrap();
    let host = ScriptedHost::new(directory.path()).unwrap();
    let program = std::fs::canonicalize(host.qemu()).unwrap();
    let said = call(program.clone(), &["qemu-img", "--version"]);
    assert!(said.stdout.starts_with(b"qemu-img version"), "{said:?}");
    let said = call(program.clone(), &["qemu-system-x86_64", "--version"]);
    assert!(said.stdout.starts_with(b"QEMU emulator version"), "{said:?}");
    let said = call(program, &["--version"]);
    assert_eq!(said.status.code(), Some(64), "{said:?}");
    let said = call(host.qemu(), &["-frobnicate", "x"]);
    assert_eq!(said.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&said.stderr);
    assert_eq!(complaint, "qemu-system-x86_64: -frobnicate: invalid option\n");
}

#[tokio::test]
async fn it_costs_little() {
    let host = Host::new();
    let begun = Instant::now();
    let (machine, guest) = host.boot().await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "booting took {took:?}");
    guest.run("true", None, PATIENCE).await.unwrap();
    let pid = machine.process_id().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let own = value("RssAnon:") * 1024;
    assert!(own < MEMORY, "{own} bytes; {status}");
    assert_eq!(value("Threads:"), 1);
    machine.destroy().await;
    host.assert_empty();
}
