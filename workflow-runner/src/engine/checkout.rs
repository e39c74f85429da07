//! `actions/checkout` without git or Node: the local working tree, which lies in the guest already, or
//! what the host fetches from the job's forge, is placed in the workspace.

use common::call::{Sparse, Submodules, TreeWish};
use common::plan::{Plan, StepAction};
use common::request::Secret;

use crate::expression::Value;
use crate::system::{Kind, Owner, Placement, System};

use super::fault::Fault;
use super::native::Unfit;
use super::workspace::{Directories, inside};

/// The most names that are looked at in a directory before it is emptied.
const NAMES: usize = 1_000_000;

/// How the tree of a checkout may be placed: it is needed again when a later step checks out too.
pub(super) fn placement(plan: &Plan, step: u32) -> Placement {
    // An action may check out as well.
    let again = plan
        .steps
        .iter()
        .any(|later| later.index > step && matches!(later.action, StepAction::Uses { .. }));
    if again { Placement::Copy } else { Placement::Move }
}

/// A checkout that can be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checkout {
    /// Where the tree is placed.
    pub(super) target: String,
    /// Whether what is there is removed first.
    clean: bool,
    /// Where the tree comes from.
    pub(super) source: Source,
    /// The output `ref` of the step.
    reference: String,
}

/// Where a tree comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The local working tree, which is in the machine.
    Here {
        /// Its commit, as far as the job knows it.
        commit: String,
    },
    /// The job's forge.
    Forge(Box<TreeWish>),
}

/// What nobody here can do, by the input that asks for it.
const REFUSED: [(&str, &str); 3] = [
    ("lfs", "fetch large files with git-lfs in a \"run\" step"),
    ("ssh-key", "use a token"),
    ("github-server-url", "clone from other servers with git in a \"run\" step"),
];

impl Checkout {
    /// Reads the inputs of a step, as the action has them; the error is a sentence. `has_tree` says
    /// whether the local working tree is in the machine.
    pub(super) fn new(
        with: &[(String, String)],
        github: &Value,
        directories: &Directories,
        has_tree: bool,
    ) -> Result<Self, Unfit> {
        let input = |name: &str| {
            let found = with.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map_or("", |(_, value)| value.trim())
        };
        let context = |name: &str| github.get(name).map(Value::to_text).unwrap_or_default();
        let is_off = |name: &str| input(name).eq_ignore_ascii_case("false");
        let path = input("path");
        let Some(path) = relative(path, &directories.workspace) else {
            return Err(Unfit::from(format!(
                "the path {path} of the checkout lies outside the workspace; name a directory \
                 inside it"
            )));
        };
        let repository = match input("repository") {
            "" => context("repository"),
            repository => repository.to_owned(),
        };
        let is_own = repository.eq_ignore_ascii_case(&context("repository"));
        let reference = input("ref");
        let known = ["ref", "sha", "ref_name", "head_ref"];
        let is_known = reference.is_empty() || known.iter().any(|name| context(name) == reference);
        let place = |source, reference| Self {
            target: directories.in_workspace(&path),
            clean: !is_off("clean"),
            source,
            reference,
        };
        if is_own && has_tree {
            if !is_known {
                return Err(Unfit::from(format!(
                    "this job has the local working tree only, and cannot check out {reference}; \
                     use \"git checkout\" in a \"run\" step, the history is there"
                )));
            }
            return Ok(place(Source::Here { commit: context("sha") }, context("ref")));
        }
        for (name, instead) in REFUSED {
            if !input(name).is_empty() && !is_off(name) && input(name) != context("server_url") {
                let sentence =
                    format!("the input {name} of a checkout is not supported; {instead}");
                return Err(Unfit::Original(sentence));
            }
        }
        let depth = match input("fetch-depth") {
            "" => 1,
            depth => depth.parse().map_err(|_| {
                format!("the input fetch-depth of the checkout is {depth}, and must be a number")
            })?,
        };
        let token = match input("token") {
            "" => context("token"),
            token => token.to_owned(),
        };
        // The commit of the job, whatever its branch is at by now; a branch that is named is wished
        // as it is now.
        let is_job = reference.is_empty() || reference == context("sha");
        let commit = Some(context("sha")).filter(|sha| is_own && is_job && !sha.is_empty());
        let reference = match reference {
            "" if is_own => context("ref"),
            reference => reference.to_owned(),
        };
        let wish = TreeWish {
            repository,
            reference: reference.clone(),
            commit,
            depth,
            tags: input("fetch-tags").eq_ignore_ascii_case("true"),
            token: Some(token).filter(|token| !token.is_empty()).map(Secret::new),
            keeps_token: !is_off("persist-credentials"),
            submodules: submodules(input("submodules")),
            sparse: sparse(input("sparse-checkout"), input("sparse-checkout-cone-mode")),
        };
        Ok(place(Source::Forge(Box::new(wish)), reference))
    }

