//! The one table of what differs between the forges inside a job.
//!
//! No other file of the engine asks which forge a job comes from: it reads a [`DialectRules`].
//! "GitHub" and "Forgejo" below name github-runner-protocol and forgejo-runner-protocol.

use std::time::Duration;

use common::event::JobResult;
use common::plan::Dialect;

use super::command::Name;

/// Every difference between the forges inside a job.
#[derive(Debug)]
pub(super) struct DialectRules {
    /// The arguments of `bash` when the workflow names no shell.
    ///
    /// GitHub 7.5: `bash -e {0}`. Forgejo 8.5: as if `shell: bash` stood there.
    pub(super) default_bash: &'static [&'static str],
    /// Whether a job's container has bash as its default shell, where it has one.
    ///
    /// GitHub 8.7: `sh -e {0}` in containers. Forgejo 8.5: bash if it is found, there as well.
    pub(super) containers_prefer_bash: bool,
    /// The names under which the `github` context is seen.
    ///
    /// GitHub 5.7: `github` alone. Forgejo 8.5: `forgejo` = `forge` = `gitea` = `github`.
    pub(super) github_names: &'static [&'static str],
    /// What stands in front of the variables made from the `github` context.
    ///
    /// GitHub 7.2: `GITHUB_`. Forgejo 8.2: `FORGEJO_` twins as well.
    pub(super) prefixes: &'static [&'static str],
    /// The keys of the `github` context that become variables.
    ///
    /// GitHub 7.2 has the list, without the token. Forgejo 8.2 has its own, with the token.
    pub(super) exported: &'static [&'static str],
    /// Variables from the same place whose value is fixed where the context has none.
    ///
    /// Forgejo 8.2: `RETENTION_DAYS` is "0" if empty.
    pub(super) exported_defaults: &'static [(&'static str, &'static str)],
    /// Where the variables from the `github` and `runner` contexts stand.
    ///
    /// GitHub 7.2: they are written last, so that a step's `env` cannot override them. Forgejo 8.2:
    /// step `env` is last.
    pub(super) context_place: Place,
    /// Further variables of fixed value.
    ///
    /// GitHub 7.2, Forgejo 8.2, but for `ImageOS`: it names one of GitHub's images, by which
    /// set-up actions choose what they download, and ours are none of these.
    pub(super) fixed: &'static [(&'static str, &'static str)],
    /// Where these and `RUNNER_TRACKING_ID` stand.
    ///
    /// GitHub 7.2: they are not of the context variables, and "`CI` and the rest can be
    /// overridden". Forgejo 8.2: they are in the table above job `env`.
    pub(super) fixed_place: Place,
    /// How `github.action` names a step without `id`.
    ///
    /// GitHub 7.2: `__run`, `__run_2`. Forgejo 8.2: its index.
    pub(super) action_names: ActionNames,
    /// Whether conditions of steps can read secrets.
    ///
    /// GitHub 5.7: "step set without secrets". Forgejo names no such limit.
    pub(super) secrets_in_conditions: bool,
    /// Whether `::set-env::` and `::add-path::` work without being asked for.
    ///
    /// GitHub 7.4: refused unless `ACTIONS_ALLOW_UNSECURE_COMMANDS` is true. Forgejo 8.4: legacy
    /// but used.
    pub(super) insecure_commands: bool,
    /// The commands that exist; a line with another name is output.
    ///
    /// GitHub 7.4: all. Forgejo 8.4: neither `echo` nor the matchers, which are shown as unknown ones
    /// are.
    pub(super) commands: &'static [Name],
    /// Names that `GITHUB_ENV` may not set.
    ///
    /// GitHub 7.3: `NODE_OPTIONS`. Forgejo 8.3 has no such rule, but the reason for it (every later
    /// JavaScript action runs the step's code) holds there too.
    pub(super) refused_variables: &'static [&'static str],
    /// Whether white space may stand in front of a `::command::`.
    ///
    /// GitHub 7.4: leading white space is trimmed. Forgejo 8.4: at the start of the line.
    pub(super) commands_may_be_indented: bool,
    /// Whether `##[command]` may stand anywhere in a line.
    ///
    /// GitHub 7.4: anywhere for registered commands. Forgejo 8.4: at the start of the line.
    pub(super) bracket_commands_anywhere: bool,
    /// Whether `##[command]` has escapes of its own, or those of `::command::`.
    ///
    /// GitHub 7.4: `%3B` and `%5D` as well. Forgejo 8.4 has one list for both forms.
    pub(super) brackets_have_own_escapes: bool,
    /// Whether `::error::`, `::warning::` and `::notice::` make annotations.
    ///
    /// GitHub 7.4, 6.7. Forgejo 8.4: no effect.
    pub(super) findings_are_annotations: bool,
    /// Whether a long token of `stop-commands` is masked.
    ///
    /// GitHub 7.4. Forgejo 8.4 names no such rule.
    pub(super) masks_stop_token: bool,
    /// Whether the variable `ACTIONS_STEP_DEBUG` turns debug messages on, as the secret of that name
    /// does.
    ///
    /// GitHub 5.3. Forgejo 8.4: the secret.
    pub(super) debug_by_variable: bool,
    /// The members of the `runner` context.
    ///
    /// GitHub 5.8, with `debug` when that is on. Forgejo 8.5: `os`, `arch`, `temp`, `tool_cache`.
    pub(super) runner_members: &'static [&'static str],
    /// Whether names in the `env` context differ by case, as those of variables do.
    ///
    /// GitHub 7.2. Forgejo 8.5: names are case-insensitive.
    pub(super) env_is_case_sensitive: bool,
    /// Whether every character but letters, digits and hyphens becomes `_` in the variable of an
    /// action's input.
    ///
    /// GitHub 8.3: blanks do. Forgejo 8.2: every character outside `A-Z0-9-`.
    pub(super) plain_input_names: bool,
    /// Whether every step is told where the job's services are, and by which token it is let in.
    ///
    /// GitHub 7.2: steps of actions only. Forgejo 8.2: every step; where there is no runtime token the
    /// job token is one.
    pub(super) runtime_token: bool,
    /// Whether a job that did not succeed has outputs.
    ///
    /// GitHub 7.11. Forgejo 6.6: they are sent on success.
    pub(super) failed_jobs_have_outputs: bool,
    /// What the log shows of a line that is a workflow command.
    pub(super) display: CommandDisplay,
    /// How a process group is ended.
    ///
    /// GitHub 7.10: INT 7.5 s, TERM 2.5 s, KILL. Forgejo ends the context of the job without
    /// saying how (6.3); its users lose nothing by the gentler way.
    pub(super) ladder: Ladder,
    /// Whether a running step whose condition holds for a cancelled job goes on after a cancel.
    ///
    /// GitHub 4.5: the condition of the running step is evaluated again. Forgejo 6.3: the job's
    /// context is cancelled.
    pub(super) condition_can_survive_cancel: bool,
    /// Whether `failure()` stays true, and `cancelled()` false, when a job is cancelled after a
    /// step has failed.
    ///
    /// GitHub 4.5 and 7.7: the job's status becomes cancelled. Forgejo 8.5: `failure()` looks at
    /// the conclusions of earlier steps.
    pub(super) failure_outlives_cancel: bool,
    /// The result of a job that ran into its own `timeout-minutes`.
    ///
    /// GitHub 7.8: enforced through cancellation. Forgejo 6.6: CANCELLED.
    pub(super) timed_out_job: JobResult,
}

