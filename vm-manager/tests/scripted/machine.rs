//! A machine with a scripted guest, as vm-manager sees it.

use std::time::Duration;

use common::infrastructure::Cause;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use simulators::{Boot, BootEnd};
use tokio::time::Instant;
use vm_manager::machine::{ConsoleCause, Ended, Machine, MachineError};
use vm_manager::ssh::Guest;

use crate::host::{Conversation, Host, PATIENCE, end_of, hand_over, place, program};

fn boot(end: BootEnd) -> Boot {
    Boot { time: Duration::ZERO, end }
}

async fn out(guest: &Guest, command: &str, stdin: &[u8]) -> String {
    let done = guest.run(command, Some(stdin), PATIENCE).await.unwrap();
    assert!(done.success(), "{command}: {}", done.complaint());
    String::from_utf8(done.stdout).unwrap()
}

#[tokio::test]
async fn a_guest_answers_and_leaves_nothing() {
    let host = Host::new();
    let (machine, guest) = host.boot().await;
    assert_eq!(out(&guest, "hostname", b"").await, "scripted\n");
    assert_eq!(out(&guest, "cat", b"input").await, "input");
    assert_eq!(out(&guest, "echo it's", b"").await, "it's\n");
    let done = guest.run("exit 3", None, PATIENCE).await.unwrap();
    assert_eq!(done.complaint(), "exit status 3");
    let done = guest.run("make test", None, PATIENCE).await.unwrap();
    assert!(done.complaint().contains("make test: not found"), "{}", done.complaint());
    let again = machine.connect().await.unwrap();
    assert_eq!(out(&again, "lines 2 1", b"").await, "line 1\nline 2\n");
    assert!(machine.console().tail(5).iter().any(|line| line.contains("SSH server listens")));
    machine.stop().await;
    host.assert_empty();
}

#[tokio::test]
async fn files_are_replaced_and_read_back() {
    let host = Host::new();
    let (machine, guest) = host.boot().await;
    for text in ["first", "the second"] {
        let size = text.len() as u64;
        guest.upload(text.as_bytes(), size, "/tmp/file", 0o644, PATIENCE).await.unwrap();
        let mut read = Vec::new();
        guest.download("/tmp/file", &mut read, 100, PATIENCE).await.unwrap();
        assert_eq!(read, text.as_bytes());
    }
    let error = guest.download("/none", &mut Vec::new(), 100, PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
    let missing = guest.run(&format!("{} version", program()), None, PATIENCE).await.unwrap();
    assert!(missing.complaint().contains("not found"), "{}", missing.complaint());
    place(&guest).await;
    assert!(out(&guest, &format!("{} version", program()), b"").await.contains("scripted"));
    assert_eq!(out(&guest, &format!("{} unpack /x", program()), &[0; 4096]).await, "");
    machine.destroy().await;
    host.assert_empty();
}

#[tokio::test]
async fn only_the_key_of_the_seed_is_let_in() {
    let host = Host::new();
    let (machine, _guest) = host.boot().await;
    let other = vm_manager::ssh::Keys::from_login(
        &vm_manager::ssh::Keys::generate().unwrap().login_private_openssh(),
        &machine.keys().host_public_line(),
    )
    .unwrap();
    let error = Guest::connect(machine.address(), "root", &other, PATIENCE).await.unwrap_err();
    assert!(matches!(error, vm_manager::ssh::SshError::Refused { .. }), "{error}");
    let error =
        Guest::connect(machine.address(), "somebody", machine.keys(), PATIENCE).await.unwrap_err();
    assert!(matches!(error, vm_manager::ssh::SshError::Refused { .. }), "{error}");
    machine.destroy().await;
    host.assert_empty();
}

#[tokio::test]
async fn a_paused_guest_goes_on_where_it_was() {
    let host = Host::new();
    let (machine, guest) = host.boot().await;
    let begun = Instant::now();
    let sleep = guest.run("sleep 2000", None, PATIENCE);
    tokio::pin!(sleep);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut sleep).await.is_err());
    machine.pause().await.unwrap();
    machine.pause().await.unwrap();
    let answer = guest.run("hostname", None, PATIENCE);
    tokio::pin!(answer);
    let standing = Duration::from_millis(500);
    // A guest that stands still answers nothing, however long one waits; half a second tells.
    tokio::select! {
        _ = &mut answer => panic!("a paused guest answered"),
        _ = &mut sleep => panic!("the time of a paused guest goes on"),
        () = tokio::time::sleep(standing) => {}
    }
    machine.resume().await.unwrap();
    assert_eq!(answer.await.unwrap().stdout, b"scripted\n");
    assert!(sleep.await.unwrap().success());
    assert!(begun.elapsed() >= Duration::from_millis(2000) + standing);
    assert_eq!(*machine.ended().borrow(), None);
    machine.destroy().await;
    host.assert_empty();
}

#[tokio::test]
async fn a_frozen_guest_is_silent_and_comes_back() {
    let host = Host::new();
    let (machine, guest) = host.boot().await;
    let begun = Instant::now();
    drop(guest.run("freeze 400", None, PATIENCE).await);
    let late = guest.run("echo back", None, PATIENCE).await.unwrap();
    assert_eq!(late.stdout, b"back\n");
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    machine.destroy().await;
    host.assert_empty();
}

