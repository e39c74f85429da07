//! Services that end and come back, or do not.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use common::ids::InstanceId;
use common::infrastructure::Cause;
use common::time::Timestamp;
use vm_manager::host::{FoundMachine, HostError, Instance, SERVICE_GRACE, sweep_dead, watchdog};
use vm_manager::machine::{AdoptError, Ended, Machine};

use super::host::{BOOT, Host, PATIENCE, adoptable, boot, end_of, last_command, spec, start};
use super::owner::killed_service;

/// The instance of a service whose owner has gone. Where that was this very process, the lock seems
/// to be its own as long as a child that another test forks has it.
fn reopen(host: &Host, id: InstanceId) -> Arc<Instance> {
    let until = Instant::now() + PATIENCE;
    loop {
        match Instance::open_service(&host.settings, id) {
            Err(HostError::InUse { .. }) if Instant::now() < until => std::thread::yield_now(),
            other => return other.unwrap(),
        }
    }
}

fn only_machine(instance: &Instance) -> FoundMachine {
    let machines = instance.machines().unwrap();
    assert_eq!(machines.len(), 1, "{machines:?}");
    machines.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_killed_service_adopts_its_machine() {
    let host = Host::new();
    let id = killed_service(&host);
    // Nobody else touches it meanwhile.
    let report = sweep_dead(&host.settings).unwrap();
    assert!(report.removed.is_empty() && report.errors.is_empty(), "{report:?}");

    let instance = reopen(&host, id);
    let error = Instance::open_service(&host.settings, id).unwrap_err();
    assert!(error.to_string().contains(&id.to_string()), "{error}");
    assert_eq!(instance.maintain().unwrap(), []);
    let found = only_machine(&instance);
    assert!(found.running && !found.owned && !found.kept);
    assert_eq!(found.label.as_deref(), Some("tiny"));
    let machine = Machine::adopt(&instance, found.vm).await.unwrap();
    assert!(only_machine(&instance).owned);
    assert_eq!(instance.maintain().unwrap(), []);

    let guest = machine.wait_ready(BOOT).await.unwrap();
    let done = guest.run("hostname; cat", Some(b"input"), PATIENCE).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "tiny\ninput");
    let mut lines = machine.console().lines();
    guest.run("echo are you there >/dev/console", None, PATIENCE).await.unwrap();
    let told = async {
        let mut known = Vec::new();
        while let Some(line) = lines.next().await {
            if line == "are you there" {
                return known;
            }
            known.push(line);
        }
        panic!("the console ended");
    };
    let known = tokio::time::timeout(PATIENCE, told).await.expect("the console is not followed");
    assert!(!known.is_empty(), "what was written before is lost");
    machine.destroy().await;
    assert!(instance.close().unwrap());
    host.assert_empty();
}

#[tokio::test]
async fn a_machine_that_was_left_goes_on_for_the_next_owner() {
    let host = Host::new();
    let instance = reopen(&host, InstanceId::new());
    let (machine, guest) = boot(&instance, adoptable()).await;
    guest.run("echo mine >/root/file", None, PATIENCE).await.unwrap();
    machine.pause().await.unwrap();
    let (id, vm) = (instance.id(), machine.id());
    machine.leave();
    assert_eq!(instance.maintain().unwrap(), []);
    assert!(!instance.close().unwrap());

    let instance = reopen(&host, id);
    let socket = host.settings.runtime.join(id.to_string()).join(vm.short()).join("qmp");
    let busy = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let error = Machine::adopt(&instance, vm).await.unwrap_err();
    assert!(matches!(error, AdoptError::Monitor { .. }), "{error}");
    assert!(only_machine(&instance).running, "it is left as it is");
    drop(busy);
    // It stood still when it was left.
    let machine = Machine::adopt(&instance, vm).await.unwrap();
    let again = machine.connect().await.unwrap();
    assert_eq!(again.run("cat /root/file", None, PATIENCE).await.unwrap().stdout, b"mine\n");
    assert!(guest.run("true", None, PATIENCE).await.unwrap().success(), "an old connection lives");
    machine.stop().await;
    drop(instance);
    host.assert_empty();
}

#[tokio::test]
async fn what_ended_while_nobody_watched_is_told_apart() {
    let host = Host::new();
    let mut instance = reopen(&host, InstanceId::new());
    let table = [
        ("poweroff -f", Ended::PoweredOff, Cause::GuestPoweredOff),
        ("reboot -f", Ended::Rebooted, Cause::GuestRebooted),
        ("echo c >/proc/sysrq-trigger", Ended::Panicked, Cause::GuestPanic),
    ];
    for (command, expected, cause) in table {
        let (machine, guest) = boot(&instance, adoptable()).await;
        let (id, vm) = (instance.id(), machine.id());
        machine.leave();
        drop(instance);
        last_command(&guest, command).await;
        instance = reopen(&host, id);
        let until = Instant::now() + PATIENCE;
        while only_machine(&instance).running {
            assert!(Instant::now() < until, "{command}: the machine did not end");
            tokio::task::yield_now().await;
        }
        assert_eq!(instance.maintain().unwrap(), [], "its console is still to be read");
        let machine = Machine::adopt(&instance, vm).await.unwrap();
        let ended = end_of(&machine).await;
        assert_eq!(ended, expected, "{command}");
        let failure = machine.failure(&ended);
        assert_eq!(failure.cause, cause, "{failure}");
        if cause == Cause::GuestPanic {
            assert!(failure.message.contains("Kernel panic - not syncing"), "{failure}");
        }
        drop(machine);
        assert_eq!(instance.machines().unwrap(), []);
    }
    drop(instance);
    host.assert_empty();
}

#[tokio::test]
async fn a_machine_that_nobody_could_adopt_does_not_stay() {
    let host = Host::new();
    let instance = reopen(&host, InstanceId::new());
    start(&instance, spec()).await.leave();
    assert_eq!(instance.machines().unwrap(), []);
    drop(instance);
    host.assert_empty();
}

/// Makes the owner of a service's instance seem to be away for longer than anybody waits for it.
fn let_grace_pass(host: &Host, id: InstanceId) {
    let path = host.settings.runtime.join(id.to_string()).join("last-seen");
    let mut seen: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let away = SystemTime::now() - SERVICE_GRACE;
    seen["boot"] = "another".into();
    seen["wall"] = Timestamp::from(away).to_string().into();
    std::fs::write(&path, serde_json::to_vec(&seen).unwrap()).unwrap();
}

#[test]
fn a_service_that_does_not_come_back_is_swept() {
    let host = Host::new();
    let id = killed_service(&host);
    assert!(sweep_dead(&host.settings).unwrap().removed.is_empty());
    let_grace_pass(&host, id);
    assert_eq!(sweep_dead(&host.settings).unwrap().removed.len(), 1);
    host.assert_empty();
}

#[test]
fn the_watchdog_ends_what_is_left_of_a_service_that_does_not_come_back() {
    let host = Host::new();
    let id = killed_service(&host);
    let_grace_pass(&host, id);
    watchdog::guard(&host.settings, id).unwrap();
    host.assert_empty();
}