    /// The outputs of the step.
    pub(super) fn outputs(&self, commit: &str) -> Vec<(String, String)> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![pair("ref", &self.reference), pair("commit", commit)]
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

/// Which submodules an input asks for. What it does not know asks for none, as in the original.
fn submodules(input: &str) -> Submodules {
    match input.to_ascii_lowercase().as_str() {
        "true" => Submodules::Own,
        "recursive" => Submodules::Nested,
        _ => Submodules::None,
    }
}

/// Which files the inputs ask for: a directory or pattern in each line.
fn sparse(lines: &str, cone: &str) -> Option<Sparse> {
    let patterns: Vec<_> =
        lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let is_cone = cone.is_empty() || cone.eq_ignore_ascii_case("true");
    (!patterns.is_empty()).then_some(Sparse { patterns, is_cone })
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

    /// A checkout in a job that has the local working tree, or does not.
    fn read(with: &[(&str, &str)], has_tree: bool) -> Result<Checkout, String> {
        let runner = RunnerFacts {
            os: String::new(),
            arch: String::new(),
            name: String::new(),
            tool_cache: String::new(),
        };
        let directories = Directories::new("/w", "o/r", &runner, "j");
        let context = [
            ("repository", "o/r"),
            ("ref", "refs/heads/main"),
            ("ref_name", "main"),
            ("sha", "1"),
            ("token", "t"),
            ("server_url", "https://f"),
        ];
        let github =
            Value::object(context.map(|(key, value)| (key.to_owned(), Value::text(value))));
        let with: Vec<_> = with.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        Checkout::new(&with, &github, &directories, has_tree).map_err(|unfit| match unfit {
            Unfit::Original(sentence) => sentence,
            Unfit::Failed(fault) => fault.sentence(),
        })
    }

    fn checkout(with: &[(&str, &str)]) -> Result<String, String> {
        read(with, true).map(|checkout| checkout.target)
    }

    #[test]
    fn the_tree_goes_where_the_inputs_say() {
        assert_eq!(checkout(&[]).as_deref(), Ok("/w/r/r"));
        assert_eq!(checkout(&[("path", "a/../b")]).as_deref(), Ok("/w/r/r/b"));
        assert_eq!(checkout(&[("path", "/w/r/r/x")]).as_deref(), Ok("/w/r/r/x"));
        assert_eq!(checkout(&[("repository", "O/R"), ("ref", "main")]).as_deref(), Ok("/w/r/r"));
        assert_eq!(checkout(&[("fetch-depth", "0")]).as_deref(), Ok("/w/r/r"));
    }

    fn wish(with: &[(&str, &str)]) -> Result<TreeWish, String> {
        read(with, false).map(|checkout| match checkout.source {
            Source::Forge(wish) => *wish,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn the_forge_is_asked_for_what_the_inputs_say() {
        let plain = wish(&[]).unwrap();
        let expected = TreeWish {
            repository: "o/r".to_owned(),
            reference: "refs/heads/main".to_owned(),
            commit: Some("1".to_owned()),
            depth: 1,
            tags: false,
            token: Some(Secret::new("t")),
            keeps_token: true,
            submodules: Submodules::None,
            sparse: None,
        };
        assert_eq!(plain, expected);
        let other = wish(&[("repository", "o/other"), ("token", "mine"), ("fetch-depth", "0")]);
        let token = Some(Secret::new("mine"));
        let reference = String::new();
        let repository = "o/other".to_owned();
        let expected =
            TreeWish { repository, reference, commit: None, depth: 0, token, ..expected };
        assert_eq!(other.unwrap(), expected);
        let tag = wish(&[("ref", "v1"), ("fetch-tags", "true"), ("persist-credentials", "false")]);
        let tag = tag.unwrap();
        assert_eq!((tag.reference.as_str(), tag.commit), ("v1", None));
        assert!(tag.tags && !tag.keeps_token);
        let known = wish(&[("ref", "main"), ("lfs", "false"), ("github-server-url", "https://f")]);
        assert_eq!(known.unwrap().commit, None);
        for (with, expected) in [
            (("lfs", "true"), "the input lfs"),
            (("ssh-key", "k"), "the input ssh-key"),
            (("fetch-depth", "all"), "must be a number"),
            (("github-server-url", "https://other"), "the input github-server-url"),
        ] {
            let error = wish(&[with]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn submodules_and_single_directories_are_asked_for() {
        for (input, expected) in [
            ("", Submodules::None),
            ("false", Submodules::None),
            ("true", Submodules::Own),
            ("True", Submodules::Own),
            ("recursive", Submodules::Nested),
            ("other", Submodules::None),
        ] {
            assert_eq!(wish(&[("submodules", input)]).unwrap().submodules, expected, "{input}");
        }
        let sparse = |lines: &str, cone: &str| {
            let with =
                [("sparse-checkout", lines), ("sparse-checkout-cone-mode", cone), ("filter", "x")];
            wish(&with).unwrap().sparse.map(|sparse| (sparse.patterns.join("|"), sparse.is_cone))
        };
        assert_eq!(sparse(" \n", ""), None);
        assert_eq!(sparse("src\n\n  a b \n", ""), Some(("src|a b".to_owned(), true)));
        assert_eq!(sparse("src", "True"), Some(("src".to_owned(), true)));
        assert_eq!(sparse("*.c\n!x.c", "false"), Some(("*.c|!x.c".to_owned(), false)));
    }

    #[test]
    fn the_local_working_tree_comes_as_it_is() {
        for with in [("submodules", "recursive"), ("sparse-checkout", "src"), ("lfs", "true")] {
            let source = read(&[with], true).unwrap().source;
            assert_eq!(source, Source::Here { commit: "1".to_owned() }, "{with:?}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_a_sentence() {
        for (with, expected) in [
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
