//! `on`: the events that start a workflow, and their inputs.

use common::plan::Value;
use serde_json::Value as Json;

use super::call;
use super::context::{Context, RefusedBy};
use crate::diagnostic::Diagnostic;
use crate::workflow::model::{Event, Input, InputKind};
use crate::workflow::suggest;
use crate::yaml::Node;

/// The events that the forges know.
const EVENTS: [&str; 38] = [
    "branch_protection_rule",
    "check_run",
    "check_suite",
    "create",
    "delete",
    "deployment",
    "deployment_status",
    "discussion",
    "discussion_comment",
    "fork",
    "gollum",
    "image_version",
    "issue_comment",
    "issues",
    "label",
    "merge_group",
    "milestone",
    "page_build",
    "project",
    "project_card",
    "project_column",
    "public",
    "pull_request",
    "pull_request_comment",
    "pull_request_review",
    "pull_request_review_comment",
    "pull_request_target",
    "push",
    "registry_package",
    "release",
    "repository_dispatch",
    "schedule",
    "status",
    "watch",
    "workflow_call",
    "workflow_dispatch",
    "workflow_run",
    "issue",
];
/// The keys of an input.
const INPUT_KEYS: [&str; 7] =
    ["description", "type", "required", "default", "options", "deprecationMessage", "name"];
/// The types of an input, in the order of their names.
const INPUT_TYPES: [(&str, InputKind); 5] = [
    ("boolean", InputKind::Boolean),
    ("choice", InputKind::Choice),
    ("environment", InputKind::Environment),
    ("number", InputKind::Number),
    ("string", InputKind::String),
];

/// Decodes `on`: one name, a list of names, or a mapping.
pub(super) fn events(context: &mut Context, node: &Node) -> Result<Vec<Event>, Diagnostic> {
    let mut events = Vec::new();
    if let Some(items) = node.as_sequence() {
        for item in items {
            events.push(event(context, item, None)?);
        }
    } else if let Some(pairs) = node.as_mapping() {
        for (key, config) in pairs {
            events.push(event(context, key, Some(config))?);
        }
    } else if node.is_null() {
        return Err(context
            .error(node, "`on` is empty: no event starts the workflow")
            .hint("write `on: push`, or what should start it"));
    } else {
        events.push(event(context, node, None)?);
    }
    Ok(events)
}

fn event(context: &mut Context, key: &Node, config: Option<&Node>) -> Result<Event, Diagnostic> {
    let name = context.text(key, "an event")?;
    if !EVENTS.contains(&name.as_str()) {
        let shown = crate::yaml::shorten(&name);
        let message = format!("{shown:?} is not an event that a forge sends");
        context.warn_unknown(key, RefusedBy::Server, message, &name, &EVENTS);
    }
    let mut inputs = Vec::new();
    let (mut outputs, mut required_secrets) = (Value::empty_mapping(), Vec::new());
    if let Some(config) = config.filter(|config| !config.is_null()) {
        if name != "schedule" && config.as_mapping().is_none() {
            return Err(context.wrong(config, &format!("`on.{name}`"), "a mapping or nothing"));
        }
        if matches!(name.as_str(), "workflow_dispatch" | "workflow_call") {
            inputs = self::inputs(context, config)?;
        }
        if name == "workflow_call" {
            outputs = call::outputs(context, config)?;
            required_secrets = call::required_secrets(context, config)?;
        }
    }
    let config = config.map_or(Json::Null, Node::to_json);
    Ok(Event { name, config, inputs, outputs, required_secrets, location: key.location })
}

fn inputs(context: &mut Context, config: &Node) -> Result<Vec<Input>, Diagnostic> {
    if let Some(pairs) = config.as_mapping() {
        context.unknown_keys("this event", pairs, &["inputs", "outputs", "secrets"]);
    }
    let Some(node) = config.get("inputs").filter(|node| !node.is_null()) else {
        return Ok(Vec::new());
    };
    let mut inputs = Vec::new();
    for (key, node) in context.mapping(node, "`inputs`")? {
        inputs.push(input(context, key, node)?);
    }
    Ok(inputs)
}

fn input(context: &mut Context, key: &Node, node: &Node) -> Result<Input, Diagnostic> {
    let name = context.text(key, "an input's name")?;
    let mut input = Input {
        name,
        description: None,
        kind: InputKind::String,
        required: false,
        default: None,
        options: Vec::new(),
        location: key.location,
    };
    if node.is_null() {
        return Ok(input);
    }
    let pairs = context.mapping(node, "an input")?;
    context.unknown_keys("an input", pairs, &INPUT_KEYS);
    input.description = context.optional(node, "description", Context::text)?;
    if let Some(kind) = node.get("type") {
        input.kind = input_kind(context, kind)?;
    }
    if let Some(required) = node.get("required").filter(|node| !node.is_null()) {
        input.required = context.boolean(required, "`required`")?;
    }
    if let Some(options) = node.get("options").filter(|node| !node.is_null()) {
        let Some(items) = options.as_sequence() else {
            return Err(context.wrong(options, "`options`", "a list"));
        };
        for item in items {
            input.options.push(context.text(item, "an option")?);
        }
    }
    if input.kind == InputKind::Choice && input.options.is_empty() {
        let message = format!("the choice {:?} has no `options`", input.name);
        return Err(context.error(key, message).hint("list what may be chosen under `options`"));
    }
    if let Some(default) = node.get("default").filter(|node| !node.is_null()) {
        if default.text().is_none() {
            return Err(context.wrong(default, "`default`", "a single value"));
        }
        let data = context.data(default)?;
        if data.is_literal() {
            let text = context.literal(default);
            crate::workflow::inputs::typed(&input, &text).map_err(|reason| {
                context.error(default, format!("the default of input {:?} {reason}", input.name))
            })?;
        }
        input.default = Some(data);
    }
    Ok(input)
}

fn input_kind(context: &Context, node: &Node) -> Result<InputKind, Diagnostic> {
    let text = context.text(node, "`type`")?;
    if let Some((_, kind)) = INPUT_TYPES.iter().find(|(name, _)| *name == text) {
        return Ok(*kind);
    }
    let shown = crate::yaml::shorten(&text);
    let error = context.error(node, format!("{shown:?} is not a type of input"));
    let names = INPUT_TYPES.map(|(name, _)| name);
    Err(match suggest::hint(&text, names) {
        Some(hint) => error.hint(hint),
        None => error.hint(format!("the types are: {}", names.join(", "))),
    })
}
