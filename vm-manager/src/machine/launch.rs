//! The one place that starts the QEMU of a guest. The probe of `/dev/kvm` starts one by itself, which
//! runs 222 bytes of ours and no guest.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use tokio::net::UnixStream;

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
    let mut child = spawn_detached(&mut command, &output, privileges).map_err(|error| {
        let reason = error.to_string();
        if error.kind() == std::io::ErrorKind::NotFound {
            let path = qemu.path.clone();
            return HostError::from(QemuMissing::NotFound { path, reason }).into();
        }
        MachineError::QemuStart { reason }
    })?;
    match hold(&child) {
        Ok(Some(process)) => Ok(process),
        // It ended before it could be held on to.
        Ok(None) => {
            drop(child.wait());
            Err(MachineError::QemuStart { reason: last_words(&log) })
        }
        Err(source) => {
            drop(child.kill());
            drop(child.wait());
            let path = format!("/proc/{}", child.id()).into();
            Err(HostError::Io { action: "hold on to", path, source }.into())
        }
    }
}

/// Takes hold of a child. Until it is collected its number cannot pass to another process.
fn hold(child: &Child) -> std::io::Result<Option<Process>> {
    match ProcessIdentity::of(child.id().cast_signed())? {
        Some(identity) => Process::open(identity),
        None => Ok(None),
    }
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
        loop {
            match UnixStream::connect(&socket).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(SOCKET_INTERVAL).await,
            }
        }
    };
    let refused = || MachineError::QemuStart { reason: how_ended(process, &paths.qemu_log()) };
    let stream = tokio::select! {
        stream = appears => stream,
        ended = process.ended() => {
            ended.map_err(QmpError::from)?;
            return Err(refused());
        }
        () = tokio::time::sleep(SOCKET_DEADLINE) => {
            return Err(QmpError::Timeout { command: "connect", deadline: SOCKET_DEADLINE }.into());
        }
    };
    match Qmp::over(stream, on_event).await {
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
pub(super) fn last_words(log: &Path) -> String {
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
