//! `solstice forgejo` and `solstice forgejo-runner`: runners of Forgejo and Gitea instances.

pub(crate) mod connections;
pub(crate) mod daemon;
mod register;
pub(crate) mod status;
mod unregister;

use std::io::{self, IsTerminal, Read};
use std::path::Path;

use common::request::Secret;
use forgejo_runner::client::{RpcError, RpcErrorKind};
use forgejo_runner::identity::{self, IdentityError};

use crate::cli::ForgejoCommand;
use crate::exit::{CommandError, Exit};
use crate::settings::Settings;

/// What is read of standard input for a token.
const INPUT_BYTES: u64 = 4096;

/// Carries out a command about runners of instances.
///
/// # Errors
/// The command could not do its work.
pub(crate) async fn forgejo(
    settings: &Settings,
    command: ForgejoCommand,
) -> Result<Exit, CommandError> {
    match command {
        ForgejoCommand::Register(arguments) => register::register(settings, *arguments).await,
        ForgejoCommand::Status { json } => status::status(settings, json).await,
        ForgejoCommand::Unregister(arguments) => unregister::unregister(settings, arguments).await,
    }
}

/// A token from a file that nobody else may read; `-` is standard input.
fn token(path: &Path) -> Result<Secret, CommandError> {
    if path.as_os_str() != "-" {
        return Ok(identity::token(path)?);
    }
    let mut text = String::new();
    let read = io::stdin().take(INPUT_BYTES).read_to_string(&mut text);
    let cannot = |what: &dyn std::fmt::Display| {
        CommandError::usage(format!("cannot use the token from standard input: {what}"))
    };
    read.map_err(|error| cannot(&error))?;
    identity::one_line(&text).map_err(|problem| cannot(&problem))
}

/// A token that is typed without echo; `None` where nobody can be asked.
fn ask(prompt: &str) -> Result<Option<Secret>, CommandError> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    let typed = rpassword::prompt_password(format!("{prompt}: ")).map_err(|error| {
        if error.kind() == io::ErrorKind::Interrupted {
            CommandError::cancelled("no token was given")
        } else {
            CommandError::usage(format!("cannot ask for the token: {error}"))
        }
    })?;
    let typed = identity::one_line(&typed);
    typed.map(Some).map_err(|problem| CommandError::usage(format!("the token: {problem}")))
}

impl From<IdentityError> for CommandError {
    fn from(error: IdentityError) -> Self {
        let told = Self::usage(error.to_string());
        match error.advice() {
            Some(advice) => told.hint(advice),
            None => told,
        }
    }
}

/// An error of a call as one of a command: what the instance refuses is wrong input, that it does not
/// answer is not. What to do depends on who called.
fn failed(what: &str, error: &RpcError) -> CommandError {
    let text = format!("{what}: {error}");
    match error.kind {
        RpcErrorKind::Unauthenticated | RpcErrorKind::Refused | RpcErrorKind::Local => {
            CommandError::usage(text)
        }
        _ => CommandError::infrastructure(text),
    }
}
