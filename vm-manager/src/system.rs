//! The system calls that the standard library has no safe form of. The only unsafe code of this
//! crate; everything here is small and takes and gives owned values.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgid, setgroups, setsid, setuid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The user, groups and limits that a process runs with. The default is those of the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    /// The user; absent means the caller's. Changing it needs root, as do the groups.
    pub uid: Option<u32>,
    /// The group; absent means the caller's.
    pub gid: Option<u32>,
    /// The further groups; absent means the caller's, empty means none.
    pub groups: Option<Vec<u32>>,
    /// The limits on top of the caller's.
    pub limits: Limits,
}

/// Limits of a process; what is absent stays as the caller has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Open files (`RLIMIT_NOFILE`).
    pub open_files: Option<u64>,
    /// Processes of its user (`RLIMIT_NPROC`).
    pub processes: Option<u64>,
    /// The bytes of one file that it writes (`RLIMIT_FSIZE`): caps the overlay.
    pub file_bytes: Option<u64>,
}

/// Starts a process that outlives its parent: in its own session, with an empty environment, no
/// input, its output in `output`, no inherited descriptor, no core dumps (they would hold a guest's
/// memory), no way to gain privileges, and files of mode 0600 or less.
pub(crate) fn spawn_detached(
    command: &mut Command,
    output: &File,
    privileges: &Privileges,
) -> io::Result<Child> {
    let groups = privileges
        .groups
        .as_ref()
        .map(|groups| groups.iter().copied().map(Gid::from_raw).collect::<Vec<_>>());
    let (uid, gid) = (privileges.uid.map(Uid::from_raw), privileges.gid.map(Gid::from_raw));
    let limits = privileges.limits;
    let prepare = move || -> io::Result<()> {
        setsid()?;
        umask(Mode::from_bits_truncate(0o177));
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        let values = [
            (Resource::RLIMIT_NOFILE, limits.open_files),
            (Resource::RLIMIT_NPROC, limits.processes),
            (Resource::RLIMIT_FSIZE, limits.file_bytes),
        ];
        for (resource, value) in values {
            if let Some(value) = value {
                setrlimit(resource, value, value)?;
            }
        }
        // Groups first: without the user's rights they can no longer be changed.
        if let Some(groups) = &groups {
            setgroups(groups)?;
        }
        if let Some(gid) = gid {
            setgid(gid)?;
        }
        if let Some(uid) = uid {
            setuid(uid)?;
        }
        nix::sys::prctl::set_no_new_privs()?;
        close_on_exec_from(3)
    };
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?);
    #[expect(unsafe_code, reason = "a process can only shed its privileges between fork and exec")]
    // SAFETY: the closure runs in the forked child and makes system calls only. Everything that it
    // needs was allocated before, it takes no lock and its errors carry no allocation.
    unsafe {
        command.pre_exec(prepare);
    }
    command.spawn()
}

/// Starts a program of ours in its own session, without input and output.
pub(crate) fn spawn_session(command: &mut Command) -> io::Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    #[expect(unsafe_code, reason = "a session can only be made between fork and exec")]
    // SAFETY: the closure makes two system calls in the forked child, allocates nothing and takes no
    // lock.
    unsafe {
        command.pre_exec(|| {
            setsid()?;
            close_on_exec_from(3)
        });
    }
    command.spawn()
}

/// Marks all descriptors from `first` on to be closed by exec, those that we inherited as well.
fn close_on_exec_from(first: libc::c_uint) -> io::Result<()> {
    #[expect(unsafe_code, reason = "no safe form of this system call is at hand")]
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC takes three integers, touches no memory and closes
    // nothing in this process.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC as libc::c_uint,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor that stands for this process and no later one with the same number.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "no safe form of this system call is at hand")]
    // SAFETY: pidfd_open takes two integers and gives a new descriptor, closed on exec, or an error.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0 as libc::c_uint) };
    let descriptor = i32::try_from(result).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    #[expect(unsafe_code, reason = "the system call gives a bare number")]
    // SAFETY: the descriptor is new, open, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Sends KILL to the process that the descriptor stands for.
pub(crate) fn pidfd_kill(process: BorrowedFd<'_>) -> io::Result<()> {
    #[expect(unsafe_code, reason = "no safe form of this system call is at hand")]
    // SAFETY: the descriptor is open for the time of the call; a null siginfo is allowed and means
    // that of kill().
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<libc::siginfo_t>(),
            0 as libc::c_uint,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits until the descriptor is readable, which a process's descriptor is once it ended.
pub(crate) async fn readable(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    #[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
    // SAFETY: a borrowed descriptor is open and stays the same for as long as it is borrowed, which
    // is longer than the registration lives.
    let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    let registered = registered.map_err(|error| error.into_parts().1)?;
    registered.readable().await.map(drop)
}

/// Blocks until the descriptor is readable. Says
/// whether that was before the deadline.
pub(crate) fn wait_readable(descriptor: BorrowedFd<'_>, deadline: Duration) -> io::Result<bool> {
    let until = std::time::Instant::now() + deadline;
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        let milliseconds = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        let mut watched =
            libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        #[expect(unsafe_code, reason = "no safe form of this system call is at hand")]
        // SAFETY: poll gets one valid pollfd that lives through the call, and its count.
        let result = unsafe { libc::poll(&raw mut watched, 1, milliseconds) };
        match result {
            0 => return Ok(false),
            1.. => return Ok(true),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
