//! STUB (signatures are the border; the owner of this module replaces the bodies).

use common::plan;

use crate::expression::{EvaluateError, ParseError, Scope, Value};

/// The plan value of a text as a user wrote it: [`plan::Value::Template`] if it contains `${{`,
/// else [`plan::Value::Literal`]; the error's offset counts characters of `text`.
pub fn text_value(_text: &str) -> Result<plan::Value, ParseError> {
    todo!()
}

/// The expressions in a template, each with its offset in characters.
pub fn expressions(_text: &str) -> Result<Vec<(usize, String)>, ParseError> {
    todo!()
}

/// Evaluates a value of a plan; the result is never evaluated again.
pub fn evaluate(_value: &plan::Value, _scope: &dyn Scope) -> Result<Value, EvaluateError> {
    todo!()
}

/// Evaluates a condition (`if`): without a status function it is and-ed with `success()`. An absent
/// condition is `success()`.
pub fn condition(_text: Option<&str>, _scope: &dyn Scope) -> Result<bool, EvaluateError> {
    todo!()
}
