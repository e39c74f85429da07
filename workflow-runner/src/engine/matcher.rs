//! Problem matchers: lines of a step's output that are findings (github-runner-protocol 7.9).
//!
//! A matcher has patterns for consecutive lines; the last may go on for as long as it matches
//! (`loop`). What the patterns find together is one [`Found`]. [`mod@file`] reads the file in which they
//! are described, [`place`] finds the repository of a file that a finding names.

pub(super) mod file;
pub(super) mod place;

use std::borrow::Cow;

use common::event::AnnotationLevel;
use fancy_regex::{Captures, Regex};

/// Matchers of one job; an `add-matcher` beyond that is refused.
const MATCHERS: usize = 100;

/// So many times may a matcher give up on a line before it is removed (github-runner-protocol 7.9).
const GIVEN_UP: u32 = 3;

/// The matchers of a job, the newest first: the first that matches a line has it.
#[derive(Debug, Default)]
pub(super) struct Matchers {
    matchers: Vec<Matcher>,
}

/// One matcher.
#[derive(Debug)]
pub(super) struct Matcher {
    owner: String,
    severity: String,
    from_path: Option<String>,
    /// At least one.
    patterns: Vec<Pattern>,
    /// What the patterns up to this one have found in the lines before; the last has none.
    states: Vec<Option<Found>>,
    given_up: u32,
}

/// What one line must look like, and which of its groups says what.
#[derive(Debug)]
struct Pattern {
    regex: Regex,
    file: Option<usize>,
    from_path: Option<usize>,
    line: Option<usize>,
    column: Option<usize>,
    severity: Option<usize>,
    code: Option<usize>,
    message: Option<usize>,
    loops: bool,
}

/// What the patterns of a matcher have found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) file: Option<String>,
    pub(super) from_path: Option<String>,
    pub(super) line: Option<String>,
    pub(super) column: Option<String>,
    pub(super) severity: Option<String>,
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
}

/// What the matchers make of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is output like any other.
    Nothing,
    /// It completes a finding.
    Found(Found),
    /// It is output, and the matchers of these owners were removed: they gave up too often.
    Removed(Vec<String>),
}

impl Matchers {
    /// Whether there are none: then no line need be looked at.
    pub(super) fn is_empty(&self) -> bool {
        self.matchers.is_empty()
    }

    /// Adds matchers in the place of those of the same owners.
    ///
    /// # Errors
    /// There would be too many.
    pub(super) fn add(&mut self, added: Vec<Matcher>) -> Result<(), String> {
        for matcher in &added {
            self.remove(&matcher.owner);
        }
        if self.matchers.len() + added.len() > MATCHERS {
            return Err(format!("a job can have {MATCHERS} problem matchers"));
        }
        for matcher in added {
            self.matchers.insert(0, matcher);
        }
        Ok(())
    }

    /// Removes the matcher of an owner, if there is one.
    pub(super) fn remove(&mut self, owner: &str) {
        self.matchers.retain(|matcher| !matcher.owner.eq_ignore_ascii_case(owner));
    }

    /// Forgets the lines before: consecutive lines are those of one step.
    pub(super) fn begin_step(&mut self) {
        for matcher in &mut self.matchers {
            matcher.reset();
        }
    }

    /// Takes a line of output.
    pub(super) fn line(&mut self, line: &str) -> Verdict {
        let line = without_colours(line);
        for place in 0..self.matchers.len() {
            if let Some(found) = self.matchers[place].line(&line) {
                for (other, matcher) in self.matchers.iter_mut().enumerate() {
                    if other != place {
                        matcher.reset();
                    }
                }
                return Verdict::Found(found);
            }
        }
        let is_over = |matcher: &Matcher| matcher.given_up >= GIVEN_UP;
        if !self.matchers.iter().any(is_over) {
            return Verdict::Nothing;
        }
        let over = self.matchers.iter().filter(|matcher| is_over(matcher));
        let owners = over.map(|matcher| matcher.owner.clone()).collect();
        self.matchers.retain(|matcher| !is_over(matcher));
        Verdict::Removed(owners)
    }
}

impl Matcher {
    /// Who the matcher belongs to.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    fn reset(&mut self) {
        self.states.fill(None);
    }

    /// Takes a line; the last pattern is asked first, so that each looks at what the lines before
    /// have left.
    fn line(&mut self, line: &str) -> Option<Found> {
        let last = self.patterns.len() - 1;
        for place in (0..=last).rev() {
            let before = match place.checked_sub(1) {
                Some(previous) => self.states[previous].clone(),
                None => Some(Found::default()),
            };
            let found = before.and_then(|before| self.look(place, line, &before));
            match found {
                Some(mut found) if place == last => {
                    if !self.patterns[last].loops {
                        self.reset();
                    }
                    found.severity.get_or_insert_with(|| self.severity.clone());
                    found.from_path = found.from_path.or_else(|| self.from_path.clone());
                    return Some(found);
                }
                // A break in the lines: what was found in those before counts no longer.
                None if place == last => {
                    if let Some(previous) = last.checked_sub(1) {
                        self.states[previous] = None;
                    }
                }
                found => self.states[place] = found,
            }
        }
        None
    }

    fn look(&mut self, place: usize, line: &str, before: &Found) -> Option<Found> {
        let pattern = &self.patterns[place];
        match pattern.regex.captures(line) {
            Ok(captures) => captures.map(|captures| pattern.found(&captures, before)),
            Err(_) => {
                self.given_up += 1;
                None
            }
        }
    }
}

