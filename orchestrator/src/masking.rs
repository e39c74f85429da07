//! Masking: no secret of a job appears in anything that leaves the orchestrator.
//!
//! [`Masker`] holds the values and replaces them in whole texts; [`LineMasker`] does so on the
//! lines of a log, where a value of several lines may arrive one line at a time.
//! Rules: github-runner-protocol 6.8 and forgejo-runner-protocol 6.7.

mod derived;
mod lines;
mod scan;

pub use lines::{HeldLines, LineMasker};

use std::borrow::Cow;
use std::collections::HashSet;

use common::limits::{ALL_MASK_BYTES, MASK_BYTES, MASKS};

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
    /// The bytes of all patterns, and of the longest.
    bytes: usize,
    longest: usize,
    /// Some value was refused: see [`Added::TooMany`].
    is_full: bool,
}

/// Whether a value was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It will be masked from now on.
    Taken,
    /// It was masked before already.
    Known,
    /// It is empty or white space, and masking it would destroy the log.
    Empty,
    /// It is one value too many, or too long; see [`common::limits::MASKS`] and
    /// [`common::limits::MASK_BYTES`].
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
            return Added::Known;
        }
        if self.values >= MASKS || value.len() > MASK_BYTES {
            return self.refuse();
        }
        let unix = value.replace("\r\n", "\n");
        let mut forms = vec![unix.as_str(), unix.trim()];
        if unix.contains('\n') {
            forms.extend(unix.lines().map(str::trim).filter(|line| line.len() >= ALONE_BYTES));
        }
        let mut patterns: Vec<Vec<u8>> =
            forms.iter().map(|form| form.as_bytes().to_vec()).collect();
        patterns.extend(forms.iter().flat_map(|form| derived::encodings(form)));
        patterns.retain(|pattern| !self.known.contains(pattern));
        let bytes: usize = patterns.iter().map(Vec::len).sum();
        if self.bytes + bytes > ALL_MASK_BYTES {
            return self.refuse();
        }
        self.values += 1;
        if let Some((first, _)) = unix.split_once('\n') {
            self.first_lines.push(first.as_bytes().to_vec());
        }
        for pattern in patterns {
            self.bytes += pattern.len();
            self.longest = self.longest.max(pattern.len());
            if self.known.insert(pattern.clone()) {
                self.scanner.add(pattern);
            }
        }
        Added::Taken
    }

    fn refuse(&mut self) -> Added {
        self.is_full = true;
        Added::TooMany
    }

    /// Whether a value was refused, which the log then shows as it is.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
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

    /// How many bytes at the end of a text that was cut may be the beginning of a value.
    #[must_use]
    pub fn reach(&self) -> usize {
        self.longest.saturating_sub(1)
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
