//! The small interface through which the engine reaches the world.
//!
//! The engine itself opens no file, starts no process and reads no clock: it asks a [`System`].
//! Given that interface and tokio's clock it is deterministic.
//! [`Local`] is this machine, used inside a guest and, for tests, on the host. Paths are text,
//! because the system at the other end need not be this one.
//!
//! Nothing here knows steps, workflows or forges.

mod below;
mod files;
mod glob;
mod hash;
mod local;
mod pack;
pub(crate) mod pressure;
mod process;
mod tree;
mod users;
mod walk;
mod wanted;
mod zip;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use common::Timestamp;
use common::size::ByteSize;
use tokio::io::AsyncRead;

pub(crate) use glob::names_match;
pub use local::Local;
pub(crate) use pack::{BASE, ROOT};
pub(crate) use wanted::while_wanted;
pub use zip::ZipWish;

/// The future of an operation of a [`System`].
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A machine on which a job can run.
///
/// All paths are absolute. Every operation that reads is bounded by an argument.
pub trait System: Send + Sync {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// What is known of the machine and of the user `run_as`, or of the user of this program.
    ///
    /// Fails when there is no such user, or when this program may not become that user.
    fn facts<'a>(&'a self, run_as: Option<&'a str>) -> Pending<'a, Result<Facts, SystemError>>;

    /// Starts a process in a process group of its own, with an empty standard input.
    fn start(&self, command: Command) -> Pending<'_, Result<Process, SystemError>>;

    /// What is at a path, following symbolic links; `None` when nothing is there.
    fn kind<'a>(&'a self, path: &'a str) -> Pending<'a, Result<Option<Kind>, SystemError>>;

    /// Reads a regular file; a symbolic link as the last part of the path is refused.
    ///
    /// Fails with [`io::ErrorKind::FileTooLarge`] when it has more than `limit` bytes.
    fn read<'a>(&'a self, path: &'a str, limit: u64) -> Pending<'a, Result<Vec<u8>, SystemError>>;

    /// Makes a file that must not exist yet.
    fn create_file<'a>(
        &'a self,
        path: &'a str,
        contents: &'a [u8],
        mode: u32,
        owner: Owner,
    ) -> Pending<'a, Result<(), SystemError>>;

    /// Makes a directory with its parents; those that are made belong to `owner`. It is no error
    /// when it exists.
    fn create_directory<'a>(
        &'a self,
        path: &'a str,
        owner: Owner,
    ) -> Pending<'a, Result<(), SystemError>>;

    /// Removes a file, or a directory with all that is in it. It is no error when nothing is there.
    fn remove<'a>(&'a self, path: &'a str) -> Pending<'a, Result<(), SystemError>>;

    /// The names in a directory in the order of their bytes.
    ///
    /// Fails with [`io::ErrorKind::FileTooLarge`] when there are more than `limit`.
    fn list<'a>(
        &'a self,
        path: &'a str,
        limit: usize,
    ) -> Pending<'a, Result<Vec<String>, SystemError>>;

    /// The room on the file system of a path, following symbolic links, for files of `owner`.
    fn room<'a>(&'a self, path: &'a str, owner: Owner) -> Pending<'a, Result<Room, SystemError>>;

    /// Places what is in the directory `from` in the directory `to`, over files that are there.
    fn place_tree<'a>(
        &'a self,
        from: &'a str,
        to: &'a str,
        how: Placement,
        owner: Owner,
    ) -> Pending<'a, Result<(), SystemError>>;

    /// The absolute path of a program: `name` itself when it contains a slash, else the first
    /// executable file of that name in the directories of `search_path` (separated by `:`).
    fn find_program<'a>(
        &'a self,
        name: &'a str,
        search_path: &'a str,
    ) -> Pending<'a, Option<String>>;

    /// The answer of `hashFiles` for patterns in the directory `root`, empty when no file matches
    /// (github-runner-protocol 5.8).
    ///
    /// Fails with [`io::ErrorKind::TimedOut`] after `limit`.
    fn hash_files<'a>(
        &'a self,
        root: &'a str,
        patterns: &'a [String],
        limit: Duration,
    ) -> Pending<'a, Result<String, SystemError>>;

    /// Packs what patterns include (those of `hashFiles`, but absolute ones) into an archive for
    /// [`System::unpack`]. Links are kept as links.
    fn pack(&self, base: &str, patterns: &[String]) -> Packing;

    /// Packs files into a zip archive for [`System::unzip`]; nothing is known of how many there are
    /// before it was read.
    fn zip(&self, wish: ZipWish) -> Packing;

    /// Finds the files of which such an archive is made.
    fn find(&self, wish: ZipWish) -> Pending<'_, Result<Vec<Found>, SystemError>>;

    /// Opens a regular file, following symbolic links.
    fn open<'a>(&'a self, path: &'a Path) -> Pending<'a, Result<Opened, SystemError>>;

    /// Writes a file below a directory, with those on the way. A file that is there is replaced; a
    /// name that would lead elsewhere is refused. Gives the bytes that were written.
    ///
    /// Fails with the operation [`RECEIVE`] when what comes breaks off or is not what it should be.
    fn store<'a>(
        &'a self,
        contents: Box<dyn AsyncRead + Send + Unpin>,
        place: StorePlace,
    ) -> Pending<'a, Result<u64, SystemError>>;

    /// Unpacks a zip archive below a directory, which is made. It is kept in the file `temporary`
    /// meanwhile. Gives what was in it.
    fn unzip<'a>(
        &'a self,
        archive: Box<dyn AsyncRead + Send + Unpin>,
        temporary: &'a str,
        to: &'a str,
        owner: Owner,
    ) -> Pending<'a, Result<Packed, SystemError>>;

    /// Places the files of an archive of [`System::pack`] where they were: what lay below `base` then lies below this
    /// `base` now. Files that are there are replaced, and everything belongs to `owner`.
    fn unpack<'a>(
        &'a self,
        archive: Box<dyn AsyncRead + Send + Unpin>,
        base: &'a str,
        owner: Owner,
    ) -> Pending<'a, Result<(), SystemError>>;
}

