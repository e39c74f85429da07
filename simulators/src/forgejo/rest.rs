//! The parts of the REST API that runners and their administrators use (forgejo-runner-protocol 3.2
//! and 4.5).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Shares;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use serde_json::{Value, json};

use super::context::number;
use super::fetch::matches;
use super::server::Shared;
use super::state::{Job, Runner, Scope, State, hexadecimal, owner_of};
use super::status::Status;
use crate::git::Repositories;

/// Whose token the tokens of tests are.
const USER: &str = "admin";

/// An answer that is no success.
struct Refusal(StatusCode, &'static str);

const NOT_FOUND: Refusal = Refusal(StatusCode::NOT_FOUND, "not found");

/// Answers everything below the server's path that is no call of the protocol.
pub(super) async fn answer(
    Shares(shared): Shares<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    if let Some(repository) = Repositories::asked_for(uri.path()) {
        let may_read = shared.lock().may_read(repository, password(&headers).as_deref());
        return if may_read {
            shared.git.answer((&method, &uri), &headers, &body).await
        } else {
            respond(StatusCode::UNAUTHORIZED, "text/plain", "log in".to_owned())
        };
    }
    let request = Ask { method, uri: &uri, token: token(&headers), body: &body };
    match shared.change(|state| request.answer(state)) {
        Ok((status, Value::Null)) => respond(status, "text/plain", String::new()),
        Ok((status, Value::String(text))) => respond(status, "text/plain; charset=utf-8", text),
        Ok((status, value)) => respond(status, "application/json", value.to_string()),
        Err(Refusal(status, message)) => {
            respond(status, "application/json", json!({"message": message}).to_string())
        }
    }
}

fn respond(status: StatusCode, kind: &str, text: String) -> Response<Body> {
    let response = Response::builder().status(status).header(CONTENT_TYPE, kind);
    response.body(Body::from(text)).expect("it is complete")
}

fn token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (kind, token) = value.split_once(' ')?;
    ["token", "bearer"].iter().any(|known| kind.eq_ignore_ascii_case(known)).then_some(token)
}

/// The password of a basic authentication, which git sends.
fn password(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (kind, encoded) = value.split_once(' ')?;
    let decoded =
        BASE64_STANDARD.decode(encoded).ok().filter(|_| kind.eq_ignore_ascii_case("basic"))?;
    String::from_utf8(decoded).ok()?.split_once(':').map(|(_, password)| password.to_owned())
}

struct Ask<'a> {
    method: Method,
    uri: &'a Uri,
    token: Option<&'a str>,
    body: &'a [u8],
}

type Answered = Result<(StatusCode, Value), Refusal>;

