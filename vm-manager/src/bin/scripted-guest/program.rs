//! The guest program as the host calls it: `workflow-runner start | attach JOB | unpack DIRECTORY |
//! version`. Exit codes and sentences are those of the real one (`workflow-runner`, `guest::error`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::JobId;
use common::guest::{ATTACH_VERSION, EXIT_DISK_FULL, JobDocument, START_WORD};
use common::limits::JOB_DOCUMENT_BYTES;
use serde::Deserialize;
use tokio::time::timeout;

use crate::boot::BootEnd;
use crate::command::{Input, Terminal};
use crate::job::Job;
use crate::machine::Machine;
use crate::{attach, engine};

/// The exit code for input that cannot be used.
const EXIT_INPUT: u8 = 64;
/// The exit code for a job that is not there.
const EXIT_UNAVAILABLE: u8 = 69;
/// The exit code for everything that went wrong in the machine.
const EXIT_FAULT: u8 = 70;

/// What the system says when a file system has no room.
pub(crate) const NO_SPACE: &str = "No space left on device (os error 28)";

/// How long a refused host may take to say what it wants. A real program needs longer than that to be
/// started and to look for its daemon: no refusal overtakes the first frame.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// How long a slow guest takes to start a job.
const SLOW_START: Duration = Duration::from_secs(2);

/// The one job of this machine, once it was started.
#[derive(Debug, Default)]
pub(crate) struct Program(Mutex<Option<Arc<Job>>>);

/// Why the guest program did not do what it was asked.
#[derive(Debug)]
struct Failure {
    code: u8,
    text: String,
}

/// Is the guest program; returns its exit code.
pub(crate) async fn main(
    machine: &Arc<Machine>,
    arguments: &[&str],
    input: &mut Input,
    terminal: &Terminal,
) -> u8 {
    let done = match arguments {
        ["start"] => start(machine, input, terminal).await,
        ["attach", job] => attach_to(machine, job, input, terminal).await,
        ["unpack", _] => {
            // The tree is taken and goes nowhere: no step can look for it.
            while input.next().await.is_some() {}
            if machine.booted == BootEnd::Full {
                let text = format!("cannot unpack the first file: {NO_SPACE}");
                Err(Failure { code: EXIT_DISK_FULL, text })
            } else {
                Ok(())
            }
        }
        ["version"] => {
            terminal.stdout(b"workflow-runner scripted\n".to_vec()).await;
            Ok(())
        }
        _ => Err(Failure {
            code: EXIT_INPUT,
            text: "usage: workflow-runner start | attach JOB | unpack DIRECTORY | version".into(),
        }),
    };
    match done {
        Ok(()) => 0,
        Err(Failure { code, text }) => {
            terminal.stderr(&format!("workflow-runner: {text}\n")).await;
            code
        }
    }
}

async fn start(
    machine: &Arc<Machine>,
    input: &mut Input,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    while let Some(more) = input.next().await {
        bytes.extend_from_slice(&more);
        if bytes.len() > JOB_DOCUMENT_BYTES {
            let text = format!("the job document is over the limit of {JOB_DOCUMENT_BYTES} bytes");
            return Err(Failure { code: EXIT_INPUT, text });
        }
    }
    let document = parse(&bytes)?;
    // It may be most of what this process has in memory.
    drop(bytes);
    let id = document.job;
    if machine.booted == BootEnd::Slow {
        machine.clock.sleep(SLOW_START).await;
    }
    if let Some(job) = machine.program.claim(id)? {
        tokio::spawn(engine::run(Arc::clone(machine), job, document));
    }
    terminal.stdout(format!("{START_WORD} {ATTACH_VERSION} {id}\n").into_bytes()).await;
    Ok(())
}

/// Its version first, because the shape of another version may be another.
fn parse(bytes: &[u8]) -> Result<JobDocument, Failure> {
    /// The one field that every version has.
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }

    let malformed = |error: serde_json::Error| Failure {
        code: EXIT_INPUT,
        text: format!(
            "the job document cannot be read: it is wrong at line {}, column {}",
            error.line(),
            error.column()
        ),
    };
    let Versioned { version } = serde_json::from_slice(bytes).map_err(malformed)?;
    if version != u64::from(ATTACH_VERSION) {
        let text = format!(
            "the job document has version {version}, but this guest program speaks version \
             {ATTACH_VERSION}; upload the guest program that belongs to the host's version"
        );
        return Err(Failure { code: EXIT_INPUT, text });
    }
    serde_json::from_slice(bytes).map_err(malformed)
}

async fn attach_to(
    machine: &Arc<Machine>,
    job: &str,
    input: &mut Input,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let found = machine.program.job().filter(|found| found.id.to_string() == job);
    let why = match found {
        Some(job) if !job.is_over() => {
            attach::serve(&job, input, terminal).await;
            return Ok(());
        }
        Some(job) if job.killed.is_cancelled() => "Connection refused (os error 111)",
        _ => "it has ended or was never started",
    };
    let text = format!("no daemon of job {job} answers: {why}");
    drop(timeout(FIRST_WORD, input.next()).await);
    attach::refuse(terminal, text.clone()).await;
    Err(Failure { code: EXIT_UNAVAILABLE, text })
}

impl Program {
    /// Kills it, if it runs.
    pub(crate) fn die(&self) {
        if let Some(job) = self.job() {
            job.kill();
        }
    }

    /// The job to run; `None` if it runs already.
    fn claim(&self, id: JobId) -> Result<Option<Arc<Job>>, Failure> {
        let mut current = self.lock();
        match current.as_ref() {
            None => Ok(Some(Arc::clone(current.insert(Job::new(id))))),
            Some(job) if job.id == id && !job.is_over() => Ok(None),
            Some(job) if job.id == id => Err(Failure {
                code: EXIT_FAULT,
                text: format!(
                    "the daemon of job {id} was started before and is gone; run the job in a \
                     fresh machine"
                ),
            }),
            Some(job) => Err(Failure {
                code: EXIT_FAULT,
                text: format!("this machine has had job {} and takes no other", job.id),
            }),
        }
    }

    /// The job, once it was started.
    pub(crate) fn job(&self) -> Option<Arc<Job>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Job>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
