//! Amounts of memory and disk as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::{GIB, KIB, MIB};

/// A number of bytes; written `512M`, `2G`, `1.5GiB` or as a plain number of bytes.
///
/// Units are powers of 1024, with or without `B` or `iB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size; write a number with an optional K, M, G or T, such as 512M or 2G")]
pub struct ParseByteSizeError {
    text: String,
}

/// A file system with less room than this counts as full: what a write would need is not known, and
/// a file that could not be written whole leaves a few blocks.
pub const FULL_DISK: ByteSize = ByteSize(1024 * 1024);

impl ByteSize {
    /// The size in mebibytes, rounded up.
    #[must_use]
    pub fn mebibytes(self) -> u64 {
        self.0.div_ceil(MIB)
    }
}

impl FromStr for ByteSize {
    type Err = ParseByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseByteSizeError { text: text.to_owned() };
        let trimmed = text.trim();
        let digits =
            trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let unit = unit.trim().to_ascii_lowercase();
        let factor = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
            "" => 1,
            "k" => KIB,
            "m" => MIB,
            "g" => GIB,
            "t" => 1024 * GIB,
            _ => return Err(error()),
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(Self).ok_or_else(error);
        }
        let number: f64 = number.parse().map_err(|_| error())?;
        let bytes = number * factor as f64;
        // Every size below 2^53 is exact in a double; nothing here has a petabyte.
        if bytes.is_finite() && (0.0..9e15).contains(&bytes) {
            Ok(Self(bytes as u64))
        } else {
            Err(error())
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            bytes if bytes >= GIB => (GIB, "GiB"),
            bytes if bytes >= MIB => (MIB, "MiB"),
            bytes if bytes >= KIB => (KIB, "KiB"),
            bytes => return write!(f, "{bytes} B"),
        };
        if self.0.is_multiple_of(unit) {
            write!(f, "{} {name}", self.0 / unit)
        } else {
            write!(f, "{:.1} {name}", self.0 as f64 / unit as f64)
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"512M\" or a number of bytes")
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes).map(ByteSize).map_err(|_| E::custom("a size is not negative"))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }
        // Text formats hold either form; binary formats only what we write ourselves.
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(Visitor)
        } else {
            deserializer.deserialize_u64(Visitor)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, bytes: Option<u64>) {
        assert_eq!(text.parse::<ByteSize>().ok(), bytes.map(ByteSize), "{text}");
    }

    #[test]
    fn sizes_as_people_write_them() {
        check("512M", Some(512 * MIB));
        check("2g", Some(2 * GIB));
        check("1.5 GiB", Some(3 * GIB / 2));
        check("100", Some(100));
        check("64kb", Some(64 * KIB));
        check("", None);
        check("-1", None);
        check("1e3", None);
        check("12 parsecs", None);
        check("99999999999999T", None);
    }

    #[test]
    fn sizes_as_we_write_them() {
        assert_eq!(ByteSize(512 * MIB).to_string(), "512 MiB");
        assert_eq!(ByteSize(3 * GIB / 2).to_string(), "1.5 GiB");
        assert_eq!(ByteSize(10).to_string(), "10 B");
    }
}