/// Where variables of the runner stand among the layers of a step's environment; a later layer wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Before `env` of the job: whoever sets one of them has it.
    BeforeJob,
    /// After `env` of the job and `GITHUB_ENV`, before `env` of the step.
    BeforeStep,
    /// After everything: nobody overrides them.
    Last,
}

/// How `github.action` names a step without `id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ActionNames {
    /// `__run`, `__run_2`, `__actions_checkout`.
    Generated,
    /// The step's index.
    Index,
}

/// What the log shows of a line that is a workflow command.
///
/// GitHub 7.4, Forgejo 8.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CommandDisplay {
    /// `set-output`, `set-env`, `save-state`, `add-path`, `echo`, `add-matcher`.
    pub(super) value: Display,
    /// `debug`, when debugging is on.
    pub(super) debug: Display,
    /// `error`, `warning`, `notice`.
    pub(super) finding: Display,
    /// `stop-commands` and its end.
    pub(super) stop: Display,
}

/// What the log shows of a line that is a workflow command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Display {
    /// Nothing.
    Hidden,
    /// The line as it was written, once `::echo::on` was seen.
    WhenEchoing,
    /// The line as it was written.
    Verbatim,
    /// `##[name]` and the data.
    Marked,
    /// The data alone.
    Data,
}

