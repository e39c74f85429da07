//! Walking over what patterns include, below the root of the file system.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::SystemError;
use super::glob::Patterns;

/// The deepest directory that is entered; deeper ones are an error.
const DEPTH: usize = 256;

/// The most paths that are looked at: directories full of links to each other have many.
const PATHS: usize = 2_000_000;

/// What walks over the files: it is shown each that is included, directories before what is in them.
pub(super) trait Visitor {
    /// Takes a file, a directory or a link.
    fn visit(&mut self, path: &Path, facts: &Metadata) -> io::Result<()>;

    /// Whether a path, and all below it, is looked at.
    fn enters(&self, _path: &Path) -> bool {
        true
    }

    /// Whether links to directories are entered.
    fn follows(&self) -> bool {
        false
    }
}

/// A directory, whatever leads to it: its device and its number there.
type Identity = (u64, u64);

/// A walk on its way.
struct Walk<'a> {
    patterns: &'a Patterns,
    visitor: &'a mut dyn Visitor,
    /// The parts of the path at which it is.
    parts: Vec<String>,
    /// The directories in which that lies, from the start on.
    above: Vec<Identity>,
    /// How many paths it has looked at.
    seen: usize,
}

/// Shows what absolute patterns include, in the order of their names.
pub(super) fn walk(patterns: &[String], visitor: &mut dyn Visitor) -> Result<(), SystemError> {
    let patterns = &Patterns::parse("/", patterns.iter().map(String::as_str));
    let mut walk = Walk { patterns, visitor, parts: Vec::new(), above: Vec::new(), seen: 0 };
    for start in patterns.starts() {
        let path = start.iter().fold(PathBuf::from("/"), |path, part| path.join(part));
        walk.parts = start;
        walk.enter(&path)?;
    }
    Ok(())
}

impl Walk<'_> {
    /// Goes on at a path.
    fn enter(&mut self, path: &Path) -> Result<(), SystemError> {
        if !self.visitor.enters(path) {
            return Ok(());
        }
        let failed = |error| SystemError::new("read", path.display().to_string(), error);
        let refused = |why: String| failed(io::Error::other(why));
        self.seen += 1;
        if self.seen > PATHS {
            return Err(refused(format!("there are more than {PATHS} files and directories")));
        }
        let facts = match fs::symlink_metadata(path) {
            Ok(facts) => facts,
            // What was just removed, or a start that does not exist.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(failed(error)),
        };
        let is_plain = facts.is_dir() || facts.is_file() || facts.is_symlink();
        if is_plain && !self.parts.is_empty() && self.patterns.includes(&self.parts) {
            self.visitor.visit(path, &facts).map_err(failed)?;
        }
        if !self.patterns.may_include_below(&self.parts) {
            return Ok(());
        }
        let follows = self.visitor.follows();
        let Some(identity) = directory(path, &facts, follows).map_err(failed)? else {
            return Ok(());
        };
        // A link to a directory in which it lies leads to nothing new.
        if self.above.contains(&identity) {
            return Ok(());
        }
        if self.parts.len() > DEPTH {
            return Err(refused(format!("it lies more than {DEPTH} directories deep")));
        }
        let names: io::Result<Vec<OsString>> =
            fs::read_dir(path).map_err(failed)?.map(|entry| entry.map(|e| e.file_name())).collect();
        let mut names = names.map_err(failed)?;
        names.sort_unstable();
        self.above.push(identity);
        for name in names {
            self.parts.push(name.to_string_lossy().into_owned());
            self.enter(&path.join(&name))?;
            self.parts.pop();
        }
        self.above.pop();
        Ok(())
    }
}

/// The directory at a path, or to which a link there leads if links are followed.
fn directory(path: &Path, facts: &Metadata, follows: bool) -> io::Result<Option<Identity>> {
    let identity = |facts: &Metadata| facts.is_dir().then(|| (facts.dev(), facts.ino()));
    if !facts.is_symlink() || !follows {
        return Ok(identity(facts));
    }
    match fs::metadata(path) {
        Ok(facts) => Ok(identity(&facts)),
        Err(error) if leads_nowhere(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a link leads to nothing, or to itself.
fn leads_nowhere(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(Errno::ELOOP as i32)
}
