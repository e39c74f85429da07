//! Every `${{ }}` of a file is parsed before anything runs, and what it uses exists where it stands.

use std::collections::HashSet;

use crate::diagnostic::Diagnostic;
use crate::expression::Expression;
use crate::template;
use crate::yaml::{Document, Node, Source};

use super::places::{self, Place};
use super::rules::Rules;
use super::secrets::SecretUse;

/// Names of secrets in one scalar whose exact place is looked up; the rest get the scalar's. A
/// script with thousands of them would be searched from its start for each.
const EXACT_PLACES: usize = 64;

/// Findings of one file; further ones are dropped.
const FINDINGS: usize = 100;

/// What the expressions of a file use.
#[derive(Debug, Default)]
pub(super) struct Expressions {
    /// The secrets that they read.
    pub(super) secrets: Vec<SecretUse>,
    /// What is wrong with them.
    pub(super) errors: Vec<Diagnostic>,
}

/// Parses every `${{ }}` in a file.
pub(super) fn expressions(document: &Document, rules: &Rules) -> Expressions {
    let mut check = Check {
        source: &document.source,
        rules,
        path: Vec::new(),
        found: Expressions::default(),
        seen: HashSet::new(),
    };
    check.tree(&document.root);
    check.found
}

/// Whether a key stands for `${{ insert }}`: the mapping beside it is merged here
/// (github-runner-protocol 5.5).
pub(super) fn is_insert(text: &str) -> bool {
    text.trim()
        .strip_prefix("${{")
        .and_then(|rest| rest.strip_suffix("}}"))
        .is_some_and(|inner| inner.trim() == "insert")
}

struct Check<'a> {
    source: &'a Source,
    rules: &'a Rules,
    /// The keys on the way to what is looked at.
    path: Vec<&'a str>,
    found: Expressions,
    /// The job and the lower-case name of each secret that was found.
    seen: HashSet<(Option<&'a str>, String)>,
}

impl<'a> Check<'a> {
    /// Recursion is bounded by the depth of the tree, which the reader of YAML limits.
    fn tree(&mut self, node: &'a Node) {
        if let Some(text) = node.text() {
            self.text(node, text);
        }
        // A list is no condition; the decoder says so.
        let items = node.as_sequence().filter(|_| !Place::at(&self.path).has_status());
        for item in items.unwrap_or_default() {
            self.tree(item);
        }
        for (key, value) in node.as_mapping().unwrap_or_default() {
            let name = key.text().unwrap_or_default();
            if name.contains("${{") && !is_insert(name) {
                self.template(key, name);
            }
            self.path.push(name);
            self.tree(value);
            self.path.pop();
        }
    }

    fn text(&mut self, node: &Node, text: &str) {
        if text.contains("${{") {
            self.template(node, text);
        } else if Place::at(&self.path).has_status() && !node.is_null() {
            // The `if` of a job or step needs no `${{ }}` to be an expression.
            self.expression(node, 0, text);
        }
    }

    fn template(&mut self, node: &Node, text: &str) {
        match template::expressions(text) {
            Ok(found) => {
                for (offset, text) in found {
                    self.expression(node, offset, &text);
                }
            }
            Err(error) => self.error(node, error.offset, error.message),
        }
    }

    fn expression(&mut self, node: &Node, offset: usize, text: &str) {
        let expression = match Expression::parse(text) {
            Ok(expression) => expression,
            Err(error) => return self.error(node, offset + error.offset, error.message),
        };
        for misuse in places::misuses(&expression, Place::at(&self.path), self.rules) {
            self.finding(node, offset + misuse.offset, misuse.message, Some(misuse.hint));
        }
        let job = match self.path[..] {
            ["jobs", job, ..] => Some(job),
            _ => None,
        };
        for name in expression.properties_of("secrets") {
            if self.seen.insert((job, name.to_lowercase())) {
                let secrets = &mut self.found.secrets;
                let exact = secrets.len() < EXACT_PLACES;
                let location = if exact { node.place(self.source, offset) } else { node.location };
                secrets.push(SecretUse { name, job: job.map(str::to_owned), location });
            }
        }
    }

    fn error(&mut self, node: &Node, offset: usize, message: String) {
        self.finding(node, offset, message, None);
    }

    fn finding(&mut self, node: &Node, offset: usize, message: String, hint: Option<String>) {
        if self.found.errors.len() >= FINDINGS {
            return;
        }
        let place = node.place(self.source, offset);
        let error = self.source.diagnostic(place, message);
        self.found.errors.push(match hint {
            Some(hint) => error.hint(hint),
            None => error,
        });
    }
}
