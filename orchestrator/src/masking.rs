//! Masking: no secret of a job appears in anything that leaves the orchestrator.
//!
//! [`Masker`] holds the values and replaces them in whole texts; [`LineMasker`] does so on the
//! lines of a log, where a value of several lines may arrive one line at a time.
//! Rules: github-runner-protocol 6.8 and forgejo-runner-protocol 6.7.

mod derived;
mod lines;
mod scan;

pub use lines::LineMasker;

use std::borrow::Cow;
use std::collections::HashSet;

use common::limits::MASKS;

use scan::{Position, Scanner};

/// What stands in the place of a masked value.
pub const REPLACEMENT: &str = "***";

/// The shortest line of a value of several lines that is masked wherever it stands. Shorter ones,
/// such as the braces of a JSON document, are masked only where their neighbours surround them.
const ALONE_BYTES: usize = 3;

/// The values that must not be seen, with their encodings.
#[derive(Debug, Default)]
pub struct Masker {
    known: HashSet<Vec<u8>>,
    values: usize,
    scanner: Scanner,
    /// The first lines of the values that have several.
    first_lines: Vec<Vec<u8>>,
}

/// Whether a value was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It will be masked from now on.
    Taken,
    /// It is empty or white space, and masking it would destroy the log.
    Empty,
    /// It is one value too many; see [`common::limits::MASKS`].
    TooMany,
}

impl Masker {
    /// A masker for these values.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut masker = Self::default();
        for value in values {
            masker.add(value);
        }
        masker
    }

    /// Masks a value from now on: as it is, each of its lines, and its usual encodings.
    pub fn add(&mut self, value: &str) -> Added {
        let value = value.trim_matches(['\r', '\n']);
        if value.trim().is_empty() {
            return Added::Empty;
        }
        if self.known.contains(value.as_bytes()) {
            return Added::Taken;
        }
        if self.values >= MASKS {
            return Added::TooMany;
        }
        self.values += 1;
        let unix = value.replace("\r\n", "\n");
        let mut patterns = vec![unix.clone().into_bytes()];
        if let Some((first, _)) = unix.split_once('\n') {
            self.first_lines.push(first.as_bytes().to_vec());
            let lines = unix.lines().map(str::trim).filter(|line| line.len() >= ALONE_BYTES);
            patterns.extend(lines.map(|line| line.as_bytes().to_vec()));
        }
        patterns.extend(derived::encodings(value));
        for pattern in patterns {
            if self.known.insert(pattern.clone()) {
                self.scanner.add(pattern);
            }
        }
        Added::Taken
    }

    /// The text with every masked value replaced.
    pub fn mask<'a>(&mut self, text: &'a [u8]) -> Cow<'a, [u8]> {
        if self.scanner.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut position = Position::default();
        let ranges = self.scanner.scan(&mut position, text);
        if ranges.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(replace(text, &ranges)) }
    }

    /// The text with every masked value replaced.
    pub fn mask_text<'a>(&mut self, text: &'a str) -> Cow<'a, str> {
        match self.mask(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// How many bytes at the end of `text` are the beginning of a value that goes on behind it: what
    /// a cut must not show.
    #[must_use]
    pub fn begun_at_end(&self, text: &[u8]) -> usize {
        let begun = |pattern: &Vec<u8>| {
            let longest = pattern.len().saturating_sub(1).min(text.len());
            (ALONE_BYTES..=longest).rev().find(|length| text.ends_with(&pattern[..*length]))
        };
        self.known.iter().filter_map(begun).max().unwrap_or(0)
    }

    /// Whether the text contains a masked value.
    pub fn contains_masked(&mut self, text: &str) -> bool {
        matches!(self.mask(text.as_bytes()), Cow::Owned(_))
    }
}

/// Replaces sorted ranges that do not overlap.
fn replace(text: &[u8], ranges: &[std::ops::Range<usize>]) -> Vec<u8> {
    let mut result = Vec::with_capacity(text.len());
    let mut end = 0;
    for range in ranges {
        result.extend_from_slice(&text[end..range.start]);
        result.extend_from_slice(REPLACEMENT.as_bytes());
        end = range.end;
    }
    result.extend_from_slice(&text[end..]);
    result
}

#[cfg(test)]
mod tests;
