//! `workflow-runner attach`: carries bytes between a host and a job's daemon.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use common::JobId;

use super::GuestError;
use super::connection::refusal;
use super::run_directory::RunDirectory;

/// The bytes that are carried at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// How long the daemon may take to close a connection whose host is gone.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// The bytes of a daemon's last words that are shown.
const LAST_WORDS_BYTES: u64 = 1024;

/// Copies the standard input to the daemon of `job`, and what the daemon sends to the standard
/// output, until either side is gone.
///
/// # Errors
/// There is no daemon that answers, or the standard streams cannot be used. What happens on the
/// connection later is no error: the host knows what it has got.
pub fn attach(base: &Path, job: JobId) -> Result<(), GuestError> {
    let mut socket = UnixStream::connect(RunDirectory::socket_of(base, job))
        .map_err(|error| no_daemon(base, job, &error))?;
    let mut input = unbuffered(io::stdin().as_fd())?;
    let mut output = unbuffered(io::stdout().as_fd())?;
    let mut to_daemon = socket.try_clone().map_err(GuestError::io("use", "the socket"))?;
    // Not joined: it may wait for a host that says nothing more, and ends with the process.
    thread::spawn(move || {
        pump(&mut input, &mut to_daemon);
        // The daemon closes its side when the host's is closed. One that hangs is not waited for.
        drop(to_daemon.shutdown(Shutdown::Write));
        thread::sleep(CLOSE_DEADLINE);
        drop(to_daemon.shutdown(Shutdown::Both));
    });
    pump(&mut socket, &mut output);
    Ok(())
}

/// Tells the host, as a frame, why there is nothing to attach to.
///
/// # Errors
/// The output cannot be written.
pub fn refuse(mut output: impl Write, error: &GuestError) -> io::Result<()> {
    output.write_all(&refusal(error.to_string()))?;
    output.flush()
}

/// Copies until the end of `from`, or until `to` takes no more.
fn pump(from: &mut impl Read, to: &mut impl Write) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(bytes) => {
                if to.write_all(&buffer[..bytes]).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// A standard stream without the buffer and lock of the standard library.
fn unbuffered(stream: impl AsFd) -> Result<File, GuestError> {
    let copy = stream.as_fd().try_clone_to_owned();
    copy.map(File::from).map_err(GuestError::io("use", "a standard stream"))
}

/// Says what is known about a daemon that does not answer.
fn no_daemon(base: &Path, job: JobId, error: &io::Error) -> GuestError {
    let mut words = String::new();
    if let Ok(file) = File::open(RunDirectory::last_words_of(base, job)) {
        drop(file.take(LAST_WORDS_BYTES).read_to_string(&mut words));
    }
    let why = if !words.trim().is_empty() {
        format!("it broke: {}", words.trim())
    } else if fs::symlink_metadata(RunDirectory::path_of(base, job)).is_err() {
        "it has ended or was never started".to_owned()
    } else {
        error.to_string()
    };
    GuestError::NoDaemon { job, why }
}
