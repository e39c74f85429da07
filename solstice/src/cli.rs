//! The command line.

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
use forgejo_runner::identity::rest::Scope;
use orchestrator::store::JobState;

use crate::settings;

/// The longest time that a job may run, whatever `timeout-minutes` and `--timeout` say: what GitHub
/// gives a job on a runner of one's own.
pub(crate) const LONGEST_JOB: Duration = Duration::from_secs(5 * 24 * 3600);

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

const RUN_EXAMPLES: &str = "\
Examples:
  solstice run
  solstice run ci.yml --job test --matrix os=linux
  solstice run ci.yml --secret DEPLOY_KEY --var REGION=eu
  solstice run ci.yml --event pull_request --event-file event.json
  solstice run ci.yml --keep            keep the machine of a failed job for 2 hours
  solstice run ci.yml --json | jq .     one event per line

Where a service runs on this host (`solstice serve`), it runs the jobs.
Ctrl-C cancels the jobs; a second Ctrl-C destroys their machines at once.
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

const JOBS_EXAMPLES: &str = "\
Examples:
  solstice jobs                         those that are not over
  solstice jobs --all --repository me/app
  solstice jobs --state queued --state running --json | jq '.[].id'";

const JOB_HELP: &str = "\
JOB is an id, or a beginning or an end of one that no other job shares, such as the short form that
`solstice jobs` shows.";

const LOGS_EXAMPLES: &str = "\
Examples:
  solstice logs 5f3a90c1b2d4            what there is
  solstice logs -f 5f3a90c1b2d4         up to the job's end, with its exit code
  solstice logs 5f3a90c1b2d4 --json | jq .

JOB is an id, or a beginning or an end of one that no other job shares.
With -f, Ctrl-C ends the command (130) and not the job.";

const CANCEL_EXAMPLES: &str = "\
Examples:
  solstice cancel 5f3a90c1b2d4
  solstice cancel --now 5f3a 77e0       destroy their machines at once

JOB is an id, or a beginning or an end of one that no other job shares.";

const REGISTER_EXAMPLES: &str = "\
Examples:
  solstice forgejo register --url https://codeberg.org      asks for the registration token
  solstice forgejo register --url URL --token-file F        one in a file of mode 0600; - is standard input
  solstice forgejo register --url URL --uuid U --runner-token-file F     made on the web page
  solstice forgejo register --url URL --secret-file F       a secret that the administrator has too
  solstice forgejo register --url URL --api-token-file F --scope org/me  made by the REST interface

The identity is kept in the state directory, for the user of the service alone; run the command as
that user. `solstice serve` is a runner of every connection that is kept or in solstice.toml.
docs/forgejo.md has the steps from here to the first green run.";

const FORGEJO_RUNNER_HELP: &str = "\
`solstice serve` has the runners inside. This is for installations whose runners are not on the hosts
of their machines: it needs `queue` and `seal_keys`, as every host of the installation has them.";

const DRAIN_EXAMPLES: &str = "\
Examples:
  solstice drain --wait                 before an upgrade of this host
  solstice drain --off                  take jobs again
  solstice drain builder-2              another host of the installation";

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
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Open a terminal in a fresh machine, or in one kept by `run --keep`.
    #[command(after_help = SHELL_EXAMPLES)]
    Shell(ShellArgs),
    /// Copy a file, or with -r a directory, to or from a kept machine.
    #[command(after_help = CP_EXAMPLES)]
    Cp(CpArgs),
    /// Destroy kept machines before their time is over.
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
    #[command(after_help = JOBS_EXAMPLES)]
    Jobs(JobsArgs),
    /// Show everything that is known about a job.
    #[command(after_help = JOB_HELP)]
    Show(JobArgs),
    /// Print a job's log.
    #[command(after_help = LOGS_EXAMPLES)]
    Logs(LogsArgs),
    /// End jobs.
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel(CancelArgs),
    /// Run a job that is over once more, as a new job.
    #[command(after_help = JOB_HELP)]
    Retry(JobArgs),
    /// List the hosts of the installation.
    Hosts {
        /// Print a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Let a host take nothing new and finish what runs.
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArgs),
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
    #[command(after_help = FORGEJO_RUNNER_HELP)]
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

/// Options of `solstice run`.
#[derive(Debug, Default, Args)]
pub struct RunArgs {
    /// The workflow file [default: the only one under .forgejo/workflows, .gitea/workflows or
    /// .github/workflows].
    #[arg(value_hint = ValueHint::FilePath)]
    pub workflow: Option<PathBuf>,

