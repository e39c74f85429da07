//! What a job gets of a mirror: the files of a commit, and a repository that knows it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::call::{CallError, TreeWish};
use reqwest::Url;
use tar::{Archive, Builder, EntryType, Header};

use super::git::{self, Credentials};
use super::store::cannot_write;

/// The name of the repository beside the files.
const GIT: &str = ".git";

/// Parts of a fresh repository that nobody needs.
const USELESS: [&str; 6] =
    ["hooks", "branches", "description", "FETCH_HEAD", "info", CONFIGURATION];

/// The configuration of a repository, which a job gets another one of.
const CONFIGURATION: &str = "config";

/// What is not archived as it stands in a repository: the forge's own archives leave files out by these
/// attributes, and a checkout does not (gitattributes(5)).
const ATTRIBUTES: &str = "* -export-ignore -export-subst\n";
const ATTRIBUTES_FILE: &str = "info/attributes";

/// The configuration of every repository that a job gets.
const CORE: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\
                    \tlogallrefupdates = true\n[gc]\n\tauto = 0\n";
const FETCH: &str = "\tfetch = +refs/heads/*:refs/remotes/origin/*\n";

/// The most entries and bytes of one tree.
const ENTRIES: u64 = 2_000_000;
const BYTES: u64 = 16 * common::limits::GIB;

/// How a commit is named in the repository that a job gets, as the checkout action names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// A branch, which is checked out.
    Branch(String),
    /// Another name, beside a commit that is checked out by itself.
    Other(String),
    /// None.
    Commit,
}

impl Named {
    /// `reference` is what was wished for, and `found` what the server has for it.
    pub(super) fn of(reference: &str, found: &str) -> Self {
        let name = if reference.starts_with("refs/") { reference } else { found };
        match name.strip_prefix("refs/heads/") {
            Some(branch) => Self::Branch(branch.to_owned()),
            None => match name.strip_prefix("refs/") {
                Some(rest) if rest.starts_with("tags/") => Self::Other(name.to_owned()),
                Some(rest) => Self::Other(format!("refs/remotes/{rest}")),
                None => Self::Commit,
            },
        }
    }

    /// Where the commit stands in the job's repository.
    fn stands_at(&self) -> String {
        match self {
            Self::Branch(branch) => format!("refs/remotes/origin/{branch}"),
            Self::Other(name) => name.clone(),
            Self::Commit => "refs/solstice/commit".to_owned(),
        }
    }
}

/// What is to be made.
pub(super) struct Export<'a> {
    pub(super) mirror: &'a Path,
    pub(super) commit: &'a str,
    pub(super) named: &'a Named,
    pub(super) wish: &'a TreeWish,
}

impl Export<'_> {
    /// Makes the job's repository in an empty directory; gives its configuration, which never lies on
    /// this host's disk: it has the job's token in it.
    pub(super) async fn make(
        &self,
        directory: &Path,
        url: &Url,
        credentials: Option<&Credentials>,
    ) -> Result<String, CallError> {
        let git = |arguments: Vec<String>| async move {
            git::run(directory, &git::local(), &arguments).await
        };
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        git(words(&["init", "--quiet", "--initial-branch=solstice", "."])).await?;
        let mirror = format!("file://{}", self.mirror.display());
        let mut fetch: Vec<String> = words(&["fetch", "--quiet", "--no-tags"]);
        if self.wish.depth > 0 {
            fetch.push(format!("--depth={}", self.wish.depth));
        }
        // Its other end gets none of our settings by itself.
        fetch.push(format!("--upload-pack=git {} upload-pack", git::READER.join(" ")));
        fetch.push(mirror);
        let at = self.named.stands_at();
        if !self.wish.tags || !at.starts_with("refs/tags/") {
            fetch.push(format!("+{}:{at}", self.commit));
        }
        if self.wish.tags {
            fetch.push("+refs/tags/*:refs/tags/*".to_owned());
        }
        git(fetch).await?;
        match self.named {
            Named::Branch(branch) => {
                let name = format!("refs/heads/{branch}");
                git(words(&["update-ref", &name, self.commit])).await?;
                git(words(&["symbolic-ref", "HEAD", &name])).await?;
            }
            Named::Other(_) | Named::Commit => {
                git(words(&["update-ref", "--no-deref", "HEAD", self.commit])).await?;
            }
        }
        git(words(&["read-tree", self.commit])).await?;
        let place = directory.join(GIT);
        let written = fs::create_dir_all(place.join("info"))
            .and_then(|()| fs::write(place.join(ATTRIBUTES_FILE), ATTRIBUTES));
        written.map_err(|error| cannot_write(&place, &error))?;
        Ok(self.configuration(url, credentials))
    }

    /// The configuration that the checkout action leaves.
    fn configuration(&self, url: &Url, credentials: Option<&Credentials>) -> String {
        let mut text = vec![CORE.to_owned()];
        text.push(format!("[remote \"origin\"]\n\turl = {}\n{FETCH}", quoted(url.as_str())));
        if let Named::Branch(branch) = self.named {
            let (name, merge) = (quoted(branch), quoted(&format!("refs/heads/{branch}")));
            text.push(format!("[branch {name}]\n\tremote = origin\n\tmerge = {merge}\n"));
        }
        if let Some(credentials) = credentials {
            let origin = quoted(&format!("{}/", url.origin().ascii_serialization()));
            let header = quoted(&format!("AUTHORIZATION: {}", credentials.expose()));
            text.push(format!("[http {origin}]\n\textraheader = {header}\n"));
        }
        text.concat()
    }
}

