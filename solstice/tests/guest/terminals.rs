//! Runs and shells on a user's terminal.

use crate::harness::{Terminal, empty, steps};

/// What a terminal sends for Ctrl-C, Ctrl-Q and Ctrl-S.
const CTRL_C: &str = "\x03";
const CTRL_Q: &str = "\x11";
const CTRL_S: &str = "\x13";

#[test]
fn a_shell_in_a_fresh_machine_has_the_users_terminal() {
    let mut terminal = Terminal::run(empty(), &["shell", "tiny"], (101, 33));
    terminal.wait_for("# ").keys("stty size\r").wait_for("33 101\r\n");
    // Every key is the guest's, Ctrl-C included.
    terminal.wait_for("# ").keys("echo on''e; cat\r").wait_for("one\r\n");
    terminal.keys("two\r").wait_for("two\r\ntwo\r\n").keys(CTRL_C);
    terminal.wait_for("# ").keys("echo \"it was $?\"\r").wait_for("it was 130\r\n");
    terminal.resize(90, 40);
    terminal
        .keys("until [ \"$(stty size)\" = '40 90' ]; do usleep 20000; done; echo re''sized\r")
        .wait_for("resized\r\n");
    let (code, rest) = terminal.keys("exit 7\r").end();
    assert_eq!(code, 7, "{rest}");
    let settings = terminal.settings();
    assert!(settings.contains(" icanon") && settings.contains(" echo "), "{settings}");
}

#[test]
fn a_stopped_terminal_does_not_stop_the_job() {
    let story = steps(
        "- run: |\n    echo start''ed\n    seq 1 100000\n    sync; poweroff -f\n    sleep 100",
    );
    let mut terminal = Terminal::run(story, &["run"], (80, 24));
    terminal.wait_for("started\r\n").keys(CTRL_S);
    // The step goes on, and what it does to its machine is seen.
    terminal.unread_until("the machine is removed", |story| !story.has_machine());
    let shown = terminal.shown();
    assert!(!shown.contains("SOL-GUEST-POWERED-OFF"), "it was not stopped:\n{shown}");
    let (code, rest) = terminal.keys(CTRL_Q).end();
    assert_eq!(code, 2, "{rest}");
    assert!(rest.contains("SOL-GUEST-POWERED-OFF"), "{rest}");
}

#[test]
fn ctrl_c_works_on_a_terminal_that_nobody_reads() {
    let story = steps("- run: |\n    echo start''ed\n    while :; do seq 1 10000; done");
    let mut terminal = Terminal::run(story, &["run"], (80, 24));
    terminal.wait_for("started\r\n").wait_for("9999\r\n").keys(CTRL_S);
    // All that can wait is full when the cancel comes.
    terminal.shown();
    terminal.keys(CTRL_C);
    terminal.unread_until("the machine is removed", |story| !story.has_machine());
    // What is left to say still has no reader; the user need not wait for that.
    assert_eq!(terminal.keys(CTRL_C).unread_end(), 130);
}
