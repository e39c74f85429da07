//! The files in which a step leaves outputs, variables, paths and state
//! (github-runner-protocol 7.3, forgejo-runner-protocol 8.3).

/// Why a file cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of {file} {problem}")]
pub(super) struct FileError {
    /// The file by the name of its variable.
    pub(super) file: &'static str,
    /// The line, from 1.
    pub(super) line: usize,
    /// What is wrong and what to write instead.
    pub(super) problem: String,
}

/// The longest part of a line that stands in a message, in characters: a line may hold a secret
/// that was not masked yet, and people need only recognise it.
const SHOWN_CHARACTERS: usize = 40;

/// Values in one file; more are an error, because each costs memory however short it is.
pub(super) const PAIRS: usize = 10_000;

/// The text of a file: UTF-8, or UTF-16 with a byte order mark, as PowerShell writes it.
pub(super) fn decode(bytes: &[u8]) -> String {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes),
        bytes => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Reads names and values: `NAME=value`, or `NAME<<DELIMITER`, lines, `DELIMITER`.
///
/// Nothing is trimmed. Whichever of `=` and `<<` comes first decides the form.
pub(super) fn parse_pairs(
    text: &str,
    file: &'static str,
) -> Result<Vec<(String, String)>, FileError> {
    let mut pairs = Vec::new();
    let mut lines = text.split_inclusive('\n').enumerate();
    while let Some((index, raw)) = lines.next() {
        let line = without_end(raw);
        if line.is_empty() {
            continue;
        }
        let failed = |problem| FileError { file, line: index + 1, problem };
        if pairs.len() == PAIRS {
            return Err(failed(format!("is one too many: a file holds {PAIRS} values at most")));
        }
        let block = line.find("<<");
        let equals = line.find('=');
        match (block, equals) {
            (Some(at), equals) if equals.is_none_or(|equals| at < equals) => {
                let (name, delimiter) = (&line[..at], &line[at + 2..]);
                if name.is_empty() || delimiter.is_empty() {
                    return Err(failed(format!(
                        "(\"{}\") has no name or no delimiter: write NAME<<DELIMITER",
                        shown(line)
                    )));
                }
                let value = read_block(&mut lines, delimiter).ok_or_else(|| {
                    failed(format!(
                        "begins the value of {}, but no line after it is just \"{}\"",
                        shown(name),
                        shown(delimiter)
                    ))
                })?;
                pairs.push((name.to_owned(), value));
            }
            (_, Some(at)) => pairs.push((line[..at].to_owned(), line[at + 1..].to_owned())),
            _ => {
                return Err(failed(format!(
                    "(\"{}\") is neither NAME=value nor NAME<<DELIMITER; a value of several lines \
                     needs the second form",
                    shown(line)
                )));
            }
        }
    }
    Ok(pairs)
}

/// The lines up to the delimiter with their line ends, except the last one's.
fn read_block<'a>(
    lines: &mut impl Iterator<Item = (usize, &'a str)>,
    delimiter: &str,
) -> Option<String> {
    let mut value = String::new();
    let mut end = 0;
    for (_, raw) in lines {
        let line = without_end(raw);
        if line == delimiter {
            value.truncate(end);
            return Some(value);
        }
        end = value.len() + line.len();
        value.push_str(raw);
    }
    None
}

/// Reads directories, one a line.
pub(super) fn parse_paths(text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn without_end(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse_pairs(text, "GITHUB_ENV").unwrap()
    }

    fn check(text: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> =
            expected.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect();
        assert_eq!(pairs(text), expected, "{text:?}");
    }

    #[test]
    fn pairs_are_read() {
        check("", &[]);
        check("A=1\nB=2", &[("A", "1"), ("B", "2")]);
        check("A=1\r\n\r\nB = 2 \r\n", &[("A", "1"), ("B ", " 2 ")]);
        check("A=x=y<<z\n", &[("A", "x=y<<z")]);
        check("=x\n", &[("", "x")]);
        check("A=\n", &[("A", "")]);
    }

    #[test]
    fn blocks_keep_their_inner_line_ends() {
        check("A<<E\none\n\n two\nE\nB=2", &[("A", "one\n\n two"), ("B", "2")]);
        check("A<<E\none\r\ntwo\r\nE\r\n", &[("A", "one\r\ntwo")]);
        check("A<<E\nE", &[("A", "")]);
        check("A<<E\n\nE", &[("A", "")]);
        check("A<<E\n\n\nE", &[("A", "\n")]);
        check("A<<E=\nx=y\nE =\nE=\n", &[("A", "x=y\nE =")]);
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, expected) in [
            ("A=1\nbroken\n", "line 2 of GITHUB_ENV (\"broken\") is neither"),
            ("\nA<<E\nx\n", "line 2 of GITHUB_ENV begins the value of A, but no line"),
            ("<<E\nE\n", "line 1 of GITHUB_ENV (\"<<E\") has no name"),
            ("A<<\n", "line 1 of GITHUB_ENV (\"A<<\") has no name or no delimiter"),
        ] {
            let error = parse_pairs(text, "GITHUB_ENV").unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_file_holds_so_many_values() {
        assert_eq!(pairs(&"a=\n".repeat(PAIRS)).len(), PAIRS);
        let error = parse_pairs(&"a=\n".repeat(PAIRS + 1), "GITHUB_ENV").unwrap_err();
        assert_eq!(error.line, PAIRS + 1);
    }

    #[test]
    fn byte_order_marks_are_understood() {
        assert_eq!(decode(b"\xEF\xBB\xBFA=1"), "A=1");
        assert_eq!(decode(b"\xFF\xFEA\0=\0\xE9\0\n\0"), "A=é\n");
        assert_eq!(decode(b"\xFE\xFF\0A\0=\0\xE9"), "A=é");
        assert_eq!(decode(b"A=\xFF"), "A=\u{FFFD}");
    }

    #[test]
    fn paths_are_lines() {
        assert_eq!(parse_paths("/a\r\n\n/b c\n"), ["/a", "/b c"]);
    }

    proptest! {
        #[test]
        fn no_file_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[AE<=\r\n]{0,60}") {
            let _ = parse_pairs(&decode(&bytes), "GITHUB_ENV").is_ok();
            let _ = parse_pairs(&text, "GITHUB_ENV").is_ok();
        }

        #[test]
        fn a_written_block_is_read_back(value in "[ -~\n]{0,60}") {
            prop_assume!(!value.lines().any(|line| line == "DELIMITER"));
            let text = format!("NAME<<DELIMITER\n{value}\nDELIMITER\n");
            prop_assert_eq!(pairs(&text), vec![("NAME".to_owned(), value)]);
        }
    }
}
