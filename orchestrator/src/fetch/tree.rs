//! Commits of repositories with their history: each repository is kept as a mirror, and what a job gets
//! is made of it.
//!
//! ```text
//!  mirrors/REPOSITORY/git          the mirror, which grows by what each job needs
//!  mirrors/REPOSITORY/lock         whoever changes it holds it alone, and whoever reads it with others
//!  mirrors/REPOSITORY/new-RANDOM   what a job gets of it, until it has it
//! ```

use std::fs;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use common::call::{CallError, CallErrorKind, TreeWish};
use tokio::io::{AsyncRead, DuplexStream, ReadBuf, duplex};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::io::SyncIoBridge;

use super::ask::{Asked, ask};
use super::export::{Export, Named};
use super::git::{self, Credentials, Remote};
use super::parts::{self, Part, Place};
use super::room::{self, MIRROR, MIRRORS};
use super::store::{Lock, cannot_write, digest};
use super::{FetchSettings, Policy, Repository, submodules};

/// Bytes of an archive that wait for the guest.
const PIPE_BYTES: usize = 256 * 1024;

/// The mark of a mirror that has the whole history of what it has.
const COMPLETE: &str = "solstice-complete";

/// What every repository has.
const HEAD: &str = "HEAD";

/// The packs of a mirror that are left as they are.
const PACKS: usize = 50;

/// No settings but those of every git.
const NOTHING: &[(String, String)] = &[];

/// The mirrors of this host.
#[derive(Debug)]
pub(crate) struct TreeStore {
    settings: FetchSettings,
}

/// A commit on its way to a guest.
pub(crate) struct Tree {
    pub(crate) commit: String,
    pub(crate) archive: Archive,
}

impl TreeStore {
    /// A store; nothing is written before the first tree.
    pub(crate) fn new(settings: FetchSettings) -> Arc<Self> {
        Arc::new(Self { settings })
    }

    /// A commit of a repository, with the submodules that are wished.
    ///
    /// # Errors
    /// It is not there, the job may not read it, or it cannot be fetched.
    pub(crate) async fn fetch(
        &self,
        repository: &Repository,
        wish: &TreeWish,
        policy: &Policy,
    ) -> Result<Tree, CallError> {
        let top = self.part(repository, wish, policy, Place::top()).await?;
        let commit = top.commit.clone();
        let parts = submodules::with_all(self, (top, repository), wish, policy).await?;
        Ok(Tree { archive: Archive::of(parts), commit })
    }

    /// A commit of one repository, to be placed there.
    pub(super) async fn part(
        &self,
        repository: &Repository,
        wish: &TreeWish,
        policy: &Policy,
        place: Place,
    ) -> Result<Part, CallError> {
        // Also where the mirror has the commit: whether this job may read it is the forge's to say.
        let Asked { remote, refs } = ask(repository, policy, wish.token.as_ref()).await?;
        let url = repository.url();
        let reference = match wish.reference.as_str() {
            "" => refs.head().unwrap_or("refs/heads/main"),
            reference => reference,
        };
        let (commit, asked_for) = match &wish.commit {
            Some(commit) if !place.is_top() => {
                (commit.clone(), refs.standing_at(commit).unwrap_or(commit).to_owned())
            }
            Some(commit) => match refs.find_branch(reference) {
                Some(found) if found.commit == *commit => (commit.clone(), found.wish),
                _ => (commit.clone(), commit.clone()),
            },
            None => {
                let found = refs.expect_branch(reference, &url)?;
                (found.commit, found.wish)
            }
        };
        // A submodule is checked out by itself.
        let named = if place.is_top() { Named::of(reference, &asked_for) } else { Named::Commit };
        let directory = self.settings.directory.join(MIRRORS).join(digest(repository));
        let mirror = directory.join(MIRROR);
        let needed = Needed { commit: &commit, asked_for: &asked_for, wish };
        let lock = Lock::with_others(&directory).await?;
        let _lock = if needed.is_in(&mirror).await {
            lock
        } else {
            drop(lock);
            let lock = Lock::alone(&directory).await?;
            let updated = self.update(&mirror, &remote, &needed).await;
            updated.map_err(|error| match place.is_top() {
                true => git::absent(error, &commit, &url),
                false => error,
            })?;
            // Others need not wait until this job has its files.
            let lock = lock.share(&directory).await?;
            room::make(&self.settings, &mirror).await;
            lock
        };
        let work = room::work(&directory).map_err(|error| cannot_write(&directory, &error))?;
        let credentials = wish.token.as_ref().filter(|_| wish.keeps_token).map(Credentials::of);
        let (mirror, commit_id) = (mirror.as_path(), commit.as_str());
        let export = Export { mirror, commit: commit_id, named: &named, wish, place: &place };
        let configuration = export.make(work.path(), &url, credentials.as_ref()).await?;
        Ok(Part { place, commit, work, configuration, is_sparse: wish.sparse.is_some() })
    }

