//! Runs a helper program for an image: with a deadline, its output bounded, and its whole process
//! group ended if the caller goes away.

use std::collections::VecDeque;
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::error::ImageError;

/// Lines of a helper's output that are kept for an error message.
const KEPT_LINES: usize = 30;
/// The longest line that is kept; the rest of a longer one is a line of its own.
const LINE_BYTES: u64 = 4096;
/// The time that a helper has to tidy up when it is told to end.
const END_GRACE: Duration = Duration::from_secs(10);
/// How often the caller's check runs.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Where the tools of the system are, such as `mke2fs`, that Debian leaves out of an ordinary user's
/// `PATH`.
const SYSTEM_TOOLS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The `PATH` of the programs that build images: this process's own, with the directories of system
/// tools at its end.
#[must_use]
pub fn helper_path() -> OsString {
    with_system_tools(env::var_os("PATH").unwrap_or_default())
}

fn with_system_tools(mut path: OsString) -> OsString {
    for directory in SYSTEM_TOOLS {
        // An empty entry would be the current directory.
        if !path.is_empty() {
            path.push(":");
        }
        path.push(directory);
    }
    path
}

/// A helper program.
pub(super) struct Helper<'a> {
    pub(super) label: &'a str,
    /// What runs, for errors: `the recipe`.
    pub(super) what: &'static str,
    pub(super) program: &'a str,
    pub(super) directory: &'a Path,
    pub(super) deadline: Duration,
}

impl Helper<'_> {
    /// Runs the program to its end. Each line that it writes goes to `line`; `check` runs every
    /// second and ends the program by failing.
    pub(super) async fn run<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        mut line: impl FnMut(&str),
        check: impl Fn() -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let mut command = Command::new(self.program);
        command
            .args(arguments)
            .current_dir(self.directory)
            .env("PATH", helper_path())
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let child = command.spawn().map_err(|source| ImageError::NoProgram {
            label: self.label.to_owned(),
            program: self.program.to_owned(),
            source,
        })?;
        let mut group = Group::new(child);
        let mut kept = VecDeque::new();
        let watched = self.watch(&mut group, &mut kept, &mut line, check).await;
        let status = match watched {
            Ok(status) => status,
            Err(error) => {
                group.end().await;
                return Err(error);
            }
        };
        if status.success() {
            return Ok(());
        }
        Err(ImageError::Failed {
            label: self.label.to_owned(),
            what: self.what,
            status: status.to_string(),
            output: kept.into(),
        })
    }

    async fn watch(
        &self,
        group: &mut Group,
        kept: &mut VecDeque<String>,
        line: &mut impl FnMut(&str),
        check: impl Fn() -> Result<(), ImageError>,
    ) -> Result<ExitStatus, ImageError> {
        let mut output = Lines::new(group.child.stdout.take());
        let mut errors = Lines::new(group.child.stderr.take());
        let deadline = Instant::now() + self.deadline;
        let mut ticks = tokio::time::interval(CHECK_INTERVAL);
        let mut status = None;
        loop {
            let text = tokio::select! {
                text = output.next(), if output.is_open() => text,
                text = errors.next(), if errors.is_open() => text,
                _ = ticks.tick() => {
                    check()?;
                    None
                }
                ended = group.child.wait(), if status.is_none() => {
                    status = Some(ended.map_err(ImageError::store("wait for", self.program))?);
                    None
                }
                () = tokio::time::sleep_until(deadline) => {
                    return Err(ImageError::Deadline {
                        label: self.label.to_owned(),
                        what: self.what,
                        limit: self.deadline,
                    });
                }
            };
            if let Some(text) = text {
                line(&text);
                if kept.len() == KEPT_LINES {
                    kept.pop_front();
                }
                kept.push_back(text);
            }
            // The pipes close when the last process of the group is gone.
            if let (Some(status), false, false) = (status, output.is_open(), errors.is_open()) {
                group.ended = true;
                return Ok(status);
            }
        }
    }
}

/// The lines of a pipe.
struct Lines<R> {
    reader: Option<BufReader<R>>,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(reader: Option<R>) -> Self {
        Self { reader: reader.map(BufReader::new), buffer: Vec::new() }
    }

