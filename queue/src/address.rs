//! Where a job's events go.

use std::fmt;
use std::str::FromStr;

/// The name of one forge runner's event queue: up to 100 lower-case letters, digits, dots, dashes
/// and underscores, so that it can be part of a queue's name and of a file's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(String);

/// A text that is not an address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an address: write 1 to {MOST} of the characters a-z, 0-9, `.`, `_` and `-`, a \
     letter or digit first"
)]
pub struct AddressError {
    text: String,
}

const MOST: usize = 100;

impl Address {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let fits = text.len() <= MOST
            && text.starts_with(plain)
            && text.chars().all(|c| plain(c) || matches!(c, '.' | '_' | '-'));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            let text = text.chars().take(MOST).collect();
            Err(AddressError { text })
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_addresses() {
        for good in ["a", "forgejo-1", "0.x_y"] {
            assert_eq!(good.parse::<Address>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "A", "a/b", "../x", "a b", "ä", &"x".repeat(101)] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
    }
}
