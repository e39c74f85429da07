//! The job's secrets: from the environment, a file, or asked at the terminal.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::limits::MIB;
use common::request::Secret;

use crate::cli::is_name;
use crate::exit::CommandError;

/// A secrets file. A larger one is refused.
const FILE_BYTES: u64 = MIB;

/// Secrets by name in capitals; forges do not tell names apart by case.
pub(crate) type Secrets = BTreeMap<String, Secret>;

/// Names that a forge gives a value by itself. Here they are empty unless the user gives one.
const TOKENS: &[&str] = &["GITHUB_TOKEN", "GITEA_TOKEN", "FORGEJO_TOKEN"];

/// Where a value that is not in the environment comes from.
pub(crate) trait Ask {
    /// Asks for a secret without echo; `None` if nobody can be asked.
    fn ask(&mut self, name: &str) -> io::Result<Option<String>>;
}

/// Asks the person at the terminal.
pub(crate) struct Terminal;

impl Ask for Terminal {
    fn ask(&mut self, name: &str) -> io::Result<Option<String>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        rpassword::prompt_password(format!("{name}: ")).map(Some)
    }
}

/// Collects the secrets that the user gives; those named one by one win over the file.
///
/// # Errors
/// The file is malformed, or a value is neither in the environment nor can be asked for.
pub(crate) fn collect(
    names: &[String],
    file: Option<&Path>,
    variable: impl Fn(&str) -> Option<String>,
    ask: &mut dyn Ask,
) -> Result<Secrets, CommandError> {
    let mut secrets = match file {
        Some(path) => read(path)?,
        None => Secrets::new(),
    };
    for name in names {
        let value = match variable(name) {
            Some(value) => value,
            None => asked(name, ask)?,
        };
        secrets.insert(name.to_ascii_uppercase(), Secret::new(value));
    }
    Ok(secrets)
}

/// Checks that every secret that the workflow uses was given. A forge's own token is empty instead,
/// and returned as a warning.
///
/// # Errors
/// A secret is missing.
pub(crate) fn require<'a>(
    used: impl IntoIterator<Item = &'a str>,
    secrets: &mut Secrets,
) -> Result<Option<String>, CommandError> {
    let mut missing: Vec<String> = used
        .into_iter()
        .map(str::to_ascii_uppercase)
        .filter(|name| !secrets.contains_key(name))
        .collect();
    missing.sort();
    missing.dedup();
    let (tokens, missing): (Vec<_>, Vec<_>) =
        missing.into_iter().partition(|name| TOKENS.contains(&name.as_str()));
    if let Some(first) = missing.first() {
        let what = if missing.len() == 1 { "a secret that was" } else { "secrets that were" };
        return Err(CommandError::usage(format!(
            "the workflow uses {what} not given: {}",
            missing.join(", ")
        ))
        .hint(format!("give --secret {first} or a line {first}=... in --secrets-file")));
    }
    let warning = (!tokens.is_empty())
        .then(|| format!("{} is empty, because no forge gave one", tokens.join(" and ")));
    for name in tokens {
        secrets.insert(name, Secret::new(""));
    }
    Ok(warning)
}

fn asked(name: &str, ask: &mut dyn Ask) -> Result<String, CommandError> {
    match ask.ask(name) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(CommandError::usage(format!(
            "the secret {name} is not in the environment, and there is no terminal to ask at"
        ))
        .hint(format!("set the environment variable {name}, or use --secrets-file"))),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            Err(CommandError::cancelled(format!("no value was given for the secret {name}")))
        }
        Err(error) => {
            Err(CommandError::usage(format!("cannot ask for the secret {name}: {error}")))
        }
    }
}

fn read(path: &Path) -> Result<Secrets, CommandError> {
    let cannot = |error: io::Error| {
        CommandError::usage(format!("cannot read the secrets file {}: {error}", path.display()))
    };
    let file = std::fs::File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        crate::message::warning(&format!(
            "other users of this host can read {}; run chmod 600 on it",
            path.display()
        ));
    }
    let mut text = String::new();
    file.take(FILE_BYTES + 1).read_to_string(&mut text).map_err(cannot)?;
    if text.len() as u64 > FILE_BYTES {
        return Err(cannot(io::Error::other(format!("it has over {FILE_BYTES} bytes"))));
    }
    parse(&text).map_err(|(line, problem)| {
        CommandError::usage(format!("{}:{line}: {problem}", path.display())).hint(
            "write NAME=VALUE, with the value in double quotes if it has line breaks (\\n) or \
             blanks at its ends",
        )
    })
}

