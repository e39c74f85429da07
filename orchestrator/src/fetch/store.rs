//! The files of actions, by commit: fetched once, and then read from disk.
//!
//! ```text
//!  DIRECTORY/REPOSITORY/COMMIT.tar     REPOSITORY is the digest of its address
//!  DIRECTORY/REPOSITORY/lock           whoever fetches holds it
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::call::{CallError, CallErrorKind};
use common::size::ByteSize;
use futures_util::StreamExt;
use reqwest::{StatusCode, Url, header, redirect};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::git::{self, Remote};
use super::refs::{self, Found, Refs};
use super::{Origin, Policy, Repository};

/// How long a server may take to say what its branches and tags are.
const REFS_DEADLINE: Duration = Duration::from_secs(60);
/// The bytes of that answer.
const REFS_BYTES: usize = 64 * 1024 * 1024;
/// How often a server may send us elsewhere.
const REDIRECTS: u32 = 5;

/// Where actions come from and are kept.
#[derive(Clone, Debug)]
pub struct ActionSettings {
    /// The directory of the store.
    pub directory: PathBuf,
    /// How much it may hold; the least recently used goes first.
    pub quota: ByteSize,
    /// Where the actions of jobs of GitHub's dialect are that name no host.
    pub github: Origin,
    /// Where those of Forgejo's are, unless the server says so.
    pub forgejo: Origin,
    /// Where those of Gitea's are, unless the server says so.
    pub gitea: Origin,
    /// Further origins that may be asked wherever they are.
    pub trusted: Vec<Origin>,
}

/// The files of actions on this host.
#[derive(Debug)]
pub(crate) struct ActionStore {
    settings: ActionSettings,
}

/// The files of an action.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    /// The commit.
    pub(crate) commit: String,
    /// An uncompressed tar archive.
    pub(crate) file: PathBuf,
}

/// What a server says, and where it was found.
struct Asked {
    remote: Remote,
    refs: Refs,
}

impl ActionStore {
    /// A store; nothing is written before the first action.
    #[must_use]
    pub(crate) fn new(settings: ActionSettings) -> Arc<Self> {
        Arc::new(Self { settings })
    }

    pub(crate) fn settings(&self) -> &ActionSettings {
        &self.settings
    }

    /// The files of a version of a repository.
    ///
    /// # Errors
    /// It is not there, must not be fetched, or cannot be.
    pub(crate) async fn fetch(
        &self,
        repository: &Repository,
        version: &str,
        policy: &Policy,
    ) -> Result<Archive, CallError> {
        let directory = self.directory_of(repository);
        if refs::is_commit(version) {
            // Decided before what is there is given out: the store is for all jobs of this host.
            policy.admit(&repository.url()).await?;
            if let Some(archive) = known(&directory, version) {
                return Ok(archive);
            }
        }
        let Asked { remote, refs } = ask(repository, policy).await?;
        let Found { commit, wish } = refs.find(version).ok_or_else(|| {
            CallError::new(CallErrorKind::NotFound, absent(&refs, repository, version))
        })?;
        if let Some(archive) = known(&directory, &commit) {
            return Ok(archive);
        }
        let _lock = lock(&directory).await?;
        match known(&directory, &commit) {
            Some(archive) => Ok(archive),
            None => self.make(&directory, &remote, &wish).await,
        }
    }

    async fn make(
        &self,
        directory: &Path,
        remote: &Remote,
        wish: &str,
    ) -> Result<Archive, CallError> {
        let cannot = |error: io::Error| cannot_write(directory, &error);
        let work = tempfile::Builder::new().prefix("new-").tempdir_in(directory).map_err(cannot)?;
        let repository = work.path().join("git");
        git::init(&repository).await?;
        let commit = git::fetch(&repository, remote, wish).await?;
        let made = work.path().join("archive");
        git::archive(&repository, &commit, &made).await?;
        let file = path_of(directory, &commit);
        fs::rename(&made, &file).map_err(cannot)?;
        let settings = self.settings.clone();
        let keep = file.clone();
        drop(spawn_blocking(move || evict(&settings, &keep)).await);
        Ok(Archive { commit, file })
    }

    fn directory_of(&self, repository: &Repository) -> PathBuf {
        let mut digest = hex::encode(Sha256::digest(repository.url().as_str().to_lowercase()));
        digest.truncate(32);
        self.settings.directory.join(digest)
    }
}

/// Why a version does not stand for a commit.
fn absent(refs: &Refs, repository: &Repository, version: &str) -> String {
    let url = repository.url();
    if refs::is_short_commit(version) {
        let whole = refs.beginning_with(version).map(|id| format!(": {id}"));
        let whole = whole.unwrap_or_default();
        return format!(
            "{url} has no branch or tag {version}; if it is a commit, write its whole id{whole}"
        );
    }
    format!("{url} has no branch or tag {version}; correct the version")
}

fn path_of(directory: &Path, commit: &str) -> PathBuf {
    directory.join(format!("{commit}.tar"))
}

