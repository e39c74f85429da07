//! The patterns of `hashFiles` (github-runner-protocol 5.8): one a line, `*`, `?` and `[..]` within
//! a name, `**` for any number of directories, `!` in front excludes what earlier patterns
//! included. A pattern that names a directory includes everything below it. Names that begin with a
//! dot are nothing special, case counts, `#` begins a comment line.

/// The most patterns that one with braces stands for.
const ALTERNATIVES: usize = 1000;

/// Patterns that paths below a root are compared with.
///
/// Paths are given as their parts between slashes, relative to the root.
#[derive(Debug)]
pub(super) struct Patterns {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    excludes: bool,
    /// Written with a slash at its end: matches directories only, and all below them.
    directory: bool,
    segments: Vec<Segment>,
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    /// A name without special characters, its escapes removed.
    Literal(String),
    /// `**`.
    AnyDepth,
    /// A name with special characters.
    Glob(Vec<Token>),
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Character(char),
    One,
    Many,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Patterns {
    /// Reads patterns, each of which may hold several lines. Patterns that can match nothing below
    /// `root` (an absolute path) are left out.
    pub(super) fn parse<'a>(root: &str, lines: impl IntoIterator<Item = &'a str>) -> Self {
        let patterns = lines
            .into_iter()
            .flat_map(str::lines)
            .filter_map(|line| Pattern::parse(root, line.trim()))
            .collect();
        Self { patterns }
    }

    /// The paths at which a search begins: the literal beginning of each including pattern, in the
    /// order of the patterns, without those that lie below another.
    pub(super) fn starts(&self) -> Vec<Vec<String>> {
        let starts: Vec<Vec<String>> =
            self.patterns.iter().filter(|p| !p.excludes).map(Pattern::start).collect();
        let mut kept: Vec<Vec<String>> = Vec::new();
        for start in &starts {
            let below = starts.iter().any(|s| s.len() < start.len() && start.starts_with(s));
            if !below && !kept.contains(start) {
                kept.push(start.clone());
            }
        }
        kept
    }

    /// Whether a file is included.
    pub(super) fn includes(&self, path: &[String]) -> bool {
        let mut included = false;
        for pattern in &self.patterns {
            if included == pattern.excludes && pattern.matches(path) {
                included = !pattern.excludes;
            }
        }
        included
    }

    /// Whether something below this directory may be included.
    pub(super) fn may_include_below(&self, path: &[String]) -> bool {
        self.patterns.iter().any(|p| !p.excludes && may_match_below(&p.segments, path))
    }
}

/// Whether a name, as a whole, is one that a pattern names. Alternatives stand in braces, and `!` in
/// front means all others (minimatch, as download-artifact calls it).
pub(crate) fn names_match(pattern: &str, name: &str) -> bool {
    let bare = pattern.trim_start_matches('!');
    let is_negated = (pattern.len() - bare.len()) % 2 == 1;
    let name = [name.to_owned()];
    let found = alternatives(bare)
        .iter()
        .any(|one| Pattern::parse("/", one).is_some_and(|pattern| pattern.matches(&name)));
    found != is_negated
}

/// The patterns that one with braces stands for; at most [`ALTERNATIVES`], and the last ones then have
/// braces left.
fn alternatives(pattern: &str) -> Vec<String> {
    let (mut done, mut open) = (Vec::new(), vec![pattern.to_owned()]);
    while let Some(pattern) = open.pop() {
        match braces(&pattern) {
            Some(parts) if done.len() + open.len() + parts.len() <= ALTERNATIVES => {
                open.extend(parts.into_iter().rev());
            }
            _ => done.push(pattern),
        }
    }
    done
}

