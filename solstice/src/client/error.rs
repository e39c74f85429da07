//! What can go wrong between this program and the service of this host.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use common::request::PROTOCOL_VERSION;
use orchestrator::api::wire::ErrorBody;

use crate::exit::CommandError;

/// Why the service did not do what it was asked to.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens on the socket.
    #[error("no service runs: nobody answers on {}", socket.display())]
    Absent {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket belongs to somebody else.
    #[error("the service on {} belongs to another user", socket.display())]
    Denied {
        /// The socket.
        socket: PathBuf,
    },
    /// The service did not answer, or broke off.
    #[error("the service on {} does not answer: {reason}", socket.display())]
    Lost {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        reason: String,
    },
    /// Something else than the service answers.
    #[error("what answers on {} is no service of Solstice", socket.display())]
    Foreign {
        /// The socket.
        socket: PathBuf,
    },
    /// The service is of a version that does not understand this program.
    #[error(
        "the service on {} is version {version} and speaks protocol version {protocol}, this \
         program (version {}) speaks {PROTOCOL_VERSION}",
        socket.display(),
        env!("CARGO_PKG_VERSION")
    )]
    Version {
        /// The socket.
        socket: PathBuf,
        /// The service's version.
        version: String,
        /// Its protocol version.
        protocol: String,
    },
    /// The answer cannot be understood.
    #[error("the answer of the service on {} cannot be understood: {reason}", socket.display())]
    Answer {
        /// The socket.
        socket: PathBuf,
        /// Why.
        reason: String,
    },
    /// The service refused.
    #[error("{}", error.error)]
    Refused {
        /// The status.
        status: u16,
        /// The service's words.
        error: ErrorBody,
    },
}

/// The status of something that cannot be done now.
const UNAVAILABLE: u16 = 503;

impl ClientError {
    /// What the transport says.
    pub(super) fn from_transport(socket: &Path, error: &reqwest::Error) -> Self {
        let socket = socket.to_path_buf();
        let mut reason = if error.is_timeout() { "no answer in time" } else { "" }.to_owned();
        let mut cause = error.source();
        while let Some(inner) = cause {
            match inner.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                    return Self::Absent { socket };
                }
                Some(io::ErrorKind::PermissionDenied) => return Self::Denied { socket },
                _ => {}
            }
            // The innermost says what happened, those around it only where.
            reason = inner.to_string();
            cause = inner.source();
        }
        if reason.is_empty() {
            reason = error.to_string();
        }
        Self::Lost { socket, reason }
    }

    /// Whether asking again later may help: the service may be starting.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Absent { .. } | Self::Lost { .. } => true,
            Self::Refused { status, .. } => *status == UNAVAILABLE,
            _ => false,
        }
    }

    fn advice(&self) -> Option<String> {
        let text = match self {
            Self::Absent { .. } => "`solstice serve` starts one",
            Self::Denied { .. } => "ask as that user, or start one of your own: `solstice serve`",
            Self::Lost { .. } => {
                "its log says what it does; a service that starts may take a while"
            }
            Self::Foreign { .. } => "end it, or set another `socket`",
            Self::Version { .. } => "use the same version of both",
            Self::Answer { .. } => "compare the versions: `solstice --version` and /health",
            Self::Refused { error, .. } => return error.hint.clone(),
        };
        Some(text.to_owned())
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        let command = match &error {
            // What was asked for is wrong, does not exist, or is in another state.
            ClientError::Refused { status: 400 | 404 | 405 | 409 | 413, .. } => Self::usage(text),
            _ => Self::infrastructure(text),
        };
        match error.advice() {
            Some(hint) => command.hint(hint),
            None => command,
        }
    }
}