    fn is_open(&self) -> bool {
        self.reader.is_some()
    }

    /// The next line, or `None` at the end. Nothing is lost when the future is dropped.
    async fn next(&mut self) -> Option<String> {
        let reader = self.reader.as_mut()?;
        let room = LINE_BYTES.saturating_sub(self.buffer.len() as u64);
        let read = reader.take(room).read_until(b'\n', &mut self.buffer).await;
        if !matches!(read, Ok(1..)) {
            self.reader = None;
        }
        let line = std::mem::take(&mut self.buffer);
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        (!line.is_empty()).then(|| line.to_owned())
    }
}

/// A child process and all that it starts.
struct Group {
    child: Child,
    id: Option<Pid>,
    ended: bool,
}

impl Group {
    fn new(child: Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Self { child, id, ended: false }
    }

    fn signal(&self, signal: Signal) {
        // The leader is not reaped before `ended`, or its children hold the group: the id is ours.
        if let (Some(id), false) = (self.id, self.ended) {
            // It may have ended by itself this moment.
            killpg(id, signal).ok();
        }
    }

    /// Asks the group to end, then makes it.
    async fn end(&mut self) {
        self.signal(Signal::SIGTERM);
        let waited = tokio::time::timeout(END_GRACE, self.child.wait()).await;
        if waited.is_err() {
            self.signal(Signal::SIGKILL);
            drop(self.child.wait().await);
        }
        self.ended = true;
    }
}

impl Drop for Group {
    /// The caller was cancelled: the group is told to end and tidies up by itself.
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn helper(deadline: Duration) -> Helper<'static> {
        Helper {
            label: "x",
            what: "the recipe",
            program: "sh",
            directory: Path::new("/"),
            deadline,
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_tools_of_the_system_are_found_last() {
        let mut path = OsString::new();
        let script = ["-c", "echo $PATH"];
        helper(LONG).run(script, |line| path = line.into(), || Ok(())).await.unwrap();
        assert_eq!(path, helper_path());
        assert_eq!(with_system_tools("/bin".into()), "/bin:/usr/sbin:/sbin");
        assert_eq!(with_system_tools(OsString::new()), "/usr/sbin:/sbin");
    }

    #[tokio::test]
    async fn both_streams_are_heard() {
        let mut lines = Vec::new();
        let script = "echo one; echo two >&2; printf three";
        helper(LONG)
            .run(["-c", script], |line| lines.push(line.to_owned()), || Ok(()))
            .await
            .unwrap();
        lines.sort();
        assert_eq!(lines, ["one", "three", "two"]);
    }

    #[tokio::test]
    async fn a_failure_shows_the_last_lines() {
        let script = "i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done; exit 3";
        let error = helper(LONG).run(["-c", script], |_| (), || Ok(())).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.contains("line 99"), "{text}");
        assert!(!text.contains("line 69\n"), "{text}");
    }

    #[tokio::test]
    async fn a_long_line_is_bounded() {
        let mut longest = 0;
        helper(LONG)
            .run(
                ["-c", "head -c 100000 /dev/zero | tr '\\0' x"],
                |line| longest = longest.max(line.len()),
                || Ok(()),
            )
            .await
            .unwrap();
        assert_eq!(longest as u64, LINE_BYTES);
    }

    #[tokio::test]
    async fn the_deadline_ends_the_whole_group() {
        let script = "sleep 1000 & wait";
        let error = helper(Duration::from_millis(50)).run(["-c", script], |_| (), || Ok(())).await;
        assert!(matches!(error, Err(ImageError::Deadline { .. })), "{error:?}");
    }

    #[tokio::test]
    async fn a_failed_check_ends_it() {
        let full =
            || Err(ImageError::Unusable { label: "x".to_owned(), reason: "no room".to_owned() });
        let error = helper(LONG).run(["-c", "sleep 1000"], |_| (), full).await;
        assert!(matches!(error, Err(ImageError::Unusable { .. })), "{error:?}");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let helper = Helper { program: "no-such-program", ..helper(LONG) };
        let error = helper.run([] as [&str; 0], |_| (), || Ok(())).await.unwrap_err();
        assert!(error.to_string().contains("no-such-program"), "{error}");
    }
}
