//! Terminals against OpenSSH.

use tokio::io::AsyncWriteExt;

use super::PATIENCE;
use super::sshd::Sshd;
use crate::ssh::{ExitStatus, Output, Terminal};

/// Reads until `text` was shown, and gives everything before it.
async fn shown(terminal: &mut Terminal, text: &str) -> String {
    let mut seen = String::new();
    let read = async {
        while !seen.contains(text) {
            match terminal.output.next().await.unwrap() {
                Some(Output::Stdout(bytes)) => seen.push_str(&String::from_utf8_lossy(&bytes)),
                other => panic!("{other:?} after {seen:?}"),
            }
        }
    };
    let waited = tokio::time::timeout(PATIENCE, read).await;
    assert!(waited.is_ok(), "{text:?} does not come: {seen:?}");
    seen
}

/// Reads to the end, and gives what was shown and the status. The server tells the status before it
/// has read the terminal to its end.
async fn rest(terminal: &mut Terminal) -> (String, Option<ExitStatus>) {
    let (mut seen, mut status) = (Vec::new(), None);
    while let Some(output) = terminal.output.next().await.unwrap() {
        match output {
            Output::Stdout(bytes) => seen.extend_from_slice(&bytes),
            Output::Exit(end) => status = Some(end),
            Output::Stderr(_) => panic!("a terminal has one stream"),
        }
    }
    (String::from_utf8_lossy(&seen).into_owned(), status)
}

#[tokio::test]
async fn a_terminal_has_a_size_that_follows() {
    let sshd = Sshd::start().await;
    let guest = sshd.login().await;
    let command = "tty -s && echo \"$TERM\"; stty size; read -r _; stty size; exit 8";
    let mut terminal = guest.terminal(Some(command), "xterm-256color", (100, 30)).await.unwrap();
    let first = shown(&mut terminal, "30 100").await;
    assert!(first.contains("xterm-256color"), "{first:?}");
    terminal.window.clone().resize(132, 43).await.unwrap();
    terminal.stdin.write_all(b"\r").await.unwrap();
    let (seen, status) = rest(&mut terminal).await;
    assert!(seen.contains("43 132"), "{seen:?}");
    assert_eq!(status, Some(ExitStatus::Code(8)));
    drop((terminal, guest));
    sshd.stop().await;
}

#[tokio::test]
async fn a_login_shell_runs_on_a_terminal() {
    let sshd = Sshd::start().await;
    let guest = sshd.login().await;
    let mut terminal = guest.terminal(None, "no such\nterminal", (80, 24)).await.unwrap();
    terminal.stdin.write_all(b"echo \"<$TERM$((6 * 7))>\"\r").await.unwrap();
    shown(&mut terminal, "<vt10042>").await;
    terminal.stdin.write_all(b"exit 7\r").await.unwrap();
    assert_eq!(rest(&mut terminal).await.1, Some(ExitStatus::Code(7)));
    drop((terminal, guest));
    sshd.stop().await;
}