/// What a pattern stands for by its first braces; absent if it has none.
fn braces(pattern: &str) -> Option<Vec<String>> {
    let mut is_escaped = false;
    let mut depth = 0;
    let mut cuts: Vec<usize> = Vec::new();
    for (at, character) in pattern.char_indices() {
        match character {
            _ if is_escaped => {}
            '{' => {
                depth += 1;
                if depth == 1 {
                    cuts = vec![at];
                }
            }
            ',' if depth == 1 => cuts.push(at),
            '}' if depth > 0 => {
                depth -= 1;
                if depth == 0 && cuts.len() > 1 {
                    cuts.push(at);
                    let (before, after) = (&pattern[..cuts[0]], &pattern[at + 1..]);
                    let parts = cuts.windows(2).map(|cut| &pattern[cut[0] + 1..cut[1]]);
                    return Some(parts.map(|part| format!("{before}{part}{after}")).collect());
                }
            }
            _ => {}
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    None
}

impl Pattern {
    fn parse(root: &str, line: &str) -> Option<Self> {
        let mut rest = line;
        let mut excludes = false;
        while let Some(inner) = rest.strip_prefix('!') {
            excludes = !excludes;
            rest = inner.trim_start();
        }
        if rest.is_empty() || rest.starts_with('#') {
            return None;
        }
        if rest.starts_with('/') {
            // Only what lies in the root counts, so an absolute pattern must begin with it.
            rest = rest.strip_prefix(root.trim_end_matches('/'))?;
            if !rest.is_empty() && !rest.starts_with('/') {
                return None;
            }
        } else if rest == "~" || rest.starts_with("~/") {
            return None;
        }
        let directory = rest.ends_with('/');
        let mut segments = Vec::new();
        for part in rest.split('/').filter(|part| !part.is_empty() && *part != ".") {
            match part {
                ".." => {
                    segments.pop()?;
                }
                "**" => {
                    if segments.last() != Some(&Segment::AnyDepth) {
                        segments.push(Segment::AnyDepth);
                    }
                }
                name => segments.push(Segment::parse(name)),
            }
        }
        Some(Self { excludes, directory, segments })
    }

    fn start(&self) -> Vec<String> {
        self.segments
            .iter()
            .map_while(|segment| match segment {
                Segment::Literal(name) => Some(name.clone()),
                _ => None,
            })
            .collect()
    }

    /// Whether a file matches, itself or because a directory above it does.
    fn matches(&self, path: &[String]) -> bool {
        let longest = if self.directory { path.len().saturating_sub(1) } else { path.len() };
        (0..=longest).any(|parts| matches(&self.segments, &path[..parts]))
    }
}

fn matches(segments: &[Segment], path: &[String]) -> bool {
    // The positions in `segments` that are reached after each part: no recursion, so that a
    // pattern of many `**` costs no more than its length times the path's.
    let mut reached = vec![false; segments.len() + 1];
    reached[0] = true;
    step_over_any_depth(segments, &mut reached);
    for part in path {
        let mut next = vec![false; segments.len() + 1];
        for (position, segment) in segments.iter().enumerate() {
            if !reached[position] {
                continue;
            }
            match segment {
                Segment::AnyDepth => next[position] = true,
                Segment::Literal(name) => next[position + 1] |= name == part,
                Segment::Glob(tokens) => next[position + 1] |= matches_name(tokens, part),
            }
        }
        step_over_any_depth(segments, &mut next);
        reached = next;
    }
    reached[segments.len()]
}

/// `**` stands for no directory as well.
fn step_over_any_depth(segments: &[Segment], reached: &mut [bool]) {
    for (position, segment) in segments.iter().enumerate() {
        if reached[position] && *segment == Segment::AnyDepth {
            reached[position + 1] = true;
        }
    }
}

/// Whether a path below `path` may match: `path` matches a beginning of the pattern, or the whole.
fn may_match_below(segments: &[Segment], path: &[String]) -> bool {
    for (position, part) in path.iter().enumerate() {
        match segments.get(position) {
            None | Some(Segment::AnyDepth) => return true,
            Some(Segment::Literal(name)) if name == part => {}
            Some(Segment::Glob(tokens)) if matches_name(tokens, part) => {}
            Some(_) => return false,
        }
    }
    true
}

impl Segment {
    fn parse(text: &str) -> Self {
        let characters: Vec<char> = text.chars().collect();
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(&character) = characters.get(at) {
            at += 1;
            match character {
                '\\' if at < characters.len() => {
                    tokens.push(Token::Character(characters[at]));
                    at += 1;
                }
                '?' => tokens.push(Token::One),
                '*' => {
                    if tokens.last() != Some(&Token::Many) {
                        tokens.push(Token::Many);
                    }
                }
                '[' => match class(&characters[at..]) {
                    Some((token, length)) => {
                        tokens.push(token);
                        at += length;
                    }
                    None => tokens.push(Token::Character('[')),
                },
                other => tokens.push(Token::Character(other)),
            }
        }
        let literal: Option<String> = tokens
            .iter()
            .map(|token| match token {
                Token::Character(character) => Some(*character),
                _ => None,
            })
            .collect();
        literal.map_or_else(|| Self::Glob(tokens), Self::Literal)
    }
}

/// The class at the beginning of `rest`, which stands after `[`, and its length with its `]`.
fn class(rest: &[char]) -> Option<(Token, usize)> {
    let negated = matches!(rest.first(), Some('!' | '^'));
    let mut at = usize::from(negated);
    let mut ranges = Vec::new();
    loop {
        let first = *rest.get(at)?;
        // A bracket that comes first stands for itself.
        if first == ']' && !ranges.is_empty() {
            return Some((Token::Class { negated, ranges }, at + 1));
        }
        match (rest.get(at + 1), rest.get(at + 2)) {
            (Some('-'), Some(&last)) if last != ']' => {
                ranges.push((first, last));
                at += 3;
            }
            _ => {
                ranges.push((first, first));
                at += 1;
            }
        }
    }
}

/// Whether a name matches: greedy, going back to the last `*` only, so linear in practice and never
/// worse than the product of both lengths.
fn matches_name(tokens: &[Token], name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let (mut token, mut at) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let advanced = match (tokens.get(token), name.get(at)) {
            (None, None) => return true,
            (Some(Token::Many), _) => {
                retry = Some((token, at));
                token += 1;
                continue;
            }
            (Some(Token::Character(expected)), Some(found)) => expected == found,
            (Some(Token::One), Some(_)) => true,
            (Some(Token::Class { negated, ranges }), Some(found)) => {
                ranges.iter().any(|(from, to)| from <= found && found <= to) != *negated
            }
            _ => false,
        };
        if advanced {
            token += 1;
            at += 1;
        } else if let Some((star, from)) = retry {
            if from >= name.len() {
                return false;
            }
            retry = Some((star, from + 1));
            token = star + 1;
            at = from + 1;
        } else {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(path: &str) -> Vec<String> {
        path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    fn included(patterns: &str, path: &str) -> bool {
        Patterns::parse("/w", [patterns]).includes(&parts(path))
    }

    #[test]
    fn names_are_matched_as_artifacts_are() {
        for (pattern, name, expected) in [
            ("bin-*", "bin-linux", true),
            ("!bin-*", "bin-linux", false),
            ("!bin-*", "docs", true),
            ("!!bin-*", "docs", false),
            ("bin-{linux,bsd}", "bin-bsd", true),
            ("bin-{linux,bsd}", "bin-mac", false),
            ("{a,b{c,d}}-x", "bd-x", true),
            ("{a,b}{c,d}", "bc", true),
            ("x{,-y}", "x", true),
            ("x{y}", "x{y}", true),
            ("x{y,z", "x{y,z", true),
            (r"x\{y,z}", "x{y,z}", true),
            ("#a", "#a", false),
        ] {
            assert_eq!(names_match(pattern, name), expected, "{pattern} {name}");
        }
        assert!(alternatives(&"{a,b}".repeat(40)).len() <= ALTERNATIVES);
    }

    #[test]
    fn patterns_include_as_github_has_it() {
        for (patterns, path, expected) in [
            ("*.lock", "a.lock", true),
            ("*.lock", "sub/a.lock", false),
            ("**/*.lock", "a.lock", true),
            ("**/*.lock", "sub/deep/a.lock", true),
            ("**/*.lock", "sub/.hidden.lock", true),
            ("**", "any/thing", true),
            ("src", "src/deep/file", true),
            ("src/", "src", false),
            ("src/", "src/file", true),
            ("src/**/x", "src/x", true),
            ("src/**/x", "src/a/b/x", true),
            ("src/**/x", "lib/x", false),
            ("./a/../b", "b", true),
            ("../b", "b", false),
            ("/w/b", "b", true),
            ("/wide/b", "ide/b", false),
            ("/other/b", "b", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]]x", "]x", true),
            ("[ab", "[ab", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("A", "a", false),
            ("# comment", "# comment", false),
            ("*\n!b", "a", true),
            ("*\n!b", "b", false),
            ("!b\n*", "b", true),
            ("*\n!b\nb", "b", true),
            ("**\n!node_modules", "node_modules/x/y", false),
            ("!!a", "a", true),
        ] {
            assert_eq!(included(patterns, path), expected, "{patterns:?} {path}");
        }
    }

    #[test]
    fn the_search_starts_where_the_patterns_become_special() {
        let patterns = Patterns::parse("/w", ["src/*.c\nlib/a/x\nlib/**\n!deep/x\nsrc/deep/y"]);
        assert_eq!(patterns.starts(), [parts("src"), parts("lib")]);
    }

    #[test]
    fn a_directory_is_entered_only_when_something_below_may_match() {
        let patterns = Patterns::parse("/w", ["src/*/x", "lib"]);
        for (path, expected) in
            [("", true), ("src", true), ("src/a", true), ("doc", false), ("lib/a/b", true)]
        {
            assert_eq!(patterns.may_include_below(&parts(path)), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in "[a*?\\[\\]!^\\\\/.~#-]{0,24}", path in "[a/\\]]{0,16}") {
            included(&pattern, &path);
        }

        #[test]
        fn a_plain_path_matches_itself(path in "[a-z]{1,4}(/[a-z]{1,4}){0,3}") {
            prop_assert!(included(&path, &path));
        }
    }
}
