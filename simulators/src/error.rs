//! Why there is no server.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a throw-away server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The server's program is not installed.
    #[error("there is no {program:?}; run `scripts/setup.sh test`")]
    Missing {
        /// Where it was looked for.
        program: PathBuf,
    },
    /// The system user of the server's package is missing.
    #[error("there is no user {user:?}; run `scripts/setup.sh test`")]
    NoUser {
        /// The user.
        user: &'static str,
    },
    /// The system refused something.
    #[error("failed to {what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What it said.
        source: io::Error,
    },
    /// The server, or a program that manages it, ended with an error.
    #[error("{what} failed: {output}")]
    Failed {
        /// Which program.
        what: String,
        /// The end of what it wrote.
        output: String,
    },
    /// The server runs and does not answer.
    #[error("{what} did not answer within {} s: {output}", deadline.as_secs())]
    Silent {
        /// Which program.
        what: &'static str,
        /// The time that it had.
        deadline: Duration,
        /// The end of what it wrote.
        output: String,
    },
}

impl ServerError {
    /// An error of the system with what was tried.
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}
