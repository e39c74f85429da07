//! Placing a job into a guest: the guest program, the local tree, the job document.

use std::path::Path;
use std::time::Duration;

use common::JobId;
use common::guest::{ATTACH_VERSION, JobDocument, RUN_DIRECTORY, RunnerFacts};
use common::infrastructure::{Cause, Infrastructure};
use common::request::JobRequest;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_util::io::SyncIoBridge;
use vm_manager::image::Entry;
use vm_manager::ssh::{Guest, quote};

use crate::tree::{self, TreeSize};

/// How long one short command in the guest may take. Generous: an emulated guest that swaps is slow.
const COMMAND: Duration = Duration::from_secs(120);
/// How long the guest program may take to arrive.
const UPLOAD: Duration = Duration::from_secs(300);
/// How long the local tree may take to arrive.
const TREE: Duration = Duration::from_secs(30 * 60);
/// The bytes of the tree on their way between reading and sending.
const TREE_BUFFER: usize = 256 * 1024;

fn program_path() -> String {
    format!("{RUN_DIRECTORY}/workflow-runner")
}

/// Where the local tree waits for `actions/checkout`.
fn tree_path() -> String {
    format!("{RUN_DIRECTORY}/tree")
}

/// The command that attaches to a running job.
pub(crate) fn attach_command(job: JobId) -> String {
    format!("{} attach {job}", program_path())
}

/// Places the guest program.
pub(crate) async fn program(guest: &Guest, file: &Path) -> Result<(), Infrastructure> {
    let failed = |reason: String| {
        Infrastructure::new(
            Cause::GuestProgram,
            format!("the guest program {} could not be placed: {reason}", file.display()),
        )
    };
    let bytes = tokio::fs::read(file).await.map_err(|error| failed(error.to_string()))?;
    let directory = format!("mkdir -p -m 700 {}", quote(RUN_DIRECTORY));
    let made = guest.run(&directory, None, COMMAND).await;
    made.map_err(|error| failed(error.to_string()))?;
    guest
        .upload(&bytes, &program_path(), 0o755, UPLOAD)
        .await
        .map_err(|error| failed(error.to_string()))
}

/// Places the local tree.
pub(crate) async fn tree(guest: &Guest, root: &Path) -> Result<TreeSize, Infrastructure> {
    let failed = |reason: String| {
        Infrastructure::new(
            Cause::GuestProgram,
            format!("the working tree {} could not be placed: {reason}", root.display()),
        )
    };
    let command = format!("{} unpack {}", program_path(), quote(&tree_path()));
    let placed = async {
        let mut session = guest.exec(&command).await.map_err(|error| failed(error.to_string()))?;
        let (ours, theirs) = tokio::io::duplex(TREE_BUFFER);
        let root = root.to_owned();
        let writer = tokio::task::spawn_blocking(move || {
            let output = std::io::BufWriter::with_capacity(TREE_BUFFER, SyncIoBridge::new(theirs));
            tree::write_tar(&root, output)
        });
        let sent = send(&mut session, ours).await;
        let size = writer
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(error.to_string()))?;
        let done = session.finish().await.map_err(|error| failed(error.to_string()))?;
        if !done.success() {
            return Err(failed(done.stderr_text()));
        }
        sent.map_err(|error| failed(error.to_string()))?;
        Ok(size)
    };
    timeout(TREE, placed).await.map_err(|_| failed(format!("it took longer than {TREE:?}")))?
}
