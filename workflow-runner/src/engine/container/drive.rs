//! Running a command of the container engine to its end, with what it prints in the log.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::engine::deep::deep;
use crate::engine::fault::Fault;
use crate::engine::job::Job;
use crate::engine::lines::LineSplitter;
use crate::engine::pump::DRAIN_GRACE;
use crate::engine::supervise::{Limits, Stop};
use crate::system::{Command, Exit, Process, Signal, SystemError};

use super::tool::Tool;

/// How long a command may take that does nothing large.
pub(super) const SHORT: Duration = Duration::from_secs(2 * 60);

/// How long a command may take that fetches or builds an image.
pub(super) const LONG: Duration = Duration::from_secs(60 * 60);

/// How long a command may take to end once it must.
const AFTER_TERMINATE: Duration = Duration::from_secs(5);

/// Bytes of the answer of a command that are kept.
const ANSWER_BYTES: usize = 256 * 1024;

/// The last lines of what a command says of its failure that are kept.
const TAIL_LINES: usize = 20;

/// How much is read at once, in bytes.
const CHUNK: usize = 8 * 1024;

/// The option of docker that stands before its commands, with a directory behind it.
pub(super) const CONFIG: &str = "--config";

/// Lines that wait to be shown.
const LINES: usize = 64;

/// How much of a command stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    /// Nothing, unless it fails.
    Silent,
    /// The command itself.
    Command,
    /// The command and all that it prints.
    Full,
}

/// A command of the engine.
pub(super) struct Order {
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// Variables beside those of every command.
    pub(super) environment: Vec<(String, String)>,
    /// How long it may take.
    pub(super) limit: Duration,
    /// What of it stands in the log.
    pub(super) voice: Voice,
}

impl Order {
    /// A command that nobody sees.
    pub(super) fn silent<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            arguments: arguments.into_iter().map(str::to_owned).collect(),
            environment: Vec::new(),
            limit: SHORT,
            voice: Voice::Silent,
        }
    }
}

/// What kept containers from being there.
#[derive(Debug)]
pub(in crate::engine) enum Trouble {
    /// The job or step had to end.
    Stopped(Stop),
    /// Something is wrong.
    Fault(Fault),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<String> for Trouble {
    fn from(message: String) -> Self {
        Self::Fault(message.into())
    }
}

impl From<SystemError> for Trouble {
    fn from(error: SystemError) -> Self {
        Self::Fault(error.into())
    }
}

/// A command that has ended.
pub(super) struct Done {
    /// What it printed on standard output.
    pub(super) answer: String,
    /// The last of what it printed, which says why it failed.
    tail: VecDeque<String>,
    exit: Exit,
}

impl Done {
    /// Whether it did what it was asked for.
    pub(super) fn is_well(&self) -> bool {
        self.exit == Exit::Code(0)
    }

    /// The last line that it printed.
    pub(super) fn last_line(&self) -> &str {
        self.tail.back().map_or("it said nothing", String::as_str)
    }
}

impl Job<'_> {
    /// Runs a command that must succeed; gives its answer.
    pub(super) async fn order(
        &mut self,
        tool: &Tool,
        order: Order,
        limits: &Limits,
    ) -> Result<String, Trouble> {
        let name = name(tool, &order.arguments);
        let is_shown = order.voice == Voice::Full;
        let done = self.try_order(tool, order, limits).await?;
        if done.is_well() {
            return Ok(done.answer);
        }
        if !is_shown {
            for line in &done.tail {
                self.events.say(self.system.now(), line).await;
            }
        }
        let how = match done.exit {
            Exit::Code(code) => format!("failed with exit code {code}"),
            Exit::Signal(signal) => format!("was ended by signal {signal}"),
        };
        Err(format!("{name} {how}; see above").into())
    }

