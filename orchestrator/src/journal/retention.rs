//! Where journals lie, and how long.
//!
//! `ID.segment` is a job that is not finished, `ID.done` one whose final event is on disk, and
//! `ID.damaged` one that could not be used.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::JobId;
use common::time::Timestamp;

use super::Shared;
use crate::metrics;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The file of a job that is not finished.
pub(super) fn path(directory: &Path, job: JobId) -> PathBuf {
    directory.join(format!("{job}.segment"))
}

/// The file of a finished job.
pub(super) fn done(directory: &Path, job: JobId) -> PathBuf {
    directory.join(format!("{job}.done"))
}

/// The file of a job that could not be used.
pub(super) fn damaged(directory: &Path, job: JobId) -> PathBuf {
    directory.join(format!("{job}.damaged"))
}

/// The file of a job, if there is one.
pub(super) fn find(directory: &Path, job: JobId) -> Option<PathBuf> {
    // In this order: a file may be renamed from the first to the second in between.
    [path(directory, job), done(directory, job)].into_iter().find(|path| path.exists())
}

/// A file in the directory.
struct Kept {
    job: JobId,
    path: PathBuf,
    is_done: bool,
    /// When it was written last.
    time: Timestamp,
    bytes: u64,
}

/// Removes what is kept no longer. Blocks.
pub(super) fn sweep(shared: &Arc<Shared>, now: Timestamp) {
    let settings = &shared.settings;
    let mut kept = match list(&settings.directory) {
        Ok(kept) => kept,
        Err(error) => {
            metrics::error("journal");
            let directory = settings.directory.display();
            tracing::error!(%directory, %error, "the journals cannot be listed");
            return;
        }
    };
    kept.sort_by_key(|kept| (kept.time, kept.job));
    let longest = settings.days * DAY;
    let mut bytes: u64 = kept.iter().filter(|kept| kept.is_done).map(|kept| kept.bytes).sum();
    for file in &kept {
        let is_old = now.since(file.time) > longest;
        let is_too_much = file.is_done && bytes > settings.bytes;
        if !is_old && !is_too_much {
            continue;
        }
        let live = shared.jobs().get(&file.job).cloned();
        if let Some(job) = live {
            // It is written, or its forge runner has not taken everything.
            if !(is_old && file.is_done) {
                continue;
            }
            tracing::warn!(job.id = %file.job, "a forge runner has not taken the end of a job in all the time that it was kept");
            job.gone().cancel();
            shared.forget(&job);
        }
        match std::fs::remove_file(&file.path) {
            Ok(()) if file.is_done => bytes -= file.bytes,
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                metrics::error("journal");
                tracing::error!(job.id = %file.job, %error, "a journal cannot be removed");
            }
        }
    }
}

fn list(directory: &Path) -> std::io::Result<Vec<Kept>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        // What is not named like a journal is not ours.
        let Some(job) = name.and_then(|name| name.parse().ok()) else { continue };
        let is_done = match path.extension().and_then(|extension| extension.to_str()) {
            Some("done") => true,
            Some("segment" | "damaged") => false,
            _ => continue,
        };
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let time = metadata.modified()?.into();
        all.push(Kept { job, path, is_done, time, bytes: metadata.len() });
    }
    Ok(all)
}
