//! What a job gets of a mirror: a repository that knows a commit, of which its files are made.

use std::fs;
use std::path::Path;

use common::call::{CallError, TreeWish};
use reqwest::Url;

use super::git::{self, Credentials};
use super::parts::Place;
use super::sparse;
use super::store::cannot_write;

/// The name of the repository beside the files.
pub(super) const GIT: &str = ".git";

/// The configuration of a repository, which a job gets another one of.
pub(super) const CONFIGURATION: &str = "config";

/// What is not archived as it stands in a repository: the forge's own archives leave files out by these
/// attributes, and a checkout does not (gitattributes(5)).
const ATTRIBUTES: &str = "* -export-ignore -export-subst\n";
const ATTRIBUTES_FILE: &str = "info/attributes";

/// The configuration of every repository that a job gets.
const CORE: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\
                    \tlogallrefupdates = true\n[gc]\n\tauto = 0\n";
const FETCH: &str = "\tfetch = +refs/heads/*:refs/remotes/origin/*\n";

/// How a commit is named in the repository that a job gets, as the checkout action names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// A branch, which is checked out.
    Branch(String),
    /// Another name, beside a commit that is checked out by itself.
    Other(String),
    /// None.
    Commit,
}

impl Named {
    /// `reference` is what was wished for, and `found` what the server has for it.
    pub(super) fn of(reference: &str, found: &str) -> Self {
        let name = if reference.starts_with("refs/") { reference } else { found };
        match name.strip_prefix("refs/heads/") {
            Some(branch) => Self::Branch(branch.to_owned()),
            None => match name.strip_prefix("refs/") {
                Some(rest) if rest.starts_with("tags/") => Self::Other(name.to_owned()),
                Some(rest) => Self::Other(format!("refs/remotes/{rest}")),
                None => Self::Commit,
            },
        }
    }

    /// Where the commit stands in the job's repository.
    fn stands_at(&self) -> String {
        match self {
            Self::Branch(branch) => format!("refs/remotes/origin/{branch}"),
            Self::Other(name) => name.clone(),
            Self::Commit => "refs/solstice/commit".to_owned(),
        }
    }
}

/// What is to be made.
pub(super) struct Export<'a> {
    pub(super) mirror: &'a Path,
    pub(super) commit: &'a str,
    pub(super) named: &'a Named,
    pub(super) wish: &'a TreeWish,
    pub(super) place: &'a Place,
}

impl Export<'_> {
    /// Makes the job's repository in an empty directory; gives its configuration, which never lies on
    /// this host's disk: it has the job's token in it.
    pub(super) async fn make(
        &self,
        directory: &Path,
        url: &Url,
        credentials: Option<&Credentials>,
    ) -> Result<String, CallError> {
        let git = |arguments: Vec<String>| async move {
            git::run(directory, &git::local(), &arguments).await
        };
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        git(words(&["init", "--quiet", "--initial-branch=solstice", "."])).await?;
        let mirror = format!("file://{}", self.mirror.display());
        let mut fetch: Vec<String> = words(&["fetch", "--quiet", "--no-tags"]);
        if self.wish.depth > 0 {
            fetch.push(format!("--depth={}", self.wish.depth));
        }
        // Its other end gets none of our settings by itself.
        fetch.push(format!("--upload-pack=git {} upload-pack", git::READER.join(" ")));
        fetch.push(mirror);
        let at = self.named.stands_at();
        // A tag may have moved on since, and stands where it is.
        let at = match self.wish.tags && at.starts_with("refs/tags/") {
            true => Named::Commit.stands_at(),
            false => at,
        };
        fetch.push(format!("+{}:{at}", self.commit));
        if self.wish.tags {
            fetch.push("+refs/tags/*:refs/tags/*".to_owned());
        }
        git(fetch).await?;
        if let Some(sparse) = &self.wish.sparse {
            sparse::note(directory, sparse).await?;
        }
        match self.named {
            Named::Branch(branch) => {
                let name = format!("refs/heads/{branch}");
                git(words(&["update-ref", &name, self.commit])).await?;
                git(words(&["symbolic-ref", "HEAD", &name])).await?;
            }
            Named::Other(_) | Named::Commit => {
                git(words(&["update-ref", "--no-deref", "HEAD", self.commit])).await?;
            }
        }
        git(words(&["read-tree", self.commit])).await?;
        if self.wish.sparse.is_some() {
            sparse::mark(directory).await?;
        }
        let place = directory.join(GIT);
        let written = fs::create_dir_all(place.join("info"))
            .and_then(|()| fs::write(place.join(ATTRIBUTES_FILE), ATTRIBUTES));
        written.map_err(|error| cannot_write(&place, &error))?;
        Ok(self.configuration(url, credentials))
    }

    /// The configuration that the checkout action leaves.
    fn configuration(&self, url: &Url, credentials: Option<&Credentials>) -> String {
        let mut text = vec![CORE.to_owned()];
        if !self.place.is_top() {
            text.push(format!("[core]\n\tworktree = {}\n", quoted(&self.place.worktree())));
        }
        if let Some(sparse) = &self.wish.sparse {
            text.push(sparse::configuration(sparse));
        }
        text.push(format!("[remote \"origin\"]\n\turl = {}\n{FETCH}", quoted(url.as_str())));
        if let Named::Branch(branch) = self.named {
            let (name, merge) = (quoted(branch), quoted(&format!("refs/heads/{branch}")));
            text.push(format!("[branch {name}]\n\tremote = origin\n\tmerge = {merge}\n"));
        }
        if let Some(credentials) = credentials {
            let origin = quoted(&format!("{}/", url.origin().ascii_serialization()));
            let header = quoted(&format!("AUTHORIZATION: {}", credentials.expose()));
            text.push(format!("[http {origin}]\n\textraheader = {header}\n"));
        }
        text.concat()
    }
}

/// What the repository above a submodule knows of it, as `git submodule init` leaves it.
pub(super) fn section(name: &str, url: &Url) -> String {
    let (name, url) = (quoted(name), quoted(url.as_str()));
    format!("[submodule {name}]\n\tactive = true\n\turl = {url}\n")
}

/// A text in a configuration of git, whatever is in it (git-config(1), "Syntax").
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
