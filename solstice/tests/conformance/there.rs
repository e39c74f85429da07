//! A job in a machine: the guest program, as the orchestrator starts it and attaches to it. Many jobs
//! share one machine, each with directories of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::guest::{JobDocument, RUN_DIRECTORY};
use tokio::sync::RwLock;
use tokio::time::timeout;
use vm_manager::host::Instance;
use vm_manager::machine::Machine;
use vm_manager::ssh::{Guest, SshError};

use super::actions::{NODE, answering, put_node};
use super::here::{Played, listen};
use super::host::{boot, spec};

/// Where the `node` of all jobs is.
const NODE_DIRECTORY: &str = "/var/tmp/node";

/// How long one command in the guest may take.
const COMMAND: Duration = Duration::from_secs(120);
/// How long a job may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long a lost connection may take to be known as one.
const CLOSED: Duration = Duration::from_secs(10);

/// How often a job is run again, on another machine, because the connection to its machine was lost.
const ATTEMPTS: u32 = 3;

/// A machine in which jobs run one beside the other. One that is lost is replaced: what is compared here
/// is the language, and who runs jobs connects again.
pub(super) struct There {
    instance: Arc<Instance>,
    place: RwLock<Place>,
}

struct Place {
    machine: Machine,
    guest: Guest,
    /// How many there were before.
    number: u32,
}

impl There {
    /// Boots a machine and places the guest program.
    pub(super) async fn boot(instance: &Arc<Instance>) -> Self {
        let place = RwLock::new(Place::boot(instance, 0).await);
        Self { instance: Arc::clone(instance), place }
    }

    /// Runs a job to its end.
    pub(super) async fn play(&self, mut document: JobDocument, has_node: bool) -> Played {
        if has_node {
            put_node(&mut document.plan, NODE_DIRECTORY);
        }
        document.work_directory = format!("/var/tmp/work-{}", document.job);
        for attempt in 1..=ATTEMPTS {
            let number = {
                let place = self.place.read().await;
                match place.play(&document).await {
                    Ok(played) => return played,
                    Err(error) => {
                        eprintln!("attempt {attempt}, machine {}: {error}", place.number);
                        place.number
                    }
                }
            };
            self.replace(number).await;
        }
        panic!("the connection to the machine was lost {ATTEMPTS} times");
    }

    /// Boots another machine in the place of this one, unless somebody has.
    async fn replace(&self, number: u32) {
        let mut place = self.place.write().await;
        if place.number == number {
            let next = Place::boot(&self.instance, number + 1).await;
            std::mem::replace(&mut *place, next).machine.destroy().await;
        }
    }

    /// Ends the machine.
    pub(super) async fn stop(self) {
        self.place.into_inner().machine.destroy().await;
    }
}

impl Place {
    async fn boot(instance: &Arc<Instance>, number: u32) -> Self {
        let (machine, guest) = boot(instance, spec()).await;
        let built = Path::new(env!("CARGO_BIN_EXE_solstice")).ancestors().nth(2).unwrap();
        let program = built.join("guest/workflow-runner-linux-x64");
        let bytes = std::fs::read(&program).expect("the guest program is built: run `make test`");
        let made = guest.run(&format!("mkdir -p {RUN_DIRECTORY}"), None, COMMAND).await.unwrap();
        assert!(made.success(), "{}", made.complaint());
        let path = format!("{RUN_DIRECTORY}/workflow-runner");
        let size = bytes.len() as u64;
        guest.upload(bytes.as_slice(), size, &path, 0o755, COMMAND).await.unwrap();
        let make = format!("mkdir -p {NODE_DIRECTORY}");
        let made = guest.run(&make, None, COMMAND).await.unwrap();
        assert!(made.success(), "{}", made.complaint());
        let (size, path) = (NODE.len() as u64, format!("{NODE_DIRECTORY}/node"));
        guest.upload(NODE.as_bytes(), size, &path, 0o755, COMMAND).await.unwrap();
        Self { machine, guest, number }
    }

    /// Runs a job to its end; fails only when the connection is lost.
    async fn play(&self, document: &JobDocument) -> Result<Played, SshError> {
        let runner = format!("{RUN_DIRECTORY}/workflow-runner");
        let bytes = serde_json::to_vec(document).unwrap();
        let started = self.guest.run(&format!("{runner} start"), Some(&bytes), COMMAND).await?;
        assert!(started.success(), "{}", started.complaint());
        let attach = format!("{runner} attach {}", document.job);
        let stream = answering(self.guest.exec_stream(&attach).await?);
        let (reader, writer) = tokio::io::split(stream);
        let own = document.clone();
        let played = tokio::spawn(async move { listen(&own, reader, writer).await });
        let played = match timeout(PATIENCE, played).await.expect("the job ends") {
            Ok(played) => played,
            Err(panic) => {
                // Only a lost connection is an excuse.
                let closed = timeout(CLOSED, self.guest.closed()).await;
                return Err(
                    closed.unwrap_or_else(|_| std::panic::resume_unwind(panic.into_panic()))
                );
            }
        };
        // What a step left running may still write there; it all goes with the machine.
        let remove = format!("rm -rf {}", document.work_directory);
        self.guest.run(&remove, None, COMMAND).await?;
        Ok(played)
    }
}
