//! Quoting for the guest's POSIX shell.

/// Quotes one word for a POSIX shell, so that the shell reads exactly these characters.
///
/// A word of harmless characters stays as it is; anything else is put between single quotes. A NUL
/// character cannot be part of a shell's word: the caller refuses it before.
#[must_use]
pub fn quote(word: &str) -> String {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./,:@%+=".contains(&byte);
    // An assignment in front of a command is not a word.
    if !word.is_empty() && word.bytes().all(harmless) && !word.contains('=') {
        return word.to_owned();
    }
    let mut quoted = String::with_capacity(word.len() + 2);
    quoted.push('\'');
    for character in word.chars() {
        if character == '\'' {
            quoted.push_str("'\\''");
        } else {
            quoted.push(character);
        }
    }
    quoted.push('\'');
    quoted
}

/// Quotes a path for a POSIX shell, so that no program takes it for an option.
#[must_use]
pub fn quote_path(path: &str) -> String {
    if path.starts_with('-') { quote(&format!("./{path}")) } else { quote(path) }
}

/// The command line that runs `command` in `/bin/sh`, whatever the user's login shell is, behind
/// the `privilege` prefix such as `sudo -n`.
pub(crate) fn shell_command(privilege: &[String], command: &str) -> String {
    let mut line = String::from("exec ");
    for word in privilege {
        line.push_str(&quote(word));
        line.push(' ');
    }
    line.push_str("/bin/sh -c ");
    line.push_str(&quote(command));
    line
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// What `sh` makes of the words in a command line.
    fn read_back(line: &str) -> Vec<u8> {
        let output = Command::new("sh").arg("-c").arg(line).output().expect("sh runs");
        assert!(output.status.success(), "{line:?}: {output:?}");
        output.stdout
    }

    #[test]
    fn harmless_words_stay() {
        assert_eq!(quote("/usr/bin/workflow-runner"), "/usr/bin/workflow-runner");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("A=b"), "'A=b'");
        assert_eq!(quote("it's"), "'it'\\''s'");
        assert_eq!(quote_path("-rf"), "./-rf");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn sh_reads_back_the_word(word in "[^\0]{0,40}", other in "[ '\"$`\\\\!*?\n\t;&|<>(){}a-z]{0,40}") {
            for word in [word, other] {
                let line = format!("printf '%s|' {} end", quote(&word));
                prop_assert_eq!(read_back(&line), format!("{word}|end|").into_bytes());
            }
        }

        #[test]
        fn the_prefix_runs_the_command_in_a_shell(word in "[ '\"$`\\\\!*?\n\t;&|<>(){}a-z]{0,40}") {
            let command = format!("printf %s {}; exit 0", quote(&word));
            let privilege = ["env".to_owned(), "X=a b".to_owned()];
            prop_assert_eq!(read_back(&shell_command(&privilege, &command)), word.into_bytes());
        }
    }
}
