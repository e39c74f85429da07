//! The contexts of a task (forgejo-runner-protocol 5).

use std::collections::BTreeMap;

use common::call::{ARTIFACT_CALLS, ARTIFACT_SERVICE, ID_SERVICE, OLDER_ARTIFACT_CALLS};
use common::event::JobResult;
use common::plan::Dialect;
use common::request::{Secret, Service};
use forgejo_proto::protobuf::{Struct, Value, value};
use forgejo_proto::runner::{Task, TaskResult};
use serde_json::{Map, Number, Value as Json, json};

use super::Origin;
use crate::client::Kind;

/// The beginnings of the names of what the server tells the runner and not the job
/// (forgejo-runner-protocol 5.1).
const PREFIXES: [&str; 2] = ["forgejo_", "gitea_"];

/// The secret under which the job's services have their token.
const RUNTIME_TOKEN: &str = "ACTIONS_RUNTIME_TOKEN";
/// The secret under which OIDC has its token.
const ID_TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";

/// What a task's context says.
#[derive(Clone, Debug)]
pub(super) struct TaskContext {
    /// `github`, without what is for the runner.
    pub(super) github: Map<String, Json>,
    pub(super) dialect: Dialect,
    pub(super) repository: String,
    pub(super) event_name: String,
    /// `inputs` of the event.
    pub(super) event_inputs: Map<String, Json>,
    /// The workflow's file, for messages.
    pub(super) file: String,
    pub(super) server_version: Option<String>,
    /// Where actions are that name no host (forgejo-runner-protocol 8.7).
    pub(super) actions_url: Option<String>,
    /// Tokens that are no secret of the job.
    pub(super) tokens: Vec<String>,
    runtime_token: Option<String>,
    id_token: Option<(String, String)>,
}

impl TaskContext {
    pub(super) fn of(task: &Task, origin: &Origin<'_>) -> Self {
        let mut github = task.context.as_option().map(object).unwrap_or_default();
        let server_version = for_runner(&mut github, "server_version");
        let actions_url = for_runner(&mut github, "default_actions_url");
        let dialect = match origin.kind {
            Some(Kind::Gitea) => Dialect::Gitea,
            Some(Kind::Forgejo) | None => Dialect::Forgejo,
        };
        let runtime_token = for_runner(&mut github, "runtime_token");
        let id_token = for_runner(&mut github, "actions_id_token_request_token")
            .zip(for_runner(&mut github, "actions_id_token_request_url"));
        // The runner's own address of the server, which may differ from the public one
        // (forgejo-runner-protocol 8.2).
        github.insert("server_url".to_owned(), origin.url.into());
        github.insert("api_url".to_owned(), format!("{}/api/v1", origin.url).into());
        let text =
            |key: &str| github.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
        let event_inputs = match github.get("event").and_then(|event| event.get("inputs")) {
            Some(Json::Object(inputs)) => inputs.clone(),
            _ => Map::new(),
        };
        let file = Some(text("workflow")).filter(|file| !file.is_empty());
        let (repository, event_name) = (text("repository"), text("event_name"));
        let tokens = runtime_token.iter().chain(id_token.iter().map(|(token, _)| token)).cloned();
        Self {
            dialect,
            repository,
            event_name,
            event_inputs,
            file: file.unwrap_or_else(|| "workflow".to_owned()),
            server_version,
            actions_url,
            tokens: tokens.filter(|token| !token.is_empty()).collect(),
            runtime_token,
            id_token,
            github,
        }
    }