/// A text in a configuration of git, whatever is in it (git-config(1), "Syntax").
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Writes the archive: the files of the commit, then the repository. Blocks.
pub(super) fn write(
    directory: &Path,
    (commit, configuration): (&str, &str),
    output: impl Write,
) -> io::Result<()> {
    let mut tar = Builder::new(output);
    let mut child = git::command(directory, &git::local(), &["archive", "--format=tar", commit])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let copied = match child.stdout.take() {
        Some(files) => copy(files, &mut tar),
        None => Ok(()),
    };
    if copied.is_err() {
        drop(child.kill());
    }
    let status = child.wait()?;
    copied?;
    if !status.success() {
        return Err(io::Error::other(format!("git archive failed ({status})")));
    }
    let mut all = BTreeMap::new();
    walk(&directory.join(GIT), Path::new(GIT), &mut all)?;
    for (path, source) in all {
        if source.is_dir() {
            tar.append_dir(&path, &source)?;
        } else {
            tar.append_file(&path, &mut File::open(&source)?)?;
        }
    }
    let mut header = Header::new_gnu();
    header.set_size(configuration.len() as u64);
    header.set_mode(0o644);
    let path = Path::new(GIT).join(CONFIGURATION);
    tar.append_data(&mut header, path, configuration.as_bytes())?;
    tar.into_inner()?.flush()
}

/// Takes over the files of an archive that git has made, within bounds.
fn copy(files: impl Read, tar: &mut Builder<impl Write>) -> io::Result<()> {
    let (mut count, mut bytes) = (0, 0);
    let mut archive = Archive::new(files);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        (count, bytes) = (count + 1, bytes + entry.size());
        if count > ENTRIES || bytes > BYTES {
            let text = format!("the tree has more than {ENTRIES} files or {BYTES} bytes");
            return Err(io::Error::other(text));
        }
        let path = entry.path()?.into_owned();
        let mut header: Header = entry.header().clone();
        match kind {
            EntryType::Symlink => {
                let target = entry.link_name()?.map(std::borrow::Cow::into_owned);
                tar.append_link(&mut header, &path, target.unwrap_or_default())?;
            }
            EntryType::Regular | EntryType::Directory => {
                tar.append_data(&mut header, &path, &mut entry)?;
            }
            _ => return Err(io::Error::other("git's archive has something that is no file")),
        }
    }
    Ok(())
}

fn walk(source: &Path, inner: &Path, all: &mut BTreeMap<PathBuf, PathBuf>) -> io::Result<()> {
    all.insert(inner.to_owned(), source.to_owned());
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let name = entry.file_name();
        let at_top = inner == Path::new(GIT);
        if at_top && USELESS.iter().any(|useless| name == *useless) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &inner.join(&name), all)?;
        } else {
            all.insert(inner.join(&name), entry.path());
        }
    }
    Ok(())
}