/// What is there already; it counts as used now.
fn known(directory: &Path, commit: &str) -> Option<Archive> {
    let path = path_of(directory, commit);
    let file = File::open(&path).ok()?;
    // What cannot be noted makes it go a little sooner.
    drop(file.set_modified(SystemTime::now()));
    Some(Archive { commit: commit.to_owned(), file: path })
}

/// Makes the directory of a repository, and waits until nobody else fetches it.
async fn lock(directory: &Path) -> Result<File, CallError> {
    let directory = directory.to_owned();
    let locked = spawn_blocking(move || {
        let cannot = |error: io::Error| cannot_write(&directory, &error);
        fs::create_dir_all(&directory).map_err(cannot)?;
        let file = File::create(directory.join("lock")).map_err(cannot)?;
        file.lock().map_err(cannot)?;
        Ok(file)
    });
    locked.await.map_err(|error| CallError::new(CallErrorKind::Unavailable, error.to_string()))?
}

fn cannot_write(directory: &Path, error: &io::Error) -> CallError {
    let text = format!("cannot write below {}: {error}", directory.display());
    CallError::new(CallErrorKind::Unavailable, text)
}

/// Removes what was not used for longest until the rest is within the quota.
fn evict(settings: &ActionSettings, keep: &Path) {
    let Ok(directories) = fs::read_dir(&settings.directory) else { return };
    let mut files = Vec::new();
    for entry in directories.flatten().filter_map(|entry| fs::read_dir(entry.path()).ok()) {
        for file in entry.flatten() {
            let is_archive = file.path().extension().is_some_and(|extension| extension == "tar");
            if let Some(facts) = file.metadata().ok().filter(|_| is_archive) {
                let used = facts.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push((used, facts.len(), file.path()));
            }
        }
    }
    let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    files.sort();
    for (_, bytes, path) in files {
        if total <= settings.quota.0 {
            return;
        }
        // Whoever reads it has it open.
        if path != keep && fs::remove_file(&path).is_ok() {
            total -= bytes;
        }
    }
}

/// Asks a server for its branches and tags, wherever it sends us.
async fn ask(repository: &Repository, policy: &Policy) -> Result<Asked, CallError> {
    const QUERY: &str = "/info/refs?service=git-upload-pack";
    let unavailable = |why: String| CallError::new(CallErrorKind::Unavailable, why);
    let mut url = repository.url();
    for _ in 0..=REDIRECTS {
        let addresses = policy.admit(&url).await?;
        let client = client(&url, &addresses).map_err(|error| unavailable(chain(&error)))?;
        let asked = format!("{}{QUERY}", url.as_str().trim_end_matches('/'));
        let answer = client.get(&asked).send().await;
        let answer = answer.map_err(|error| unavailable(chain(&error)))?;
        let status = answer.status();
        if status.is_redirection() {
            url = elsewhere(&asked, answer.headers(), QUERY).ok_or_else(|| {
                unavailable(format!("{url} sends us to a place that is no repository ({status})"))
            })?;
            continue;
        }
        if !status.is_success() {
            return Err(refusal(&url, status));
        }
        let bytes = read(answer).await.map_err(unavailable)?;
        let refs = Refs::read(&bytes).ok_or_else(|| {
            unavailable(format!("{url} is no git repository: a web page came instead"))
        })?;
        return Ok(Asked { remote: Remote { url, addresses }, refs });
    }
    Err(unavailable(format!("{} sends us on and on", repository.url())))
}

/// The repository to which an answer sends us.
fn elsewhere(asked: &str, headers: &header::HeaderMap, query: &str) -> Option<Url> {
    let target = headers.get(header::LOCATION)?.to_str().ok()?;
    let target = Url::parse(asked).ok()?.join(target).ok()?;
    Url::parse(target.as_str().strip_suffix(query)?).ok()
}

fn refusal(url: &Url, status: StatusCode) -> CallError {
    match status {
        StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => CallError::new(
            CallErrorKind::NotFound,
            format!(
                "{url} does not exist or is not public ({status}); correct the name, or write the \
                 whole address of the action"
            ),
        ),
        _ => CallError::new(CallErrorKind::Unavailable, format!("{url} answers {status}")),
    }
}

/// A client that goes to these addresses, directly, and follows nothing.
fn client(url: &Url, addresses: &[std::net::SocketAddr]) -> reqwest::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(REFS_DEADLINE)
        // Servers tell git from a browser by it.
        .user_agent(concat!("git/2.0 solstice/", env!("CARGO_PKG_VERSION")));
    if let Some(name) = url.domain() {
        builder = builder.resolve_to_addrs(name, addresses);
    }
    builder.build()
}

async fn read(answer: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut stream = answer.bytes_stream();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.map_err(|error| chain(&error))?);
        if bytes.len() > REFS_BYTES {
            return Err(format!("the list of branches has more than {REFS_BYTES} bytes"));
        }
    }
    Ok(bytes)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
