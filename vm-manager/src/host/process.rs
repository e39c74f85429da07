//! Processes, recognised by more than their number.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use serde::{Deserialize, Serialize};

use super::MachineName;
use crate::system::{pidfd_kill, pidfd_open, readable, wait_readable};

/// A process id with the time at which that process started, in clock ticks since the host's boot:
/// a number that was given to another process meanwhile has another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    pub(crate) pid: i32,
    pub(crate) start: u64,
}

impl ProcessIdentity {
    /// The identity of a running process; `None` if there is none or it has ended and is only not
    /// yet collected by its parent.
    pub(crate) fn of(pid: i32) -> io::Result<Option<Self>> {
        match fs::read(format!("/proc/{pid}/stat")) {
            Ok(stat) => Ok(parse_stat(&stat).map(|start| Self { pid, start })),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Reading a process's files fails in two ways when it ends.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

/// The start time in `/proc/PID/stat` (proc(5), field 22), unless the state is that of an ended
/// process. The second field is a name in parentheses that may itself hold anything.
fn parse_stat(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// One QEMU process with a name of ours, as seen in `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) identity: ProcessIdentity,
    pub(crate) name: MachineName,
}

/// All QEMU processes on this host with a name of ours. Processes that end meanwhile or that we may
/// not look at are left out.
pub(crate) fn sightings() -> io::Result<Vec<Sighting>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(Some(before)) = ProcessIdentity::of(pid) else { continue };
        let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        let Some(name) = parse_command_line(&arguments) else { continue };
        // The number may have passed to another process between the two looks.
        if let Ok(Some(after)) = ProcessIdentity::of(pid)
            && before == after
        {
            found.push(Sighting { identity: after, name });
        }
    }
    Ok(found)
}

/// The name in the command line of a QEMU process. Tracers and shells that have the same words among
/// their arguments are told apart by the program's own name.
fn parse_command_line(arguments: &[u8]) -> Option<MachineName> {
    let mut words = arguments.split(|byte| *byte == 0);
    let program = Path::new(std::ffi::OsStr::from_bytes(words.next()?)).file_name()?;
    if !program.as_bytes().starts_with(b"qemu") {
        return None;
    }
    words.find(|word| *word == b"-name")?;
    let value = std::str::from_utf8(words.next()?).ok()?;
    value.split(',').next()?.parse().ok()
}

/// A process that we hold on to: no other can take its place.
#[derive(Debug)]
pub(crate) struct Process {
    identity: ProcessIdentity,
    descriptor: OwnedFd,
}

impl Process {
    /// Holds on to this very process; `None` if it has ended.
    pub(crate) fn open(identity: ProcessIdentity) -> io::Result<Option<Self>> {
        let descriptor = match pidfd_open(identity.pid) {
            Ok(descriptor) => descriptor,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        // The descriptor stands for whoever has the number now; the start time says who that is.
        if ProcessIdentity::of(identity.pid)? != Some(identity) {
            return Ok(None);
        }
        Ok(Some(Self { identity, descriptor }))
    }

    /// The name of the machine whose QEMU this is; `None` if it is another program or has ended.
    pub(crate) fn machine_name(&self) -> io::Result<Option<MachineName>> {
        match fs::read(format!("/proc/{}/cmdline", self.identity.pid)) {
            // Another process with this number since then would have another start time.
            Ok(arguments) if ProcessIdentity::of(self.identity.pid)? == Some(self.identity) => {
                Ok(parse_command_line(&arguments))
            }
            Ok(_) => Ok(None),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A second hold on the same process, whether it has ended or not.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { identity: self.identity, descriptor: self.descriptor.try_clone()? })
    }

    pub(crate) fn identity(&self) -> ProcessIdentity {
        self.identity
    }

    /// A hold on a process that does not end whatever is done to it. The descriptor is that of no
    /// process, so that a signal fails and nothing ever comes from it.
    #[cfg(test)]
    pub(crate) fn stuck(identity: ProcessIdentity) -> Self {
        let descriptor = std::os::unix::net::UnixDatagram::unbound().unwrap().into();
        Self { identity, descriptor }
    }

    /// Ends it at once. A process that has ended already is no error.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match pidfd_kill(self.descriptor.as_fd()) {
            Err(error) if !is_gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Blocks until it has ended; says whether that was before the deadline.
    pub(crate) fn wait(&self, deadline: Duration) -> io::Result<bool> {
        wait_readable(self.descriptor.as_fd(), deadline)
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        readable(self.descriptor.as_fd()).await
    }

    /// Collects an ended child, so that no zombie stays, and says in words how it ended. `None` if
    /// it still runs or is nobody's child here.
    pub(crate) fn collect(&self) -> Option<String> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        match waitid(Id::PIDFd(self.descriptor.as_fd()), flags) {
            Ok(WaitStatus::Exited(_, code)) => Some(format!("exited with status {code}")),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(format!("was ended by {signal}")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use common::ids::{InstanceId, VmId};

    use super::*;

    #[test]
    fn start_times_from_proc() {
        let line = "7 (a) b) (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 8675309 99 11 12\n";
        assert_eq!(parse_stat(line.as_bytes()), Some(8_675_309));
        assert_eq!(
            parse_stat(line.replace(" S ", " Z ").as_bytes()),
            None,
            "a zombie is no process"
        );
        for garbage in ["", "7", "7 (a", "7 (a) S 1 2", "7 (a) S \u{fffd}"] {
            assert_eq!(parse_stat(garbage.as_bytes()), None, "{garbage}");
        }
        let me = ProcessIdentity::of(std::process::id().cast_signed()).unwrap();
        assert!(me.is_some_and(|me| me.start > 0));
    }

    #[test]
    fn machines_are_known_by_their_command_line() {
        let name = MachineName { instance: InstanceId::new(), vm: VmId::new() };
        let check = |line: &str, expected: bool| {
            let found = parse_command_line(line.replace(' ', "\0").as_bytes());
            assert_eq!(found, expected.then_some(name), "{line}");
        };
        check(&format!("/usr/bin/qemu-system-x86_64 -m 1 -name {name} -smp 1"), true);
        check(&format!("qemu-system-x86_64 -name {name},debug-threads=on"), true);
        check(&format!("strace qemu-system-x86_64 -name {name}"), false);
        check(&format!("qemu-system-x86_64 -append {name}"), false);
        check("qemu-system-x86_64 -name", false);
        check("qemu-system-x86_64 -name other", false);
        check("", false);
    }

    #[test]
    fn a_process_is_held_killed_and_collected() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let identity = ProcessIdentity::of(child.id().cast_signed()).unwrap().unwrap();
        let process = Process::open(identity).unwrap().unwrap();
        assert_eq!(process.collect(), None);
        assert!(!process.wait(Duration::ZERO).unwrap());
        let other = ProcessIdentity { start: identity.start + 1, ..identity };
        assert!(Process::open(other).unwrap().is_none(), "another start, another process");
        process.kill().unwrap();
        assert!(process.wait(Duration::from_secs(10)).unwrap());
        assert_eq!(ProcessIdentity::of(identity.pid).unwrap(), None, "a zombie is no process");
        assert_eq!(process.collect().as_deref(), Some("was ended by SIGKILL"));
        process.kill().unwrap();
        assert!(Process::open(identity).unwrap().is_none());
        assert!(child.wait().is_err(), "it was collected");
    }
}
