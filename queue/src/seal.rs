//! Sealing: AES-256-GCM under a key of the installation, from which a key for each purpose and
//! owner is derived.
//!
//! Sealed bytes are one byte that names this format, the eight bytes of the key's id, the twelve of
//! a random nonce, then the encrypted bytes with their tag of sixteen. Format 1: the key is HKDF-SHA256
//! of the installation's key with the salt [`SALT`], and as info the length of the purpose (one
//! byte), the purpose and the owner.

mod key_file;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, hkdf, rand};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

pub use key_file::KeyFileError;

/// Why sealed bytes cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// They were sealed with a key that is not in the ring.
    #[error(
        "sealed with the key {id}, which this installation does not have; add it to `seal_keys`"
    )]
    UnknownKey {
        /// The key's id.
        id: String,
    },
    /// They were changed, or belong to something else.
    #[error("sealed bytes do not belong to {context}, or were changed")]
    Broken {
        /// What they were taken for.
        context: &'static str,
    },
}

/// Sealed bytes with the id of their key and their nonce. Serialized as [`Sealed::to_bytes`].
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Names the key; not secret.
    key: KeyId,
    nonce: [u8; NONCE_LEN],
    /// The encrypted bytes and their tag.
    bytes: Vec<u8>,
}

/// The keys of an installation: the first seals, all open.
#[derive(Clone)]
pub struct KeyRing(Arc<[Key]>);

/// Seals for one purpose and owner; see [`KeyRing::sealer`].
#[derive(Debug)]
pub struct Sealer {
    id: KeyId,
    key: LessSafeKey,
}

/// Format 1 of sealed bytes, as their first byte.
const FORMAT: u8 = 1;
const SALT: &[u8] = b"solstice seal 1";
const ID_CONTEXT: &[u8] = b"solstice seal key id 1";
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_LEN;
const KEY_ID_BYTES: usize = 8;

type KeyId = [u8; KEY_ID_BYTES];
type Secret = Zeroizing<[u8; KEY_BYTES]>;

struct Key {
    id: KeyId,
    /// What HKDF extracts from the installation's key.
    root: hkdf::Prk,
}

impl Sealed {
    /// One string of bytes, to be stored.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.stored_bytes());
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(&self.nonce);
        bytes.extend_from_slice(&self.bytes);
        bytes
    }

    /// Reads what [`Sealed::to_bytes`] gave; `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&FORMAT, rest) = bytes.split_first()? else { return None };
        let (key, rest) = rest.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let bytes = (rest.len() >= TAG_BYTES).then(|| rest.to_vec())?;
        Some(Self { key: *key, nonce: *nonce, bytes })
    }

    /// How long [`Sealed::to_bytes`] is.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        HEADER_BYTES + self.bytes.len()
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.bytes.len())
    }
}

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_bytes())
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        Self::from_bytes(&bytes).ok_or_else(|| de::Error::custom("not sealed bytes of format 1"))
    }
}

impl KeyRing {
    /// A ring with one new key, which is nowhere else: for tests and for `solstice run` by itself.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self::of([new_secret()])
    }

    /// Reads the key in a file of mode 0600, or makes both on first use. The file holds one line of
    /// 64 hexadecimal digits.
    ///
    /// # Errors
    /// The file cannot be read or made, others may read it, or it holds no key.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyFileError> {
        if let Some(secret) = key_file::read(path)? {
            return Ok(Self::of([secret]));
        }
        key_file::create(path, &new_secret())?;
        // What counts is what lies there: another process may have been faster.
        Self::load(&[path.to_owned()])
    }

    /// Reads key files: the first key seals, all open.
    ///
    /// # Errors
    /// See [`KeyRing::load_or_create`]; nothing is made.
    pub fn load(paths: &[PathBuf]) -> Result<Self, KeyFileError> {
        if paths.is_empty() {
            return Err(KeyFileError::new(Path::new(""), "no key file is named"));
        }
        let read = |path: &PathBuf| key_file::read(path)?.ok_or_else(|| key_file::missing(path));
        Ok(Self::of(paths.iter().map(read).collect::<Result<Vec<_>, _>>()?))
    }

    /// Seals bytes for a purpose, such as `job` or `segment`, and an owner, such as a job's id. Each
    /// purpose and owner has a key of its own. `bound` is not in the result but must be the same when
    /// it is opened.
    #[must_use]
    pub fn seal(&self, purpose: &'static str, owner: &[u8], bound: &[u8], plain: &[u8]) -> Sealed {
        self.sealer(purpose, owner).seal(bound, plain)
    }

    /// The key of one purpose and owner, for who seals often: making it costs more than sealing a
    /// line.
    #[must_use]
    pub fn sealer(&self, purpose: &'static str, owner: &[u8]) -> Sealer {
        let key = &self.0[0];
        Sealer { id: key.id, key: key.derive(purpose, owner) }
    }

    /// Opens what [`KeyRing::seal`] gave.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn open(
        &self,
        purpose: &'static str,
        owner: &[u8],
        bound: &[u8],
        sealed: &Sealed,
    ) -> Result<Vec<u8>, SealError> {
        let key = self
            .0
            .iter()
            .find(|key| key.id == sealed.key)
            .ok_or_else(|| SealError::UnknownKey { id: hex::encode(sealed.key) })?;
        let mut bytes = sealed.bytes.clone();
        let length = key
            .derive(purpose, owner)
            .open_in_place(Nonce::assume_unique_for_key(sealed.nonce), Aad::from(bound), &mut bytes)
            .map_err(|_| SealError::Broken { context: purpose })?
            .len();
        bytes.truncate(length);
        Ok(bytes)
    }

    /// The ids of the keys, the sealing one first; not secret.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.0.iter().map(|key| hex::encode(key.id)).collect()
    }

    fn of(secrets: impl IntoIterator<Item = Secret>) -> Self {
        Self(secrets.into_iter().map(|secret| Key::new(&secret)).collect())
    }
}

