//! Reading a step's output: what is a workflow command takes effect, the rest is log
//! (github-runner-protocol 7.4, forgejo-runner-protocol 8.4).

mod matching;

use common::Timestamp;
use common::event::{Annotation, AnnotationLevel, Stream};

use crate::system::System;

use super::command::{self, Command, Name};
use super::container::PathMap;
use super::dialect::{DialectRules, Display};
use super::events::Events;
use super::lines::Line;
use super::matcher::Matchers;

/// What a step has left beside its log, by commands or by files.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Outputs.
    pub(super) outputs: Vec<(String, String)>,
    /// Variables for later steps.
    pub(super) variables: Vec<(String, String)>,
    /// Directories for the search path of later steps.
    pub(super) paths: Vec<String>,
    /// State for later stages of the same action.
    pub(super) state: Vec<(String, String)>,
    /// Bytes of all of the above, to keep commands in bounds as files are.
    bytes: usize,
    /// A command was refused or wrong: the step fails.
    pub(super) failed: bool,
}

impl Said {
    /// What a step leaves that has outputs and nothing else.
    pub(super) fn outputs(outputs: Vec<(String, String)>) -> Self {
        Self { outputs, ..Self::default() }
    }
}

/// Bytes that one step may leave by commands; the same as in one of its files.
const SAID_BYTES: usize = common::limits::COMMAND_FILE_BYTES as usize;

/// What a value costs beside its own bytes, about.
const VALUE_BYTES: usize = 64;

/// A stop token longer than this is masked (github-runner-protocol 7.4).
const SHORT_TOKEN: usize = 6;

/// Reads the lines of one step.
pub(super) struct Interpreter<'a> {
    rules: &'static DialectRules,
    system: &'a dyn System,
    events: &'a mut Events,
    matchers: &'a mut Matchers,
    step: u32,
    debug: bool,
    /// Where the repository is, as the step sees it.
    workspace: String,
    /// Where the step has the directories of the machine.
    paths: PathMap,
    /// Whether `set-env` and `add-path` work.
    insecure_commands: bool,
    /// Whether any text may be a stop token.
    any_token: bool,
    echo: bool,
    stopped_until: Option<String>,
    /// What the step has left so far.
    pub(super) said: Said,
}