#[tokio::test]
async fn ends_are_told_apart() {
    let host = Host::new();
    let table = [
        ("poweroff", Cause::GuestPoweredOff, "the machine powered itself off"),
        ("reboot", Cause::GuestRebooted, "the machine rebooted"),
        ("panic", Cause::GuestPanic, "the guest's kernel panicked"),
        ("diskfull", Cause::HostDiskFull, "No space left on device"),
    ];
    for (command, cause, expected) in table {
        let (machine, guest) = host.boot().await;
        let command_ends = guest.run(command, None, PATIENCE);
        let ended = tokio::select! {
            ended = end_of(&machine) => ended,
            // The connection may break before the news of the end arrive.
            Err(_) = command_ends => end_of(&machine).await,
        };
        assert!(ended.to_string().contains(expected), "{command}: {ended}");
        let failure = machine.failure(&ended);
        assert_eq!(failure.cause, cause, "{failure}");
        if cause == Cause::GuestPanic {
            assert!(failure.message.contains("Kernel panic - not syncing"), "{failure}");
        }
        machine.destroy().await;
    }
    host.assert_empty();
}

#[tokio::test]
async fn a_killed_qemu_is_named() {
    let host = Host::new();
    for (signal, expected) in
        [(Signal::SIGKILL, "SIGKILL"), (Signal::SIGTERM, "it shut down: host-signal")]
    {
        let (machine, _guest) = host.boot().await;
        kill(Pid::from_raw(machine.process_id().unwrap()), signal).unwrap();
        let ended = end_of(&machine).await;
        let Ended::QemuGone { detail } = &ended else { panic!("{ended:?}") };
        assert!(detail.contains(expected), "{detail}");
        assert_eq!(machine.failure(&ended).cause, Cause::QemuKilled);
        machine.destroy().await;
    }
    host.assert_empty();
}

#[tokio::test]
async fn a_guest_program_that_dies_leaves_its_cause_on_the_console() {
    let host = Host::new();
    for (script, cause) in [("die", None), ("oom", Some("Out of memory: Killed process"))] {
        let (machine, guest, document) =
            host.job(&[&format!("echo last\n{script}\necho never")]).await;
        let mut conversation = Conversation::open(&guest, document.job).await;
        let attach = common::guest::ToGuest::Attach { version: 1, from: 1 };
        conversation.send(&attach).await;
        while let Some(frame) = conversation.next().await {
            assert!(!format!("{frame:?}").contains("\"never\""), "{frame:?}");
        }
        let mut again = Conversation::open(&guest, document.job).await;
        let reason = again.refusal().await;
        assert!(reason.starts_with(&format!("no daemon of job {}", document.job)), "{reason}");
        assert_eq!(*machine.ended().borrow(), None, "the machine runs on");
        let told = hand_over(&guest, &document).await.complaint();
        assert!(told.contains("was started before and is gone"), "{told}");
        // The console is looked at now and then.
        let deadline = Instant::now() + PATIENCE;
        while cause.is_some() && machine.console().cause().is_none() {
            assert!(Instant::now() < deadline, "the console says nothing");
            tokio::task::yield_now().await;
        }
        match (machine.console().cause(), cause) {
            (None, None) => {}
            (Some(ConsoleCause::OutOfMemory(line)), Some(words)) => {
                assert!(line.starts_with(words), "{line}");
            }
            other => panic!("{other:?}"),
        }
        machine.destroy().await;
    }
    host.assert_empty();
}

#[tokio::test]
async fn boots_that_fail() {
    let host = Host::new();
    for end in [BootEnd::Fail, BootEnd::Panic, BootEnd::Hang] {
        host.scripted.plan_boot(boot(end)).unwrap();
    }
    let error = Machine::start(&host.instance, host.spec().await).await.unwrap_err();
    assert!(error.to_string().contains("cannot set up guest memory"), "{error}");
    assert_eq!(error.cause(), Cause::QemuStart);

    let machine = host.start().await;
    let error = machine.wait_ready(PATIENCE).await.unwrap_err();
    assert_eq!(error.cause(), Cause::GuestPanic, "{error}");
    drop(machine);

    let machine = host.start().await;
    let error = machine.wait_ready(Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, MachineError::BootTimeout { .. }), "{error}");
    machine.stop().await;

    // Every plan was for one boot.
    let (machine, _guest) = host.boot().await;
    machine.destroy().await;
    host.assert_empty();
}

#[tokio::test]
async fn a_boot_takes_its_time_and_a_login_may_be_refused() {
    let host = Host::new();
    let time = Duration::from_millis(400);
    host.scripted.set_boot(Boot { time, end: BootEnd::Refuse }).unwrap();
    let begun = Instant::now();
    let machine = host.start().await;
    machine.wait_answer(PATIENCE).await.unwrap();
    assert!(begun.elapsed() >= time);
    let error = machine.connect().await.unwrap_err();
    assert!(matches!(error, vm_manager::ssh::SshError::Refused { .. }), "{error}");
    machine.destroy().await;
    host.assert_empty();
}
