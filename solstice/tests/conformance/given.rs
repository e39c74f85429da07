//! What a forge would have sent: the job of a workflow with its contexts.

use std::collections::BTreeMap;

use common::JobId;
use common::guest::{ATTACH_VERSION, JobDocument, RunnerFacts};
use common::plan::Dialect;
use common::request::{Contexts, Secret};
use serde_json::{Map, Value as Json, json};
use workflow_runner::workflow::{self, JobScope};

use super::case::Case;

/// The job's document; its work directory is for the caller to fill in.
///
/// # Errors
/// What is wrong with the file, as a user reads it.
pub(super) fn document(case: &Case, dialect: Dialect) -> Result<JobDocument, String> {
    let shown = |error: workflow_runner::diagnostic::Diagnostic| error.to_string();
    let file = format!("{}.yml", case.name);
    let workflow = workflow::parse_for(&case.text, &file, dialect).map_err(shown)?.workflow;
    let event = &workflow.on[0].name;
    let mut contexts = Contexts {
        vars: mapping(case.given("vars")),
        needs: mapping(case.given("needs")),
        ..Contexts::default()
    };
    contexts.inputs = match case.given("event").and_then(|event| event.get("inputs")) {
        // Forgejo sends them within the event.
        Some(inputs) => workflow::inputs_of_event(&workflow, event, inputs.as_object().unwrap()),
        None => {
            let given = mapping(case.given("inputs"));
            let declared = workflow.event(event).map_or(&[][..], |event| &event.inputs);
            let is_declared = |name: &str| declared.iter().any(|input| input.name == name);
            let known = given.iter().filter(|(name, _)| is_declared(name));
            let texts: Vec<_> = known.map(text).collect();
            let mut inputs = workflow::inputs_from(&workflow, event, &texts).map_err(shown)?;
            inputs.extend(given);
            inputs
        }
    };
    let secrets = mapping(case.given("secrets"));
    let payload = case.given("event").cloned().unwrap_or_else(|| json!({}));
    let token = secrets.get("GITHUB_TOKEN");
    contexts.github = github(event, workflow.name.as_deref(), &payload, token);

    let job = &workflow.jobs[0];
    let scope = JobScope::new(&contexts, dialect);
    let mut legs = workflow::expand(job, &scope).map_err(shown)?;
    let mut leg = legs.swap_remove(0);
    if let Some(matrix) = case.given("matrix") {
        leg.matrix = matrix.clone();
    }
    let strategy = workflow::strategy_values(job, &scope).map_err(shown)?;
    contexts.matrix = leg.matrix.clone();
    contexts.strategy = strategy.context(&leg, dialect);
    let plan = workflow::plan(&workflow, &job.key, &leg, &contexts, dialect).map_err(shown)?;
    Ok(JobDocument {
        version: ATTACH_VERSION,
        job: JobId::new(),
        plan,
        contexts,
        secrets: secrets.iter().map(secret).collect::<BTreeMap<_, _>>(),
        runner: RunnerFacts {
            os: "Linux".to_owned(),
            arch: "X64".to_owned(),
            name: "conformance".to_owned(),
            tool_cache: String::new(),
        },
        work_directory: String::new(),
        run_as: None,
        label: None,
        checkout_first: false,
        tree: None,
        services: Vec::new(),
        native_commits: Default::default(),
    })
}

/// The `github` context without what the runner adds (github-runner-protocol 5.4).
fn github(
    event: &str,
    workflow: Option<&str>,
    payload: &Json,
    token: Option<&Json>,
) -> Map<String, Json> {
    let workflow = workflow.unwrap_or("conformance.yml");
    mapping(Some(&json!({
        "repository": "owner/repo",
        "repository_owner": "owner",
        "repositoryUrl": "git://forge.example/owner/repo.git",
        "repository_id": "11",
        "repository_owner_id": "12",
        "sha": "0123456789abcdef0123456789abcdef01234567",
        "ref": "refs/heads/main",
        "ref_name": "main",
        "ref_type": "branch",
        "ref_protected": false,
        "base_ref": "",
        "head_ref": "",
        "event_name": event,
        "event": payload,
        "workflow": workflow,
        "workflow_ref": format!("owner/repo/.github/workflows/{workflow}@refs/heads/main"),
        "workflow_sha": "0123456789abcdef0123456789abcdef01234567",
        "job": "test",
        "run_id": "1001",
        "run_number": "7",
        "run_attempt": "1",
        "retention_days": "90",
        "actor": "someone",
        "actor_id": "13",
        "triggering_actor": "someone",
        "server_url": "https://forge.example",
        "api_url": "https://forge.example/api/v1",
        "graphql_url": "https://forge.example/api/graphql",
        "token": token.unwrap_or(&Json::Null),
    })))
}

fn mapping(value: Option<&Json>) -> Map<String, Json> {
    value.map(|value| value.as_object().unwrap().clone()).unwrap_or_default()
}

fn text((name, value): (&String, &Json)) -> (String, String) {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    (name.clone(), text)
}

fn secret((name, value): (&String, &Json)) -> (String, Secret) {
    (name.clone(), Secret::new(value.as_str().unwrap()))
}
