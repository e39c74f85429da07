//! A step that fails where there is no room left: its own message may not say so.

use std::time::Duration;

use common::infrastructure::Cause;
use common::size::FULL_DISK;
use tokio::time::timeout;

use crate::system::Room;

use super::job::Job;
use super::text::sentence;
use super::variables::Variables;

/// Where programs write temporary files that are told no other place.
const TEMPORARY: &str = "/tmp";

/// How long a file system may take to say how full it is: one over a network may never.
const LOOK: Duration = Duration::from_secs(5);

impl Job<'_> {
    /// Says so if a file system that a failed step writes to is full.
    pub(super) async fn explain_full_disk(&mut self, environment: &Variables) {
        if let Some(message) = self.full_disk(environment).await {
            self.error(&message).await;
        }
    }

    /// Which file system is full, and what to do about it.
    async fn full_disk(&self, environment: &Variables) -> Option<String> {
        let chosen = environment.get("TMPDIR").filter(|path| path.starts_with('/'));
        let temporary = chosen.unwrap_or(TEMPORARY);
        for path in [&self.directories.workspace, &self.directories.temp, temporary] {
            // Where the step removed a directory, or it cannot be looked at, there is nothing to say.
            let asked = timeout(LOOK, self.system.room(path, self.facts.owner));
            let Ok(Ok(room)) = asked.await else { continue };
            let Some(used_up) = used_up(&room) else { continue };
            let cause = Cause::GuestDiskFull;
            return Some(format!(
                "{}: the disk of the machine is full at {path}: {used_up}. {}",
                cause.code(),
                sentence(cause.cure())
            ));
        }
        None
    }
}

/// What a file system has no more of, in words.
fn used_up(room: &Room) -> Option<String> {
    let Room { size, free, files, files_free } = room;
    // One without a size stores nothing, such as that of /proc.
    if size.0 > 0 && *free < FULL_DISK {
        Some(format!("{free} of {size} are free"))
    } else if *files > 0 && *files_free == 0 {
        Some(format!("of its {files} files none is free, its size is {size}"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use common::size::ByteSize;

    use super::*;

    #[test]
    fn what_counts_as_full() {
        let check = |[size, free, files, files_free]: [u64; 4], expected: Option<&str>| {
            let room = Room { size: ByteSize(size), free: ByteSize(free), files, files_free };
            assert_eq!(used_up(&room).as_deref(), expected, "{room:?}");
        };
        let gib = 1 << 30;
        check([2 * gib, gib, 100, 50], None);
        check([2 * gib, 1 << 20, 100, 1], None);
        check([2 * gib, (1 << 20) - 1024, 100, 50], Some("1023 KiB of 2 GiB are free"));
        check([2 * gib, 0, 0, 0], Some("0 B of 2 GiB are free"));
        check([2 * gib, gib, 100, 0], Some("of its 100 files none is free, its size is 2 GiB"));
        // A file system that counts no files, and one that stores nothing.
        check([2 * gib, gib, 0, 0], None);
        check([0, 0, 0, 0], None);
    }
}
