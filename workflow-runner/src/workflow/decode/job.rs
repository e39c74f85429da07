//! One job.

use common::limits::STEPS;
use common::plan::{Location, Step, Value};

use super::context::{Context, RefusedBy};
use super::value::is_template;
use super::{call, container, step, strategy};
use crate::diagnostic::Diagnostic;
use crate::workflow::model::{Job, Places, Steps, Work};
use crate::workflow::{KDL_FILE, suggest};
use crate::yaml::Node;

/// The keys of a job.
const JOB_KEYS: [&str; 19] = [
    "name",
    "permissions",
    "needs",
    "if",
    "runs-on",
    "environment",
    "concurrency",
    "outputs",
    "env",
    "defaults",
    "steps",
    "timeout-minutes",
    "strategy",
    "continue-on-error",
    "container",
    "services",
    "uses",
    "with",
    "secrets",
];

/// Decodes the job of this key.
pub(super) fn job(
    context: &mut Context,
    name: String,
    key: &Node,
    node: &Node,
) -> Result<Job, Diagnostic> {
    let pairs = context.mapping(node, &format!("job {name:?}"))?;
    context.unknown_keys("a job", pairs, &JOB_KEYS);

    let place = |field: &str| node.get(field).map_or(key.location, |value| value.location);
    let work = match pairs.iter().find(|(key, _)| key.text() == Some("uses")) {
        Some((uses, reference)) => Work::Call(call::call(context, &name, uses, reference, node)?),
        None => Work::Steps(Box::new(work(context, &name, key, node)?)),
    };
    let (needs, needs_places) = needs(context, node.get("needs"))?;
    let condition = match node.get("if") {
        Some(condition) => step::condition(context, condition)?,
        None => None,
    };
    Ok(Job {
        name: context.optional(node, "name", Context::value)?,
        needs,
        condition,
        strategy: strategy::strategy(context, node.get("strategy"))?,
        work,
        permissions: context.permissions(node.get("permissions"))?,
        concurrency: context.concurrency(node.get("concurrency"))?,
        location: key.location,
        places: Places {
            name: place("name"),
            condition: place("if"),
            runs_on: place("runs-on"),
            strategy: place("strategy"),
            needs: needs_places,
        },
        source: context.source.clone(),
        key: name,
    })
}

/// Decodes what runs on a machine.
fn work(context: &mut Context, name: &str, key: &Node, node: &Node) -> Result<Steps, Diagnostic> {
    Ok(Steps {
        runs_on: runs_on(context, name, key, node)?,
        env: context.env(node.get("env"))?,
        defaults: context.defaults(node.get("defaults"))?,
        timeout_minutes: context.optional(node, "timeout-minutes", Context::minutes)?,
        continue_on_error: context.optional(node, "continue-on-error", Context::flag)?,
        containers: container::containers(context, name, node)?,
        steps: steps(context, name, key, node)?,
        outputs: outputs(context, node.get("outputs"))?,
    })
}

fn is_empty(node: &Node) -> bool {
    node.is_null()
        || node.text() == Some("")
        || node.as_mapping().is_some_and(<[_]>::is_empty)
        || node.as_sequence().is_some_and(<[_]>::is_empty)
}

