//! Workflows in KDL: `.solstice/workflow.kdl`. docs/workflow-kdl.md describes them for users.
//!
//! The file becomes the same model as a workflow in YAML, so that everything behind it is shared: a
//! job's `os` is a matrix, its `setup` a step, and a checkout stands before both.

mod expressions;
mod job;
mod node;

use common::limits::{WORKFLOW_BYTES, YAML_DEPTH};
use common::plan::{Dialect, Value};
use kdl::{KdlDocument, KdlNode};

use super::model::Workflow;
use super::places::Place;
use super::rules::Rules;
use super::{Inspection, graph};
use crate::diagnostic::Diagnostic;
use crate::yaml::Source;
use node::Reader;

/// Where a repository keeps its workflow.
pub const KDL_FILE: &str = ".solstice/workflow.kdl";

/// The nodes of a file.
const NODES: [&str; 3] = ["name", "env", "job"];

/// Errors of one file; further ones are dropped.
const ERRORS: usize = 100;

/// Reads a workflow in KDL and says everything that is wrong with it.
pub(super) fn inspect(text: &str, file: &str, dialect: Dialect) -> Inspection {
    let source = std::sync::Arc::new(Source::new(file, text));
    let document = match parse(&source) {
        Ok(document) => document,
        Err(errors) => return Inspection { errors, ..Inspection::default() },
    };
    let mut reader = Reader::new(source.clone(), Rules::of(dialect));
    let mut workflow = Workflow {
        file: file.to_owned(),
        name: None,
        run_name: None,
        on: Vec::new(),
        env: Value::empty_mapping(),
        defaults: Value::empty_mapping(),
        permissions: None,
        concurrency: None,
        jobs: Vec::new(),
        secrets: Vec::new(),
        source: source.clone(),
    };
    for node in document.nodes() {
        match node.name().value() {
            "name" => workflow.name = reader.text(node),
            "env" => workflow.env = reader.env(node, Place::WorkflowEnv),
            "job" => {
                let job = job::job(&mut reader, node, &workflow.jobs);
                workflow.jobs.extend(job);
            }
            _ => reader.unknown(node, "a workflow", &NODES),
        }
    }
    if workflow.jobs.is_empty() && reader.errors.is_empty() {
        let error = source.about_file("the workflow has no job");
        let hint = "add one: job \"test\" { runs-on \"debian-12\"; step \"make\" }";
        reader.errors.push(error.hint(hint));
    }
    let mut errors = reader.errors;
    errors.extend(graph::check(&workflow));
    workflow.secrets = reader.secrets;
    Inspection {
        workflow: Some(workflow).filter(|_| errors.is_empty()),
        errors,
        ..Inspection::default()
    }
}

/// The document, or what keeps the text from being one.
fn parse(source: &Source) -> Result<KdlDocument, Vec<Diagnostic>> {
    let text = source.text();
    if text.len() as u64 > WORKFLOW_BYTES {
        let message =
            format!("the file has {} bytes; a workflow may have {WORKFLOW_BYTES}", text.len());
        return Err(vec![source.about_file(message)]);
    }
    if let Some(byte) = too_deep(text) {
        let message = format!("the file nests deeper than {YAML_DEPTH} levels");
        return Err(vec![source.diagnostic(source.location(byte), message)]);
    }
    KdlDocument::parse(text).map_err(|error| {
        let found = error.diagnostics.iter().take(ERRORS);
        let errors: Vec<Diagnostic> = found.map(|found| of_parser(source, found)).collect();
        if errors.is_empty() { vec![source.about_file("this is not KDL")] } else { errors }
    })
}

/// A finding of the parser.
fn of_parser(source: &Source, found: &kdl::KdlDiagnostic) -> Diagnostic {
    let message = found.message.as_deref().or(found.label.as_deref()).unwrap_or("it is not valid");
    let message = format!("invalid KDL: {}", lower(message));
    let error = source.diagnostic(source.location(found.span.offset()), message);
    match &found.help {
        Some(help) => error.hint(lower(help)),
        None => error,
    }
}

/// A sentence of the parser in the form of ours: without capital and full stop.
fn lower(sentence: &str) -> String {
    let mut characters = sentence.trim().trim_end_matches('.').chars();
    let Some(first) = characters.next() else { return String::new() };
    format!("{}{}", first.to_lowercase(), characters.as_str())
}

/// The byte at which more braces are open than any workflow needs: the parser recurses.
fn too_deep(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    text.bytes().position(|byte| {
        match byte {
            b'{' | b'(' => open += 1,
            b'}' | b')' => open = open.saturating_sub(1),
            _ => {}
        }
        open > YAML_DEPTH
    })
}

/// The children of a node.
fn children(node: &KdlNode) -> &[KdlNode] {
    node.children().map_or(&[], KdlDocument::nodes)
}
