//! `container` and `services` of a job.

use common::plan::{Containers, Value};

use super::context::Context;
use super::value::is_template;
use crate::diagnostic::Diagnostic;
use crate::yaml::Node;

/// The keys of a container.
const CONTAINER_KEYS: [&str; 6] = ["image", "credentials", "env", "ports", "volumes", "options"];

/// The keys of `credentials`, which come in a pair.
const CREDENTIALS: [&str; 2] = ["username", "password"];

/// Decodes the containers of the job `name`.
pub(super) fn containers(
    context: &mut Context,
    name: &str,
    node: &Node,
) -> Result<Containers, Diagnostic> {
    let job = match node.get("container").filter(|value| !is_empty(value)) {
        Some(value) => Some(container(context, value, &format!("`container` of job {name:?}"))?),
        None => None,
    };
    let mut services = Vec::new();
    if let Some(node) = node.get("services").filter(|value| !is_empty(value)) {
        for (key, value) in context.mapping(node, &format!("`services` of job {name:?}"))? {
            let name = context.identifier(key, "the name of a service")?;
            if is_empty(value) {
                let error = context.error(key, format!("the service {name:?} has no image"));
                return Err(error.hint(format!("write `{name}: {{image: NAME:VERSION}}`")));
            }
            let value = container(context, value, &format!("the service {name:?}"))?;
            services.push((name, value));
        }
    }
    Ok(Containers { job, services })
}

/// Whether nothing is asked for.
fn is_empty(node: &Node) -> bool {
    node.is_null()
        || node.text().is_some_and(|text| text.trim().is_empty())
        || node.as_mapping().is_some_and(<[_]>::is_empty)
        || node.as_sequence().is_some_and(<[_]>::is_empty)
}

/// Decodes one container: an image, a mapping, or an expression that gives either.
fn container(context: &mut Context, node: &Node, what: &str) -> Result<Value, Diagnostic> {
    if node.text().is_some() {
        return context.value(node, what);
    }
    let Some(pairs) = node.as_mapping() else {
        return Err(context.wrong(node, what, "the name of an image, or a mapping with `image`"));
    };
    context.unknown_keys("a container", pairs, &CONTAINER_KEYS);
    let Some(image) = node.get("image").filter(|image| !is_empty(image)) else {
        return Err(context
            .error(node, format!("{what} has no `image`"))
            .hint("name one, such as `image: node:22`"));
    };
    let mut parts = vec![(Value::literal("image"), context.value(image, "`image`")?)];
    let mut add = |key: &str, value: Value| parts.push((Value::literal(key), value));
    if let Some(value) = present(node, "credentials") {
        add("credentials", credentials(context, value, what)?);
    }
    if let Some(value) = present(node, "env") {
        add("env", context.env(Some(value))?);
    }
    for key in ["ports", "volumes"] {
        if let Some(value) = present(node, key) {
            add(key, list(context, value, &format!("`{key}`"))?);
        }
    }
    if let Some(value) = present(node, "options") {
        add("options", context.value(value, "`options`")?);
    }
    Ok(Value::Mapping(parts))
}

fn present<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    node.get(key).filter(|value| !value.is_null())
}

fn credentials(context: &mut Context, node: &Node, what: &str) -> Result<Value, Diagnostic> {
    if !is_template(node) {
        let pairs = context.mapping(node, "`credentials`")?;
        context.unknown_keys("`credentials`", pairs, &CREDENTIALS);
        if let Some(missing) = CREDENTIALS.into_iter().find(|key| present(node, key).is_none()) {
            let message = format!("the `credentials` of {what} have no `{missing}`");
            let hint = "write both, such as `password: ${{ secrets.REGISTRY_PASSWORD }}`";
            return Err(context.error(node, message).hint(hint));
        }
    }
    context.scalars(Some(node), "`credentials`")
}

/// A list of scalars, or an expression that gives one.
fn list(context: &Context, node: &Node, what: &str) -> Result<Value, Diagnostic> {
    match node.as_sequence() {
        Some(items) => {
            let one = |item| context.value(item, &format!("an item of {what}"));
            items.iter().map(one).collect::<Result<_, _>>().map(Value::Sequence)
        }
        None if is_template(node) => context.value(node, what),
        None => Err(context.wrong(node, what, "a list, or an expression that gives one")),
    }
}
