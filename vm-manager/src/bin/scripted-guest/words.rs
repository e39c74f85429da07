//! Command lines as a POSIX shell reads them, as far as the host writes them.

/// The command in `exec [PREFIX...] /bin/sh -c COMMAND`, which is how the host wraps every command.
pub(crate) fn wrapped(line: &str) -> Option<String> {
    let mut words = split(line)?;
    let shell = words.iter().position(|word| word == "/bin/sh")?;
    let whole = words.first().is_some_and(|word| word == "exec")
        && words.get(shell + 1).is_some_and(|word| word == "-c")
        && words.len() == shell + 3;
    if whole { words.pop() } else { None }
}

/// The words of a line; `None` when a quote is not closed.
pub(crate) fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        '\'' => break,
                        other => word.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(characters.next()?),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes() {
        let check = |line: &str, expected: &[&str]| {
            assert_eq!(split(line).unwrap(), expected, "{line}");
        };
        check("", &[]);
        check("  a\t b ", &["a", "b"]);
        check("a'b c'd ''", &["ab cd", ""]);
        check(r"'it'\''s' \ x", &["it's", " x"]);
        assert_eq!(split("'open"), None);
        assert_eq!(split("open\\"), None);
    }

    #[test]
    fn the_command_is_behind_the_shell() {
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(wrapped(line).as_deref(), expected, "{line}");
        };
        check("exec /bin/sh -c true", Some("true"));
        check("exec sudo -n /bin/sh -c 'echo '\\''x y'\\'''", Some("echo 'x y'"));
        check("exec /bin/sh -c a b", None);
        check("exec /bin/sh -c", None);
        check("/bin/sh -c true", None);
        check("exec true", None);
    }
}
