//! What an expression can see.

use common::event::JobResult;

use super::{EvaluateError, Value};

/// The contexts that Actions has in one place or another; `forgejo` and `gitea` are other names of
/// `github` (forgejo-runner-protocol 8.5).
pub const CONTEXTS: [&str; 14] = [
    "github", "forgejo", "gitea", "env", "vars", "job", "jobs", "steps", "runner", "secrets",
    "strategy", "matrix", "needs", "inputs",
];

/// What an expression can see.
pub trait Scope {
    /// The context of this name (lower case), if it exists here.
    ///
    /// `==` on objects compares identity, so asking twice should give the same `Arc`.
    fn context(&self, name: &str) -> Option<Value>;

    /// The job's result so far, which the status functions compare with; `None` where they are not
    /// allowed. For [`JobResult::Skipped`], a job that this one needs was skipped, only `always()` is
    /// true.
    fn status(&self) -> Option<JobResult>;

    /// The answer of `hashFiles` for these patterns; [`HashFiles::Unknown`] makes the evaluation
    /// stop with [`EvaluateError::NeedsHash`], and the caller computes it and evaluates again: it
    /// keeps the answers by their patterns, because an expression may ask for several.
    fn hash_files(&self, patterns: &[String]) -> HashFiles;

    /// The names of the contexts that exist here, for the message about one that does not. Empty if
    /// they are not known.
    fn context_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The answer to a request for `hashFiles`.
#[derive(Clone, Debug)]
pub enum HashFiles {
    /// The hash, or empty when nothing matched.
    Known(String),
    /// Not computed yet.
    Unknown,
    /// `hashFiles` is not available in this place.
    Unavailable,
}

/// The least likeness of two names, from 0 to 1, at which one is suggested for the other.
const SUGGEST_LIKENESS: f64 = 0.7;

/// The name that is most like `name`, if any is like it at all.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = name.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= SUGGEST_LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The most characters of a wrong name that an error shows.
const SHOWN_CHARACTERS: usize = 40;

/// The beginning of a name, for a message.
pub(super) fn shorten(name: &str) -> &str {
    name.char_indices().nth(SHOWN_CHARACTERS).map_or(name, |(end, _)| &name[..end])
}

/// The error about a context that does not exist in this scope.
pub(super) fn unknown_context(name: &str, scope: &dyn Scope) -> EvaluateError {
    let name = shorten(name);
    let exist = scope.context_names();
    let hint = if CONTEXTS.contains(&name) {
        if exist.is_empty() {
            String::from("it exists in other places of a workflow only")
        } else {
            format!("here exist {}", exist.join(", "))
        }
    } else {
        let known: Vec<&str> = if exist.is_empty() {
            CONTEXTS.to_vec()
        } else {
            exist.iter().map(String::as_str).collect()
        };
        match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean {near}? (text stands in single quotes: '{name}')"),
            None => format!(
                "text stands in single quotes ('{name}'), and the contexts are {}",
                known.join(", ")
            ),
        }
    };
    let what = if CONTEXTS.contains(&name) { "is not available here" } else { "does not exist" };
    EvaluateError::invalid(format!("the context \"{name}\" {what}: {hint}"))
}
