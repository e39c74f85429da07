//! Files that a job has not confirmed, in a directory of the job beside the artifacts of its run:
//!
//! ```text
//!   pending/JOB/ARTIFACT/FILE/    both are hashes of names
//!     about                       which file it is
//!     FIRST-COUNT                 a chunk
//!     whole                       all of them, put together and unpacked
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use common::JobId;
use flate2::read::MultiGzDecoder;
use futures_util::StreamExt;
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tempfile::NamedTempFile;

use super::super::broken;
use super::super::kept::entries;
use super::{Chunk, Item};
use crate::answer::Refusal;
use crate::blob::{Room, copy};
use crate::calls::Body;

/// The directory of all jobs of a run.
const PENDING: &str = "pending";

const ABOUT: &str = "about";

const WHOLE: &str = "whole";

/// What one job has sent and not confirmed.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    directory: PathBuf,
    /// The chunks that the job may have sent and not confirmed, and still may send.
    most: u64,
    left: Arc<AtomicU64>,
}

/// What is known of a file of which something has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    path: String,
    total: u64,
    is_packed: bool,
}

/// A file of which something has come.
#[derive(Debug)]
pub(super) struct PendingFile {
    directory: PathBuf,
    pub(super) path: String,
    total: u64,
    is_packed: bool,
    chunks: Vec<(u64, u64)>,
}

impl Pending {
    pub(super) fn new(run: &Path, job: JobId, chunks: u64) -> Self {
        let directory = run.join(PENDING).join(job.to_string());
        Self { directory, most: chunks, left: Arc::new(AtomicU64::new(chunks)) }
    }

    fn artifact(&self, name: &str) -> PathBuf {
        self.directory.join(hash(name))
    }

    /// Keeps a chunk of a file.
    pub(super) async fn take(
        &self,
        item: &Item,
        chunk: &Chunk,
        body: Body,
        room: &Room,
    ) -> Result<(), Refusal> {
        self.count_one()?;
        let directory = self.artifact(&item.name).join(hash(&item.path));
        let Chunk { total, is_packed, .. } = *chunk;
        let about = About { path: item.path.clone(), total, is_packed };
        let place = directory.clone();
        let ensure = move || ensure(&place, &about);
        room.work_alone(ensure).await.map_err(broken)?.map_err(broken)?;
        let temporary = temporary(&directory).map_err(broken)?;
        let file = temporary.reopen().map_err(broken)?;
        let digest = Arc::new(Mutex::new(Md5::new()));
        let look = Arc::clone(&digest);
        let body = body.inspect(move |part| {
            if let Ok(bytes) = part {
                look.lock().unwrap_or_else(PoisonError::into_inner).update(bytes);
            }
        });
        let mut file = tokio::fs::File::from_std(file);
        let count = copy(body.boxed(), &mut file, Some(chunk.count), room).await?;
        let digest = digest.lock().unwrap_or_else(PoisonError::into_inner).clone().finalize();
        chunk.check(count, &digest)?;
        temporary.persist(directory.join(chunk.name())).map(drop).map_err(broken)
    }

