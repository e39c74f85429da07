//! The serial console of a machine.
//!
//! QEMU writes it to a file on tmpfs, where it survives this process; nobody has to read for the
//! guest to go on. A task reads what is new by its offset into a bounded ring and gives the read part
//! of the file back to the system by punching holes, so that a guest that writes without end uses no
//! memory. (Where the file system cannot punch holes, the file grows until the machine ends.)
//!
//! What a guest writes is untrusted text: every line that leaves here is cut to a length and free of
//! control characters.

mod cause;
mod clean;
mod ring;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::limits::{CONSOLE_BYTES, MIB};
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::unistd::{Whence, lseek};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep};

pub use cause::ConsoleCause;
pub(super) use cause::Farewell;

use self::cause::Causes;
use self::ring::Ring;
use crate::host::{HostError, MachinePaths};

/// How often the file is looked at while the guest writes.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How often it is looked at once nothing new has come for [`QUIET`]: most guests are silent while
/// their steps run, and a thousand of them must cost next to nothing.
const QUIET_INTERVAL: Duration = Duration::from_millis(500);

/// See [`QUIET_INTERVAL`].
const QUIET: Duration = Duration::from_secs(5);

/// How often QEMU's own log is cut.
const TRIM_INTERVAL: Duration = Duration::from_secs(5);

/// How much is read at first, to see whether there is anything.
const GLANCE_BYTES: usize = 1024;

/// How much is read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// See [`Console::catch_up`]: as many chunks as the ring keeps, and some more.
const CATCH_UP: usize = 16;

/// The read part of the file is given back in steps of this size.
const PUNCH_BYTES: u64 = 256 * 1024;

/// At most so much of what nobody read is looked through when a console is adopted.
const UNREAD_BYTES: u64 = 16 * MIB;

/// Lines that a subscriber may lag behind before it misses some.
const SUBSCRIBER_LINES: usize = 4096;

/// The console of one machine. Clones are the same console.
#[derive(Clone, Debug)]
pub struct Console {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    file: File,
    /// Read up to here.
    offset: u64,
    /// Given back to the system up to here.
    punched: u64,
    ring: Ring,
    causes: Causes,
    /// Present while somebody listens: it has room for many lines.
    lines: Option<broadcast::Sender<Arc<str>>>,
}