/// How a process group is ended: INT, then TERM, then KILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ladder {
    /// How long it may live after INT.
    pub(super) after_interrupt: Duration,
    /// How long it may live after TERM.
    pub(super) after_terminate: Duration,
}

/// GitHub 7.10.
const LADDER: Ladder = Ladder {
    after_interrupt: Duration::from_millis(7_500),
    after_terminate: Duration::from_millis(2_500),
};

/// GitHub 7.2. `output`, `env`, `path`, `state`, `step_summary`, `event_path`, `workspace` and
/// `action` are among them: the engine puts them into the context first.
const GITHUB_EXPORTED: &[&str] = &[
    "action",
    "action_path",
    "action_ref",
    "action_repository",
    "actor",
    "actor_id",
    "api_url",
    "base_ref",
    "env",
    "event_name",
    "event_path",
    "graphql_url",
    "head_ref",
    "job",
    "output",
    "path",
    "ref",
    "ref_name",
    "ref_protected",
    "ref_type",
    "repository",
    "repository_id",
    "repository_owner",
    "repository_owner_id",
    "retention_days",
    "run_attempt",
    "run_id",
    "run_number",
    "server_url",
    "sha",
    "state",
    "step_summary",
    "triggering_actor",
    "workflow",
    "workflow_ref",
    "workflow_sha",
    "workspace",
];

/// Forgejo 8.2.
const FORGEJO_EXPORTED: &[&str] = &[
    "action",
    "action_path",
    "action_ref",
    "action_repository",
    "actor",
    "api_url",
    "base_ref",
    "env",
    "event_name",
    "event_path",
    "head_ref",
    "job",
    "output",
    "path",
    "ref",
    "ref_name",
    "ref_type",
    "repository",
    "repository_owner",
    "retention_days",
    "run_attempt",
    "run_id",
    "run_number",
    "server_url",
    "sha",
    "state",
    "step_summary",
    "token",
    "workflow",
    "workflow_ref",
    "workspace",
];

/// GitHub 7.4.
const GITHUB_COMMANDS: &[Name] = &[
    Name::AddMask,
    Name::AddMatcher,
    Name::AddPath,
    Name::Debug,
    Name::Echo,
    Name::EndGroup,
    Name::Error,
    Name::Group,
    Name::Notice,
    Name::RemoveMatcher,
    Name::SaveState,
    Name::SetEnv,
    Name::SetOutput,
    Name::StopCommands,
    Name::Warning,
];

/// Forgejo 8.4.
const FORGEJO_COMMANDS: &[Name] = &[
    Name::AddMask,
    Name::AddPath,
    Name::Debug,
    Name::EndGroup,
    Name::Error,
    Name::Group,
    Name::Notice,
    Name::SaveState,
    Name::SetEnv,
    Name::SetOutput,
    Name::StopCommands,
    Name::Warning,
];

const GITHUB: DialectRules = DialectRules {
    default_bash: &["-e"],
    containers_prefer_bash: false,
    github_names: &["github"],
    prefixes: &["GITHUB_"],
    exported: GITHUB_EXPORTED,
    exported_defaults: &[],
    context_place: Place::Last,
    fixed: &[("CI", "true"), ("GITHUB_ACTIONS", "true")],
    fixed_place: Place::BeforeJob,
    action_names: ActionNames::Generated,
    secrets_in_conditions: false,
    insecure_commands: false,
    commands: GITHUB_COMMANDS,
    refused_variables: &["NODE_OPTIONS"],
    commands_may_be_indented: true,
    bracket_commands_anywhere: true,
    brackets_have_own_escapes: true,
    findings_are_annotations: true,
    masks_stop_token: true,
    debug_by_variable: true,
    runner_members: &[
        "os",
        "arch",
        "name",
        "environment",
        "tool_cache",
        "temp",
        "workspace",
        "debug",
    ],
    env_is_case_sensitive: true,
    plain_input_names: false,
    runtime_token: false,
    failed_jobs_have_outputs: true,
    display: CommandDisplay {
        value: Display::WhenEchoing,
        debug: Display::Marked,
        finding: Display::Marked,
        stop: Display::Verbatim,
    },
    ladder: LADDER,
    condition_can_survive_cancel: true,
    failure_outlives_cancel: false,
    timed_out_job: JobResult::Cancelled,
};

