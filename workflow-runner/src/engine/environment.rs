//! The environment of a step's process, made of layers (github-runner-protocol 7.2,
//! forgejo-runner-protocol 8.2). Nothing of the engine's own environment is in it.

use common::guest::RunnerFacts;

use crate::expression::Value;
use crate::system::Facts;

use super::dialect::{DialectRules, Place};
use super::variables::Variables;
use super::workspace::Directories;

/// The variables that the workflow and its steps set, from the weakest layer to the strongest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layers<'a> {
    /// `env` of the workflow and the job.
    pub(super) job: &'a Variables,
    /// What earlier steps wrote to `GITHUB_ENV`.
    pub(super) written: &'a Variables,
    /// `env` of the step.
    pub(super) step: &'a Variables,
}

impl Layers<'_> {
    /// The `env` context: what the workflow and its steps set, without the runner's own variables.
    pub(super) fn visible(&self) -> Variables {
        let mut variables = self.job.clone();
        variables.extend(self.written.iter());
        variables.extend(self.step.iter());
        variables
    }
}

/// What the runner itself puts into the environment of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunnerLayer<'a> {
    /// The machine and user.
    pub(super) facts: &'a Facts,
    /// The machine by the image's own data.
    pub(super) runner: &'a RunnerFacts,
    /// The job's directories.
    pub(super) directories: &'a Directories,
    /// The `github` context of the step.
    pub(super) github: &'a Value,
    /// What identifies the processes of this job.
    pub(super) tracking: &'a str,
    /// Whether debug messages are on.
    pub(super) debug: bool,
    /// By what programs find the job's services, and are let in there.
    pub(super) services: &'a [(&'static str, String)],
    /// Directories that steps wrote to `GITHUB_PATH`, the first one first in the search.
    pub(super) paths: &'a [String],
}

/// The whole environment of a step's process.
pub(super) fn build(rules: &DialectRules, layers: &Layers, runner: &RunnerLayer) -> Variables {
    let mut variables = basics(runner.facts);
    let add = |variables: &mut Variables, place: Place| {
        if rules.context_place == place {
            add_contexts(variables, rules, runner);
        }
        if rules.fixed_place == place {
            variables.extend(rules.fixed.iter().copied());
            variables.set("RUNNER_TRACKING_ID", runner.tracking);
        }
    };
    add(&mut variables, Place::BeforeJob);
    variables.extend(layers.job.iter());
    variables.extend(layers.written.iter());
    add(&mut variables, Place::BeforeStep);
    variables.extend(layers.step.iter());
    add(&mut variables, Place::Last);
    let search_path = search_path(variables.get("PATH"), runner);
    variables.set("PATH", search_path);
    variables
}

/// What every process may expect, whatever started the engine.
fn basics(facts: &Facts) -> Variables {
    let mut variables = Variables::default();
    variables.extend([
        ("PATH", facts.search_path.as_str()),
        ("HOME", facts.home.as_str()),
        ("USER", facts.user.as_str()),
        ("LOGNAME", facts.user.as_str()),
        ("LANG", facts.language.as_str()),
    ]);
    variables
}

fn search_path(base: Option<&str>, runner: &RunnerLayer) -> String {
    let base = base.filter(|base| !base.is_empty()).unwrap_or(&runner.facts.search_path);
    let directories: Vec<&str> =
        runner.paths.iter().map(String::as_str).chain(std::iter::once(base)).collect();
    directories.join(":")
}