    fn count_one(&self) -> Result<(), Refusal> {
        let less = |left: u64| left.checked_sub(1);
        match self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, less) {
            Ok(_) => Ok(()),
            Err(_) => Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!(
                    "the job has sent {} chunks of files that it did not confirm; pack the files into \
                     one",
                    self.most
                ),
            )),
        }
    }

    /// The files of an artifact of which something has come, by their paths.
    pub(super) fn files(&self, name: &str) -> io::Result<Vec<PendingFile>> {
        let mut files = Vec::new();
        for (directory, _) in entries(&self.artifact(name))? {
            if let Some(About { path, total, is_packed }) = read(&directory) {
                let names = entries(&directory)?.into_iter();
                let chunks = names
                    .filter_map(|(path, _)| Chunk::places(path.file_name()?.to_str()?))
                    .collect();
                files.push(PendingFile { directory, path, total, is_packed, chunks });
            }
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(files)
    }

    /// Forgets what has come of an artifact: the job may send as much again.
    pub(super) fn forget(&self, name: &str, room: &Room) -> io::Result<()> {
        self.release(name, &self.files(name)?, room);
        match fs::remove_dir_all(self.artifact(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Removes what has come of these files: the job may send as much again.
    pub(super) fn release(&self, name: &str, files: &[PendingFile], room: &Room) {
        for file in files {
            // What cannot be removed goes with the job. Without the first nothing of it counts: this may
            // be ended half way.
            drop(fs::remove_file(file.directory.join(ABOUT)));
            drop(fs::remove_dir_all(&file.directory));
            room.give(file.chunks.iter().map(|(_, count)| count).sum());
            let more = |left: u64| Some((left + file.chunks.len() as u64).min(self.most));
            self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok();
        }
        drop(fs::remove_dir(self.artifact(name)));
    }

    /// Forgets everything.
    pub(super) fn end(&self) {
        drop(fs::remove_dir_all(&self.directory));
    }
}

/// Makes the directory of a file. Chunks of another file with this path are of no use for it.
fn ensure(directory: &Path, about: &About) -> io::Result<()> {
    if read(directory).as_ref() == Some(about) {
        return Ok(());
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(directory)?;
    let mut file = temporary(directory)?;
    file.write_all(&serde_json::to_vec(about).map_err(io::Error::other)?)?;
    file.persist(directory.join(ABOUT)).map(drop).map_err(io::Error::from)
}

fn read(directory: &Path) -> Option<About> {
    serde_json::from_slice(&fs::read(directory.join(ABOUT)).ok()?).ok()
}

/// A file that goes unless it gets another name.
fn temporary(directory: &Path) -> io::Result<NamedTempFile> {
    // As any other file has: people look at artifacts too.
    let usual = fs::Permissions::from_mode(0o666);
    tempfile::Builder::new().permissions(usual).tempfile_in(directory)
}

fn hash(name: &str) -> String {
    hex::encode(&Sha256::digest(name.as_bytes())[..16])
}

/// Whether all of these files have come whole.
pub(super) fn check(name: &str, files: &[PendingFile]) -> Result<(), Refusal> {
    let mut missing = files.iter().filter_map(|file| {
        let (_, has) = file.in_order();
        (!file.is_whole()).then_some((&file.path, has, file.total))
    });
    let Some((path, has, total)) = missing.next() else { return Ok(()) };
    let others = match missing.count() {
        0 => String::new(),
        count => format!("; {count} other files are not complete either"),
    };
    Err(Refusal::invalid(format!(
        "{path} in the artifact {name} is to have {total} bytes, and {has} of them from its begin are \
         there{others}"
    )))
}

impl PendingFile {
    /// The file that [`Self::assemble`] makes.
    pub(super) fn whole(&self) -> PathBuf {
        self.directory.join(WHOLE)
    }

    /// Removes what [`Self::assemble`] made.
    pub(super) fn take_apart(&self) {
        drop(fs::remove_file(self.whole()));
    }

    /// The chunks from the begin on, without a gap, and how far they reach.
    fn in_order(&self) -> (Vec<PathBuf>, u64) {
        let mut chunks = self.chunks.clone();
        chunks.sort_unstable();
        let (mut taken, mut end) = (Vec::new(), 0);
        for (first, count) in chunks {
            if first == end {
                taken.push(self.directory.join(format!("{first}-{count}")));
                end += count;
            }
        }
        (taken, end)
    }

    fn is_whole(&self) -> bool {
        let (taken, end) = self.in_order();
        !taken.is_empty() && end == self.total
    }

    /// Puts the chunks together and unpacks them, to so many bytes at most; gives how many there are.
    /// Done twice it does the same.
    pub(super) fn assemble(&self, most: u64) -> Result<u64, Refusal> {
        let (chunks, _) = self.in_order();
        let whole = self.whole();
        match (chunks.as_slice(), self.is_packed) {
            ([only], false) => {
                self.take_apart();
                fs::hard_link(only, &whole).map_err(broken)?;
            }
            (_, false) => self.write(Chunks::new(chunks), most)?,
            (_, true) => self.write(MultiGzDecoder::new(Chunks::new(chunks)), most)?,
        }
        let size = whole.metadata().map_err(broken)?.len();
        if size > most {
            let text = format!("{} makes its artifact larger than one may be", self.path);
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        Ok(size)
    }

    fn write(&self, content: impl Read, most: u64) -> Result<(), Refusal> {
        let mut whole = File::create(self.whole()).map_err(broken)?;
        match io::copy(&mut content.take(most.saturating_add(1)), &mut whole) {
            Err(error) if self.is_packed && is_of_gzip(&error) => {
                Err(Refusal::invalid(format!("{} is not what gzip makes: {error}", self.path)))
            }
            copied => copied.map(drop).map_err(broken),
        }
    }
}

fn is_of_gzip(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

/// The bytes of several files, of which one is open at a time.
struct Chunks {
    left: std::vec::IntoIter<PathBuf>,
    open: Option<File>,
}

impl Chunks {
    fn new(chunks: Vec<PathBuf>) -> Self {
        Self { left: chunks.into_iter(), open: None }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = match &mut self.open {
                Some(file) => file.read(buffer)?,
                None => 0,
            };
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.left.next() {
                Some(next) => self.open = Some(File::open(next)?),
                None => return Ok(0),
            }
        }
    }
}
