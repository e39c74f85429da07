//! Keeping caches within their quota.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::CacheSettings;
use super::store::{DATA, ENTRY, data_of, entries, read};
use super::upload::PENDING;

/// A cache that nobody has restored for so long goes (forgejo-runner-protocol 8.8).
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);

/// Any cache goes after so long, so that what a key names is made anew at times.
const OLD: Duration = Duration::from_secs(30 * 24 * 3600);

/// A repository has no more caches, however small they are: each look-up reads of all of them.
const ENTRIES: usize = 1000;

/// What was not touched for so long and belongs to no entry is of a job that is gone.
const STALE: Duration = Duration::from_secs(30 * 60);

struct Kept {
    entry: PathBuf,
    data: PathBuf,
    size: u64,
    used: SystemTime,
}

/// Removes what is old, then the longest unused of whichever repository has most, until the rest is
/// within the quota; `keep` stays.
pub(super) fn make_room(settings: &CacheSettings, keep: &Path) {
    let Ok(all) = fs::read_dir(&settings.directory) else { return };
    let mut repositories: HashMap<PathBuf, Vec<Kept>> = HashMap::new();
    for place in all.flatten().map(|entry| entry.path()) {
        let mut kept = tidy(&place, keep);
        while kept.len() > ENTRIES {
            remove_oldest(&mut kept, keep);
        }
        repositories.insert(place, kept);
    }
    let bytes = |kept: &[Kept]| kept.iter().map(|kept| kept.size).sum::<u64>();
    let mut total: u64 = repositories.values().map(|kept| bytes(kept)).sum();
    while total > settings.quota.0 {
        // What is kept alone is nothing to choose from.
        let others = repositories.values_mut().filter(|kept| oldest(kept, keep).is_some());
        let Some(kept) = others.max_by_key(|kept| bytes(kept)) else { return };
        total -= remove_oldest(kept, keep);
    }
}

/// The place of what was not used for longest.
fn oldest(kept: &[Kept], keep: &Path) -> Option<usize> {
    let others = kept.iter().enumerate().filter(|(_, kept)| kept.entry != keep);
    others.min_by_key(|(_, kept)| kept.used).map(|(at, _)| at)
}

/// Removes that; gives its bytes.
fn remove_oldest(kept: &mut Vec<Kept>, keep: &Path) -> u64 {
    let Some(at) = oldest(kept, keep) else { return 0 };
    let oldest = kept.swap_remove(at);
    remove(&oldest);
    oldest.size
}

fn remove(kept: &Kept) {
    // The entry first: whoever finds one finds its content.
    drop(fs::remove_file(&kept.entry));
    drop(fs::remove_file(&kept.data));
}

/// What is left of a repository when what is old has gone.
fn tidy(place: &Path, keep: &Path) -> Vec<Kept> {
    let mut all = Vec::new();
    for path in entries(place) {
        let used = path.metadata().and_then(|facts| facts.modified());
        let (Some(entry), Ok(used)) = (read(&path), used) else { continue };
        let made = SystemTime::UNIX_EPOCH + Duration::from_millis(entry.made);
        let data = data_of(place, &entry);
        // Content that did not come takes no room.
        let size = data.metadata().map_or(0, |facts| facts.len());
        let kept = Kept { entry: path, data, size, used };
        if kept.entry != keep && (is_older(used, UNUSED) || is_older(made, OLD)) {
            remove(&kept);
        } else {
            all.push(kept);
        }
    }
    for path in fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let end = path.extension().unwrap_or_default();
        let is_entry = end == ENTRY || path.file_name().is_some_and(|name| name == "about");
        let is_used = end == DATA && all.iter().any(|kept| kept.data == path);
        let stem = path.file_name().unwrap_or_default().to_string_lossy();
        let stem = stem.split('.').next().unwrap_or_default();
        let is_coming = !is_stale(&place.join(stem).with_extension(PENDING));
        if !is_entry && !is_used && !is_coming && is_stale(&path) {
            drop(fs::remove_file(&path));
        }
    }
    all
}

/// Whether nobody works with a file any more.
fn is_stale(path: &Path) -> bool {
    is_untouched(path, STALE)
}

/// Whether a file was not touched for so long; true if there is none.
pub(super) fn is_untouched(path: &Path, time: Duration) -> bool {
    let touched = path.metadata().and_then(|facts| facts.modified());
    touched.map_or(true, |touched| is_older(touched, time))
}

fn is_older(time: SystemTime, than: Duration) -> bool {
    // A clock that went backwards makes nothing old.
    time.elapsed().is_ok_and(|age| age > than)
}
