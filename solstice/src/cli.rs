//! The command line. The larger groups of arguments have a file each.

mod forgejo;
mod run;
mod service;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use common::event::JobResult;
use common::limits::MACHINE_CPUS;
use common::plan::Dialect;
use common::size::ByteSize;

pub use forgejo::{ForgejoCommand, ForgejoRunnerArgs, RegisterArgs, UnregisterArgs};
pub use run::{KeepHow, RunArgs};
pub(crate) use run::{LONGEST_JOB, is_name};
pub use service::{CancelArgs, DrainArgs, JobArgs, JobsArgs, LogsArgs};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  solstice run                          the only workflow of this repository
  solstice run examples/hello.yml       a workflow file
  solstice shell debian-12              a terminal in a fresh machine
  solstice doctor                       what this host lacks
  solstice jobs                         what the service of this host does

Exit codes: 0 passed, 1 failed, 2 infrastructure, 64 usage, 130 cancelled.";

const SERVE_EXAMPLES: &str = "\
It needs no configuration. TERM or Ctrl-C ends it; jobs whose steps run go on in their machines
for 10 minutes, and the next start goes on with them. docs/operations.md says more.

With connections to Forgejo or Gitea (`solstice forgejo register`) it takes their jobs too. Then TERM
waits for the jobs of instances (`forgejo_shutdown`), a second one cancels them and still reports,
and a third one leaves them to the next start.";

const SHELL_EXAMPLES: &str = "\
Examples:
  solstice shell debian-12              a fresh machine, gone when the shell ends
  solstice shell build-1f2e3d           a machine that `solstice run --keep` kept";

const CP_EXAMPLES: &str = "\
Examples:
  solstice cp build-1f2e3d:/var/log/syslog .
  solstice cp ./fix.patch build-1f2e3d:/tmp/
  solstice cp -r build-1f2e3d:/root/work/reports .";

const FREEZE_HELP: &str = "\
Examples:
  solstice freeze build-1f2e3d          the machine of a failed job that `run --keep` kept
  solstice frozen                       which there are, and until when
  solstice thaw build-1f2e3d            its processes go on where they were

The files hold the guest's memory and disk, sealed with the key of this installation. Open
connections do not outlive a freeze.";

const CHECK_EXAMPLES: &str = "\
Examples:
  solstice check                        every workflow of this repository
  solstice check ci.yml --strict        refuse also what the forge would refuse
  solstice check --json | jq '.[].message'

Errors keep a workflow from running here; warnings change nothing, or concern one step.
Exit codes: 0 no errors, 64 errors.";

const EXPRESSION_EXAMPLES: &str = "\
Examples:
  solstice expression \"contains('a,b', 'a')\"
  solstice expression --status failure 'always() && !cancelled()'
  solstice expression --context contexts.json \"github.ref == 'refs/heads/main'\"
  solstice expression -- '-1 < 0'       one that begins with a dash

