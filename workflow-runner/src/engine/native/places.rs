//! The paths that steps of these actions name.

use crate::engine::container::{CONTAINER_HOME, PathMap};
use crate::engine::job::Job;

use super::Unfit;

/// What the paths of a step mean: these actions work on the machine, and a step of a job with a
/// container names the paths of that.
pub(super) struct Places<'a> {
    /// The workspace on the machine.
    pub(super) workspace: &'a str,
    /// The home of the machine.
    pub(super) home: &'a str,
    /// The paths of the job's container.
    pub(super) container: &'a PathMap,
}

impl Places<'_> {
    /// A path or pattern of the step, which may have marks in front, as one from the root of the
    /// machine's file system: `~` is the home, all else is in the workspace.
    pub(super) fn absolute(&self, pattern: &str) -> Result<String, Unfit> {
        let bare = pattern.trim_start_matches('!').trim_start();
        let marks = &pattern[..pattern.len() - bare.len()];
        let home = if self.container.is_empty() { self.home } else { CONTAINER_HOME };
        let named = match bare.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
            _ if bare.starts_with('/') => bare.to_owned(),
            _ => return Ok(format!("{marks}{}/{bare}", self.workspace)),
        };
        match self.container.leave(&named) {
            Some(here) => Ok(format!("{marks}{here}")),
            None => Err(Unfit::Original(format!("only the job's container has the path {bare}"))),
        }
    }
}

impl Job<'_> {
    /// What the paths of a step mean.
    pub(super) fn places(&self) -> Places<'_> {
        Places {
            workspace: &self.directories.workspace,
            home: &self.facts.home,
            container: self.containers.paths(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(container: &PathMap, patterns: &[&str]) -> Vec<String> {
        let places = Places { workspace: "/w/r", home: "/home/me", container };
        patterns.iter().map(|pattern| places.absolute(pattern).unwrap()).collect()
    }

    #[test]
    fn paths_are_those_of_the_machine() {
        let found = all(&PathMap::default(), &["a", "!a/b", "~", "!~/c", "~d", "/e", "! /f"]);
        let expected = ["/w/r/a", "!/w/r/a/b", "/home/me", "!/home/me/c", "/w/r/~d", "/e", "! /f"];
        assert_eq!(found, expected);
    }

    #[test]
    fn paths_of_the_jobs_container_are_found_on_the_machine() {
        let container = PathMap::new([("/w", "/__w"), ("/w/_temp/home", CONTAINER_HOME)]);
        let found = all(&container, &["a", "!/__w/r/a", "~/b", "/github/home/c/**"]);
        assert_eq!(found, ["/w/r/a", "!/w/r/a", "/w/_temp/home/b", "/w/_temp/home/c/**"]);
        let places = Places { workspace: "/w/r", home: "/home/me", container: &container };
        let unfit = places.absolute("/usr/lib").unwrap_err();
        assert!(matches!(unfit, Unfit::Original(text) if text.ends_with("the path /usr/lib")));
    }
}
