//! What clones of a template write of their own, so that room is promised for that and not for all of
//! their memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use common::limits::MIB;
use common::size::ByteSize;
use serde::{Deserialize, Serialize};

use super::Template;
use crate::host::CloneUse;

/// Beside a template's files.
const DIRTIED: &str = "dirtied.json";
/// The few bytes of it.
const DIRTIED_BYTES: u64 = 4096;
/// Before so many clones were seen to their end, each is promised all of its memory.
const SEEN: u64 = 10;
/// What is promised beyond one and a half of the most that any of them wrote.
const MARGIN: u64 = 64 * MIB;

/// What clones wrote of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Dirtied {
    /// How many were seen to their end.
    clones: u64,
    /// The most that one wrote, in bytes.
    most: u64,
}

impl Dirtied {
    fn after(self, bytes: u64) -> Self {
        Self { clones: self.clones.saturating_add(1), most: self.most.max(bytes) }
    }

    /// What the next is expected to write, if enough is known.
    fn expected(self) -> Option<ByteSize> {
        let most = self.most.saturating_add(self.most / 2).saturating_add(MARGIN);
        (self.clones >= SEEN).then_some(ByteSize(most))
    }
}

impl Template {
    /// What the next clone is expected to use, as soon as enough clones were seen to their end.
    #[must_use]
    pub fn expected_use(&self) -> Option<CloneUse> {
        let own = read(&self.directory().join(DIRTIED)).ok()?.expected()?;
        let memory = std::fs::metadata(self.memory()).ok()?;
        let template = self.directory().file_name()?.to_str()?.to_owned();
        Some(CloneUse { template, shared: ByteSize(memory.blocks() * 512), own })
    }

    /// Notes what a clone wrote until its end.
    pub(crate) fn note_dirtied(&self, bytes: u64) {
        let path = self.directory().join(DIRTIED);
        if let Err(error) = update(&path, bytes) {
            // It may have been removed meanwhile.
            tracing::debug!(path = %path.display(), %error, "cannot note what a clone wrote");
        }
    }
}

fn read(path: &Path) -> io::Result<Dirtied> {
    let mut text = Vec::new();
    File::open(path)?.take(DIRTIED_BYTES).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

/// Clones of several processes end at the same time.
fn update(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    file.lock()?;
    let mut text = Vec::new();
    (&file).take(DIRTIED_BYTES).read_to_end(&mut text)?;
    let before: Dirtied = serde_json::from_slice(&text).unwrap_or_default();
    let text = serde_json::to_vec(&before.after(bytes)).map_err(io::Error::other)?;
    file.rewind()?;
    file.write_all(&text)?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_are_expected_to_write_more_than_any_did() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(DIRTIED);
        for clone in 1..=SEEN {
            update(&path, clone * MIB).unwrap();
            let expected = read(&path).unwrap().expected();
            assert_eq!(expected.is_some(), clone == SEEN, "{clone}");
        }
        update(&path, MIB).unwrap();
        assert_eq!(read(&path).unwrap().expected(), Some(ByteSize(15 * MIB + MARGIN)));
        std::fs::write(&path, "{").unwrap();
        assert!(read(&path).is_err());
        update(&path, MIB).unwrap();
        assert_eq!(read(&path).unwrap(), Dirtied { clones: 1, most: MIB });
    }
}
