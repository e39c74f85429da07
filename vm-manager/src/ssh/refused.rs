//! A key that a server must not let in.

use russh::client::{Handle, Handler};
use russh::keys::agent::AgentIdentity;
use russh::keys::{HashAlg, PublicKey};

/// The server would let the key in, or the question could not be asked.
#[derive(Debug)]
pub(super) enum Asked {
    Accepts,
    Unanswered,
}

impl From<russh::SendError> for Asked {
    fn from(_: russh::SendError) -> Self {
        Self::Unanswered
    }
}

/// Signs nothing: to be asked for a signature is all that has to be known (RFC 4252, section 7).
struct NoSignature;

impl russh::Signer for NoSignature {
    type Error = Asked;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        _: Option<HashAlg>,
        _: Vec<u8>,
    ) -> Result<Vec<u8>, Asked> {
        Err(Asked::Accepts)
    }
}

/// Whether a server would let a key in, whose private part nobody needs for that.
pub(super) async fn accepts(
    handle: &mut Handle<impl Handler>,
    user: &str,
    key: &PublicKey,
) -> Result<bool, Asked> {
    match handle.authenticate_publickey_with(user, key.clone(), None, &mut NoSignature).await {
        Ok(result) => Ok(result.success()),
        Err(Asked::Accepts) => Ok(true),
        Err(Asked::Unanswered) => Err(Asked::Unanswered),
    }
}
