//! The file that describes matchers.

use std::collections::HashSet;

use fancy_regex::{Regex, RegexBuilder};
use serde::Deserialize;

use super::{Matcher, Pattern};

/// Patterns of one matcher, and matchers of one file.
const PARTS: usize = 50;

/// How often a pattern may go back in one line before it gives up. GitHub's runner gives it a
/// second; this is less on any processor.
const BACKTRACKS: usize = 200_000;

/// The most memory that a compiled pattern may take, about, in bytes.
const COMPILED_BYTES: usize = 512 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    problem_matcher: Vec<MatcherText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MatcherText {
    owner: String,
    #[serde(default)]
    severity: String,
    from_path: Option<String>,
    pattern: Vec<PatternText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PatternText {
    regexp: String,
    file: Option<usize>,
    from_path: Option<usize>,
    line: Option<usize>,
    column: Option<usize>,
    severity: Option<usize>,
    code: Option<usize>,
    message: Option<usize>,
    #[serde(default, rename = "loop")]
    loops: bool,
}

/// Reads the matchers of a file, in its order.
///
/// # Errors
/// What is wrong with it, fit to stand behind the file's name and a colon.
pub(in crate::engine) fn read(text: &[u8]) -> Result<Vec<Matcher>, String> {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let file: File = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if file.problem_matcher.is_empty() || file.problem_matcher.len() > PARTS {
        return Err(format!("\"problemMatcher\" must hold 1 to {PARTS} matchers"));
    }
    let mut owners = HashSet::new();
    let mut matchers = Vec::with_capacity(file.problem_matcher.len());
    for matcher in file.problem_matcher {
        if matcher.owner.trim().is_empty() {
            return Err("a matcher has no owner".to_owned());
        }
        if !owners.insert(matcher.owner.to_ascii_lowercase()) {
            return Err(format!("the owner {:?} has two matchers", matcher.owner));
        }
        let owner = matcher.owner.clone();
        let matcher = self::matcher(matcher);
        matchers.push(matcher.map_err(|wrong| format!("matcher {owner:?}: {wrong}"))?);
    }
    Ok(matchers)
}

fn matcher(text: MatcherText) -> Result<Matcher, String> {
    let last = match text.pattern.len() {
        count @ 1..=PARTS => count - 1,
        _ => return Err(format!("it must have 1 to {PARTS} patterns")),
    };
    let mut patterns = Vec::with_capacity(text.pattern.len());
    for (place, pattern) in text.pattern.into_iter().enumerate() {
        if pattern.loops && (place != last || last == 0) {
            return Err("only the last of several patterns can have \"loop\"".to_owned());
        }
        patterns.push(self::pattern(&pattern)?);
    }
    Ok(Matcher {
        owner: text.owner,
        severity: text.severity,
        from_path: text.from_path.filter(|path| !path.is_empty()),
        states: vec![None; last],
        patterns,
        given_up: 0,
    })
}

fn pattern(text: &PatternText) -> Result<Pattern, String> {
    let regex = compile(&text.regexp)
        .map_err(|error| format!("the pattern {:?} cannot be read: {error}", text.regexp))?;
    let groups =
        [text.file, text.from_path, text.line, text.column, text.severity, text.code, text.message];
    if let Some(group) = groups.into_iter().flatten().find(|group| *group >= regex.captures_len()) {
        return Err(format!("the pattern {:?} has no group {group}", text.regexp));
    }
    Ok(Pattern {
        regex,
        file: text.file,
        from_path: text.from_path,
        line: text.line,
        column: text.column,
        severity: text.severity,
        code: text.code,
        message: text.message,
        loops: text.loops,
    })
}

fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .backtrack_limit(BACKTRACKS)
        .delegate_size_limit(COMPILED_BYTES)
        .delegate_dfa_size_limit(COMPILED_BYTES)
        .build()
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        read(text.as_bytes()).err().unwrap_or_else(|| panic!("{text} is taken"))
    }

    #[test]
    fn a_wrong_file_is_a_sentence() {
        let one = |pattern: &str| {
            refusal(&format!(r#"{{"problemMatcher": [{{"owner": "o", "pattern": {pattern}}}]}}"#))
        };
        assert!(refusal("[").contains("line 1"));
        assert!(refusal("{}").contains("problemMatcher"));
        assert!(refusal(r#"{"problemMatcher": []}"#).contains("1 to 50 matchers"));
        assert!(one("[]").contains("1 to 50 patterns"));
        assert!(one(r#"[{"regexp": "("}]"#).contains("cannot be read"));
        assert!(one(r#"[{"regexp": "a", "message": 1}]"#).contains("has no group 1"));
        assert!(one(r#"[{"regexp": "a", "loop": true}]"#).contains("only the last"));
        let huge = r#"[{"regexp": "(\\w{9999}){9999}", "message": 1}]"#;
        assert!(one(huge).contains("cannot be read"));
        let twice = r#"{"problemMatcher": [{"owner": "a", "pattern": [{"regexp": "x"}]},
                                           {"owner": "A", "pattern": [{"regexp": "x"}]}]}"#;
        assert!(refusal(twice).contains("two matchers"));
    }
}