The file of --context is an object whose members are the contexts, such as
{\"github\": {\"ref\": \"refs/heads/main\"}}; then no others exist. Without it all exist and are empty.
hashFiles reads below the working directory.
The value is printed as toJSON writes it: NaN and infinities are words, which are no JSON.
Exit codes: 0 it has a value, 64 it has none.";

/// Runs CI jobs of GitHub and Forgejo in fresh virtual machines.
#[derive(Debug, Parser)]
#[command(name = "solstice", version, styles = STYLES, after_help = EXAMPLES)]
#[command(disable_help_subcommand = true, subcommand_required = true)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// The settings file; see docs/configuration.md for where it is looked up.
    #[arg(long, global = true, value_name = "FILE", env = "SOLSTICE_CONFIG")]
    #[arg(value_hint = ValueHint::FilePath, help_heading = "Global options")]
    pub config: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a workflow file, each job in a fresh virtual machine.
    #[command(after_help = run::EXAMPLES)]
    Run(Box<RunArgs>),
    /// Open a terminal in a fresh machine, or in one kept by `run --keep`.
    #[command(after_help = SHELL_EXAMPLES)]
    Shell(ShellArgs),
    /// Copy a file, or with -r a directory, to or from a kept machine.
    #[command(after_help = CP_EXAMPLES)]
    Cp(CpArgs),
    /// Freeze a kept machine to files: it holds no memory then, and `thaw` continues it.
    #[command(after_help = FREEZE_HELP)]
    Freeze {
        /// The kept machine [default: the only one].
        #[arg(value_name = "RUN")]
        run: Option<String>,
        /// How long the files are kept.
        #[arg(long = "for", value_name = "T", value_parser = keeping, default_value = "7d")]
        time: Duration,
    },
    /// Continue a frozen machine where it was frozen; it is a kept one then.
    Thaw {
        /// The frozen machine [default: the only one].
        #[arg(value_name = "RUN")]
        run: Option<String>,
        /// How long the machine is kept.
        #[arg(long = "for", value_name = "T", value_parser = keeping, default_value = "2h")]
        time: Duration,
    },
    /// List frozen machines.
    Frozen {
        /// Print a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Destroy kept and frozen machines before their time is over.
    Rm {
        /// Their names.
        #[arg(required = true, value_name = "RUN")]
        runs: Vec<String>,
    },
    /// Say what is wrong with workflow files, without running them.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Print the value of an expression, as a workflow has it within ${{ }}.
    #[command(after_help = EXPRESSION_EXAMPLES)]
    Expression(ExpressionArgs),
    /// List the jobs of the service.
    #[command(after_help = service::JOBS_EXAMPLES)]
    Jobs(JobsArgs),
    /// Show everything that is known about a job.
    #[command(after_help = service::JOB_HELP)]
    Show(JobArgs),
    /// Print a job's log.
    #[command(after_help = service::LOGS_EXAMPLES)]
    Logs(LogsArgs),
    /// End jobs.
    #[command(after_help = service::CANCEL_EXAMPLES)]
    Cancel(CancelArgs),
    /// Run a job that is over once more, as a new job.
    #[command(after_help = service::JOB_HELP)]
    Retry(JobArgs),
    /// List the hosts of the installation.
    Hosts {
        /// Print a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Let a host take nothing new and finish what runs.
    #[command(after_help = service::DRAIN_EXAMPLES)]
    Drain(DrainArgs),
    /// Look at the actions that the runner does itself, in machines that could not run the originals.
    #[command(subcommand)]
    Actions(ActionsCommand),
    /// List, fetch, build and remove images.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Run the service of this host: jobs from a queue, kept across restarts.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve,
    /// Run the service as one of several hosts that share a broker and a database.
    Orchestrator,
    /// Make, look at and remove runners of Forgejo and Gitea instances.
    #[command(subcommand)]
    Forgejo(ForgejoCommand),
    /// Run the runners of Forgejo and Gitea instances as a process of their own.
    #[command(after_help = forgejo::RUNNER_HELP)]
    ForgejoRunner(ForgejoRunnerArgs),
    /// Check the settings, or print an example of them.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check this host and say what to do about each finding.
    Doctor(DoctorArgs),
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Wait for the end of an instance and remove what it left.
    #[command(hide = true)]
    WatchInstance {
        /// The state directory.
        #[arg(long)]
        state: PathBuf,
        /// The runtime directory.
        #[arg(long)]
        runtime: PathBuf,
        /// The instance.
        id: String,
    },
}

/// For how long something may be kept.
fn keeping(text: &str) -> Result<Duration, String> {
    let time = text.parse::<humantime::Duration>().map(Duration::from);
    let range = Duration::from_secs(60)..=Duration::from_secs(366 * 24 * 3600);
    let time = time.ok().filter(|time| range.contains(time));
    time.ok_or_else(|| "expected a time from 1m to 1year, such as 2h or 7d".to_owned())
}

/// Options of `solstice shell`.
#[derive(Debug, Args)]
pub struct ShellArgs {
    /// An image label for a fresh machine, or the name of a kept one [default: the only kept
    /// machine].
    #[arg(value_name = "LABEL|RUN")]
    pub target: Option<String>,

    /// Virtual processors of a fresh machine [default: by the image].
    #[arg(long, value_name = "N", value_parser = processors())]
    pub cpus: Option<u32>,

    /// Memory of a fresh machine, such as 2G [default: by the image].
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
}

/// Operands of `solstice cp`.
#[derive(Debug, Args)]
pub struct CpArgs {
    /// Copy a directory with everything in it.
    #[arg(short, long)]
    pub recursive: bool,

    /// A file or, with -r, a directory; or RUN:PATH.
    #[arg(value_name = "SRC", value_hint = ValueHint::FilePath)]
    pub source: String,

    /// A file or directory, or RUN:PATH.
    #[arg(value_name = "DST", value_hint = ValueHint::FilePath)]
    pub destination: String,
}

/// Options of `solstice check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The workflow files [default: all under .forgejo/workflows, .gitea/workflows and
    /// .github/workflows].
    #[arg(value_name = "WORKFLOW", value_hint = ValueHint::FilePath)]
    pub workflows: Vec<PathBuf>,

    /// Make errors of the warnings for which the forge would refuse the file.
    #[arg(long)]
    pub strict: bool,

    /// Whose rules apply [default: by the folder of the workflow, else github].
    #[arg(long, value_name = "NAME", value_parser = dialect)]
    pub dialect: Option<Dialect>,

    /// Print a JSON array of the findings.
    #[arg(long)]
    pub json: bool,
}

/// Options of `solstice expression`.
#[derive(Debug, Args)]
pub struct ExpressionArgs {
    /// The expression, without ${{ }}; an empty one is null.
    #[arg(value_name = "EXPR", allow_negative_numbers = true)]
    pub expression: String,

    /// The contexts that exist, a JSON object; - is standard input.
    #[arg(long, value_name = "FILE.json", value_hint = ValueHint::FilePath)]
    pub context: Option<PathBuf>,

    /// What the status functions answer by: success, failure or cancelled.
    #[arg(long, value_name = "STATUS", value_parser = job_status(), default_value = "success")]
    pub status: JobResult,
}

/// What to do with actions.
#[derive(Debug, Subcommand)]
pub enum ActionsCommand {
    /// List them with the versions that they stand for.
    List {
        /// Print a JSON array.
        #[arg(long)]
        json: bool,
    },
}

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List the catalogue and what of it is on this host.
    List {
        /// Print a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Fetch images, verify them and keep them.
    Pull {
        /// The labels.
        #[arg(required = true, value_name = "LABEL")]
        labels: Vec<String>,
        /// Accept a digest that the catalogue does not know yet without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Build images from their recipes.
    Build {
        /// The labels.
        #[arg(required = true, value_name = "LABEL")]
        labels: Vec<String>,
    },
    /// Boot images once and freeze them: their jobs start in a moment. Needs `template_quota`.
    Warm {
        /// The labels.
        #[arg(required = true, value_name = "LABEL")]
        labels: Vec<String>,
    },
    /// Remove images from this host.
    Rm {
        /// The labels.
        #[arg(required = true, value_name = "LABEL")]
        labels: Vec<String>,
    },
}

/// What to do with the settings.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the settings and print every effective value with its origin.
    Check {
        /// Print a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Print a settings file with every key.
    Example,
}

/// Options of `solstice doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print a JSON array.
    #[arg(long)]
    pub json: bool,
}

/// The states that a job can be in while its steps run.
fn job_status() -> impl TypedValueParser<Value = JobResult> {
    const STATES: [JobResult; 3] = [JobResult::Success, JobResult::Failure, JobResult::Cancelled];
    PossibleValuesParser::new(STATES.map(JobResult::name)).map(|name| {
        let state = STATES.into_iter().find(|state| state.name() == name);
        state.expect("the parser knows only names of states")
    })
}

fn dialect(text: &str) -> Result<Dialect, String> {
    [Dialect::Github, Dialect::Forgejo, Dialect::Gitea]
        .into_iter()
        .find(|dialect| dialect.name() == text)
        .ok_or_else(|| "write github, forgejo or gitea".to_owned())
}

/// Virtual processors of a machine.
fn processors() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(MACHINE_CPUS))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
