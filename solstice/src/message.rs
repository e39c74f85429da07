//! Words for people on standard error: errors, hints, warnings, notices.
//!
//! Standard output is for data. Colours come and go with the terminal, `NO_COLOR` and `CLICOLOR`;
//! every message says what it is without them.

use std::io::Write;

use anstyle::{AnsiColor, Style};

use crate::exit::CommandError;

/// The style of the word `error`.
pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
/// The style of the word `warning`.
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// The style of the word `hint` and of notices.
pub(crate) const HINT: Style = AnsiColor::Cyan.on_default().bold();
/// The style of what matters less.
pub(crate) const DIM: Style = Style::new().dimmed();

/// Prints an error and what to do about it.
pub fn error(error: &CommandError) {
    print(ERROR, "error", &error.to_string());
    if let Some(hint) = error.advice() {
        print(HINT, "hint", hint);
    }
}

/// Prints a warning.
pub fn warning(text: &str) {
    print(WARNING, "warning", text);
}

/// Prints a sentence about what the command does.
pub fn notice(text: &str) {
    let mut stream = anstream::stderr().lock();
    // Nobody is left to be told when standard error is closed.
    drop(writeln!(stream, "{}", visible(text)));
}

fn print(style: Style, word: &str, text: &str) {
    let mut stream = anstream::stderr().lock();
    drop(writeln!(stream, "{style}{word}{style:#}: {}", visible(text)));
}

/// Text that may hold a guest's or a file's bytes, with control characters made visible.
pub(crate) fn visible(text: &str) -> String {
    text.chars().map(|c| if c == '\n' || c == '\t' { c } else { picture(c) }).collect()
}

/// The picture of a control character, every other character itself.
pub(crate) fn picture(c: char) -> char {
    match u32::from(c) {
        code @ 0..0x20 => char::from_u32(0x2400 + code).unwrap_or(char::REPLACEMENT_CHARACTER),
        0x7f => '\u{2421}',
        0x80..=0x9f => char::REPLACEMENT_CHARACTER,
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(visible("a\x1b[2Jb\n\tc\u{9b}d\x7f"), "a␛[2Jb\n\tc\u{fffd}d␡");
    }
}
