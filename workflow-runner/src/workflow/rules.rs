//! The one table of what the forges do differently before a job runs.

use common::plan::Dialect;

/// What a dialect decides about a workflow before its jobs run.
#[derive(Debug)]
pub(super) struct Rules {
    /// Other names of the `github` context (forgejo-runner-protocol 8.5).
    pub(super) github_aliases: &'static [&'static str],
    /// Whether the status functions of a job's `if` look at all jobs that it depends on, or only at
    /// those in its own `needs` (forgejo-runner-protocol 7.3 has the latter).
    pub(super) status_is_transitive: bool,
    /// Whether a job's `if` sees `matrix`, `strategy`, `env` and `secrets`. GitHub decides before
    /// the matrix is expanded; Forgejo's runner decides for one leg (forgejo-runner-protocol 7.2).
    pub(super) condition_sees_leg: bool,
    /// Whether a plain number becomes a number and is formatted by the expression language, so that
    /// `3.10` is `3.1` (github-runner-protocol 5.5), or is its text (forgejo-runner-protocol 7.1).
    pub(super) numbers_are_formatted: bool,
    /// Keys of a workflow that only this forge knows; one that ends in `*` is a beginning
    /// (forgejo-runner-protocol 7.1).
    pub(super) workflow_keys: &'static [&'static str],
}

const GITHUB: Rules = Rules {
    github_aliases: &[],
    status_is_transitive: true,
    condition_sees_leg: false,
    numbers_are_formatted: true,
    workflow_keys: &[],
};

const FORGEJO: Rules = Rules {
    github_aliases: &["forgejo", "forge", "gitea"],
    status_is_transitive: false,
    condition_sees_leg: true,
    numbers_are_formatted: false,
    workflow_keys: &["enable-openid-connect", "incomplete_*", "__metadata"],
};

const GITEA: Rules = Rules { github_aliases: &["gitea"], workflow_keys: &[], ..FORGEJO };

impl Rules {
    /// The rules of a dialect.
    pub(super) fn of(dialect: Dialect) -> &'static Self {
        match dialect {
            Dialect::Github => &GITHUB,
            Dialect::Forgejo => &FORGEJO,
            Dialect::Gitea => &GITEA,
        }
    }
}
