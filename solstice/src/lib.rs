//! The `solstice` command.
//!
//! [`cli`] is the command line, [`settings`] is `solstice.toml`, [`execute`] carries a command out
//! and says how it ended. `run` makes a JobRequest of each job of a workflow file, hands it to the
//! orchestrator and renders the events that come back; it knows no machine. `shell`, `cp`, `image`
//! and `doctor` speak to `vm-manager` directly.

pub mod cli;
pub mod exit;
pub mod message;
mod render;
mod run;
pub mod settings;
mod stop;

use cli::{Cli, Command};
use exit::{CommandError, Exit};

/// Carries a command out.
///
/// # Errors
/// The command could not do its work; the error knows the exit code and often a cure. How the jobs
/// of a run ended is no error.
pub async fn execute(cli: Cli) -> Result<Exit, CommandError> {
    let surroundings = settings::Surroundings::of_process();
    let settings = settings::load(&surroundings, cli.config.as_deref())?;
    for warning in &settings.warnings {
        message::warning(warning);
    }
    match cli.command {
        Command::Run(arguments) => run::run(&settings, *arguments).await,
        _ => Err(CommandError::usage("not yet")),
    }
}