/// Adds the variables that are made from the `github` and `runner` contexts.
fn add_contexts(variables: &mut Variables, rules: &DialectRules, runner: &RunnerLayer) {
    for &key in rules.exported {
        let value = runner.github.get(key).map(Value::to_text).unwrap_or_default();
        let default = rules.exported_defaults.iter().find(|(name, _)| *name == key);
        let value = match default {
            Some((_, default)) if value.is_empty() => (*default).to_owned(),
            _ if runner.github.get(key).is_none() => continue,
            _ => value,
        };
        let name = key.to_ascii_uppercase();
        for prefix in rules.prefixes {
            variables.set(format!("{prefix}{name}"), value.as_str());
        }
    }
    if let Some(token) = runner.github.get("token").filter(|_| rules.runtime_token) {
        variables.set("ACTIONS_RUNTIME_TOKEN", token.to_text());
    }
    if rules.runtime_token {
        variables.extend(runner.services.iter().map(|(name, value)| (*name, value.as_str())));
    }
    let directories = runner.directories;
    variables.extend([
        ("RUNNER_OS", runner.runner.os.as_str()),
        ("RUNNER_ARCH", runner.runner.arch.as_str()),
        ("RUNNER_NAME", runner.runner.name.as_str()),
        ("RUNNER_ENVIRONMENT", RUNNER_ENVIRONMENT),
        ("RUNNER_TOOL_CACHE", directories.tool_cache.as_str()),
        ("RUNNER_TEMP", directories.temp.as_str()),
        ("RUNNER_WORKSPACE", directories.runner_workspace.as_str()),
    ]);
    if runner.debug {
        variables.set("RUNNER_DEBUG", "1");
    }
}

/// `runner.environment` (github-runner-protocol 5.8): the other value is kept by GitHub for its own
/// machines.
pub(super) const RUNNER_ENVIRONMENT: &str = "self-hosted";

#[cfg(test)]
mod tests {
    use common::plan::Dialect;

    use super::*;
    use crate::system::Owner;

    /// The environment of a step where the job, an earlier step and the step itself set variables.
    fn environment(dialect: Dialect, set: [&[(&str, &str)]; 3]) -> Variables {
        let facts = Facts {
            os: "Linux".to_owned(),
            arch: "X64".to_owned(),
            user: "ci".to_owned(),
            home: "/home/ci".to_owned(),
            owner: Owner { uid: 1, gid: 1 },
            identity: None,
            search_path: "/usr/bin:/bin".to_owned(),
            language: "C.UTF-8".to_owned(),
        };
        let runner = RunnerFacts {
            os: "illumos".to_owned(),
            arch: "X64".to_owned(),
            name: "vm".to_owned(),
            tool_cache: "/tools".to_owned(),
        };
        let directories = Directories::new("/work", "o/r", &runner, "job");
        let text = |name: &str, value: &str| (name.to_owned(), Value::text(value));
        let github = Value::object([
            text("sha", "abc"),
            text("token", "t0k3n"),
            text("retention_days", ""),
            ("ref_protected".to_owned(), Value::Bool(true)),
            text("unlisted", "x"),
        ]);
        let [job, written, step] = set.map(|pairs| {
            let mut variables = Variables::default();
            variables.extend(pairs.iter().copied());
            variables
        });
        build(
            DialectRules::of(dialect),
            &Layers { job: &job, written: &written, step: &step },
            &RunnerLayer {
                facts: &facts,
                runner: &runner,
                directories: &directories,
                github: &github,
                tracking: "github_1",
                debug: false,
                services: &[
                    ("ACTIONS_CACHE_URL", "http://127.0.0.1:1/".to_owned()),
                    ("ACTIONS_RUNTIME_TOKEN", "artifacts".to_owned()),
                ],
                paths: &["/new".to_owned(), "/old".to_owned()],
            },
        )
    }

