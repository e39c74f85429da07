//! The task message: context, secrets, variables and needs (forgejo-runner-protocol 5).

use std::collections::BTreeMap;

use forgejo_proto::protobuf::Struct;
use forgejo_proto::runner::{Task as Message, TaskNeed};
use serde_json::{Map, Value};

use super::state::{Job, Run, State, Task, owner_of};

/// What the runner fills in; the server sends nothing.
const EMPTY: [&str; 15] = [
    "triggering_actor",
    "graphql_url",
    "retention_days",
    "action",
    "action_path",
    "action_ref",
    "action_repository",
    "action_status",
    "event_path",
    "env",
    "path",
    "workspace",
    "job_name",
    "runner_perflog",
    "runner_tracking_id",
];

/// The keys of the context that all jobs of a run share.
pub(super) fn of_run(state: &State, run: &Run) -> Map<String, Value> {
    let origin = &run.origin;
    let owner = owner_of(&run.repository);
    let (name, kind) = short(&origin.reference);
    let directory = state.profile.workflow_directory();
    let url = &state.url;
    let workflow = format!("{}/{directory}/{}@{}", run.repository, run.file, origin.reference);
    let texts = [
        ("event_name", origin.event.clone()),
        ("ref", origin.reference.clone()),
        ("ref_name", name.to_owned()),
        ("ref_type", kind.to_owned()),
        ("sha", origin.sha.clone()),
        ("base_ref", origin.base.clone()),
        ("head_ref", origin.head.clone()),
        ("repository", run.repository.clone()),
        ("repository_owner", owner.to_owned()),
        ("repositoryUrl", format!("{url}/{}", run.repository)),
        ("actor", origin.actor.clone()),
        ("run_id", run.id.to_string()),
        ("run_number", run.number.to_string()),
        ("workflow", run.file.clone()),
        ("workflow_ref", workflow),
        ("server_url", format!("{url}/")),
        ("api_url", format!("{url}/api/v1")),
        ("secret_source", "Actions".to_owned()),
    ];
    let mut context: Map<String, Value> =
        texts.into_iter().map(|(key, text)| (key.to_owned(), Value::String(text))).collect();
    for key in EMPTY {
        context.insert(key.to_owned(), "".into());
    }
    context.insert("event".to_owned(), origin.payload.clone());
    context.insert("ref_protected".to_owned(), false.into());
    if state.profile.has_context_ids() {
        for (key, of) in [
            ("repository_id", run.repository.as_str()),
            ("repository_owner_id", owner),
            ("actor_id", &origin.actor),
        ] {
            context.insert(key.to_owned(), number(of).to_string().into());
        }
    }
    context
}

/// A reference without its prefix, and what it is.
fn short(reference: &str) -> (&str, &'static str) {
    if let Some(tag) = reference.strip_prefix("refs/tags/") {
        (tag, "tag")
    } else if let Some(branch) = reference.strip_prefix("refs/heads/") {
        (branch, "branch")
    } else {
        // A pull request's is `3/head`.
        (reference.strip_prefix("refs/pull/").unwrap_or(reference), "")
    }
}

/// An id for a name, the same each time.
pub(super) fn number(name: &str) -> u32 {
    name.bytes()
        .fold(1, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)) % 1_000_000)
}

impl State {
    /// Variables of a repository. The owner's win over the repository's (forgejo-runner-protocol 5.3).
    pub(super) fn variables(&self, repository: &str) -> BTreeMap<String, String> {
        self.merged(["", repository, owner_of(repository)], |settings| &settings.variables)
    }

    /// Secrets that a run gets besides the aliases of its token.
    pub(super) fn secrets(&self, run: &Run) -> BTreeMap<String, String> {
        if run.origin.fork && run.origin.event != "pull_request_target" {
            return BTreeMap::new();
        }
        self.merged([owner_of(&run.repository), run.repository.as_str()], |settings| {
            &settings.secrets
        })
    }

    /// The message for a task as it is now.
    pub(super) fn message(&self, task: &Task) -> Option<Message> {
        let job = self.jobs.get(&task.job)?;
        let run = self.runs.get(&task.run)?;
        let context = Value::Object(self.context(task, job, run));
        let context: Struct = serde_json::from_value(context).expect("an object is a Struct");
        let mut secrets = self.secrets(run);
        for alias in self.token_names() {
            secrets.insert((*alias).to_owned(), task.token.clone());
        }
        let needs = self.needs_of(job).unwrap_or_default().into_iter().map(|(key, status)| {
            let outputs = self.outputs_of(job.run, &key).into_iter().collect();
            let need = TaskNeed { outputs, result: status.result().into(), ..TaskNeed::default() };
            (key, need)
        });
        Some(Message {
            id: task.id,
            workflow_payload: Some(
                self.payload.clone().unwrap_or_else(|| job.payload.clone().into_bytes()),
            ),
            context: context.into(),
            secrets: secrets.into_iter().collect(),
            needs: needs.collect(),
            vars: self.variables(&run.repository).into_iter().collect(),
            ..Message::default()
        })
    }

    /// The names that the job token has among the secrets.
    fn token_names(&self) -> &'static [&'static str] {
        if self.profile.is_gitea() {
            &["GITHUB_TOKEN", "GITEA_TOKEN"]
        } else {
            &["GITHUB_TOKEN", "GITEA_TOKEN", "FORGEJO_TOKEN"]
        }
    }

    fn context(&self, task: &Task, job: &Job, run: &Run) -> Map<String, Value> {
        let mut context = of_run(self, run);
        let texts = [
            ("job", job.key.clone()),
            ("run_attempt", task.attempt.to_string()),
            ("token", task.token.clone()),
            ("gitea_runtime_token", task.runtime_token.clone()),
            ("gitea_default_actions_url", self.actions_url.clone()),
        ];
        for (key, text) in texts {
            context.insert(key.to_owned(), text.into());
        }
        if self.profile.has_server_version() {
            context.insert("forgejo_server_version".to_owned(), self.profile.version().into());
        }
        if self.gives_id_tokens(run) {
            let url = format!(
                "{}/api/actions/_apis/pipelines/workflows/{}/idtoken?placeholder=true",
                self.url, run.id
            );
            context.insert("forgejo_actions_id_token_request_url".to_owned(), url.into());
            context.insert(
                "forgejo_actions_id_token_request_token".to_owned(),
                task.runtime_token.clone().into(),
            );
        }
        context
    }
}
