//! Why a call brought no answer, and what that means for whoever called.

use connectrpc::{ConnectError, ErrorCode};

use super::transport::{self, TransportError, chain};

/// A call that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// What it means.
    pub kind: RpcErrorKind,
    /// What happened, in a sentence for an administrator.
    pub message: String,
}

/// What a failed call means (forgejo-runner-protocol 1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RpcErrorKind {
    /// The server does not know this runner, or not with this token.
    Unauthenticated,
    /// The server, or its version, has no such method.
    Unimplemented,
    /// The log was closed.
    AlreadyExists,
    /// The server refuses what it was given, such as a registration token.
    Refused,
    /// The server failed, or the task is not this runner's.
    Internal,
    /// Somebody in between takes no body of this size.
    TooLarge,
    /// The answer cannot be read: it is larger than anything that could be run, or no message.
    Unreadable,
    /// Calls come too fast.
    TooMany,
    /// Nobody answered, or nobody who speaks the protocol. Worth another try.
    Unavailable,
    /// This side cannot make the call at all.
    Local,
}

impl RpcError {
    /// Something that no other try changes.
    pub(super) fn strange(message: impl Into<String>) -> Self {
        Self { kind: RpcErrorKind::Local, message: message.into() }
    }
}

impl From<ConnectError> for RpcError {
    fn from(error: ConnectError) -> Self {
        use RpcErrorKind as Kind;
        if let Some(TransportError::Page { status, .. }) = cause(&error) {
            let kind = match status {
                413 => Kind::TooLarge,
                429 => Kind::TooMany,
                _ => Kind::Unavailable,
            };
            let cure = match kind {
                Kind::TooLarge => "raise the limit of the proxy on the size of a body",
                Kind::TooMany => "raise the limit of the proxy, or set a longer fetch_interval",
                _ => "check the URL, and the proxy in front of the instance",
            };
            let message = format!("{}; {cure}", chain(&error));
            return Self { kind, message };
        }
        let kind = match error.code {
            ErrorCode::Unauthenticated | ErrorCode::PermissionDenied => Kind::Unauthenticated,
            ErrorCode::Unimplemented => Kind::Unimplemented,
            ErrorCode::AlreadyExists => Kind::AlreadyExists,
            ErrorCode::InvalidArgument | ErrorCode::FailedPrecondition | ErrorCode::OutOfRange => {
                Kind::Refused
            }
            // The server succeeded, so that this side made the error of what it read. Of an answer
            // that breaks off it is `unavailable`.
            ErrorCode::ResourceExhausted
            | ErrorCode::Internal
            | ErrorCode::Unknown
            | ErrorCode::DataLoss
                if transport::has_succeeded(error.response_headers()) =>
            {
                Kind::Unreadable
            }
            // Gitea says `unknown` of a task that is not there.
            ErrorCode::Internal
            | ErrorCode::Unknown
            | ErrorCode::NotFound
            | ErrorCode::DataLoss => Kind::Internal,
            ErrorCode::ResourceExhausted => Kind::TooMany,
            _ => Kind::Unavailable,
        };
        Self { kind, message: chain(&error) }
    }
}

/// What the transport said, somewhere behind the error.
fn cause(error: &ConnectError) -> Option<&TransportError> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<TransportError>() {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_of_a_task_is_no_broken_connection() {
        for (error, kind) in [
            // Forgejo of a task that is somebody else's, and Gitea 1.26 of one that is not there.
            (ConnectError::internal("invalid runner for task"), RpcErrorKind::Internal),
            (ConnectError::unknown("rpc error: code = Internal desc = x"), RpcErrorKind::Internal),
            (
                ConnectError::already_exists("log file has been archived"),
                RpcErrorKind::AlreadyExists,
            ),
            (ConnectError::unavailable("connection refused"), RpcErrorKind::Unavailable),
            (ConnectError::deadline_exceeded("too late"), RpcErrorKind::Unavailable),
            // A server's own words, whatever this side says of answers that are too large.
            (ConnectError::resource_exhausted("rate limit exceeded"), RpcErrorKind::TooMany),
        ] {
            assert_eq!(RpcError::from(error).kind, kind);
        }
    }
}
