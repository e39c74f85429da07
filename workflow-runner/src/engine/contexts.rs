//! What expressions of a job see, and evaluating them.

use std::collections::HashMap;
use std::time::Duration;

use common::event::JobResult;
use common::guest::JobDocument;
use common::plan;
use serde_json::{Map, Value as Json};

use crate::expression::{EvaluateError, HashFiles, Object, Scope, Value};
use crate::system::System;
use crate::template;

use super::dialect::DialectRules;
use super::environment::RUNNER_ENVIRONMENT;
use super::variables::Variables;
use super::workspace::Directories;

/// How long one `hashFiles` may take (github-runner-protocol 5.8).
const HASH_LIMIT: Duration = Duration::from_secs(120);

/// Calls of `hashFiles` with different patterns in one value; more are an error.
const HASH_CALLS: usize = 32;

/// The contexts that stay the same through a job.
#[derive(Debug)]
pub(super) struct JobContexts {
    /// `github`, without what changes from step to step.
    github: Object,
    /// The others by their names.
    fixed: Vec<(&'static str, Value)>,
}

impl JobContexts {
    /// Takes the contexts of the forge and adds what only the machine knows.
    pub(super) fn new(
        document: &JobDocument,
        rules: &DialectRules,
        directories: &Directories,
        debug: bool,
    ) -> Self {
        let contexts = &document.contexts;
        let mut github: Object = contexts
            .github
            .iter()
            .map(|(key, value)| (key.clone(), Value::from_json(value)))
            .collect();
        for (key, value) in [
            ("job", document.plan.job.as_str()),
            ("workspace", &directories.workspace),
            ("event_path", &directories.event_path),
        ] {
            github.insert(key, Value::text(value));
        }
        let map = |map: &Map<String, Json>| {
            Value::object(map.iter().map(|(key, value)| (key.clone(), Value::from_json(value))))
        };
        let secrets = document
            .secrets
            .iter()
            .map(|(name, secret)| (name.clone(), Value::text(secret.expose())));
        let runner = &document.runner;
        let mut runner = vec![
            ("os", runner.os.as_str()),
            ("arch", runner.arch.as_str()),
            ("name", runner.name.as_str()),
            ("environment", RUNNER_ENVIRONMENT),
            ("tool_cache", &directories.tool_cache),
            ("temp", &directories.temp),
            ("workspace", &directories.runner_workspace),
        ];
        if debug {
            runner.push(("debug", "1"));
        }
        runner.retain(|(name, _)| rules.runner_members.contains(name));
        let fixed = vec![
            ("vars", map(&contexts.vars)),
            ("needs", map(&contexts.needs)),
            ("matrix", Value::from_json(&contexts.matrix)),
            ("strategy", map(&contexts.strategy)),
            ("inputs", map(&contexts.inputs)),
            ("secrets", Value::object(secrets.collect::<Vec<_>>())),
            (
                "runner",
                Value::object(runner.into_iter().map(|(k, v)| (k.to_owned(), Value::text(v)))),
            ),
        ];
        Self { github, fixed }
    }

    /// The contexts of the job itself, before its first step.
    pub(super) fn scope(&self, rules: &'static DialectRules) -> JobScope {
        JobScope {
            rules,
            contexts: self.fixed.clone(),
            github: Value::from(self.github.clone()),
            status: None,
            hashes: HashMap::new(),
            hash_root: None,
            in_condition: false,
        }
    }

    /// The contexts of a step; `github` is what the step has of its own in the context of that
    /// name.
    pub(super) fn step_scope(
        &self,
        rules: &'static DialectRules,
        github: impl IntoIterator<Item = (String, String)>,
        directories: &Directories,
    ) -> JobScope {
        let mut scope = self.scope(rules);
        let mut object = self.github.clone();
        for (key, value) in github {
            object.insert(key, Value::from(value));
        }
        scope.github = Value::from(object);
        scope.hash_root = Some(directories.workspace.clone());
        scope
    }
}

/// What an expression sees at one place of a job.
#[derive(Clone, Debug)]
pub(super) struct JobScope {
    rules: &'static DialectRules,
    contexts: Vec<(&'static str, Value)>,
    github: Value,
    status: Option<JobResult>,
    hashes: HashMap<Vec<String>, String>,
    /// The directory of `hashFiles`; absent where it cannot be called.
    hash_root: Option<String>,
    in_condition: bool,
}

impl JobScope {
    /// The `github` context.
    pub(super) fn github(&self) -> &Value {
        &self.github
    }

    /// Sets members of the `github` context.
    pub(super) fn extend_github(&mut self, members: impl IntoIterator<Item = (String, String)>) {
        let Value::Object(known) = &self.github else { return };
        let mut object: Object = known.as_ref().clone();
        for (name, value) in members {
            object.insert(name, Value::from(value));
        }
        self.github = Value::from(object);
    }

