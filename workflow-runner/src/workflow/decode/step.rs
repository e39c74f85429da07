//! The steps of a job.

use std::collections::HashMap;

use common::plan::{Location, Step, StepAction, Value};

use super::context::{Context, RefusedBy};
use super::value::is_template;
use crate::diagnostic::Diagnostic;
use crate::template::Condition;
use crate::workflow::planning::ENTRY_STEP;
use crate::yaml::Node;

/// The keys of a step.
const STEP_KEYS: [&str; 11] = [
    "id",
    "if",
    "name",
    "uses",
    "run",
    "working-directory",
    "shell",
    "with",
    "env",
    "continue-on-error",
    "timeout-minutes",
];

/// Decodes the steps of a job. Empty items are left out before the rest are numbered
/// (forgejo-runner-protocol 7.1).
pub(super) fn steps(context: &mut Context, items: &[Node]) -> Vec<Step> {
    let mut ids: HashMap<String, Location> = HashMap::new();
    let mut steps = Vec::with_capacity(items.len());
    for item in items {
        if item.is_null() {
            let warning = context.error(item, "an empty step is ignored");
            context.warn(RefusedBy::Server, warning);
            continue;
        }
        let index = u32::try_from(steps.len()).unwrap_or(u32::MAX);
        let step = step(context, index, item);
        let Some(step) = context.keep(step) else { continue };
        if let Some(id) = &step.id {
            let place = item.get("id").map_or(item.location, |id| id.location);
            if let Some(first) = ids.insert(id.to_lowercase(), place) {
                let message = format!(
                    "the step id {id:?} is given twice: the first is at line {}, column {}",
                    first.line, first.column
                );
                let error = context.source.diagnostic(place, message);
                context.fail(error.hint("rename one of the two"));
            }
        }
        steps.push(step);
    }
    steps
}

/// The only step of a job that names none: the repository's workflow in KDL.
pub(super) fn entry(location: Location) -> Step {
    let reference = ENTRY_STEP.to_owned();
    let action = StepAction::Uses { reference, with: Value::empty_mapping() };
    Step { location: Some(location), ..Step::new(0, action) }
}

/// Decodes `if` of a job or step. It was parsed before.
pub(super) fn condition(context: &mut Context, node: &Node) -> Result<Option<String>, Diagnostic> {
    if node.is_null() {
        return Ok(None);
    }
    let text = context.text(node, "`if`")?;
    let mixed = Condition::parse(&text).is_ok_and(|condition| condition.is_mixed());
    if mixed {
        let warning = context
            .error(node, "this condition is always true: text around `${{ }}` makes it a text")
            .hint("put the whole condition inside one `${{ }}`, or write none");
        context.warn(RefusedBy::Nobody, warning);
    }
    Ok(Some(text))
}

fn step(context: &mut Context, index: u32, node: &Node) -> Result<Step, Diagnostic> {
    let Some(pairs) = node.as_mapping() else {
        return Err(context
            .wrong(node, "a step", "a mapping")
            .hint("write what it runs, such as `- run: make test`"));
    };
    let action = action(context, node)?;
    context.unknown_keys("a step", pairs, &STEP_KEYS);
    let id = match node.get("id") {
        Some(id) if !id.is_null() => Some(context.identifier(id, "a step's id")?),
        _ => None,
    };
    let condition = match node.get("if") {
        Some(condition) => self::condition(context, condition)?,
        None => None,
    };
    Ok(Step {
        index,
        id,
        name: context.optional(node, "name", Context::value)?,
        condition,
        env: context.env(node.get("env"))?,
        continue_on_error: context.optional(node, "continue-on-error", Context::flag)?,
        timeout_minutes: context.optional(node, "timeout-minutes", Context::minutes)?,
        action,
        location: Some(node.location),
    })
}

fn action(context: &mut Context, node: &Node) -> Result<StepAction, Diagnostic> {
    match (node.get("run"), node.get("uses")) {
        (Some(_), Some(uses)) => Err(context
            .error(uses, "a step has either `run` or `uses`, this one has both")
            .hint("make two steps of it")),
        (None, None) => Err(context
            .error(node, "a step has either `run` or `uses`, this one has none")
            .hint("write what it runs, such as `run: make test`")),
        (Some(run), None) => {
            if run.is_null() {
                return Err(context.error(run, "`run` is empty").hint("write a command"));
            }
            if let Some(with) = node.get("with") {
                let warning = context
                    .error(with, "`with` has no effect beside `run`")
                    .hint("pass values to a script by `env`");
                context.warn(RefusedBy::Server, warning);
            }
            Ok(StepAction::Run {
                script: context.value(run, "`run`")?,
                shell: context.optional(node, "shell", Context::value)?,
                working_directory: context.optional(node, "working-directory", Context::value)?,
            })
        }
        (None, Some(uses)) => {
            if is_template(uses) {
                return Err(context
                    .error(uses, "`uses` cannot hold an expression")
                    .hint("write the reference out; choose between two steps by `if`"));
            }
            let reference = context.text(uses, "`uses`")?.trim().to_owned();
            if reference.is_empty() {
                return Err(context.error(uses, "`uses` is empty").hint("name an action"));
            }
            for key in ["shell", "working-directory"] {
                if let Some(value) = node.get(key) {
                    let warning =
                        context.error(value, format!("`{key}` has no effect beside `uses`"));
                    context.warn(RefusedBy::Server, warning);
                }
            }
            Ok(StepAction::Uses { reference, with: context.scalars(node.get("with"), "`with`")? })
        }
    }
}