impl Console {
    /// Makes the file that QEMU shall write to, owned by the user that QEMU runs as.
    pub(super) fn create(path: &Path, owner: Option<u32>) -> Result<Self, HostError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(HostError::io("create", path))?;
        std::os::unix::fs::fchown(&file, owner, None)
            .map_err(HostError::io("change the owner of", path))?;
        Ok(Self::of(file, 0))
    }

    /// Goes on with a console that another owner followed: from what it had not given back to the
    /// system yet, or the last part of that. The directory may be that of the user whom QEMU runs as.
    /// Blocks for a moment.
    pub(super) fn adopt(path: &Path) -> Result<Self, HostError> {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)
            .map_err(HostError::io("open", path))?;
        let metadata = file.metadata().map_err(HostError::io("look at", path))?;
        if !metadata.is_file() {
            let reason = "it is no file".to_owned();
            return Err(HostError::Record { path: path.to_owned(), reason });
        }
        let end = metadata.size();
        // Where nothing is left there is no data to seek to.
        let known = lseek(&file, 0, Whence::SeekData).map_or(end, i64::cast_unsigned);
        let console = Self::of(file, known.max(end.saturating_sub(UNREAD_BYTES)));
        console.poll();
        Ok(console)
    }

    fn of(file: File, offset: u64) -> Self {
        let state = State {
            file,
            offset,
            punched: 0,
            ring: Ring::new(CONSOLE_BYTES),
            causes: Causes::default(),
            lines: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Takes in what the guest wrote since the last time. Reading from tmpfs copies memory and does
    /// not block. True if there was something.
    pub(super) fn poll(&self) -> bool {
        let mut state = self.state();
        state.lines.take_if(|lines| lines.receiver_count() == 0);
        let mut glance = [0; GLANCE_BYTES];
        // A file that cannot be read any more gives no lines; the machine itself is not harmed.
        let Ok(count @ 1..) = state.file.read_at(&mut glance, state.offset) else { return false };
        state.take(&glance[..count]);
        if count == GLANCE_BYTES {
            let mut chunk = vec![0; CHUNK_BYTES];
            while let Ok(count @ 1..) = state.file.read_at(&mut chunk, state.offset) {
                state.take(&chunk[..count]);
            }
        }
        state.give_back();
        true
    }

    /// Takes in new output until the future is dropped, and keeps QEMU's own log short: a guest can
    /// make QEMU complain as often as it likes.
    pub(super) async fn follow(self, qemu_log: PathBuf) {
        let (mut written, mut trimmed) = (Instant::now(), Instant::now());
        loop {
            if self.poll() {
                written = Instant::now();
            }
            if trimmed.elapsed() >= TRIM_INTERVAL {
                trim(&qemu_log);
                trimmed = Instant::now();
            }
            let is_quiet = written.elapsed() >= QUIET;
            sleep(if is_quiet { QUIET_INTERVAL } else { POLL_INTERVAL }).await;
        }
    }

    /// Takes in what is there now, for who cannot wait until it is looked at again. A guest that
    /// writes without end is not followed for ever.
    fn catch_up(&self) {
        for _ in 0..CATCH_UP {
            if !self.poll() {
                return;
            }
        }
    }

    /// The last lines, oldest first, at most `lines`; empty ones are left out.
    #[must_use]
    pub fn tail(&self, lines: usize) -> Vec<String> {
        self.catch_up();
        self.state().ring.tail(lines)
    }

    /// The bytes that the guest has written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.state().offset
    }

    /// What the guest's kernel said on the console about its end, if it did. A process with the
    /// rights of root in the guest can write the same words: this names the cause of an end that was
    /// seen otherwise, and proves nothing alone.
    #[must_use]
    pub fn cause(&self) -> Option<ConsoleCause> {
        self.catch_up();
        self.state().causes.found()
    }

    /// What the guest's kernel said last about ending the machine, for one whose end nobody saw.
    pub(super) fn farewell(&self) -> Option<Farewell> {
        self.catch_up();
        self.state().causes.farewell()
    }

    /// All lines that are still known, and then each new one.
    #[must_use]
    pub fn lines(&self) -> ConsoleLines {
        let mut state = self.state();
        let new = state.lines.get_or_insert_with(|| broadcast::Sender::new(SUBSCRIBER_LINES));
        let new = new.subscribe();
        ConsoleLines { known: state.ring.complete().into_iter(), new }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held can at worst have lost a line.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, bytes: &[u8]) {
        self.offset += bytes.len() as u64;
        let Self { ring, causes, lines, .. } = self;
        ring.push(bytes, |line| {
            let line = clean::line(line);
            if !line.is_empty() {
                causes.look_at(&line);
                if let Some(lines) = lines {
                    // The last listener may have gone just now.
                    drop(lines.send(line.into()));
                }
            }
        });
    }

    fn give_back(&mut self) {
        let end = self.offset / PUNCH_BYTES * PUNCH_BYTES;
        if end > self.punched {
            punch(&self.file, self.punched, end);
            self.punched = end;
        }
    }
}

/// The lines of a console from the oldest that is still known.
#[derive(Debug)]
pub struct ConsoleLines {
    known: std::vec::IntoIter<String>,
    new: broadcast::Receiver<Arc<str>>,
}

