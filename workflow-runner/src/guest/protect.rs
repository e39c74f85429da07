//! What a daemon does so that it outlives the connection that started it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::panic;
use std::path::PathBuf;

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

/// Keeps the message of a panic in a file, because the standard error output is closed. The file
/// goes with the run directory.
pub(super) fn keep_last_words(path: PathBuf) {
    panic::set_hook(Box::new(move |info| {
        if let Ok(mut file) = File::create(&path) {
            drop(writeln!(file, "{info}"));
        }
    }));
}
