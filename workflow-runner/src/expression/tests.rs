//! Known answers and properties of the language.

mod functions;
mod literals;
mod object;
mod operators;
mod properties;
mod syntax;

use common::event::JobResult;
use serde_json::{Value as Json, json};

use super::*;

/// A scope of given contexts, which gives the same object each time.
pub(crate) struct Contexts {
    contexts: Object,
    status: Option<JobResult>,
    hash: HashFiles,
}

impl Contexts {
    /// The scope whose contexts are the members of a JSON object, in a job that succeeds so far.
    pub(crate) fn new(contexts: &Json) -> Self {
        let contexts = match Value::from_json(contexts) {
            Value::Object(object) => (*object).clone(),
            other => panic!("contexts must be a mapping, not {}", other.kind()),
        };
        Self { contexts, status: Some(JobResult::Success), hash: HashFiles::Unavailable }
    }

    /// The same in a job of this state.
    pub(crate) fn status(self, status: Option<JobResult>) -> Self {
        Self { status, ..self }
    }

    /// The same with this answer of `hashFiles`.
    pub(crate) fn hash(self, hash: HashFiles) -> Self {
        Self { hash, ..self }
    }
}

impl Scope for Contexts {
    fn context(&self, name: &str) -> Option<Value> {
        self.contexts.get(name).cloned()
    }

    fn status(&self) -> Option<JobResult> {
        self.status
    }

    fn hash_files(&self, _patterns: &[String]) -> HashFiles {
        self.hash.clone()
    }

    fn context_names(&self) -> Vec<String> {
        self.contexts.iter().map(|(name, _)| name.to_owned()).collect()
    }
}

/// A value in the notation of the tables: JSON on one line, numbers as in text.
pub(crate) fn show(value: &Value) -> String {
    match value {
        Value::Number(_) => value.to_text(),
        other => other.to_json().to_string(),
    }
}

/// The value of an expression, or its error.
fn evaluate(expression: &str, scope: &Contexts) -> Result<Value, EvaluateError> {
    Expression::parse(expression)?.evaluate(scope)
}

/// Checks rows of an expression and its value in these contexts.
#[track_caller]
fn check_in(contexts: &Json, rows: &[(&str, &str)]) {
    let scope = Contexts::new(contexts);
    for (expression, expected) in rows {
        match evaluate(expression, &scope) {
            Ok(value) => assert_eq!(show(&value), *expected, "{expression}"),
            Err(error) => panic!("{expression}: {error}"),
        }
    }
}

/// Checks rows of an expression and its value without contexts.
#[track_caller]
fn check(rows: &[(&str, &str)]) {
    check_in(&json!({}), rows);
}

/// Checks rows of an expression that parses and a part of the error of its evaluation.
#[track_caller]
fn check_errors_in(contexts: &Json, rows: &[(&str, &str)]) {
    let scope = Contexts::new(contexts);
    for (expression, expected) in rows {
        match evaluate(expression, &scope) {
            Err(EvaluateError::Invalid { message, .. }) => {
                assert!(message.contains(expected), "{expression:.200}: {message:.200}");
            }
            Err(other) => panic!("{expression}: {other:?}"),
            Ok(value) => panic!("{expression:.200} is {:.200}", show(&value)),
        }
    }
}
