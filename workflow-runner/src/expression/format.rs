//! The function `format`.

use super::ast::Node;
use super::evaluate::Evaluator;
use super::scope::shorten;
use super::{EvaluateError, Value};

/// The text of the first value with each `{0}`, `{1}` and so on replaced by the text of a further
/// value; `{{` and `}}` stand for braces. A value that the text does not mention is not evaluated.
pub(super) fn format(
    evaluator: &Evaluator<'_>,
    arguments: &[Node],
) -> Result<String, EvaluateError> {
    let Some((pattern, arguments)) = arguments.split_first() else { return Ok(String::new()) };
    let pattern = evaluator.evaluate(pattern)?;
    let pattern = pattern.as_text();
    let pieces = pieces(&pattern, arguments.len())?;
    let mut values: Vec<Option<Value>> = vec![None; arguments.len()];
    let mut result = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => append(evaluator, &mut result, text)?,
            Piece::Argument(place) => {
                let value = match &mut values[place] {
                    Some(value) => value,
                    unknown => unknown.insert(evaluator.evaluate(&arguments[place])?),
                };
                append(evaluator, &mut result, &value.as_text())?;
            }
        }
    }
    Ok(result)
}

fn append(evaluator: &Evaluator<'_>, result: &mut String, text: &str) -> Result<(), EvaluateError> {
    evaluator.budget.charge(text.len())?;
    result.push_str(text);
    Ok(())
}

/// A part of the first value of `format`.
enum Piece<'t> {
    Text(&'t str),
    /// A value, by its place among the further ones.
    Argument(usize),
}

/// Takes a pattern apart.
fn pieces(pattern: &str, arguments: usize) -> Result<Vec<Piece<'_>>, EvaluateError> {
    let mut pieces = Vec::new();
    let mut rest = pattern;
    while let Some(brace) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(brace);
        let doubled = from.starts_with("{{") || from.starts_with("}}");
        if doubled {
            // The text goes up to and with the first of the two.
            pieces.push(Piece::Text(&rest[..=brace]));
            rest = &from[2..];
            continue;
        }
        let Some((digits, after)) = from.strip_prefix('{').and_then(|from| from.split_once('}'))
        else {
            return Err(invalid(from));
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid(from));
        }
        let place = digits.parse::<usize>().ok().filter(|place| *place < arguments);
        let Some(place) = place else {
            let values = if arguments == 1 { "value follows" } else { "values follow" };
            return Err(EvaluateError::invalid(format!(
                "format asks for {{{}}}, but only {arguments} {values} its text (counted from 0)",
                shorten(digits)
            )));
        };
        pieces.push(Piece::Text(before));
        pieces.push(Piece::Argument(place));
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

fn invalid(from: &str) -> EvaluateError {
    EvaluateError::invalid(format!(
        "format cannot read its text at {:?}: a place for a value is a number in braces, such as \
         {{0}}, and a brace itself is doubled",
        shorten(from)
    ))
}
