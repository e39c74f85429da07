//! The login key of a machine that may outlive its owner.

use std::path::Path;

use zeroize::Zeroizing;

use super::files::read_bounded;
use crate::ssh::Keys;

/// An OpenSSH ed25519 key has some four hundred bytes.
const KEY_BYTES: u64 = 16 * 1024;

/// Reads a private login key, for a guest that shows this host key; else says why it cannot be used.
pub(crate) fn read_login_key(path: &Path, host_key: &str) -> Result<Keys, String> {
    let found = read_bounded(path, KEY_BYTES).map_err(|error| error.to_string())?;
    let bytes = Zeroizing::new(found.ok_or_else(|| format!("there is no `{}`", path.display()))?);
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is no text".to_owned())?;
    Keys::from_login(text, host_key).map_err(|error| error.to_string())
}
