//! The workflow model: what a file says, and how a job of it becomes a plan.
//!
//! [`parse`] decodes a file into a [`Workflow`] and refuses what cannot run, with the place.
//! From there a job goes one way: [`Workflow::order`] says when it is its turn, [`job_condition`]
//! whether it runs, [`expand`] in which legs, [`labels`] on which image, and [`plan()`] makes the
//! [`common::plan::Plan`] that the engine runs. Where the forges differ, the table in `rules` decides.

mod action;
mod call;
mod check;
mod condition;
mod data;
mod decode;
mod delivered;
mod graph;
mod inputs;
mod kdl;
mod matrix;
mod model;
mod native;
mod places;
mod planning;
mod reference;
mod rules;
mod scope;
mod secrets;
mod suggest;
#[cfg(test)]
mod tests;

use common::plan::Dialect;

use crate::diagnostic::Diagnostic;
use crate::yaml;

pub use action::{Action, ActionInput, DockerAction, DockerImage, NodeAction, Runs, action};
pub use call::{call_inputs, call_outputs, call_secrets, check_call};
pub use condition::job_condition;
pub use data::{Data, Field};
pub use delivered::{Delivered, Undeliverable, delivered};
pub use inputs::{inputs_from, inputs_of_event};
pub use kdl::KDL_FILE;
pub use matrix::{Leg, expand};
pub use model::{
    Call, CallSecrets, Event, Input, InputKind, Job, Matrix, Steps, Strategy, Work, Workflow,
};
pub use native::{NATIVE_ACTIONS, NATIVE_ORIGINS, Native, NativeAction};
pub(crate) use native::{Version, is_checkout, native};
pub use planning::{
    StrategyValues, continues_on_error, display_name, entered_file, enters_kdl, labels,
    literal_labels, plan, strategy_values, timeout_minutes, unsupported_actions, uses_checkout,
};
pub(crate) use reference::Reference;
pub use scope::JobScope;
pub use secrets::{secrets_used, secrets_used_by};

/// A workflow and what is odd about its file.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The workflow.
    pub workflow: Workflow,
    /// Findings that change nothing: unknown keys, unknown events and the like.
    pub warnings: Vec<Diagnostic>,
}

/// A finding that changes nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What was found.
    pub finding: Diagnostic,
    /// Whether the forge refuses a file with it.
    pub is_refused: bool,
}

/// Everything that can be said about a workflow file without running it.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// The workflow; absent if it has errors.
    pub workflow: Option<Workflow>,
    /// Findings that make the workflow unusable; at most 100 of each part of the reader.
    pub errors: Vec<Diagnostic>,
    /// What a job asks for that no machine here gives, by the job's key. It cannot run here.
    pub unsupported: Vec<(String, Diagnostic)>,
    /// Findings that change nothing here.
    pub warnings: Vec<Warning>,
}

/// Reads a workflow file by GitHub's rules; see [`parse_for`].
///
/// # Errors
///
/// As [`parse_for`].
pub fn parse(text: &str, file: &str) -> Result<Parsed, Diagnostic> {
    parse_for(text, file, Dialect::Github)
}

/// Reads a workflow file. Every `${{ }}` and every `if` in it is parsed, none is evaluated.
///
/// # Errors
///
/// The first finding that makes the workflow unusable, with its place: invalid YAML, an expression
/// that does not parse, a missing or wrong key, a job that needs an unknown job or itself, or
/// something that is not supported.
pub fn parse_for(text: &str, file: &str, dialect: Dialect) -> Result<Parsed, Diagnostic> {
    let inspection = inspect(text, file, dialect);
    let unsupported = inspection.unsupported.into_iter().map(|(_, error)| error);
    match (inspection.workflow, inspection.errors.into_iter().chain(unsupported).next()) {
        (_, Some(error)) => Err(error),
        (Some(workflow), None) => {
            let warnings = inspection.warnings.into_iter().map(|warning| warning.finding);
            Ok(Parsed { workflow, warnings: warnings.collect() })
        }
        (None, None) => Err(Diagnostic::new(file, "the workflow cannot be read")),
    }
}

/// Reads a workflow file and says everything that is wrong with it, in the order in which a reader
/// of one part after the other comes upon it. A file whose name ends in `.kdl` is KDL, any other YAML.
pub fn inspect(text: &str, file: &str, dialect: Dialect) -> Inspection {
    if file.ends_with(".kdl") {
        return kdl::inspect(text, file, dialect);
    }
    match yaml::parse(text, file) {
        Ok(document) => inspect_document(&document, dialect),
        Err(error) => Inspection { errors: vec![error], ..Inspection::default() },
    }
}

/// What can be said about the tree of a file.
fn inspect_document(document: &yaml::Document, dialect: Dialect) -> Inspection {
    let expressions = check::expressions(document, rules::Rules::of(dialect));
    let mut errors = expressions.errors;
    let (mut workflow, decoded) = decode::workflow(document, dialect);
    for error in decoded.errors {
        // What an expression makes wrong may be found again by the reader of its value.
        let known = |other: &Diagnostic| other.location == error.location;
        if error.location.is_none() || !errors.iter().any(known) {
            errors.push(error);
        }
    }
    if let Some(workflow) = &mut workflow {
        workflow.secrets = expressions.secrets;
        errors.extend(graph::check(workflow));
    }
    let workflow = workflow.filter(|_| errors.is_empty());
    let (unsupported, warnings) = (decoded.unsupported, decoded.warnings);
    Inspection { workflow, errors, unsupported, warnings }
}
