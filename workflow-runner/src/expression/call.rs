//! What the functions do (github-runner-protocol 5.8).

use super::ast::Node;
use super::evaluate::{Evaluated, Evaluator};
use super::function::Function;
use common::event::JobResult;

use super::{EvaluateError, HashFiles, Value, format, json, text};

/// Calls a function. The parser has checked the number of values.
pub(super) fn call(
    evaluator: &Evaluator<'_>,
    function: Function,
    arguments: &[Node],
) -> Result<Evaluated, EvaluateError> {
    let argument = |place: usize| match arguments.get(place) {
        Some(node) => evaluator.evaluate(node),
        None => Ok(Value::Null),
    };
    let value = match function {
        Function::Contains => contains(&argument(0)?, &argument(1)?).into(),
        Function::StartsWith => both_texts(&argument(0)?, &argument(1)?, text::starts_with).into(),
        Function::EndsWith => both_texts(&argument(0)?, &argument(1)?, text::ends_with).into(),
        Function::Format => format::format(evaluator, arguments)?.into(),
        Function::Join => {
            let separator = if arguments.len() > 1 { Some(argument(1)?) } else { None };
            join(evaluator, &argument(0)?, separator.as_ref())?.into()
        }
        Function::ToJson => json::write(&argument(0)?, evaluator.budget)?.into(),
        Function::FromJson => json::read(&argument(0)?.as_text(), evaluator.budget)?,
        // Keeps what `*` made of the value.
        Function::Case => return case(evaluator, arguments),
        Function::HashFiles => hash_files(evaluator, arguments)?.into(),
        Function::Success => (status(evaluator, function)? == JobResult::Success).into(),
        Function::Failure => (status(evaluator, function)? == JobResult::Failure).into(),
        Function::Cancelled => (status(evaluator, function)? == JobResult::Cancelled).into(),
        Function::Always => {
            status(evaluator, function)?;
            true.into()
        }
    };
    Ok(value.into())
}

/// Whether a list has a value that is `==`, or a text has a part.
fn contains(searched: &Value, wanted: &Value) -> bool {
    let Value::Array(values) = searched else {
        return both_texts(searched, wanted, text::contains);
    };
    // Text is read as a number once, not once for each value.
    let number = Value::Number(wanted.to_number());
    values.iter().any(|value| match (value, wanted) {
        (Value::Bool(_) | Value::Null | Value::Number(_), Value::String(_)) => {
            value.equals(&number)
        }
        _ => value.equals(wanted),
    })
}

/// Compares two values as text; lists and mappings never match.
fn both_texts(a: &Value, b: &Value, matches: fn(&str, &str) -> bool) -> bool {
    a.is_primitive() && b.is_primitive() && matches(&a.as_text(), &b.as_text())
}

/// The texts of a list with the separator between them, `,` if it has none; a single value is
/// itself, a mapping is empty.
fn join(
    evaluator: &Evaluator<'_>,
    values: &Value,
    separator: Option<&Value>,
) -> Result<String, EvaluateError> {
    let values = match values {
        Value::Array(values) => &***values,
        Value::Object(_) => &[],
        single => std::slice::from_ref(single),
    };
    let separator = match separator {
        Some(separator) if separator.is_primitive() => separator.as_text(),
        _ => ",".into(),
    };
    let mut joined = String::new();
    for (place, value) in values.iter().enumerate() {
        let value = value.as_text();
        let between = if place == 0 { "" } else { &separator };
        evaluator.budget.charge(between.len() + value.len())?;
        joined.push_str(between);
        joined.push_str(&value);
    }
    Ok(joined)
}

/// The value after the first condition that is true, else the default. What is not chosen is not
/// evaluated.
fn case(evaluator: &Evaluator<'_>, arguments: &[Node]) -> Result<Evaluated, EvaluateError> {
    let mut rest = arguments;
    while let [condition, value, others @ ..] = rest {
        match evaluator.evaluate(condition)? {
            Value::Bool(true) => return evaluator.node(value),
            Value::Bool(false) => rest = others,
            other => {
                return Err(EvaluateError::invalid(format!(
                    "a condition of case must be true or false, not {}: compare it, as in \
                     value != ''",
                    other.kind()
                )));
            }
        }
    }
    match rest {
        [default, ..] => evaluator.node(default),
        [] => Ok(Value::Null.into()),
    }
}

/// The option that may stand before the patterns of `hashFiles`.
const FOLLOW_LINKS: &str = "--follow-symbolic-links";

fn hash_files(evaluator: &Evaluator<'_>, arguments: &[Node]) -> Result<String, EvaluateError> {
    let mut patterns = Vec::with_capacity(arguments.len());
    for argument in arguments {
        patterns.push(evaluator.evaluate(argument)?.to_text());
    }
    if let Some(option) = patterns.first_mut().filter(|pattern| pattern.starts_with("--")) {
        if !option.eq_ignore_ascii_case(FOLLOW_LINKS) {
            return Err(EvaluateError::invalid(format!(
                "hashFiles has no option {option:?}; its only one is {FOLLOW_LINKS}"
            )));
        }
        FOLLOW_LINKS.clone_into(option);
    }
    match evaluator.scope.hash_files(&patterns) {
        HashFiles::Known(hash) => Ok(hash),
        HashFiles::Unknown => Err(EvaluateError::NeedsHash(patterns)),
        HashFiles::Unavailable => Err(EvaluateError::invalid(
            "hashFiles is not available here: it reads the workspace, so it works in steps only",
        )),
    }
}

fn status(evaluator: &Evaluator<'_>, function: Function) -> Result<JobResult, EvaluateError> {
    evaluator.scope.status().ok_or_else(|| {
        EvaluateError::invalid(format!(
            "the function {} is not available here: it works in conditions (if) only",
            function.name()
        ))
    })
}
