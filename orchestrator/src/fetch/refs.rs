//! What a git server says of its branches and tags (gitprotocol-http(5), "Smart Service
//! git-upload-pack" in version 0).

use common::call::{CallError, CallErrorKind};
use reqwest::Url;

/// The branches and tags of a repository, and the commits at which they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refs {
    /// Names and commits.
    all: Vec<(String, String)>,
    /// The branch that the repository begins with.
    head: Option<String>,
}

/// What a version stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The commit.
    pub(super) commit: String,
    /// What a server is asked for to get it.
    pub(super) wish: String,
}

impl Refs {
    /// Reads the answer to `info/refs?service=git-upload-pack`; nothing if it is none.
    pub(super) fn read(mut bytes: &[u8]) -> Option<Self> {
        let (mut refs, mut head) = (Vec::new(), None);
        let first = line(&mut bytes)??;
        if first.trim_ascii_end() != b"# service=git-upload-pack" {
            return None;
        }
        while !bytes.is_empty() {
            let Some(content) = line(&mut bytes)? else { continue };
            let mut parts = content.split(|byte| *byte == 0);
            let content = parts.next().unwrap_or_default();
            // Behind the first name the server says what it can do.
            let abilities = parts.next().and_then(|part| str::from_utf8(part).ok());
            let named = |word: &str| word.strip_prefix("symref=HEAD:").map(str::to_owned);
            head = head.or_else(|| abilities?.split_whitespace().find_map(named));
            let text = str::from_utf8(content).ok()?.trim_end();
            let (id, name) = text.split_once(' ')?;
            if !is_commit(id) {
                return None;
            }
            refs.push((name.to_owned(), id.to_owned()));
        }
        Some(Self { all: refs, head })
    }

    /// The commit of an action's version: of the tag, or of the branch.
    pub(super) fn find(&self, version: &str) -> Option<Found> {
        self.find_in(version, ["refs/tags/", "refs/heads/", ""])
    }

    /// The commit of what is checked out: of the branch, or of the tag.
    pub(super) fn find_branch(&self, version: &str) -> Option<Found> {
        self.find_in(version, ["refs/heads/", "refs/tags/", ""])
    }

    fn find_in(&self, version: &str, kinds: [&str; 3]) -> Option<Found> {
        if is_commit(version) {
            return Some(Found { commit: version.to_owned(), wish: version.to_owned() });
        }
        let id = |name: &str| self.all.iter().find(|(known, _)| known == name).map(|(_, id)| id);
        kinds.into_iter().find_map(|kind| {
            let name = format!("{kind}{version}");
            if kind.is_empty() && !name.starts_with("refs/") {
                return None;
            }
            // The commit of an annotated tag stands behind the tag itself.
            let commit = id(&format!("{name}^{{}}")).or_else(|| id(&name))?;
            Some(Found { commit: commit.clone(), wish: name })
        })
    }

    /// The commit of an action's version.
    ///
    /// # Errors
    /// The repository at `url` has no such version.
    pub(super) fn expect(&self, version: &str, url: &Url) -> Result<Found, CallError> {
        self.find(version).ok_or_else(|| self.absent(version, url))
    }

    /// The commit of what is checked out.
    ///
    /// # Errors
    /// The repository at `url` has no such version.
    pub(super) fn expect_branch(&self, version: &str, url: &Url) -> Result<Found, CallError> {
        self.find_branch(version).ok_or_else(|| self.absent(version, url))
    }

    fn absent(&self, version: &str, url: &Url) -> CallError {
        let whole = self.beginning_with(version).filter(|_| is_short_commit(version));
        let what = match (is_short_commit(version), whole) {
            (true, Some(id)) => format!("; if it is a commit, write its whole id: {id}"),
            (true, None) => "; if it is a commit, write its whole id".to_owned(),
            (false, _) => "; correct the version".to_owned(),
        };
        let text = format!("{url} has no branch or tag {version}{what}");
        CallError::new(CallErrorKind::NotFound, text)
    }

    /// The branch that the repository begins with.
    pub(super) fn head(&self) -> Option<&str> {
        self.head.as_deref()
    }

