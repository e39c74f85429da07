//! Parses, starts, and maps the end to an exit code.

use std::process::ExitCode;

use clap::Parser;
use solstice::cli::{Cli, Command};
use solstice::exit::Exit;
use tracing_subscriber::EnvFilter;

/// The variable that filters the diagnostic log.
const LOG_VARIABLE: &str = "SOLSTICE_LOG";

/// The diagnostic log of `--verbose`.
const VERBOSE: &str = "solstice=debug,orchestrator=debug,vm_manager=debug";

/// The diagnostic log of the service.
const SERVICE: &str =
    "warn,solstice=info,orchestrator=info,queue=info,vm_manager=info,forgejo_runner=info";

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Whoever asked may have closed the stream.
            drop(error.print());
            return if error.use_stderr() { Exit::Usage } else { Exit::Passed }.into();
        }
    };
    start_log(match &cli.command {
        Command::Run(run) if run.verbose => VERBOSE,
        Command::Serve | Command::Orchestrator | Command::ForgejoRunner(_) => SERVICE,
        _ => "off",
    });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return Exit::Infrastructure.into();
        }
    };
    let ended = runtime.block_on(solstice::execute(cli));
    // A thread that waits for a terminal must not keep the command from ending.
    runtime.shutdown_background();
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => {
            solstice::message::error(&error);
            error.exit().into()
        }
    }
}

fn start_log(default: &str) {
    let mut filter =
        EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(default));
    // Whatever was asked for: the broker's library would write whole messages.
    for directive in queue::rabbit::LOG_DIRECTIVES {
        filter = filter.add_directive(directive.parse().expect("a directive of our own"));
    }
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
}
