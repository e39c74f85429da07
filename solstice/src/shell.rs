//! `solstice shell`: a terminal in a machine.

use std::io::{self, Write};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
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
use crate::terminal::{self, RawMode};

/// Keystrokes are sent in pieces of at most this many bytes.
const INPUT_BYTES: usize = 16 * 1024;

/// How long the guest may take to close what is open when the shell has ended.
const CLOSE: Duration = Duration::from_secs(5);

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
    let mut resized = signal(SignalKind::window_change())
        .map_err(|error| CommandError::infrastructure(format!("cannot handle signals: {error}")))?;
    let mut keys = tokio::spawn(forward_input(stdin));
    let mut status = None;
    let ended = loop {
        tokio::select! {
            piece = output.next() => match piece {
                Ok(Some(Output::Stdout(bytes))) => {
                    if let Err(error) = write(io::stdout(), &bytes) {
                        break Err(error);
                    }
                }
                Ok(Some(Output::Stderr(bytes))) => {
                    if let Err(error) = write(io::stderr(), &bytes) {
                        break Err(error);
                    }
                }
                Ok(Some(Output::Exit(code))) => status = Some(code),
                Ok(None) => break Ok(Some(status.unwrap_or(ExitStatus::Code(0)))),
                Err(error) => break Err(CommandError::infrastructure(error.to_string())),
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
    ended
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

fn write(mut stream: impl Write, bytes: &[u8]) -> Result<(), CommandError> {
    stream
        .write_all(bytes)
        .and_then(|()| stream.flush())
        .map_err(|error| CommandError::cancelled(format!("nobody reads the output: {error}")))
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
