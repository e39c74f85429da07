//! The types: a workflow as its file says it, with expressions not yet evaluated.

use std::sync::Arc;

use common::plan::{Containers, Location, Step, Value};
use serde_json::Value as Json;

use super::data::Data;
use super::secrets::SecretUse;
use crate::diagnostic::Diagnostic;
use crate::yaml::Source;

/// A workflow file.
#[derive(Clone, Debug)]
pub struct Workflow {
    /// The file as the user named it.
    pub file: String,
    /// `name`.
    pub name: Option<String>,
    /// `run-name`.
    pub run_name: Option<Value>,
    /// `on`: the events that start it, in the order of the file.
    pub on: Vec<Event>,
    /// `env`: a mapping, or an expression that gives one.
    pub env: Value,
    /// `defaults`: a mapping, or an expression that gives one.
    pub defaults: Value,
    /// `permissions`, carried as written.
    pub permissions: Option<Json>,
    /// `concurrency`, carried as written.
    pub concurrency: Option<Data>,
    /// `jobs`, in the order of the file; never empty.
    pub jobs: Vec<Job>,
    pub(super) secrets: Vec<SecretUse>,
    pub(super) source: Arc<Source>,
}

/// An event that starts a workflow.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name, such as `push`.
    pub name: String,
    /// What the file says about it; null if nothing.
    pub config: Json,
    /// The inputs of `workflow_dispatch` and `workflow_call`, in the order of the file.
    pub inputs: Vec<Input>,
    /// The outputs of `workflow_call`: a mapping from name to value.
    pub outputs: Value,
    /// The secrets of `workflow_call` that the caller must give.
    pub required_secrets: Vec<String>,
    /// Where it stands.
    pub location: Location,
}

/// An input of `workflow_dispatch` or `workflow_call`.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// `description`.
    pub description: Option<String>,
    /// `type`.
    pub kind: InputKind,
    /// `required`.
    pub required: bool,
    /// `default`.
    pub default: Option<Data>,
    /// `options` of a choice.
    pub options: Vec<String>,
    /// Where it stands.
    pub location: Location,
}

/// The type of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// Any text; the default.
    String,
    /// `true` or `false`.
    Boolean,
    /// A number.
    Number,
    /// One of the options.
    Choice,
    /// The name of an environment: any text here.
    Environment,
}

/// A job.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its key in `jobs`.
    pub key: String,
    /// `name`.
    pub name: Option<Value>,
    /// `needs`: keys of other jobs, in the order of the file.
    pub needs: Vec<String>,
    /// The text of `if`; absent means `success()`.
    pub condition: Option<String>,
    /// `strategy`.
    pub strategy: Strategy,
    /// What it does.
    pub work: Work,
    /// `permissions`, carried as written.
    pub permissions: Option<Json>,
    /// `concurrency`, carried as written.
    pub concurrency: Option<Data>,
    /// Where the job's key stands.
    pub location: Location,
    pub(super) places: Places,
    pub(super) source: Arc<Source>,
}

/// What a job does.
#[derive(Clone, Debug)]
pub enum Work {
    /// It runs steps on a machine.
    Steps(Box<Steps>),
    /// It runs the jobs of another workflow.
    Call(Call),
}

/// A job that runs steps on a machine.
#[derive(Clone, Debug)]
pub struct Steps {
    /// `runs-on`: text, a list, or a mapping with `group` and `labels`.
    pub runs_on: Value,
    /// `env`: a mapping, or an expression that gives one.
    pub env: Value,
    /// `defaults`: a mapping, or an expression that gives one.
    pub defaults: Value,
    /// `timeout-minutes`.
    pub timeout_minutes: Option<Value>,
    /// `continue-on-error`.
    pub continue_on_error: Option<Value>,
    /// `container` and `services`.
    pub containers: Containers,
    /// `steps`, in order.
    pub steps: Vec<Step>,
    /// `outputs`: a mapping from name to value.
    pub outputs: Value,
}

/// A job that runs the jobs of another workflow: a reusable one.
#[derive(Clone, Debug)]
pub struct Call {
    /// `uses`: its path in the repository, after `./`.
    pub path: String,
    /// `with`: a mapping from the names of inputs to values.
    pub inputs: Data,
    /// `secrets`.
    pub secrets: CallSecrets,
    /// Where `uses` stands.
    pub location: Location,
}

/// The secrets that a called workflow gets.
#[derive(Clone, Debug)]
pub enum CallSecrets {
    /// `inherit`: all of the caller's.
    Inherit,
    /// A mapping from name to value.
    Given(Value),
}

/// `strategy` of a job.
#[derive(Clone, Debug, Default)]
pub struct Strategy {
    /// `matrix`.
    pub matrix: Option<Matrix>,
    /// `fail-fast`; absent means true.
    pub fail_fast: Option<Value>,
    /// `max-parallel`; absent means no limit.
    pub max_parallel: Option<Value>,
}

/// `matrix` of a job: a mapping, or an expression that gives one.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// What the file says.
    pub data: Data,
    /// Where its key stands.
    pub location: Location,
}

/// Where the parts of a job stand, for findings that only their evaluation brings.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) name: Location,
    pub(super) condition: Location,
    pub(super) runs_on: Location,
    pub(super) strategy: Location,
    /// One for each of `needs`.
    pub(super) needs: Vec<Location>,
}

impl Workflow {
    /// The job of this key.
    pub fn job(&self, key: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.key == key)
    }

    /// The event of this name, if it starts the workflow.
    pub fn event(&self, name: &str) -> Option<&Event> {
        self.on.iter().find(|event| event.name == name)
    }
}

impl Job {
    /// A finding at a place of the job's file.
    pub fn diagnostic(&self, location: Location, message: impl Into<String>) -> Diagnostic {
        self.source.diagnostic(location, message)
    }

    /// What it runs on a machine; absent if it calls a workflow.
    pub fn on_machine(&self) -> Option<&Steps> {
        match &self.work {
            Work::Steps(steps) => Some(steps),
            Work::Call(_) => None,
        }
    }

    /// The workflow that it calls, if it does.
    pub fn call(&self) -> Option<&Call> {
        match &self.work {
            Work::Steps(_) => None,
            Work::Call(call) => Some(call),
        }
    }

    /// Its steps; none if it calls a workflow.
    pub fn steps(&self) -> &[Step] {
        self.on_machine().map_or(&[], |work| &work.steps)
    }

    /// A finding about what its `runs-on` says.
    pub fn about_runs_on(&self, message: impl Into<String>) -> Diagnostic {
        self.diagnostic(self.places.runs_on, message)
    }
}
