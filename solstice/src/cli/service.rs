//! The arguments of the commands that ask the service of a host.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use orchestrator::store::JobState;

pub(super) const JOBS_EXAMPLES: &str = "\
Examples:
  solstice jobs                         those that are not over
  solstice jobs --all --repository me/app
  solstice jobs --state queued --state running --json | jq '.[].id'";

pub(super) const JOB_HELP: &str = "\
JOB is an id, or a beginning or an end of one that no other job shares, such as the short form that
`solstice jobs` shows.";

pub(super) const LOGS_EXAMPLES: &str = "\
Examples:
  solstice logs 5f3a90c1b2d4            what there is
  solstice logs -f 5f3a90c1b2d4         up to the job's end, with its exit code
  solstice logs 5f3a90c1b2d4 --json | jq .

JOB is an id, or a beginning or an end of one that no other job shares.
With -f, Ctrl-C ends the command (130) and not the job.";

pub(super) const CANCEL_EXAMPLES: &str = "\
Examples:
  solstice cancel 5f3a90c1b2d4
  solstice cancel --now 5f3a 77e0       destroy their machines at once

JOB is an id, or a beginning or an end of one that no other job shares.";

pub(super) const DRAIN_EXAMPLES: &str = "\
Examples:
  solstice drain --wait                 before an upgrade of this host
  solstice drain --off                  take jobs again
  solstice drain builder-2              another host of the installation";

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

/// The names of states, which completion scripts offer.
fn job_state() -> impl TypedValueParser<Value = JobState> {
    PossibleValuesParser::new(JobState::ALL.map(JobState::name))
        .map(|name| JobState::from_name(&name).expect("the parser knows only names of states"))
}
