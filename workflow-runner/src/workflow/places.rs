//! Where in a workflow which contexts and functions may be used.
//!
//! GitHub's rules: github-runner-protocol 5.7 for what its runner evaluates, and the table "Context
//! availability" of its public documentation for what its server does.

use super::rules::Rules;
use super::suggest;
use crate::expression::{CONTEXTS, Expression, Use};
use crate::yaml::shorten;

/// One more name of `github` (forgejo-runner-protocol 8.5).
const FORGE: &str = "forge";

/// Something that an expression uses where it does not exist.
#[derive(Debug)]
pub(super) struct Misuse {
    /// Characters of the expression before it.
    pub(super) offset: usize,
    /// What it is.
    pub(super) message: String,
    /// What to do instead.
    pub(super) hint: String,
}

/// What an expression uses that does not exist in this place.
pub(super) fn misuses(expression: &Expression, place: Place, rules: &Rules) -> Vec<Misuse> {
    let contexts = expression.contexts().iter().filter_map(|used| context(used, place, rules));
    let functions = expression.functions().iter().filter_map(|used| function(used, place, rules));
    contexts.chain(functions).collect()
}

fn context(used: &Use, place: Place, rules: &Rules) -> Option<Misuse> {
    let name = used.name.as_str();
    let offset = used.offset;
    if !CONTEXTS.contains(&name) && name != FORGE {
        let hint = suggest::hint(name, CONTEXTS).unwrap_or_else(|| {
            format!("text stands in single quotes; the contexts are {}", CONTEXTS.join(", "))
        });
        let message = format!("there is no context {:?}", shorten(name));
        return Some(Misuse { offset, message, hint });
    }
    let contexts = place.contexts().filter(|_| rules.checks_contexts)?;
    if contexts.contains(&name) {
        return None;
    }
    let message = format!("the context {name:?} does not exist here");
    Some(Misuse { offset, message, hint: format!("here exist {}", contexts.join(", ")) })
}

fn function(used: &Use, place: Place, rules: &Rules) -> Option<Misuse> {
    let name = used.name.as_str();
    let hint = match name {
        "success" | "failure" | "cancelled" | "always" if !place.has_status() => {
            "it works in `if` of jobs and steps only"
        }
        "hashFiles" if !place.has_files() => "it reads the workspace, so it works in steps only",
        "case" if !rules.has_case => "write condition && value || other",
        _ => return None,
    };
    let message = format!("the function {name} does not exist here");
    Some(Misuse { offset: used.offset, message, hint: hint.to_owned() })
}

/// A kind of place in which an expression can stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `run-name`, and the default of an input of `workflow_call`.
    Start,
    /// `concurrency` of the workflow.
    Concurrency,
    /// `env` of the workflow.
    WorkflowEnv,
    /// A value of `on.workflow_call.outputs`.
    CallOutput,
    /// `if` of a job.
    JobCondition,
    /// `strategy` of a job.
    Strategy,
    /// What is known before a job starts: its name, `runs-on`, limit, `container` and the like.
    Job,
    /// `credentials` of a container.
    Credentials,
    /// `env` of a container.
    ContainerEnv,
    /// `env` of a job.
    JobEnv,
    /// `defaults` of a job.
    JobDefaults,
    /// A secret that is handed to a called workflow.
    CallSecret,
    /// `if` of a step.
    StepCondition,
    /// Everything else in a step.
    Step,
    /// An output of a job, and the address of its environment.
    JobOutput,
    /// Where GitHub allows no expression, and nobody evaluates one.
    Other,
}

impl Place {
    /// The place at the end of a path of keys, such as `jobs`, `build`, `steps`, `if`. Items of a
    /// list have no part in it.
    pub(super) fn at(path: &[&str]) -> Self {
        match path {
            ["run-name", ..] | ["on", "workflow_call", "inputs", ..] => Self::Start,
            ["on", "workflow_call", "outputs", ..] => Self::CallOutput,
            ["concurrency", ..] => Self::Concurrency,
            ["env", ..] => Self::WorkflowEnv,
            ["jobs", _, rest @ ..] => Self::in_job(rest),
            _ => Self::Other,
        }
    }

