//! From the tree of a file to the model.

mod action;
mod call;
mod container;
mod context;
mod job;
mod step;
mod strategy;
mod trigger;
mod value;

use std::collections::HashMap;

use common::plan::{Dialect, Location};

use super::model::{Job, Workflow};
use super::suggest;
use crate::diagnostic::Diagnostic;
use crate::yaml::{Document, Node};
pub(super) use action::action;
pub(super) use context::Findings;
use context::{Context, RefusedBy};

/// The keys of a workflow.
const WORKFLOW_KEYS: [&str; 8] =
    ["name", "run-name", "on", "permissions", "env", "defaults", "concurrency", "jobs"];

/// Decodes a file. What is wrong with one job or step does not hide what is wrong with another.
pub(super) fn workflow(document: &Document, dialect: Dialect) -> (Option<Workflow>, Findings) {
    let mut context = Context::new(document.source.clone(), dialect);
    let decoded = decode(&mut context, document);
    let workflow = context.keep(decoded);
    let findings = context.into_findings();
    (workflow.filter(|_| findings.errors.is_empty()), findings)
}

fn decode(context: &mut Context, document: &Document) -> Result<Workflow, Diagnostic> {
    let root = &document.root;
    if root.is_null() {
        return Err(document.source.about_file("the file is empty").hint(
            "a workflow has at least `on` and `jobs`; see the examples folder for a short one",
        ));
    }
    let Some(pairs) = root.as_mapping() else {
        let message =
            format!("a workflow is a mapping with `on` and `jobs`, this is {}", root.describe());
        return Err(context.error(root, message));
    };
    context.unknown_keys("a workflow", pairs, &WORKFLOW_KEYS);

    let on = match root.get("on") {
        Some(node) => trigger::events(context, node)?,
        None => {
            let warning =
                document.source.about_file("the workflow has no `on`: no event starts it");
            let hint = "add `on: push`, or what should start it";
            context.warn(RefusedBy::Everybody, warning.hint(hint));
            Vec::new()
        }
    };
    let jobs = jobs(context, pairs)?;
    let name = match root.get("name") {
        Some(node) if !node.is_null() => Some(context.text(node, "`name`")?),
        _ => None,
    };
    Ok(Workflow {
        file: document.source.file().to_owned(),
        name,
        run_name: context.optional(root, "run-name", Context::value)?,
        on,
        env: context.env(root.get("env"))?,
        defaults: context.defaults(root.get("defaults"))?,
        permissions: context.permissions(root.get("permissions"))?,
        concurrency: context.concurrency(root.get("concurrency"))?,
        jobs,
        secrets: Vec::new(),
        source: document.source.clone(),
    })
}

fn jobs(context: &mut Context, root: &[(Node, Node)]) -> Result<Vec<Job>, Diagnostic> {
    let Some((key, node)) = root.iter().find(|(key, _)| key.text() == Some("jobs")) else {
        let error = context.about_file("the workflow has no `jobs`");
        let others = root.iter().filter_map(|(key, _)| key.text());
        return Err(match suggest::nearest("jobs", others) {
            Some(near) => error.hint(format!("did you mean \"jobs\" where it says {near:?}?")),
            None => {
                error.hint("add a job: `jobs: {build: {runs-on: debian-12, steps: [run: make]}}`")
            }
        });
    };
    if node.is_null() {
        return Err(context.error(key, "`jobs` is empty").hint("add a job below it"));
    }
    let pairs = context.mapping(node, "`jobs`")?;
    if pairs.is_empty() {
        return Err(context.error(key, "`jobs` is empty").hint("add a job below it"));
    }
    let mut seen: HashMap<String, Location> = HashMap::new();
    let mut jobs = Vec::with_capacity(pairs.len());
    for (key, node) in pairs {
        let name = context.identifier(key, "a job's key");
        let Some(name) = context.keep(name) else { continue };
        if let Some(first) = seen.insert(name.to_lowercase(), key.location) {
            let message = format!(
                "the key of job {name:?} differs only in case from the job at line {}",
                first.line
            );
            context.fail(context.error(key, message).hint("rename one of them"));
            continue;
        }
        let job = job::job(context, name, key, node);
        jobs.extend(context.keep(job));
    }
    Ok(jobs)
}
