//! `workflow-runner start`: hands the job document to a daemon and waits until it runs.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::guest::{ATTACH_VERSION, START_WORD};

use super::{GuestError, daemon, document};

/// How long the daemon may take until it says that it runs: a busy emulated machine may need
/// seconds to load a program.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// The bytes that a daemon's answer may have.
const ANSWER_BYTES: u64 = 4096;

/// Starts the job whose document is `input`, and writes the line by which a host knows that it runs.
/// A job that runs already is not started again; the line is the same.
///
/// # Errors
/// The document cannot be used, or the daemon did not start; nothing is left running then.
pub fn start(base: &Path, input: impl Read, mut output: impl Write) -> Result<(), GuestError> {
    let bytes = document::read(input)?;
    let job = document::parse(&bytes)?.job;
    let program = std::env::current_exe().map_err(GuestError::io("find", "this program"))?;
    let mut child = Command::new(&program)
        .arg("daemon")
        .arg(base)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(GuestError::io("start", &program))?;
    match converse(&mut child, bytes) {
        Ok(()) => {}
        Err(error) => {
            drop(child.kill());
            drop(child.wait());
            return Err(error);
        }
    }
    writeln!(output, "{START_WORD} {ATTACH_VERSION} {job}")
        .and_then(|()| output.flush())
        .map_err(GuestError::io("write to", "the standard output"))
}

/// Sends the document and waits for the answer.
fn converse(child: &mut Child, document: Vec<u8>) -> Result<(), GuestError> {
    let mut input = child.stdin.take().expect("it was asked for");
    let output = child.stdout.take().expect("it was asked for");
    let (sender, answer) = mpsc::channel();
    // A thread, because a pipe cannot be read or written with a deadline.
    thread::spawn(move || {
        // A daemon that ends early says why on its output.
        drop(input.write_all(&document));
        drop(input);
        let mut line = String::new();
        drop(output.take(ANSWER_BYTES).read_to_string(&mut line));
        drop(sender.send(line));
    });
    let line = answer.recv_timeout(START_DEADLINE).map_err(|_| {
        GuestError::NotReady(format!("no answer within {} seconds", START_DEADLINE.as_secs()))
    })?;
    match line.trim_end() {
        daemon::READY => Ok(()),
        "" => Err(GuestError::NotReady("it ended without a word".to_owned())),
        line => Err(match line.strip_prefix(daemon::FULL) {
            Some(reason) => GuestError::DiskFull(reason.to_owned()),
            None => GuestError::NotReady(line.to_owned()),
        }),
    }
}