/// An archive that is being made.
pub struct Packing {
    /// It, as it is made. Its end may be that of what could be made of it.
    pub archive: Box<dyn AsyncRead + Send + Unpin>,
    /// Whether it is whole, and what is in it, once it was read.
    pub result: Pending<'static, Result<Packed, SystemError>>,
}

/// The operation of reading what comes from elsewhere.
pub const RECEIVE: &str = "receive";

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// How it is called in an archive: its path below the archive's root.
    pub name: String,
}

/// A file that is read.
pub struct Opened {
    /// Its bytes.
    pub contents: Box<dyn AsyncRead + Send + Unpin>,
    /// How many there were when it was opened.
    pub bytes: u64,
}

/// Where a file goes, and how it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorePlace {
    /// The directory, which is made.
    pub directory: String,
    /// The path below it.
    pub name: String,
    /// To whom it belongs.
    pub owner: Owner,
    /// Whether what comes is packed by gzip, and the file is what it unpacks to.
    pub is_gzip: bool,
}

/// What is in an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Files and links.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// An operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {subject}: {source}")]
pub struct SystemError {
    /// What was tried, such as "read".
    pub operation: &'static str,
    /// On what.
    pub subject: String,
    /// Why it failed.
    pub source: io::Error,
}

impl SystemError {
    /// Describes a failed operation.
    pub fn new(operation: &'static str, subject: impl Into<String>, source: io::Error) -> Self {
        Self { operation, subject: subject.into(), source }
    }

    /// The kind of the cause.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// Whether a file system had no room.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        is_full(&self.source)
    }
}

/// Whether a file system had no room, or the user's share of it is used up.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What is known of a machine and of the user that the steps run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The operating system as `runner.os` writes it: Linux, FreeBSD, NetBSD, OpenBSD, illumos.
    pub os: String,
    /// The processor as `runner.arch` writes it: X64, X86, ARM64, ARM.
    pub arch: String,
    /// The user's name.
    pub user: String,
    /// The user's home directory.
    pub home: String,
    /// The user's numbers.
    pub owner: Owner,
    /// Who a process must become to be that user; absent when this program is that user.
    pub identity: Option<Identity>,
    /// The directories in which programs are looked for, separated by `:`.
    pub search_path: String,
    /// The locale of a process that is told nothing else: the value of `LANG`.
    pub language: String,
}

impl Facts {
    /// Whether the steps run as root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.owner.uid == 0
    }
}

/// To whom a file belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}

/// Whom a process becomes before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User and primary group.
    pub owner: Owner,
    /// All groups.
    pub groups: Vec<u32>,
}

/// A process to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The absolute path of the program.
    pub program: String,
    /// Its arguments, without its own name.
    pub arguments: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub environment: Vec<(String, String)>,
    /// The working directory.
    pub directory: String,
    /// Whom it becomes.
    pub identity: Option<Identity>,
}

/// A process that runs.
pub struct Process {
    /// What it writes to standard output.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// What it writes to standard error.
    pub stderr: Box<dyn AsyncRead + Send + Unpin>,
    /// The way to end it and to learn that it ended.
    pub control: Box<dyn Control>,
}

/// The way to end a process group and to learn that its first process ended.
///
/// Dropping it before the process ended kills the group.
pub trait Control: Send + Sync {
    /// Waits until the process itself has ended; others of its group may live on.
    ///
    /// May be dropped and called again without losing anything.
    fn wait(&mut self) -> Pending<'_, Result<Exit, SystemError>>;

    /// Sends a signal to the group. It is no error when nobody is left in it.
    fn signal(&self, signal: Signal);

    /// Whether a process of the group is left, counting an ended first process as gone only after
    /// [`Control::wait`] returned.
    fn is_alive(&self) -> bool;
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this exit code.
    Code(i32),
    /// By the signal of this number.
    Signal(i32),
}

/// The signals that end processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT, what Ctrl-C sends.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGKILL, which cannot be refused.
    Kill,
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Something else, such as a socket.
    Other,
}

/// The room on a file system for one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// How large it is; 0 where it stores nothing.
    pub size: ByteSize,
    /// What that user may still write.
    pub free: ByteSize,
    /// How many files there can be; 0 where that is not limited.
    pub files: u64,
    /// How many more that user may make.
    pub files_free: u64,
}

/// How a tree is placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// It stays where it was as well.
    Copy,
    /// It may be moved, which costs nothing on one file system.
    Move,
}
