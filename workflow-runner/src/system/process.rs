//! Processes of this machine, each in a process group of its own.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Stdio;

use nix::errno::Errno;
use nix::sys::signal;
use nix::unistd::{Gid, Pid, Uid, setgid, setgroups, setuid};
use tokio::process::Child;

use super::{Command, Control, Exit, Identity, Pending, Process, Signal, SystemError, pressure};

/// Starts a process; see [`super::System::start`].
pub(super) fn start(command: &Command) -> Result<Process, SystemError> {
    let failed = |source| SystemError::new("start", command.program.clone(), source);
    let mut builder = std::process::Command::new(&command.program);
    builder
        .args(&command.arguments)
        .env_clear()
        .envs(command.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&command.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    heed_signals(&mut builder);
    if let Some(identity) = command.identity.clone() {
        become_before_exec(&mut builder, identity);
    }
    let spawn = || tokio::process::Command::from(builder).spawn();
    let mut child = pressure::without_protection(spawn).map_err(failed)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let (Some(stdout), Some(stderr), Some(group)) =
        (child.stdout.take(), child.stderr.take(), group)
    else {
        return Err(failed(io::Error::other("it has no streams or no number")));
    };
    let control = LocalControl { child, group, ended: false };
    Ok(Process { stdout: Box::new(stdout), stderr: Box::new(stderr), control: Box::new(control) })
}

/// Lets the child ignore no signal. It would inherit what whoever started this program ignores, such
/// as the HUP of nohup, and a step could not be ended by it.
#[expect(unsafe_code, reason = "std cannot set the signals of a child on stable Rust")]
fn heed_signals(builder: &mut std::process::Command) {
    // SAFETY: between fork and exec only sigaction is called, which may be called there.
    unsafe {
        builder.pre_exec(|| {
            for signal in signal::Signal::iterator() {
                // KILL and STOP refuse it; nobody can ignore them.
                let _ = signal::signal(signal, signal::SigHandler::SigDfl);
            }
            Ok(())
        });
    }
}

/// Makes the child another user, with that user's groups.
#[expect(unsafe_code, reason = "std cannot set supplementary groups of a child on stable Rust")]
fn become_before_exec(builder: &mut std::process::Command, identity: Identity) {
    let uid = Uid::from_raw(identity.owner.uid);
    let gid = Gid::from_raw(identity.owner.gid);
    let groups: Vec<Gid> = identity.groups.into_iter().map(Gid::from_raw).collect();
    // SAFETY: between fork and exec only setgroups, setgid and setuid are called, which are plain
    // system calls here: no allocation, no lock, no other thread's state.
    unsafe {
        builder.pre_exec(move || {
            setgroups(&groups)?;
            setgid(gid)?;
            setuid(uid)?;
            Ok(())
        });
    }
}

struct LocalControl {
    child: Child,
    /// The number of the group, which is that of its first process.
    group: Pid,
    ended: bool,
}

impl Control for LocalControl {
    fn wait(&mut self) -> Pending<'_, Result<Exit, SystemError>> {
        Box::pin(async {
            let status = self.child.wait().await.map_err(|source| {
                SystemError::new("wait for", format!("process {}", self.group), source)
            })?;
            self.ended = true;
            Ok(match (status.code(), status.signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Code(-1),
            })
        })
    }

    fn signal(&self, signal: Signal) {
        let signal = match signal {
            Signal::Interrupt => signal::Signal::SIGINT,
            Signal::Terminate => signal::Signal::SIGTERM,
            Signal::Kill => signal::Signal::SIGKILL,
        };
        // ESRCH: the group is empty, which is what the caller wants. EPERM: what is left of the
        // group became another user; nothing more can be done from here.
        let _ = signal::killpg(self.group, signal);
    }

    fn is_alive(&self) -> bool {
        signal::killpg(self.group, None) != Err(Errno::ESRCH)
    }
}

impl Drop for LocalControl {
    fn drop(&mut self) {
        // A process that was never waited for would outlive the job that it belongs to.
        if !self.ended {
            self.signal(Signal::Kill);
        }
    }
}
