//! Whether a job runs.

use std::collections::BTreeMap;

use common::event::JobResult;
use common::plan::Dialect;
use common::request::{Contexts, Secret};

use super::model::{Job, Workflow};
use super::rules::Rules;
use super::scope::JobScope;
use crate::diagnostic::Diagnostic;
use crate::expression::EvaluateError;
use crate::template::{self, Condition};

/// Whether a job runs, by its `if` and the results of the jobs before it.
///
/// `results` has every job that this one depends on, also through others; one that is not there
/// counts as skipped. `cancelled` says that the whole run is cancelled. `contexts` has the job's own
/// `needs`.
///
/// # Errors
///
/// If the condition has no value.
pub fn job_condition(
    workflow: &Workflow,
    job: &Job,
    contexts: &Contexts,
    secrets: &BTreeMap<String, Secret>,
    results: &BTreeMap<String, JobResult>,
    cancelled: bool,
    dialect: Dialect,
) -> Result<bool, Diagnostic> {
    let rules = Rules::of(dialect);
    let status = status(workflow, job, results, cancelled, rules);
    let error = |error: EvaluateError| {
        job.diagnostic(job.places.condition, format!("the `if` of job {:?}: {error}", job.key))
    };
    let condition = Condition::parse(job.condition.as_deref().unwrap_or_default())
        .map_err(|parse| error(parse.into()))?;
    let mut scope = JobScope::new(contexts, dialect);
    if rules.condition_sees_leg {
        scope = scope.with_secrets(secrets);
        if condition
            .expressions()
            .iter()
            .any(|e| e.contexts_used().iter().any(|name| name == "env"))
        {
            let env = template::evaluate(&workflow.env, &scope).map_err(error)?;
            scope = scope.with_env(env);
        }
    } else {
        scope = scope.without(&["matrix", "strategy"]);
    }
    condition.evaluate(&scope.with_status(status)).map_err(error)
}

/// What the status functions of a job's `if` answer.
fn status(
    workflow: &Workflow,
    job: &Job,
    results: &BTreeMap<String, JobResult>,
    cancelled: bool,
    rules: &Rules,
) -> JobResult {
    if cancelled {
        return JobResult::Cancelled;
    }
    let before: Vec<&str> = if rules.status_is_transitive {
        workflow.ancestors(&job.key).into_iter().collect()
    } else {
        job.needs.iter().map(String::as_str).collect()
    };
    let result = |key: &&str| results.get(*key).copied().unwrap_or(JobResult::Skipped);
    if before.iter().any(|key| result(key) == JobResult::Failure) {
        JobResult::Failure
    } else if before.iter().all(|key| result(key) == JobResult::Success) {
        JobResult::Success
    } else {
        // A job that was cancelled on its own does not cancel the run.
        JobResult::Skipped
    }
}
