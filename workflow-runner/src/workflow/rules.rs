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
    /// Whether the `strategy` context has the place of the leg beside `fail-fast` and `max-parallel`
    /// (github-runner-protocol 5.4; forgejo-runner-protocol 8.5 has the two).
    pub(super) strategy_has_place: bool,
    /// Whether there is a function `case` (github-runner-protocol 5.8; forgejo-runner-protocol 8.5 does
    /// not have it).
    pub(super) has_case: bool,
    /// Keys of a workflow that only this forge knows; one that ends in `*` is a beginning
    /// (forgejo-runner-protocol 7.1).
    pub(super) workflow_keys: &'static [&'static str],
    /// Whether a file is refused in which an expression uses a context where it does not exist.
    /// GitHub's server does so (its documentation, "Context availability"); Forgejo's takes any file,
    /// and its runner evaluates what it can (forgejo-runner-protocol 7.2, 7.6).
    pub(super) checks_contexts: bool,
    /// Whether a file is refused for what changes nothing: an empty step, an unknown event, a key
    /// beside which another has no effect. Forgejo's server ignores these; unknown keys are refused by
    /// both, there by the runner (forgejo-runner-protocol 7.1, 7.6).
    pub(super) refuses_oddities: bool,
    /// Whether the file of an action may say `using: sh` (forgejo-runner-protocol 8.7).
    pub(super) has_shell_actions: bool,
}

const GITHUB: Rules = Rules {
    github_aliases: &[],
    status_is_transitive: true,
    condition_sees_leg: false,
    numbers_are_formatted: true,
    strategy_has_place: true,
    has_case: true,
    workflow_keys: &[],
    checks_contexts: true,
    refuses_oddities: true,
    has_shell_actions: false,
};

const FORGEJO: Rules = Rules {
    github_aliases: &["forgejo", "forge", "gitea"],
    status_is_transitive: false,
    condition_sees_leg: true,
    numbers_are_formatted: false,
    strategy_has_place: false,
    has_case: false,
    workflow_keys: &["enable-openid-connect", "incomplete_*", "__metadata"],
    checks_contexts: false,
    refuses_oddities: false,
    has_shell_actions: true,
};

const GITEA: Rules =
    Rules { github_aliases: &["gitea"], workflow_keys: &[], has_shell_actions: false, ..FORGEJO };

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
