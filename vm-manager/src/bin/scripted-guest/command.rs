//! Commands that the host runs over SSH: those of the guest program, some of the system, the lines
//! of [`script`], and a shell that reads such lines from its input.

use std::convert::Infallible;
use std::sync::Arc;

use common::event::Stream;
use russh::server::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio_util::sync::CancellationToken;

use crate::machine::Machine;
use crate::program;
use crate::script::{self, Ended, Output};
use crate::words;

/// The number of an SSH data message that is standard error (RFC 4254, section 5.2).
const STANDARD_ERROR: u32 = 1;

/// The line of a shell's input at which the shell ends and nobody says how.
const VANISH: &str = "vanish\n";

/// What a shell exits with for a command that is not there.
pub(crate) const NOT_FOUND: u8 = 127;

/// Runs a command line to its end.
pub(crate) async fn run(machine: Arc<Machine>, channel: Channel<Msg>, line: String) {
    let (read, write) = channel.split();
    let mut input = Input { read };
    let mut terminal = Terminal { write };
    let code = match words::wrapped(&line) {
        Some(command) => perform(&machine, &command, &mut input, &mut terminal).await,
        None => {
            terminal.stderr(&format!("sh: cannot read {line:?}\n")).await;
            Some(NOT_FOUND)
        }
    };
    let Terminal { write } = terminal;
    // Nobody may listen any more.
    if let Some(code) = code {
        drop(write.exit_status(code.into()).await);
    }
    drop(write.eof().await);
    drop(write.close().await);
}

/// The code that the command ends with; `None` where it ends without one.
async fn perform(
    machine: &Arc<Machine>,
    command: &str,
    input: &mut Input,
    terminal: &mut Terminal,
) -> Option<u8> {
    let words = words::split(command).unwrap_or_default();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Some(match &words[..] {
        ["mkdir", ..] | ["LC_ALL=C", "mkdir", ..] | ["true"] => 0,
        ["hostname"] => {
            terminal.stdout(format!("{}\n", machine.seed.hostname).into_bytes()).await;
            0
        }
        ["cat"] => {
            while let Some(bytes) = input.next().await {
                terminal.stdout(bytes).await;
            }
            0
        }
        [path, arguments @ ..] if path.ends_with("/workflow-runner") => {
            if !machine.files.has(path) {
                terminal.stderr(&format!("sh: {path}: not found\n")).await;
                return Some(NOT_FOUND);
            }
            program::main(machine, arguments, input, terminal).await
        }
        ["exec", shell] if shell.contains("SHELL") => {
            let mut script = Vec::new();
            while let Some(bytes) = input.next().await {
                script.extend_from_slice(&bytes);
            }
            let script = String::from_utf8_lossy(&script);
            let (script, vanishes) = match script.split_once(VANISH) {
                Some((before, _)) => (before, true),
                None => (&*script, false),
            };
            let code = run_script(script, machine, terminal).await;
            return (!vanishes).then_some(code);
        }
        _ => run_script(command, machine, terminal).await,
    })
}

async fn run_script(script: &str, machine: &Arc<Machine>, terminal: &mut Terminal) -> u8 {
    match script::run(script, machine, terminal, &CancellationToken::new()).await {
        Ended::Exit(code) => code,
        Ended::NoSpace => 1,
        Ended::Cancelled => unreachable!("nobody has the token"),
    }
}

/// The standard input of a command.
pub(crate) struct Input {
    read: ChannelReadHalf,
}

impl Input {
    /// The next bytes; `None` at the end, or when the connection is gone. May be dropped and called
    /// again.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.read.wait().await? {
                ChannelMsg::Data { data } => return Some(data.to_vec()),
                ChannelMsg::Eof | ChannelMsg::Close => return None,
                _ => {}
            }
        }
    }
}

/// The standard output and error of a command.
pub(crate) struct Terminal {
    write: ChannelWriteHalf<Msg>,
}

impl Terminal {
    /// Writes to the standard output; says whether somebody may still read it.
    pub(crate) async fn stdout(&self, bytes: Vec<u8>) -> bool {
        self.write.data_bytes(bytes).await.is_ok()
    }

    /// Writes to the standard error.
    pub(crate) async fn stderr(&self, text: &str) {
        drop(self.write.extended_data_bytes(STANDARD_ERROR, text.to_owned().into_bytes()).await);
    }
}

impl Output for Terminal {
    async fn line(&mut self, stream: Stream, text: String) {
        if stream == Stream::Stderr {
            self.stderr(&format!("{text}\n")).await;
        } else {
            self.stdout(format!("{text}\n").into_bytes()).await;
        }
    }

    async fn mask(&mut self, _: &str) {}

    fn output(&mut self, _: String, _: String) {}

    async fn idle(&mut self) -> Infallible {
        std::future::pending().await
    }
}
