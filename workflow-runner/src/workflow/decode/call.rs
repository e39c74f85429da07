//! A job that calls a workflow.

use common::plan::Value;

use super::context::Context;
use super::value::is_template;
use crate::diagnostic::Diagnostic;
use crate::workflow::data::Data;
use crate::workflow::model::{Call, CallSecrets};
use crate::yaml::Node;

/// The keys that stand beside `steps` only.
const OF_STEPS: [&str; 10] = [
    "runs-on",
    "steps",
    "env",
    "defaults",
    "outputs",
    "timeout-minutes",
    "continue-on-error",
    "container",
    "services",
    "environment",
];

/// Decodes a call: `key` is that of `uses`, `reference` its value, `node` the job.
pub(super) fn call(
    context: &mut Context,
    name: &str,
    key: &Node,
    reference: &Node,
    node: &Node,
) -> Result<Call, Diagnostic> {
    for other in OF_STEPS {
        if let Some(value) = node.get(other) {
            let message = format!("job {name:?} calls a workflow and cannot have `{other}`");
            return Err(context.error(value, message).hint("move it into the called workflow"));
        }
    }
    if is_template(reference) {
        return Err(context
            .error(reference, "`uses` cannot hold an expression")
            .hint("write the path out; choose between two jobs by `if`"));
    }
    let text = context.text(reference, "`uses`")?.trim().to_owned();
    let path = match text.strip_prefix("./") {
        Some(path) => path.to_owned(),
        None => {
            let message = format!("job {name:?} calls a workflow of another repository");
            let hint = "only those of this one can be called, as \
                        `./.github/workflows/NAME.yml`; copy it, or write its steps here";
            let error = context.error(key, message).hint(hint);
            context.unsupported(name, error);
            text
        }
    };
    Ok(Call {
        path,
        inputs: inputs(context, node.get("with"))?,
        secrets: secrets(context, node.get("secrets"))?,
        location: reference.location,
    })
}

fn inputs(context: &Context, node: Option<&Node>) -> Result<Data, Diagnostic> {
    let node = match node {
        Some(node) if !node.is_null() => node,
        _ => return Ok(Data::Mapping(Vec::new())),
    };
    let pairs = context.mapping(node, "`with`")?;
    for (key, value) in pairs {
        if value.text().is_none() && !value.is_null() {
            let what = format!("the input {:?}", key.text().unwrap_or_default());
            return Err(context.wrong(value, &what, "a single value"));
        }
    }
    context.data(node)
}

fn secrets(context: &Context, node: Option<&Node>) -> Result<CallSecrets, Diagnostic> {
    match node {
        Some(node) if node.text() == Some("inherit") => Ok(CallSecrets::Inherit),
        Some(node) if node.as_mapping().is_none() && !node.is_null() => {
            Err(context.wrong(node, "`secrets`", "`inherit` or a mapping"))
        }
        node => context.scalars(node, "`secrets`").map(CallSecrets::Given),
    }
}

/// An output of `workflow_call`, or nothing for a workflow without outputs.
pub(super) fn outputs(context: &Context, config: &Node) -> Result<Value, Diagnostic> {
    let node = match config.get("outputs") {
        Some(node) if !node.is_null() => node,
        _ => return Ok(Value::empty_mapping()),
    };
    let mut outputs = Vec::new();
    for (key, node) in context.mapping(node, "`outputs`")? {
        let name = context.text(key, "an output's name")?;
        let Some(value) = node.get("value") else {
            let error = context.error(key, format!("the output {name:?} has no `value`"));
            return Err(error.hint("write `value: ${{ jobs.JOB.outputs.NAME }}`"));
        };
        outputs.push((Value::literal(name), context.value(value, "`value`")?));
    }
    Ok(Value::Mapping(outputs))
}

/// The secrets of `workflow_call` that a caller must give.
pub(super) fn required_secrets(
    context: &Context,
    config: &Node,
) -> Result<Vec<String>, Diagnostic> {
    let node = match config.get("secrets") {
        Some(node) if !node.is_null() => node,
        _ => return Ok(Vec::new()),
    };
    let mut required = Vec::new();
    for (key, node) in context.mapping(node, "`secrets`")? {
        let name = context.text(key, "a secret's name")?;
        if let Some(flag) = node.get("required").filter(|flag| !flag.is_null())
            && context.boolean(flag, "`required`")?
        {
            required.push(name);
        }
    }
    Ok(required)
}
