//! What can go wrong between the host and a guest.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// A failure of the connection to a guest, or of something done over it.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// No SSH server answered: the guest is still booting, or its server or network is gone.
    #[error("no ssh server answers at {address}: {reason}")]
    Unreachable {
        /// Where it should be: the host's end of the port forwarding.
        address: SocketAddr,
        /// What was seen instead.
        reason: String,
    },
    /// Another machine answers, or the guest did not take the host key from its seed.
    #[error(
        "the ssh server at {address} shows the host key {found}, expected {expected}; the guest \
         did not take the key from its seed disk, or another machine answers"
    )]
    HostKey {
        /// Where it answered.
        address: SocketAddr,
        /// The fingerprint of the key that the seed holds.
        expected: String,
        /// The fingerprint that was shown.
        found: String,
    },
    /// The server does not accept our login key for this user.
    #[error(
        "the ssh server at {address} refuses the login of `{user}` with our key; the guest did not \
         read its seed disk, or has no such user"
    )]
    Refused {
        /// Where it answered.
        address: SocketAddr,
        /// The user that was tried.
        user: String,
    },
    /// The server lets in the key of the template that the guest is a clone of.
    #[error(
        "the ssh server at {address} would let `{user}` in by the key of the template; the clone is \
         not a machine of its own"
    )]
    ForeignKey {
        /// Where it answered.
        address: SocketAddr,
        /// The user that was tried.
        user: String,
    },
    /// Something did not end in time.
    #[error("{what} did not end within {deadline:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        deadline: Duration,
    },
    /// The connection was there and is gone; what ran over it may still be running.
    #[error("the ssh connection to the guest was lost: {reason}")]
    Lost {
        /// Why, as far as it is known.
        reason: String,
    },
    /// The server breaks the rules of SSH or SFTP.
    #[error("the guest's ssh server broke the protocol: {0}")]
    Protocol(String),
    /// The server refused a request, such as a command or a terminal.
    #[error("the guest's ssh server refused {0}")]
    Rejected(String),
    /// A file could not be moved to or from the guest.
    #[error("cannot {action} `{path}` in the guest: {reason}")]
    Transfer {
        /// "write" or "read".
        action: &'static str,
        /// The path in the guest.
        path: String,
        /// What the guest said, or what did not fit.
        reason: String,
    },
    /// A file could not be written to the guest because the file system there has no room for it.
    #[error("cannot write `{path}` in the guest, its disk is full: {reason}")]
    Full {
        /// The path in the guest.
        path: String,
        /// What the guest said.
        reason: String,
    },
    /// The host's end of a transfer failed: the local file, not the guest.
    #[error("the host's end of a transfer failed: {0}")]
    Local(#[source] io::Error),
    /// A value that cannot be sent.
    #[error("cannot send {0} to the guest: it contains a NUL character")]
    Nul(&'static str),
}

impl SshError {
    /// Whether a new connection may help: nothing answered yet, or it went away.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Lost { .. })
    }
}

/// Whether this is what programs of a guest say when a file system has no room: the text of `ENOSPC`
/// or `EDQUOT`, which are the same on Linux, illumos and the BSDs but for one letter.
#[must_use]
pub fn says_full(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    said.contains("no space left on device") || said.contains("quota exceeded")
}

/// Waits for `work`, at most `deadline`.
pub(crate) async fn within<T>(
    deadline: Duration,
    what: impl FnOnce() -> String,
    work: impl Future<Output = Result<T, SshError>>,
) -> Result<T, SshError> {
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => result,
        Err(_elapsed) => Err(SshError::Timeout { what: what(), deadline }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_known_by_its_words() {
        for said in [
            "cat: write error: No space left on device",
            "mkdir: can't create directory '/x': No space left on device",
            "cat: stdout: Disc quota exceeded",
            "sh: 1: cannot create /x: Disk quota exceeded",
        ] {
            assert!(says_full(said), "{said}");
        }
        for said in ["cat: write error: Input/output error", "Permission denied", "Failure", ""] {
            assert!(!says_full(said), "{said}");
        }
    }
}
