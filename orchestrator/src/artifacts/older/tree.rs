//! Complete artifacts of the third version: a directory for each, with its files as they are.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use axum::http::StatusCode;

use super::super::kept::{Change, Completing, Limits, TREES, alone, entries};
use super::super::{broken, missing};
use super::Item;
use super::pending::PendingFile;
use crate::answer::Refusal;

/// The complete artifacts of a run.
#[derive(Clone, Debug)]
pub(super) struct Trees {
    run: PathBuf,
    directory: PathBuf,
}

impl Trees {
    pub(super) fn new(run: &Path) -> Self {
        Self { run: run.to_owned(), directory: run.join(TREES) }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Whether there is this artifact.
    pub(super) fn has(&self, name: &str) -> bool {
        self.place(name).is_dir()
    }

    /// The names of all, in order.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let _alone = alone(&self.run)?;
        let all = entries(&self.directory)?.into_iter();
        let mut names: Vec<String> =
            all.filter_map(|(path, _)| Some(path.file_name()?.to_str()?.to_owned())).collect();
        names.sort();
        Ok(names)
    }

    /// The paths of the files of an artifact, in order.
    pub(super) fn files(&self, name: &str) -> io::Result<Vec<String>> {
        let place = self.place(name);
        let (mut files, mut open) = (Vec::new(), vec![place.clone()]);
        while let Some(directory) = open.pop() {
            for (path, facts) in entries(&directory)? {
                if facts.is_dir() {
                    open.push(path);
                } else if let Some(path) = path.strip_prefix(&place).ok().and_then(Path::to_str) {
                    files.push(path.to_owned());
                }
            }
        }
        files.sort();
        Ok(files)
    }

    /// A file of an artifact.
    pub(super) fn open(&self, item: &Item) -> Result<File, Refusal> {
        let Item { name, path } = item;
        let file = self.place(name).join(path);
        let is_file = file.symlink_metadata().is_ok_and(|facts| facts.is_file());
        if !is_file {
            let text = format!("the artifact {name} of this run has no file {path}");
            return Err(match self.has(name) {
                true => Refusal::new(StatusCode::NOT_FOUND, text),
                false => missing(name),
            });
        }
        File::open(file).map_err(broken)
    }

    /// Puts files into an artifact, which is made if it is not there.
    pub(super) fn add(
        &self,
        name: &str,
        files: &[PendingFile],
        limits: &Limits,
    ) -> Result<(), Refusal> {
        let completing = Completing::begin(&self.run).map_err(broken)?;
        let place = self.place(name);
        completing.admit(self.change(name, files, limits)?, limits)?;
        let targets = files.iter().map(|file| (file, place.join(&file.path)));
        for (_, target) in targets.clone() {
            target.parent().map_or(Ok(()), fs::create_dir_all).map_err(broken)?;
        }
        // What is killed here leaves a part of them, and the rest comes when the question is repeated.
        for (file, target) in targets {
            fs::rename(file.whole(), target).map_err(broken)?;
        }
        Ok(())
    }

    /// What the artifact takes more with these files.
    fn change(
        &self,
        name: &str,
        files: &[PendingFile],
        limits: &Limits,
    ) -> Result<Change, Refusal> {
        let place = self.place(name);
        let (mut bytes, mut replaced, mut new) = (0, 0, 0);
        for file in files {
            bytes += file.whole().metadata().map_err(broken)?.len();
            match place.join(&file.path).symlink_metadata() {
                Ok(facts) if facts.is_dir() => return Err(in_the_way(&file.path, "directory")),
                Ok(facts) => replaced += facts.len(),
                Err(_) => new += 1,
            }
        }
        let mut made = u64::from(!place.exists());
        for directory in parents(files) {
            match place.join(directory).symlink_metadata() {
                Ok(facts) if facts.is_dir() => {}
                Ok(_) => return Err(in_the_way(directory, "file")),
                Err(_) => made += 1,
            }
        }
        let known = self.files(name).map_err(broken)?;
        check_count(name, known.len() as u64 + new, limits)?;
        let kept = known.iter().map(|path| path.len() as u64).sum::<u64>();
        let paths = kept + files.iter().map(|file| file.path.len() as u64).sum::<u64>();
        if paths > limits.path_bytes {
            let most = limits.path_bytes;
            let text = format!(
                "the paths in the artifact {name} would have {paths} bytes, and may have {most}; pack \
                 the files into one"
            );
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        let artifacts = u64::from(!place.exists());
        Ok(Change { bytes: bytes.saturating_sub(replaced), artifacts, entries: new + made })
    }
}

/// Whether an artifact may have so many files.
pub(super) fn check_count(name: &str, count: u64, limits: &Limits) -> Result<(), Refusal> {
    if count <= limits.files {
        return Ok(());
    }
    let most = limits.files;
    let text = format!("the artifact {name} would have more than {most} files; pack them into one");
    Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text))
}

/// Whether these files can be in one directory.
pub(super) fn check_paths(
    name: &str,
    files: &[PendingFile],
    limits: &Limits,
) -> Result<(), Refusal> {
    let (paths, parents): (HashSet<&str>, _) =
        (files.iter().map(|file| file.path.as_str()).collect(), parents(files));
    if parents.len() as u64 > limits.entries {
        let most = limits.entries;
        let text = format!("the artifact {name} has more than the {most} directories that it may");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    match parents.into_iter().find(|directory| paths.contains(directory)) {
        Some(directory) => Err(in_the_way(directory, "file")),
        None => Ok(()),
    }
}

/// The directories in which these files are.
fn parents(files: &[PendingFile]) -> BTreeSet<&str> {
    let above = |path| str::match_indices(path, '/').map(move |(at, _)| &path[..at]);
    files.iter().flat_map(|file| above(file.path.as_str())).collect()
}

fn in_the_way(path: &str, what: &str) -> Refusal {
    let text = format!("the artifact has a {what} {path}, which cannot be something else too");
    Refusal::new(StatusCode::CONFLICT, text)
}
