//! A whole guest, memory included, through a socket: to be frozen, and to go on.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream as Pipe;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use super::migration::{completion, whole_memory};
use super::qmp::{COMMAND_DEADLINE, Qmp, QmpError};
use crate::frozen::FrozenError;
use crate::host::{HostError, MachineName, MachinePaths};

/// How long QEMU may take to open its end of the socket.
const OPEN: Duration = Duration::from_secs(30);
/// How long the other end may neither give nor take a byte.
const STALLED: Duration = Duration::from_secs(120);
/// How often a socket that QEMU is about to make is tried.
const INTERVAL: Duration = Duration::from_millis(5);

/// The monitor of a machine that nobody owns.
pub(crate) struct Monitor(Qmp);

impl Monitor {
    /// Connects to the machine of this name.
    pub(crate) async fn connect(
        name: MachineName,
        paths: &MachinePaths,
    ) -> Result<Self, FrozenError> {
        let stream = UnixStream::connect(paths.qmp()).await.map_err(QmpError::from)?;
        let qmp = Qmp::over(stream, |_| ()).await?;
        let answer = qmp.execute("query-name", Value::Null, COMMAND_DEADLINE).await?;
        let told = answer.get("name").and_then(Value::as_str).unwrap_or_default();
        if told.parse::<MachineName>() != Ok(name) {
            let reason = "another process answers on its monitor".to_owned();
            return Err(HostError::Record { path: paths.record(), reason }.into());
        }
        Ok(Self(qmp))
    }

    /// Lets the guest stand still.
    pub(crate) async fn pause(&self) -> Result<(), FrozenError> {
        self.0.execute("stop", Value::Null, COMMAND_DEADLINE).await?;
        Ok(())
    }

    /// Lets it go on, also where a save was begun.
    pub(crate) async fn go_on(&self) -> Result<(), FrozenError> {
        drop(self.0.execute("migrate_cancel", Value::Null, COMMAND_DEADLINE).await);
        self.0.execute("cont", Value::Null, COMMAND_DEADLINE).await?;
        Ok(())
    }
}

fn socket(runtime: &Path) -> PathBuf {
    runtime.join("guest")
}

fn uri(socket: &Path) -> Value {
    json!({ "uri": format!("unix:{}", socket.display()) })
}

fn pipe(stream: UnixStream, path: &Path) -> Result<Pipe, FrozenError> {
    let plain = || {
        let pipe = stream.into_std()?;
        pipe.set_nonblocking(false)?;
        pipe.set_read_timeout(Some(STALLED))?;
        pipe.set_write_timeout(Some(STALLED))?;
        Ok(pipe)
    };
    Ok(plain().map_err(HostError::io("use", path))?)
}

fn late(what: &'static str) -> FrozenError {
    FrozenError::Timeout { what, deadline: OPEN }
}

/// Saves a guest that stands still; `write` takes all of it.
pub(crate) async fn save(
    monitor: &Monitor,
    runtime: &Path,
    write: impl FnOnce(&mut dyn Read) -> Result<(), HostError> + Send + 'static,
) -> Result<(), FrozenError> {
    let path = socket(runtime);
    let listener = UnixListener::bind(&path).map_err(HostError::io("create", &path))?;
    let saved = async {
        // A clone was restored without the memory that is in its template's file.
        whole_memory(&monitor.0).await?;
        monitor.0.execute("migrate", uri(&path), COMMAND_DEADLINE).await?;
        let accepted = timeout(OPEN, listener.accept()).await;
        let accepted = accepted.map_err(|_| late("QEMU's way to the file of a frozen machine"))?;
        let (stream, _) = accepted.map_err(HostError::io("listen on", &path))?;
        let mut pipe = pipe(stream, &path)?;
        let written = spawn_blocking(move || write(&mut pipe)).await;
        written.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        Ok(completion(&monitor.0, "save").await?)
    };
    let saved = saved.await;
    drop(std::fs::remove_file(&path));
    saved
}

/// Restores a guest; `read` gives all of it. It stands still then.
pub(crate) async fn restore(
    qmp: &Qmp,
    runtime: &Path,
    read: impl FnOnce(&mut dyn Write) -> Result<(), FrozenError> + Send + 'static,
) -> Result<(), FrozenError> {
    let path = socket(runtime);
    let mut arguments = uri(&path);
    // QEMU would end instead of saying why it cannot.
    arguments["exit-on-error"] = false.into();
    qmp.execute("migrate-incoming", arguments, COMMAND_DEADLINE).await?;
    let deadline = Instant::now() + OPEN;
    let stream = loop {
        match UnixStream::connect(&path).await {
            Ok(stream) => break stream,
            Err(_) if Instant::now() < deadline => sleep(INTERVAL).await,
            Err(_) => return Err(late("QEMU's way to a frozen guest")),
        }
    };
    let mut pipe = pipe(stream, &path)?;
    let given = spawn_blocking(move || read(&mut pipe)).await;
    let given = given.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    let completed = completion(qmp, "restore").await;
    drop(std::fs::remove_file(&path));
    match given {
        // QEMU knows why it takes no more.
        Err(FrozenError::Host(error)) if completed.is_ok() => Err(error.into()),
        Err(FrozenError::Host(_)) | Ok(()) => Ok(completed?),
        // A file that was changed explains more than what QEMU says of its end.
        Err(error) => Err(error),
    }
}
