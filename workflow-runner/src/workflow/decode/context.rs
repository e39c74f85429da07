//! What every part of the decoder uses: errors with their place, warnings, unknown keys.

use std::sync::Arc;

use common::plan::Dialect;

use super::super::rules::Rules;
use super::super::{Warning, suggest};
use crate::diagnostic::Diagnostic;
use crate::yaml::{Node, Source};

/// Warnings of one file; further ones are counted in one last line.
const WARNINGS: usize = 100;
/// Errors of one file; further ones are dropped.
const ERRORS: usize = 100;
/// The longest key of a job and `id` of a step, in characters. GitHub has the same limit.
const IDENTIFIER_CHARACTERS: usize = 99;

/// The state of decoding one file.
pub(super) struct Context {
    pub(super) source: Arc<Source>,
    pub(super) rules: &'static Rules,
    errors: Vec<Diagnostic>,
    unsupported: Vec<(String, Diagnostic)>,
    warnings: Vec<Warning>,
    dropped: usize,
}

/// Who does not take a file in which something odd stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusedBy {
    /// It is legal, and hardly ever meant.
    Nobody,
    /// A server that looks closely; see [`Rules::refuses_oddities`].
    Server,
    /// Every forge, or its runner (forgejo-runner-protocol 7.6).
    Everybody,
}

/// What was found in one file.
pub(in crate::workflow) struct Findings {
    /// What makes the file unusable.
    pub(in crate::workflow) errors: Vec<Diagnostic>,
    /// What a job asks for that no machine here gives, by the job's key.
    pub(in crate::workflow) unsupported: Vec<(String, Diagnostic)>,
    /// What changes nothing.
    pub(in crate::workflow) warnings: Vec<Warning>,
}

impl Context {
    pub(super) fn new(source: Arc<Source>, dialect: Dialect) -> Self {
        Self {
            source,
            rules: Rules::of(dialect),
            errors: Vec::new(),
            unsupported: Vec::new(),
            warnings: Vec::new(),
            dropped: 0,
        }
    }

    /// A finding at a value.
    pub(super) fn error(&self, node: &Node, message: impl Into<String>) -> Diagnostic {
        self.source.diagnostic(node.location, message)
    }

    /// A finding about the whole file.
    pub(super) fn about_file(&self, message: impl Into<String>) -> Diagnostic {
        self.source.about_file(message)
    }

    /// Keeps a finding that makes the file unusable, and goes on.
    pub(super) fn fail(&mut self, error: Diagnostic) {
        if self.errors.len() < ERRORS {
            self.errors.push(error);
        }
    }

    /// Keeps what a job asks for that no machine here gives.
    pub(super) fn unsupported(&mut self, job: &str, error: Diagnostic) {
        if self.unsupported.len() < ERRORS {
            self.unsupported.push((job.to_owned(), error));
        }
    }

    /// The value, or its error kept.
    pub(super) fn keep<T>(&mut self, result: Result<T, Diagnostic>) -> Option<T> {
        result.map_err(|error| self.fail(error)).ok()
    }

    /// Keeps a finding that changes nothing.
    pub(super) fn warn(&mut self, refused_by: RefusedBy, finding: Diagnostic) {
        let is_refused = match refused_by {
            RefusedBy::Nobody => false,
            RefusedBy::Server => self.rules.refuses_oddities,
            RefusedBy::Everybody => true,
        };
        if self.warnings.len() < WARNINGS {
            self.warnings.push(Warning { finding, is_refused });
        } else {
            self.dropped += 1;
        }
    }

    /// Everything that was found.
    pub(super) fn into_findings(mut self) -> Findings {
        if self.dropped > 0 {
            let more = format!("{} more warnings are not shown", self.dropped);
            let finding = self.source.about_file(more);
            self.warnings.push(Warning { finding, is_refused: false });
        }
        Findings { errors: self.errors, unsupported: self.unsupported, warnings: self.warnings }
    }

    /// Warns about every key of a mapping that is not known. `what` fits "`x` is not a key of ..".
    pub(super) fn unknown_keys(&mut self, what: &str, pairs: &[(Node, Node)], known: &[&str]) {
        for (key, _) in pairs {
            let Some(name) = key.text() else { continue };
            let of_workflow = known.contains(&"jobs");
            if known.contains(&name) || (of_workflow && self.is_forge_key(name)) {
                continue;
            }
            let message =
                format!("{:?} is not a key of {what}; it is ignored", crate::yaml::shorten(name));
            self.warn_unknown(key, RefusedBy::Everybody, message, name, known);
        }
    }

    /// Warns about a word that is not known, with the nearest one that is. Looking for that one is
    /// dear, so it is left out for warnings that are not shown.
    pub(super) fn warn_unknown(
        &mut self,
        node: &Node,
        refused_by: RefusedBy,
        message: String,
        word: &str,
        known: &[&str],
    ) {
        if self.warnings.len() >= WARNINGS {
            self.dropped += 1;
            return;
        }
        let mut warning = self.error(node, message);
        warning.hint = suggest::hint(word, known.iter().copied());
        self.warn(refused_by, warning);
    }

    fn is_forge_key(&self, name: &str) -> bool {
        self.rules.workflow_keys.iter().any(|key| match key.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => *key == name,
        })
    }

    /// The pairs of a mapping, or an error that says what is there instead.
    pub(super) fn mapping<'a>(
        &self,
        node: &'a Node,
        what: &str,
    ) -> Result<&'a [(Node, Node)], Diagnostic> {
        node.as_mapping().ok_or_else(|| self.wrong(node, what, "a mapping"))
    }

    /// "`what` must be `expected`, this is ..".
    pub(super) fn wrong(&self, node: &Node, what: &str, expected: &str) -> Diagnostic {
        self.error(node, format!("{what} must be {expected}, this is {}", node.describe()))
    }

    /// Text without expressions.
    pub(super) fn text(&self, node: &Node, what: &str) -> Result<String, Diagnostic> {
        match node.text() {
            Some(_) if !node.is_null() => Ok(self.literal(node)),
            _ => Err(self.wrong(node, what, "text")),
        }
    }

    /// A boolean, where no expression may stand.
    pub(super) fn boolean(&self, node: &Node, what: &str) -> Result<bool, Diagnostic> {
        match (node.as_bool(), node.text()) {
            (Some(value), _) => Ok(value),
            (None, Some("true")) => Ok(true),
            (None, Some("false")) => Ok(false),
            _ => Err(self.wrong(node, what, "true or false")),
        }
    }

    /// The key of a job or `id` of a step, which expressions name.
    pub(super) fn identifier(&self, node: &Node, what: &str) -> Result<String, Diagnostic> {
        let text = self.text(node, what)?;
        let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let rest = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !starts || !rest || text.chars().count() > IDENTIFIER_CHARACTERS {
            let shown = crate::yaml::shorten(&text);
            return Err(self.error(node, format!("{what} cannot be {shown:?}")).hint(format!(
                "it starts with a letter or `_`, goes on with letters, digits, `_` and `-`, and \
                 has at most {IDENTIFIER_CHARACTERS} characters"
            )));
        }
        if text.starts_with("__") {
            return Err(self
                .error(node, format!("{what} cannot start with `__`"))
                .hint("names that start so are made by the runner; choose another"));
        }
        Ok(text)
    }
}
