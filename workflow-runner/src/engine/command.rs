//! The syntax of workflow commands (github-runner-protocol 7.4, forgejo-runner-protocol 8.4):
//! `::name key=value,key=value::data`, and the older `##[name key=value;key=value]data`.

use super::dialect::DialectRules;

/// A line that is a workflow command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    /// Which one.
    pub(super) name: Name,
    /// Its properties in order, unescaped; names in lower case.
    pub(super) properties: Vec<(String, String)>,
    /// What follows, unescaped.
    pub(super) data: String,
}

/// The commands that one forge or the other has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// `add-mask`.
    AddMask,
    /// `add-matcher`.
    AddMatcher,
    /// `add-path`.
    AddPath,
    /// `debug`.
    Debug,
    /// `echo`.
    Echo,
    /// `endgroup`.
    EndGroup,
    /// `error`.
    Error,
    /// `group`.
    Group,
    /// `notice`.
    Notice,
    /// `remove-matcher`.
    RemoveMatcher,
    /// `save-state`.
    SaveState,
    /// `set-env`.
    SetEnv,
    /// `set-output`.
    SetOutput,
    /// `stop-commands`.
    StopCommands,
    /// `warning`.
    Warning,
}

/// Properties of one command; further ones are dropped.
const PROPERTIES: usize = 32;

impl Name {
    /// The command of this name, in any case, if the dialect has it.
    pub(super) fn of(text: &str, rules: &DialectRules) -> Option<Self> {
        Self::any(text).filter(|name| rules.commands.contains(name))
    }

    fn any(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "add-mask" => Self::AddMask,
            "add-matcher" => Self::AddMatcher,
            "add-path" => Self::AddPath,
            "debug" => Self::Debug,
            "echo" => Self::Echo,
            "endgroup" => Self::EndGroup,
            "error" => Self::Error,
            "group" => Self::Group,
            "notice" => Self::Notice,
            "remove-matcher" => Self::RemoveMatcher,
            "save-state" => Self::SaveState,
            "set-env" => Self::SetEnv,
            "set-output" => Self::SetOutput,
            "stop-commands" => Self::StopCommands,
            "warning" => Self::Warning,
            _ => return None,
        })
    }

    /// Whether `##[name]` is what the log itself shows such a line as, and no command.
    fn is_marker(self) -> bool {
        matches!(
            self,
            Self::Debug | Self::EndGroup | Self::Error | Self::Group | Self::Notice | Self::Warning
        )
    }
}

impl Command {
    /// The value of a property; a later one of the same name wins.
    pub(super) fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Whether a line may be a command: cheap, for every line of every step.
pub(super) fn may_be_command(line: &[u8], rules: &DialectRules) -> bool {
    let start = if rules.commands_may_be_indented { line.trim_ascii_start() } else { line };
    start.starts_with(b"::")
        || if rules.bracket_commands_anywhere {
            find(line, b"##[").is_some()
        } else {
            line.starts_with(b"##[")
        }
}

/// Reads a line as a command.
pub(super) fn parse(line: &str, rules: &DialectRules) -> Option<Command> {
    parse_colons(line, rules).or_else(|| parse_brackets(line, rules))
}

/// Whether a line is `::token::`, the end of `stop-commands`, in either form.
pub(super) fn is_resume(line: &str, token: &str, rules: &DialectRules) -> bool {
    let is_token = |name: &str| name.eq_ignore_ascii_case(token);
    colons(line, rules).is_some_and(|(head, _)| is_token(head))
        || brackets(line, rules).is_some_and(|(head, _)| is_token(head))
}

fn parse_colons(line: &str, rules: &DialectRules) -> Option<Command> {
    let (head, data) = colons(line, rules)?;
    let (name, properties) = head.split_once(' ').unwrap_or((head, ""));
    Some(Command {
        name: Name::of(name, rules)?,
        properties: read_properties(properties, ',', COLON_PROPERTY),
        data: unescape(data, DATA),
    })
}

fn parse_brackets(line: &str, rules: &DialectRules) -> Option<Command> {
    let (head, data) = brackets(line, rules)?;
    let (name, properties) = head.split_once(' ').unwrap_or((head, ""));
    let name = Name::of(name, rules)?;
    if name.is_marker() {
        return None;
    }
    let (of_properties, of_data) =
        if rules.brackets_have_own_escapes { (BRACKET, BRACKET) } else { (COLON_PROPERTY, DATA) };
    Some(Command {
        name,
        properties: read_properties(properties, ';', of_properties),
        data: unescape(data, of_data),
    })
}

/// What stands between the colons, and what follows.
fn colons<'a>(line: &'a str, rules: &DialectRules) -> Option<(&'a str, &'a str)> {
    let line = if rules.commands_may_be_indented { line.trim_start() } else { line };
    line.strip_prefix("::")?.split_once("::")
}

/// What stands in the brackets, and what follows.
fn brackets<'a>(line: &'a str, rules: &DialectRules) -> Option<(&'a str, &'a str)> {
    let start = if rules.bracket_commands_anywhere {
        line.split_once("##[").map(|(_, rest)| rest)
    } else {
        line.strip_prefix("##[")
    };
    start?.split_once(']')
}

