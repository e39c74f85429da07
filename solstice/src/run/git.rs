//! What git knows about the working tree.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// How long one question to git may take; a repository on a dead network disk must not hang a run.
const GIT_DEADLINE: Duration = Duration::from_secs(10);

/// The commit where there is none, as git writes it.
const NO_COMMIT: &str = "0000000000000000000000000000000000000000";

/// The branch where git knows none.
const NO_BRANCH: &str = "refs/heads/main";

/// Facts for the `github` context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The commit that is checked out.
    pub(crate) sha: String,
    /// The full name of the branch or tag.
    pub(crate) reference: String,
    /// `owner/name`.
    pub(crate) repository: String,
    /// `https://host` of the remote, where it has one.
    pub(crate) server: Option<String>,
    /// Who works here.
    pub(crate) actor: String,
}

impl Facts {
    /// The short name of the branch or tag, and which of them it is.
    pub(crate) fn short_reference(&self) -> (&str, &'static str) {
        match self.reference.strip_prefix("refs/tags/") {
            Some(tag) => (tag, "tag"),
            None => {
                (self.reference.strip_prefix("refs/heads/").unwrap_or(&self.reference), "branch")
            }
        }
    }
}

/// The top of the repository around a directory; `None` outside one or without git.
pub(crate) async fn repository(directory: &Path) -> Option<PathBuf> {
    git(directory, &["rev-parse", "--show-toplevel"]).await.map(PathBuf::from)
}

/// Asks git; what it does not know gets a value that workflows can live with.
pub(crate) async fn facts(project: &Path, user: Option<String>) -> Facts {
    let (sha, branch, tag, remote, name) = tokio::join!(
        git(project, &["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]),
        git(project, &["symbolic-ref", "--quiet", "HEAD"]),
        git(project, &["describe", "--exact-match", "--tags", "HEAD"]),
        remote(project),
        git(project, &["config", "--get", "user.name"]),
    );
    let tag = tag.map(|tag| format!("refs/tags/{tag}"));
    let (server, repository) = remote.as_deref().map_or((None, None), split_remote);
    Facts {
        sha: sha.unwrap_or_else(|| NO_COMMIT.to_owned()),
        reference: branch.or(tag).unwrap_or_else(|| NO_BRANCH.to_owned()),
        repository: repository.unwrap_or_else(|| local_name(project)),
        server,
        actor: name.or(user).unwrap_or_else(|| "local".to_owned()),
    }
}

async fn remote(project: &Path) -> Option<String> {
    if let Some(url) = git(project, &["config", "--get", "remote.origin.url"]).await {
        return Some(url);
    }
    let all = git(project, &["config", "--get-regexp", r"^remote\..*\.url$"]).await?;
    all.lines().next()?.split_once(' ').map(|(_, url)| url.to_owned())
}

/// `https://host` and `owner/name` of a remote's URL. User names and tokens in it are dropped.
fn split_remote(url: &str) -> (Option<String>, Option<String>) {
    let (host, path) = if let Some((scheme, rest)) = url.split_once("://") {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = authority.rsplit('@').next().unwrap_or_default();
        match scheme {
            "http" | "https" => (Some(format!("{scheme}://{host}")), path),
            // A port of SSH says nothing about the web server.
            "ssh" | "git" => (Some(https(host.split(':').next().unwrap_or_default())), path),
            _ => (None, ""),
        }
    } else if let Some((authority, path)) = url.split_once(':')
        && !authority.contains('/')
    {
        (Some(https(authority.rsplit('@').next().unwrap_or_default())), path)
    } else {
        (None, "")
    };
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let mut parts = path.rsplit('/').filter(|part| !part.is_empty());
    let repository = match (parts.next(), parts.next()) {
        (Some(name), Some(owner)) => Some(format!("{owner}/{name}")),
        _ => None,
    };
    (host.filter(|_| repository.is_some()), repository)
}

fn https(host: &str) -> String {
    format!("https://{host}")
}

fn local_name(project: &Path) -> String {
    let name = project.file_name().and_then(|name| name.to_str()).unwrap_or("project");
    format!("local/{name}")
}

/// One line or more of git's answer; `None` if it has none, fails or takes too long.
async fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(directory)
        .args(arguments)
        .env("LC_ALL", "C")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(GIT_DEADLINE, command.output()).await.ok()?.ok()?;
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim_end_matches('\n');
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs git in a test's repository, apart from the user's own configuration.
    fn run(directory: &Path, arguments: &[&str]) -> String {
        let output = std::process::Command::new("git")
            .arg("-C")
            .arg(directory)
            .args(["-c", "user.name=Alex Doe", "-c", "user.email=alex@example.org"])
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[tokio::test]
    async fn a_branch_with_a_remote() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        run(at, &["init", "-q", "-b", "feature/x"]);
        run(at, &["config", "user.name", "Alex Doe"]);
        let before = facts(at, None).await;
        assert_eq!(
            (before.sha.as_str(), before.reference.as_str()),
            (NO_COMMIT, "refs/heads/feature/x")
        );

        run(at, &["commit", "-q", "--allow-empty", "-m", "one"]);
        run(at, &["remote", "add", "origin", "git@forge.example.org:team/widget.git"]);
        let found = facts(at, Some("login".to_owned())).await;
        assert_eq!(
            found,
            Facts {
                sha: run(at, &["rev-parse", "HEAD"]),
                reference: "refs/heads/feature/x".to_owned(),
                repository: "team/widget".to_owned(),
                server: Some("https://forge.example.org".to_owned()),
                actor: "Alex Doe".to_owned(),
            }
        );
        assert_eq!(found.short_reference(), ("feature/x", "branch"));
        let sub = at.join("sub");
        std::fs::create_dir(&sub).unwrap();
        assert_eq!(repository(&sub).await, Some(at.canonicalize().unwrap()));
    }

    #[tokio::test]
    async fn a_tag_is_used_where_no_branch_is_checked_out() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        run(at, &["init", "-q"]);
        run(at, &["commit", "-q", "--allow-empty", "-m", "one"]);
        run(at, &["tag", "v1.0"]);
        run(at, &["checkout", "-q", "--detach"]);
        assert_eq!(facts(at, None).await.short_reference(), ("v1.0", "tag"));
    }

    #[tokio::test]
    async fn outside_a_repository_there_are_values_to_live_with() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("widget");
        std::fs::create_dir(&at).unwrap();
        assert_eq!(repository(&at).await, None);
        let found = facts(&at, Some("login".to_owned())).await;
        assert_eq!(found.sha, NO_COMMIT);
        assert_eq!(found.reference, "refs/heads/main");
        assert_eq!(found.repository, "local/widget");
        assert_eq!(found.server, None);
    }

    #[test]
    fn remotes_as_people_write_them() {
        let check = |url: &str, server: Option<&str>, repository: Option<&str>| {
            let found = split_remote(url);
            assert_eq!((found.0.as_deref(), found.1.as_deref()), (server, repository), "{url}");
        };
        let host = Some("https://h.example");
        check("https://h.example/o/n.git", host, Some("o/n"));
        check("https://user:token@h.example/o/n", host, Some("o/n"));
        check("http://h.example:3000/o/n/", Some("http://h.example:3000"), Some("o/n"));
        check("ssh://git@h.example:2222/group/o/n.git", host, Some("o/n"));
        check("git@h.example:o/n.git", host, Some("o/n"));
        check("h.example:n.git", None, None);
        check("/srv/git/n.git", None, None);
        check("../n", None, None);
        check("file:///srv/git/o/n.git", None, None);
        check("https://", None, None);
    }
}
