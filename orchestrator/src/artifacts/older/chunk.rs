//! What the headers of a chunk say of it.

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use md5::Md5;
use md5::digest::Output;

use super::super::ARTIFACT_BYTES;
use crate::answer::Refusal;

/// The MD5 of the chunk in base64.
const MD5: &str = "x-actions-results-md5";

/// The bytes of the whole file, before it was packed.
const LENGTH: &str = "x-tfs-filelength";

/// A part of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The place of its first byte.
    pub(super) first: u64,
    pub(super) count: u64,
    /// How many bytes all chunks of the file have together.
    pub(super) total: u64,
    /// Whether those are gzip's.
    pub(super) is_packed: bool,
    md5: Option<String>,
}

impl Chunk {
    /// Reads the headers.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let find = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let range = find(header::CONTENT_RANGE.as_str()).and_then(range);
        let (first, count, total) = range.ok_or_else(|| {
            Refusal::invalid("the chunk has no Content-Range: bytes A-B/TOTAL that makes sense")
        })?;
        if total > ARTIFACT_BYTES {
            let text = format!("an artifact has {ARTIFACT_BYTES} bytes at most");
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        let is_packed = match find(header::CONTENT_ENCODING.as_str()) {
            None | Some("" | "identity") => false,
            Some("gzip") => true,
            Some(other) => {
                let text = format!("the encoding {other:?} is not known; gzip is");
                return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
            }
        };
        let length = find(LENGTH).map(|text| number(text).ok_or(text)).transpose();
        match length {
            Err(text) => Err(Refusal::invalid(format!("{LENGTH} is {text:?} and no number"))),
            Ok(Some(length)) if !is_packed && length != total => Err(Refusal::invalid(format!(
                "{LENGTH} is {length}, and by its Content-Range the file has {total} bytes"
            ))),
            Ok(_) => Ok(Self { first, count, total, is_packed, md5: find(MD5).map(str::to_owned) }),
        }
    }

    /// The name of its file.
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.first, self.count)
    }

    /// The first byte and the count of a chunk whose file has this name.
    pub(super) fn places(name: &str) -> Option<(u64, u64)> {
        let (first, count) = name.split_once('-')?;
        Some((number(first)?, number(count)?))
    }

    /// Whether what came is what was sent, as far as was said. Clients send a chunk again after the
    /// status that a forge has for this.
    pub(super) fn check(&self, count: u64, digest: &Output<Md5>) -> Result<(), Refusal> {
        if count != self.count {
            let text = format!("{count} bytes came of a chunk that has {}", self.count);
            return Err(Refusal::invalid(text));
        }
        match &self.md5 {
            Some(md5) if *md5 != BASE64_STANDARD.encode(digest) => Err(Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the chunk has another MD5 than {MD5} says"),
            )),
            _ => Ok(()),
        }
    }
}

/// The first, the count and the total of `bytes A-B/TOTAL`. That of an empty file is `bytes 0--1/0`.
fn range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let total = number(total)?;
    if total == 0 {
        return (range == "0--1").then_some((0, 0, 0));
    }
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last && last < total).then(|| (first, last - first + 1, total))
}

/// A number of digits and nothing else.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        for (text, expected) in [
            ("bytes 0-1023/4096", Some((0, 1024, 4096))),
            ("bytes 4095-4095/4096", Some((4095, 1, 4096))),
            ("bytes 0--1/0", Some((0, 0, 0))),
            ("bytes 0-0/0", None),
            ("bytes 0--1/1", None),
            ("bytes 0-4096/4096", None),
            ("bytes 5-4/10", None),
            ("bytes +0-1/2", None),
            ("bytes 0-1/*", None),
            ("bytes 0-18446744073709551615/18446744073709551615", None),
            ("bytes 0-1/18446744073709551616", None),
            ("bytes=0-1/2", None),
            ("", None),
        ] {
            assert_eq!(range(text), expected, "{text:?}");
        }
    }

    #[test]
    fn headers_say_what_makes_sense() {
        let read = |fields: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.insert(*name, value.parse().unwrap());
            }
            Chunk::of(&headers)
        };
        let range = ("content-range", "bytes 2-3/10");
        let chunk = read(&[range, (LENGTH, "10")]).unwrap();
        assert_eq!((chunk.first, chunk.count, chunk.total, chunk.is_packed), (2, 2, 10, false));
        assert_eq!(Chunk::places(&chunk.name()), Some((2, 2)));
        let packed = read(&[range, (LENGTH, "99"), ("content-encoding", "gzip")]).unwrap();
        assert!(packed.is_packed);
        for wrong in [
            &[(LENGTH, "10")][..],
            &[range, (LENGTH, "11")],
            &[range, (LENGTH, "ten")],
            &[range, ("content-encoding", "br")],
            &[("content-range", "bytes 0-9/99999999999999")],
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
