//! This machine.

use std::io::{self, BufWriter};
use std::path::Path;
use std::time::{Duration, Instant};

use common::Timestamp;
use tokio::io::{AsyncRead, AsyncSeekExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio_util::io::SyncIoBridge;

use super::wanted::while_wanted;
use super::{
    Command, Facts, Found, Kind, Opened, Owner, Packed, Packing, Pending, Placement, Process,
    RECEIVE, Room, StorePlace, System, SystemError, ZipWish, files, hash, pack, process, tree,
    users, zip,
};
use crate::guest::unpack_packed;

/// Where programs are looked for beside the `PATH` of this program, on every system: what does not
/// exist costs nothing.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where systems that are not Linux keep the programs of their packages, after the rest.
const PACKAGE_PATHS: &str = "/opt/ooce/bin:/opt/local/bin:/usr/pkg/bin:/usr/X11R6/bin";

/// The locale when this program was given none: UTF-8 without the habits of a country.
const LANGUAGE: &str = "C.UTF-8";

/// This machine, through std, tokio and POSIX calls that every supported system has.
#[derive(Clone, Debug)]
pub struct Local {
    search_path: String,
    language: String,
    /// No process starts before this is true.
    heard: Option<watch::Receiver<bool>>,
}

/// How much of an archive waits for its reader.
const PIPE_BYTES: usize = 256 * 1024;

/// How long the first process of a job may wait for a host that hears of it. The host itself gives a
/// silent guest up after ten minutes.
const HEARD: Duration = Duration::from_secs(15 * 60);

impl Local {
    /// Takes the search path and the locale of this process; nothing else of its environment
    /// reaches a step.
    #[must_use]
    pub fn new() -> Self {
        let inherited = std::env::var("PATH").unwrap_or_default();
        let language = std::env::var("LANG").ok().filter(|value| !value.is_empty());
        Self {
            search_path: complete_path(&inherited),
            language: language.unwrap_or_else(|| LANGUAGE.to_owned()),
            heard: None,
        }
    }

    /// Looks for programs in these directories alone.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn looking_in(self, search_path: &str) -> Self {
        Self { search_path: search_path.to_owned(), ..self }
    }

    /// Starts no process before this is true. A job that a host may run again on another machine
    /// must do nothing here that the host does not know of.
    #[must_use]
    pub fn held_until(self, heard: watch::Receiver<bool>) -> Self {
        Self { heard: Some(heard), ..self }
    }
}

/// Waits until a host knows that a step began.
async fn until_heard(heard: Option<watch::Receiver<bool>>) -> Result<(), SystemError> {
    let Some(mut heard) = heard else { return Ok(()) };
    let known = tokio::time::timeout(HEARD, heard.wait_for(|heard| *heard)).await;
    match known {
        // A sender that is gone ends with this process.
        Ok(_) => Ok(()),
        Err(_) => {
            let reason = format!("no host has heard of this step within {} s", HEARD.as_secs());
            let source = std::io::Error::new(std::io::ErrorKind::TimedOut, reason);
            Err(SystemError::new("start", "the first process", source))
        }
    }
}

impl Default for Local {
    fn default() -> Self {
        Self::new()
    }
}

