//! The keys about the actions of jobs.

use std::path::PathBuf;

use common::guest::NativeCommits;
use common::limits::GIB;
use common::size::ByteSize;
use orchestrator::Origin;

use super::file::Given;

/// Where actions come from and are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionKeys {
    /// Where what was fetched is kept; absent means `fetched` in `state_dir`.
    pub directory: Option<PathBuf>,
    /// What everything that was fetched may have of the disk.
    pub quota: ByteSize,
    /// Where caches are kept; absent means `caches` in `state_dir`.
    pub caches: Option<PathBuf>,
    /// What all caches may have of the disk.
    pub cache_quota: ByteSize,
    /// Where actions are that name no host, in jobs of GitHub's dialect.
    pub github: Origin,
    /// In those of Forgejo's, unless the server says so.
    pub forgejo: Origin,
    /// In those of Gitea's, unless the server says so.
    pub gitea: Origin,
    /// When the guest program stands for an action whose version is a commit.
    pub commits: NativeCommits,
    /// Further places that may be asked wherever they are.
    pub allow: Vec<Origin>,
}

impl Default for ActionKeys {
    fn default() -> Self {
        let origin = |text: &str| Origin::parse(text).expect("it is an address");
        Self {
            directory: None,
            quota: ByteSize(10 * GIB),
            caches: None,
            cache_quota: ByteSize(20 * GIB),
            github: origin("https://github.com"),
            // forgejo-runner-protocol 8.7.
            forgejo: origin("https://data.forgejo.org"),
            gitea: origin("https://github.com"),
            commits: NativeCommits::default(),
            allow: Vec::new(),
        }
    }
}

/// A place that may be asked.
pub(super) fn origin(given: &Given) -> Result<Origin, String> {
    Origin::parse(given.text()?)
}

/// When the guest program stands for a commit of an action.
pub(super) fn commits(given: &Given) -> Result<NativeCommits, String> {
    match given.text()? {
        "always" => Ok(NativeCommits::Always),
        "without-node" => Ok(NativeCommits::WithoutNode),
        "never" => Ok(NativeCommits::Never),
        other => Err(format!("expected always, without-node or never, not {other}")),
    }
}

/// The word for it.
pub(super) fn commits_word(commits: NativeCommits) -> &'static str {
    match commits {
        NativeCommits::Always => "always",
        NativeCommits::WithoutNode => "without-node",
        NativeCommits::Never => "never",
    }
}

/// Several, which a variable separates by blanks.
pub(super) fn origins(given: &Given) -> Result<Vec<Origin>, String> {
    given.texts_by(' ')?.iter().map(|text| Origin::parse(text)).collect()
}
