//! A guest's bytes made safe to show: a hostile guest must not drive the user's terminal.

/// The longest colour sequence that is obeyed, in bytes.
const SGR_BYTES: usize = 64;

/// Ends every colour.
const RESET: &[u8] = b"\x1b[0m";

/// Appends a line's text to `out`.
///
/// Bytes that are not UTF-8 become U+FFFD and control characters become visible pictures. Colour
/// sequences (SGR) are kept if `colours`, and end with the line; else they are left out.
pub(crate) fn clean(line: &[u8], colours: bool, out: &mut Vec<u8>) {
    if line.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        out.extend_from_slice(line);
        return;
    }
    let mut coloured = false;
    for chunk in line.utf8_chunks() {
        coloured |= clean_text(chunk.valid(), colours, out);
        if !chunk.invalid().is_empty() {
            push(char::REPLACEMENT_CHARACTER, out);
        }
    }
    if coloured {
        out.extend_from_slice(RESET);
    }
}

/// The text of a name or message on one line, without colours.
pub(crate) fn clean_name(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    clean(text.as_bytes(), false, &mut out);
    String::from_utf8(out).expect("cleaned text is UTF-8")
}

/// The parts of a line that a carriage return would show one over the other.
pub(crate) fn parts(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    // Most lines have none, and an empty line is still a line.
    let mut left = Some(line);
    std::iter::from_fn(move || {
        let rest = left?;
        match rest.iter().position(|byte| *byte == b'\r') {
            Some(end) => {
                left = Some(&rest[end + 1..]).filter(|after| !after.is_empty());
                Some(&rest[..end])
            }
            None => left.take(),
        }
    })
}

/// Whether a colour sequence was kept.
fn clean_text(text: &str, colours: bool, out: &mut Vec<u8>) -> bool {
    let mut coloured = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '\x1b'
            && let Some(length) = sgr(rest.as_bytes())
        {
            if colours {
                out.extend_from_slice(&rest.as_bytes()[..length]);
                coloured = true;
            }
            rest = &rest[length..];
            continue;
        }
        push(if c == '\t' { c } else { crate::message::picture(c) }, out);
        rest = &rest[c.len_utf8()..];
    }
    coloured
}

fn push(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// The length of the colour sequence at the start: `ESC [`, digits, `;` and `:`, `m`.
fn sgr(bytes: &[u8]) -> Option<usize> {
    let parameters = bytes.strip_prefix(b"\x1b[")?;
    let end = parameters
        .iter()
        .take(SGR_BYTES)
        .position(|byte| !matches!(byte, b'0'..=b'9' | b';' | b':'))?;
    (parameters[end] == b'm').then_some(end + 3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(line: &[u8], colours: bool, expected: &str) {
        let mut out = Vec::new();
        clean(line, colours, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{line:?}");
    }

    #[test]
    fn colours_pass_on_a_terminal_only_and_end_with_the_line() {
        check(b"plain", true, "plain");
        check(b"\x1b[1;31mred", true, "\x1b[1;31mred\x1b[0m");
        check(b"\x1b[1;31mred\x1b[0m", false, "red");
        check(b"\x1b[38:5:1mx", true, "\x1b[38:5:1mx\x1b[0m");
    }

    #[test]
    fn everything_else_that_drives_a_terminal_is_shown() {
        check(b"\x1b[2Jgone", true, "␛[2Jgone");
        check(b"\x1b]0;title\x07", true, "␛]0;title␇");
        check(b"\x1b[31", true, "␛[31");
        check(b"a\x08b\x7f", true, "a␈b␡");
        check("\u{9b}2J".as_bytes(), true, "\u{fffd}2J");
        check(b"\x9b2J", true, "\u{fffd}2J");
        check("schön\t".as_bytes(), true, "schön\t");
    }

    #[test]
    fn what_would_be_written_over_is_shown_line_by_line() {
        let check = |line: &str, expected: &[&str]| {
            let got: Vec<_> = parts(line.as_bytes()).collect();
            let expected: Vec<_> = expected.iter().map(|part| part.as_bytes()).collect();
            assert_eq!(got, expected, "{line:?}");
        };
        check("", &[""]);
        check("a", &["a"]);
        check("a\r", &["a"]);
        check("10%\r20%\r", &["10%", "20%"]);
        check("\rx", &["", "x"]);
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_guest_leave_more_than_colours(
            line in prop::collection::vec(
                prop_oneof![Just(0x1b_u8), Just(b'['), Just(b'm'), Just(b';'), any::<u8>()],
                0..80,
            ),
        ) {
            let mut out = Vec::new();
            clean(&line, true, &mut out);
            let text = String::from_utf8(out).unwrap();
            let mut rest = text.as_str();
            while let Some(at) = rest.find('\x1b') {
                let length = sgr(&rest.as_bytes()[at..]);
                prop_assert!(length.is_some());
                rest = &rest[at + length.unwrap()..];
            }
            let without: String = text.replace('\x1b', "");
            prop_assert!(without.chars().all(|c| c == '\t' || !c.is_control()));
        }
    }
}