fn read_properties(text: &str, separator: char, escapes: &[(&str, char)]) -> Vec<(String, String)> {
    text.split(separator)
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), unescape(value.trim(), escapes)))
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .take(PROPERTIES)
        .collect()
}

const DATA: &[(&str, char)] = &[("%0D", '\r'), ("%0A", '\n'), ("%25", '%')];
const COLON_PROPERTY: &[(&str, char)] =
    &[("%0D", '\r'), ("%0A", '\n'), ("%3A", ':'), ("%2C", ','), ("%25", '%')];
const BRACKET: &[(&str, char)] =
    &[("%3B", ';'), ("%0D", '\r'), ("%0A", '\n'), ("%5D", ']'), ("%25", '%')];

/// Replaces escapes, in one pass: what an escape gave is not an escape's beginning.
fn unescape(text: &str, escapes: &[(&str, char)]) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        result.push_str(before);
        let found = escapes.iter().find(|(escape, _)| from.starts_with(escape));
        let (character, length) = found.map_or(('%', 1), |(escape, to)| (*to, escape.len()));
        result.push(character);
        rest = &from[length..];
    }
    result.push_str(rest);
    result
}

fn find(line: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = line[from..].iter().position(|&byte| byte == needle[0]) {
        if line[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use common::plan::Dialect;
    use proptest::prelude::*;

    use super::*;

    fn github(line: &str) -> Option<Command> {
        parse(line, DialectRules::of(Dialect::Github))
    }

    fn forgejo(line: &str) -> Option<Command> {
        parse(line, DialectRules::of(Dialect::Forgejo))
    }

    fn command(name: Name, properties: &[(&str, &str)], data: &str) -> Option<Command> {
        let properties = properties.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect();
        Some(Command { name, properties, data: data.to_owned() })
    }

    #[test]
    fn commands_are_read() {
        for (line, expected) in [
            ("::group::Build", command(Name::Group, &[], "Build")),
            ("  \t::group::Build", command(Name::Group, &[], "Build")),
            ("::GROUP::Build", command(Name::Group, &[], "Build")),
            ("::endgroup::", command(Name::EndGroup, &[], "")),
            (
                "::error file=a%2Cb.c,line=3 ,title=x%3Ay::one%0Atwo%250A::three",
                command(
                    Name::Error,
                    &[("file", "a,b.c"), ("line", "3"), ("title", "x:y")],
                    "one\ntwo%0A::three",
                ),
            ),
            ("::set-output name=n::v=w", command(Name::SetOutput, &[("name", "n")], "v=w")),
            ("::set-output name=::v", command(Name::SetOutput, &[], "v")),
            ("::warning endLine=4::x", command(Name::Warning, &[("endline", "4")], "x")),
            ("x ##[set-output name=a;b=c%3Bd]v%5D", {
                command(Name::SetOutput, &[("name", "a"), ("b", "c;d")], "v]")
            }),
            ("##[group]shown", None),
            ("##[error]shown", None),
            ("::unknown::x", None),
            ("::group", None),
            ("text ::group::x", None),
            ("::::x", None),
            ("std::vec::Vec", None),
        ] {
            assert_eq!(github(line), expected, "{line}");
        }
    }

    #[test]
    fn forgejo_wants_commands_at_the_start_of_the_line() {
        assert_eq!(forgejo(" ::group::x"), None);
        assert_eq!(forgejo("x ##[add-mask]y"), None);
        assert_eq!(forgejo("##[add-mask]y"), command(Name::AddMask, &[], "y"));
    }

    #[test]
    fn the_dialect_decides_which_commands_exist() {
        for line in ["::echo::on", "::add-matcher::x.json", "##[remove-matcher owner=x]"] {
            assert!(github(line).is_some(), "{line}");
            assert_eq!(forgejo(line), None, "{line}");
        }
    }

    #[test]
    fn a_stop_token_ends_what_it_began() {
        let rules = DialectRules::of(Dialect::Github);
        assert!(is_resume("::Token-1::", "token-1", rules));
        assert!(is_resume("##[token-1]", "token-1", rules));
        assert!(!is_resume("::token-2::", "token-1", rules));
        assert!(!is_resume("token-1", "token-1", rules));
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "[:#\\[\\] %0ADg=,;é-]{0,40}|::(error|group) ?[ -~]{0,20}::[ -~]{0,20}") {
            for dialect in [Dialect::Github, Dialect::Forgejo] {
                let rules = DialectRules::of(dialect);
                if parse(&line, rules).is_some() {
                    // The cheap test never says no to a command.
                    prop_assert!(may_be_command(line.as_bytes(), rules));
                }
            }
        }

        #[test]
        fn data_survives_escaping(data in ".{0,40}|[%0A\r\n]{0,20}") {
            let escaped = data.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
            prop_assert_eq!(unescape(&escaped, DATA), data);
        }
    }
}
