//! Deadlines of an embedded database, whose clock is this host's wall clock, after that has jumped:
//! they move with it, so that as much time is left as before.
//!
//! Within one boot of the host the boot-time clock tells what a jump is, also between two processes:
//! the last moment seen is kept in a file. Across a boot only the wall clock is left; time that has
//! passed by it since the last moment seen counts, but never less than none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Inner;
use crate::clock::Clock;
use crate::store::StoreError;

/// The file's name.
const FILE: &str = "clock.json";
/// A moment and its brackets; more is not ours.
const FILE_BYTES: usize = 4096;
/// How often the moment is kept.
const KEEP: Duration = Duration::from_secs(5);
/// Differences between the two clocks that are no jump, in microseconds.
const SLACK: i64 = 1_000_000;

/// One moment by both clocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Moment {
    /// The host's boot.
    boot: String,
    /// By the wall clock.
    wall: Timestamp,
    /// By the boot-time clock.
    since_boot: Duration,
}

impl Moment {
    fn now(clock: &Clock) -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { boot: boot.trim().to_owned(), wall: clock.now(), since_boot: clock.since_boot() }
    }

    /// By how many microseconds the wall clock has jumped since an earlier moment.
    fn jump_since(&self, before: &Self) -> i64 {
        let micros = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
        let wall = micros(self.wall.as_micros()).saturating_sub(micros(before.wall.as_micros()));
        let jump = if self.boot == before.boot {
            let passed = self.since_boot.saturating_sub(before.since_boot).as_micros();
            wall.saturating_sub(i64::try_from(passed).unwrap_or(i64::MAX))
        } else {
            wall.min(0)
        };
        if jump.abs() < SLACK { 0 } else { jump }
    }
}

/// The jumps of the wall clock.
#[derive(Debug)]
pub(super) struct Jumps {
    path: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    last: Option<Moment>,
    kept: Option<Instant>,
}

impl Jumps {
    /// Goes on from the last moment that was kept here. A file that nobody understands is none.
    pub(super) fn open(state: &Path) -> Self {
        let path = state.join(FILE);
        let text = std::fs::read(&path).unwrap_or_default();
        let text = text.get(..text.len().min(FILE_BYTES)).unwrap_or_default();
        let last = serde_json::from_slice(text).ok();
        Self { path, seen: Mutex::new(Seen { last, kept: None }) }
    }

    /// Keeps the moment for a process after this one, whole or not at all. After a loss of power an
    /// older one does as well, so nobody waits for the disk.
    fn keep(&self, moment: &Moment) -> std::io::Result<()> {
        let unfinished = self.path.with_extension("new");
        std::fs::write(&unfinished, serde_json::to_vec(moment)?)?;
        std::fs::rename(&unfinished, &self.path)
    }
}

impl Inner {
    /// Moves the deadlines in the table by what the wall clock has jumped since the last look.
    pub(super) async fn follow_clock(&self) -> Result<(), StoreError> {
        let Some(jumps) = &self.jumps else { return Ok(()) };
        let mut seen = jumps.seen.lock().await;
        let now = Moment::now(&self.clock);
        let jump = seen.last.as_ref().map_or(0, |last| now.jump_since(last));
        if jump != 0 {
            let seconds = jump / 1_000_000;
            tracing::warn!(seconds, "the wall clock has jumped: deadlines move with it");
            self.store.move_deadlines(jump).await?;
        }
        let due = seen.kept.is_none_or(|kept| kept.elapsed() >= KEEP);
        if jump != 0 || due {
            if let Err(error) = jumps.keep(&now) {
                tracing::debug!(%error, "the moment is not kept");
            }
            seen.kept = Some(Instant::now());
        }
        seen.last = Some(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_what_the_other_clock_did_not_see() {
        let moment = |boot: &str, wall: u64, since_boot: u64| Moment {
            boot: boot.to_owned(),
            wall: Timestamp::from_micros(wall * 1_000_000),
            since_boot: Duration::from_secs(since_boot),
        };
        let check = |now: &Moment, seconds: i64| {
            assert_eq!(now.jump_since(&moment("a", 10_000, 100)), seconds * 1_000_000, "{now:?}");
        };
        check(&moment("a", 10_050, 150), 0);
        check(&moment("a", 13_650, 150), 3_600);
        check(&moment("a", 6_450, 150), -3_600);
        // The host slept, and both clocks went on.
        check(&moment("a", 20_000, 10_100), 0);
        // Another boot: the time that it took counts, and never less than none.
        check(&moment("b", 10_900, 20), 0);
        check(&moment("b", 9_000, 20), -1_000);
    }

    #[test]
    fn a_moment_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let now = Moment::now(&Clock::system());
        Jumps::open(directory.path()).keep(&now).unwrap();
        assert_eq!(Jumps::open(directory.path()).seen.into_inner().last, Some(now));
        std::fs::write(directory.path().join(FILE), "{").unwrap();
        assert_eq!(Jumps::open(directory.path()).seen.into_inner().last, None);
    }
}
