//! Placing a job into a guest: the guest program, the local tree, the job document.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use common::call::{ARTIFACT_SERVICE, artifact_service, cache_service};
use common::guest::{
    ATTACH_VERSION, EXIT_DISK_FULL, GuestService, JobDocument, NativeCommits, RUN_DIRECTORY,
    RunnerFacts, START_WORD,
};
use common::infrastructure::{Cause, Infrastructure};
use common::request::{JobRequest, Secret, Service};
use common::{JobId, RunId};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::time::timeout;
use tokio_util::io::SyncIoBridge;
use vm_manager::image::{Checkout, Entry, Preparation, Templating};
use vm_manager::ssh::{ExitStatus, Guest, Output, Session, SshError, quote, says_full};

use crate::tree::{self, TreeError, TreeSize};

/// How long one short command in the guest may take. Generous: an emulated guest that swaps is slow.
const COMMAND: Duration = Duration::from_secs(120);
/// How long the guest program may take to arrive.
const UPLOAD: Duration = Duration::from_secs(300);
/// How long the local tree may take to arrive.
const TREE: Duration = Duration::from_secs(30 * 60);
/// The bytes of the tree on their way between reading and sending.
const TREE_BUFFER: usize = 256 * 1024;
/// The last lines of a preparation that stand in an error.
const COMPLAINT_LINES: usize = 20;
/// What is kept of a guest's complaint.
const COMPLAINT_BYTES: usize = 4096;

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

/// What is to blame when something could not be sent.
fn cause_of(error: &SshError) -> Cause {
    match error {
        SshError::Full { .. } => Cause::GuestDiskFull,
        _ => Cause::GuestProgram,
    }
}

/// What is to blame when the guest program did not do what it was asked.
fn cause_of_end(status: Option<&ExitStatus>) -> Cause {
    match status {
        Some(ExitStatus::Code(code)) if *code == u32::from(EXIT_DISK_FULL) => Cause::GuestDiskFull,
        _ => Cause::GuestProgram,
    }
}

/// Places the guest program.
pub(crate) async fn program(guest: &Guest, file: &Path) -> Result<(), Infrastructure> {
    let failed = |cause: Cause, reason: &dyn Display| {
        let file = file.display();
        let text = format!("the guest program {file} could not be placed: {reason}");
        Infrastructure::new(cause, text)
    };
    let sent = |error: SshError| failed(cause_of(&error), &error);
    let read = tokio::fs::read(file).await;
    let bytes = read.map_err(|error| failed(Cause::GuestProgram, &error))?;
    let directory = format!("LC_ALL=C mkdir -p -m 700 {}", quote(RUN_DIRECTORY));
    let made = guest.run(&directory, None, COMMAND).await.map_err(sent)?;
    if !made.success() {
        let full = says_full(&String::from_utf8_lossy(&made.stderr));
        let cause = if full { Cause::GuestDiskFull } else { Cause::GuestProgram };
        let reason = format!("cannot make the directory {RUN_DIRECTORY}: {}", made.complaint());
        return Err(failed(cause, &reason));
    }
    let size = bytes.len() as u64;
    guest.upload(bytes.as_slice(), size, &program_path(), 0o755, UPLOAD).await.map_err(sent)
}

/// The beginning of a command that writes its standard input to a file: a script of known size, which
/// shall not run where a connection cut it off.
fn placed_by_cat(path: &str, script: &str) -> String {
    let (path, size) = (quote(path), script.len());
    format!(
        "umask 077; if cat >{path} && [ \"$(($(wc -c <{path})))\" -eq {size} ]; then umask 022; \
         else echo 'it did not arrive' >&2; exit 1; fi"
    )
}

/// Lets what was started in a guest before come to its end. Dropbear may close a fresh channel when a
/// process of another one ends at that moment, such as the server of an upload, and may have started
/// by then what was asked for on it, so that it is started twice. This does no harm twice.
async fn settle(guest: &Guest) -> Result<(), SshError> {
    guest.run("true", None, COMMAND).await.map(drop)
}