impl Sealer {
    /// See [`KeyRing::seal`].
    #[must_use]
    pub fn seal(&self, bound: &[u8], plain: &[u8]) -> Sealed {
        let mut nonce = [0; NONCE_LEN];
        fill_random(&mut nonce);
        // The tag must not make the buffer grow: a copy of the plain bytes would stay behind.
        let mut bytes = Vec::with_capacity(plain.len() + TAG_BYTES);
        bytes.extend_from_slice(plain);
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound),
                &mut bytes,
            )
            .expect("messages are far below the 64 GiB that one nonce can seal");
        Sealed { key: self.id, nonce, bytes }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyRing").field(&self.ids()).finish()
    }
}

impl Key {
    fn new(secret: &Secret) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(ID_CONTEXT);
        hash.update(&**secret);
        let hash = hash.finish();
        let (id, _) = hash.as_ref().split_first_chunk().expect("SHA-256 has 32 bytes");
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(&**secret);
        Self { id: *id, root }
    }

    fn derive(&self, purpose: &'static str, owner: &[u8]) -> LessSafeKey {
        let length = u8::try_from(purpose.len()).expect("a purpose is one short word");
        let length = [length];
        let info = [&length, purpose.as_bytes(), owner];
        let derived =
            self.root.expand(&info, &AES_256_GCM).expect("32 bytes are within HKDF's limit");
        LessSafeKey::new(UnboundKey::from(derived))
    }
}

fn new_secret() -> Secret {
    let mut secret = Secret::default();
    fill_random(&mut *secret);
    secret
}

fn fill_random(bytes: &mut [u8]) {
    rand::fill(bytes).expect("the library ends the process itself where there is no randomness");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sealed_bytes_open_for_the_same_purpose_owner_and_binding_only(
            plain in prop::collection::vec(any::<u8>(), 0..300),
            bound in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let keys = KeyRing::ephemeral();
            let sealed = keys.seal("job", b"one", &bound, &plain);
            let sealed = Sealed::from_bytes(&sealed.to_bytes()).unwrap();
            prop_assert_eq!(keys.open("job", b"one", &bound, &sealed), Ok(plain));
            let broken = |context| Err(SealError::Broken { context });
            prop_assert_eq!(keys.open("log", b"one", &bound, &sealed), broken("log"));
            prop_assert_eq!(keys.open("job", b"two", &bound, &sealed), broken("job"));
            let mut other = bound;
            other.push(0);
            prop_assert_eq!(keys.open("job", b"one", &other, &sealed), broken("job"));
        }

        #[test]
        fn every_bit_and_every_byte_counts(
            plain in prop::collection::vec(any::<u8>(), 0..60),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let keys = KeyRing::ephemeral();
            let good = keys.seal("job", b"one", b"bound", &plain).to_bytes();
            let at = at.index(good.len());
            let mut changed = good.clone();
            changed[at] ^= 1 << bit;
            for bad in [changed.as_slice(), &good[..at]] {
                if let Some(sealed) = Sealed::from_bytes(bad) {
                    prop_assert!(keys.open("job", b"one", b"bound", &sealed).is_err());
                }
            }
        }
    }

    #[test]
    fn a_purpose_and_its_owner_do_not_run_together() {
        let keys = KeyRing::ephemeral();
        let sealed = keys.seal("job", b"s", b"", b"x");
        assert!(keys.open("jobs", b"", b"", &sealed).is_err());
    }

    #[test]
    fn a_key_that_is_not_there_is_named() {
        let (ours, theirs) = (KeyRing::ephemeral(), KeyRing::ephemeral());
        let sealed = theirs.seal("job", b"one", b"", b"x");
        let unknown = SealError::UnknownKey { id: theirs.ids()[0].clone() };
        assert_eq!(ours.open("job", b"one", b"", &sealed), Err(unknown));
    }

    #[test]
    fn the_same_bytes_are_never_sealed_to_the_same() {
        let keys = KeyRing::ephemeral();
        assert_ne!(keys.seal("job", b"", b"", b"x"), keys.seal("job", b"", b"", b"x"));
    }
}
