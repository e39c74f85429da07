//! Something large that comes in parts, as files beside each other: the parts that have come, and which.
//!
//! ```text
//!   NAME.upload        what has come
//!   NAME.ranges        which bytes of it
//!   NAME.HASH.block    parts that a list puts in order later
//! ```
//!
//! Everything can be done twice: whoever sends it does not know whether an answer was lost.
//! What one job makes come is bounded by its [`Room`], also by parts that fail.

mod azure;
mod room;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use uuid::Uuid;

use crate::calls::Body;
pub(crate) use room::Room;

const UPLOAD: &str = "upload";
const RANGES: &str = "ranges";
const BLOCK: &str = "block";

/// Why a part was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    /// What is sent makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It is too much.
    #[error("{0}")]
    TooLarge(String),
    /// The host cannot.
    #[error("the host cannot keep it: {0}")]
    Io(#[from] io::Error),
}

/// Something large that comes in parts.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    /// The path of its files without their ends.
    stem: PathBuf,
}

impl Blob {
    /// The blob of this name in a directory; a name has no dot and no slash.
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        Self { stem: directory.join(name) }
    }

    fn file_of(&self, end: &str) -> PathBuf {
        self.stem.with_extension(end)
    }

    /// The file with what has come.
    pub(crate) fn file(&self) -> PathBuf {
        self.file_of(UPLOAD)
    }

    /// Writes a part, of which `expected` says how long it is.
    pub(crate) async fn write(
        &self,
        at: u64,
        body: Body,
        expected: Option<u64>,
        room: &Room,
    ) -> Result<(), BlobError> {
        let mut file = OpenOptions::new();
        let file = file.create(true).truncate(false).write(true).open(self.file())?;
        let mut file = tokio::fs::File::from_std(file);
        file.seek(SeekFrom::Start(at)).await?;
        let count = copy(body, &mut file, expected, room).await?;
        if expected.is_some_and(|expected| expected != count) {
            let text = format!("{count} bytes came of a part that has {}", expected.unwrap_or(0));
            return Err(BlobError::Invalid(text));
        }
        let ranges = OpenOptions::new().create(true).append(true).open(self.file_of(RANGES));
        Ok(ranges?.write_all(format!("{at} {count}\n").as_bytes())?)
    }

    /// Forgets what has come, for a whole that comes in one.
    pub(crate) fn restart(&self) {
        for end in [UPLOAD, RANGES] {
            drop(fs::remove_file(self.file_of(end)));
        }
    }

    /// Writes a part that a list names later.
    async fn write_block(&self, name: &str, body: Body, room: &Room) -> Result<(), BlobError> {
        let path = self.block(name);
        let temporary = self.temporary();
        let mut file = tokio::fs::File::create(temporary.path()).await?;
        copy(body, &mut file, None, room).await?;
        Ok(fs::rename(temporary.path(), path)?)
    }

    /// A file of its own for each that writes, which goes unless it gets another name.
    fn temporary(&self) -> Temporary {
        Temporary(self.file_of(&format!("{}.part", Uuid::now_v7().simple())))
    }

    fn block(&self, name: &str) -> PathBuf {
        let hash = hex::encode(&Sha256::digest(name.as_bytes())[..16]);
        self.file_of(&format!("{hash}.{BLOCK}"))
    }

    /// Puts the parts together, in the order of this list. Done twice, also at the same time, it is done
    /// once.
    fn assemble(&self, names: &[String], room: &Room) -> Result<(), BlobError> {
        let is_done = || self.file_of(RANGES).exists();
        if is_done() {
            return Ok(());
        }
        let temporary = self.temporary();
        let mut whole = File::create(temporary.path())?;
        for name in names {
            let mut block = match File::open(self.block(name)) {
                Ok(block) => block,
                Err(_) if is_done() => return Ok(()),
                Err(_) => {
                    return Err(BlobError::Invalid(format!("the block {name} never came")));
                }
            };
            // A list may name one block many times.
            room.take(block.metadata()?.len())?;
            io::copy(&mut block, &mut whole)?;
        }
        let count = whole.stream_position()?;
        fs::rename(temporary.path(), self.file())?;
        fs::write(self.file_of(RANGES), format!("0 {count}\n"))?;
        for name in names {
            let block = self.block(name);
            let size = block.metadata().map_or(0, |facts| facts.len());
            if fs::remove_file(block).is_ok() {
                // It is in the whole, which has taken room of its own.
                room.give(size);
            }
        }
        Ok(())
    }

    /// Whether it has come whole, with so many bytes; there is a file then, even of none.
    pub(crate) fn check(&self, size: u64) -> Result<(), BlobError> {
        let (file, has) = (self.file(), self.covered()?);
        if has != size || file.metadata().map_or(0, |facts| facts.len()) != size {
            return Err(BlobError::Invalid(format!(
                "it is to have {size} bytes, and {has} of them from its begin are there"
            )));
        }
        if size == 0 {
            File::create(&file)?;
        }
        Ok(())
    }

    /// How many bytes from the begin have come.
    fn covered(&self) -> io::Result<u64> {
        let mut text = String::new();
        match File::open(self.file_of(RANGES)) {
            Ok(mut file) => file.read_to_string(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut ranges: Vec<(u64, u64)> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(at, count)| Some((at.parse().ok()?, count.parse().ok()?)))
            .collect();
        ranges.sort_unstable();
        let mut end = 0;
        for (at, count) in ranges {
            if at > end {
                break;
            }
            end = end.max(at + count);
        }
        Ok(end)
    }

    /// Removes all that belongs to it.
    pub(crate) fn remove(&self) {
        let name = self.stem.file_name().unwrap_or_default().to_string_lossy();
        let begin = format!("{name}.");
        let place = self.stem.parent().unwrap_or(Path::new("."));
        for path in fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begin)) {
                drop(fs::remove_file(path));
            }
        }
    }
}

/// A file that is removed.
struct Temporary(PathBuf);

impl Temporary {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // It may have another name by now.
        drop(fs::remove_file(&self.0));
    }
}

/// Writes a body to a file, up to so many bytes and as long as there is room; gives its length.
pub(crate) async fn copy(
    mut body: Body,
    file: &mut tokio::fs::File,
    most: Option<u64>,
    room: &Room,
) -> Result<u64, BlobError> {
    let mut count = 0;
    while let Some(part) = body.next().await {
        let part = part?;
        count += part.len() as u64;
        if let Some(most) = most.filter(|most| count > *most) {
            return Err(BlobError::TooLarge(format!("there are more than {most} bytes")));
        }
        room.take(part.len() as u64)?;
        file.write_all(&part).await?;
    }
    file.flush().await?;
    Ok(count)
}