    /// Run this job and those that it needs; may be given several times.
    #[arg(long = "job", value_name = "ID", help_heading = "What to run")]
    pub jobs: Vec<String>,

    /// Run only the matrix legs with this value; may be given several times.
    #[arg(long, value_name = "K=V", value_parser = pair, help_heading = "What to run")]
    pub matrix: Vec<(String, String)>,

    /// Whose rules apply [default: by the folder of the workflow, else github].
    #[arg(long, value_name = "NAME", value_parser = dialect, help_heading = "What to run")]
    pub dialect: Option<Dialect>,

    /// The event [default: the first of `on`].
    #[arg(long, value_name = "NAME", help_heading = "Event and values")]
    pub event: Option<String>,

    /// The event's payload, a JSON object.
    #[arg(long, value_name = "F.json", value_hint = ValueHint::FilePath)]
    #[arg(help_heading = "Event and values")]
    pub event_file: Option<PathBuf>,

    /// An input of the workflow.
    #[arg(long = "input", value_name = "K=V", value_parser = pair)]
    #[arg(help_heading = "Event and values")]
    pub inputs: Vec<(String, String)>,

    /// A value of the `vars` context.
    #[arg(long = "var", value_name = "K=V", value_parser = pair)]
    #[arg(help_heading = "Event and values")]
    pub vars: Vec<(String, String)>,

    /// An environment variable of every step.
    #[arg(long = "env", value_name = "K=V", value_parser = pair)]
    #[arg(help_heading = "Event and values")]
    pub env: Vec<(String, String)>,

    /// A secret, taken from the environment variable of this name, else asked without echo.
    #[arg(long = "secret", value_name = "NAME", value_parser = secret_name)]
    #[arg(help_heading = "Event and values")]
    pub secrets: Vec<String>,

    /// A file with one NAME=VALUE on each line.
    #[arg(long, value_name = "F", value_hint = ValueHint::FilePath)]
    #[arg(help_heading = "Event and values")]
    pub secrets_file: Option<PathBuf>,

    /// The image for every job, instead of its `runs-on`.
    #[arg(long, value_name = "LABEL", help_heading = "Machine")]
    pub image: Option<String>,

    /// Virtual processors of each machine [default: by the image].
    #[arg(long, value_name = "N", value_parser = processors())]
    #[arg(help_heading = "Machine")]
    pub cpus: Option<u32>,

    /// Memory of each machine, such as 2G [default: by the image].
    #[arg(long, value_name = "SIZE", help_heading = "Machine")]
    pub memory: Option<ByteSize>,

    /// Shorten the time that a job may run, such as to 30m. A shorter `timeout-minutes` of the job
    /// counts, which is 360 where the job has none [at most 5d].
    #[arg(long, value_name = "T", value_parser = timeout, help_heading = "Machine")]
    pub timeout: Option<Duration>,

    /// Keep the machine of a failed job for 2 hours.
    #[arg(long, help_heading = "Machine")]
    pub keep: bool,

    /// Run the jobs in this process, also where a service runs on this host.
    #[arg(long, help_heading = "Machine")]
    pub standalone: bool,

    /// Show what Solstice does, the machine's console, and the outputs of jobs.
    #[arg(long, short, help_heading = "Output")]
    pub verbose: bool,

    /// Print one JobEvent per line, each with its job's `name`, and a summary object last.
    #[arg(long, help_heading = "Output")]
    pub json: bool,
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

/// Options of `solstice jobs`.
#[derive(Debug, Default, Args)]
pub struct JobsArgs {
    /// Only jobs in this state; may be given several times [default: every state but done].
    #[arg(long = "state", value_name = "STATE", value_parser = job_state())]
    pub states: Vec<JobState>,

    /// Only jobs of this repository.
    #[arg(long, value_name = "OWNER/NAME")]
    pub repository: Option<String>,

    /// Only jobs with this label.
    #[arg(long, value_name = "LABEL")]
    pub label: Option<String>,

    /// Jobs that are over as well.
    #[arg(long)]
    pub all: bool,

    /// At most so many, newest first [default: 10000].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub most: Option<u32>,