impl Ask<'_> {
    fn answer(&self, state: &mut State) -> Answered {
        let parts: Vec<_> = self.uri.path().split('/').filter(|part| !part.is_empty()).collect();
        let get = self.method == Method::GET;
        match parts.as_slice() {
            ["api", "v1", "version"] if get => ok(json!({"version": state.profile.version()})),
            ["api", "forgejo", "v1", "version"] if get && !state.profile.is_gitea() => {
                ok(json!({"version": state.profile.version()}))
            }
            ["api", "v1", "actions", "run"] if get => self.own_run(state),
            ["api", "v1", rest @ ..] => {
                if !self.token.is_some_and(|token| state.api_tokens.contains(token)) {
                    return Err(Refusal(StatusCode::UNAUTHORIZED, "token is required"));
                }
                match rest {
                    ["admin", "actions", rest @ ..] => self.actions(state, Scope::Global, rest),
                    ["orgs", owner, "actions", rest @ ..] => {
                        self.actions(state, Scope::Owner((*owner).to_owned()), rest)
                    }
                    ["user", "actions", rest @ ..] => {
                        self.actions(state, Scope::Owner(USER.to_owned()), rest)
                    }
                    ["repos", owner, name, "actions", rest @ ..] => {
                        self.actions(state, Scope::Repository(format!("{owner}/{name}")), rest)
                    }
                    _ => Err(NOT_FOUND),
                }
            }
            _ => Err(NOT_FOUND),
        }
    }

    fn actions(&self, state: &mut State, scope: Scope, parts: &[&str]) -> Answered {
        let rest_registration = state.profile.has_rest_registration();
        match (self.method.as_str(), parts) {
            ("GET", ["runners", "registration-token"]) => {
                let token = hexadecimal();
                state.registration_tokens.insert(token.clone(), scope);
                ok(json!({"token": token}))
            }
            ("GET", ["runners", "jobs"]) if state.profile.has_single_task() => {
                ok(self.queue(state, &scope))
            }
            ("POST", ["runners"]) if rest_registration => self.create(state, scope),
            ("GET", ["runners"]) if rest_registration => {
                let visible = self.uri.query().is_some_and(|query| query.contains("visible=true"));
                let runners = state.runners.values().filter(|runner| {
                    runner.scope == scope || visible && runner.scope.is_above(&scope)
                });
                ok(runners.map(|runner| describe(state, runner)).collect())
            }
            ("GET", ["runners", id]) if rest_registration => {
                let runner = find(state, &scope, id).ok_or(NOT_FOUND)?;
                ok(describe(state, runner))
            }
            ("DELETE", ["runners", id]) if rest_registration => {
                let id = find(state, &scope, id).ok_or(NOT_FOUND)?.id;
                state.runners.remove(&id);
                Ok((StatusCode::NO_CONTENT, Value::Null))
            }
            ("POST", ["runs", id, "cancel"]) => {
                let run =
                    id.parse().ok().filter(|id| state.runs.contains_key(id)).ok_or(NOT_FOUND)?;
                state.cancel(run);
                Ok((StatusCode::NO_CONTENT, Value::Null))
            }
            ("GET", ["jobs", id, "logs"]) => {
                let job =
                    id.parse().ok().and_then(|id: i64| state.jobs.get(&id)).ok_or(NOT_FOUND)?;
                let task = job.task.and_then(|task| state.tasks.get(&task)).ok_or(NOT_FOUND)?;
                let rows = task.log.rows.iter().map(|row| format!("{}\n", row.text));
                Ok((StatusCode::OK, Value::String(rows.collect())))
            }
            _ => Err(NOT_FOUND),
        }
    }

    fn create(&self, state: &mut State, scope: Scope) -> Answered {
        let body: Value = serde_json::from_slice(self.body)
            .map_err(|_| Refusal(StatusCode::UNPROCESSABLE_ENTITY, "the body is no JSON"))?;
        let name = body.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.ok_or(Refusal(StatusCode::UNPROCESSABLE_ENTITY, "[Name]: Required"))?;
        let ephemeral = body.get("ephemeral").and_then(Value::as_bool).unwrap_or(false);
        let id = state.add_runner(name, scope, ephemeral);
        let runner = state.runners.get(&id).ok_or(NOT_FOUND)?;
        let answer = json!({"id": runner.id, "uuid": runner.uuid, "token": runner.token});
        Ok((StatusCode::CREATED, answer))
    }

    /// Jobs that wait or run and that a runner with these labels could have (forgejo-runner-protocol 4.5).
    fn queue(&self, state: &State, scope: &Scope) -> Value {
        let labels = self.uri.query().unwrap_or_default().split('&');
        let labels =
            labels.filter_map(|pair| pair.strip_prefix("labels=")).next().unwrap_or_default();
        let labels = labels.replace("%2C", ",").replace("%2c", ",");
        let labels: Vec<_> =
            labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect();
        let fits = |job: &&Job| {
            matches!(job.status, Status::Waiting | Status::Running)
                && (labels.is_empty() || matches(&job.runs_on, &labels))
                && state.runs.get(&job.run).is_some_and(|run| scope.covers(&run.repository))
        };
        state.jobs.values().filter(fits).map(|job| entry(state, job)).collect()
    }

    /// The run of a job token (forgejo-runner-protocol 5.2).
    fn own_run(&self, state: &State) -> Answered {
        let task = self.token.and_then(|token| state.task_of_token(token));
        let task = task.ok_or(Refusal(StatusCode::UNAUTHORIZED, "no task runs with this token"))?;
        let run = state.runs.get(&task.run).ok_or(NOT_FOUND)?;
        ok(
            json!({"id": run.id, "index_in_repo": run.number, "workflow_id": run.file, "event": run.origin.event}),
        )
    }
}

fn ok(value: Value) -> Answered {
    Ok((StatusCode::OK, value))
}

fn find<'a>(state: &'a State, scope: &Scope, id: &str) -> Option<&'a Runner> {
    state.runners.get(&id.parse().ok()?).filter(|runner| runner.scope == *scope)
}

fn describe(state: &State, runner: &Runner) -> Value {
    let mut tasks = state.tasks.values();
    let status = if tasks.any(|task| task.runner == runner.id && task.status == Status::Running) {
        "active"
    } else if runner.last_online.is_some() {
        "idle"
    } else {
        "offline"
    };
    json!({
        "id": runner.id, "uuid": runner.uuid, "name": runner.name, "version": runner.version,
        "labels": runner.labels, "ephemeral": runner.ephemeral, "status": status,
    })
}

fn entry(state: &State, job: &Job) -> Value {
    let repository = state.runs.get(&job.run).map_or("", |run| run.repository.as_str());
    json!({
        "id": job.id, "run_id": job.run, "attempt": job.attempt, "handle": job.handle,
        "repo_id": number(repository), "owner_id": number(owner_of(repository)), "name": job.name,
        "needs": job.needs, "runs_on": job.runs_on, "task_id": job.task.unwrap_or(0),
        "status": job.status.name(),
    })
}

impl State {
    /// The task that runs with a job token.
    /// Whether the token of a running task, or nobody's, may read a repository: its own, and public
    /// ones (forgejo-runner-protocol 6.7).
    fn may_read(&self, repository: &str, token: Option<&str>) -> bool {
        let task = token.and_then(|token| self.task_of_token(token));
        let own = task.and_then(|task| self.runs.get(&task.run));
        self.public.contains(repository) || own.is_some_and(|run| run.repository == repository)
    }

    pub(super) fn task_of_token(&self, token: &str) -> Option<&super::state::Task> {
        let mut tasks = self.tasks.values();
        tasks.find(|task| {
            task.status == Status::Running && (task.token == token || task.runtime_token == token)
        })
    }
}