/// Does in a guest what is prepared for all jobs of its label.
pub(crate) async fn prepare(
    guest: &Guest,
    preparation: &Preparation,
) -> Result<(), Infrastructure> {
    let failed = |reason: &dyn Display| {
        let text = format!("the preparation of the machine failed: {reason}");
        Infrastructure::new(Cause::Prepare, text)
    };
    let Preparation { script, deadline } = preparation;
    settle(guest).await.map_err(|error| failed(&error))?;
    let path = format!("{RUN_DIRECTORY}/prepare");
    let place = placed_by_cat(&path, script);
    let path = quote(&path);
    let command =
        format!("{place}; /bin/sh {path} </dev/null 2>&1; code=$?; rm -f {path}; exit $code");
    let done = guest.run(&command, Some(script.as_bytes()), *deadline).await;
    let done = done.map_err(|error| failed(&error))?;
    if done.success() {
        return Ok(());
    }
    let said = [&done.stdout[..], &done.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    let last = lines[lines.len().saturating_sub(COMPLAINT_LINES)..].join("\n    ");
    Err(failed(&format!("it ended with {}; its last lines:\n    {last}", done.status)))
}

/// Lets the guest program wait on a serial port for what makes a clone a machine of its own.
pub(crate) async fn listen(guest: &Guest, templating: &Templating) -> Result<(), Infrastructure> {
    let Templating { port, script } = templating;
    let failed = |reason: &dyn Display| {
        let text = format!("the guest program does not listen on {port}: {reason}");
        Infrastructure::new(Cause::GuestProgram, text)
    };
    settle(guest).await.map_err(|error| failed(&error))?;
    let program = program_path();
    let path = format!("{RUN_DIRECTORY}/personalise");
    let place = placed_by_cat(&path, script);
    let listen = format!("trap '' HUP; exec {program} personal {} {}", quote(port), quote(&path));
    let command = format!("{place}; sync; ({listen}) >/dev/null 2>&1 </dev/null &");
    let done = guest.run(&command, Some(script.as_bytes()), COMMAND).await;
    let done = done.map_err(|error| failed(&error))?;
    if done.success() { Ok(()) } else { Err(failed(&done.complaint())) }
}

/// The local tree that a job's machine needs: a step places it, or the label asks for it.
pub(crate) fn tree_of<'a>(entry: &Entry, request: &'a JobRequest) -> Option<&'a Path> {
    let body = &request.body;
    let wanted = body.has_checkout || entry.checkout == Checkout::Auto;
    body.tree.as_deref().filter(|_| wanted)
}

/// Places the local tree where `actions/checkout` finds it.
pub(crate) async fn tree(guest: &Guest, root: &Path) -> Result<TreeSize, Infrastructure> {
    let failed = |cause: Cause, reason: &dyn Display| {
        let root = root.display();
        let text = format!("the working tree {root} could not be placed: {reason}");
        Infrastructure::new(cause, text)
    };
    let other = |reason: &dyn Display| failed(Cause::GuestProgram, reason);
    let placed = timeout(TREE, send_tree(guest, root)).await;
    match placed {
        Ok(Ok((Ok(size), ended))) if ended.is_success() => Ok(size),
        // The guest's own words explain a stream that broke; a tree that cannot be read comes first.
        Ok(Ok((Err(error @ TreeError::Read { .. } | error @ TreeError::Git { .. }), _))) => {
            Err(other(&error))
        }
        Ok(Ok((_, ended))) => {
            Err(failed(cause_of_end(ended.status.as_ref()), &ended.complaint.trim()))
        }
        Ok(Err(error)) => Err(failed(cause_of(&error), &error)),
        Err(_) => Err(other(&format!("it took longer than {} s", TREE.as_secs()))),
    }
}

/// How the unpacking in the guest ended.
struct Unpacked {
    status: Option<ExitStatus>,
    complaint: String,
}

impl Unpacked {
    fn is_success(&self) -> bool {
        self.status.as_ref().is_some_and(ExitStatus::success)
    }
}

async fn send_tree(
    guest: &Guest,
    root: &Path,
) -> Result<(Result<TreeSize, TreeError>, Unpacked), SshError> {
    let command = format!("{} unpack {}", program_path(), quote(&tree_path()));
    let Session { mut stdin, mut output } = guest.exec(&command).await?;
    let (ours, theirs) = tokio::io::duplex(TREE_BUFFER);
    let root = root.to_owned();
    let bridge = SyncIoBridge::new(theirs);
    let archive = tokio::task::spawn_blocking(move || {
        tree::write_tar(&root, std::io::BufWriter::with_capacity(TREE_BUFFER, bridge))
    });
    let send = async {
        // A guest that stops reading says why on its standard error.
        // In large pieces: each costs an emulated guest a turn.
        let mut ours = BufReader::with_capacity(TREE_BUFFER, ours);
        drop(tokio::io::copy_buf(&mut ours, &mut stdin).await);
        drop(ours);
        drop(stdin.shutdown().await);
    };
    let listen = async {
        let mut unpacked = Unpacked { status: None, complaint: String::new() };
        while let Some(next) = output.next().await? {
            match next {
                Output::Exit(status) => unpacked.status = Some(status),
                Output::Stderr(bytes) | Output::Stdout(bytes) => {
                    if unpacked.complaint.len() < COMPLAINT_BYTES {
                        unpacked.complaint.push_str(&String::from_utf8_lossy(&bytes));
                    }
                }
            }
        }
        Ok::<_, SshError>(unpacked)
    };
    let ((), unpacked) = tokio::join!(send, listen);
    let size = archive.await.unwrap_or_else(|panic| {
        Err(TreeError::Send(std::io::Error::other(format!("the packer failed: {panic}"))))
    });
    Ok((size, unpacked?))
}

