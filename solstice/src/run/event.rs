//! The event that a local run pretends happened: its payload, and the `github` context.

use std::io::Read;
use std::path::Path;

use common::limits::JOB_REQUEST_BYTES;
use common::plan::Dialect;
use serde_json::{Map, Value as Json, json};

use super::discover::WorkflowFile;
use super::git::Facts;
use crate::exit::CommandError;

/// The payload may take this share of a JobRequest, which has the same limit for all it holds.
const PAYLOAD_BYTES: u64 = JOB_REQUEST_BYTES / 2;

/// The number of the pull request when no payload says one.
const PULL_REQUEST: u64 = 1;

/// The branch into which a pull request goes when no payload says one.
const BASE_BRANCH: &str = "main";

/// Reads a payload that the user gives.
///
/// # Errors
/// It cannot be read, is too large, or is not a JSON object; the text has line and column.
pub(crate) fn read_payload(path: &Path) -> Result<Map<String, Json>, CommandError> {
    let fail = |problem: String| CommandError::usage(format!("{}: {problem}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| fail(format!("cannot read: {error}")))?;
    let mut bytes = Vec::new();
    file.take(PAYLOAD_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fail(format!("cannot read: {error}")))?;
    if bytes.len() as u64 > PAYLOAD_BYTES {
        return Err(fail(format!("an event payload has at most {PAYLOAD_BYTES} bytes")));
    }
    match serde_json::from_slice(&bytes).map_err(|error| fail(format!("not JSON: {error}")))? {
        Json::Object(payload) => Ok(payload),
        _ => Err(fail("an event payload is a JSON object".to_owned())),
    }
}

/// A payload with the parts of the forge's own that workflows read most.
pub(crate) fn default_payload(
    event: &str,
    facts: &Facts,
    inputs: &Map<String, Json>,
) -> Map<String, Json> {
    let (owner, name) = facts.repository.split_once('/').unwrap_or(("local", &facts.repository));
    let mut payload = Map::new();
    payload.insert(
        "repository".to_owned(),
        json!({
            "name": name,
            "full_name": facts.repository,
            "owner": { "login": owner, "name": owner },
            "default_branch": BASE_BRANCH,
            "private": true,
        }),
    );
    payload.insert("sender".to_owned(), json!({ "login": facts.actor }));
    let (short, _) = facts.short_reference();
    match event {
        "push" => {
            payload.insert("ref".to_owned(), json!(facts.reference));
            payload.insert("before".to_owned(), json!("0".repeat(40)));
            payload.insert("after".to_owned(), json!(facts.sha));
            payload.insert("head_commit".to_owned(), json!({ "id": facts.sha }));
            payload.insert("commits".to_owned(), json!([]));
        }
        "pull_request" | "pull_request_target" => {
            payload.insert("action".to_owned(), json!("opened"));
            payload.insert("number".to_owned(), json!(PULL_REQUEST));
            payload.insert(
                "pull_request".to_owned(),
                json!({
                    "number": PULL_REQUEST,
                    "head": { "ref": short, "sha": facts.sha },
                    "base": { "ref": BASE_BRANCH },
                    "draft": false,
                }),
            );
        }
        "workflow_dispatch" => {
            payload.insert("ref".to_owned(), json!(facts.reference));
            payload.insert("inputs".to_owned(), Json::Object(inputs.clone()));
        }
        "release" => {
            payload.insert("action".to_owned(), json!("published"));
            payload.insert("release".to_owned(), json!({ "tag_name": short }));
        }
        _ => {}
    }
    payload
}

/// What the `github` context is made from.
pub(crate) struct GithubContext<'a> {
    /// The event's name.
    pub(crate) event: &'a str,
    /// The event's payload.
    pub(crate) payload: Map<String, Json>,
    /// What git knows.
    pub(crate) facts: &'a Facts,
    /// The workflow file.
    pub(crate) file: &'a WorkflowFile,
    /// The workflow's `name`.
    pub(crate) workflow: Option<&'a str>,
    /// Whose rules apply.
    pub(crate) dialect: Dialect,
    /// The forge's token, if the user gave one.
    pub(crate) token: &'a str,
    /// A number for this run that earlier runs did not have.
    pub(crate) run_id: u64,
}

impl GithubContext<'_> {
    /// The context, without what the guest adds (github-runner-protocol 5.4).
    pub(crate) fn build(self) -> Map<String, Json> {
        let facts = self.facts;
        let (short, kind) = facts.short_reference();
        let pull = self.payload.get("pull_request").filter(|_| self.event.starts_with("pull_"));
        let branch = |side: &str| {
            let name = pull.and_then(|pull| pull.get(side)?.get("ref")?.as_str());
            json!(name.unwrap_or_default())
        };
        let (base, head) = (branch("base"), branch("head"));
        let (reference, short) = match pull.and_then(|pull| pull.get("number")?.as_u64()) {
            // pull_request_target runs on the base branch.
            Some(_) if self.event == "pull_request_target" => {
                let base = base.as_str().unwrap_or(BASE_BRANCH);
                (format!("refs/heads/{base}"), base.to_owned())
            }
            Some(number) => (format!("refs/pull/{number}/merge"), format!("{number}/merge")),
            None => (facts.reference.clone(), short.to_owned()),
        };
        let owner = facts.repository.split('/').next().unwrap_or_default();
        // Only the forge knows ids: they are those of its payload, or none.
        let id = |object: Option<&Json>| {
            let id = object.and_then(|object| object.get("id")?.as_u64());
            id.unwrap_or(0).to_string()
        };
        let repository = self.payload.get("repository");
        let (server, api, graphql) = self.addresses();
        let Json::Object(mut context) = json!({
            "event_name": self.event,
            "sha": facts.sha,
            "ref": reference,
            "ref_name": short,
            "ref_type": kind,
            "ref_protected": false,
            "base_ref": base,
            "head_ref": head,
            "repository": facts.repository,
            "repository_id": id(repository),
            "repository_owner": owner,
            "repository_owner_id": id(repository.and_then(|repository| repository.get("owner"))),
            "repositoryUrl": format!("{server}/{}", facts.repository),
            "actor": facts.actor,
            "actor_id": id(self.payload.get("sender")),
            "triggering_actor": facts.actor,
            "workflow": self.workflow.unwrap_or(&self.file.in_project),
            "workflow_ref": format!("{}/{}@{reference}", facts.repository, self.file.in_project),
            "workflow_sha": facts.sha,
            "run_id": self.run_id.to_string(),
            "run_number": "1",
            "run_attempt": "1",
            "retention_days": "0",
            "secret_source": "None",
            "server_url": server,
            "api_url": api,
            "graphql_url": graphql,
            "token": self.token,
        }) else {
            unreachable!("the macro was given an object")
        };
        context.insert("event".to_owned(), Json::Object(self.payload));
        context
    }

    /// The forge's address, and those of its interfaces.
    fn addresses(&self) -> (String, String, String) {
        let known = self.facts.server.clone();
        match self.dialect {
            Dialect::Github => match known {
                // An enterprise server has its interfaces below its own address.
                Some(server) if server != "https://github.com" => {
                    let api = format!("{server}/api/v3");
                    let graphql = format!("{server}/api/graphql");
                    (server, api, graphql)
                }
                _ => (
                    "https://github.com".to_owned(),
                    "https://api.github.com".to_owned(),
                    "https://api.github.com/graphql".to_owned(),
                ),
            },
            Dialect::Forgejo | Dialect::Gitea => {
                let server = known.unwrap_or_else(|| "https://localhost".to_owned());
                let api = format!("{server}/api/v1");
                (server, api, String::new())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn context(event: &str, dialect: Dialect) -> Json {
        context_of(event, dialect, &Map::new())
    }

    /// The context where the payload has these keys as well.
    fn context_of(event: &str, dialect: Dialect, more: &Map<String, Json>) -> Json {
        let facts = Facts {
            sha: "a".repeat(40),
            reference: "refs/heads/topic/x".to_owned(),
            repository: "team/widget".to_owned(),
            server: Some("https://forge.example.org".to_owned()),
            actor: "alex".to_owned(),
        };
        let file = WorkflowFile {
            shown: "ci.yml".to_owned(),
            in_project: ".github/workflows/ci.yml".to_owned(),
            project: PathBuf::from("/p"),
            dialect,
            text: String::new(),
        };
        let mut payload = default_payload(event, &facts, &Map::new());
        payload.extend(more.clone());
        let context = GithubContext {
            event,
            payload,
            facts: &facts,
            file: &file,
            workflow: None,
            dialect,
            token: "",
            run_id: 7,
        };
        Json::Object(context.build())
    }

    #[test]
    fn a_push() {
        let github = context("push", Dialect::Forgejo);
        assert_eq!(github["ref_name"], "topic/x");
        assert_eq!(github["repository_owner"], "team");
        assert_eq!(github["event"]["after"], github["sha"]);
        assert_eq!(github["event"]["repository"]["name"], "widget");
        assert_eq!(github["workflow"], ".github/workflows/ci.yml");
        assert_eq!(
            github["workflow_ref"],
            "team/widget/.github/workflows/ci.yml@refs/heads/topic/x"
        );
        assert_eq!(github["run_id"], "7");
        assert_eq!(github["api_url"], "https://forge.example.org/api/v1");
        assert_eq!(github["head_ref"], "");
    }

    #[test]
    fn ids_are_those_of_the_payload() {
        let ids = |github: &Json| {
            ["actor_id", "repository_id", "repository_owner_id"].map(|key| github[key].clone())
        };
        assert_eq!(ids(&context("push", Dialect::Github)), ["0", "0", "0"]);
        let Json::Object(payload) = json!({
            "sender": { "id": 1 },
            "repository": { "id": 2, "owner": { "id": 3 } },
        }) else {
            unreachable!("the macro was given an object")
        };
        let github = context_of("push", Dialect::Github, &payload);
        assert_eq!(ids(&github), ["1", "2", "3"]);
    }

    #[test]
    fn a_pull_request() {
        let github = context("pull_request", Dialect::Github);
        assert_eq!(github["ref"], "refs/pull/1/merge");
        assert_eq!(github["ref_name"], "1/merge");
        assert_eq!((&github["head_ref"], &github["base_ref"]), (&json!("topic/x"), &json!("main")));
        assert_eq!(github["event"]["action"], "opened");
        assert_eq!(context("pull_request_target", Dialect::Github)["ref"], "refs/heads/main");
        assert_eq!(github["api_url"], "https://forge.example.org/api/v3");
    }

    #[test]
    fn a_payload_that_is_no_object_is_refused_with_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("event.json");
        let check = |text: &str, message: &str| {
            std::fs::write(&path, text).unwrap();
            let error = read_payload(&path).unwrap_err().to_string();
            assert_eq!(error.rsplit_once("event.json: ").unwrap().1, message);
        };
        check("[1]", "an event payload is a JSON object");
        check("{\n x", "not JSON: key must be a string at line 2 column 2");
        std::fs::write(&path, r#"{"action": "closed"}"#).unwrap();
        assert_eq!(read_payload(&path).unwrap()["action"], "closed");
    }
}
