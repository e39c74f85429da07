//! Owners that are killed, and what becomes of their machines.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::ids::InstanceId;
use vm_manager::host::{Instance, watchdog};

use super::host::{Host, adoptable, settings, spec, start};

/// Started by the tests below in a process of its own: starts a machine, says so, and waits to be
/// killed. With an id it is the service of that id. Does nothing as a test.
#[tokio::test]
async fn owner_process() {
    let Some(directories) = std::env::var_os("SOLSTICE_TEST_OWNER") else { return };
    let directories: Vec<PathBuf> = std::env::split_paths(&directories).collect();
    let settings = settings(&directories[0], &directories[1]);
    let service = std::env::var("SOLSTICE_TEST_SERVICE").ok();
    let (instance, spec) = match service {
        Some(id) => (Instance::open_service(&settings, id.parse().unwrap()), adoptable()),
        None => (Instance::create(&settings), spec()),
    };
    let instance = instance.unwrap();
    let machine = start(&instance, spec).await;
    let line = format!("\nowner: {} {}\n", instance.id(), machine.process_id().unwrap());
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    std::future::pending::<()>().await;
}

/// Runs [`owner_process`] until its machine runs, and kills it.
fn killed_owner(host: &Host) -> InstanceId {
    killed(host, None)
}

/// Likewise, as a service.
pub(crate) fn killed_service(host: &Host) -> InstanceId {
    killed(host, Some(InstanceId::new()))
}

fn killed(host: &Host, service: Option<InstanceId>) -> InstanceId {
    let directories = std::env::join_paths([host.state.path(), host.runtime.path()]).unwrap();
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner::owner_process", "--nocapture"])
        .env("SOLSTICE_TEST_OWNER", directories)
        .envs(service.map(|id| ("SOLSTICE_TEST_SERVICE", id.to_string())))
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