fn runs_on(
    context: &mut Context,
    name: &str,
    key: &Node,
    node: &Node,
) -> Result<Value, Diagnostic> {
    let hint = "name the label of an image, such as `runs-on: debian-12`";
    let Some(value) = node.get("runs-on") else {
        let error = context.error(key, format!("job {name:?} has no `runs-on`"));
        let keys = node.as_mapping().unwrap_or_default().iter().filter_map(|(key, _)| key.text());
        let near = suggest::nearest("runs-on", keys.filter(|key| !JOB_KEYS.contains(key)));
        return Err(match near {
            Some(near) => error.hint(format!("did you mean \"runs-on\" where it says {near:?}?")),
            None => error.hint(hint),
        });
    };
    if is_empty(value) || value.text().is_some_and(|text| text.trim().is_empty()) {
        return Err(context.error(value, format!("`runs-on` of job {name:?} is empty")).hint(hint));
    }
    if let Some(pairs) = value.as_mapping() {
        context.unknown_keys("`runs-on`", pairs, &["group", "labels"]);
        let mut parts = Vec::new();
        for part in ["labels", "group"] {
            if let Some(value) = value.get(part).filter(|value| !is_empty(value)) {
                parts.push((Value::literal(part), label_list(context, value)?));
            }
        }
        if parts.is_empty() {
            let message = format!("`runs-on` of job {name:?} names neither labels nor a group");
            return Err(context.error(value, message).hint(hint));
        }
        return Ok(Value::Mapping(parts));
    }
    label_list(context, value)
}

fn label_list(context: &Context, node: &Node) -> Result<Value, Diagnostic> {
    match node.as_sequence() {
        Some(items) => items
            .iter()
            .map(|item| match context.text(item, "a label") {
                Ok(_) => context.value(item, "a label"),
                Err(error) => Err(error),
            })
            .collect::<Result<_, _>>()
            .map(Value::Sequence),
        None => context.value(node, "`runs-on`"),
    }
}

fn needs(
    context: &Context,
    node: Option<&Node>,
) -> Result<(Vec<String>, Vec<Location>), Diagnostic> {
    let node = match node {
        Some(node) if !node.is_null() => node,
        _ => return Ok((Vec::new(), Vec::new())),
    };
    let single = std::slice::from_ref(node);
    let items = node.as_sequence().unwrap_or(single);
    let (mut names, mut places) = (Vec::new(), Vec::new());
    for item in items {
        if is_template(item) {
            return Err(context
                .error(item, "`needs` cannot hold an expression")
                .hint("name the jobs, and decide by their results in `if`"));
        }
        let name = context.text(item, "`needs`")?;
        if !names.contains(&name) {
            names.push(name);
            places.push(item.location);
        }
    }
    Ok((names, places))
}

fn steps(
    context: &mut Context,
    name: &str,
    key: &Node,
    node: &Node,
) -> Result<Vec<Step>, Diagnostic> {
    let hint = "add at least one, such as `- run: make test`";
    let Some(value) = node.get("steps") else {
        let error = context.error(key, format!("job {name:?} has no `steps`"));
        let keys = node.as_mapping().unwrap_or_default().iter().filter_map(|(key, _)| key.text());
        let near = suggest::nearest("steps", keys.filter(|key| !JOB_KEYS.contains(key)));
        if let Some(near) = near {
            return Err(error.hint(format!("did you mean \"steps\" where it says {near:?}?")));
        }
        let warning = context.error(
            key,
            format!("job {name:?} has no `steps`: it runs the repository's {KDL_FILE}"),
        );
        let hint = "write that as a step, which every forge takes: `- uses: solstice/workflow@v1`";
        context.warn(RefusedBy::Server, warning.hint(hint));
        return Ok(vec![step::entry(key.location)]);
    };
    if is_empty(value) {
        return Err(context.error(value, format!("`steps` of job {name:?} is empty")).hint(hint));
    }
    let Some(items) = value.as_sequence() else {
        return Err(context
            .wrong(value, "`steps`", "a list")
            .hint("each step starts with `- `, such as `- run: make test`"));
    };
    if items.len() > STEPS {
        let message = format!("job {name:?} has {} steps; {STEPS} is the most", items.len());
        return Err(context.error(value, message).hint("split it into several jobs"));
    }
    Ok(step::steps(context, items))
}

fn outputs(context: &Context, node: Option<&Node>) -> Result<Value, Diagnostic> {
    match node {
        Some(node) if is_template(node) => Err(context
            .wrong(node, "`outputs`", "a mapping")
            .hint("name each output, such as `version: ${{ steps.read.outputs.version }}`")),
        _ => context.scalars(node, "`outputs`"),
    }
}
