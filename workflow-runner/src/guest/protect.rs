//! What a daemon does so that it outlives the connection that started it, and a full memory.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::panic;
use std::path::PathBuf;

/// How much less likely than others the kernel kills the daemon when memory runs out. Not the
/// lowest value: a daemon that leaks is still a candidate before the kernel gives up.
const OOM_SCORE: &str = "-900";

/// Lets go of the session, terminal and directory of whoever started this process.
pub(super) fn leave_session() {
    // Fails only in a process that leads a session or group already, which is as good.
    let _ = nix::unistd::setsid();
    drop(std::env::set_current_dir("/"));
}

/// Points the standard streams to nowhere, so that the connection that started the daemon can end.
pub(super) fn close_standard_streams() -> io::Result<()> {
    let nowhere = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&nowhere)?;
    nix::unistd::dup2_stdout(&nowhere)?;
    nix::unistd::dup2_stderr(&nowhere)?;
    Ok(())
}

/// Asks the kernel to kill others first when memory runs out, where it can be asked. Children
/// inherit this, so whoever starts one for a step calls [`expose_child`].
pub(super) fn protect_from_memory_pressure() {
    drop(fs::write("/proc/self/oom_score_adj", OOM_SCORE));
}

/// Keeps the message of a panic in a file, because the standard error output is closed. The file
/// goes with the run directory.
pub(super) fn keep_last_words(path: PathBuf) {
    panic::set_hook(Box::new(move |info| {
        use std::io::Write;
        if let Ok(mut file) = File::create(&path) {
            drop(writeln!(file, "{info}"));
        }
    }));
}