    /// Runs a command that may fail.
    pub(super) async fn try_order(
        &mut self,
        tool: &Tool,
        order: Order,
        limits: &Limits,
    ) -> Result<Done, Trouble> {
        let Order { arguments, environment, limit, voice } = order;
        if voice != Voice::Silent {
            let text = format!("##[command]{} {}", tool.engine.program(), arguments.join(" "));
            self.events.say(self.system.now(), &text).await;
            self.events.flush().await;
        }
        let name = name(tool, &arguments);
        let command = tool.command(arguments, environment);
        let (this, name) = (&mut *self, name.as_str());
        deep(move || this.attend_order(name, command, limit, voice, limits)).await
    }

    /// Runs such a command and reads what it prints.
    pub(super) async fn attend_order(
        &mut self,
        name: &str,
        command: Command,
        limit: Duration,
        voice: Voice,
        limits: &Limits,
    ) -> Result<Done, Trouble> {
        let Process { stdout, stderr, mut control } = self.system.start(command).await?;
        let (sender, mut lines) = mpsc::channel(LINES);
        let mut done = Done { answer: String::new(), tail: VecDeque::new(), exit: Exit::Code(-1) };
        let ended: Result<Result<Exit, SystemError>, Option<Stop>> = {
            let errors = sender.clone();
            let reading = async move {
                tokio::join!(read(stdout, true, sender), read(stderr, false, errors))
            };
            let (events, system) = (&mut *self.events, self.system);
            let hearing = async {
                while let Some((is_answer, line)) = lines.recv().await {
                    if voice == Voice::Full {
                        events.say(system.now(), &line).await;
                    }
                    done.take(is_answer, line);
                }
            };
            let printed = async { tokio::join!(reading, hearing) };
            let work = async {
                tokio::pin!(printed);
                tokio::select! {
                    _ = &mut printed => control.wait().await,
                    exit = control.wait() => {
                        // What it left behind may hold its streams open.
                        drop(timeout(DRAIN_GRACE, printed).await);
                        exit
                    }
                }
            };
            tokio::select! {
                exit = work => Ok(exit),
                stop = limits.reached() => Err(Some(stop)),
                () = sleep(limit) => Err(None),
            }
        };
        match ended {
            Ok(exit) => done.exit = exit?,
            Err(stop) => {
                control.signal(Signal::Terminate);
                drop(timeout(AFTER_TERMINATE, control.wait()).await);
                return Err(match stop {
                    Some(stop) => Trouble::Stopped(stop),
                    None => {
                        format!("{name} took longer than {} minutes", limit.as_secs() / 60).into()
                    }
                });
            }
        }
        Ok(done)
    }
}

impl Done {
    fn take(&mut self, is_answer: bool, line: String) {
        if is_answer && self.answer.len() + line.len() < ANSWER_BYTES {
            self.answer.push_str(&line);
            self.answer.push('\n');
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }
}

/// What messages call a command.
fn name(tool: &Tool, arguments: &[String]) -> String {
    let own = if arguments.first().is_some_and(|word| word == CONFIG) { 2 } else { 0 };
    let words = arguments.iter().skip(own).take_while(|word| !word.starts_with('-')).take(2);
    let words: Vec<&str> = words.map(String::as_str).collect();
    format!("{} {}", tool.engine.program(), words.join(" "))
}

/// Cuts a stream into lines and hands them on, until it ends or nobody listens.
async fn read(
    mut stream: Box<dyn AsyncRead + Send + Unpin>,
    is_answer: bool,
    lines: mpsc::Sender<(bool, String)>,
) {
    let mut splitter = LineSplitter::default();
    let mut buffer = vec![0; CHUNK];
    loop {
        let bytes = stream.read(&mut buffer).await.unwrap_or(0);
        let mut chunk = &buffer[..bytes];
        let rest = if bytes == 0 { splitter.rest() } else { None };
        while let Some(line) = splitter.next(&mut chunk) {
            let text = String::from_utf8_lossy(&line.bytes).into_owned();
            if lines.send((is_answer, text)).await.is_err() {
                return;
            }
        }
        if bytes == 0 {
            if let Some(line) = rest {
                let text = String::from_utf8_lossy(&line.bytes).into_owned();
                drop(lines.send((is_answer, text)).await);
            }
            return;
        }
    }
}
