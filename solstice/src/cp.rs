//! `solstice cp` and `solstice rm`: what else one does with a kept machine.

mod directory;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::limits::GIB;
use tokio::fs;
use vm_manager::frozen::FrozenStore;
use vm_manager::host::{HostError, kept, sweep_dead};
use vm_manager::ssh::{Guest, SshError, quote_path};

use crate::cli::CpArgs;
use crate::exit::{CommandError, Exit};
use crate::host::host_settings;
use crate::machine;
use crate::message;
use crate::settings::Settings;
use crate::waiting::Waiting;

/// How long one copy may take.
const COPY: Duration = Duration::from_secs(60 * 60);

/// How long a short command in the guest may take.
const COMMAND: Duration = Duration::from_secs(60);

/// Larger files and directories of a guest are not copied: a hostile guest must not fill the host's
/// disk.
const COPY_BYTES: u64 = 64 * GIB;

/// The mode of a file whose own mode is not known.
const FILE_MODE: u32 = 0o644;

/// How long a machine may take to be gone once its time is over.
const GONE: Duration = Duration::from_secs(20);

/// How often it is looked whether it is gone.
const LOOK: Duration = Duration::from_millis(100);

/// Copies a file or a directory to or from a kept machine.
///
/// # Errors
/// Not exactly one side is in a machine, the machine does not exist, or the copy fails. What was
/// copied in part is removed, but for a directory in the machine.
pub(crate) async fn copy(settings: &Settings, arguments: &CpArgs) -> Result<Exit, CommandError> {
    match (place(&arguments.source), place(&arguments.destination)) {
        (Place::Guest { run, path }, Place::Host(local)) => {
            let guest = guest(settings, run).await?;
            let _waiting = Waiting::start(&format!("copying {path}"));
            if !is_directory(&guest, path).await? {
                download(&guest, path, local).await?;
            } else if arguments.recursive {
                directory::download(&guest, path, local).await?;
            } else {
                return Err(not_a_file(path));
            }
        }
        (Place::Host(local), Place::Guest { run, path }) => {
            let metadata = fs::metadata(local).await;
            let metadata = metadata.map_err(|error| local_error("read", local, &error))?;
            if metadata.is_dir() && !arguments.recursive {
                return Err(not_a_file(local.display()));
            }
            let guest = guest(settings, run).await?;
            let _waiting = Waiting::start(&format!("copying {}", local.display()));
            if metadata.is_dir() {
                directory::upload(&guest, local, path).await?;
            } else {
                upload(&guest, local, path).await?;
            }
        }
        _ => {
            return Err(CommandError::usage("exactly one side must be in a machine")
                .hint("write it as RUN:PATH, and a local file with a colon as ./NAME"));
        }
    }
    Ok(Exit::Passed)
}

/// Destroys kept machines.
///
/// # Errors
/// One does not exist or does not go away.
pub(crate) async fn remove(settings: &Settings, runs: &[String]) -> Result<Exit, CommandError> {
    let host = host_settings(settings);
    let frozen = FrozenStore::of(&host);
    let mut running = Vec::new();
    for run in runs {
        match frozen.find(run) {
            Ok(machine) => {
                let removed = frozen.remove(&machine);
                removed.map_err(|error| CommandError::infrastructure(error.to_string()))?;
                message::notice(&format!("removed {run}"));
            }
            Err(_) => {
                kept::release(&host, run).map_err(|error| machine::kept_error(&error))?;
                running.push(run);
            }
        }
    }
    let gone = async {
        for run in running {
            while !matches!(kept::find(&host, run), Err(HostError::NotKept { .. })) {
                let host = host.clone();
                // Where its watchdog is gone as well, nobody but us removes it.
                let swept = tokio::task::spawn_blocking(move || sweep_dead(&host)).await;
                if let Ok(Err(error)) = swept {
                    tracing::warn!(%error, "cannot remove what a dead instance left");
                }
                tokio::time::sleep(LOOK).await;
            }
            message::notice(&format!("removed {run}"));
        }
    };
    tokio::time::timeout(GONE, gone).await.map_err(|_| {
        CommandError::infrastructure(format!("a machine is not gone after {} s", GONE.as_secs()))
            .hint("see `solstice doctor` for what is left")
    })?;
    Ok(Exit::Passed)
}