    fn in_job(path: &[&str]) -> Self {
        match path {
            ["if"] => Self::JobCondition,
            ["strategy", ..] => Self::Strategy,
            ["env", ..] => Self::JobEnv,
            ["defaults", ..] => Self::JobDefaults,
            ["secrets", ..] => Self::CallSecret,
            ["outputs", ..] | ["environment", "url"] => Self::JobOutput,
            ["container", "credentials", ..] | ["services", _, "credentials", ..] => {
                Self::Credentials
            }
            ["container", "env", ..] | ["services", _, "env", ..] => Self::ContainerEnv,
            ["steps", "if"] => Self::StepCondition,
            ["steps", ..] => Self::Step,
            _ => Self::Job,
        }
    }

    /// The contexts that exist there; absent where nobody evaluates anything.
    pub(super) fn contexts(self) -> Option<&'static [&'static str]> {
        Some(match self {
            Self::Start | Self::Concurrency => &["github", "inputs", "vars"],
            Self::WorkflowEnv => &["github", "secrets", "inputs", "vars"],
            Self::CallOutput => &["github", "jobs", "vars", "inputs"],
            Self::JobCondition | Self::Strategy => &["github", "needs", "vars", "inputs"],
            Self::Job => &["github", "needs", "strategy", "matrix", "vars", "inputs"],
            Self::JobEnv | Self::CallSecret => {
                &["github", "needs", "strategy", "matrix", "vars", "secrets", "inputs"]
            }
            Self::Credentials => {
                &["github", "needs", "strategy", "matrix", "env", "vars", "secrets", "inputs"]
            }
            Self::ContainerEnv => &[
                "github", "needs", "strategy", "matrix", "job", "runner", "env", "vars", "secrets",
                "inputs",
            ],
            Self::JobDefaults => {
                &["github", "needs", "strategy", "matrix", "env", "vars", "inputs"]
            }
            Self::StepCondition => &[
                "github", "needs", "strategy", "matrix", "job", "runner", "env", "vars", "steps",
                "inputs",
            ],
            Self::Step | Self::JobOutput => &[
                "github", "needs", "strategy", "matrix", "job", "runner", "env", "vars", "secrets",
                "steps", "inputs",
            ],
            Self::Other => return None,
        })
    }

    /// Whether `success()`, `failure()`, `cancelled()` and `always()` work there.
    pub(super) fn has_status(self) -> bool {
        matches!(self, Self::JobCondition | Self::StepCondition)
    }

    /// Whether `hashFiles` works there: it needs the workspace.
    pub(super) fn has_files(self) -> bool {
        matches!(self, Self::StepCondition | Self::Step | Self::JobOutput)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_its_place() {
        for (path, place) in [
            (&["run-name"][..], Place::Start),
            (&["on", "workflow_call", "inputs", "level", "default"], Place::Start),
            (&["on", "workflow_call", "outputs", "v", "value"], Place::CallOutput),
            (&["on", "push", "branches"], Place::Other),
            (&["env", "A"], Place::WorkflowEnv),
            (&["jobs", "a", "name"], Place::Job),
            (&["jobs", "a", "if"], Place::JobCondition),
            (&["jobs", "if", "if"], Place::JobCondition),
            (&["jobs", "a", "strategy", "matrix", "os"], Place::Strategy),
            (&["jobs", "a", "with", "level"], Place::Job),
            (&["jobs", "a", "secrets", "KEY"], Place::CallSecret),
            (&["jobs", "a", "steps", "if"], Place::StepCondition),
            (&["jobs", "a", "steps", "env", "if"], Place::Step),
            (&["jobs", "a", "environment", "name"], Place::Job),
            (&["jobs", "a", "container"], Place::Job),
            (&["jobs", "a", "container", "image"], Place::Job),
            (&["jobs", "a", "container", "env", "A"], Place::ContainerEnv),
            (&["jobs", "a", "services", "env", "image"], Place::Job),
            (&["jobs", "a", "services", "db", "credentials", "password"], Place::Credentials),
            (&["jobs", "a", "environment", "url"], Place::JobOutput),
        ] {
            assert_eq!(Place::at(path), place, "{path:?}");
        }
    }
}
