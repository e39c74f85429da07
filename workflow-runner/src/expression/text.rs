//! Comparing text without regard to case.
//!
//! GitHub compares by UTF-16 code units after a simple upper-case mapping that does not depend on
//! the language of the system (github-runner-protocol 5.8, "ordinal ignoring case").

use std::cmp::Ordering;

/// The upper-case form that comparison uses. Characters whose upper-case form is longer than one
/// character stay as they are, and so do the dotless i and the long s, which would otherwise equal
/// an ASCII letter.
pub(super) fn fold_char(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_uppercase();
    }
    if matches!(c, '\u{131}' | '\u{17f}') {
        return c;
    }
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(single), None) => single,
        _ => c,
    }
}

/// A text in the form that comparison uses.
pub(super) fn fold(text: &str) -> String {
    text.chars().map(fold_char).collect()
}

/// Whether two texts are equal without regard to case.
pub(super) fn equal(a: &str, b: &str) -> bool {
    // The first is quick where they are equal, the second ends at the first difference.
    a.eq_ignore_ascii_case(b) || a.chars().map(fold_char).eq(b.chars().map(fold_char))
}

/// The order of two texts without regard to case.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    a.chars().map(utf16_rank).cmp(b.chars().map(utf16_rank))
}

/// Whether `text` contains `part`, without regard to case.
pub(super) fn contains(text: &str, part: &str) -> bool {
    fold(text).contains(&fold(part))
}

/// Whether `text` starts with `part`, without regard to case.
pub(super) fn starts_with(text: &str, part: &str) -> bool {
    let mut rest = text.chars().map(fold_char);
    part.chars().map(fold_char).all(|c| rest.next() == Some(c))
}

/// Whether `text` ends with `part`, without regard to case.
pub(super) fn ends_with(text: &str, part: &str) -> bool {
    let mut rest = text.chars().rev().map(fold_char);
    part.chars().rev().map(fold_char).all(|c| rest.next() == Some(c))
}

/// A number that orders folded characters as their UTF-16 code units do: surrogate pairs stand
/// before the last part of the basic plane.
fn utf16_rank(c: char) -> u32 {
    let code = u32::from(fold_char(c));
    if (0xe000..=0xffff).contains(&code) { code + 0x20_0000 } else { code }
}
