//! The unix socket of a service.
//!
//! ```text
//!  <directory>/solstice.sock         the socket, mode 0600
//!  <directory>/solstice.sock.lock    held with flock by the service that has it; has its process id
//! ```
//!
//! The socket is made in a private directory and moved to its place when its mode is right, so nobody
//! else can ever connect to it. What a killed service left is replaced by the same move.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::Backend;
use super::connection::serve;
use super::routes::{self, Api};

/// The longest path of a unix socket, by `sockaddr_un` of Linux without its final zero.
const PATH_BYTES: usize = 107;

/// A process id as text, with room to spare.
const PID_BYTES: u64 = 20;

/// A socket that is bound and that no other service has. It goes when this is dropped.
#[derive(Debug)]
pub struct UnixServer {
    listener: UnixListener,
    place: Place,
}

impl UnixServer {
    /// Makes the socket, and its directory with mode 0700 where there is none. To be called inside a
    /// runtime.
    ///
    /// # Errors
    /// Another service has it, and the text says which process; something else than a socket lies
    /// there; or it cannot be made.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let described = |error: io::Error| {
            let text = format!("cannot make the socket {}: {error}", path.display());
            io::Error::new(error.kind(), text)
        };
        Self::try_bind(path).map_err(described)
    }

    fn try_bind(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_bytes().len() > PATH_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a path of a socket has at most {PATH_BYTES} bytes; choose a shorter one"),
            ));
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let lock = Lock::take(path)?;
        refuse_foreign(path)?;
        let private = PrivateDirectory::make(directory)?;
        let new = private.0.join("s");
        let listener = UnixListener::bind(&new)?;
        fs::set_permissions(&new, Permissions::from_mode(0o600))?;
        fs::rename(&new, path)?;
        Ok(Self { listener, place: Place { lock, path: path.to_path_buf() } })
    }

    /// Answers until `stop`, then removes the socket.
    pub async fn serve<B: Backend>(self, backend: Arc<B>, stop: CancellationToken) {
        let Self { listener, place } = self;
        let router = routes::all(Api { backend, stop: stop.clone() });
        serve(listener, router, None, stop).await;
        drop(place);
    }
}

/// The socket in its place, gone when dropped.
#[derive(Debug)]
struct Place {
    lock: Lock,
    path: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Somebody who removed the lock's file by hand may have let another service in.
        if self.lock.is_in_place() {
            remove(&self.path);
        }
    }
}

/// The right to the socket, given back when dropped.
#[derive(Debug)]
struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    fn take(socket: &Path) -> io::Result<Self> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let mut file = options.open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(held(&pid_in(&mut file))),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let lock = Self { file, path: path.clone() };
            // Its owner removes the file before it gives the lock back.
            if lock.is_in_place() {
                lock.file.set_len(0)?;
                (&lock.file).write_all(std::process::id().to_string().as_bytes())?;
                return Ok(lock);
            }
        }
    }

    /// Whether the file is still under its name.
    fn is_in_place(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.is_in_place() {
            remove(&self.path);
        }
    }
}

fn pid_in(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(PID_BYTES).read_to_string(&mut text) {
        Ok(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => text,
        // It is between taking the lock and writing its id.
        _ => String::new(),
    }
}

fn held(pid: &str) -> io::Error {
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let who = match (pid, command.trim()) {
        ("", _) => "another process".to_owned(),
        (pid, "") => format!("process {pid}"),
        (pid, command) => format!("process {pid} ({command})"),
    };
    let text = format!("{who} answers there; end it first, or choose another socket");
    io::Error::new(io::ErrorKind::AddrInUse, text)
}

/// Refuses to replace what is no socket, or one on which somebody answers who holds no lock.
fn refuse_foreign(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let text = "something else lies there already; remove it or choose another place";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(stream) => Err(held(&peer(stream).map(|pid| pid.to_string()).unwrap_or_default())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // A full queue of connections: somebody is there.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(held("")),
        Err(error) => Err(error),
    }
}

/// The process at the other end.
fn peer(stream: UnixStream) -> Option<i32> {
    stream.set_nonblocking(true).ok()?;
    tokio::net::UnixStream::from_std(stream).ok()?.peer_cred().ok()?.pid()
}

/// A directory that nobody else can enter, gone when dropped. Its path is short, because that of a
/// socket must be.
#[derive(Debug)]
struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    fn make(parent: &Path) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!(".{:x}.{count:x}", std::process::id()));
        // A killed process may have had the same id.
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "cannot remove a directory");
        }
    }
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "cannot remove a file");
        }
        _ => {}
    }
}