    /// Print a JSON array.
    #[arg(long)]
    pub json: bool,
}

/// One job.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// The job.
    #[arg(value_name = "JOB")]
    pub job: String,

    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Options of `solstice logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The job.
    #[arg(value_name = "JOB")]
    pub job: String,

    /// Wait for more until the job is over, and end with its exit code.
    #[arg(long, short)]
    pub follow: bool,

    /// Show the machine's console and the outputs of the job.
    #[arg(long, short)]
    pub verbose: bool,

    /// Print one JobEvent per line.
    #[arg(long)]
    pub json: bool,
}

/// Options of `solstice cancel`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The jobs.
    #[arg(required = true, value_name = "JOB")]
    pub jobs: Vec<String>,

    /// Destroy their machines at once; steps that ask to run after a cancel do not.
    #[arg(long)]
    pub now: bool,

    /// Print a JSON array.
    #[arg(long)]
    pub json: bool,
}

/// Options of `solstice drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The host's name or id [default: the host of the service on this machine].
    #[arg(value_name = "HOST")]
    pub host: Option<String>,

    /// Take jobs again.
    #[arg(long, conflicts_with = "wait")]
    pub off: bool,

    /// Wait until nothing runs on the host any more.
    #[arg(long)]
    pub wait: bool,

    /// Print a JSON object.
    #[arg(long)]
    pub json: bool,
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
    /// Remove images from this host.
    Rm {
        /// The labels.
        #[arg(required = true, value_name = "LABEL")]
        labels: Vec<String>,
    },
}

/// What to do with runners of instances.
#[derive(Debug, Subcommand)]
pub enum ForgejoCommand {
    /// Make a runner of an instance, or keep one that was made there.
    #[command(after_help = REGISTER_EXAMPLES)]
    Register(Box<RegisterArgs>),
    /// Show every connection, and whether its instance answers and accepts it.
    Status {
        /// Print a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Forget a runner, and with a token of the API delete it on its instance too.
    Unregister(UnregisterArgs),
}

/// Options of `solstice forgejo register`.
#[derive(Debug, Args)]
pub struct RegisterArgs {
    /// The instance's address [default: by the settings of the connection].
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,

    /// The connection's name in settings and messages [default: by the instance's].
    #[arg(long, value_name = "CONN", value_parser = connection)]
    pub connection: Option<String>,

    /// The runner's name for people [default: the host's].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// What it offers, such as debian-12 or big:vm://debian-12?cpus=8&memory=16G; may be given
    /// several times [default: by the settings, else every image].
    #[arg(long = "label", value_name = "LABEL")]
    pub labels: Vec<String>,

    /// Replace the identity that is kept under this name.
    #[arg(long)]
    pub replace: bool,

    /// A file with the registration token; - is standard input.
    #[arg(long, value_name = "F", group = "way", help_heading = "By a registration token")]
    #[arg(value_hint = ValueHint::FilePath)]
    pub token_file: Option<PathBuf>,

    /// The registration token itself, which every user of this host can read meanwhile [default:
    /// SOLSTICE_FORGEJO_TOKEN in the environment, else asked without echo].
    #[arg(long, value_name = "T", group = "way", help_heading = "By a registration token")]
    pub token: Option<String>,

    /// The runner's UUID.
    #[arg(long, value_name = "U", group = "way", requires = "runner_token_file")]
    #[arg(help_heading = "Made on the web page (Forgejo 15 or later)")]
    pub uuid: Option<String>,

    /// A file with the runner's token; - is standard input.
    #[arg(long, value_name = "F", requires = "uuid", value_hint = ValueHint::FilePath)]
    #[arg(help_heading = "Made on the web page (Forgejo 15 or later)")]
    pub runner_token_file: Option<PathBuf>,

    /// A file with 40 hexadecimal digits; - is standard input.
    #[arg(long, value_name = "F", group = "way", value_hint = ValueHint::FilePath)]
    #[arg(help_heading = "By a secret that the administrator has too")]
    pub secret_file: Option<PathBuf>,

    /// A file with a user's token of the API; - is standard input.
    #[arg(long, value_name = "F", group = "way", requires = "scope")]
    #[arg(help_heading = "By the REST interface (Forgejo 15 or later)")]
    #[arg(value_hint = ValueHint::FilePath)]
    pub api_token_file: Option<PathBuf>,

    /// For which repositories: admin, org/NAME, user or OWNER/REPOSITORY.
    #[arg(long, value_name = "SCOPE", requires = "api_token_file")]
    #[arg(help_heading = "By the REST interface (Forgejo 15 or later)")]
    pub scope: Option<Scope>,

