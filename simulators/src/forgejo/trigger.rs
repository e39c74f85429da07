//! What starts runs.

use std::fmt;

use serde_json::{Value, json};

use super::context::number;
use super::server::Shared;
use super::state::{Origin, Run, State, hexadecimal, owner_of};
use super::workflow::Workflow;

/// A run of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub(super) i64);

impl RunId {
    /// The number that the context has as `run_id`.
    #[must_use]
    pub fn number(self) -> i64 {
        self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// An event that is about to start a workflow: [`Forge::trigger`](super::Forge::trigger). That the
/// workflow's `on` would want it is taken for granted.
#[derive(Debug)]
#[must_use = "nothing starts before `push`"]
pub struct Trigger<'a> {
    shared: &'a Shared,
    repository: String,
    file: String,
    yaml: String,
    event: String,
    fork: bool,
    reference: Option<String>,
    base: String,
    head: String,
    sha: String,
    actor: String,
    payload: Option<Value>,
    inputs: Vec<(String, String)>,
    secrets: Vec<(String, String)>,
    variables: Vec<(String, String)>,
    priority: i64,
}

impl<'a> Trigger<'a> {
    pub(super) fn new(shared: &'a Shared, repository: &str, file: &str, yaml: &str) -> Self {
        Self {
            shared,
            repository: repository.to_owned(),
            file: file.to_owned(),
            yaml: yaml.to_owned(),
            event: "push".to_owned(),
            fork: false,
            reference: None,
            base: "main".to_owned(),
            head: "topic".to_owned(),
            sha: hexadecimal(),
            actor: "alice".to_owned(),
            payload: None,
            inputs: Vec::new(),
            secrets: Vec::new(),
            variables: Vec::new(),
            priority: 0,
        }
    }

    /// The kind of event, which is a push if nothing else is said.
    pub fn event(mut self, event: &str) -> Self {
        event.clone_into(&mut self.event);
        self
    }

    /// A pull request that comes from a fork: it sees no secrets.
    pub fn fork(mut self, fork: bool) -> Self {
        self.fork = fork;
        self
    }

    /// The full reference, such as `refs/tags/v1`.
    pub fn reference(mut self, reference: &str) -> Self {
        self.reference = Some(reference.to_owned());
        self
    }

    /// The branches of a pull request: where it goes to and where it comes from.
    pub fn branches(mut self, base: &str, head: &str) -> Self {
        base.clone_into(&mut self.base);
        head.clone_into(&mut self.head);
        self
    }

    /// The commit, which is a random one if nothing else is said.
    pub fn sha(mut self, sha: &str) -> Self {
        sha.clone_into(&mut self.sha);
        self
    }

    /// Who did it.
    pub fn actor(mut self, actor: &str) -> Self {
        actor.clone_into(&mut self.actor);
        self
    }

    /// The event's payload instead of the one that is made up.
    pub fn payload(mut self, payload: Value) -> Self {
        self.payload = Some(payload);
        self
    }

    /// An input of a dispatch.
    pub fn input(mut self, name: &str, value: &str) -> Self {
        self.inputs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A secret of the repository, from now on.
    pub fn secret(mut self, name: &str, value: &str) -> Self {
        self.secrets.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A variable of the repository, from now on.
    pub fn var(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs with a higher priority go first.
    pub fn priority(mut self, priority: i64) -> Self {
        self.priority = priority;
        self
    }

    /// Starts the run.
    ///
    /// # Panics
    /// The file is no workflow, or has something that the simulator does not play.
    pub fn push(self) -> RunId {
        let workflow = Workflow::parse(&self.yaml);
        let workflow = workflow.unwrap_or_else(|error| panic!("{}: {error}", self.file));
        let file = self.file.clone();
        let shared = self.shared;
        let started = shared.change(|state| self.start(state, workflow));
        started.unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    fn start(self, state: &mut State, workflow: Workflow) -> Result<RunId, String> {
        let settings = state.settings.entry(self.repository.clone()).or_default();
        settings
            .secrets
            .extend(self.secrets.iter().map(|(name, value)| (name.to_uppercase(), value.clone())));
        settings.variables.extend(
            self.variables.iter().map(|(name, value)| (name.to_uppercase(), value.clone())),
        );
        let number =
            state.runs.values().filter(|run| run.repository == self.repository).count() + 1;
        let number = i64::try_from(number).map_err(|error| error.to_string())?;
        let inputs = workflow.inputs(&self.inputs);
        let origin = self.origin(state, inputs);
        let id = state.new_id();
        let mut run = Run {
            id,
            number,
            repository: self.repository,
            file: self.file,
            workflow,
            origin,
            concurrency: None,
            priority: self.priority,
            attempt: 1,
        };
        let concurrency = run.workflow.concurrency(&state.expressions(&run));
        run.concurrency =
            concurrency.map_err(|unknown| format!("`{}` is not simulated", unknown.0))?;
        state.start(run)?;
        Ok(RunId(id))
    }

    fn origin(&self, state: &State, inputs: Value) -> Origin {
        let is_pull = self.event.starts_with("pull_request");
        let pull_number = 3;
        let default = match self.event.as_str() {
            "pull_request_target" => format!("refs/heads/{}", self.base),
            _ if is_pull => format!("refs/pull/{pull_number}/head"),
            _ => "refs/heads/main".to_owned(),
        };
        let reference = self.reference.clone().unwrap_or(default);
        let payload = self.payload.clone().unwrap_or_else(|| {
            let mut payload = json!({
                "repository": self.repository_payload(state),
                "sender": {"login": self.actor, "id": number(&self.actor)},
            });
            match self.event.as_str() {
                "push" => {
                    payload["ref"] = reference.clone().into();
                    payload["before"] = "0".repeat(40).into();
                    payload["after"] = self.sha.clone().into();
                    payload["commits"] = json!([{"id": self.sha, "message": "a change"}]);
                }
                "workflow_dispatch" => {
                    payload["ref"] = reference.clone().into();
                    payload["inputs"] = inputs.clone();
                    payload["workflow"] = self.file.clone().into();
                }
                _ if is_pull => {
                    payload["action"] = "opened".into();
                    payload["number"] = pull_number.into();
                    payload["pull_request"] = self.pull_payload(state, pull_number);
                }
                _ => {}
            }
            payload
        });
        let branch = |name: &str| if is_pull { name.to_owned() } else { String::new() };
        Origin {
            event: self.event.clone(),
            payload,
            reference,
            sha: self.sha.clone(),
            base: branch(&self.base),
            head: branch(&self.head),
            actor: self.actor.clone(),
            fork: is_pull && self.fork,
            inputs,
        }
    }

    fn repository_payload(&self, state: &State) -> Value {
        let owner = owner_of(&self.repository);
        json!({
            "id": number(&self.repository),
            "full_name": self.repository,
            "name": self.repository.split_once('/').map_or("", |(_, name)| name),
            "owner": {"login": owner, "id": number(owner)},
            "html_url": format!("{}/{}", state.url, self.repository),
            "clone_url": format!("{}/{}.git", state.url, self.repository),
            "default_branch": "main",
        })
    }

    fn pull_payload(&self, state: &State, pull_number: i64) -> Value {
        let base = self.repository_payload(state);
        let mut head = base.clone();
        if self.fork {
            head["full_name"] = format!("{}/fork", self.actor).into();
            head["fork"] = true.into();
        }
        json!({
            "number": pull_number,
            "state": "open",
            "user": {"login": self.actor},
            "base": {"ref": self.base, "sha": hexadecimal(), "repo": base},
            "head": {"ref": self.head, "sha": self.sha, "repo": head},
        })
    }
}
