//! Commands against OpenSSH.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::PATIENCE;
use super::sshd::Sshd;
use crate::ssh::{ExitStatus, Guest, Output, Session, SshError};

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

/// The number that a command writes first: its process id.
async fn first_number(session: &mut Session) -> u32 {
    let Some(Output::Stdout(first)) = session.next().await.unwrap() else { panic!("a number") };
    String::from_utf8_lossy(&first).lines().next().unwrap().parse().unwrap()
}

/// What the process `pid` has written so far, from the kernel's count.
fn written(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
    line.parse().unwrap()
}

/// Waits until a counter of bytes stands still: every buffer on the way is full.
async fn stands_still(count: impl Fn() -> u64) {
    let still = async {
        let (mut last, mut looks) = (0, 0);
        while looks < 10 {
            tokio::time::sleep(LOOK).await;
            let now = count();
            assert!(now < 32 << 20, "{now} bytes went somewhere");
            looks = if now == last && now > 0 { looks + 1 } else { 0 };
            last = now;
        }
    };
    tokio::time::timeout(PATIENCE, still).await.expect("the counter stands still");
}

#[tokio::test]
async fn a_reader_that_stops_blocks_the_guest_until_it_gives_up() {
    let sshd = Sshd::start().await;
    let guest = sshd.login().await;
    let mut session = guest.exec("echo $$; exec cat /dev/zero").await.unwrap();
    let pid = first_number(&mut session).await;
    // The writer stands still once every buffer between it and us is full.
    stands_still(|| written(pid)).await;

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
    // A command that reads nothing, and ends when the test is through.
    let flag = sshd.path("flag");
    let command = format!("echo $$; until [ -e '{flag}' ]; do sleep 0.05; done");
    let mut session = guest.exec(&command).await.unwrap();
    let pid = first_number(&mut session).await;
    let taken = std::cell::Cell::new(0_u64);
    let write = async {
        let block = [b'x'; 32 * 1024];
        loop {
            match session.stdin.write(&block).await {
                Ok(count) => taken.set(taken.get() + count as u64),
                Err(error) => break error,
            }
        }
    };
    let cut = async {
        stands_still(|| taken.get()).await;
        sshd.cut();
    };
    let both = async { tokio::join!(write, cut).0 };
    let error = tokio::time::timeout(PATIENCE, both).await.expect("the write ends");
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    std::fs::write(&flag, "").unwrap();
    let process = format!("/proc/{pid}");
    let gone = async {
        while std::path::Path::new(&process).exists() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the command ends");
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