/// The directories of `inherited`, and those of the usual ones that it lacks.
fn complete_path(inherited: &str) -> String {
    let packages = if cfg!(target_os = "linux") { "" } else { PACKAGE_PATHS };
    let mut directories: Vec<&str> = Vec::new();
    for directory in inherited.split(':').chain(SEARCH_PATH.split(':')).chain(packages.split(':')) {
        if directory.starts_with('/') && !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories.join(":")
}

impl System for Local {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn facts<'a>(&'a self, run_as: Option<&'a str>) -> Pending<'a, Result<Facts, SystemError>> {
        let name = run_as.map(str::to_owned);
        Box::pin(async move {
            let account = blocking(move || users::account(name.as_deref())).await?;
            Ok(Facts {
                os: operating_system().to_owned(),
                arch: architecture().to_owned(),
                user: account.name,
                home: account.home,
                owner: account.owner,
                identity: account.identity,
                search_path: self.search_path.clone(),
                language: self.language.clone(),
            })
        })
    }

    fn start(&self, command: Command) -> Pending<'_, Result<Process, SystemError>> {
        let heard = self.heard.clone();
        Box::pin(async move {
            until_heard(heard).await?;
            process::start(&command)
        })
    }

    fn kind<'a>(&'a self, path: &'a str) -> Pending<'a, Result<Option<Kind>, SystemError>> {
        let path = path.to_owned();
        Box::pin(blocking(move || files::kind(&path)))
    }

    fn read<'a>(&'a self, path: &'a str, limit: u64) -> Pending<'a, Result<Vec<u8>, SystemError>> {
        let path = path.to_owned();
        Box::pin(blocking(move || files::read(&path, limit)))
    }

    fn create_file<'a>(
        &'a self,
        path: &'a str,
        contents: &'a [u8],
        mode: u32,
        owner: Owner,
    ) -> Pending<'a, Result<(), SystemError>> {
        let (path, contents) = (path.to_owned(), contents.to_owned());
        Box::pin(blocking(move || files::create(&path, &contents, mode, owner)))
    }

    fn create_directory<'a>(
        &'a self,
        path: &'a str,
        owner: Owner,
    ) -> Pending<'a, Result<(), SystemError>> {
        let path = path.to_owned();
        Box::pin(blocking(move || files::create_directory(&path, owner)))
    }

    fn remove<'a>(&'a self, path: &'a str) -> Pending<'a, Result<(), SystemError>> {
        let path = path.to_owned();
        Box::pin(blocking(move || files::remove(&path)))
    }

    fn list<'a>(
        &'a self,
        path: &'a str,
        limit: usize,
    ) -> Pending<'a, Result<Vec<String>, SystemError>> {
        let path = path.to_owned();
        Box::pin(blocking(move || files::list(&path, limit)))
    }

    fn room<'a>(&'a self, path: &'a str, owner: Owner) -> Pending<'a, Result<Room, SystemError>> {
        let path = path.to_owned();
        Box::pin(blocking(move || files::room(&path, owner)))
    }

    fn place_tree<'a>(
        &'a self,
        from: &'a str,
        to: &'a str,
        how: Placement,
        owner: Owner,
    ) -> Pending<'a, Result<(), SystemError>> {
        let (from, to) = (from.to_owned(), to.to_owned());
        Box::pin(blocking(move || tree::place(&from, &to, how, owner)))
    }

    fn find_program<'a>(
        &'a self,
        name: &'a str,
        search_path: &'a str,
    ) -> Pending<'a, Option<String>> {
        let (name, search_path) = (name.to_owned(), search_path.to_owned());
        Box::pin(async move {
            blocking(move || Ok(files::find_program(&name, &search_path))).await.ok().flatten()
        })
    }

    fn hash_files<'a>(
        &'a self,
        root: &'a str,
        patterns: &'a [String],
        limit: Duration,
    ) -> Pending<'a, Result<String, SystemError>> {
        let (root, patterns) = (root.to_owned(), patterns.to_vec());
        let deadline = Instant::now() + limit;
        Box::pin(blocking(move || hash::hash_files(&root, &patterns, deadline)))
    }

    fn pack(&self, base: &str, patterns: &[String]) -> Packing {
        let (base, patterns) = (base.to_owned(), patterns.to_vec());
        packing(move |out| pack::pack(&base, &patterns, out))
    }

    fn zip(&self, wish: ZipWish) -> Packing {
        packing(move |out| zip::zip(&wish, out))
    }

    fn find(&self, wish: ZipWish) -> Pending<'_, Result<Vec<Found>, SystemError>> {
        Box::pin(blocking(move || zip::find(&wish)))
    }

    fn open<'a>(&'a self, path: &'a Path) -> Pending<'a, Result<Opened, SystemError>> {
        let path = path.to_owned();
        Box::pin(async move {
            let file = blocking(move || files::open(&path)).await?;
            let bytes = file.metadata().map_err(|error| SystemError::new("open", "a file", error));
            let bytes = bytes?.len();
            Ok(Opened { contents: Box::new(tokio::fs::File::from_std(file)), bytes })
        })
    }

    fn store<'a>(
        &'a self,
        mut contents: Box<dyn AsyncRead + Send + Unpin>,
        place: StorePlace,
    ) -> Pending<'a, Result<u64, SystemError>> {
        Box::pin(async move {
            self.create_directory(&place.directory, place.owner).await?;
            let name = place.name.clone();
            // Whoever drops this ends what is written too.
            let (inside, mut outside) = tokio::io::duplex(PIPE_BYTES);
            let write = blocking(move || files::store(SyncIoBridge::new(inside), &place));
            let receive = async move { tokio::io::copy(&mut contents, &mut outside).await };
            match tokio::join!(write, receive) {
                // A pipe breaks when it cannot be written.
                (_, Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                    Err(SystemError::new(RECEIVE, name, error))
                }
                (written, _) => written,
            }
        })
    }

    fn unzip<'a>(
        &'a self,
        mut archive: Box<dyn AsyncRead + Send + Unpin>,
        temporary: &'a str,
        to: &'a str,
        owner: Owner,
    ) -> Pending<'a, Result<Packed, SystemError>> {
        Box::pin(async move {
            let failed = |error| SystemError::new("write", temporary, error);
            self.remove(temporary).await?;
            self.create_file(temporary, &[], 0o600, owner).await?;
            let file = tokio::fs::File::options().read(true).write(true).open(temporary).await;
            let mut file = file.map_err(failed)?;
            // However this ends, its room is free again.
            self.remove(temporary).await?;
            tokio::io::copy(&mut archive, &mut file).await.map_err(failed)?;
            file.flush().await.map_err(failed)?;
            file.rewind().await.map_err(failed)?;
            self.create_directory(to, owner).await?;
            let (file, _waiting) = while_wanted(file.into_std().await);
            let to = to.to_owned();
            blocking(move || zip::unzip(file, to.as_ref(), owner)).await
        })
    }

    fn unpack<'a>(
        &'a self,
        archive: Box<dyn AsyncRead + Send + Unpin>,
        base: &'a str,
        owner: Owner,
    ) -> Pending<'a, Result<(), SystemError>> {
        let base = base.to_owned();
        Box::pin(async move {
            let (archive, _waiting) = while_wanted(archive);
            let unpacking = blocking(move || {
                let unpacked = unpack_packed(SyncIoBridge::new(archive), base.as_ref(), owner);
                unpacked.map_err(|error| {
                    let kind = match error.is_disk_full() {
                        true => io::ErrorKind::StorageFull,
                        false => io::ErrorKind::Other,
                    };
                    let error = io::Error::new(kind, error.to_string());
                    SystemError::new("unpack", "an archive", error)
                })
            });
            unpacking.await
        })
    }
}

