//! The program inside a machine: parses its command line and maps errors to exit codes.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use common::JobId;
use workflow_runner::guest::{self, GuestError};

const USAGE: &str = "usage: workflow-runner start | attach JOB | unpack DIRECTORY [--owner USER] | \
                     personal PORT SCRIPT | version";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("workflow-runner: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run() -> Result<(), GuestError> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let base = guest::run_base(env::var_os(guest::RUN_DIRECTORY_VARIABLE));
    let words: Vec<Option<&str>> = arguments.iter().map(|argument| argument.to_str()).collect();
    match words[..] {
        [Some("start")] => guest::start(&base, io::stdin(), io::stdout()),
        [Some("daemon"), _] => guest::daemon(Path::new(&arguments[1]), io::stdin()),
        [Some("attach"), Some(job)] => attach(&base, job),
        [Some("unpack"), _] => guest::unpack(io::stdin(), Path::new(&arguments[1]), None),
        [Some("unpack"), _, Some("--owner"), Some(user)] => {
            guest::unpack(io::stdin(), Path::new(&arguments[1]), Some(user))
        }
        [Some("personal"), _, _] => {
            guest::personal(&base, Path::new(&arguments[1]), Path::new(&arguments[2]))
        }
        [Some("version")] => {
            println!("workflow-runner {} {}", env!("CARGO_PKG_VERSION"), guest::build_id());
            Ok(())
        }
        _ => Err(GuestError::Usage(USAGE.to_owned())),
    }
}

/// Attaches, and tells the host on the connection itself why it cannot.
fn attach(base: &Path, job: &str) -> Result<(), GuestError> {
    let job: JobId = job
        .parse()
        .map_err(|_| GuestError::Usage(format!("{job:?} is not the id of a job; {USAGE}")))?;
    guest::attach(base, job).inspect_err(|error| {
        // Nobody may listen any more; the exit code says it as well.
        drop(guest::refuse(io::stdout(), error));
    })
}