    /// What the job may reach through the host, and the secrets with the tokens for it
    /// (forgejo-runner-protocol 8.9 and 8.10).
    pub(super) fn services(
        &self,
        url: &str,
        mut secrets: BTreeMap<String, Secret>,
    ) -> (Vec<Service>, BTreeMap<String, Secret>) {
        let mut services = Vec::new();
        let mut service = |name: &str, base_url: &str, token: Option<&str>, paths: &[&str]| {
            services.push(Service {
                name: name.to_owned(),
                base_url: base_url.to_owned(),
                token: token.map(str::to_owned),
                paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            });
        };
        let job_token = self.github.get("token").and_then(Json::as_str).unwrap_or_default();
        let token = self.runtime_token.as_deref().unwrap_or(job_token);
        if !token.is_empty() {
            secrets.insert(RUNTIME_TOKEN.to_owned(), Secret::new(token));
            let calls = [OLDER_ARTIFACT_CALLS, ARTIFACT_CALLS];
            service(ARTIFACT_SERVICE, url, Some(RUNTIME_TOKEN), &calls);
        }
        if let Some((token, request)) = &self.id_token {
            // The server gives the whole address; what is forwarded is a path of the instance.
            let path = request.split_once("/api/").map(|(_, path)| format!("/api/{path}"));
            let path = path.as_deref().and_then(|path| path.split('?').next());
            if let Some(path) = path {
                secrets.insert(ID_TOKEN.to_owned(), Secret::new(token.clone()));
                service(ID_SERVICE, url, Some(ID_TOKEN), &[path]);
            }
        }
        (services, secrets)
    }
}

/// Takes a key for the runner out of the context, under either of its names.
fn for_runner(github: &mut Map<String, Json>, key: &str) -> Option<String> {
    let found = PREFIXES.map(|prefix| github.remove(&format!("{prefix}{key}")));
    let texts = found.into_iter().flatten().filter_map(|value| value.as_str().map(str::to_owned));
    texts.into_iter().find(|text| !text.is_empty())
}

/// The result and the outputs of a job before this one.
#[derive(Clone, Debug)]
pub(super) struct Need {
    pub(super) result: JobResult,
    pub(super) context: Json,
}

/// `needs`, by the keys of the jobs.
pub(super) fn needs(task: &Task) -> BTreeMap<String, Need> {
    let need = |need: &forgejo_proto::runner::TaskNeed| {
        let result = match need.result.as_known() {
            Some(TaskResult::RESULT_SUCCESS) => JobResult::Success,
            Some(TaskResult::RESULT_CANCELLED) => JobResult::Cancelled,
            Some(TaskResult::RESULT_SKIPPED) => JobResult::Skipped,
            Some(TaskResult::RESULT_FAILURE | TaskResult::RESULT_UNSPECIFIED) | None => {
                JobResult::Failure
            }
        };
        let outputs: BTreeMap<_, _> = need.outputs.iter().collect();
        Need { result, context: json!({ "result": result.name(), "outputs": outputs }) }
    };
    task.needs.iter().map(|(key, found)| (key.clone(), need(found))).collect()
}

/// `vars`, in the order of their names.
pub(super) fn vars(task: &Task) -> Map<String, Json> {
    let sorted: BTreeMap<_, _> = task.vars.iter().collect();
    sorted.into_iter().map(|(name, value)| (name.clone(), value.clone().into())).collect()
}

/// A protobuf structure as JSON, in the order of its names: on the wire it has none.
fn object(fields: &Struct) -> Map<String, Json> {
    let sorted: BTreeMap<_, _> = fields.fields.iter().collect();
    sorted.into_iter().map(|(name, value)| (name.clone(), plain(value))).collect()
}

fn plain(value: &Value) -> Json {
    match &value.kind {
        None | Some(value::Kind::NullValue(_)) => Json::Null,
        Some(value::Kind::NumberValue(number)) => self::number(*number),
        Some(value::Kind::StringValue(text)) => text.clone().into(),
        Some(value::Kind::BoolValue(value)) => (*value).into(),
        Some(value::Kind::StructValue(fields)) => Json::Object(object(fields)),
        Some(value::Kind::ListValue(list)) => list.values.iter().map(plain).collect(),
    }
}

/// All numbers of a structure are floating; whole ones are shown as such.
fn number(number: f64) -> Json {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and within the bounds")]
        return Json::from(number as i64);
    }
    Number::from_f64(number).map_or(Json::Null, Json::Number)
}
