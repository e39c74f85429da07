//! The inputs that a person gives to a workflow.

use serde_json::{Map, Value as Json};

use super::model::{Event, Input, InputKind, Workflow};
use super::scope::NoContexts;
use super::suggest;
use crate::diagnostic::Diagnostic;
use crate::expression::Value;
use crate::yaml::shorten;

/// The `inputs` context for an event: what was given, else the defaults, with the types that the
/// file says. Of an input that is given twice the last value counts.
///
/// An input that is not required, not given and without default is empty text, `false` or 0, and
/// the first option of a choice.
///
/// # Errors
///
/// A value that does not fit its type, an input that the workflow does not have, or a required one
/// that is missing.
pub fn inputs_from(
    workflow: &Workflow,
    event: &str,
    given: &[(String, String)],
) -> Result<Map<String, Json>, Diagnostic> {
    let declared = workflow.event(event).map_or(&[][..], |event: &Event| &event.inputs);
    for (name, _) in given {
        if !declared.iter().any(|input| is_named(input, name)) {
            return Err(unknown(workflow, event, declared, name));
        }
    }
    let mut values = Map::new();
    for input in declared {
        let text = given.iter().rev().find(|(name, _)| is_named(input, name));
        let value = match (text, &input.default) {
            (Some((_, text)), _) => typed(input, text).map_err(|reason| {
                at(workflow, input, format!("the value of input {:?} {reason}", input.name))
            })?,
            (None, Some(default)) => {
                let json = default.evaluate(&NoContexts).map_err(|(place, error)| {
                    let message = format!("the default of input {:?}: {error}", input.name);
                    workflow.source.diagnostic(place, message)
                })?;
                let text = Value::from_json(&json).to_text();
                typed(input, &text).map_err(|reason| {
                    at(workflow, input, format!("the default of input {:?} {reason}", input.name))
                })?
            }
            (None, None) if input.required => {
                let message = format!("the input {:?} is required and was not given", input.name);
                return Err(at(workflow, input, message)
                    .hint(format!("give it by --input {}=VALUE", input.name)));
            }
            (None, None) => empty(input),
        };
        values.insert(input.name.clone(), value);
    }
    Ok(values)
}

/// The `inputs` context as Forgejo's runner makes it of the event's own inputs: of a boolean the text
/// `true` alone is true, everything else stays text, and an input that is not there has its default
/// (forgejo-runner-protocol 8.5).
pub fn inputs_of_event(
    workflow: &Workflow,
    event: &str,
    given: &Map<String, Json>,
) -> Map<String, Json> {
    let declared = workflow.event(event).map_or(&[][..], |event: &Event| &event.inputs);
    let value = |input: &Input| {
        let found = given.iter().find(|(name, _)| is_named(input, name)).map(|(_, value)| value);
        let json = match (found, &input.default) {
            (Some(value), _) => value.clone(),
            // One that has no value without contexts has none.
            (None, Some(default)) => default.evaluate(&NoContexts).unwrap_or_default(),
            (None, None) => Json::Null,
        };
        let text = Value::from_json(&json).to_text();
        match input.kind {
            InputKind::Boolean => Json::Bool(text == "true"),
            _ => Json::String(text),
        }
    };
    declared.iter().map(|input| (input.name.clone(), value(input))).collect()
}

/// A text as the type of an input, or why it is none: a text fit to stand behind "the value".
pub(super) fn typed(input: &Input, text: &str) -> Result<Json, String> {
    let shown = shorten(text);
    match input.kind {
        InputKind::String | InputKind::Environment => Ok(Json::String(text.to_owned())),
        InputKind::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" => Ok(Json::Bool(true)),
            "false" => Ok(Json::Bool(false)),
            _ => Err(format!("must be true or false, not {shown:?}")),
        },
        InputKind::Number => {
            let number = Value::text(text).to_number();
            if number.is_nan() || text.trim().is_empty() {
                return Err(format!("must be a number, not {shown:?}"));
            }
            Ok(Value::Number(number).to_json())
        }
        InputKind::Choice if input.options.iter().any(|option| option == text) => {
            Ok(Json::String(text.to_owned()))
        }
        InputKind::Choice => {
            Err(format!("must be one of {}, not {shown:?}", input.options.join(", ")))
        }
    }
}

/// The value of an input that nobody gave and that has no default.
pub(super) fn empty(input: &Input) -> Json {
    match input.kind {
        InputKind::Boolean => Json::Bool(false),
        InputKind::Number => Json::from(0),
        InputKind::Choice => input.options.first().cloned().unwrap_or_default().into(),
        InputKind::String | InputKind::Environment => Json::String(String::new()),
    }
}

/// Inputs are found without regard to case, like every name in an expression.
fn is_named(input: &Input, name: &str) -> bool {
    input.name.eq_ignore_ascii_case(name)
}

fn at(workflow: &Workflow, input: &Input, message: String) -> Diagnostic {
    workflow.source.diagnostic(input.location, message)
}

fn unknown(workflow: &Workflow, event: &str, declared: &[Input], name: &str) -> Diagnostic {
    let shown = shorten(name);
    if declared.is_empty() {
        let message = format!("the event {event:?} of this workflow has no inputs, not {shown:?}");
        let others = workflow.on.iter().find(|event| !event.inputs.is_empty());
        let error = workflow.source.about_file(message);
        return match others {
            Some(event) => error.hint(format!("run it with --event {}", event.name)),
            None => error,
        };
    }
    let names: Vec<_> = declared.iter().map(|input| input.name.as_str()).collect();
    let error = workflow.source.about_file(format!("the workflow has no input {shown:?}"));
    match suggest::hint(name, names.iter().copied()) {
        Some(hint) => error.hint(hint),
        None => error.hint(format!("its inputs are: {}", names.join(", "))),
    }
}
