//! `hashFiles`: one hash over the files that patterns include (github-runner-protocol 5.8,
//! forgejo-runner-protocol 8.5).
//!
//! Directories are walked depth first, names in the order of their bytes, because the order of the
//! files is part of the hash.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::SystemError;
use super::glob::Patterns;

/// The option that may stand first among the patterns.
const FOLLOW: &str = "--follow-symbolic-links";

/// How much of a file is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// The deepest directory that is entered; deeper ones are an error.
const DEPTH: usize = 256;

/// See [`super::System::hash_files`].
pub(super) fn hash_files(
    root: &str,
    patterns: &[String],
    deadline: Instant,
) -> Result<String, SystemError> {
    let (follow, patterns) = match patterns.split_first() {
        Some((first, rest)) if first.trim().eq_ignore_ascii_case(FOLLOW) => (true, rest),
        _ => (false, patterns),
    };
    let mut walk = Walk {
        root: Path::new(root),
        patterns: Patterns::parse(root, patterns.iter().map(String::as_str)),
        follow,
        deadline,
        outer: Sha256::new(),
        files: 0,
        buffer: vec![0; CHUNK],
    };
    for start in walk.patterns.starts() {
        let mut parts = start;
        let path = parts.iter().fold(PathBuf::from(root), |path, part| path.join(part));
        walk.visit(&path, &mut parts, &mut Vec::new())?;
    }
    if walk.files == 0 { Ok(String::new()) } else { Ok(hex::encode(walk.outer.finalize())) }
}

struct Walk<'a> {
    root: &'a Path,
    patterns: Patterns,
    follow: bool,
    deadline: Instant,
    outer: Sha256,
    files: u64,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    /// Hashes a file, or walks a directory; `above` holds the directories that links led through.
    fn visit(
        &mut self,
        path: &Path,
        parts: &mut Vec<String>,
        above: &mut Vec<PathBuf>,
    ) -> Result<(), SystemError> {
        self.check_time(path)?;
        let metadata = if self.follow { fs::metadata(path) } else { fs::symlink_metadata(path) };
        let metadata = match metadata {
            Ok(metadata) => metadata,
            // A link to nothing, a file that was just removed, or a start that does not exist.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(()),
            Err(error) => return Err(failed(path, error)),
        };
        if metadata.is_dir() {
            return self.visit_directory(path, parts, above);
        }
        // What a link points to is hashed under the link's name; a directory is not.
        let is_file = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        if is_file && self.patterns.includes(parts) {
            self.hash(path)?;
        }
        Ok(())
    }

    fn visit_directory(
        &mut self,
        path: &Path,
        parts: &mut Vec<String>,
        above: &mut Vec<PathBuf>,
    ) -> Result<(), SystemError> {
        if !self.patterns.may_include_below(parts) {
            return Ok(());
        }
        if parts.len() > DEPTH {
            let error = io::Error::other(format!("it lies more than {DEPTH} directories deep"));
            return Err(failed(path, error));
        }
        if self.follow {
            let real = fs::canonicalize(path).map_err(|error| failed(path, error))?;
            // A link to a directory that it lies in: walked once already.
            if above.contains(&real) {
                return Ok(());
            }
            above.push(real);
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(|error| failed(path, error))? {
            names.push(entry.map_err(|error| failed(path, error))?.file_name());
        }
        names.sort_unstable();
        for name in names {
            parts.push(name.to_string_lossy().into_owned());
            self.visit(&path.join(&name), parts, above)?;
            parts.pop();
        }
        if self.follow {
            above.pop();
        }
        Ok(())
    }

    fn hash(&mut self, path: &Path) -> Result<(), SystemError> {
        let mut file = File::open(path).map_err(|error| failed(path, error))?;
        let mut inner = Sha256::new();
        loop {
            self.check_time(path)?;
            let count = file.read(&mut self.buffer).map_err(|error| failed(path, error))?;
            if count == 0 {
                break;
            }
            inner.update(&self.buffer[..count]);
        }
        self.outer.update(inner.finalize());
        self.files += 1;
        Ok(())
    }

    fn check_time(&self, path: &Path) -> Result<(), SystemError> {
        if Instant::now() < self.deadline {
            return Ok(());
        }
        let place = path.strip_prefix(self.root).unwrap_or(path).display();
        let message = format!("it took too long, up to {place}; use narrower patterns");
        Err(failed(self.root, io::Error::new(io::ErrorKind::TimedOut, message)))
    }
}

fn failed(path: &Path, source: io::Error) -> SystemError {
    SystemError::new("hash", path.display().to_string(), source)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hash(files: &[(&str, &str)], patterns: &[&str]) -> String {
        let directory = tempfile::tempdir().unwrap();
        for (path, contents) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if let Some(target) = contents.strip_prefix("-> ") {
                std::os::unix::fs::symlink(target, path).unwrap();
            } else {
                fs::write(path, contents).unwrap();
            }
        }
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        hash_files(directory.path().to_str().unwrap(), &patterns, deadline).unwrap()
    }

    const ONE: &str = "ecb65bb98f9d905b70458986c39fcbad7715e5f2fcc3b1f07767d7c83e2438cc";
    const TWO: &str = "96cb8058ed58b58f8fc0ad459bacf81108599b403e91674460ccb089f8ebb9db";

    #[test]
    fn the_known_vectors_hold() {
        let files = [("a.txt", "hello\n"), ("b/c.txt", "world\n"), ("d.md", "x")];
        assert_eq!(hash(&files, &["a.txt"]), ONE);
        assert_eq!(hash(&files, &["**/*.txt"]), TWO);
        assert_eq!(hash(&files, &["a.txt", "b"]), TWO);
        assert_eq!(hash(&files, &["**\n!*.md"]), TWO);
        assert_eq!(hash(&files, &["none", "../x"]), "");
    }

    #[test]
    fn links_to_directories_are_followed_when_asked() {
        let files =
            [("a", "hello\n"), ("real/f", "world\n"), ("z", "-> real"), ("real/up", "-> ..")];
        assert_eq!(hash(&files, &["a", "z/f"]), TWO);
        assert_eq!(hash(&files, &["a", "z/**"]), ONE);
        assert_eq!(hash(&files, &[FOLLOW, "a", "z/f*"]), TWO);
        // Ends although a link leads back up.
        assert_ne!(hash(&files, &[FOLLOW, "**"]), "");
    }

    #[test]
    fn a_link_to_a_file_counts_and_a_link_to_nothing_does_not() {
        assert_eq!(hash(&[("x/a", "hello\n"), ("l", "-> x/a"), ("m", "-> gone")], &["*"]), {
            // `*` includes the directory x with what is in it, and the link.
            let twice = hash(&[("a", "hello\n"), ("b", "hello\n")], &["*"]);
            assert_ne!(twice, ONE);
            twice
        });
    }

    #[test]
    fn it_ends_at_its_deadline() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a"), "").unwrap();
        let patterns = ["*".to_owned()];
        let error =
            hash_files(directory.path().to_str().unwrap(), &patterns, Instant::now()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
