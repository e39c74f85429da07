//! Calling a workflow of the same repository: what goes in, and what comes out.

use std::collections::BTreeMap;

use common::plan::Dialect;
use common::request::{Contexts, Secret};
use serde_json::{Map, Value as Json};

use super::inputs::typed;
use super::model::{Call, CallSecrets, Event, Input, Job, Workflow};
use super::scope::JobScope;
use super::suggest;
use crate::diagnostic::Diagnostic;
use crate::expression::Value;
use crate::template;

/// The event of a workflow that is called.
const EVENT: &str = "workflow_call";

/// Finds what is wrong with a call before any job runs: whether the workflow can be called, and the
/// names of its inputs and secrets.
///
/// # Errors
/// The first finding, at the job that calls.
pub fn check_call(job: &Job, call: &Call, called: &Workflow) -> Result<(), Diagnostic> {
    let event = callable(job, call, called)?;
    let given: Vec<&str> = match &call.inputs {
        super::Data::Mapping(fields) => fields.iter().map(|field| field.name.as_str()).collect(),
        _ => Vec::new(),
    };
    for name in &given {
        if !event.inputs.iter().any(|input| input.name.eq_ignore_ascii_case(name)) {
            let message = format!("{} has no input {name:?}", called.file);
            let names: Vec<_> = event.inputs.iter().map(|input| input.name.as_str()).collect();
            let error = job.diagnostic(call.location, message);
            return Err(match suggest::hint(name, names.iter().copied()) {
                Some(hint) => error.hint(hint),
                None if names.is_empty() => error,
                None => error.hint(format!("its inputs are: {}", names.join(", "))),
            });
        }
    }
    let is_given = |input: &Input| given.iter().any(|name| input.name.eq_ignore_ascii_case(name));
    let missing = event
        .inputs
        .iter()
        .find(|input| input.required && input.default.is_none() && !is_given(input));
    if let Some(input) = missing {
        let message = format!("{} needs the input {:?}", called.file, input.name);
        let error = job.diagnostic(call.location, message);
        return Err(error.hint(format!("give it: `with: {{{}: VALUE}}`", input.name)));
    }
    if let CallSecrets::Given(common::plan::Value::Mapping(pairs)) = &call.secrets {
        let is_given = |name: &str| {
            pairs.iter().any(|(key, _)| {
                matches!(key, common::plan::Value::Literal(key) if key.eq_ignore_ascii_case(name))
            })
        };
        if let Some(name) = event.required_secrets.iter().find(|name| !is_given(name)) {
            let message = format!("{} needs the secret {name:?}", called.file);
            let error = job.diagnostic(call.location, message);
            return Err(error.hint("give it under `secrets`, or write `secrets: inherit`"));
        }
    }
    Ok(())
}

fn callable<'a>(job: &Job, call: &Call, called: &'a Workflow) -> Result<&'a Event, Diagnostic> {
    called.event(EVENT).ok_or_else(|| {
        let message = format!("{} cannot be called: its `on` has no `{EVENT}`", called.file);
        job.diagnostic(call.location, message).hint(format!("add `{EVENT}:` there"))
    })
}

/// The `inputs` context of a called workflow.
///
/// # Errors
/// A value that cannot be evaluated or does not fit its type.
pub fn call_inputs(
    job: &Job,
    call: &Call,
    called: &Workflow,
    scope: &JobScope,
) -> Result<Map<String, Json>, Diagnostic> {
    let event = callable(job, call, called)?;
    let given = call.inputs.evaluate(scope).map_err(|(place, error)| {
        job.diagnostic(place, format!("`with` of job {:?}: {error}", job.key))
    })?;
    let empty = Map::new();
    let given = given.as_object().unwrap_or(&empty);
    let mut inputs = Map::new();
    for input in &event.inputs {
        let found = given.iter().find(|(name, _)| name.eq_ignore_ascii_case(&input.name));
        let value = match (found, &input.default) {
            (Some((_, value)), _) if !value.is_null() => value.clone(),
            (_, Some(default)) => default.evaluate(scope).map_err(|(place, error)| {
                let message = format!("the default of input {:?}: {error}", input.name);
                called.source.diagnostic(place, message)
            })?,
            _ => Json::Null,
        };
        let value = match value {
            Json::Null => super::inputs::empty(input),
            value => typed(input, &Value::from_json(&value).to_text()).map_err(|reason| {
                let message = format!("the value of input {:?} {reason}", input.name);
                job.diagnostic(call.location, message)
            })?,
        };
        inputs.insert(input.name.clone(), value);
    }
    Ok(inputs)
}

/// The secrets of a called workflow; `own` are the caller's.
///
/// # Errors
/// A value that cannot be evaluated.
pub fn call_secrets(
    job: &Job,
    call: &Call,
    own: &BTreeMap<String, Secret>,
    scope: &JobScope,
) -> Result<BTreeMap<String, Secret>, Diagnostic> {
    let given = match &call.secrets {
        CallSecrets::Inherit => return Ok(own.clone()),
        CallSecrets::Given(given) => given,
    };
    let wrong = |error: crate::expression::EvaluateError| {
        job.diagnostic(call.location, format!("`secrets` of job {:?}: {error}", job.key))
    };
    let value = template::evaluate(given, &scope.clone().with_secrets(own)).map_err(wrong)?;
    let mut secrets: BTreeMap<String, Secret> = value
        .as_object()
        .into_iter()
        .flat_map(crate::expression::Object::iter)
        .map(|(name, value)| (name.to_owned(), Secret::new(value.to_text())))
        .collect();
    // The forge's own token is everybody's.
    for name in ["GITHUB_TOKEN", "FORGEJO_TOKEN", "GITEA_TOKEN"] {
        if let Some(token) = own.get(name) {
            secrets.entry(name.to_owned()).or_insert_with(|| token.clone());
        }
    }
    Ok(secrets)
}

/// The outputs of a called workflow, when its jobs are over: `jobs` is the context of that name.
///
/// # Errors
/// A value that cannot be evaluated.
pub fn call_outputs(
    called: &Workflow,
    contexts: &Contexts,
    jobs: &Map<String, Json>,
    dialect: Dialect,
) -> Result<BTreeMap<String, String>, Diagnostic> {
    let Some(event) = called.event(EVENT) else { return Ok(BTreeMap::new()) };
    let scope = JobScope::new(contexts, dialect).with_jobs(jobs);
    let value = template::evaluate(&event.outputs, &scope).map_err(|error| {
        let message = format!("the outputs of the workflow: {error}");
        called.source.diagnostic(event.location, message)
    })?;
    let pairs = value.as_object().into_iter().flat_map(crate::expression::Object::iter);
    Ok(pairs
        .map(|(name, value)| (name.to_owned(), value.to_text()))
        .filter(|(_, value)| !value.is_empty())
        .collect())
}
