//! The way back from a character of a scalar to its place in the file.
//!
//! Folding and block indentation only change white space, so the n-th character of a scalar that is
//! not white space is also the n-th such character of its source, once quotes and escapes are read.

use common::plan::Location;

use super::node::{Kind, Node, Style};
use super::source::Source;

impl Node {
    /// Where the character at `offset` of this scalar's text stands in the file.
    ///
    /// Exact for every character that is not white space; for white space it is the place right
    /// after the character before it. For a value that is no scalar it is the value's place.
    pub fn place(&self, source: &Source, offset: usize) -> Location {
        let Kind::Scalar(scalar) = &self.kind else {
            return self.location;
        };
        let Some(raw) = source.text().get(self.span.clone()) else {
            return self.location;
        };
        let before = scalar.text.chars().take(offset).filter(|c| !c.is_whitespace()).count();
        let on_text = scalar.text.chars().nth(offset).is_some_and(|c| !c.is_whitespace());
        let mut visible = Visible::new(raw, scalar.style);
        let found = if on_text {
            visible.nth(before).map(|(start, _)| start)
        } else if before > 0 {
            visible.nth(before - 1).map(|(_, end)| end)
        } else {
            None
        };
        match found {
            Some(byte) => source.location(self.span.start + byte),
            None => self.location,
        }
    }
}

/// The characters of a scalar's source that stand for something visible, as byte ranges.
struct Visible<'a> {
    raw: &'a str,
    style: Style,
    /// The next byte to read.
    at: usize,
}

impl<'a> Visible<'a> {
    fn new(raw: &'a str, style: Style) -> Self {
        let at = match style {
            Style::Plain => 0,
            Style::SingleQuoted | Style::DoubleQuoted => 1,
            // The header line: the indicator, its modifiers and perhaps a comment.
            Style::Literal | Style::Folded => header_end(raw),
        };
        Self { raw, style, at }
    }
}

fn header_end(raw: &str) -> usize {
    if raw.starts_with(['|', '>']) { raw.find('\n').map_or(raw.len(), |end| end + 1) } else { 0 }
}

impl Iterator for Visible<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.raw.get(self.at..)?;
            let first = rest.chars().next()?;
            let (length, visible) = match (self.style, first) {
                (Style::SingleQuoted, '\'') if rest.starts_with("''") => (2, true),
                (Style::SingleQuoted, '\'') | (Style::DoubleQuoted, '"') => return None,
                (Style::DoubleQuoted, '\\') => escape(rest),
                (_, c) => (c.len_utf8(), !c.is_whitespace()),
            };
            let start = self.at;
            self.at += length;
            if visible {
                return Some((start, self.at));
            }
        }
    }
}

/// The length of an escape in double quotes, and whether it stands for something visible.
fn escape(rest: &str) -> (usize, bool) {
    let Some(kind) = rest.chars().nth(1) else {
        return (1, false);
    };
    let digits = match kind {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        // Line feed, tab, return, vertical tab, form feed, spaces, line separators, and an escaped
        // line end.
        'n' | 't' | '\t' | 'r' | 'v' | 'f' | ' ' | 'N' | '_' | 'L' | 'P' | '\n' | '\r' => {
            return (1 + kind.len_utf8(), false);
        }
        _ => return (1 + kind.len_utf8(), true),
    };
    let length = (2 + digits).min(rest.len());
    let visible = rest
        .get(2..length)
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .and_then(char::from_u32)
        .is_none_or(|c| !c.is_whitespace());
    // The parser has checked the digits; a cut inside a character cannot happen.
    (length, visible)
}