/// The secrets of a file's text; an error has its line and never a value.
///
/// A value goes to the end of its line, or stands in single quotes (as it is) or in double quotes
/// (with the escapes `\n`, `\t`, `\"` and `\\`). Empty lines and lines that start with `#` are
/// skipped.
fn parse(text: &str) -> Result<Secrets, (usize, String)> {
    let mut secrets = Secrets::new();
    for (index, line) in text.lines().enumerate() {
        let fail = |problem: &str| (index + 1, problem.to_owned());
        let line = line.trim_end_matches('\r');
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| fail("there is no ="))?;
        let name = name.trim();
        if !is_name(name) {
            return Err(fail("the part before = is not a name"));
        }
        let value = unquote(value.trim()).map_err(fail)?;
        if secrets.insert(name.to_ascii_uppercase(), Secret::new(value)).is_some() {
            return Err(fail("the name was given before"));
        }
    }
    Ok(secrets)
}

fn unquote(value: &str) -> Result<String, &'static str> {
    if let Some(inner) = value.strip_prefix('\'') {
        let inner = inner.strip_suffix('\'').ok_or("the single quote is not closed")?;
        let stray = inner.contains('\'');
        return if stray { Err("text after the closing quote") } else { Ok(inner.to_owned()) };
    }
    let Some(inner) = value.strip_prefix('"') else { return Ok(value.to_owned()) };
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' if chars.as_str().is_empty() => return Ok(out),
            '"' => return Err("text after the closing quote"),
            '\\' => out.push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(same @ ('"' | '\\')) => same,
                _ => return Err("only \\n, \\t, \\\" and \\\\ are escapes"),
            }),
            _ => out.push(c),
        }
    }
    Err("the double quote is not closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Ask for Nobody {
        fn ask(&mut self, _: &str) -> io::Result<Option<String>> {
            Ok(None)
        }
    }

    struct Answer(&'static str);

    impl Ask for Answer {
        fn ask(&mut self, _: &str) -> io::Result<Option<String>> {
            Ok(Some(self.0.to_owned()))
        }
    }

    fn exposed(secrets: &Secrets) -> Vec<(&str, &str)> {
        secrets.iter().map(|(name, value)| (name.as_str(), value.expose())).collect()
    }

    #[test]
    fn a_file_with_every_form() {
        let text = "# comment\n\nPLAIN=a=b c \nspaced = x\r\nEMPTY=\nSINGLE='a\\nb'\n\
                    DOUBLE=\"l1\\nl2 \\\"q\\\" \\\\\"\nHASH=a#b\n";
        assert_eq!(
            exposed(&parse(text).unwrap()),
            [
                ("DOUBLE", "l1\nl2 \"q\" \\"),
                ("EMPTY", ""),
                ("HASH", "a#b"),
                ("PLAIN", "a=b c"),
                ("SINGLE", "a\\nb"),
                ("SPACED", "x"),
            ]
        );
    }

    #[test]
    fn mistakes_have_their_line_and_never_the_value() {
        let check = |text: &str, line: usize, problem: &str| {
            assert_eq!(parse(text).unwrap_err(), (line, problem.to_owned()), "{text}");
        };
        check("A=1\nhunter2\n", 2, "there is no =");
        check("export A=hunter2\n", 1, "the part before = is not a name");
        check("A=1\na=hunter2\n", 2, "the name was given before");
        check("A=\"hunter2\n", 1, "the double quote is not closed");
        check("A='hunter2\n", 1, "the single quote is not closed");
        check("A=\"x\"hunter2\n", 1, "text after the closing quote");
        check("A='x'hunter2'\n", 1, "text after the closing quote");
        check("A=\"\\x\"\n", 1, "only \\n, \\t, \\\" and \\\\ are escapes");
    }

    #[test]
    fn the_environment_is_looked_at_before_the_user_is_asked() {
        let names = ["A".to_owned(), "b".to_owned()];
        let variable = |name: &str| (name == "A").then(|| "from env".to_owned());
        let secrets = collect(&names, None, variable, &mut Answer("typed")).unwrap();
        assert_eq!(exposed(&secrets), [("A", "from env"), ("B", "typed")]);
        let error = collect(&names, None, variable, &mut Nobody).unwrap_err();
        assert!(error.to_string().contains("the secret b is not in the environment"), "{error}");
    }

    #[test]
    fn missing_secrets_are_named_together() {
        let mut secrets = parse("HAVE=1\n").unwrap();
        let error = require(["zeta", "HAVE", "Alpha", "ALPHA"], &mut secrets).unwrap_err();
        assert_eq!(error.to_string(), "the workflow uses secrets that were not given: ALPHA, ZETA");
        assert_eq!(require(["have"], &mut secrets).unwrap(), None);
    }

    #[test]
    fn a_forges_token_is_empty_with_a_warning() {
        let mut secrets = Secrets::new();
        let warning = require(["GITHUB_TOKEN"], &mut secrets).unwrap();
        assert_eq!(warning.unwrap(), "GITHUB_TOKEN is empty, because no forge gave one");
        assert_eq!(exposed(&secrets), [("GITHUB_TOKEN", "")]);
    }
}
