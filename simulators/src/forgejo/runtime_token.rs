//! The token with which a job itself talks to the server, for artifacts and OIDC
//! (forgejo-runner-protocol 8.9): what it says, and who it lets in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::context::of_run;
use super::json_web_token::{hs256, read_hs256};
use super::state::{Job, Run, State};
use super::status::Status;

/// How long a token is good.
const LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// What an ID token says of its run besides what every token has.
const SAID: [&str; 18] = [
    "actor",
    "actor_id",
    "base_ref",
    "event_name",
    "head_ref",
    "ref",
    "ref_protected",
    "ref_type",
    "repository",
    "repository_id",
    "repository_owner",
    "repository_owner_id",
    "run_attempt",
    "run_id",
    "run_number",
    "sha",
    "workflow",
    "workflow_ref",
];

/// Who asks: a task that runs, with its run and its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bearer {
    pub(super) task: i64,
    pub(super) run: i64,
    pub(super) job: i64,
}

/// An answer that is no success.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// The client asked what it must not; otherwise it could not know better.
    pub(super) is_violation: bool,
}

impl Refusal {
    /// A refusal of what nobody may ask.
    pub(super) fn of(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), is_violation: true }
    }

    /// A refusal that may happen to everybody.
    pub(super) fn innocent(status: StatusCode, message: impl Into<String>) -> Self {
        Self { is_violation: false, ..Self::of(status, message) }
    }
}

/// Seconds since 1970.
pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The token of a request.
///
/// # Errors
/// There is none.
pub(super) fn token(headers: &HeaderMap) -> Result<&str, Refusal> {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let parts = value.and_then(|value| value.split_once(' '));
    let token = parts.filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    let refusal = || Refusal::of(StatusCode::UNAUTHORIZED, "Bad authorization header");
    token.map(|(_, token)| token).ok_or_else(refusal)
}

impl State {
    /// Whether jobs of a run may have ID tokens.
    pub(super) fn gives_id_tokens(&self, run: &Run) -> bool {
        self.profile.has_oidc() && run.workflow.wants_oidc() && !run.origin.fork
    }

    /// The token for a task of a job.
    pub(super) fn runtime_token(&self, task: i64, job: &Job, attempt: i64) -> Option<String> {
        let run = self.runs.get(&job.run)?;
        let now = self.clock.now();
        let both = format!("{}:{}", run.id, job.id);
        let mut claims = json!({
            "exp": seconds(now + LIFE), "nbf": seconds(now), "scp": format!("Actions.Results:{both}"),
            "TaskID": task, "RunID": run.id, "JobID": job.id, "ac": r#"[{"Scope":"","Permission":2}]"#,
        });
        if self.gives_id_tokens(run) {
            claims["scp"] = format!("Actions.Results:{both} generate_id_token:{both}").into();
            let mut context = of_run(self, run);
            context.insert("run_attempt".to_owned(), attempt.to_string().into());
            claims["oidc_sub"] = self.subject(run, &context).into();
            context.retain(|key, _| SAID.contains(&key.as_str()));
            for value in context.values_mut().filter(|value| !value.is_string()) {
                *value = value.to_string().into();
            }
            claims["oidc_extra"] = Value::Object(context).to_string().into();
        }
        Some(hs256(&self.secret, &claims))
    }

    /// Whom an ID token is about. Servers that tell ids have them in it.
    fn subject(&self, run: &Run, context: &Map<String, Value>) -> String {
        let text = |key: &str| context.get(key).and_then(Value::as_str).unwrap_or_default();
        let repository = match run.repository.split_once('/') {
            Some((owner, name)) if self.profile.has_context_ids() => {
                let [owner_id, id] = ["repository_owner_id", "repository_id"].map(text);
                format!("{owner}-{owner_id}/{name}-{id}")
            }
            _ => run.repository.clone(),
        };
        match run.origin.event.as_str() {
            "pull_request" => format!("repo:{repository}:pull_request"),
            _ => format!("repo:{repository}:ref:{}", text("ref")),
        }
    }

    /// The claims of a token that is one of ours and good now.
    pub(super) fn claims(&self, token: &str) -> Option<Value> {
        let now = seconds(self.clock.now());
        let is_good = |claims: &Value| {
            claims["exp"].as_u64().is_some_and(|at| now < at)
                && claims["nbf"].as_u64().is_some_and(|at| at <= now)
        };
        read_hs256(&self.secret, token).filter(is_good)
    }

    /// Who asks, by the token of a task or, as with old runners, by its job token.
    ///
    /// # Errors
    /// There is no token, nobody has it, or its task does not run.
    pub(super) fn bearer(&self, headers: &HeaderMap) -> Result<Bearer, Refusal> {
        let token = token(headers)?;
        if let Some(claims) = self.claims(token) {
            let id = claims["TaskID"].as_i64().unwrap_or_default();
            let bearer = self.running(id)?;
            let scope = format!("Actions.Results:{}:{}", bearer.run, bearer.job);
            let mut scopes = claims["scp"].as_str().unwrap_or_default().split(' ');
            let refusal = || Refusal::of(StatusCode::INTERNAL_SERVER_ERROR, "Error missing scp");
            return scopes.any(|other| other == scope).then_some(bearer).ok_or_else(refusal);
        }
        let mut tasks = self.tasks.values();
        let known = tasks.find(|task| task.hidden.iter().any(|hidden| hidden == token));
        let current = known.filter(|task| task.status == Status::Running && task.token == token);
        match current {
            Some(task) => Ok(Bearer { task: task.id, run: task.run, job: task.job }),
            None => Err(Refusal {
                // Of a task that ended, or that was fetched again.
                is_violation: known.is_none(),
                ..Refusal::of(StatusCode::INTERNAL_SERVER_ERROR, "Error runner api getting task")
            }),
        }
    }

    /// A task that runs.
    ///
    /// # Errors
    /// It does not run.
    pub(super) fn running(&self, task: i64) -> Result<Bearer, Refusal> {
        let unknown = || {
            Refusal::of(StatusCode::INTERNAL_SERVER_ERROR, "Error runner api getting task by ID")
        };
        let task = self.tasks.get(&task).ok_or_else(unknown)?;
        if task.status == Status::Running {
            Ok(Bearer { task: task.id, run: task.run, job: task.job })
        } else {
            Err(Refusal::innocent(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Error runner api getting task: task is not running",
            ))
        }
    }
}
