//! What a step leaves for later steps, and taking it over: the files of the step are read, the
//! values go into the job's state, within bounds.

use std::io;

use common::event::Summary;
use common::guest::GuestEvent;
use common::limits::{COMMAND_FILE_BYTES, OUTPUT_BYTES, SUMMARY_BYTES};

use crate::system::SystemError;

use super::files;
use super::interpreter::Said;
use super::job::Job;
use super::text::sentence;
use super::workspace::COMMAND_FILES;

/// Bytes of all variables and paths that the steps of a job may leave for later ones.
const KEPT_BYTES: usize = COMMAND_FILE_BYTES as usize;

/// Directories that the steps of a job may put in front of the search path.
const KEPT_PATHS: usize = 1_000;

impl Job<'_> {
    /// Makes the empty files in which a step can leave something.
    pub(super) async fn create_command_files(&self, step: u32) -> Result<(), SystemError> {
        for (_, kind) in COMMAND_FILES {
            let path = self.directories.command_file(kind, step);
            self.system.create_file(&path, b"", 0o644, self.facts.owner).await?;
        }
        Ok(())
    }

    /// Adds what a step wrote to its files; an error in a file fails the step.
    pub(super) async fn read_command_files(&mut self, step: u32, said: &mut Said) {
        for (variable, kind) in COMMAND_FILES {
            let path = self.directories.command_file(kind, step);
            let bytes = match self.system.read(&path, COMMAND_FILE_BYTES).await {
                Ok(bytes) => bytes,
                // The step removed it: it has nothing to say.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                    let mib = COMMAND_FILE_BYTES / (1024 * 1024);
                    let message = format!(
                        "The file GITHUB_{} is larger than {mib} MiB and was not read.",
                        variable.to_ascii_uppercase()
                    );
                    said.failed |= variable != "step_summary";
                    self.error(&message).await;
                    continue;
                }
                Err(error) => {
                    said.failed = true;
                    self.error(&sentence(&error.to_string())).await;
                    continue;
                }
            };
            if bytes.is_empty() {
                continue;
            }
            let text = files::decode(&bytes);
            drop(bytes);
            let read = match variable {
                "env" => files::parse_pairs(&text, "GITHUB_ENV").map(|p| said.variables.extend(p)),
                "output" => {
                    files::parse_pairs(&text, "GITHUB_OUTPUT").map(|p| said.outputs.extend(p))
                }
                "state" => files::parse_pairs(&text, "GITHUB_STATE").map(|p| said.state.extend(p)),
                "path" => {
                    said.paths.extend(files::parse_paths(&text));
                    Ok(())
                }
                _ => {
                    self.summary(step, text).await;
                    Ok(())
                }
            };
            if let Err(error) = read {
                said.failed = true;
                self.error(&sentence(&error.to_string())).await;
            }
        }
    }

    async fn summary(&mut self, step: u32, markdown: String) {
        if markdown.len() > SUMMARY_BYTES {
            let message = format!(
                "The summary of this step has {} KiB and is dropped; the limit is {} KiB.",
                markdown.len() / 1024,
                SUMMARY_BYTES / 1024
            );
            self.error(&message).await;
            return;
        }
        if !self.events.has_summary_room(markdown.len()) {
            let message = "The steps of this job have written larger summaries than they may \
                           together; this one is dropped.";
            self.error(message).await;
            return;
        }
        self.events.event(GuestEvent::Summary(Summary { step, markdown })).await;
    }

    /// Takes over what a step left; gives its outputs. Sets `said.failed` when something does not
    /// fit.
    pub(super) async fn take_over(&mut self, said: &mut Said) -> Vec<(String, String)> {
        for (name, value) in said.variables.drain(..).collect::<Vec<_>>() {
            if self.rules.refused_variables.iter().any(|r| r.eq_ignore_ascii_case(&name)) {
                let message = format!(
                    "{name} cannot be set through GITHUB_ENV, because every later JavaScript \
                     action would run with it; set it in the env of the steps that need it."
                );
                self.error(&message).await;
            } else {
                self.written.set(name, value);
            }
        }
        for path in said.paths.drain(..).take(KEPT_PATHS + 1) {
            self.paths.retain(|known| *known != path);
            self.paths.insert(0, path);
        }
        let kept = self.written.bytes() + self.paths.iter().map(String::len).sum::<usize>();
        let many = self.written.len() > files::PAIRS || self.paths.len() > KEPT_PATHS;
        if kept > KEPT_BYTES || many {
            said.failed = true;
            let message = format!(
                "The steps of this job have left more than {} MiB or {} variables or {KEPT_PATHS} \
                 paths; this step's are lost with all others.",
                KEPT_BYTES / (1024 * 1024),
                files::PAIRS
            );
            self.error(&message).await;
            self.written = super::variables::Variables::default();
            self.paths.clear();
        }
        let outputs = std::mem::take(&mut said.outputs);
        let bytes: usize = outputs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.output_bytes + bytes > OUTPUT_BYTES {
            said.failed = true;
            let message = format!(
                "The outputs of this job's steps are larger than {} KiB together; those of this \
                 step are lost. Pass large data in files.",
                OUTPUT_BYTES / 1024
            );
            self.error(&message).await;
            return Vec::new();
        }
        self.output_bytes += bytes;
        outputs
    }
}
