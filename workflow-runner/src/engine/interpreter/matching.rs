//! Lines that problem matchers look at (github-runner-protocol 7.9).

use common::Timestamp;
use common::event::{Annotation, Stream};
use common::limits::MIB;

use super::super::command::Command;
use super::super::matcher::{Found, Matcher, Verdict, file, place};
use super::{Interpreter, level_name, mark};

/// The largest file of matchers, in bytes.
const FILE_BYTES: u64 = MIB;

impl Interpreter<'_> {
    /// Takes a line that is no command.
    pub(super) async fn output(&mut self, time: Timestamp, stream: Stream, line: Vec<u8>) {
        if self.matchers.is_empty() {
            self.events.line(time, stream, line).await;
            return;
        }
        let verdict = self.matchers.line(&String::from_utf8_lossy(&line));
        match verdict {
            Verdict::Nothing => self.events.line(time, stream, line).await,
            Verdict::Found(found) => self.found(found, time, stream, line).await,
            Verdict::Removed(owners) => {
                self.events.line(time, stream, line).await;
                let message = format!(
                    "Problem matchers that gave up on three lines were removed: {}. Their patterns \
                     can be read in too many ways.",
                    owners.join(", ")
                );
                self.events.warning(time, &message).await;
            }
        }
    }

    /// Shows the line that completes a finding, and makes an annotation of it. One without a message
    /// or with an unknown severity is output like any other.
    async fn found(&mut self, found: Found, time: Timestamp, stream: Stream, line: Vec<u8>) {
        let level = found.level();
        let Found { file, from_path, line: row, column, message, .. } = found;
        let (Some(level), Some(message)) = (level, message) else {
            self.events.line(time, stream, line).await;
            return;
        };
        let file = match file {
            Some(file) => {
                let here = |path: &str| self.paths.leave(path).unwrap_or_else(|| path.to_owned());
                let (file, from_path) = (here(&file), from_path.as_deref().map(here));
                let (from_path, workspace) = (from_path.as_deref(), here(&self.workspace));
                place::in_repository(&file, from_path, &workspace, self.system).await
            }
            None => None,
        };
        let mut marked = mark(level_name(level), "").into_bytes();
        marked.extend(line);
        self.events.line(time, stream, marked).await;
        let number = |text: Option<String>| text.and_then(|text| text.trim().parse().ok());
        let annotation = Annotation {
            step: self.step,
            level,
            message,
            title: None,
            file,
            line: number(row),
            end_line: None,
            column: number(column),
            end_column: None,
        };
        self.events.annotation(annotation).await;
    }

    /// `add-matcher`: reads a file of matchers, relative to the workspace.
    pub(super) async fn add_matcher(&mut self, command: &Command, time: Timestamp) {
        let read = self.read_matchers(command.data.trim()).await;
        if let Err(wrong) = read.and_then(|matchers| self.matchers.add(matchers)) {
            self.fail(time, &format!("The command add-matcher has no effect: {wrong}.")).await;
        }
    }

    /// `remove-matcher`: by its owner, or those of a file.
    pub(super) async fn remove_matcher(&mut self, command: &Command, time: Timestamp) {
        if let Some(owner) = command.property("owner") {
            self.matchers.remove(owner);
            return;
        }
        match self.read_matchers(command.data.trim()).await {
            Ok(matchers) => {
                for matcher in matchers {
                    self.matchers.remove(matcher.owner());
                }
            }
            Err(wrong) => {
                let message = format!("The command remove-matcher has no effect: {wrong}.");
                self.fail(time, &message).await;
            }
        }
    }

    async fn read_matchers(&self, path: &str) -> Result<Vec<Matcher>, String> {
        if path.is_empty() {
            return Err("it names no file".to_owned());
        }
        let absolute = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.workspace)
        };
        let absolute = self.paths.leave(&absolute).unwrap_or(absolute);
        let text = self.system.read(&absolute, FILE_BYTES).await.map_err(|e| e.to_string())?;
        file::read(&text).map_err(|wrong| format!("{path}: {wrong}"))
    }
}
