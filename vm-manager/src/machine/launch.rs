//! The one place that starts QEMU.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::qmp::{Event, Qmp, QmpError};
use super::{MachineError, Privileges};
use crate::host::{HostError, MachinePaths, Process, ProcessIdentity, Qemu, QemuMissing};
use crate::system::spawn_detached;

/// How long QEMU may take from exec to its monitor's socket, on a host that is busy with others.
const SOCKET_DEADLINE: Duration = Duration::from_secs(30);

/// How often the socket is tried meanwhile.
const SOCKET_INTERVAL: Duration = Duration::from_millis(5);

/// How much of QEMU's own output stands in an error.
const LOG_BYTES: u64 = 2048;

/// Starts QEMU in its own session with the given privileges. Its output goes to a file, so that it
/// neither blocks nor dies when this process does.
pub(super) fn launch(
    qemu: &Qemu,
    arguments: &[OsString],
    paths: &MachinePaths,
    privileges: &Privileges,
) -> Result<Process, MachineError> {
    let log = paths.qemu_log();
    let output = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&log)
        .map_err(HostError::io("create", &log))?;
    let mut command = Command::new(&qemu.path);
    // It holds no directory that somebody may want to unmount, and its own is writable for it.
    command.args(arguments).current_dir(&paths.runtime);
    let child = spawn_detached(&mut command, &output, privileges).map_err(|error| {
        let reason = error.to_string();
        if error.kind() == std::io::ErrorKind::NotFound {
            let path = qemu.path.clone();
            return HostError::from(QemuMissing::NotFound { path, reason }).into();
        }
        MachineError::QemuStart { reason }
    })?;
    hold(child.id(), &log)
}

/// Takes hold of a child. Until it is collected its number cannot pass to another process.
fn hold(id: u32, log: &Path) -> Result<Process, MachineError> {
    let failed = |error| HostError::io("hold on to", format!("/proc/{id}").as_ref())(error);
    let identity = ProcessIdentity::of(id.cast_signed()).map_err(failed)?;
    let process = match identity {
        Some(identity) => Process::open(identity).map_err(failed)?,
        None => None,
    };
    process.ok_or_else(|| {
        collect_ended(id);
        MachineError::QemuStart { reason: last_words(log) }
    })
}

/// A child that ended before it could be held is a zombie.
fn collect_ended(id: u32) {
    let pid = nix::unistd::Pid::from_raw(id.cast_signed());
    let flags = Some(nix::sys::wait::WaitPidFlag::WNOHANG);
    // Somebody else may have collected it.
    let _collected = nix::sys::wait::waitpid(pid, flags).is_ok();
}

/// Connects to the monitor of a QEMU that was just started.
pub(super) async fn connect(
    process: &Process,
    paths: &MachinePaths,
    on_event: impl FnMut(&Event) + Send + 'static,
) -> Result<Qmp, MachineError> {
    let socket = paths.qmp();
    let appears = async {
        // QEMU makes the socket and listens on it in two steps: only a connection tells.
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            tokio::time::sleep(SOCKET_INTERVAL).await;
        }
    };
    let refused = || MachineError::QemuStart { reason: how_ended(process, &paths.qemu_log()) };
    tokio::select! {
        () = appears => {}
        ended = process.ended() => {
            ended.map_err(QmpError::from)?;
            return Err(refused());
        }
        () = tokio::time::sleep(SOCKET_DEADLINE) => {
            return Err(QmpError::Timeout { command: "connect", deadline: SOCKET_DEADLINE }.into());
        }
    }
    match Qmp::connect(&socket, on_event).await {
        // It ended on its way, for a reason that it has written down.
        Err(QmpError::Closed { .. } | QmpError::Io(_)) => {
            drop(tokio::time::timeout(SOCKET_DEADLINE, process.ended()).await);
            Err(refused())
        }
        other => Ok(other?),
    }
}

/// In words: how the process ended, and what it wrote last.
pub(super) fn how_ended(process: &Process, log: &Path) -> String {
    let how = process.collect().unwrap_or_else(|| "ended".to_owned());
    format!("it {how}: {}", last_words(log))
}

/// The end of QEMU's own output.
fn last_words(log: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
        let mut text = Vec::new();
        file.take(LOG_BYTES).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "it said nothing".to_owned() } else { lines.join("; ") }
}
