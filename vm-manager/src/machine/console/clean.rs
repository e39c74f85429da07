//! Console output as people can read it.

/// The longest line that is shown, in characters.
const LINE_CHARACTERS: usize = 500;

/// One line without escape sequences and control characters, with what was overwritten after a
/// carriage return left out, cut to a length.
pub(super) fn line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = strip_escapes(&text);
    // A progress display writes over itself; its last state is the line.
    let last = text.rsplit('\r').map(str::trim).find(|part| !part.is_empty()).unwrap_or_default();
    let spaced = last.chars().map(|c| if c == '\t' { ' ' } else { c });
    let mut clean: String = spaced.filter(|c| !c.is_control()).take(LINE_CHARACTERS + 1).collect();
    if let Some((cut, _)) = clean.char_indices().nth(LINE_CHARACTERS) {
        clean.truncate(cut);
        clean.push_str("...");
    }
    clean.truncate(clean.trim_end().len());
    clean
}

/// Leaves out terminal sequences (ECMA-48): ESC [ parameters letter, ESC ] text BEL, and ESC with
/// one character.
fn strip_escapes(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '\u{1b}' {
            clean.push(character);
            continue;
        }
        match rest.next() {
            Some('[') => drop(rest.find(|c| ('@'..='~').contains(c))),
            Some(']') => drop(rest.find(|c| matches!(c, '\u{7}' | '\u{1b}'))),
            _ => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_leave() {
        let check = |bytes: &[u8], expected: &str| assert_eq!(line(bytes), expected, "{bytes:?}");
        check(b"plain\r\n", "plain");
        check(b"[\x1b[0;32m  OK  \x1b[0m] Started", "[  OK  ] Started");
        check(b"10%\r20%\r30%\r", "30%");
        check(b"a\tb\x07\x00c", "a bc");
        check(b"\x1b]0;title\x07text\x1bc", "text");
        check(b"\x1b[", "");
        check(b"\xff\xfe", "\u{fffd}\u{fffd}");
        check(b"  \r\n", "");
    }

    #[test]
    fn long_lines_are_cut() {
        let long = line("ä".repeat(1000).as_bytes());
        assert_eq!(long.chars().count(), LINE_CHARACTERS + 3);
        assert!(long.ends_with("ä..."));
    }
}
