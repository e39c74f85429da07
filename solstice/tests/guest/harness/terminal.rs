//! A user's terminal: a real pseudoterminal, which a test reads only when it wants to.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};

use super::{LOOK, PATIENCE, Story};

/// How long a terminal must be silent to be taken for blocked.
const SILENCE: Duration = Duration::from_secs(1);

/// A program that runs on a terminal of its own, as its controlling terminal.
pub(crate) struct Terminal {
    /// Where it runs.
    pub(crate) story: Story,
    child: Child,
    keys: PtyMaster,
    path: PathBuf,
    text: String,
}

impl Terminal {
    /// Runs the program with these arguments on a terminal with so many columns and rows.
    pub(crate) fn run(story: Story, arguments: &[&str], (columns, rows): (u16, u16)) -> Self {
        let keys = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let path = PathBuf::from(ptsname_r(&keys).unwrap());
        let open = || {
            let flags = OFlag::O_NOCTTY.bits();
            OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path).unwrap()
        };
        let screen = open();
        // A session of its own, in the same process.
        let story = story.through(&["setsid", "--ctty", "--wait"]);
        let mut command = story.command(arguments);
        command.env("TERM", "vt100").stdin(open()).stdout(open()).stderr(open());
        stty(&path, &["cols", &columns.to_string(), "rows", &rows.to_string()]);
        let child = command.spawn().unwrap();
        drop(screen);
        Self { story, child, keys, path, text: String::new() }
    }

    /// Types this.
    pub(crate) fn keys(&mut self, keys: &str) -> &mut Self {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self
    }

    /// Gives the window another size.
    pub(crate) fn resize(&mut self, columns: u16, rows: u16) -> &mut Self {
        stty(&self.path, &["cols", &columns.to_string(), "rows", &rows.to_string()]);
        self
    }

    /// Reads until the terminal has shown this after everything that was waited for before.
    pub(crate) fn wait_for(&mut self, text: &str) -> &mut Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.text.find(text) {
                self.text.drain(..at + text.len());
                return self;
            }
            assert!(Instant::now() < deadline, "no {text:?} in {PATIENCE:?} after:\n{}", self.text);
            if !self.read(LOOK) {
                let status = self.child.try_wait().unwrap();
                assert!(status.is_none(), "it ended without {text:?} after:\n{}", self.text);
            }
        }
    }

    /// Reads until nothing more comes for a moment, and says what has come since the last wait.
    pub(crate) fn shown(&mut self) -> &str {
        while self.read(SILENCE) {}
        &self.text
    }

    /// Waits without reading until this holds.
    pub(crate) fn unread_until(&mut self, what: &str, holds: impl Fn(&Story) -> bool) -> &mut Self {
        let deadline = Instant::now() + PATIENCE;
        while !holds(&self.story) {
            assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended with {ended:?} before {what}");
            std::thread::park_timeout(LOOK);
        }
        self
    }

    /// Waits without reading until the program ends, and says its exit code.
    pub(crate) fn unread_end(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "no end in {PATIENCE:?}");
            std::thread::park_timeout(LOOK);
        }
    }

    /// Reads until the program ends; its exit code, and what came since the last wait.
    pub(crate) fn end(&mut self) -> (i32, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let more = self.read(LOOK);
            if !more && let Some(status) = self.child.try_wait().unwrap() {
                while self.read(Duration::ZERO) {}
                return (status.code().unwrap_or(-1), std::mem::take(&mut self.text));
            }
            assert!(Instant::now() < deadline, "no end in {PATIENCE:?} after:\n{}", self.text);
        }
    }

    /// The settings of the terminal, as `stty -a` has them.
    pub(crate) fn settings(&self) -> String {
        stty(&self.path, &["-a"])
    }

    /// Reads what is there or comes in time; says whether anything was.
    fn read(&mut self, wait: Duration) -> bool {
        let mut streams = [PollFd::new(self.keys.as_fd(), PollFlags::POLLIN)];
        let wait = PollTimeout::try_from(wait).unwrap();
        if poll(&mut streams, wait).unwrap() == 0 {
            return false;
        }
        let mut buffer = [0; 64 * 1024];
        // A terminal that nobody has open any more cannot be read.
        let Ok(length) = self.keys.read(&mut buffer) else {
            std::thread::park_timeout(LOOK);
            return false;
        };
        self.text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        length > 0
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.child.kill());
        }
        drop(self.child.wait());
    }
}

fn stty(path: &std::path::Path, arguments: &[&str]) -> String {
    let done = Command::new("stty").arg("-F").arg(path).args(arguments).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}