#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Guest { run: &'a str, path: &'a str },
    Host(&'a Path),
}

/// As scp does: what stands before a colon is a machine unless a slash stands before that.
fn place(text: &str) -> Place<'_> {
    match text.split_once(':') {
        Some((run, path)) if !run.is_empty() && !run.contains('/') => Place::Guest { run, path },
        _ => Place::Host(Path::new(text)),
    }
}

async fn guest(settings: &Settings, run: &str) -> Result<Guest, CommandError> {
    let machine = machine::kept_machine(settings, run)?;
    machine::connect(settings, &machine).await
}

fn not_a_file(path: impl std::fmt::Display) -> CommandError {
    CommandError::usage(format!("{path} is a directory")).hint("copy it with -r")
}

/// A directory of this host gets what is copied under its own name.
async fn target_on_host(path: &str, local: &Path) -> Result<PathBuf, CommandError> {
    if fs::metadata(local).await.is_ok_and(|found| found.is_dir()) {
        Ok(local.join(file_name(path)?))
    } else {
        Ok(local.to_path_buf())
    }
}

async fn download(guest: &Guest, path: &str, local: &Path) -> Result<(), CommandError> {
    let target = target_on_host(path, local).await?;
    let failed = |error: std::io::Error| local_error("write", &target, &error);
    // Beside the target, so that a copy that fails leaves what was there.
    let part = part_of(&target)?;
    let file = fs::File::create_new(&part).await.map_err(failed)?;
    let copied = guest.download(path, file, COPY_BYTES, COPY).await;
    let moved = match copied {
        Ok(_) => fs::rename(&part, &target).await.map_err(failed),
        Err(error) => Err(transfer_error(&error)),
    };
    if moved.is_err() {
        // The first error is the one to report.
        drop(fs::remove_file(&part).await);
    }
    moved
}

async fn upload(guest: &Guest, local: &Path, path: &str) -> Result<(), CommandError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |error: std::io::Error| local_error("read", local, &error);
    let file = fs::File::open(local).await.map_err(failed)?;
    let metadata = file.metadata().await.map_err(failed)?;
    if !metadata.is_file() {
        let text = format!("{} is neither a file nor a directory", local.display());
        return Err(CommandError::usage(text));
    }
    let mode = match metadata.permissions().mode() & 0o777 {
        0 => FILE_MODE,
        mode => mode,
    };
    let target = target_in_guest(guest, local, path).await?;
    guest
        .upload(file, metadata.len(), &target, mode, COPY)
        .await
        .map_err(|error| transfer_error(&error))
}

async fn is_directory(guest: &Guest, path: &str) -> Result<bool, CommandError> {
    let question = format!("test -d {}", quote_path(path));
    let asked = guest.run(&question, None, COMMAND).await;
    Ok(asked.map_err(|error| transfer_error(&error))?.success())
}

/// A directory of the guest gets what is copied under its own name.
async fn target_in_guest(guest: &Guest, local: &Path, path: &str) -> Result<String, CommandError> {
    let path = if path.is_empty() { "." } else { path };
    if !is_directory(guest, path).await? {
        return Ok(path.to_owned());
    }
    let name = local.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        CommandError::usage(format!("{} has no name that a guest can use", local.display()))
    })?;
    Ok(format!("{}/{name}", path.trim_end_matches('/')))
}

/// What the guest's SFTP server or its `cat` says about a path that the user got wrong.
const WRONG_PATH: [&str; 6] = [
    "no such file",
    "permission denied",
    "is a directory",
    "not a directory",
    "path is empty",
    "file exists",
];