const FORGEJO: DialectRules = DialectRules {
    default_bash: &["--noprofile", "--norc", "-e", "-o", "pipefail"],
    containers_prefer_bash: true,
    github_names: &["github", "forgejo", "forge", "gitea"],
    prefixes: &["GITHUB_", "FORGEJO_"],
    exported: FORGEJO_EXPORTED,
    exported_defaults: &[("retention_days", "0")],
    context_place: Place::BeforeStep,
    fixed: &[
        ("CI", "true"),
        ("GITHUB_ACTIONS", "true"),
        ("FORGEJO_ACTIONS", "true"),
        ("FORGEJO_ACTIONS_RUNNER_VERSION", env!("CARGO_PKG_VERSION")),
        ("GITEA_ACTIONS", "true"),
        ("GITEA_ACTIONS_RUNNER_VERSION", env!("CARGO_PKG_VERSION")),
        ("RUNNER_PERFLOG", "/dev/null"),
    ],
    fixed_place: Place::BeforeStep,
    action_names: ActionNames::Index,
    secrets_in_conditions: true,
    insecure_commands: true,
    commands: FORGEJO_COMMANDS,
    refused_variables: &["NODE_OPTIONS"],
    commands_may_be_indented: false,
    bracket_commands_anywhere: false,
    brackets_have_own_escapes: false,
    findings_are_annotations: false,
    masks_stop_token: false,
    debug_by_variable: false,
    runner_members: &["os", "arch", "tool_cache", "temp"],
    env_is_case_sensitive: false,
    plain_input_names: true,
    runtime_token: true,
    failed_jobs_have_outputs: false,
    display: CommandDisplay {
        value: Display::Verbatim,
        debug: Display::Data,
        finding: Display::Verbatim,
        stop: Display::Hidden,
    },
    ladder: LADDER,
    condition_can_survive_cancel: false,
    failure_outlives_cancel: true,
    timed_out_job: JobResult::Cancelled,
};

/// Forgejo's rules; of the names of its own it has `GITEA_ACTIONS` and the runner's version alone
/// (Forgejo 8.2).
const GITEA: DialectRules = DialectRules {
    github_names: &["github", "gitea"],
    prefixes: &["GITHUB_"],
    fixed: &[
        ("CI", "true"),
        ("GITHUB_ACTIONS", "true"),
        ("GITEA_ACTIONS", "true"),
        ("GITEA_ACTIONS_RUNNER_VERSION", env!("CARGO_PKG_VERSION")),
        ("RUNNER_PERFLOG", "/dev/null"),
    ],
    ..FORGEJO
};

impl DialectRules {
    /// The rules of a dialect.
    pub(super) fn of(dialect: Dialect) -> &'static Self {
        match dialect {
            Dialect::Github => &GITHUB,
            Dialect::Forgejo => &FORGEJO,
            Dialect::Gitea => &GITEA,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn github_exports_no_token_and_forgejo_does() {
        assert!(!GITHUB.exported.contains(&"token"));
        assert!(FORGEJO.exported.contains(&"token"));
    }

    #[test]
    fn every_dialect_exports_the_command_files() {
        for dialect in [Dialect::Github, Dialect::Forgejo, Dialect::Gitea] {
            let rules = DialectRules::of(dialect);
            for name in ["env", "output", "path", "state", "step_summary"] {
                assert!(rules.exported.contains(&name), "{dialect:?} {name}");
            }
        }
    }
}
