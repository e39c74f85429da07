//! Which caches a job may read and write.
//!
//! GitHub keeps a cache per branch: a job reads those of its own ref, of the branch that a pull request
//! goes to, and of the default branch, and writes to its own ref alone. Forgejo keeps one per
//! repository, but a pull request writes to a place of its own, which nobody else reads, so that it
//! cannot poison the others (forgejo-runner-protocol 8.8).

use common::plan::Dialect;
use common::request::{Forge, JobRequest};
use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};

/// Which caches a job may read and write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// The directory of its repository.
    pub(super) directory: String,
    /// What that is, for people.
    pub(super) about: String,
    /// Where it writes.
    pub(super) write: String,
    /// Where it reads, the first first.
    pub(super) read: Vec<String>,
    /// Whether `A` and `a` are one key (forgejo-runner-protocol 8.8).
    pub(super) folds_case: bool,
}

impl Scope {
    pub(crate) fn of(request: &JobRequest) -> Self {
        let github = &request.body.contexts.github;
        let text = |name: &str| github.get(name).and_then(Json::as_str).unwrap_or_default();
        let forge = match request.envelope.forge {
            Forge::Local => "local",
            Forge::Github | Forge::Forgejo | Forge::Gitea => text("server_url"),
        };
        let repository = match text("repository") {
            "" => &request.envelope.repository,
            repository => repository,
        };
        let about = format!("{forge} {repository}").to_ascii_lowercase();
        let (write, read, folds_case) = match request.body.plan.dialect {
            Dialect::Github => {
                let (write, read) = by_branch(github, text("ref"), text("base_ref"));
                (write, read, false)
            }
            Dialect::Forgejo | Dialect::Gitea => {
                let write = own_place(github, text("event_name"), text("ref"));
                let mut read = vec![write.clone(), String::new()];
                read.dedup();
                (write, read, true)
            }
        };
        let directory = hex::encode(&Sha256::digest(about.as_bytes())[..16]);
        Self { directory, about, write, read, folds_case }
    }

    /// A key as it is kept.
    pub(super) fn key(&self, key: &str) -> String {
        if self.folds_case { key.to_lowercase() } else { key.to_owned() }
    }
}

fn by_branch(github: &Map<String, Json>, own: &str, base: &str) -> (String, Vec<String>) {
    let default = github.get("event").and_then(|event| event.pointer("/repository/default_branch"));
    let default = default.and_then(Json::as_str).unwrap_or_default();
    let mut read = vec![own.to_owned()];
    for branch in [base, default] {
        let branch = format!("refs/heads/{branch}");
        if branch != "refs/heads/" && !read.contains(&branch) {
            read.push(branch);
        }
    }
    (own.to_owned(), read)
}

/// The ref of a pull request that was not merged; nothing for all else.
fn own_place(github: &Map<String, Json>, event_name: &str, reference: &str) -> String {
    if event_name != "pull_request" {
        return String::new();
    }
    let event = github.get("event");
    let is =
        |path: &str, expected: Json| event.and_then(|event| event.pointer(path)) == Some(&expected);
    let is_merged =
        is("/action", Json::from("closed")) && is("/pull_request/merged", Json::from(true));
    if is_merged { String::new() } else { reference.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scope(dialect: Dialect, github: Json) -> Scope {
        let mut request = simulators::jobs::job("tiny", &["true"]);
        request.body.plan.dialect = dialect;
        let Json::Object(github) = github else { panic!("an object") };
        request.body.contexts.github = github;
        Scope::of(&request)
    }

    #[test]
    fn github_keeps_a_cache_per_branch() {
        let own = scope(
            Dialect::Github,
            json!({ "ref": "refs/pull/7/merge", "base_ref": "next",
                    "event": { "repository": { "default_branch": "main" } } }),
        );
        assert_eq!(own.write, "refs/pull/7/merge");
        assert_eq!(own.read, ["refs/pull/7/merge", "refs/heads/next", "refs/heads/main"]);
        let main = scope(
            Dialect::Github,
            json!({ "ref": "refs/heads/main", "base_ref": "",
                    "event": { "repository": { "default_branch": "main" } } }),
        );
        assert_eq!(main.read, ["refs/heads/main"]);
        assert_eq!(main.key("A"), "A");
    }

    #[test]
    fn forgejo_keeps_one_per_repository_but_for_pull_requests() {
        let pull = |event: Json| {
            scope(
                Dialect::Forgejo,
                json!({ "ref": "refs/pull/7/head", "event_name": "pull_request", "event": event }),
            )
        };
        let open = pull(json!({ "action": "opened" }));
        assert_eq!(open.write, "refs/pull/7/head");
        assert_eq!(open.read, ["refs/pull/7/head", ""]);
        let closed = pull(json!({ "action": "closed", "pull_request": { "merged": false } }));
        assert_eq!(closed.write, "refs/pull/7/head");
        let merged = pull(json!({ "action": "closed", "pull_request": { "merged": true } }));
        assert_eq!((merged.write.as_str(), merged.read.len()), ("", 1));
        let push = scope(Dialect::Forgejo, json!({ "ref": "refs/heads/x", "event_name": "push" }));
        assert_eq!((push.write.as_str(), push.read.len()), ("", 1));
        assert_eq!(push.key("Ab"), "ab");
    }

    #[test]
    fn repositories_and_forges_are_kept_apart() {
        let directory = |server: &str, repository: &str, forge| {
            let mut request = simulators::jobs::job("tiny", &["true"]);
            request.envelope.forge = forge;
            let github = &mut request.body.contexts.github;
            github.insert("server_url".to_owned(), server.into());
            github.insert("repository".to_owned(), repository.into());
            Scope::of(&request).directory
        };
        let forgejo = Forge::Forgejo;
        let own = directory("https://a.example", "o/r", forgejo);
        assert_eq!(own, directory("https://a.example", "O/R", forgejo));
        assert_ne!(own, directory("https://b.example", "o/r", forgejo));
        assert_ne!(own, directory("https://a.example", "o/s", forgejo));
        assert_ne!(own, directory("https://a.example", "o/r", Forge::Local));
    }
}
