//! A service in this process, and the program beside it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::event::{Conclusion, EventBody, LogBatch, LogLine, StepFinished, StepStarted, Stream};
use common::time::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use orchestrator::api::bind_unix;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backend::TestBackend;

/// How long anything in a test may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of its own, with or without a service.
pub(crate) struct Place {
    directory: tempfile::TempDir,
    pub(crate) backend: Arc<TestBackend>,
    serving: Option<(CancellationToken, JoinHandle<()>)>,
}

/// What the program did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    /// A place where no service runs.
    pub(crate) fn without_service() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("project")).unwrap();
        Self { directory, backend: Arc::new(TestBackend::new()), serving: None }
    }

    /// A place with a service.
    pub(crate) fn new() -> Self {
        let mut place = Self::without_service();
        place.start();
        place
    }

    /// Starts the service, with whatever the backend holds.
    pub(crate) fn start(&mut self) {
        let socket = bind_unix(&self.socket()).unwrap();
        let stop = CancellationToken::new();
        let serving = socket.serve(Arc::clone(&self.backend), stop.clone());
        self.serving = Some((stop, tokio::spawn(serving)));
    }

    /// Stops the service and waits until it is gone.
    pub(crate) async fn stop(&mut self) {
        let (stop, serving) = self.serving.take().unwrap();
        stop.cancel();
        within(serving).await.unwrap();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("run/solstice.sock")
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.directory.path().join("project")
    }

    /// Puts a workflow into the project.
    pub(crate) fn workflow(&self, text: &str) {
        fs::create_dir_all(self.project().join(".forgejo/workflows")).unwrap();
        fs::write(self.project().join(".forgejo/workflows/ci.yml"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let directory = self.directory.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_solstice"));
        command
            .args(arguments)
            .current_dir(self.project())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", directory)
            .env("GIT_CEILING_DIRECTORIES", directory)
            .env("SOLSTICE_STATE_DIR", directory.join("state"))
            .env("SOLSTICE_RUNTIME_DIR", directory.join("run"))
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) async fn solstice(&self, arguments: &[&str]) -> Done {
        self.finish(self.command(arguments)).await
    }

    /// Runs it with colours, as on a terminal.
    pub(crate) async fn coloured(&self, arguments: &[&str]) -> Done {
        let mut command = self.command(arguments);
        command.env("CLICOLOR_FORCE", "1");
        self.finish(command).await
    }

    async fn finish(&self, command: Command) -> Done {
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        within(command.output()).await.unwrap().into()
    }

    /// Starts the program.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Running {
        let mut command = tokio::process::Command::from(self.command(arguments));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Running { child, stdout, stderr, seen: Vec::new() }
    }
}

/// The program while it runs.
pub(crate) struct Running {
    child: tokio::process::Child,
    stdout: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    stderr: tokio::io::Lines<BufReader<tokio::process::ChildStderr>>,
    seen: Vec<String>,
}

impl Running {
    /// Waits for a line of standard output with this text in it.
    pub(crate) async fn says(&mut self, text: &str) {
        loop {
            let line = within(self.stdout.next_line()).await.unwrap();
            let line = line.unwrap_or_else(|| panic!("no {text:?} after {:?}", self.seen));
            let found = line.contains(text);
            self.seen.push(line);
            if found {
                return;
            }
        }
    }

    /// Waits for a line of standard error with this text in it.
    pub(crate) async fn notes(&mut self, text: &str) {
        while let Some(line) = within(self.stderr.next_line()).await.unwrap() {
            if line.contains(text) {
                return;
            }
        }
        panic!("no {text:?}");
    }

    /// Closes the reader of its standard output and waits for its end.
    pub(crate) async fn close_and_wait(mut self) -> i32 {
        drop(self.stdout);
        within(self.child.wait()).await.unwrap().code().unwrap()
    }

    /// Presses Ctrl-C.
    pub(crate) fn interrupt(&self) {
        let pid = self.child.id().unwrap().cast_signed();
        kill(Pid::from_raw(pid), Signal::SIGINT).unwrap();
    }

    /// Waits for its end; everything it wrote on standard output.
    pub(crate) async fn end(mut self) -> (i32, Vec<String>) {
        while let Some(line) = within(self.stdout.next_line()).await.unwrap() {
            self.seen.push(line);
        }
        let status = within(self.child.wait()).await.unwrap();
        (status.code().unwrap(), self.seen)
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// Some lines of a step that passes.
pub(crate) fn step(lines: &[&str]) -> Vec<EventBody> {
    let time = Timestamp::from_micros(1_700_000_000_000_000);
    let name = "Say hello".to_owned();
    let mut bodies =
        vec![EventBody::StepStarted(StepStarted { step: 0, name: name.clone(), time })];
    bodies.extend(lines.iter().map(|text| line(text)));
    bodies.push(EventBody::StepFinished(StepFinished {
        step: 0,
        name,
        outcome: Conclusion::Success,
        conclusion: Conclusion::Success,
        took: Duration::from_millis(1500),
        time,
    }));
    bodies
}

/// A line of that step.
pub(crate) fn line(text: &str) -> EventBody {
    let time = Timestamp::from_micros(1_700_000_000_000_000);
    let line = LogLine { time, stream: Stream::Stdout, text: text.into() };
    EventBody::Log(LogBatch { step: Some(0), lines: vec![line] })
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}
