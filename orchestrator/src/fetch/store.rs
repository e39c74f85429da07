//! The files of actions, by commit: fetched once, and then read from disk.
//!
//! ```text
//!  actions/REPOSITORY/COMMIT.tar     REPOSITORY is the digest of its address
//!  actions/REPOSITORY/lock           whoever fetches holds it
//!  actions/REPOSITORY/new-RANDOM     where one is made
//! ```

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::call::{CallError, CallErrorKind};
use sha2::{Digest, Sha256};
use tokio::time::{sleep, timeout};

use super::ask::{Asked, ask};
use super::git::{self, Remote};
use super::refs::{self, Found};
use super::room::{self, ACTIONS};
use super::{FetchSettings, Policy, Repository};

/// The file in the directory of a repository that whoever changes it holds.
pub(super) const LOCK: &str = "lock";

/// The files of actions on this host.
#[derive(Debug)]
pub(crate) struct ActionStore {
    settings: FetchSettings,
}

/// The files of an action.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    /// The commit.
    pub(crate) commit: String,
    /// An uncompressed tar archive.
    pub(crate) file: PathBuf,
}

impl ActionStore {
    /// A store; nothing is written before the first action.
    #[must_use]
    pub(crate) fn new(settings: FetchSettings) -> Arc<Self> {
        Arc::new(Self { settings })
    }

    pub(crate) fn settings(&self) -> &FetchSettings {
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
        let Asked { remote, refs } = ask(repository, policy, None).await?;
        let Found { commit, wish } = refs.expect(version, &repository.url())?;
        if let Some(archive) = known(&directory, &commit) {
            return Ok(archive);
        }
        let _lock = Lock::alone(&directory).await?;
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
        let work = room::work(directory).map_err(cannot)?;
        let repository = work.path().join("git");
        let nothing: &[(String, String)] = &[];
        git::run(work.path(), nothing, &["init", "--quiet", "--bare", "git"]).await?;
        let fetched = git::fetch(&repository, remote, &["--depth=1"], &[wish]).await;
        fetched.map_err(|error| git::absent(error, wish, &remote.url))?;
        let arguments = ["rev-parse", "--verify", "FETCH_HEAD^{commit}"];
        let commit = git::run(&repository, nothing, &arguments).await?.trim().to_owned();
        let made = work.path().join("archive");
        let output = format!("--output={}", made.display());
        let arguments = ["archive", "--format=tar", &output, &commit];
        git::run(&repository, nothing, &arguments).await?;
        // What has its name is whole, also after the power was gone.
        File::open(&made).and_then(|made| made.sync_all()).map_err(cannot)?;
        let file = path_of(directory, &commit);
        fs::rename(&made, &file).map_err(cannot)?;
        drop(work);
        room::make(&self.settings, &file).await;
        Ok(Archive { commit, file })
    }

    fn directory_of(&self, repository: &Repository) -> PathBuf {
        self.settings.directory.join(ACTIONS).join(digest(repository))
    }
}

/// The name of the directory of a repository.
pub(super) fn digest(repository: &Repository) -> String {
    let mut digest = hex::encode(Sha256::digest(repository.url().as_str().to_lowercase()));
    digest.truncate(32);
    digest
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

/// How long somebody else may be at a repository.
const OTHERS: Duration = Duration::from_secs(20 * 60);

/// Between two looks at whether he is done.
const LOOK: Duration = Duration::from_millis(100);

/// The hold on the directory of a repository.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Makes the directory, and waits until nobody else is at it.
    pub(super) async fn alone(directory: &Path) -> Result<Self, CallError> {
        let lock = Self::open(directory)?;
        lock.wait(directory, File::try_lock).await
    }

    /// Makes the directory, and waits until nobody changes what is in it.
    pub(super) async fn with_others(directory: &Path) -> Result<Self, CallError> {
        let lock = Self::open(directory)?;
        lock.wait(directory, File::try_lock_shared).await
    }

    /// Lets others look at it too.
    pub(super) async fn share(self, directory: &Path) -> Result<Self, CallError> {
        self.wait(directory, File::try_lock_shared).await
    }

    fn open(directory: &Path) -> Result<Self, CallError> {
        let cannot = |error: io::Error| cannot_write(directory, &error);
        // What may only be read with somebody's token lies there too.
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(cannot)?;
        File::create(directory.join(LOCK)).map(Self).map_err(cannot)
    }

    async fn wait(
        self,
        directory: &Path,
        take: impl Fn(&File) -> Result<(), TryLockError>,
    ) -> Result<Self, CallError> {
        // Waiting in the system would take a thread for each who waits.
        let taken = async {
            while let Err(error) = take(&self.0) {
                if let TryLockError::Error(error) = error {
                    return Err(cannot_write(directory, &error));
                }
                sleep(LOOK).await;
            }
            Ok(())
        };
        timeout(OTHERS, taken).await.map_err(|_| {
            let text = format!("another job was at the same repository for {OTHERS:?}");
            CallError::new(CallErrorKind::Unavailable, text)
        })??;
        // What cannot be noted makes it go a little sooner.
        drop(self.0.set_modified(SystemTime::now()));
        Ok(self)
    }
}

pub(super) fn cannot_write(directory: &Path, error: &io::Error) -> CallError {
    let text = format!("cannot write below {}: {error}", directory.display());
    CallError::new(CallErrorKind::Unavailable, text)
}