    /// A name that stands at a commit.
    pub(super) fn standing_at(&self, commit: &str) -> Option<&str> {
        let (name, _) = self.all.iter().find(|(name, id)| id == commit && name != "HEAD")?;
        // The commit of an annotated tag stands behind the tag itself.
        Some(name.strip_suffix("^{}").unwrap_or(name))
    }

    /// The only commit that begins so, if a branch or tag stands at it.
    pub(super) fn beginning_with(&self, short: &str) -> Option<&str> {
        let mut ids = self.all.iter().map(|(_, id)| id.as_str()).filter(|id| id.starts_with(short));
        let first = ids.next()?;
        ids.all(|id| id == first).then_some(first)
    }
}

/// Whether a version is the whole id of a commit.
pub(crate) fn is_commit(version: &str) -> bool {
    matches!(version.len(), 40 | 64)
        && version.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether a version looks like the beginning of one.
pub(super) fn is_short_commit(version: &str) -> bool {
    (7..40).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Takes a pkt-line: its content, nothing for one that only parts; absent if there is none.
fn line<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, rest) = bytes.split_at_checked(4)?;
    let length = usize::from_str_radix(str::from_utf8(length).ok()?, 16).ok()?;
    if length < 4 {
        *bytes = rest;
        return Some(None);
    }
    let (content, rest) = rest.split_at_checked(length - 4)?;
    *bytes = rest;
    Some(Some(content))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn answer(refs: &[(&str, &str)]) -> Vec<u8> {
        let mut text = "001e# service=git-upload-pack\n0000".to_owned();
        for (number, (id, name)) in refs.iter().enumerate() {
            let capabilities =
                if number == 0 { "\0multi_ack symref=HEAD:refs/heads/x" } else { "" };
            let line = format!("{id} {name}{capabilities}\n");
            let length = line.len() + 4;
            text += &[format!("{length:04x}"), line].concat();
        }
        (text + "0000").into_bytes()
    }

    #[test]
    fn versions_are_tags_before_branches() {
        let refs = [(A, "HEAD"), (A, "refs/heads/main"), (A, "refs/heads/v1"), (B, "refs/tags/v1")];
        let refs = Refs::read(&answer(&refs)).unwrap();
        let found = |version: &str| refs.find(version).map(|found| (found.commit, found.wish));
        assert_eq!(found("main"), Some((A.to_owned(), "refs/heads/main".to_owned())));
        assert_eq!(found("v1"), Some((B.to_owned(), "refs/tags/v1".to_owned())));
        assert_eq!(found("refs/heads/v1"), Some((A.to_owned(), "refs/heads/v1".to_owned())));
        assert_eq!(found("HEAD"), None);
        assert_eq!(found("v2"), None);
        assert_eq!(found(B), Some((B.to_owned(), B.to_owned())));
        assert_eq!(refs.beginning_with("bbbbbbb"), Some(B));
        assert_eq!(refs.head(), Some("refs/heads/x"));
    }

    #[test]
    fn an_annotated_tag_stands_for_its_commit() {
        let refs = Refs::read(&answer(&[(A, "refs/tags/v1"), (B, "refs/tags/v1^{}")])).unwrap();
        assert_eq!(refs.find("v1").map(|found| found.commit), Some(B.to_owned()));
        assert_eq!(refs.standing_at(B), Some("refs/tags/v1"));
        assert_eq!(refs.standing_at(&"c".repeat(40)), None);
    }

    #[test]
    fn a_web_page_is_no_answer() {
        assert_eq!(Refs::read(b"<!DOCTYPE html>"), None);
        assert_eq!(Refs::read(b""), None);
        assert_eq!(Refs::read(b"001e# service=git-upload-pack\n00000009abcde"), None);
        let empty = Refs::read(b"001e# service=git-upload-pack\n00000000");
        assert_eq!(empty, Some(Refs::default()));
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut answer = b"001e# service=git-upload-pack\n0000".to_vec();
            answer.extend(&bytes);
            drop(Refs::read(&answer));
            drop(Refs::read(&bytes));
        }
    }
}
