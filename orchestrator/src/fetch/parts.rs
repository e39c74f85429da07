//! What a guest gets as one archive: the files of a commit with their repository, and those of its
//! submodules, as git lays them out itself (gitsubmodules(7)).
//!
//! ```text
//!  FILES  .git/                          the repository that was asked for
//!  PATH/FILES  PATH/.git                 a submodule; its `.git` is a file that leads to
//!  .git/modules/NAME/                    its repository
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tar::{Archive, Builder, EntryType, Header};

use super::export::{CONFIGURATION, GIT};
use super::git;
use super::room::Work;
use super::sparse::{PATTERNS_FILE, Wanted};

/// Parts of a fresh repository that nobody needs.
const USELESS: [&str; 7] =
    ["hooks", "branches", "description", "FETCH_HEAD", "info", "config.worktree", CONFIGURATION];

/// The most entries and bytes of one tree, its submodules included.
const ENTRIES: u64 = 2_000_000;
pub(super) const BYTES: u64 = 16 * common::limits::GIB;

/// Where a part stands in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its files; empty for the top.
    pub(super) files: String,
    /// Its repository.
    pub(super) git: String,
}

impl Place {
    /// That of the repository that was asked for.
    pub(super) fn top() -> Self {
        Self { files: String::new(), git: GIT.to_owned() }
    }

    /// That of a submodule of this one.
    pub(super) fn below(&self, path: &str, name: &str) -> Self {
        let slash = if self.files.is_empty() { "" } else { "/" };
        Self {
            files: format!("{}{slash}{path}", self.files),
            git: format!("{}/modules/{name}", self.git),
        }
    }

    pub(super) fn is_top(&self) -> bool {
        self.files.is_empty()
    }

    /// What stands in the file that leads from the files of a submodule to its repository.
    fn link(&self) -> String {
        format!("gitdir: {}{}\n", up(&self.files), self.git)
    }

    /// The way from the repository of a submodule to its files.
    pub(super) fn worktree(&self) -> String {
        format!("{}{}", up(&self.git), self.files)
    }
}

/// The way out of a directory.
fn up(path: &str) -> String {
    "../".repeat(path.split('/').count())
}

/// A commit with its repository.
pub(super) struct Part {
    pub(super) place: Place,
    pub(super) commit: String,
    /// Where its repository was made.
    pub(super) work: Work,
    /// What that is to be configured with. It never lies on this host's disk: it has the job's token
    /// in it.
    pub(super) configuration: String,
    /// Whether some files are left out.
    pub(super) is_sparse: bool,
}

/// Writes the archive: of each part the files, then the repository. Blocks.
pub(super) fn write(parts: &[Part], output: impl Write) -> io::Result<()> {
    let mut tar = Builder::new(output);
    let mut bounds = Bounds { entries: 0, bytes: 0 };
    for part in parts {
        part.write_files(&mut tar, &mut bounds)?;
        if !part.place.is_top() {
            let path = format!("{}/{GIT}", part.place.files);
            write_text(&mut tar, &path, &part.place.link())?;
        }
        part.write_repository(&mut tar)?;
    }
    tar.into_inner()?.flush()
}

/// What was written so far.
struct Bounds {
    entries: u64,
    bytes: u64,
}

impl Bounds {
    fn count(&mut self, bytes: u64) -> io::Result<()> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.entries > ENTRIES || self.bytes > BYTES {
            let text = format!("the tree has more than {ENTRIES} files or {BYTES} bytes");
            return Err(io::Error::other(text));
        }
        Ok(())
    }
}

impl Part {
    fn write_files(&self, tar: &mut Builder<impl Write>, bounds: &mut Bounds) -> io::Result<()> {
        let directory = self.work.path();
        let wanted = self.is_sparse.then(|| Wanted::of(directory)).transpose()?;
        let arguments = ["archive", "--format=tar", &self.commit];
        let mut child = git::command(directory, &git::local(), &arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let copied = match child.stdout.take() {
            Some(files) => copy(files, &self.place.files, wanted, tar, bounds),
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
        Ok(())
    }

    fn write_repository(&self, tar: &mut Builder<impl Write>) -> io::Result<()> {
        let (source, inner) = (self.work.path().join(GIT), Path::new(&self.place.git));
        let mut all = BTreeMap::new();
        walk(&source, inner, &USELESS, &mut all)?;
        if self.is_sparse {
            all.insert(inner.join(PATTERNS_FILE), source.join(PATTERNS_FILE));
        }
        for (path, source) in all {
            if source.is_dir() {
                tar.append_dir(&path, &source)?;
            } else {
                tar.append_file(&path, &mut File::open(&source)?)?;
            }
        }
        let path = format!("{}/{CONFIGURATION}", self.place.git);
        write_text(tar, &path, &self.configuration)
    }
}

fn write_text(tar: &mut Builder<impl Write>, path: &str, text: &str) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, text.as_bytes())
}

/// Takes over the files of an archive that git has made, within bounds: all of them, or those that are
/// wanted.
fn copy(
    files: impl Read,
    below: &str,
    mut wanted: Option<Wanted>,
    tar: &mut Builder<impl Write>,
    bounds: &mut Bounds,
) -> io::Result<()> {
    let mut archive = Archive::new(files);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        bounds.count(entry.size())?;
        let path = entry.path()?.into_owned();
        if let Some(wanted) = &mut wanted {
            // Whoever unpacks it makes the directories of what is in them.
            let name = path.as_os_str().as_bytes();
            let is_wanted = match kind {
                EntryType::Directory => {
                    wanted.submodule(name.strip_suffix(b"/").unwrap_or(name))?.unwrap_or(false)
                }
                _ => wanted.file(name)?,
            };
            if !is_wanted {
                continue;
            }
        }
        let path = Path::new(below).join(path);
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
    // What fills the last block up. A git that is not rid of it ends by a signal.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}

fn walk(
    source: &Path,
    inner: &Path,
    without: &[&str],
    all: &mut BTreeMap<PathBuf, PathBuf>,
) -> io::Result<()> {
    all.insert(inner.to_owned(), source.to_owned());
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let name = entry.file_name();
        if without.iter().any(|useless| name == *useless) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &inner.join(&name), &[], all)?;
        } else {
            all.insert(inner.join(&name), entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_read_to_its_last_byte() {
        let mut made = Builder::new(Vec::new());
        write_text(&mut made, "file", "text\n").unwrap();
        let mut bytes = made.into_inner().unwrap();
        bytes.resize(10_240, 0);
        let mut left = &bytes[..];
        let mut tar = Builder::new(Vec::new());
        let mut bounds = Bounds { entries: 0, bytes: 0 };
        copy(&mut left, "", None, &mut tar, &mut bounds).unwrap();
        assert_eq!((left.len(), bounds.entries), (0, 1));
    }

    #[test]
    fn a_submodule_and_its_repository_lead_to_each_other() {
        let first = Place::top().below("libs/one", "one");
        assert_eq!(first.link(), "gitdir: ../../.git/modules/one\n");
        assert_eq!(first.worktree(), "../../../libs/one");
        let second = first.below("deep", "a/b");
        assert_eq!(second.link(), "gitdir: ../../../.git/modules/one/modules/a/b\n");
        assert_eq!(second.worktree(), "../../../../../../libs/one/deep");
    }
}