    /// A PEM file of certificates that are believed, too [default: by the settings].
    #[arg(long, value_name = "F", conflicts_with = "insecure", value_hint = ValueHint::FilePath)]
    #[arg(help_heading = "TLS")]
    pub ca_file: Option<PathBuf>,

    /// Believe any certificate.
    #[arg(long, help_heading = "TLS")]
    pub insecure: bool,
}

/// Options of `solstice forgejo unregister`.
#[derive(Debug, Args)]
pub struct UnregisterArgs {
    /// The connection.
    #[arg(value_name = "CONN")]
    pub connection: String,

    /// A file with a user's token of the API, to delete the runner on the instance; - is standard
    /// input.
    #[arg(long, value_name = "F", value_hint = ValueHint::FilePath)]
    pub api_token_file: Option<PathBuf>,

    /// Where the runner is: admin, org/NAME, user or OWNER/REPOSITORY [default: where it was made].
    #[arg(long, value_name = "SCOPE", requires = "api_token_file")]
    pub scope: Option<Scope>,
}

/// Options of `solstice forgejo-runner`.
#[derive(Debug, Args)]
pub struct ForgejoRunnerArgs {
    /// Take one job, report it and end; the exit code is 2 if there was none.
    #[arg(long)]
    pub one_job: bool,

    /// Take the job attempt with this handle (Forgejo 15 or later).
    #[arg(long, value_name = "H", requires = "one_job")]
    pub handle: Option<String>,

    /// Wait until there is a job; a signal ends that, and cancels the job where there is one.
    #[arg(long, requires = "one_job")]
    pub wait: bool,

    /// Of this connection [default: the only one].
    #[arg(long, value_name = "CONN", requires = "one_job")]
    pub connection: Option<String>,
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

fn connection(text: &str) -> Result<String, String> {
    if settings::is_connection_name(text) {
        Ok(text.to_owned())
    } else {
        Err(settings::name_rule())
    }
}

/// Splits `K=V` at the first `=`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

fn secret_name(text: &str) -> Result<String, String> {
    if text.contains('=') {
        return Err("give only the name: a value on a command line can be read by every user of \
                    this host; put it into the environment or use --secrets-file"
            .to_owned());
    }
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("a name has letters, digits and _, and does not start with a digit".to_owned())
    }
}

/// Whether a text can name a secret or an environment variable.
pub(crate) fn is_name(text: &str) -> bool {
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts_well && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The names of states, which completion scripts offer.
fn job_state() -> impl TypedValueParser<Value = JobState> {
    PossibleValuesParser::new(JobState::ALL.map(JobState::name))
        .map(|name| JobState::from_name(&name).expect("the parser knows only names of states"))
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

fn timeout(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a number and a unit, such as 90s, 30m or 2h"))?;
    if parsed.is_zero() {
        Err("it must be longer than nothing".to_owned())
    } else if parsed > LONGEST_JOB {
        Err("a job may run for 5 days at most".to_owned())
    } else {
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_run_with_everything_is_understood() {
        let cli = Cli::try_parse_from([
            "solstice",
            "run",
            "ci.yml",
            "--job",
            "a",
            "--job",
            "b",
            "--matrix",
            "os=x=y",
            "--dialect",
            "forgejo",
            "--secret",
            "TOKEN",
            "--memory",
            "2G",
            "--cpus",
            "64",
            "--timeout",
            "1h 30m",
            "--keep",
            "-v",
            "--json",
        ])
        .unwrap();
        let Command::Run(run) = cli.command else { panic!("not run") };
        assert_eq!(run.jobs, ["a", "b"]);
        assert_eq!(run.matrix, [("os".to_owned(), "x=y".to_owned())]);
        assert_eq!(run.dialect, Some(Dialect::Forgejo));
        assert_eq!(run.timeout, Some(Duration::from_secs(5400)));
        assert!(run.keep && run.verbose && run.json);
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for arguments in [
            &["--secret", "A=B"][..],
            &["--secret", "1A"],
            &["--matrix", "os"],
            &["--env", "=x"],
            &["--dialect", "gitlab"],
            &["--timeout", "0s"],
            &["--timeout", "5d 1s"],
            &["--memory", "lots"],
            &["--cpus", "0"],
            &["--cpus", "65"],
        ] {
            let line = ["solstice", "run"].iter().chain(arguments);
            assert!(Cli::try_parse_from(line).is_err(), "{arguments:?}");
        }
    }
}
