//! The arguments of `solstice run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};
use common::plan::Dialect;
use common::size::ByteSize;

use super::{dialect, processors};

/// The longest time that a job may run, whatever `timeout-minutes` and `--timeout` say: what GitHub
/// gives a job on a runner of one's own.
pub(crate) const LONGEST_JOB: Duration = Duration::from_secs(5 * 24 * 3600);

pub(super) const EXAMPLES: &str = "\
Examples:
  solstice run
  solstice run ci.yml --job test --matrix os=linux
  solstice run ci.yml --secret DEPLOY_KEY --var REGION=eu
  solstice run ci.yml --event pull_request --event-file event.json
  solstice run ci.yml --keep            keep the machine of a failed job for 2 hours
  solstice run ci.yml --keep=frozen     freeze it, so that it holds no memory
  solstice run ci.yml --json | jq .     one event per line

Where a service runs on this host (`solstice serve`), it runs the jobs.
Ctrl-C cancels the jobs; a second Ctrl-C destroys their machines at once.
Exit codes: 0 passed, 1 failed, 2 infrastructure, 64 usage, 130 cancelled.";

/// How the machine of a failed job is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeepHow {
    /// It runs on.
    Running,
    /// It is frozen to files.
    Frozen,
}

impl KeepHow {
    /// For how long.
    #[must_use]
    pub fn time(self) -> Duration {
        match self {
            Self::Running => Duration::from_secs(2 * 3600),
            Self::Frozen => Duration::from_secs(7 * 24 * 3600),
        }
    }
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

    /// Keep the machine of a failed job: running for 2 hours, or frozen to files for 7 days, from
    /// which `solstice thaw` continues it.
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Machine")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "running")]
    pub keep: Option<KeepHow>,

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
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

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
        assert!(run.keep == Some(KeepHow::Running) && run.verbose && run.json);
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