impl<'a> Interpreter<'a> {
    /// Begins a step; `variable` looks up a variable of the step's environment.
    pub(super) fn new<'v>(
        rules: &'static DialectRules,
        system: &'a dyn System,
        events: &'a mut Events,
        matchers: &'a mut Matchers,
        step: u32,
        debug: bool,
        variable: impl Fn(&str) -> Option<&'v str>,
    ) -> Self {
        let is_on =
            |name: &str| variable(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        matchers.begin_step();
        Self {
            rules,
            system,
            events,
            matchers,
            step,
            debug,
            workspace: variable("GITHUB_WORKSPACE").unwrap_or_default().to_owned(),
            paths: PathMap::default(),
            insecure_commands: rules.insecure_commands || is_on("ACTIONS_ALLOW_UNSECURE_COMMANDS"),
            any_token: is_on("ACTIONS_ALLOW_UNSECURE_STOPCOMMAND_TOKENS"),
            echo: debug,
            stopped_until: None,
            said: Said::default(),
        }
    }

    /// The step runs where the directories of the machine are there.
    pub(super) fn seeing(self, paths: PathMap) -> Self {
        let workspace = paths.enter(&self.workspace);
        Self { paths, workspace, ..self }
    }

    /// Where lines and events go.
    pub(super) fn events(&mut self) -> &mut Events {
        self.events
    }

    /// Takes a line of a stream.
    pub(super) async fn line(&mut self, time: Timestamp, stream: Stream, line: Line) {
        if !command::may_be_command(&line.bytes, self.rules) {
            self.output(time, stream, line.bytes).await;
            return;
        }
        let text = String::from_utf8_lossy(&line.bytes).into_owned();
        if let Some(token) = &self.stopped_until {
            if command::is_resume(&text, token, self.rules) {
                self.stopped_until = None;
                self.show(self.rules.display.stop, time, stream, line.bytes, "").await;
            } else {
                self.output(time, stream, line.bytes).await;
            }
            return;
        }
        let Some(command) = command::parse(&text, self.rules) else {
            self.output(time, stream, line.bytes).await;
            return;
        };
        if line.cut {
            // Half a value would be wrong, and half a mask would show the other half.
            let message = "A workflow command is longer than 64 KiB and was not processed; write \
                           long values to the file of the step instead, such as $GITHUB_OUTPUT.";
            self.fail(time, message).await;
            return;
        }
        self.run(command, time, stream, line.bytes).await;
    }

    async fn run(&mut self, command: Command, time: Timestamp, stream: Stream, line: Vec<u8>) {
        let display = &self.rules.display;
        match command.name {
            Name::AddMask => self.add_mask(&command.data, time, stream).await,
            Name::Group => {
                self.show(Display::Marked, time, stream, line, &mark("group", &command.data)).await;
            }
            Name::EndGroup => {
                self.show(Display::Marked, time, stream, line, &mark("endgroup", "")).await;
            }
            Name::Debug => self.debug(&command.data, time, stream).await,
            Name::Error | Name::Warning | Name::Notice => {
                self.finding(command, time, stream, line).await;
            }
            Name::StopCommands => self.stop(command.data, time, stream, line).await,
            Name::Echo => {
                self.show(display.value, time, stream, line, "").await;
                match command.data.trim().to_ascii_lowercase().as_str() {
                    "on" => self.echo = true,
                    "off" => self.echo = false,
                    _ => self.fail(time, "The command echo knows \"on\" and \"off\" only.").await,
                }
            }
            Name::AddMatcher => {
                self.show(display.value, time, stream, line, "").await;
                self.add_matcher(&command, time).await;
            }
            Name::RemoveMatcher => {
                self.show(display.value, time, stream, line, "").await;
                self.remove_matcher(&command, time).await;
            }
            Name::SetOutput | Name::SaveState | Name::SetEnv | Name::AddPath => {
                self.show(display.value, time, stream, line, "").await;
                self.value(command, time).await;
            }
        }
    }

    async fn add_mask(&mut self, value: &str, time: Timestamp, stream: Stream) {
        if value.trim().is_empty() {
            self.events
                .warning(time, "The command add-mask has no value; nothing is masked.")
                .await;
            return;
        }
        self.events.mask(time, value).await;
        let shown = "::add-mask::***";
        if self.rules.display.value == Display::WhenEchoing {
            self.show(Display::WhenEchoing, time, stream, shown.into(), "").await;
        }
    }

    async fn finding(&mut self, command: Command, time: Timestamp, stream: Stream, line: Vec<u8>) {
        let level = match command.name {
            Name::Error => AnnotationLevel::Error,
            Name::Warning => AnnotationLevel::Warning,
            _ => AnnotationLevel::Notice,
        };
        let name = level_name(level);
        let text = mark(name, &command.data);
        self.show(self.rules.display.finding, time, stream, line, &text).await;
        if !self.rules.findings_are_annotations {
            return;
        }
        let position = match position(&command) {
            Ok(position) => position,
            Err(contradiction) => {
                let note = format!("The position of this {name} is dropped: {contradiction}.");
                self.debug(&note, time, stream).await;
                Position::default()
            }
        };
        let annotation = Annotation {
            step: self.step,
            level,
            title: command.property("title").map(str::to_owned),
            file: command.property("file").map(|file| in_repository(file, &self.workspace)),
            line: position.line,
            end_line: position.end_line,
            column: position.column,
            end_column: position.end_column,
            message: command.data,
        };
        self.events.annotation(annotation).await;
    }

    /// Shows a debug message, if they are on.
    async fn debug(&mut self, message: &str, time: Timestamp, stream: Stream) {
        if self.debug {
            let text = match self.rules.display.debug {
                Display::Marked => mark("debug", message),
                _ => message.to_owned(),
            };
            self.show(Display::Marked, time, stream, Vec::new(), &text).await;
        }
    }

    async fn stop(&mut self, token: String, time: Timestamp, stream: Stream, line: Vec<u8>) {
        let forbidden = token.is_empty()
            || Name::of(&token, self.rules).is_some()
            || token.eq_ignore_ascii_case("pause-logging");
        if token.is_empty() || (forbidden && !self.any_token) {
            let message = "The command stop-commands needs a token that nobody can guess, and that \
                           is no command.";
            self.fail(time, message).await;
            return;
        }
        if self.rules.masks_stop_token && token.len() > SHORT_TOKEN {
            self.events.mask(time, &token).await;
        }
        self.show(self.rules.display.stop, time, stream, line, "").await;
        self.stopped_until = Some(token);
    }

    async fn value(&mut self, command: Command, time: Timestamp) {
        let insecure = matches!(command.name, Name::SetEnv | Name::AddPath);
        if insecure && !self.insecure_commands {
            let (command, file) = match command.name {
                Name::SetEnv => ("set-env", "GITHUB_ENV"),
                _ => ("add-path", "GITHUB_PATH"),
            };
            let message = format!(
                "The command {command} is refused, because any program whose output is printed \
                 could use it; write to the file ${file} instead, or set \
                 ACTIONS_ALLOW_UNSECURE_COMMANDS to true in the step's env."
            );
            self.fail(time, &message).await;
            return;
        }
        let name = command.property("name").unwrap_or_default().to_owned();
        if name.is_empty() && command.name != Name::AddPath {
            self.fail(time, "A command that sets a value has no name; write name=...").await;
            return;
        }
        self.said.bytes += name.len() + command.data.len() + VALUE_BYTES;
        if self.said.bytes > SAID_BYTES {
            let message = "The commands of this step set more than 16 MiB of values; this one is \
                           ignored.";
            self.fail(time, message).await;
            return;
        }
        let said = &mut self.said;
        match command.name {
            Name::SetOutput => said.outputs.push((name, command.data)),
            Name::SaveState => said.state.push((name, command.data)),
            Name::AddPath if command.data.is_empty() => {}
            Name::AddPath => said.paths.push(command.data),
            _ if self.rules.refused_variables.iter().any(|r| r.eq_ignore_ascii_case(&name)) => {
                let message = format!("{name} cannot be set for later steps; set it in their env.");
                self.fail(time, &message).await;
            }
            _ => said.variables.push((name, command.data)),
        }
    }

    /// Shows a command's line, or `marked` in its place.
    async fn show(
        &mut self,
        display: Display,
        time: Timestamp,
        stream: Stream,
        line: Vec<u8>,
        marked: &str,
    ) {
        match display {
            Display::Hidden => {}
            Display::WhenEchoing if !self.echo => {}
            Display::WhenEchoing | Display::Verbatim => self.events.line(time, stream, line).await,
            Display::Marked | Display::Data => {
                // A message may have several lines; it has one at least.
                let mut lines = marked.lines();
                let first = lines.next().unwrap_or_default();
                for text in std::iter::once(first).chain(lines) {
                    self.events.line(time, stream, text.as_bytes().to_vec()).await;
                }
            }
        }
    }

    async fn fail(&mut self, time: Timestamp, message: &str) {
        self.said.failed = true;
        self.events.error(time, message).await;
    }
}

