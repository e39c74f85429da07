//! Splitting a text into words as a shell does, without anything else that a shell does.

/// Splits by white space; quotes and a backslash hold together what they would in a shell. The error
/// says which quote is not closed.
pub(in crate::engine) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), character) if character == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '\\') => match characters.next() {
                // A line that goes on.
                Some('\n') | None => {}
                Some(next) => word.get_or_insert_default().push(next),
            },
            (Some('"'), '\\') if characters.peek().is_some_and(|c| "\"\\$`".contains(*c)) => {
                word.get_or_insert_default().extend(characters.next());
            }
            (None, character) if character.is_whitespace() => words.extend(word.take()),
            (_, character) => word.get_or_insert_default().push(character),
        }
    }
    if let Some(quote) = quote {
        return Err(format!("the quote {quote} is not closed in: {text}"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        for (text, expected) in [
            ("", &[][..]),
            (" a  b\n\tc ", &["a", "b", "c"]),
            (
                r#"--health-cmd "pg_isready -U 'me'" x"#,
                &["--health-cmd", "pg_isready -U 'me'", "x"],
            ),
            (r#"'a "b"' '' c"d"e"#, &["a \"b\"", "", "cde"]),
            (r#"a\ b "c\"d" "e\f" 'g\h' "#, &["a b", "c\"d", "e\\f", "g\\h"]),
            ("a \\\n b", &["a", "b"]),
            ("--name=$HOME *", &["--name=$HOME", "*"]),
        ] {
            assert_eq!(split(text).unwrap(), expected, "{text}");
        }
        assert!(split("a 'b").is_err_and(|error| error.contains("' is not closed")));
    }
}
