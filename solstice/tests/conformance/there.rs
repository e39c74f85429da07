//! A job in a machine: the guest program, as the orchestrator starts it and attaches to it. Many jobs
//! share one machine, each with directories of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::guest::{JobDocument, RUN_DIRECTORY};
use tokio::time::timeout;
use vm_manager::host::Instance;
use vm_manager::machine::Machine;
use vm_manager::ssh::Guest;

use super::actions::{NODE, answering, put_node};
use super::here::{Played, listen};
use super::host::{boot, spec};

/// Where the `node` of all jobs is.
const NODE_DIRECTORY: &str = "/var/tmp/node";

/// How long one command in the guest may take.
const COMMAND: Duration = Duration::from_secs(120);
/// How long a job may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// A machine in which jobs run one beside the other.
pub(super) struct There {
    machine: Machine,
    guest: Guest,
}

impl There {
    /// Boots a machine and places the guest program.
    pub(super) async fn boot(instance: &Arc<Instance>) -> Self {
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
        Self { machine, guest }
    }

    /// Runs a job to its end.
    pub(super) async fn play(&self, mut document: JobDocument, has_node: bool) -> Played {
        if has_node {
            put_node(&mut document.plan, NODE_DIRECTORY);
        }
        document.work_directory = format!("/var/tmp/work-{}", document.job);
        let runner = format!("{RUN_DIRECTORY}/workflow-runner");
        let bytes = serde_json::to_vec(&document).unwrap();
        let started = self.guest.run(&format!("{runner} start"), Some(&bytes), COMMAND).await;
        let started = started.unwrap();
        assert!(started.success(), "{}", started.complaint());
        let attach = format!("{runner} attach {}", document.job);
        let stream = answering(self.guest.exec_stream(&attach).await.unwrap());
        let (reader, writer) = tokio::io::split(stream);
        let played = listen(&document, reader, writer);
        let played = timeout(PATIENCE, played).await.expect("the job ends");
        // What a step left running may still write there; it all goes with the machine.
        let remove = format!("rm -rf {}", document.work_directory);
        self.guest.run(&remove, None, COMMAND).await.unwrap();
        played
    }

    /// Ends the machine.
    pub(super) async fn stop(self) {
        self.machine.destroy().await;
    }
}