    /// Sets a context.
    pub(super) fn set(&mut self, name: &'static str, value: Value) {
        self.contexts.retain(|(known, _)| *known != name);
        self.contexts.push((name, value));
    }

    /// Sets the `env` context.
    pub(super) fn set_env(&mut self, variables: &Variables) {
        let mut object = if self.rules.env_is_case_sensitive {
            Object::case_sensitive()
        } else {
            Object::keeping_spellings()
        };
        for (name, value) in variables.iter() {
            object.insert(name, Value::text(value));
        }
        self.set("env", Value::from(object));
    }

    /// Evaluates a value of the plan; the result is never evaluated again.
    pub(super) async fn evaluate(
        &mut self,
        value: &plan::Value,
        system: &dyn System,
    ) -> Result<Value, String> {
        self.with_hashes(system, |scope| template::evaluate(value, scope)).await
    }

    /// Evaluates a value to text.
    pub(super) async fn text(
        &mut self,
        value: &plan::Value,
        system: &dyn System,
    ) -> Result<String, String> {
        let value = self.evaluate(value, system).await?;
        if value.is_primitive() {
            Ok(value.to_text())
        } else {
            Err(format!("{} stands where text is needed", value.kind()))
        }
    }

    /// Evaluates a mapping to names and texts, such as `env` and `with`.
    pub(super) async fn texts(
        &mut self,
        value: &plan::Value,
        system: &dyn System,
    ) -> Result<Vec<(String, String)>, String> {
        let mut texts = Vec::new();
        // Names are distinguished by case, which a mapping of the language does not do: so the
        // entries are evaluated one by one where their names are plain.
        if let plan::Value::Mapping(pairs) = value
            && pairs.iter().all(|(name, _)| matches!(name, plan::Value::Literal(_)))
        {
            for (name, value) in pairs {
                let plan::Value::Literal(name) = name else { continue };
                let text = self.text(value, system).await.map_err(|e| format!("{name}: {e}"))?;
                texts.push((name.clone(), text));
            }
            return Ok(texts);
        }
        let value = self.evaluate(value, system).await?;
        match &value {
            Value::Null => {}
            Value::String(text) if text.is_empty() => {}
            Value::Object(object) => {
                for (name, value) in object.iter() {
                    if !value.is_primitive() {
                        return Err(format!(
                            "{name}: {} stands where text is needed",
                            value.kind()
                        ));
                    }
                    texts.push((name.to_owned(), value.to_text()));
                }
            }
            other => return Err(format!("{} stands where a mapping is needed", other.kind())),
        }
        Ok(texts)
    }

    /// Evaluates a condition in a job of this state.
    pub(super) async fn condition(
        &mut self,
        text: Option<&str>,
        status: JobResult,
        system: &dyn System,
    ) -> Result<bool, String> {
        self.status = Some(status);
        self.in_condition = true;
        let result = self.with_hashes(system, |scope| template::condition(text, scope)).await;
        self.status = None;
        self.in_condition = false;
        result
    }

    /// Forgets hashes: files may have changed.
    pub(super) fn forget_hashes(&mut self) {
        self.hashes.clear();
    }

    /// Evaluates again for each `hashFiles` that had to be computed first.
    async fn with_hashes<T>(
        &mut self,
        system: &dyn System,
        evaluate: impl Fn(&dyn Scope) -> Result<T, EvaluateError>,
    ) -> Result<T, String> {
        for _ in 0..=HASH_CALLS {
            let patterns = match evaluate(self) {
                Ok(value) => return Ok(value),
                Err(EvaluateError::NeedsHash(patterns)) => patterns,
                Err(error) => return Err(error.to_string()),
            };
            let Some(root) = &self.hash_root else {
                return Err("hashFiles can be used in steps only".to_owned());
            };
            let hash = system
                .hash_files(root, &patterns, HASH_LIMIT)
                .await
                .map_err(|error| format!("hashFiles failed: {error}"))?;
            self.hashes.insert(patterns, hash);
        }
        Err(format!("hashFiles is called more than {HASH_CALLS} times in one value"))
    }
}

impl Scope for JobScope {
    fn context(&self, name: &str) -> Option<Value> {
        if self.rules.github_names.contains(&name) {
            return Some(self.github.clone());
        }
        if name == "secrets" && self.in_condition && !self.rules.secrets_in_conditions {
            return None;
        }
        self.contexts.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    fn status(&self) -> Option<JobResult> {
        self.status
    }

    fn hash_files(&self, patterns: &[String]) -> HashFiles {
        match (&self.hash_root, self.hashes.get(patterns)) {
            (None, _) => HashFiles::Unavailable,
            (Some(_), Some(hash)) => HashFiles::Known(hash.clone()),
            (Some(_), None) => HashFiles::Unknown,
        }
    }

    fn context_names(&self) -> Vec<String> {
        let others = self.contexts.iter().map(|(name, _)| *name);
        self.rules.github_names.iter().copied().chain(others).map(str::to_owned).collect()
    }
}
