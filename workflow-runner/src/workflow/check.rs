//! Every `${{ }}` of a file is parsed before anything runs.

use std::collections::HashSet;

use crate::diagnostic::Diagnostic;
use crate::expression::{CONTEXTS, Expression, Use};
use crate::template;
use crate::yaml::{Document, Node, Source, shorten};

use super::secrets::SecretUse;
use super::suggest;

/// One more name of `github` (forgejo-runner-protocol 8.5).
const FORGE: &str = "forge";

/// Names of secrets in one scalar whose exact place is looked up; the rest get the scalar's. A
/// script with thousands of them would be searched from its start for each.
const EXACT_PLACES: usize = 64;

/// Parses every `${{ }}` in a file, and returns the secrets that they read.
pub(super) fn expressions(document: &Document) -> Result<Vec<SecretUse>, Diagnostic> {
    let mut check =
        Check { source: &document.source, job: None, uses: Vec::new(), seen: HashSet::new() };
    let Some(pairs) = document.root.as_mapping() else {
        return Ok(Vec::new());
    };
    for (key, value) in pairs {
        check.tree(key)?;
        match (key.text(), value.as_mapping()) {
            (Some("jobs"), Some(jobs)) => {
                for (key, job) in jobs {
                    check.tree(key)?;
                    check.job = key.text().map(str::to_owned);
                    check.job(job)?;
                    check.job = None;
                }
            }
            _ => check.tree(value)?,
        }
    }
    Ok(check.uses)
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
    job: Option<String>,
    uses: Vec<SecretUse>,
    /// The job and the lower-case name of each secret in `uses`.
    seen: HashSet<(Option<String>, String)>,
}

impl Check<'_> {
    /// A job: its `if` and those of its steps need no `${{ }}` to be expressions.
    fn job(&mut self, job: &Node) -> Result<(), Diagnostic> {
        self.tree(job)?;
        if let Some(condition) = job.get("if") {
            self.condition(condition)?;
        }
        for step in job.get("steps").and_then(Node::as_sequence).unwrap_or_default() {
            if let Some(condition) = step.get("if") {
                self.condition(condition)?;
            }
        }
        Ok(())
    }

    fn condition(&mut self, node: &Node) -> Result<(), Diagnostic> {
        match node.text() {
            // With `${{ }}` in it, the text was parsed as a template.
            Some(text) if !text.contains("${{") && !node.is_null() => {
                self.expression(node, 0, text)
            }
            _ => Ok(()),
        }
    }

    fn tree(&mut self, node: &Node) -> Result<(), Diagnostic> {
        if let Some(text) = node.text() {
            return if text.contains("${{") { self.template(node, text) } else { Ok(()) };
        }
        for item in node.as_sequence().unwrap_or_default() {
            self.tree(item)?;
        }
        for (key, value) in node.as_mapping().unwrap_or_default() {
            if !key.text().is_some_and(is_insert) {
                self.tree(key)?;
            }
            self.tree(value)?;
        }
        Ok(())
    }

    fn template(&mut self, node: &Node, text: &str) -> Result<(), Diagnostic> {
        let found = template::expressions(text).map_err(|error| {
            let place = node.place(self.source, error.offset);
            self.source.diagnostic(place, error.message)
        })?;
        for (offset, text) in found {
            self.expression(node, offset, &text)?;
        }
        Ok(())
    }

    fn expression(&mut self, node: &Node, offset: usize, text: &str) -> Result<(), Diagnostic> {
        let expression = Expression::parse(text).map_err(|error| {
            let place = node.place(self.source, offset + error.offset);
            self.source.diagnostic(place, error.message)
        })?;
        for used in expression.contexts() {
            if !CONTEXTS.contains(&used.name.as_str()) && used.name != FORGE {
                return Err(self.unknown_context(node, offset, used));
            }
        }
        for name in expression.properties_of("secrets") {
            let fresh = self.seen.insert((self.job.clone(), name.to_lowercase()));
            if fresh {
                let exact = self.uses.len() < EXACT_PLACES;
                let location = if exact { node.place(self.source, offset) } else { node.location };
                self.uses.push(SecretUse { name, job: self.job.clone(), location });
            }
        }
        Ok(())
    }

    fn unknown_context(&self, node: &Node, offset: usize, used: &Use) -> Diagnostic {
        let place = node.place(self.source, offset + used.offset);
        let message = format!("there is no context {:?}", shorten(&used.name));
        let error = self.source.diagnostic(place, message);
        match suggest::hint(&used.name, CONTEXTS) {
            Some(hint) => error.hint(hint),
            None => error.hint(format!(
                "text stands in single quotes; the contexts are {}",
                CONTEXTS.join(", ")
            )),
        }
    }
}
