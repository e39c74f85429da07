//! Text with `${{ }}` in it, values of a plan, and conditions
//! (github-runner-protocol 5.5 and 5.6).

mod condition;
mod segments;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use common::plan;

use crate::expression::{Budget, EvaluateError, Expression, Object, ParseError, Scope, Value};
pub use condition::Condition;
use segments::{Segment, segments};

/// The key that merges its value into the mapping, as `${{ insert }}`.
const INSERT: &str = "insert";

/// The plan value of a text as a user wrote it: [`plan::Value::Template`] if it contains `${{`,
/// else [`plan::Value::Literal`].
///
/// # Errors
/// If a `${{` is not closed or what it holds does not parse; the offset counts characters of
/// `text`.
pub fn text_value(text: &str) -> Result<plan::Value, ParseError> {
    if !text.contains(segments::OPEN) {
        return Ok(plan::Value::literal(text));
    }
    for (offset, expression) in expressions(text)? {
        if expression != INSERT {
            Expression::parse(&expression).map_err(|error| error.moved(offset))?;
        }
    }
    Ok(plan::Value::Template(text.to_owned()))
}

/// The expressions in a template, without the white space around them, each with its offset in
/// characters.
///
/// # Errors
/// If a `${{` is not closed or empty; the expressions are not parsed.
pub fn expressions(text: &str) -> Result<Vec<(usize, String)>, ParseError> {
    let found = segments(text)?.into_iter().filter_map(|segment| match segment {
        Segment::Text(_) => None,
        Segment::Expression { text, offset } => Some((offset, text.to_owned())),
    });
    Ok(found.collect())
}

/// Evaluates a value of a plan; the result is never evaluated again.
///
/// The whole value shares one budget of [`common::limits::EVALUATION_BYTES`].
///
/// # Errors
/// If an expression does not parse (the offset counts characters of its own template or
/// expression), has no value, or gives something that cannot stand where it does.
pub fn evaluate(value: &plan::Value, scope: &dyn Scope) -> Result<Value, EvaluateError> {
    evaluate_within(value, scope, &Budget::default())
}

/// Recursion is bounded by the depth of the plan, which is decoded with a limit.
fn evaluate_within(
    value: &plan::Value,
    scope: &dyn Scope,
    budget: &Budget,
) -> Result<Value, EvaluateError> {
    match value {
        plan::Value::Literal(text) => Ok(Value::text(text)),
        plan::Value::Template(text) => evaluate_template(text, scope, budget),
        plan::Value::Expression(text) => Expression::parse(text)?.evaluate_within(scope, budget),
        plan::Value::Sequence(values) => {
            let mut evaluated = Vec::with_capacity(values.len());
            for value in values {
                evaluated.push(evaluate_within(value, scope, budget)?);
            }
            Ok(Value::Array(Arc::new(evaluated)))
        }
        plan::Value::Mapping(pairs) => evaluate_mapping(pairs, scope, budget),
        plan::Value::Insert => {
            Err(EvaluateError::invalid("insert stands as the key of a mapping only"))
        }
    }
}

fn evaluate_template(
    text: &str,
    scope: &dyn Scope,
    budget: &Budget,
) -> Result<Value, EvaluateError> {
    let segments = segments(text)?;
    if let [Segment::Expression { text, offset }] = segments[..] {
        return evaluate_expression(text, offset, scope, budget);
    }
    let mut result = String::new();
    for segment in segments {
        let value;
        let part = match segment {
            Segment::Text(text) => text.into(),
            Segment::Expression { text, offset } => {
                value = evaluate_expression(text, offset, scope, budget)?;
                value.as_text()
            }
        };
        budget.charge(part.len())?;
        result.push_str(&part);
    }
    Ok(Value::from(result))
}

fn evaluate_expression(
    text: &str,
    offset: usize,
    scope: &dyn Scope,
    budget: &Budget,
) -> Result<Value, EvaluateError> {
    let expression = Expression::parse(text).map_err(|error| error.moved(offset))?;
    expression.evaluate_within(scope, budget).map_err(|error| error.moved(offset))
}

fn evaluate_mapping(
    pairs: &[(plan::Value, plan::Value)],
    scope: &dyn Scope,
    budget: &Budget,
) -> Result<Value, EvaluateError> {
    let mut object = Object::keeping_spellings();
    for (key, value) in pairs {
        if is_insert(key)? {
            match evaluate_within(value, scope, budget)? {
                Value::Object(inserted) => {
                    object.extend(inserted.iter().map(|(name, value)| (name, value.clone())));
                }
                other => {
                    return Err(EvaluateError::invalid(format!(
                        "${{{{ insert }}}} needs a mapping, not {}",
                        other.kind()
                    )));
                }
            }
            continue;
        }
        let name = evaluate_within(key, scope, budget)?;
        if matches!(name, Value::Null) || !name.is_primitive() {
            return Err(EvaluateError::invalid(format!(
                "the key of a mapping is {}, but must be text",
                name.kind()
            )));
        }
        let value = evaluate_within(value, scope, budget)?;
        object.insert(name.to_text(), value);
    }
    Ok(object.into())
}

/// Whether a key merges its value, written out or already as such.
fn is_insert(key: &plan::Value) -> Result<bool, ParseError> {
    match key {
        plan::Value::Insert => Ok(true),
        plan::Value::Template(text) => {
            Ok(matches!(segments(text)?[..], [Segment::Expression { text: INSERT, .. }]))
        }
        _ => Ok(false),
    }
}

/// Evaluates a condition (`if`): without a status function it is and-ed with `success()`. An absent
/// or empty condition is `success()`.
///
/// # Errors
/// If it does not parse (the offset counts characters of `text`) or has no value.
pub fn condition(text: Option<&str>, scope: &dyn Scope) -> Result<bool, EvaluateError> {
    Condition::parse(text.unwrap_or_default())?.evaluate(scope)
}
