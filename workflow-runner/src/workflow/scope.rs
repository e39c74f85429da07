//! What the expressions of a job can see outside its steps.

use std::collections::BTreeMap;

use common::event::JobResult;
use common::plan::Dialect;
use common::request::{Contexts, Secret};
use serde_json::{Map, Value as Json};

use super::matrix::Leg;
use super::rules::Rules;
use crate::expression::{HashFiles, Scope, Value};

/// The contexts of a job outside its steps: `github` (with the other names that the dialect has for
/// it), `vars`, `needs`, `inputs`, `strategy` and `matrix`, and what the caller adds.
#[derive(Clone, Debug)]
pub struct JobScope {
    contexts: Vec<(&'static str, Value)>,
    aliases: &'static [&'static str],
    status: Option<JobResult>,
}

impl JobScope {
    /// The contexts that come with a job. Status functions are not allowed.
    pub fn new(contexts: &Contexts, dialect: Dialect) -> Self {
        let object = |map: &Map<String, Json>| Value::from_json(&Json::Object(map.clone()));
        Self {
            contexts: vec![
                ("github", object(&contexts.github)),
                ("vars", object(&contexts.vars)),
                ("needs", object(&contexts.needs)),
                ("inputs", object(&contexts.inputs)),
                ("strategy", object(&contexts.strategy)),
                ("matrix", Value::from_json(&contexts.matrix)),
            ],
            aliases: Rules::of(dialect).github_aliases,
            status: None,
        }
    }

    /// Sets `matrix` to that of a leg.
    #[must_use]
    pub fn with_leg(self, leg: &Leg) -> Self {
        self.with("matrix", Value::from_json(&leg.matrix))
    }

    /// Adds `secrets`.
    #[must_use]
    pub fn with_secrets(self, secrets: &BTreeMap<String, Secret>) -> Self {
        let pairs =
            secrets.iter().map(|(name, secret)| (name.clone(), Value::text(secret.expose())));
        let secrets = Value::object(pairs);
        self.with("secrets", secrets)
    }

    /// Adds `jobs`, for the outputs of a called workflow.
    #[must_use]
    pub fn with_jobs(self, jobs: &Map<String, Json>) -> Self {
        self.with("jobs", Value::from_json(&Json::Object(jobs.clone())))
    }

    /// Adds `env`.
    #[must_use]
    pub fn with_env(self, env: Value) -> Self {
        self.with("env", env)
    }

    /// Allows status functions, which answer by this status.
    #[must_use]
    pub fn with_status(mut self, status: JobResult) -> Self {
        self.status = Some(status);
        self
    }

    /// Takes contexts away where they are not allowed.
    #[must_use]
    pub(super) fn without(mut self, names: &[&str]) -> Self {
        self.contexts.retain(|(name, _)| !names.contains(name));
        self
    }

    fn with(mut self, name: &'static str, value: Value) -> Self {
        self.contexts.retain(|(known, _)| *known != name);
        self.contexts.push((name, value));
        self
    }
}

impl Scope for JobScope {
    fn context(&self, name: &str) -> Option<Value> {
        let name = if self.aliases.contains(&name) { "github" } else { name };
        self.contexts.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    fn status(&self) -> Option<JobResult> {
        self.status
    }

    fn hash_files(&self, _patterns: &[String]) -> HashFiles {
        HashFiles::Unavailable
    }

    fn context_names(&self) -> Vec<String> {
        self.contexts.iter().map(|(name, _)| (*name).to_owned()).collect()
    }
}

/// A scope in which a leg's `matrix` stands for whatever the other scope has.
pub(super) struct LegScope<'a> {
    scope: &'a dyn Scope,
    matrix: Value,
}

impl<'a> LegScope<'a> {
    pub(super) fn new(scope: &'a dyn Scope, leg: &Leg) -> Self {
        Self { scope, matrix: Value::from_json(&leg.matrix) }
    }
}

impl Scope for LegScope<'_> {
    fn context(&self, name: &str) -> Option<Value> {
        if name == "matrix" { Some(self.matrix.clone()) } else { self.scope.context(name) }
    }

    fn status(&self) -> Option<JobResult> {
        self.scope.status()
    }

    fn hash_files(&self, patterns: &[String]) -> HashFiles {
        self.scope.hash_files(patterns)
    }

    fn context_names(&self) -> Vec<String> {
        self.scope.context_names()
    }
}

/// A scope in which nothing exists.
pub(super) struct NoContexts;

impl Scope for NoContexts {
    fn context(&self, _name: &str) -> Option<Value> {
        None
    }

    fn status(&self) -> Option<JobResult> {
        None
    }

    fn hash_files(&self, _patterns: &[String]) -> HashFiles {
        HashFiles::Unavailable
    }
}
