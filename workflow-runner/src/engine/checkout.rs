//! `actions/checkout` without git or Node: the local working tree, which lies in the guest already,
//! is placed in the workspace.

use common::plan::{Plan, StepAction};

use crate::expression::Value;
use crate::system::{Kind, Owner, Placement, System};

use super::fault::Fault;
use super::workspace::{Directories, inside};

/// The name of the action, without owner of a mirror and without version.
const ACTION: &str = "actions/checkout";

/// The most names that are looked at in a directory before it is emptied.
const NAMES: usize = 1_000_000;

/// Whether a step's `uses` is the checkout action, by name or by the address of a mirror
/// (forgejo-runner-protocol 8.7).
pub(super) fn is_checkout(reference: &str) -> bool {
    let Some((name, version)) = reference.rsplit_once('@') else { return false };
    let name = name.to_ascii_lowercase();
    let name = match name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")) {
        Some(address) => address.split_once('/').map_or("", |(_, path)| path),
        None => &name,
    };
    name == ACTION && !version.is_empty()
}

/// How the tree of a checkout may be placed: it is needed again when a later step checks out too.
pub(super) fn placement(plan: &Plan, step: u32) -> Placement {
    let again = plan.steps.iter().any(|later| {
        later.index > step
            && matches!(&later.action, StepAction::Uses { reference, .. } if is_checkout(reference))
    });
    if again { Placement::Copy } else { Placement::Move }
}

/// A checkout that can be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checkout {
    /// Where the tree is placed.
    pub(super) target: String,
    /// Whether what is there is removed first.
    clean: bool,
    /// The outputs of the step.
    pub(super) outputs: Vec<(String, String)>,
}

impl Checkout {
    /// Reads the inputs of a step, as the action has them; the error is a sentence.
    pub(super) fn new(
        with: &[(String, String)],
        github: &Value,
        directories: &Directories,
    ) -> Result<Self, String> {
        let input = |name: &str| {
            let found = with.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map_or("", |(_, value)| value.trim())
        };
        let context = |name: &str| github.get(name).map(Value::to_text).unwrap_or_default();
        let repository = input("repository");
        if !repository.is_empty() && !repository.eq_ignore_ascii_case(&context("repository")) {
            return Err(format!(
                "this job has the local working tree of {} only, and cannot check out the \
                 repository {repository}; clone it with git in a \"run\" step",
                context("repository")
            ));
        }
        let reference = input("ref");
        let known = ["ref", "sha", "ref_name", "head_ref"];
        if !reference.is_empty() && !known.iter().any(|name| context(name) == reference) {
            return Err(format!(
                "this job has the local working tree only, and cannot check out {reference}; use \
                 \"git checkout\" in a \"run\" step, the history is there"
            ));
        }
        let path = input("path");
        let Some(path) = relative(path, &directories.workspace) else {
            return Err(format!(
                "the path {path} of the checkout lies outside the workspace; name a directory \
                 inside it"
            ));
        };
        Ok(Self {
            target: directories.in_workspace(&path),
            clean: !input("clean").eq_ignore_ascii_case("false"),
            outputs: vec![
                ("ref".to_owned(), context("ref")),
                ("commit".to_owned(), context("sha")),
            ],
        })
    }

    /// Places the tree.
    pub(super) async fn place(
        &self,
        tree: &str,
        how: Placement,
        owner: Owner,
        system: &dyn System,
    ) -> Result<(), Fault> {
        if system.kind(tree).await? != Some(Kind::Directory) {
            let gone = format!("the working tree that was sent to {tree} is no longer there");
            return Err(gone.into());
        }
        system.create_directory(&self.target, owner).await?;
        if self.clean {
            // The directory itself stays: it may be the working directory of a process.
            let names = system.list(&self.target, NAMES).await?;
            for name in names {
                let path = format!("{}/{name}", self.target);
                system.remove(&path).await?;
            }
        }
        Ok(system.place_tree(tree, &self.target, how, owner).await?)
    }
}

/// The path below the workspace that an input names, which may be absolute.
fn relative(path: &str, workspace: &str) -> Option<String> {
    if !path.starts_with('/') {
        return inside(path);
    }
    let below = path.strip_prefix(workspace)?;
    if below.is_empty() || below.starts_with('/') { inside(below) } else { None }
}

#[cfg(test)]
mod tests {
    use common::guest::RunnerFacts;

    use super::*;

    fn checkout(with: &[(&str, &str)]) -> Result<String, String> {
        let runner = RunnerFacts {
            os: String::new(),
            arch: String::new(),
            name: String::new(),
            tool_cache: String::new(),
        };
        let directories = Directories::new("/w", "o/r", &runner, "j");
        let github = Value::object(
            [("repository", "o/r"), ("ref", "refs/heads/main"), ("ref_name", "main"), ("sha", "1")]
                .map(|(key, value)| (key.to_owned(), Value::text(value))),
        );
        let with: Vec<_> = with.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        Checkout::new(&with, &github, &directories).map(|checkout| checkout.target)
    }

    #[test]
    fn the_action_is_known_by_name_and_by_address() {
        for (reference, expected) in [
            ("actions/checkout@v4", true),
            ("Actions/Checkout@main", true),
            ("https://code.forgejo.org/actions/checkout@v4", true),
            ("actions/checkout", false),
            ("actions/checkout@", false),
            ("other/checkout@v4", false),
            ("actions/checkout/sub@v4", false),
        ] {
            assert_eq!(is_checkout(reference), expected, "{reference}");
        }
    }

    #[test]
    fn the_tree_goes_where_the_inputs_say() {
        assert_eq!(checkout(&[]).as_deref(), Ok("/w/r/r"));
        assert_eq!(checkout(&[("path", "a/../b")]).as_deref(), Ok("/w/r/r/b"));
        assert_eq!(checkout(&[("path", "/w/r/r/x")]).as_deref(), Ok("/w/r/r/x"));
        assert_eq!(checkout(&[("repository", "O/R"), ("ref", "main")]).as_deref(), Ok("/w/r/r"));
        assert_eq!(checkout(&[("fetch-depth", "0")]).as_deref(), Ok("/w/r/r"));
    }

    #[test]
    fn what_cannot_be_done_is_a_sentence() {
        for (with, expected) in [
            (("repository", "o/other"), "repository o/other"),
            (("ref", "v1"), "cannot check out v1"),
            (("path", "../x"), "outside the workspace"),
            (("path", "/w/r/rx"), "outside the workspace"),
            (("path", "/etc"), "outside the workspace"),
        ] {
            let error = checkout(&[with]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
