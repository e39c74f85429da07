//! `solstice shell`: a terminal in a machine.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use vm_manager::host::kept;
use vm_manager::ssh::{ExitStatus, Guest, Output, Outputs, SshError, Stdin, Window};

use crate::cli::ShellArgs;
use crate::exit::{CommandError, Exit};
use crate::host::host_settings;
use crate::image::catalogue;
use crate::machine::{self, FreshMachine};
use crate::message;
use crate::settings::Settings;
use crate::stop::Stop;
use crate::stream::Unbuffered;
use crate::terminal::{self, RawMode};

/// Keystrokes are sent in pieces of at most this many bytes.
const INPUT_BYTES: usize = 16 * 1024;

/// How long the guest may take to close what is open when the shell has ended.
const CLOSE: Duration = Duration::from_secs(5);

/// Pieces of output that may wait for the thread that writes them.
const WAITING_PIECES: usize = 8;

/// What runs where there is no terminal to give: commands come from standard input.
const SCRIPTED_SHELL: &str = "exec \"${SHELL:-/bin/sh}\"";

/// Opens a terminal in a fresh or a kept machine.
///
/// # Errors
/// Neither an image nor a kept machine has the name, or the machine cannot be used.
pub(crate) async fn shell(settings: &Settings, arguments: ShellArgs) -> Result<Exit, CommandError> {
    let stop = Stop::on_signals()
        .map_err(|error| CommandError::infrastructure(format!("cannot handle signals: {error}")))?;
    match target(settings, arguments.target.as_deref())? {
        Target::Kept(name) => {
            let machine = machine::kept_machine(settings, &name)?;
            let guest = machine::connect(settings, &machine).await?;
            session(&guest, &stop).await
        }
        Target::Fresh(entry) => {
            let start = FreshMachine::start(settings, &entry, arguments.cpus, arguments.memory);
            let (machine, guest) = tokio::select! {
                started = start => started?,
                () = stop.cancel.cancelled() => {
                    return Err(CommandError::cancelled("cancelled"));
                }
            };
            let ended = tokio::select! {
                biased;
                ended = session(&guest, &stop) => ended,
                error = machine.ended() => Err(error),
            };
            machine.close().await;
            ended
        }
    }
}

enum Target {
    Kept(String),
    Fresh(std::sync::Arc<vm_manager::image::Entry>),
}

fn target(settings: &Settings, name: Option<&str>) -> Result<Target, CommandError> {
    let kept: Vec<String> = kept::list(&host_settings(settings))
        .map_err(|error| CommandError::infrastructure(error.to_string()))?
        .into_iter()
        .map(|(name, ..)| name)
        .collect();
    match name {
        Some(name) if kept.iter().any(|kept| kept == name) => Ok(Target::Kept(name.to_owned())),
        Some(name) => match catalogue(settings)?.get(name) {
            Ok(entry) => Ok(Target::Fresh(entry)),
            Err(error) => {
                let kept = match kept.as_slice() {
                    [] => "no machine is kept on this host".to_owned(),
                    kept => format!("kept machines are {}", kept.join(", ")),
                };
                Err(CommandError::usage(error.to_string()).hint(kept))
            }
        },
        None => match kept.as_slice() {
            [name] => Ok(Target::Kept(name.clone())),
            [] => Err(CommandError::usage("no machine is kept on this host")
                .hint("name an image for a fresh machine: solstice shell LABEL")),
            kept => Err(CommandError::usage(format!("kept machines are {}", kept.join(", ")))
                .hint("name one: solstice shell RUN")),
        },
    }
}

/// Connects the user's terminal with a shell in the guest until it ends.
async fn session(guest: &Guest, stop: &Stop) -> Result<Exit, CommandError> {
    let lost = |error: SshError| CommandError::infrastructure(error.to_string());
    let raw = RawMode::enter()
        .map_err(|error| CommandError::usage(format!("cannot use the terminal: {error}")))?;
    let status = if raw.is_some() {
        let kind = std::env::var("TERM").unwrap_or_default();
        let terminal = guest.terminal(None, &kind, terminal::size()).await.map_err(lost)?;
        talk(terminal.stdin, terminal.output, Some(terminal.window), stop).await
    } else {
        let session = guest.exec(SCRIPTED_SHELL).await.map_err(lost)?;
        talk(session.stdin, session.output, None, stop).await
    };
    // The user's terminal is itself again before anything is printed.
    drop(raw);
    if tokio::time::timeout(CLOSE, guest.close()).await.is_err() {
        tracing::debug!("the guest does not close the connection");
    }
    match status? {
        Some(status) => Ok(exit_of(&status)),
        None => Err(CommandError::cancelled("cancelled")),
    }
}

