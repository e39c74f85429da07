//! The conversation that makes a clone of a template a machine of its own, over a serial port.
//!
//! ```text
//!  host                                            guest program, frozen into the template
//!      │◀──────────── "solstice-personal 2" ───────│  it listens; the template is frozen behind this
//!      │                                           │
//!      │── Word::Personal ────────────────────────▶│  in the clone
//!      │◀──────────── Answer::Clock ───────────────│  how late is it? some times
//!      │── Word::Clock ───────────────────────────▶│
//!      │◀──────────── Answer::Done or Failed ──────│
//!      │── Word::Heard ───────────────────────────▶│
//!      │◀──────────── Answer::Over ────────────────│  it ends
//! ```
//!
//! A serial port may lose what comes while a guest has no time for it. So every line has a digest in
//! front, a line that arrived damaged is answered with [`Answer::Again`] or asked for again, answers
//! about the clock name their question, and whoever hears nothing for a while says something.
//!
//! Nothing else may use the guest's random numbers before: all clones of a template have the same
//! ones until the seed is in (vm-facts 3). So this is no SSH connection.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Timestamp;
use crate::request::Secret;

/// What the guest program says when it listens; one line.
pub const GREETING: &str = "solstice-personal 2";
/// The longest line, either way.
pub const LINE_BYTES: usize = 16 * 1024;
/// The digits of the digest in front of a line.
const DIGEST_DIGITS: usize = 16;
/// The random bytes that a clone gets.
pub const SEED_BYTES: usize = 64;
/// The bytes of the generator of which the answer has the digest.
pub const SAMPLE_BYTES: usize = 1024;

/// What the host says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Become this machine.
    Personal(Box<Personal>),
    /// How late it is on the host.
    Clock {
        /// The number of the question.
        question: u32,
        /// The time when it was answered.
        now: Timestamp,
    },
    /// The last answer has arrived.
    Heard,
}

/// Everything by which a clone differs from its template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Personal {
    /// [`SEED_BYTES`] random bytes for the kernel's generator, in hexadecimal digits.
    pub seed: Secret,
    /// The host name.
    pub hostname: String,
    /// The machine id: 32 hexadecimal digits.
    pub machine_id: String,
    /// The user that may log in.
    pub user: String,
    /// The only key that may: a line of `authorized_keys`.
    pub authorized_key: String,
    /// The host key, an unencrypted OpenSSH file.
    pub host_key: Secret,
    /// Its public part, one line.
    pub host_public_key: String,
}

/// What the guest program says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The word did not arrive as it was said.
    Again,
    /// It asks for the host's clock.
    Clock {
        /// The number of the question.
        question: u32,
    },
    /// The clone is a machine of its own.
    Done {
        /// The digest (SHA-256, hexadecimal) of the first [`SAMPLE_BYTES`] of the kernel's generator
        /// after the seed. No two machines have the same.
        sample: String,
    },
    /// It is not, and must not be used.
    Failed {
        /// Why.
        reason: String,
    },
    /// The guest program ends, and leaves the port to the next one.
    Over,
}

/// A word or an answer as a line with its digest in front.
///
/// # Panics
/// Never: both have a JSON form.
#[must_use]
pub fn line(said: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_vec(said).expect("it has a JSON form");
    let mut line = digest(&text).into_bytes();
    line.push(b' ');
    line.extend(text);
    line.push(b'\n');
    line
}

/// What a line says; nothing if not all of it arrived.
#[must_use]
pub fn read<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let (found, rest) = line.split_at_checked(DIGEST_DIGITS)?;
    let text = rest.strip_prefix(b" ")?.strip_suffix(b"\n")?;
    (digest(text).as_bytes() == found).then(|| serde_json::from_slice(text).ok())?
}

fn digest(text: &[u8]) -> String {
    let mut digits = hex::encode(Sha256::digest(text));
    digits.truncate(DIGEST_DIGITS);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_lost_a_part_says_nothing() {
        let whole = line(&Answer::Clock { question: 7 });
        assert_eq!(read(&whole), Some(Answer::Clock { question: 7 }));
        assert_eq!(read::<Word>(&whole), None, "another kind of thing");
        for lost in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged.remove(lost);
            assert_eq!(read::<Answer>(&damaged), None, "byte {lost}");
            assert_eq!(read::<Answer>(&whole[..lost]), None, "cut at {lost}");
        }
    }

    #[test]
    fn everything_that_is_said_fits_into_a_line() {
        let long = "x".repeat(1000);
        let personal = Personal {
            seed: Secret::new(hex::encode([0; SEED_BYTES])),
            hostname: "h".repeat(63),
            machine_id: "0".repeat(32),
            user: "u".repeat(32),
            authorized_key: long.clone(),
            host_key: Secret::new(long.as_str()),
            host_public_key: long,
        };
        assert!(line(&Word::Personal(Box::new(personal))).len() < LINE_BYTES);
    }
}
