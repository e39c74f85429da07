//! A short command whose output fits into memory.

use tokio::io::AsyncWriteExt;

use super::{ExitStatus, Output, Session, SshError};

/// Bytes of each output stream that [`Guest::run`](super::Guest::run) keeps.
pub(super) const KEPT_OUTPUT: usize = 1024 * 1024;

/// What a command gave that ran to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// How it ended.
    pub status: ExitStatus,
    /// The first 1 MiB of its standard output.
    pub stdout: Vec<u8>,
    /// The first 1 MiB of its standard error.
    pub stderr: Vec<u8>,
    /// Whether either stream was longer than that.
    pub truncated: bool,
}

impl Completed {
    /// Whether the command ended with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// How it ended and the last line that it wrote to standard error, for a message.
    #[must_use]
    pub fn complaint(&self) -> String {
        complaint(&self.status, &self.stderr)
    }
}

/// `status` with the last line of `stderr`, short and without control characters.
pub(super) fn complaint(status: &ExitStatus, stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let said: String = last.chars().filter(|c| !c.is_control()).take(300).collect();
    if said.is_empty() { status.to_string() } else { format!("{status}: {}", said.trim()) }
}

/// Feeds a command and collects what it gives until it ends.
pub(super) async fn collect(session: Session, input: &[u8]) -> Result<Completed, SshError> {
    let Session { mut stdin, mut output } = session;
    let feed = async {
        // A command may end without reading its input; how it ended says whether that is right.
        if stdin.write_all(input).await.is_ok() {
            drop(stdin.shutdown().await);
        }
    };
    let read = async {
        let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
        let mut status = None;
        while let Some(piece) = output.next().await? {
            match piece {
                Output::Stdout(bytes) => stdout.push(&bytes),
                Output::Stderr(bytes) => stderr.push(&bytes),
                Output::Exit(end) => status = Some(end),
            }
        }
        let status = status.ok_or_else(|| {
            SshError::Protocol("it ended a command without its exit status".to_owned())
        })?;
        Ok(Completed {
            status,
            truncated: stdout.truncated || stderr.truncated,
            stdout: stdout.bytes,
            stderr: stderr.bytes,
        })
    };
    let ((), completed) = tokio::join!(feed, read);
    completed
}

/// The beginning of a stream.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    truncated: bool,
}

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        let room = KEPT_OUTPUT - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.truncated |= bytes.len() > room;
    }
}