    #[test]
    fn the_context_becomes_variables_by_dialect() {
        let github = environment(Dialect::Github, [&[], &[], &[]]);
        assert_eq!(github.get("GITHUB_SHA"), Some("abc"));
        assert_eq!(github.get("GITHUB_REF_PROTECTED"), Some("true"));
        assert_eq!(github.get("GITHUB_TOKEN"), None);
        assert_eq!(github.get("GITHUB_UNLISTED"), None);
        assert_eq!(github.get("GITHUB_HEAD_REF"), None);
        assert_eq!(github.get("FORGEJO_SHA"), None);
        let forgejo = environment(Dialect::Forgejo, [&[], &[], &[]]);
        assert_eq!(forgejo.get("GITHUB_SHA"), Some("abc"));
        assert_eq!(forgejo.get("FORGEJO_SHA"), Some("abc"));
        assert_eq!(forgejo.get("FORGEJO_TOKEN"), Some("t0k3n"));
        assert_eq!(forgejo.get("FORGEJO_RETENTION_DAYS"), Some("0"));
        assert_eq!(forgejo.get("FORGEJO_ACTIONS"), Some("true"));
        let gitea = environment(Dialect::Gitea, [&[], &[], &[]]);
        assert_eq!(gitea.get("FORGEJO_SHA"), None);
        let version = Some(env!("CARGO_PKG_VERSION"));
        assert_eq!(forgejo.get("FORGEJO_ACTIONS_RUNNER_VERSION"), version);
        assert_eq!(gitea.get("FORGEJO_ACTIONS_RUNNER_VERSION"), None);
        for both in [forgejo, gitea] {
            assert_eq!(both.get("GITEA_ACTIONS"), Some("true"));
            assert_eq!(both.get("GITEA_ACTIONS_RUNNER_VERSION"), version);
        }
    }

    #[test]
    fn a_script_is_told_of_the_services_on_forgejo_only() {
        let github = environment(Dialect::Github, [&[], &[], &[]]);
        assert_eq!(github.get("ACTIONS_CACHE_URL"), None);
        assert_eq!(github.get("ACTIONS_RUNTIME_TOKEN"), None);
        for dialect in [Dialect::Forgejo, Dialect::Gitea] {
            let environment = environment(dialect, [&[], &[], &[]]);
            assert_eq!(environment.get("ACTIONS_CACHE_URL"), Some("http://127.0.0.1:1/"));
            assert_eq!(environment.get("ACTIONS_RUNTIME_TOKEN"), Some("artifacts"));
        }
    }

    #[test]
    fn later_layers_win() {
        let all: [&[(&str, &str)]; 3] = [
            &[("A", "job"), ("B", "job"), ("C", "job")],
            &[("B", "written"), ("C", "written")],
            &[("C", "step")],
        ];
        for dialect in [Dialect::Github, Dialect::Forgejo, Dialect::Gitea] {
            let environment = environment(dialect, all);
            assert_eq!(environment.get("A"), Some("job"));
            assert_eq!(environment.get("B"), Some("written"));
            assert_eq!(environment.get("C"), Some("step"));
        }
    }

    #[test]
    fn the_dialect_decides_who_may_override_the_runner() {
        let mine = [
            ("GITHUB_SHA", "mine"),
            ("RUNNER_OS", "mine"),
            ("CI", "mine"),
            ("GITHUB_ACTIONS", "mine"),
            ("RUNNER_TRACKING_ID", "mine"),
        ];
        let overridden = |dialect, layer: usize| {
            let mut set: [&[(&str, &str)]; 3] = [&[], &[], &[]];
            set[layer] = &mine;
            let environment = environment(dialect, set);
            mine.map(|(name, _)| environment.get(name) == Some("mine"))
        };
        for layer in 0..3 {
            assert_eq!(overridden(Dialect::Github, layer), [false, false, true, true, true]);
        }
        assert_eq!(overridden(Dialect::Forgejo, 0), [false; 5]);
        assert_eq!(overridden(Dialect::Forgejo, 2), [true; 5]);
    }

    #[test]
    fn written_paths_come_first_and_the_basics_are_there() {
        let plain = environment(Dialect::Github, [&[], &[], &[]]);
        assert_eq!(plain.get("PATH"), Some("/new:/old:/usr/bin:/bin"));
        assert_eq!(plain.get("HOME"), Some("/home/ci"));
        assert_eq!(plain.get("LANG"), Some("C.UTF-8"));
        assert_eq!(plain.get("RUNNER_OS"), Some("illumos"));
        let own = environment(Dialect::Github, [&[("PATH", "/mine")], &[], &[]]);
        assert_eq!(own.get("PATH"), Some("/new:/old:/mine"));
    }
}