/// An archive that is made while it is read.
fn packing(
    make: impl FnOnce(BufWriter<SyncIoBridge<DuplexStream>>) -> Result<Packed, SystemError>
    + Send
    + 'static,
) -> Packing {
    let (inside, outside) = tokio::io::duplex(PIPE_BYTES);
    let out = BufWriter::with_capacity(PIPE_BYTES, SyncIoBridge::new(inside));
    // It runs whoever waits for its end.
    let work = tokio::spawn(blocking(move || make(out)));
    let result = async move {
        let broken = |error| SystemError::new("finish", "an archive", io::Error::other(error));
        work.await.map_err(broken)?
    };
    Packing { archive: Box::new(outside), result: Box::pin(result) }
}

/// Runs file system work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SystemError> + Send + 'static,
) -> Result<T, SystemError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            Err(SystemError::new("finish", "work on files", std::io::Error::other(error)))
        }
    }
}

/// This system as `runner.os` writes it (github-runner-protocol 5.8; the other systems by their own
/// spelling).
fn operating_system() -> &'static str {
    match std::env::consts::OS {
        "linux" => "Linux",
        "macos" => "macOS",
        "freebsd" => "FreeBSD",
        "netbsd" => "NetBSD",
        "openbsd" => "OpenBSD",
        other => other,
    }
}

/// This processor as `runner.arch` writes it (github-runner-protocol 5.8).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "X64",
        "x86" => "X86",
        "aarch64" => "ARM64",
        "arm" => "ARM",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_path_keeps_what_was_there_first() {
        let path = complete_path("/opt/x/bin:/usr/bin::relative");
        assert!(path.starts_with("/opt/x/bin:/usr/bin:/usr/local/sbin:"), "{path}");
        assert_eq!(path.matches("/usr/bin").count(), 1, "{path}");
        assert!(!path.contains("relative"));
    }

    #[tokio::test]
    async fn facts_are_those_of_this_process() {
        let facts = Local::new().facts(None).await.unwrap();
        assert!(facts.identity.is_none());
        assert!(facts.home.starts_with('/'), "{facts:?}");
        assert_eq!(facts.is_root(), nix::unistd::geteuid().is_root());
    }

    #[tokio::test]
    async fn an_unknown_user_is_named() {
        let error = Local::new().facts(Some("no-such-user")).await.unwrap_err();
        assert!(error.to_string().contains("no-such-user"), "{error}");
    }
}
