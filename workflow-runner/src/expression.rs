//! STUB (signatures are the border; the owner of this module replaces the bodies).

use std::sync::Arc;

/// A value of the expression language.
#[derive(Clone, Debug)]
pub enum Value {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// Every number is a double.
    Number(f64),
    /// Text.
    String(Arc<str>),
    /// A list; identity counts for `==`.
    Array(Arc<Vec<Value>>),
    /// A mapping with keys in order; identity counts for `==`.
    Object(Arc<Object>),
}

/// A mapping: keys in order, looked up without regard to case.
#[derive(Clone, Debug, Default)]
pub struct Object {}

/// The job's state as the status functions see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `success()` is true.
    Success,
    /// `failure()` is true.
    Failure,
    /// `cancelled()` is true.
    Cancelled,
}

/// What an expression can see.
pub trait Scope {
    /// The context of this name (lower case), if it exists here.
    fn context(&self, name: &str) -> Option<Value>;
    /// The status functions' answer; `None` where they are not allowed.
    fn status(&self) -> Option<Status>;
    /// The answer of `hashFiles` for these patterns; `HashFiles::Unknown` makes the evaluation stop
    /// with [`EvaluateError::NeedsHash`], and the caller computes it and evaluates again.
    fn hash_files(&self, patterns: &[String]) -> HashFiles;
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

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Expression {}

/// Why a text is not an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// Characters before the place.
    pub offset: usize,
    /// Lower case, no full stop.
    pub message: String,
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// It does not parse.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A function or context was used wrongly.
    #[error("{0}")]
    Invalid(String),
    /// `hashFiles` must be computed for these patterns first.
    #[error("hashFiles is not available here")]
    NeedsHash(Vec<String>),
}

impl Expression {
    /// Parses the text of an expression, without `${{ }}`.
    pub fn parse(_text: &str) -> Result<Self, ParseError> {
        todo!()
    }
    /// Evaluates it.
    pub fn evaluate(&self, _scope: &dyn Scope) -> Result<Value, EvaluateError> {
        todo!()
    }
    /// Whether it calls `success`, `failure`, `always` or `cancelled`.
    pub fn has_status_function(&self) -> bool {
        todo!()
    }
    /// The properties that are read of this context by a literal name, such as the names of secrets.
    pub fn properties_of(&self, _context: &str) -> Vec<String> {
        todo!()
    }
}

impl Value {
    /// As text: null is empty, numbers as GitHub formats them, `Array`, `Object`.
    pub fn to_text(&self) -> String {
        todo!()
    }
    /// Whether it counts as true.
    pub fn is_truthy(&self) -> bool {
        todo!()
    }
    /// From JSON.
    pub fn from_json(_json: &serde_json::Value) -> Self {
        todo!()
    }
    /// To JSON; NaN and infinities become null.
    pub fn to_json(&self) -> serde_json::Value {
        todo!()
    }
    /// Builds text.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::String(Arc::from(text.as_ref()))
    }
    /// Builds a mapping.
    pub fn object(_pairs: impl IntoIterator<Item = (String, Value)>) -> Self {
        todo!()
    }
}
