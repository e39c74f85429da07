//! The `solstice` command.
//!
//! [`cli`] is the command line, [`settings`] is `solstice.toml`, [`execute`] carries a command out
//! and says how it ended. `run` makes a JobRequest of each job of a workflow file, hands it to the
//! orchestrator and renders the events that come back; it knows no machine. `shell`, `cp`, `image`
//! and `doctor` speak to `vm-manager` directly.

pub mod cli;
mod completion;
mod cp;
mod doctor;
pub mod exit;
mod host;
mod image;
mod machine;
pub mod message;
mod render;
mod run;
pub mod settings;
mod shell;
mod stop;
mod stream;
mod table;
mod terminal;
mod waiting;

use cli::{Cli, Command};
use exit::{CommandError, Exit};

/// Carries a command out.
///
/// # Errors
/// The command could not do its work; the error knows the exit code and often a cure. How the jobs
/// of a run ended is no error.
pub async fn execute(cli: Cli) -> Result<Exit, CommandError> {
    // These two need no settings, and must work where the settings are wrong.
    match cli.command {
        Command::Completion { shell } => return completion::print(shell),
        Command::WatchInstance { state, runtime, id } => {
            return host::watch_instance(state, runtime, &id).map(|()| Exit::Passed);
        }
        _ => {}
    }
    let surroundings = settings::Surroundings::of_process();
    let settings = settings::load(&surroundings, cli.config.as_deref())?;
    for warning in &settings.warnings {
        message::warning(warning);
    }
    match cli.command {
        Command::Run(arguments) => run::run(&settings, *arguments).await,
        Command::Shell(arguments) => shell::shell(&settings, arguments).await,
        Command::Cp(arguments) => cp::copy(&settings, &arguments).await,
        Command::Rm { runs } => cp::remove(&settings, &runs).await,
        Command::Image(command) => image::image(&settings, command).await,
        Command::Doctor(arguments) => doctor::doctor(&settings, &arguments).await,
        Command::Completion { .. } | Command::WatchInstance { .. } => Ok(Exit::Passed),
    }
}
