//! Directories of the machine that a container has elsewhere.

/// Pairs of a directory of the machine and its place in a container.
///
/// Without pairs, as for a process on the machine itself, every path is its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct PathMap {
    pairs: Vec<(String, String)>,
}

impl PathMap {
    /// Takes pairs of a directory of the machine and its place in the container.
    pub(in crate::engine) fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let pairs = pairs.into_iter().map(|(here, there)| (here.to_owned(), there.to_owned()));
        Self { pairs: pairs.collect() }
    }

    /// The path in the container of one of the machine, or the text as it is.
    pub(in crate::engine) fn enter(&self, path: &str) -> String {
        let pairs = self.pairs.iter().map(|(here, there)| (here.as_str(), there.as_str()));
        moved(path, pairs).unwrap_or_else(|| path.to_owned())
    }

    /// The path on the machine of one in the container; absent where only the container has it.
    pub(in crate::engine) fn leave(&self, path: &str) -> Option<String> {
        if self.is_empty() {
            return Some(path.to_owned());
        }
        let pairs = self.pairs.iter().map(|(here, there)| (there.as_str(), here.as_str()));
        moved(path, pairs)
    }

    /// Whether the paths are those of the machine itself.
    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The pairs.
    pub(in crate::engine) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(here, there)| (here.as_str(), there.as_str()))
    }

    /// The same where the paths to enter with may already be those of another container.
    pub(in crate::engine) fn after(&self, other: &Self) -> Self {
        let mut pairs = self.pairs.clone();
        for (here, there) in &self.pairs {
            let seen = other.enter(here);
            if seen != *here {
                pairs.push((seen, there.clone()));
            }
        }
        Self { pairs }
    }
}

/// What stands behind a directory, or an address, in the path of something that is it or lies in it.
pub(super) fn below<'a>(path: &'a str, directory: &str) -> Option<&'a str> {
    path.strip_prefix(directory).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A path with the longest beginning that is known exchanged; of several ends the first.
fn moved<'a>(path: &str, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let mut best: Option<(usize, String)> = None;
    for (from, to) in pairs {
        let Some(rest) = below(path, from) else { continue };
        if best.as_ref().is_none_or(|(length, _)| from.len() > *length) {
            best = Some((from.len(), format!("{to}{rest}")));
        }
    }
    best.map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_directory_counts() {
        let map = PathMap::new([("/work", "/__w"), ("/work/_temp/home", "/github/home")]);
        for (here, there) in [
            ("/work", "/__w"),
            ("/work/a/b", "/__w/a/b"),
            ("/work/_temp/home/.cache", "/github/home/.cache"),
        ] {
            assert_eq!(map.enter(here), there);
            assert_eq!(map.leave(there).as_deref(), Some(here));
        }
        assert_eq!(map.enter("/workshop"), "/workshop");
        assert_eq!(map.enter("see /work"), "see /work");
        assert_eq!(map.leave("/etc"), None);
        assert_eq!(PathMap::default().leave("/etc").as_deref(), Some("/etc"));
    }

    #[test]
    fn paths_of_one_container_become_those_of_another() {
        let job = PathMap::new([("/work", "/__w")]);
        let action = PathMap::new([("/work/a/a", "/github/workspace")]).after(&job);
        assert_eq!(action.enter("/__w/a/a/x"), "/github/workspace/x");
        assert_eq!(action.enter("/work/a/a/x"), "/github/workspace/x");
        assert_eq!(action.leave("/github/workspace/x").as_deref(), Some("/work/a/a/x"));
    }
}
