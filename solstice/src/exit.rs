//! Exit codes, and errors that know theirs.

use std::process::ExitCode;

/// How a command ended. README.md lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: everything passed; skipped counts as passed.
    Passed,
    /// 1: a job failed.
    Failed,
    /// 2: the infrastructure is to blame. It wins over wrong input and over a failed job.
    Infrastructure,
    /// 64: the command line, a setting or a workflow file is wrong. It wins over a failed job: a file
    /// can turn out to be wrong when the outputs of its first jobs are known.
    Usage,
    /// 130: cancelled by the user.
    Cancelled,
    /// The exit code of the program that `solstice shell` ran in the guest.
    Guest(u8),
}

impl Exit {
    /// The number that the shell sees.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::Infrastructure => 2,
            Self::Usage => 64,
            Self::Cancelled => 130,
            Self::Guest(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error that ends a command, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl CommandError {
    /// The user's input is wrong: exit code 64.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into(), hint: None }
    }

    /// Something around the job failed: exit code 2.
    pub fn infrastructure(message: impl Into<String>) -> Self {
        Self { exit: Exit::Infrastructure, message: message.into(), hint: None }
    }

    /// The user asked to stop: exit code 130.
    pub fn cancelled(message: impl Into<String>) -> Self {
        Self { exit: Exit::Cancelled, message: message.into(), hint: None }
    }

    /// Adds what to do, one sentence.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code of the command.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What to do, where something is known.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl From<workflow_runner::diagnostic::Diagnostic> for CommandError {
    fn from(mut diagnostic: workflow_runner::diagnostic::Diagnostic) -> Self {
        let hint = diagnostic.hint.take();
        Self { exit: Exit::Usage, message: diagnostic.to_string(), hint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_the_documented_ones() {
        let codes = [
            Exit::Passed,
            Exit::Failed,
            Exit::Infrastructure,
            Exit::Usage,
            Exit::Cancelled,
            Exit::Guest(7),
        ]
        .map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 64, 130, 7]);
    }
}
