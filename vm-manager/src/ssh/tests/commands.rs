//! Commands against OpenSSH.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::PATIENCE;
use super::sshd::Sshd;
use crate::ssh::{ExitStatus, Guest, Output, SshError};

/// How often a test looks at a counter that it waits for.
const LOOK: Duration = Duration::from_millis(20);

#[tokio::test]
async fn streams_are_apart_and_the_status_is_told() {
    let sshd = Sshd::start().await;
    let guest = sshd.login().await;
    let done = guest.run("echo out; echo err >&2; exit 42", None, PATIENCE).await.unwrap();
    assert_eq!(done.status, ExitStatus::Code(42));
    assert_eq!((&done.stdout[..], &done.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(done.complaint(), "exit status 42: err");
    assert!(!done.success() && !done.truncated);

    let killed = guest.run("kill -KILL $$", None, PATIENCE).await.unwrap();
    assert_eq!(killed.status, ExitStatus::Signal("KILL".to_owned()));

    let input = vec![b'x'; 300_000];
    let echoed = guest.run("cat", Some(&input), PATIENCE).await.unwrap();
    assert!(echoed.success() && echoed.stdout == input);
    drop(guest);
    sshd.stop().await;
}

#[tokio::test]
async fn input_that_nobody_reads_hangs_nothing() {
    let sshd = Sshd::start().await;
    let guest = sshd.login().await;
    let input = vec![b'x'; 16 << 20];
    let done = guest.run("exit 3", Some(&input), PATIENCE).await.unwrap();
    assert_eq!(done.status, ExitStatus::Code(3));

    let mut session = guest.exec("exec 0<&-; exit 4").await.unwrap();
    let error = loop {
        if let Err(error) = session.stdin.write_all(&input).await {
            break error;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    drop((session, guest));
    sshd.stop().await;
}

#[tokio::test]
async fn output_comes_live_and_input_goes_live() {
    let sshd = Sshd::start().await;
    let guest = sshd.login().await;
    let mut session =
        guest.exec("while read -r line; do echo \"got $line\"; done; exit 5").await.unwrap();
    for word in ["one", "two"] {
        session.stdin.write_all(format!("{word}\n").as_bytes()).await.unwrap();
        let expected = Output::Stdout(format!("got {word}\n").into());
        assert_eq!(session.next().await.unwrap(), Some(expected));
    }
    session.stdin.shutdown().await.unwrap();
    assert_eq!(session.next().await.unwrap(), Some(Output::Exit(ExitStatus::Code(5))));
    assert_eq!(session.next().await.unwrap(), None);
    assert_eq!(session.next().await.unwrap(), None);
    drop((session, guest));
    sshd.stop().await;
}

#[tokio::test]
async fn many_lines_arrive_whole_and_in_order_at_a_slow_reader() {
    let sshd = Sshd::start().await;
    let guest = sshd.login().await;
    let mut session = guest.exec("seq 1 200000; seq 200001 200010 >&2").await.unwrap();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(output) = session.next().await.unwrap() {
        match output {
            Output::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            Output::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            Output::Exit(status) => assert!(status.success()),
        }
        // Everybody else has a turn before the next piece.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
    let lines = |from: u32, to: u32| -> Vec<u8> {
        (from..=to).flat_map(|number| format!("{number}\n").into_bytes()).collect()
    };
    assert!(stdout == lines(1, 200_000));
    assert!(stderr == lines(200_001, 200_010));
    drop((session, guest));
    sshd.stop().await;
}

/// What the process `pid` has written so far, from the kernel's count.
fn written(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
    line.parse().unwrap()
}

#[tokio::test]
async fn a_reader_that_stops_blocks_the_guest_until_it_gives_up() {
    let sshd = Sshd::start().await;
    let guest = sshd.login().await;
    let mut session = guest.exec("echo $$; exec cat /dev/zero").await.unwrap();
    let Some(Output::Stdout(first)) = session.next().await.unwrap() else { panic!("a pid") };
    let first = String::from_utf8_lossy(&first).into_owned();
    let pid = first.lines().next().unwrap().parse().unwrap();

    // The writer stands still once every buffer between it and us is full.
    let blocked = async {
        let (mut last, mut still) = (0, 0);
        while still < 10 {
            tokio::time::sleep(LOOK).await;
            let now = written(pid);
            assert!(now < 32 << 20, "{now} bytes went somewhere");
            still = if now == last && now > 0 { still + 1 } else { 0 };
            last = now;
        }
    };
    tokio::time::timeout(PATIENCE, blocked).await.expect("the writer is blocked");

    drop(session);
    assert!(guest.run("true", None, PATIENCE).await.unwrap().success());
    drop(guest);
    sshd.stop().await;
}

#[tokio::test]
async fn run_keeps_a_bounded_beginning() {
    let sshd = Sshd::start().await;
    let guest = sshd.login().await;
    let done = guest.run("head -c 3000000 /dev/zero; echo end >&2", None, PATIENCE).await.unwrap();
    assert!(done.success() && done.truncated);
    assert_eq!((done.stdout.len(), &done.stderr[..]), (1 << 20, &b"end\n"[..]));
    drop(guest);
    sshd.stop().await;
}

#[tokio::test]
async fn a_prefix_runs_commands_with_other_rights() {
    let sshd = Sshd::start().await;
    let prefix = ["env".to_owned(), "WHO=the root user".to_owned()];
    let guest = sshd.login().await.with_privilege(&prefix);
    let done = guest.run("echo \"$WHO\" | tr a-z A-Z; exit 6", None, PATIENCE).await.unwrap();
    assert_eq!(done.stdout, b"THE ROOT USER\n");
    assert_eq!(done.status, ExitStatus::Code(6));
    drop(guest);
    sshd.stop().await;
}

#[tokio::test]
async fn a_command_with_a_nul_is_not_sent() {
    let sshd = Sshd::start().await;
    let guest = sshd.login().await;
    assert!(matches!(guest.exec("echo \0").await, Err(SshError::Nul(_))));
    drop(guest);
    sshd.stop().await;
}

#[tokio::test]
async fn a_cut_connection_ends_everything_on_it_with_an_error() {
    let sshd = Sshd::start().await;
    let guest = sshd.login().await;
    let mut session = guest.exec("echo started; cat >/dev/null").await.unwrap();
    assert!(matches!(session.next().await.unwrap(), Some(Output::Stdout(_))));
    assert!(!guest.is_closed());
    sshd.cut();
    let ends = async {
        assert!(matches!(session.next().await, Err(SshError::Lost { .. })));
        assert!(matches!(guest.closed().await, SshError::Lost { .. }));
        assert!(session.stdin.write_all(b"more").await.is_err());
        assert!(guest.is_closed());
        assert!(matches!(guest.exec("true").await, Err(SshError::Lost { .. })));
    };
    tokio::time::timeout(PATIENCE, ends).await.expect("nothing hangs");
    drop((session, guest));
    sshd.stop().await;
}

#[tokio::test]
async fn a_cut_connection_ends_a_write_that_waits_for_room() {
    let sshd = Sshd::start().await;
    let guest = sshd.login().await;
    // A reader too slow to take the input before the connection is gone.
    let command = "echo started; exec dd bs=1 of=/dev/null 2>/dev/null";
    let mut session = guest.exec(command).await.unwrap();
    assert!(matches!(session.next().await.unwrap(), Some(Output::Stdout(_))));
    let input = vec![b'x'; 64 << 20];
    let write = session.stdin.write_all(&input);
    let cut = async {
        tokio::task::yield_now().await;
        sshd.cut();
    };
    let both = async { tokio::join!(write, cut).0 };
    let result = tokio::time::timeout(PATIENCE, both).await.expect("the write ends");
    assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    drop((session, guest));
    sshd.stop().await;
}

#[tokio::test]
async fn closing_ends_the_sessions() {
    let sshd = Sshd::start().await;
    let guest = sshd.login().await;
    let other: Guest = guest.clone();
    let mut session = other.exec("cat").await.unwrap();
    tokio::time::timeout(PATIENCE, guest.close()).await.expect("it closes");
    assert!(guest.is_closed() && other.is_closed());
    assert!(matches!(session.next().await, Err(SshError::Lost { .. })));
    drop((session, guest, other));
    sshd.stop().await;
}
