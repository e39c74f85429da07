//! The directory of the daemon, which one process has at a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Why the directory cannot be used.
pub(crate) enum Refused {
    /// Another process has it.
    Busy,
    /// The system refuses it.
    Io(io::Error),
}

/// Makes the directory and the files in it, for nobody else to read, and takes its lock.
pub(crate) fn open(directory: &Path) -> Result<Flock<File>, Refused> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(Refused::Io)?;
    let file = |name: &str| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(directory.join(name)).map_err(Refused::Io)
    };
    drop(file("journal.db")?);
    Flock::lock(file("lock")?, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => Refused::Busy,
        error => Refused::Io(error.into()),
    })
}
