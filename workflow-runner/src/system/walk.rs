//! Walking over what patterns include, below the root of the file system.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use super::SystemError;
use super::glob::Patterns;

/// The deepest directory that is entered; deeper ones are an error.
const DEPTH: usize = 256;

/// What walks over the files: it is shown each that is included, directories before what is in them.
pub(super) trait Visitor {
    /// Takes a file, a directory or a link.
    fn visit(&mut self, path: &Path, facts: &Metadata) -> io::Result<()>;

    /// Whether a path, and all below it, is looked at.
    fn enters(&self, _path: &Path) -> bool {
        true
    }
}

/// Shows what absolute patterns include, in the order of their names; links are not followed.
pub(super) fn walk(patterns: &[String], visitor: &mut dyn Visitor) -> Result<(), SystemError> {
    let patterns = Patterns::parse("/", patterns.iter().map(String::as_str));
    for start in patterns.starts() {
        let path = start.iter().fold(PathBuf::from("/"), |path, part| path.join(part));
        enter(&path, &mut start.clone(), &patterns, visitor)?;
    }
    Ok(())
}

fn enter(
    path: &Path,
    parts: &mut Vec<String>,
    patterns: &Patterns,
    visitor: &mut dyn Visitor,
) -> Result<(), SystemError> {
    if !visitor.enters(path) {
        return Ok(());
    }
    let failed = |error| SystemError::new("read", path.display().to_string(), error);
    let facts = match fs::symlink_metadata(path) {
        Ok(facts) => facts,
        // What was just removed, or a start that does not exist.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(());
        }
        Err(error) => return Err(failed(error)),
    };
    let is_plain = facts.is_dir() || facts.is_file() || facts.is_symlink();
    if is_plain && !parts.is_empty() && patterns.includes(parts) {
        visitor.visit(path, &facts).map_err(failed)?;
    }
    if !facts.is_dir() || !patterns.may_include_below(parts) {
        return Ok(());
    }
    if parts.len() > DEPTH {
        return Err(failed(io::Error::other(format!(
            "it lies more than {DEPTH} directories deep"
        ))));
    }
    let names: io::Result<Vec<OsString>> =
        fs::read_dir(path).map_err(failed)?.map(|entry| entry.map(|e| e.file_name())).collect();
    let mut names = names.map_err(failed)?;
    names.sort_unstable();
    for name in names {
        parts.push(name.to_string_lossy().into_owned());
        enter(&path.join(&name), parts, patterns, visitor)?;
        parts.pop();
    }
    Ok(())
}
