//! The file of an action (github-runner-protocol 8.3, forgejo-runner-protocol 8.7).

use common::plan::{Dialect, StepAction, Value};

use super::context::Context;
use super::step;
use crate::diagnostic::Diagnostic;
use crate::template::Condition;
use crate::workflow::action::{Action, ActionInput, DockerAction, DockerImage, NodeAction, Runs};
use crate::yaml::{Document, Node};

/// Decodes the file; the first error makes the action unusable.
pub(in crate::workflow) fn action(
    document: &Document,
    dialect: Dialect,
) -> Result<Action, Diagnostic> {
    let mut context = Context::new(document.source.clone(), dialect);
    let decoded = decode(&mut context, &document.root)?;
    // What is only odd is nothing that the user of an action could mend.
    match context.into_findings().errors.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(decoded),
    }
}

fn decode(context: &mut Context, root: &Node) -> Result<Action, Diagnostic> {
    context.mapping(root, "the file of an action")?;
    let Some(runs) = root.get("runs") else {
        return Err(context.about_file("the file has no `runs`: it says nothing of what to do"));
    };
    Ok(Action {
        name: root.get("name").and_then(Node::text).map(str::to_owned),
        inputs: inputs(context, root.get("inputs"))?,
        outputs: outputs(context, root.get("outputs"))?,
        runs: self::runs(context, runs)?,
    })
}

fn inputs(context: &Context, node: Option<&Node>) -> Result<Vec<ActionInput>, Diagnostic> {
    let Some(node) = node.filter(|node| !node.is_null()) else { return Ok(Vec::new()) };
    let mut inputs = Vec::new();
    for (key, input) in context.mapping(node, "`inputs`")? {
        let default = input.get("default").filter(|default| !default.is_null());
        let required = input.get("required").filter(|required| !required.is_null());
        inputs.push(ActionInput {
            name: context.text(key, "the name of an input")?,
            default: default.map(|default| context.value(default, "`default`")).transpose()?,
            // Written in every way there is, and only a warning hangs on it.
            required: required.and_then(Node::text).is_some_and(|text| text.trim() == "true"),
            deprecation: input.get("deprecationMessage").and_then(Node::text).map(str::to_owned),
        });
    }
    Ok(inputs)
}

/// Only those of a composite action have a value here; others are left by its process.
fn outputs(context: &Context, node: Option<&Node>) -> Result<Value, Diagnostic> {
    let Some(node) = node.filter(|node| !node.is_null()) else {
        return Ok(Value::empty_mapping());
    };
    let mut outputs = Vec::new();
    for (key, output) in context.mapping(node, "`outputs`")? {
        if let Some(value) = output.get("value") {
            let name = context.text(key, "the name of an output")?;
            outputs.push((Value::Literal(name), context.value(value, "`value`")?));
        }
    }
    Ok(Value::Mapping(outputs))
}

fn runs(context: &mut Context, node: &Node) -> Result<Runs, Diagnostic> {
    context.mapping(node, "`runs`")?;
    let Some(using) = node.get("using") else {
        return Err(context.error(node, "`runs` has no `using`: composite, node24, docker, ..."));
    };
    let using = context.text(using, "`using`")?.trim().to_ascii_lowercase();
    if using == "composite" {
        let Some(steps) = node.get("steps") else {
            return Err(context.error(node, "a composite action has `steps`"));
        };
        let Some(items) = steps.as_sequence() else {
            return Err(context.wrong(steps, "`steps`", "a list"));
        };
        return composite(context, items);
    }
    let text = |key: &str| match node.get(key) {
        Some(value) if !value.is_null() => context.text(value, &format!("`{key}`")).map(Some),
        _ => Ok(None),
    };
    let condition = |key: &str| match text(key)? {
        Some(text) => {
            let at = node.get(key).unwrap_or(node);
            Condition::parse(&text)
                .map_err(|error| context.error(at, format!("`{key}`: {}", error.message)))?;
            Ok(Some(text))
        }
        None => Ok(None),
    };
    let version = using.strip_prefix("node");
    let program = match version {
        Some(_) => Some("node"),
        None => (using == "sh" && context.rules.has_shell_actions).then_some("sh"),
    };
    if let Some(program) = program {
        let Some(main) = text("main")? else {
            return Err(context.error(node, format!("an action for {program} has `main`")));
        };
        return Ok(Runs::Node(NodeAction {
            program,
            version: version.and_then(|version| version.parse().ok()),
            main,
            pre: text("pre")?,
            pre_if: condition("pre-if")?,
            post: text("post")?,
            post_if: condition("post-if")?,
        }));
    }
    if using == "docker" {
        let Some(image) = node.get("image").filter(|image| !image.is_null()) else {
            let error = context.error(node, "an action in a container has `image`");
            return Err(error.hint("name its Dockerfile, or an image as docker://NAME:VERSION"));
        };
        return Ok(Runs::Docker(DockerAction {
            image: self::image(context, image)?,
            entrypoint: text("entrypoint")?,
            args: arguments(context, node.get("args"))?,
            env: context.env(node.get("env"))?,
            pre_entrypoint: text("pre-entrypoint")?,
            pre_if: condition("pre-if")?,
            post_entrypoint: text("post-entrypoint")?,
            post_if: condition("post-if")?,
        }));
    }
    Ok(Runs::Other(using))
}

fn image(context: &Context, node: &Node) -> Result<DockerImage, Diagnostic> {
    let text = context.text(node, "`image`")?;
    let text = text.trim();
    let name = text.strip_prefix("docker://").map(str::trim);
    match name {
        Some("") => Err(context.error(node, "`image` names no image behind docker://")),
        Some(name) => Ok(DockerImage::Named(name.to_owned())),
        None if text.is_empty() => Err(context.error(node, "`image` is empty")),
        None if text.to_ascii_lowercase().contains("dockerfile") => {
            Ok(DockerImage::Built(text.to_owned()))
        }
        None => Err(context
            .error(node, format!("`image` is {text:?}, neither a Dockerfile nor docker://NAME"))
            .hint("write the path of a Dockerfile, or docker:// before the name of an image")),
    }
}

fn arguments(context: &Context, node: Option<&Node>) -> Result<Option<Vec<Value>>, Diagnostic> {
    let Some(node) = node.filter(|node| !node.is_null()) else { return Ok(None) };
    let Some(items) = node.as_sequence() else {
        return Err(context.wrong(node, "`args`", "a list"));
    };
    let one = |item| context.value(item, "an item of `args`");
    items.iter().map(one).collect::<Result<_, _>>().map(Some)
}

fn composite(context: &mut Context, items: &[Node]) -> Result<Runs, Diagnostic> {
    let steps = step::steps(context, items);
    for (step, node) in steps.iter().zip(items.iter().filter(|item| !item.is_null())) {
        if let Some(text) = &step.condition {
            Condition::parse(text)
                .map_err(|error| context.error(node, format!("`if`: {}", error.message)))?;
        }
        if matches!(&step.action, StepAction::Run { shell: None, .. }) {
            return Err(context
                .error(node, "a `run` step of a composite action must have a `shell`")
                .hint("add `shell: sh`, or `shell: bash` where every machine has it"));
        }
    }
    Ok(Runs::Composite(steps))
}