/// Hands the job to the guest program, which runs it detached from this connection.
pub(crate) async fn start(
    guest: &Guest,
    entry: &Entry,
    machine: &str,
    (request, native_commits): (&JobRequest, NativeCommits),
) -> Result<(), Infrastructure> {
    let failed = |cause: Cause, reason: &dyn Display| {
        Infrastructure::new(cause, format!("the guest program did not start the job: {reason}"))
    };
    let document = document(entry, machine, request, native_commits);
    let bytes =
        serde_json::to_vec(&document).map_err(|error| failed(Cause::GuestProgram, &error))?;
    let command = format!("{} start", program_path());
    let done = guest.run(&command, Some(&bytes), COMMAND).await;
    let done = done.map_err(|error| failed(cause_of(&error), &error))?;
    let answer = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    let expected = format!("{START_WORD} {ATTACH_VERSION} {}", document.job);
    if done.status.success() && answer == expected {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let reason = format!("{}: {} {answer}", done.status, said.trim());
    Err(failed(cause_of_end(Some(&done.status)), &reason))
}

fn document(
    entry: &Entry,
    machine: &str,
    request: &JobRequest,
    native_commits: NativeCommits,
) -> JobDocument {
    let body = &request.body;
    let services = body.services.iter().map(|service| GuestService {
        name: service.name.clone(),
        base_url: service.base_url.clone(),
        token: service.token.as_ref().and_then(|name| body.secrets.get(name)).cloned(),
        paths: service.paths.clone(),
    });
    // They are no secrets of the user's.
    let is_token = |name: &String| body.services.iter().any(|s| s.token.as_ref() == Some(name));
    JobDocument {
        version: ATTACH_VERSION,
        job: request.envelope.job,
        plan: body.plan.clone(),
        contexts: body.contexts.clone(),
        secrets: body.secrets.clone().into_iter().filter(|(name, _)| !is_token(name)).collect(),
        runner: RunnerFacts {
            os: entry.runner_os.clone(),
            arch: entry.runner_arch.clone(),
            name: machine.to_owned(),
            tool_cache: entry.tool_cache.clone(),
        },
        work_directory: entry.work_directory.clone(),
        run_as: entry.run_as.clone(),
        label: Some(request.envelope.label.clone()),
        checkout_first: tree_of(entry, request).is_some() && !body.has_checkout,
        tree: tree_of(entry, request).map(|_| tree_path()),
        services: own_services(request).into_iter().chain(services).collect(),
        native_commits,
    }
}

/// The services that this host keeps for the job itself.
fn own_services(request: &JobRequest) -> Vec<GuestService> {
    let mut services = vec![cache_service()];
    let keeps = |service: &Service| service.name == ARTIFACT_SERVICE;
    if let Some(run) = request.body.run
        && !request.body.services.iter().any(keeps)
    {
        let token = local_token(run, request.envelope.job);
        services.push(artifact_service(Some(token)));
    }
    services
}

/// What programs look into to learn which run they belong to: it has the form of a forge's token
/// (forgejo-runner-protocol 8.9), and nobody is let in by it.
fn local_token(run: RunId, job: JobId) -> Secret {
    let claims = serde_json::json!({ "scp": format!("Actions.Results:{run}:{job}") });
    let part = |json: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let head = part(serde_json::json!({ "alg": "none", "typ": "JWT" }));
    Secret::new(format!("{head}.{}.none", part(claims)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_everything_else() {
        let path = "/x".to_owned();
        let full = SshError::Full { path: path.clone(), reason: String::new() };
        assert_eq!(cause_of(&full), Cause::GuestDiskFull);
        let other = SshError::Transfer { action: "write", path, reason: String::new() };
        assert_eq!(cause_of(&other), Cause::GuestProgram);

        assert_eq!(cause_of_end(Some(&ExitStatus::Code(73))), Cause::GuestDiskFull);
        for status in [None, Some(ExitStatus::Code(70)), Some(ExitStatus::Signal("KILL".into()))] {
            assert_eq!(cause_of_end(status.as_ref()), Cause::GuestProgram, "{status:?}");
        }
    }
}
