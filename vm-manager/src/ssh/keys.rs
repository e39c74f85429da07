//! The keys of one machine, in memory.

use std::fmt;
use std::sync::Arc;

use rand::TryRngCore;
use rand::rngs::OsRng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use zeroize::Zeroizing;

/// A key that cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The operating system gave no random bytes.
    #[error("cannot make an ssh key: the system's random generator failed: {0}")]
    Random(#[source] rand::rand_core::OsError),
    /// The text is not an OpenSSH key.
    #[error("the {which} is not an openssh key: {reason}")]
    Malformed {
        /// Which key.
        which: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// The key is of another kind than this program makes.
    #[error("the {which} is {found}, expected an unencrypted ssh-ed25519 key")]
    Kind {
        /// Which key.
        which: &'static str,
        /// Its algorithm.
        found: String,
    },
}

/// The key pair that we log in with and the host key that the guest shows.
///
/// Both are ed25519, made from the operating system's random generator for one machine and never
/// used for another. Private parts are cleared from memory when the value is dropped, and `Debug`
/// shows no part of a key.
#[derive(Clone)]
pub struct Keys {
    login: Arc<PrivateKey>,
    host_public: PublicKey,
    host_private: Option<Arc<PrivateKey>>,
    /// A key that must not be let in.
    refused: Option<PublicKey>,
}

impl Keys {
    /// Makes both key pairs.
    ///
    /// # Errors
    ///
    /// Only when the operating system gives no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        let host = make_key()?;
        Ok(Self {
            login: Arc::new(make_key()?),
            host_public: host.public_key().clone(),
            host_private: Some(Arc::new(host)),
            refused: None,
        })
    }

    /// The keys of a machine that runs already: what [`Keys::login_private_openssh`] and
    /// [`Keys::host_public_line`] gave when it was made.
    ///
    /// # Errors
    ///
    /// When either text is not an ed25519 key, or the private key is encrypted.
    pub fn from_login(private: &str, host_public_line: &str) -> Result<Self, KeyError> {
        Ok(Self {
            login: Arc::new(parse_private("login key", private)?),
            host_public: parse_public("host key", host_public_line)?,
            host_private: None,
            refused: None,
        })
    }

    /// The same keys, for a server that must not let this one in: a line of `authorized_keys`. Every
    /// login asks it.
    ///
    /// # Errors
    ///
    /// When the line is not an ed25519 key.
    pub fn refusing(mut self, line: &str) -> Result<Self, KeyError> {
        self.refused = Some(parse_public("key of the template", line)?);
        Ok(self)
    }

    /// The login key for `authorized_keys`: `ssh-ed25519 AAAA...`, one line without its end.
    #[must_use]
    pub fn login_public_line(&self) -> String {
        public_line(self.login.public_key())
    }

    /// The private login key as an unencrypted OpenSSH file, for the record of a kept machine.
    #[must_use]
    pub fn login_private_openssh(&self) -> Zeroizing<String> {
        private_file(&self.login)
    }

    /// The host key's public part: `ssh-ed25519 AAAA...`, one line without its end.
    #[must_use]
    pub fn host_public_line(&self) -> String {
        public_line(&self.host_public)
    }

    /// The private host key as an unencrypted OpenSSH file, for the seed: sshd reads it as it is,
    /// dropbear after `dropbearconvert`.
    ///
    /// `None` for keys from [`Keys::from_login`]: the guest has its host key already.
    #[must_use]
    pub fn host_private_openssh(&self) -> Option<Zeroizing<String>> {
        self.host_private.as_deref().map(private_file)
    }

    /// The fingerprint of the host key: `SHA256:...`.
    #[must_use]
    pub fn host_fingerprint(&self) -> String {
        self.host_public.fingerprint(HashAlg::Sha256).to_string()
    }

    pub(super) fn login(&self) -> Arc<PrivateKey> {
        Arc::clone(&self.login)
    }

    pub(super) fn refused(&self) -> Option<&PublicKey> {
        self.refused.as_ref()
    }

    pub(super) fn host(&self) -> &PublicKey {
        &self.host_public
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

fn make_key() -> Result<PrivateKey, KeyError> {
    let mut seed = Zeroizing::new([0; 32]);
    OsRng.try_fill_bytes(seed.as_mut()).map_err(KeyError::Random)?;
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
}

/// Reads an unencrypted ed25519 private key; `which` names it in the error.
pub(crate) fn parse_private(which: &'static str, text: &str) -> Result<PrivateKey, KeyError> {
    let key = PrivateKey::from_openssh(text)
        .map_err(|error| KeyError::Malformed { which, reason: error.to_string() })?;
    if key.is_encrypted() {
        return Err(KeyError::Kind { which, found: "encrypted".to_owned() });
    }
    check_kind(which, &key.algorithm())?;
    Ok(key)
}

/// Reads an ed25519 public key; `which` names it in the error.
pub(crate) fn parse_public(which: &'static str, line: &str) -> Result<PublicKey, KeyError> {
    let key = PublicKey::from_openssh(line)
        .map_err(|error| KeyError::Malformed { which, reason: error.to_string() })?;
    check_kind(which, &key.algorithm())?;
    Ok(key)
}

fn check_kind(which: &'static str, algorithm: &Algorithm) -> Result<(), KeyError> {
    if *algorithm == Algorithm::Ed25519 {
        Ok(())
    } else {
        Err(KeyError::Kind { which, found: algorithm.as_str().to_owned() })
    }
}

/// The key as a line of `authorized_keys`, without a comment: comments carry text that nobody
/// checked.
pub(crate) fn public_line(key: &PublicKey) -> String {
    let bare = PublicKey::from(key.key_data().clone());
    bare.to_openssh().expect("an ed25519 key has a text form").trim_end().to_owned()
}

/// The key as an OpenSSH file.
pub(crate) fn private_file(key: &PrivateKey) -> Zeroizing<String> {
    key.to_openssh(LineEnding::LF).expect("an unencrypted ed25519 key has a text form")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_its_own_keys() {
        let (one, two) = (Keys::generate().unwrap(), Keys::generate().unwrap());
        let lines = [one.login_public_line(), one.host_public_line(), two.login_public_line()];
        assert!(lines.iter().all(|line| line.starts_with("ssh-ed25519 AAAA")));
        assert!(lines[0] != lines[1] && lines[0] != lines[2]);
        assert!(!lines[0].contains('\n') && lines[0].split(' ').count() == 2);
    }

    #[test]
    fn debug_shows_no_key() {
        let keys = Keys::generate().unwrap();
        assert_eq!(format!("{keys:?}"), "Keys { .. }");
    }

    #[test]
    fn a_kept_machine_is_adopted() {
        let made = Keys::generate().unwrap();
        let adopted =
            Keys::from_login(&made.login_private_openssh(), &made.host_public_line()).unwrap();
        assert_eq!(adopted.login_public_line(), made.login_public_line());
        assert_eq!(adopted.host_fingerprint(), made.host_fingerprint());
        assert!(adopted.host_private_openssh().is_none());
    }

    #[test]
    fn other_texts_are_refused() {
        let keys = Keys::generate().unwrap();
        let private = keys.login_private_openssh();
        assert!(matches!(
            Keys::from_login(&private, "ssh-ed25519 nonsense"),
            Err(KeyError::Malformed { which: "host key", .. })
        ));
        assert!(matches!(
            Keys::from_login("nonsense", &keys.host_public_line()),
            Err(KeyError::Malformed { which: "login key", .. })
        ));
        let ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNjrGVv3UUh+mMT5RHxiRtOnlqvjhQtBq0VpmpCV/PwUdhOig4vkbqAcEc=";
        assert!(matches!(
            Keys::from_login(&private, ecdsa),
            Err(KeyError::Kind { which: "host key", .. })
        ));
    }
}