/// Carries bytes both ways; `None` means that we were asked to stop.
async fn talk(
    stdin: Stdin,
    mut output: Outputs,
    window: Option<Window>,
    stop: &Stop,
) -> Result<Option<ExitStatus>, CommandError> {
    let failed = |error| CommandError::infrastructure(format!("cannot handle signals: {error}"));
    let mut resized = signal(SignalKind::window_change()).map_err(failed)?;
    let screen = Screen::start()?;
    let mut keys = tokio::spawn(forward_input(stdin));
    // What the screen has no room for yet; nothing more is taken from the guest meanwhile.
    let mut waiting: Option<Output> = None;
    let mut status = None;
    let ended = loop {
        tokio::select! {
            piece = output.next(), if waiting.is_none() => match piece {
                Ok(Some(Output::Exit(code))) => status = Some(code),
                Ok(Some(piece)) => waiting = Some(piece),
                Ok(None) => break status.map(Some).ok_or_else(no_status),
                Err(error) => break Err(CommandError::infrastructure(error.to_string())),
            },
            room = screen.pieces.reserve(), if waiting.is_some() => match (room, waiting.take()) {
                (Ok(room), Some(piece)) => room.send(piece),
                // Its end says why it takes no more.
                _ => break Ok(status.take()),
            },
            Some(()) = resized.recv() => {
                if let Some(window) = &window {
                    let (columns, rows) = terminal::size();
                    // A connection that is gone shows itself at the output.
                    drop(window.resize(columns, rows).await);
                }
            }
            () = stop.cancel.cancelled() => break Ok(None),
        }
    };
    keys.abort();
    drop((&mut keys).await);
    if stop.cancel.is_cancelled() {
        return ended;
    }
    tokio::select! {
        shown = screen.finish() => shown.and(ended),
        () = stop.cancel.cancelled() => Ok(None),
    }
}

/// A shell whose end nobody knows has not succeeded.
fn no_status() -> CommandError {
    CommandError::infrastructure("the guest closed the shell without an exit status")
        .hint("the machine or its ssh server may have ended; `solstice doctor` names kept machines")
}

/// A thread that writes what the guest says, so that a reader who does not read holds up nothing but
/// the guest.
struct Screen {
    pieces: mpsc::Sender<Output>,
    ended: tokio::sync::oneshot::Receiver<io::Result<()>>,
}

impl Screen {
    fn start() -> Result<Self, CommandError> {
        let (pieces, mut receiver) = mpsc::channel(WAITING_PIECES);
        let (sender, ended) = tokio::sync::oneshot::channel();
        let write = move || {
            let mut result = Ok(());
            while let (Ok(()), Some(piece)) = (&result, receiver.blocking_recv()) {
                result = write(&piece);
            }
            // Nobody waits for it when the user asked to stop.
            drop(sender.send(result));
        };
        std::thread::Builder::new()
            .name("screen".to_owned())
            .spawn(write)
            .map_err(|error| CommandError::infrastructure(format!("cannot start: {error}")))?;
        Ok(Self { pieces, ended })
    }

    /// Waits until everything is written.
    async fn finish(self) -> Result<(), CommandError> {
        drop(self.pieces);
        let result = self.ended.await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()));
        result.map_err(|error| CommandError::cancelled(format!("nobody reads the output: {error}")))
    }
}

fn write(piece: &Output) -> io::Result<()> {
    use std::io::Write;
    match piece {
        Output::Stdout(bytes) => Unbuffered(io::stdout()).write_all(bytes),
        Output::Stderr(bytes) => Unbuffered(io::stderr()).write_all(bytes),
        Output::Exit(_) => Ok(()),
    }
}

/// Sends standard input to the guest until either end closes. Reading cannot be interrupted: the
/// thread that reads ends with the process.
async fn forward_input(mut stdin: Stdin) {
    let mut input = tokio::io::stdin();
    let mut buffer = vec![0; INPUT_BYTES];
    while let Ok(length @ 1..) = input.read(&mut buffer).await {
        if stdin.write_all(&buffer[..length]).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
    if let Err(error) = stdin.shutdown().await {
        tracing::debug!(%error, "the guest takes no end of the input");
    }
}

/// The exit code as a shell has it: that of the program, or 128 and the number of the signal.
fn exit_of(status: &ExitStatus) -> Exit {
    match status {
        ExitStatus::Code(code) => Exit::Guest(u8::try_from(*code).unwrap_or(u8::MAX)),
        ExitStatus::Signal(name) => {
            message::warning(&format!("the shell was ended by the signal {name}"));
            let number = format!("SIG{name}").parse::<nix::sys::signal::Signal>();
            let number = number.map_or(0, |signal| signal as i32);
            Exit::Guest(u8::try_from(128 + number).unwrap_or(u8::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_exit_code_is_passed_on() {
        let code = |status| exit_of(&status).code();
        assert_eq!(code(ExitStatus::Code(0)), 0);
        assert_eq!(code(ExitStatus::Code(7)), 7);
        assert_eq!(code(ExitStatus::Code(100_000)), 255);
        assert_eq!(code(ExitStatus::Signal("KILL".to_owned())), 137);
        assert_eq!(code(ExitStatus::Signal("NOPE".to_owned())), 128);
    }
}