/// A path that is not there or not allowed is the user's mistake. Everything else is not: a full
/// disk, a file above the limit, a connection that is gone.
fn transfer_error(error: &SshError) -> CommandError {
    let usage = match error {
        SshError::Transfer { reason, .. } => is_wrong_path(reason),
        SshError::Nul(_) => true,
        _ => false,
    };
    if usage {
        CommandError::usage(error.to_string())
    } else {
        CommandError::infrastructure(error.to_string())
    }
}

fn is_wrong_path(said: &str) -> bool {
    let said = said.to_lowercase();
    WRONG_PATH.iter().any(|sentence| said.contains(sentence))
}

/// The same for a file of this host.
fn local_error(action: &str, path: &Path, error: &std::io::Error) -> CommandError {
    use std::io::ErrorKind;
    let message = format!("cannot {action} {}: {error}", path.display());
    match error.kind() {
        ErrorKind::NotFound
        | ErrorKind::PermissionDenied
        | ErrorKind::IsADirectory
        | ErrorKind::NotADirectory => CommandError::usage(message),
        _ => CommandError::infrastructure(message),
    }
}

fn file_name(path: &str) -> Result<&str, CommandError> {
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if matches!(name, "" | "." | "..") {
        return Err(CommandError::usage(format!("{path:?} names no file in the machine")));
    }
    Ok(name)
}

/// Where the bytes go until they are all there.
fn part_of(target: &Path) -> Result<PathBuf, CommandError> {
    let name = target
        .file_name()
        .ok_or_else(|| CommandError::usage(format!("{} names no file", target.display())))?;
    let mut part = std::ffi::OsString::from(".");
    part.push(name);
    part.push(format!(".{}.part", std::process::id()));
    Ok(target.with_file_name(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_and_files_are_told_apart() {
        let check = |text: &str, expected: Place<'_>| assert_eq!(place(text), expected, "{text}");
        check("run:/a:b", Place::Guest { run: "run", path: "/a:b" });
        check("run:", Place::Guest { run: "run", path: "" });
        check("./a:b", Place::Host(Path::new("./a:b")));
        check("/x/a:b", Place::Host(Path::new("/x/a:b")));
        check(":a", Place::Host(Path::new(":a")));
        check("file", Place::Host(Path::new("file")));
    }

    #[test]
    fn only_a_wrong_path_is_the_users_mistake() {
        let said = |reason: &str| SshError::Transfer {
            action: "write",
            path: "/x".to_owned(),
            reason: reason.to_owned(),
        };
        for (error, exit) in [
            (said("No such file: No such file"), Exit::Usage),
            (said("sh: can't open /x: Permission denied"), Exit::Usage),
            (said("it is a directory"), Exit::Usage),
            (said("cat: write error: No space left on device"), Exit::Infrastructure),
            (said("it has more than 5 bytes"), Exit::Infrastructure),
            (SshError::Lost { reason: "gone".to_owned() }, Exit::Infrastructure),
        ] {
            assert_eq!(transfer_error(&error).exit(), exit, "{error}");
        }
        let error = |kind: std::io::ErrorKind| local_error("read", Path::new("x"), &kind.into());
        assert_eq!(error(std::io::ErrorKind::NotFound).exit(), Exit::Usage);
        assert_eq!(error(std::io::ErrorKind::StorageFull).exit(), Exit::Infrastructure);
    }

    #[test]
    fn names_in_the_guest_are_names() {
        assert_eq!(file_name("/var/log/syslog").unwrap(), "syslog");
        assert_eq!(file_name("dir/").unwrap(), "dir");
        for path in ["", "/", "a/..", "."] {
            assert!(file_name(path).is_err(), "{path}");
        }
        assert!(part_of(Path::new("/")).is_err());
        let part = part_of(Path::new("a/b")).unwrap();
        assert_eq!(part.parent(), Some(Path::new("a")));
    }
}