    /// Brings a mirror as far as a job needs it, for who holds its lock alone.
    async fn update(
        &self,
        mirror: &Path,
        remote: &Remote,
        needed: &Needed<'_>,
    ) -> Result<(), CallError> {
        tidy(mirror);
        // Somebody else may have brought it meanwhile.
        if needed.is_in(mirror).await {
            return Ok(());
        }
        if mirror.exists() && room::size(mirror) > self.settings.quota.0 {
            // What is left in it of older commits takes all the room that there is.
            room::discard(mirror).map_err(|error| cannot_write(mirror, &error))?;
        }
        if !mirror.join(HEAD).exists() {
            let parent = mirror.parent().unwrap_or(mirror);
            git::run(parent, NOTHING, &["init", "--quiet", "--bare", MIRROR]).await?;
            let setting = ["config", "uploadpack.allowAnySHA1InWant", "true"];
            git::run(mirror, NOTHING, &setting).await?;
        }
        fetch(mirror, remote, needed).await?;
        gather(mirror, PACKS).await;
        Ok(())
    }
}

/// What a job needs of a mirror.
struct Needed<'a> {
    commit: &'a str,
    /// What the server calls it: a branch or tag, or the commit itself.
    asked_for: &'a str,
    wish: &'a TreeWish,
}

impl Needed<'_> {
    /// Whether a mirror has it, so that nothing need be fetched.
    async fn is_in(&self, mirror: &Path) -> bool {
        let may_have = self.wish.depth == 1 || mirror.join(COMPLETE).exists();
        may_have && !self.wish.tags && has(mirror, self.commit).await
    }
}

async fn has(mirror: &Path, commit: &str) -> bool {
    let object = format!("{commit}^{{commit}}");
    mirror.join(HEAD).exists()
        && git::run(mirror, NOTHING, &["cat-file", "-e", &object]).await.is_ok()
}

/// Gathers what many fetches have brought, a file each: the more there are, the slower git is.
pub(super) async fn gather(mirror: &Path, most: usize) {
    let packs = fs::read_dir(mirror.join("objects/pack")).into_iter().flatten().flatten();
    let packs = packs.filter(|entry| entry.path().extension().is_some_and(|end| end == "pack"));
    if packs.count() <= most {
        return;
    }
    for arguments in [&["repack", "-q", "-d", "--geometric=2"][..], &["pack-refs", "--all"]] {
        if let Err(error) = git::run(mirror, NOTHING, arguments).await {
            // It goes on as it is.
            tracing::warn!(mirror = %mirror.display(), %error, "cannot gather what a mirror has");
        }
    }
}

/// Fetches what a job needs into a mirror.
async fn fetch(mirror: &Path, remote: &Remote, needed: &Needed<'_>) -> Result<(), CallError> {
    let Needed { commit, asked_for, wish } = *needed;
    let is_complete = mirror.join(COMPLETE).exists();
    let depth = format!("--depth={}", wish.depth);
    let mut arguments: Vec<&str> = match (is_complete, wish.depth) {
        (true, _) => vec![],
        (false, 0) if mirror.join("shallow").exists() => vec!["--unshallow"],
        (false, 0) => vec![],
        (false, _) => vec![&depth],
    };
    let mut wishes = Vec::new();
    if wish.tags {
        // Those that are gone go here too.
        arguments.push("--prune");
        wishes.push("+refs/tags/*:refs/tags/*");
    }
    // By its id, whatever its branch does meanwhile; the name here keeps it from being fetched again.
    let by_id = format!("+{commit}:refs/kept/{commit}");
    let by_name = format!("+{asked_for}:refs/kept/{commit}");
    wishes.push(&by_id);
    match git::fetch(mirror, remote, &arguments, &wishes).await {
        Err(error) if asked_for != commit && git::refuses_ids(&error) => {
            wishes.pop();
            wishes.push(&by_name);
            git::fetch(mirror, remote, &arguments, &wishes).await?;
        }
        fetched => fetched?,
    }
    if wish.depth == 0 && !is_complete {
        fs::write(mirror.join(COMPLETE), "").map_err(|error| cannot_write(mirror, &error))?;
    }
    if has(mirror, commit).await {
        return Ok(());
    }
    let text = format!("{} does not have the commit {commit}", remote.url);
    Err(CallError::new(CallErrorKind::NotFound, text))
}

/// Removes what a git has left that was killed. Whoever calls this holds the mirror's lock.
fn tidy(mirror: &Path) {
    remove_locks(mirror, false);
    remove_locks(&mirror.join("objects/pack"), false);
    // No branch or tag may be called as a lock is.
    remove_locks(&mirror.join("refs"), true);
}

fn remove_locks(directory: &Path, and_below: bool) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if and_below && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_locks(&path, true);
        } else if name.ends_with(".lock") || name.starts_with("tmp_") && !and_below {
            // What cannot be removed shows when git meets it.
            drop(fs::remove_file(path));
        }
    }
}

/// The archive of a tree while it is made. One that breaks off ends with an error.
pub(crate) struct Archive {
    pipe: DuplexStream,
    making: Option<JoinHandle<io::Result<()>>>,
}

impl Archive {
    fn of(parts: Vec<Part>) -> Self {
        let (pipe, end) = duplex(PIPE_BYTES);
        let making = spawn_blocking(move || parts::write(&parts, SyncIoBridge::new(end)));
        Self { pipe, making: Some(making) }
    }
}

impl AsyncRead for Archive {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.pipe).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            return Poll::Ready(Ok(()));
        }
        let Some(making) = &mut self.making else { return Poll::Ready(Ok(())) };
        let made = ready!(Pin::new(making).poll(context));
        self.making = None;
        Poll::Ready(made.map_err(io::Error::other).and_then(|written| written))
    }
}