/// The word that marks a line of this level.
fn level_name(level: AnnotationLevel) -> &'static str {
    match level {
        AnnotationLevel::Error => "error",
        AnnotationLevel::Warning => "warning",
        AnnotationLevel::Notice => "notice",
    }
}

fn mark(name: &str, data: &str) -> String {
    format!("##[{name}]{data}")
}

/// Where in a file a finding is.
#[derive(Default)]
struct Position {
    line: Option<u32>,
    end_line: Option<u32>,
    column: Option<u32>,
    end_column: Option<u32>,
}

/// The position of a finding, or how it contradicts itself (github-runner-protocol 7.4).
fn position(command: &Command) -> Result<Position, &'static str> {
    let number = |name: &str| command.property(name).and_then(|value| value.parse::<u32>().ok());
    let (line, end_line) = (number("line"), number("endline"));
    let (column, end_column) = (number("col"), number("endcolumn"));
    if end_line.is_some() && line.is_none() {
        return Err("it has an endLine and no line");
    }
    if end_column.is_some() && column.is_none() {
        return Err("it has an endColumn and no col");
    }
    if column.is_some() && line.is_none() {
        return Err("it has a col and no line");
    }
    if column.is_some() && end_line.is_some_and(|end| Some(end) != line) {
        return Err("it has a col and goes over several lines");
    }
    Ok(Position { line, end_line, column, end_column })
}

/// The path of a file as the repository has it (github-runner-protocol 7.4); of one outside, as it
/// was written.
fn in_repository(file: &str, workspace: &str) -> String {
    let below = file.strip_prefix(workspace).and_then(|rest| rest.strip_prefix('/'));
    below.filter(|_| !workspace.is_empty()).unwrap_or(file).to_owned()
}
