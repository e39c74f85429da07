//! The `solstice` command.
//!
//! [`cli`] is the command line, [`settings`] is `solstice.toml`, [`execute`] carries a command out
//! and says how it ended. `run` makes a JobRequest of each job of a workflow file, hands it to the
//! orchestrator and renders the events that come back; it knows no machine. `jobs`, `show`, `logs`,
//! `cancel`, `retry`, `hosts` and `drain` ask the service of this host over its socket. `shell`, `cp`,
//! `image` and `doctor` speak to `vm-manager` directly. `forgejo` makes identities of runners, which
//! `serve` and `forgejo-runner` use.

mod actions;
mod check;
pub mod cli;
mod client;
mod completion;
mod config;
mod cp;
mod doctor;
mod drain;
pub mod exit;
mod expression;
mod forgejo;
mod frozen;
mod host;
mod hosts;
mod image;
mod jobs;
mod logs;
mod machine;
pub mod message;
mod render;
mod run;
mod serve;
pub mod settings;
mod shell;
mod show;
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
    // These need no settings, and must work where the settings are wrong.
    match cli.command {
        Command::Completion { shell } => return completion::print(shell),
        Command::WatchInstance { state, runtime, id } => {
            return host::watch_instance(state, runtime, &id).map(|()| Exit::Passed);
        }
        Command::Config(command) => return config::config(&command, cli.config.as_deref()),
        Command::Expression(arguments) => return expression::expression(&arguments).await,
        Command::Actions(command) => return actions::actions(&command),
        _ => {}
    }
    let surroundings = settings::Surroundings::of_process();
    let settings = settings::load(&surroundings, cli.config.as_deref())?;
    for warning in &settings.warnings {
        message::warning(warning);
    }
    match cli.command {
        Command::Check(arguments) => check::check(&settings, &arguments).await,
        Command::Run(arguments) => run::run(&settings, *arguments).await,
        Command::Shell(arguments) => shell::shell(&settings, arguments).await,
        Command::Cp(arguments) => cp::copy(&settings, &arguments).await,
        Command::Freeze { run, time } => frozen::freeze(&settings, run.as_deref(), time).await,
        Command::Thaw { run, time } => frozen::thaw(&settings, run.as_deref(), time).await,
        Command::Frozen { json } => frozen::list(&settings, json),
        Command::Rm { runs } => cp::remove(&settings, &runs).await,
        Command::Jobs(arguments) => jobs::jobs(&settings, arguments).await,
        Command::Show(arguments) => show::show(&settings, arguments).await,
        Command::Logs(arguments) => logs::logs(&settings, arguments).await,
        Command::Cancel(arguments) => jobs::cancel(&settings, arguments).await,
        Command::Retry(arguments) => jobs::retry(&settings, arguments).await,
        Command::Hosts { json } => hosts::hosts(&settings, json).await,
        Command::Drain(arguments) => drain::drain(&settings, arguments).await,
        Command::Image(command) => image::image(&settings, command).await,
        Command::Doctor(arguments) => doctor::doctor(&settings, &arguments).await,
        Command::Forgejo(command) => forgejo::forgejo(&settings, command).await,
        Command::ForgejoRunner(arguments) => forgejo::daemon::run(&settings, &arguments).await,
        Command::Serve => serve::serve(&settings, false).await,
        Command::Orchestrator => serve::serve(&settings, true).await,
        Command::Completion { .. }
        | Command::WatchInstance { .. }
        | Command::Config(_)
        | Command::Actions(_)
        | Command::Expression(_) => Ok(Exit::Passed),
    }
}