impl Pattern {
    /// What this line says, and of the rest what those before it said.
    fn found(&self, captures: &Captures<'_, str>, before: &Found) -> Found {
        let part = |group: Option<usize>, before: &Option<String>| {
            let here = group.and_then(|group| captures.get(group)).map(|part| part.as_str());
            here.filter(|text| !text.is_empty()).map(str::to_owned).or_else(|| before.clone())
        };
        Found {
            file: part(self.file, &before.file),
            from_path: part(self.from_path, &before.from_path),
            line: part(self.line, &before.line),
            column: part(self.column, &before.column),
            severity: part(self.severity, &before.severity),
            code: part(self.code, &before.code),
            message: part(self.message, &before.message),
        }
    }
}

impl Found {
    /// How bad it is; `None` for a word that is no severity. Without one it is an error.
    pub(super) fn level(&self) -> Option<AnnotationLevel> {
        let severity = self.severity.as_deref().unwrap_or_default().to_ascii_lowercase();
        match severity.as_str() {
            "" | "error" => Some(AnnotationLevel::Error),
            "warning" => Some(AnnotationLevel::Warning),
            "notice" => Some(AnnotationLevel::Notice),
            _ => None,
        }
    }
}

/// A line without the sequences that colour it or clear its rest: ESC, `[`, numbers, `m` or `K`.
fn without_colours(line: &str) -> Cow<'_, str> {
    if !line.contains('\x1b') {
        return Cow::Borrowed(line);
    }
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("\x1b[") {
        plain.push_str(&rest[..at]);
        let sequence = rest[at + 2..].trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        match sequence.strip_prefix(['m', 'K']) {
            Some(after) => rest = after,
            None => {
                plain.push_str("\x1b[");
                rest = &rest[at + 2..];
            }
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matchers(patterns: &str) -> Matchers {
        let text = format!(r#"{{"problemMatcher": [{{"owner": "t", "pattern": [{patterns}]}}]}}"#);
        let mut matchers = Matchers::default();
        matchers.add(file::read(text.as_bytes()).unwrap()).unwrap();
        matchers
    }

    #[test]
    fn real_patterns_of_the_field_are_understood() {
        // With a look-behind, as the compilers of .NET need it.
        let mut found = matchers(
            r#"{"regexp": "^([^\\s].*)\\((\\d+)(?:,\\d+|,\\d+,\\d+)?\\):\\s+(error|warning)\\s+([a-zA-Z]+(?<!MSB)\\d+):\\s*(.*?)\\s+\\[(.*?)\\]$",
                "file": 1, "line": 2, "severity": 3, "code": 4, "message": 5, "fromPath": 6}"#,
        );
        let Verdict::Found(found) = found.line("a/b.cs(3,4): warning CS0168: unused [/x/p.csproj]")
        else {
            panic!("no match");
        };
        assert_eq!(found.file.as_deref(), Some("a/b.cs"));
        assert_eq!(found.code.as_deref(), Some("CS0168"));
        assert_eq!(found.from_path.as_deref(), Some("/x/p.csproj"));
        assert_eq!(found.level(), Some(AnnotationLevel::Warning));
    }

    #[test]
    fn a_pattern_that_gives_up_three_times_is_removed() {
        let mut matchers = matchers(r#"{"regexp": "(a|b|ab)*(?>c)", "message": 1}"#);
        let hard = "ab".repeat(40);
        assert_eq!(matchers.line(&hard), Verdict::Nothing);
        assert_eq!(matchers.line(&hard), Verdict::Nothing);
        assert_eq!(matchers.line(&hard), Verdict::Removed(vec!["t".to_owned()]));
        assert!(matchers.is_empty());
    }

    #[test]
    fn an_unknown_severity_is_none() {
        let found =
            |severity: &str| Found { severity: Some(severity.to_owned()), ..Found::default() };
        assert_eq!(found("Notice").level(), Some(AnnotationLevel::Notice));
        assert_eq!(found("info").level(), None);
        assert_eq!(Found::default().level(), Some(AnnotationLevel::Error));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn colours_go_and_the_rest_stays(parts in prop::collection::vec("[a-z\\[;0-9]{0,5}", 0..5)) {
            let coloured = parts.join("\x1b[1;31m\x1b[K\x1b[m");
            let plain = without_colours(&coloured);
            prop_assert!(!plain.contains('\x1b'));
            prop_assert_eq!(plain.into_owned(), parts.concat());
        }

        #[test]
        fn any_line_has_a_verdict(line in any::<String>()) {
            let mut matchers = matchers(
                r#"{"regexp": "^(.+):(\\d+)$", "file": 1, "line": 2},
                    {"regexp": "(?i)\\s(é|b)(.*)$", "severity": 1, "message": 2, "loop": true}"#,
            );
            for line in ["a:1", &line, "a:2", &line] {
                drop(matchers.line(line));
            }
        }
    }
}