impl ConsoleLines {
    /// The next line, as soon as there is one; `None` once the machine is gone and all was read.
    /// Who reads too slowly misses lines.
    pub async fn next(&mut self) -> Option<String> {
        if let Some(line) = self.known.next() {
            return Some(line);
        }
        loop {
            match self.new.recv().await {
                Ok(line) => return Some(line.as_ref().to_owned()),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// Gives all but the last part of a machine's console and log back to the system, for one that nobody
/// reads any more.
pub(crate) fn trim_files(paths: &MachinePaths) {
    for path in [paths.console(), paths.qemu_log()] {
        trim(&path);
    }
}

/// Gives all but the last part of a file back to the system. The directory may be that of the user
/// whom QEMU runs as, who must not lead us elsewhere by a link or stop us by a pipe.
fn trim(path: &Path) {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    if let Ok(file) = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
        && let Ok(metadata) = file.metadata()
    {
        let end = metadata.size().saturating_sub(CONSOLE_BYTES as u64);
        punch(&file, 0, end / PUNCH_BYTES * PUNCH_BYTES);
    }
}

/// Frees the memory behind a part of a file and keeps its size, so that the writer's offset stays
/// right.
fn punch(file: &File, from: u64, to: u64) {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    if let (Ok(from), Ok(to)) = (i64::try_from(from), i64::try_from(to))
        && to > from
    {
        // Best effort: without it the file is as large as what the guest wrote.
        let _unsupported = fallocate(file, flags, from, to - from).is_err();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn console() -> (tempfile::TempDir, Console, File) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let console = Console::create(&path, None).unwrap();
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        (directory, console, writer)
    }

    #[tokio::test]
    async fn lines_arrive_once_and_in_order() {
        let (_directory, console, mut writer) = console();
        writer.write_all(b"one\r\ntw").unwrap();
        console.poll();
        let mut lines = console.lines();
        writer.write_all(b"o\n\nthree\n").unwrap();
        console.poll();
        console.poll();
        assert_eq!(lines.next().await.unwrap(), "one");
        assert_eq!(lines.next().await.unwrap(), "two");
        assert_eq!(lines.next().await.unwrap(), "three");
        assert_eq!(console.tail(2), ["two", "three"]);
        assert_eq!(console.written(), 16);
        drop(console);
        assert_eq!(lines.next().await, None);
    }

    #[test]
    fn a_console_is_followed_from_where_its_content_is() {
        let (directory, console, mut writer) = console();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        for _ in 0..PUNCH_BYTES / 1024 {
            writer.write_all(&line).unwrap();
        }
        writer.write_all(b"seen\n").unwrap();
        console.poll();
        drop(console);
        writer.write_all(b"[9.0] Kernel panic - not syncing: unseen\nlast").unwrap();
        let path = directory.path().join("console.log");
        let console = Console::adopt(&path).unwrap();
        assert_eq!(
            console.tail(10).len(),
            3,
            "what was read before is gone, but for its last part"
        );
        assert_eq!(console.tail(3)[0], "seen");
        assert!(matches!(console.cause(), Some(ConsoleCause::Panic(_))));
        assert_eq!(console.written(), PUNCH_BYTES + 50);
        // Nobody has to look at the file first.
        writer.write_all(b" words\n").unwrap();
        assert_eq!(console.tail(1), ["last words"]);

        std::fs::write(&path, "").unwrap();
        assert_eq!(Console::adopt(&path).unwrap().written(), 0);
        assert!(Console::adopt(directory.path()).is_err());
        assert!(Console::adopt(&directory.path().join("none")).is_err());
    }

    #[test]
    fn a_guest_that_writes_without_end_uses_no_room() {
        let (directory, console, mut writer) = console();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        for _ in 0..8 * 1024 {
            writer.write_all(&line).unwrap();
        }
        console.poll();
        assert_eq!(console.written(), 8 << 20);
        assert!(console.tail(usize::MAX).len() <= CONSOLE_BYTES / 1024);
        let path = directory.path().join("console.log");
        let used = std::fs::metadata(&path).unwrap().blocks() * 512;
        assert!(used <= 2 * PUNCH_BYTES, "{used} bytes are still used");
    }
}
