//! A part of the files of a commit: git decides which they are, and later knows that the others were
//! left out (git-sparse-checkout(1)).

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use common::call::{CallError, CallErrorKind, Sparse};

use super::git;
use super::store::cannot_write;

/// The most patterns, and the most bytes of all of them.
const PATTERNS: usize = 1000;
const PATTERN_BYTES: usize = 64 * 1024;

/// The longest path of a file that is read, in bytes.
const PATH_BYTES: u64 = 64 * 1024;

/// Where git keeps them in a repository.
pub(super) const PATTERNS_FILE: &str = "info/sparse-checkout";

/// Whether git may be given these; the error is a sentence.
pub(crate) fn check(sparse: &Sparse) -> Result<(), String> {
    let bytes: usize = sparse.patterns.iter().map(String::len).sum();
    if sparse.patterns.len() > PATTERNS || bytes > PATTERN_BYTES {
        return Err(format!(
            "the input sparse-checkout has more than {PATTERNS} lines or {PATTERN_BYTES} bytes"
        ));
    }
    match sparse.patterns.iter().find(|pattern| pattern.contains(char::is_control)) {
        Some(odd) => {
            Err(format!("the input sparse-checkout has a line with odd characters: {odd:?}"))
        }
        None => Ok(()),
    }
}

/// Notes what is wished in a job's repository without files, whose index is still empty: then git
/// does not mind directories that the commit does not have.
pub(super) async fn note(directory: &Path, sparse: &Sparse) -> Result<(), CallError> {
    if sparse.is_cone {
        let mut arguments = vec!["sparse-checkout", "set", "--cone", "--"];
        arguments.extend(sparse.patterns.iter().map(String::as_str));
        git::run(directory, &git::local(), &arguments).await.map_err(|error| {
            let text = format!("the input sparse-checkout cannot be used: {}", error.message);
            CallError::new(CallErrorKind::Invalid, text)
        })?;
        return Ok(());
    }
    let path = directory.join(".git").join(PATTERNS_FILE);
    let text = sparse.patterns.join("\n") + "\n";
    let parent = path.parent().unwrap_or(directory);
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(&path, text))
        .map_err(|error| cannot_write(parent, &error))?;
    for (name, value) in [("core.sparseCheckout", "true"), ("core.sparseCheckoutCone", "false")] {
        git::run(directory, &git::local(), &["config", name, value]).await?;
    }
    Ok(())
}

/// Marks the files in the index that are left out.
pub(super) async fn mark(directory: &Path) -> Result<(), CallError> {
    git::run(directory, &git::local(), &["sparse-checkout", "reapply"]).await.map(drop)
}

/// What git in the guest must know.
pub(super) fn configuration(sparse: &Sparse) -> String {
    format!("[core]\n\tsparseCheckout = true\n\tsparseCheckoutCone = {}\n", sparse.is_cone)
}

/// Which files of the index are wanted, in its order, which is that of an archive too. Blocks.
pub(super) struct Wanted {
    child: Child,
    paths: BufReader<ChildStdout>,
    next: Option<(bool, Vec<u8>)>,
}

impl Wanted {
    pub(super) fn of(directory: &Path) -> io::Result<Self> {
        let mut child = git::command(directory, &git::local(), &["ls-files", "-t", "-z"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("git has no output"))?;
        let mut wanted = Self { child, paths: BufReader::new(stdout), next: None };
        wanted.step()?;
        Ok(wanted)
    }

    /// Whether a file is wanted.
    ///
    /// # Errors
    /// It is not the next one of the index.
    pub(super) fn file(&mut self, path: &[u8]) -> io::Result<bool> {
        self.submodule(path)?.ok_or_else(|| {
            let text = format!("{} is not the next file of the index", path.escape_ascii());
            io::Error::other(text)
        })
    }

    /// Whether a submodule is wanted; nothing if the directory is none.
    pub(super) fn submodule(&mut self, path: &[u8]) -> io::Result<Option<bool>> {
        match &self.next {
            Some((is_wanted, next)) if next == path => {
                let is_wanted = *is_wanted;
                self.step()?;
                Ok(Some(is_wanted))
            }
            _ => Ok(None),
        }
    }

    /// Goes to the next record: a letter, a blank and the path.
    fn step(&mut self) -> io::Result<()> {
        let mut record = Vec::new();
        (&mut self.paths).take(PATH_BYTES).read_until(0, &mut record)?;
        self.next = match record.strip_suffix(&[0]).unwrap_or(&record) {
            [] => None,
            [letter, b' ', path @ ..] => Some((*letter != b'S', path.to_owned())),
            _ => return Err(io::Error::other("git's list of files cannot be read")),
        };
        Ok(())
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        // Who has ended meanwhile needs no killing.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
