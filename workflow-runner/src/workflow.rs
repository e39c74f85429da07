//! The workflow model: what a file says, and how a job of it becomes a plan.
//!
//! [`parse`] decodes a file into a [`Workflow`] and refuses what cannot run, with the place.
//! From there a job goes one way: [`Workflow::order`] says when it is its turn, [`job_condition`]
//! whether it runs, [`expand`] in which legs, [`labels`] on which image, and [`plan()`] makes the
//! [`common::plan::Plan`] that the engine runs. Where the forges differ, the table in `rules` decides.

mod check;
mod condition;
mod data;
mod decode;
mod graph;
mod inputs;
mod matrix;
mod model;
mod planning;
mod rules;
mod scope;
mod secrets;
mod suggest;
#[cfg(test)]
mod tests;

use common::plan::Dialect;

use crate::diagnostic::Diagnostic;
use crate::yaml;

pub use condition::job_condition;
pub use data::{Data, Field};
pub use inputs::inputs_from;
pub use matrix::{Leg, expand};
pub use model::{Event, Input, InputKind, Job, Matrix, Strategy, Workflow};
pub use planning::{
    StrategyValues, continues_on_error, display_name, labels, plan, strategy_values,
    timeout_minutes, uses_checkout,
};
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
    let document = yaml::parse(text, file)?;
    let secrets = check::expressions(&document)?;
    let mut parsed = decode::workflow(&document, dialect)?;
    parsed.workflow.secrets = secrets;
    graph::check(&parsed.workflow)?;
    Ok(parsed)
}
