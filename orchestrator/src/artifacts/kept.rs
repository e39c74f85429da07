//! What the complete artifacts of a run take together, of both versions.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use axum::http::StatusCode;

use super::ARCHIVE;
use crate::answer::Refusal;

/// The artifacts of the third version, in the directory of the run: each has a directory of its name.
pub(super) const TREES: &str = "v3";

/// What the artifacts of a run may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The bytes of all complete artifacts of a run together.
    pub(super) bytes: u64,
    /// How many of them there are.
    pub(super) artifacts: u64,
    /// Their files and directories.
    pub(super) entries: u64,
    /// The files of one artifact of the third version.
    pub(super) files: u64,
    /// The bytes of the paths of these: a list of them is one answer, which clients keep in memory.
    pub(super) path_bytes: u64,
    /// The chunks that one job may send and not confirm.
    pub(super) chunks: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 50 * 1024 * 1024 * 1024,
            artifacts: 5_000,
            entries: 200_000,
            files: 20_000,
            path_bytes: 2 * 1024 * 1024,
            chunks: 40_000,
        }
    }
}

/// What artifacts take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) bytes: u64,
    pub(super) artifacts: u64,
    pub(super) entries: u64,
}

/// Something of a run becomes complete.
#[must_use]
pub(super) struct Completing {
    kept: Change,
    _alone: Option<File>,
}

impl Completing {
    /// Waits until nothing else becomes complete, and looks at what there is.
    pub(super) fn begin(directory: &Path) -> io::Result<Self> {
        let alone = alone(directory)?;
        Ok(Self { kept: sum(directory)?, _alone: alone })
    }

    /// Whether so much more may be kept.
    pub(super) fn admit(&self, more: Change, limits: &Limits) -> Result<(), Refusal> {
        for (kept, more, most, what) in [
            (self.kept.bytes, more.bytes, limits.bytes, "bytes of artifacts"),
            (self.kept.artifacts, more.artifacts, limits.artifacts, "artifacts"),
            (self.kept.entries, more.entries, limits.entries, "files and directories of artifacts"),
        ] {
            if kept.saturating_add(more) > most {
                return Err(Refusal::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!(
                        "this run keeps {kept} {what} and these are {more} more; it may \
                         keep {most} in all"
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// While this is held, nothing of the run becomes complete: two jobs must not fill the same room. Absent
/// where there is no such run yet.
pub(super) fn alone(directory: &Path) -> io::Result<Option<File>> {
    match File::open(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => {
            let directory = opened?;
            directory.lock()?;
            Ok(Some(directory))
        }
    }
}

/// What is complete in the directory of a run.
fn sum(directory: &Path) -> io::Result<Change> {
    let mut sum = Change::default();
    let mut add = |facts: &Metadata| {
        sum.entries += 1;
        sum.bytes += if facts.is_dir() { 0 } else { facts.len() };
    };
    let mut artifacts = 0;
    for (path, facts) in entries(directory)? {
        if path.to_string_lossy().ends_with(ARCHIVE) {
            artifacts += 1;
            add(&facts);
        }
    }
    let trees = entries(&directory.join(TREES))?;
    artifacts += trees.len() as u64;
    let mut open = Vec::new();
    for (path, facts) in trees {
        add(&facts);
        open.push(path);
    }
    while let Some(place) = open.pop() {
        for (path, facts) in entries(&place)? {
            add(&facts);
            if facts.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(Change { artifacts, ..sum })
}

/// What is in a directory, of which there may be none; links are not followed.
pub(super) fn entries(directory: &Path) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let found = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    let mut entries = Vec::new();
    for entry in found {
        let entry = entry?;
        match entry.metadata() {
            Ok(facts) => entries.push((entry.path(), facts)),
            // It was deleted meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(entries)
}
