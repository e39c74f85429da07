//! The local working tree on its way into a guest: a tar stream of what git would see.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tar::{Builder, Header};

/// What a tree holds, for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeSize {
    /// Files, symbolic links included.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
}

/// Why a tree could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A file or directory could not be read.
    #[error("the working tree cannot be read at {path}: {source}")]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// git did not answer.
    #[error("git cannot {to} of {path}: {reason}")]
    Git {
        /// The tree.
        path: PathBuf,
        /// What it was asked for.
        to: &'static str,
        /// What git said.
        reason: String,
    },
    /// The stream into the guest broke.
    #[error("the working tree could not be sent: {0}")]
    Send(io::Error),
}

/// What goes into the archive: paths in it, and where each is read.
type Files = BTreeMap<PathBuf, PathBuf>;

/// Writes a tree as an uncompressed tar stream: in a git repository the tracked and the untracked
/// files that are not ignored, and the repository itself; elsewhere every file. A linked work tree
/// gets a repository of its own.
///
/// Blocks; files that vanish meanwhile are left out.
///
/// # Errors
/// See [`TreeError`].
pub fn write_tar(root: &Path, output: impl Write) -> Result<TreeSize, TreeError> {
    let mut files = if root.join(".git").exists() {
        let mut files = git_files(root)?;
        repository(root, &mut files)?;
        files
    } else {
        let mut files = Files::new();
        walk(root, Path::new(""), &mut files)?;
        files
    };
    files.remove(Path::new(""));
    let mut tar = Builder::new(output);
    tar.follow_symlinks(false);
    let mut size = TreeSize::default();
    for (path, source) in files {
        append(&mut tar, &path, source, &mut size)?;
    }
    tar.into_inner().and_then(|mut output| output.flush()).map_err(TreeError::Send)?;
    Ok(size)
}

/// The files that git tracks, and those that it neither tracks nor ignores.
fn git_files(root: &Path) -> Result<Files, TreeError> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = ask_git(root, "list the files", &arguments)?;
    let names = listed.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let files = names.map(|name| {
        let path = PathBuf::from(OsStr::from_bytes(name));
        let source = root.join(&path);
        (path, source)
    });
    Ok(files.collect())
}

/// What a linked work tree does not share with the repository that it is linked to
/// (gitrepository-layout(5)), and so has in its own part.
const OF_ONE_TREE: [&str; 4] = ["HEAD", "index", "logs/HEAD", "worktrees"];

/// How the two parts find each other; in one directory they need not.
const LINKS: [&str; 3] = ["commondir", "gitdir", "locked"];

/// Adds the repository. That of a linked work tree is made of its own part and what all work trees
/// share; a guest has neither of those places.
fn repository(root: &Path, files: &mut Files) -> Result<(), TreeError> {
    let inside = Path::new(".git");
    if root.join(inside).is_dir() {
        return walk(&root.join(inside), inside, files);
    }
    let place = |which: &str| {
        let path = ask_git(root, "find the repository", &["rev-parse", which])?;
        Ok(root.join(OsStr::from_bytes(path.trim_ascii_end())))
    };
    let (own, shared) = (place("--git-dir")?, place("--git-common-dir")?);
    walk(&shared, inside, files)?;
    if own != shared {
        for name in OF_ONE_TREE.map(|name| inside.join(name)) {
            files.retain(|path, _| !path.starts_with(&name));
        }
        walk(&own, inside, files)?;
        for name in LINKS {
            files.remove(&inside.join(name));
        }
    }
    Ok(())
}

fn ask_git(root: &Path, to: &'static str, arguments: &[&str]) -> Result<Vec<u8>, TreeError> {
    let failed = |reason: String| TreeError::Git { path: root.to_owned(), to, reason };
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// The mark of a directory that can be made again, such as Cargo's `target`.
const CACHE_MARK: &str = "CACHEDIR.TAG";

/// Adds everything below the directory `source` as `directory`, itself included; directories that
/// are marked as caches are left out.
fn walk(source: &Path, directory: &Path, files: &mut Files) -> Result<(), TreeError> {
    let failed = |error| TreeError::Read { path: source.to_owned(), source: error };
    files.insert(directory.to_owned(), source.to_owned());
    for entry in source.read_dir().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, below) = (entry.path(), directory.join(entry.file_name()));
        if !entry.file_type().map_err(failed)?.is_dir() {
            files.insert(below, path);
        } else if !path.join(CACHE_MARK).is_file() {
            walk(&path, &below, files)?;
        }
    }
    Ok(())
}

fn append(
    tar: &mut Builder<impl Write>,
    path: &Path,
    full: PathBuf,
    size: &mut TreeSize,
) -> Result<(), TreeError> {
    let metadata = match full.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(TreeError::Read { path: full, source }),
    };
    let kind = metadata.file_type();
    if !(kind.is_dir() || kind.is_file() || kind.is_symlink()) {
        return Ok(());
    }
    if kind.is_file() {
        // Opened here so that an unreadable file is told from a broken stream.
        let file = match File::open(&full) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(TreeError::Read { path: full, source }),
        };
        let mut header = Header::new_gnu();
        header.set_metadata(&metadata);
        if is_git_config(path) {
            let own = path == Path::new(".git/config");
            let text = git_config(file, own);
            let text = text.map_err(|source| TreeError::Read { path: full, source })?;
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, path, text.as_slice()).map_err(TreeError::Send)?;
        } else {
            // Somebody may write to the file now: the archive holds as much as it has announced.
            let content = file.chain(io::repeat(0)).take(metadata.len());
            header.set_size(metadata.len());
            tar.append_data(&mut header, path, content).map_err(TreeError::Send)?;
        }
    } else if kind.is_dir() {
        tar.append_dir(path, &full).map_err(TreeError::Send)?;
    } else {
        tar.append_path_with_name(&full, path).map_err(TreeError::Send)?;
    }
    if !kind.is_dir() {
        size.files += 1;
        size.bytes += metadata.len();
    }
    Ok(())
}

/// The configuration of a repository or of a submodule in it.
fn is_git_config(path: &Path) -> bool {
    path.starts_with(".git") && path.file_name() == Some(OsStr::new("config"))
}

/// The largest configuration file that is read.
const GIT_CONFIG_BYTES: u64 = 1024 * 1024;

/// A git configuration without the credentials that people and tools leave in it: they are the
/// host's and must not enter a guest. Our `own`, and not that of a submodule, belongs to the tree
/// around it from now on, which a linked work tree or a submodule has in another way.
fn git_config(file: File, own: bool) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(GIT_CONFIG_BYTES).read_to_end(&mut text)?;
    let mut clean = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let (key, value) = match line.iter().position(|byte| *byte == b'=') {
            Some(at) => (line[..at].trim_ascii().to_ascii_lowercase(), &line[at..]),
            None => (Vec::new(), line),
        };
        if key == b"extraheader" || own && matches!(&key[..], b"bare" | b"worktree") {
            continue;
        }
        clean.extend_from_slice(&line[..line.len() - value.len()]);
        clean.extend_from_slice(&without_user(value));
    }
    Ok(clean)
}

/// A value without the user and password in front of the host of its address.
fn without_user(value: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(value);
    let Some((scheme, rest)) = text.split_once("://") else { return value.to_vec() };
    let host_end = rest.find(['/', '\n', '"']).unwrap_or(rest.len());
    match rest[..host_end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]).into_bytes(),
        None => value.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn git(directory: &Path, arguments: &[&str]) -> String {
        let done = Command::new("git")
            .arg("-C")
            .arg(directory)
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    fn names(root: &Path) -> Vec<String> {
        let mut bytes = Vec::new();
        write_tar(root, &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names = archive.entries().unwrap().map(|entry| {
            entry.unwrap().path().unwrap().to_string_lossy().trim_end_matches('/').to_owned()
        });
        names.filter(|name| !name.starts_with(".git/") && name != ".git").collect()
    }

    /// Where a tree arrives.
    fn sent(root: &Path) -> tempfile::TempDir {
        let mut bytes = Vec::new();
        write_tar(root, &mut bytes).unwrap();
        let there = tempfile::tempdir().unwrap();
        tar::Archive::new(bytes.as_slice()).unpack(there.path()).unwrap();
        there
    }

    #[test]
    fn a_repository_gives_what_git_sees_and_itself() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        git(root, &["init", "-q"]);
        fs::write(root.join(".gitignore"), "ignored\n").unwrap();
        fs::write(root.join("tracked"), "1").unwrap();
        fs::write(root.join("deleted"), "1").unwrap();
        git(root, &["add", "."]);
        git(root, &["commit", "-q", "-m", "m"]);
        fs::remove_file(root.join("deleted")).unwrap();
        fs::write(root.join("ignored"), "1").unwrap();
        fs::create_dir(root.join("new")).unwrap();
        fs::write(root.join("new/un tracked\n"), "12").unwrap();
        std::os::unix::fs::symlink("tracked", root.join("link")).unwrap();
        assert_eq!(names(root), [".gitignore", "link", "new/un tracked\n", "tracked"]);
        git(sent(root).path(), &["log", "-1"]);
    }

    #[test]
    fn a_plain_directory_gives_every_file() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("a/empty")).unwrap();
        fs::write(directory.path().join("a/b"), "1").unwrap();
        assert_eq!(names(directory.path()), ["a", "a/b", "a/empty"]);
    }

    #[test]
    fn credentials_in_a_configuration_stay_on_the_host() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        git(root, &["init", "-q"]);
        git(root, &["config", "http.https://forge.example/.extraheader", "basic c2VjcmV0"]);
        git(root, &["remote", "add", "a", "https://me:hunter2@forge.example/a/b?x=@"]);
        git(root, &["remote", "add", "b", "git@forge.example:a/b"]);
        let unpacked = sent(root);
        let config = fs::read_to_string(unpacked.path().join(".git/config")).unwrap();
        assert!(!config.contains("hunter2") && !config.contains("c2VjcmV0"), "{config}");
        assert!(config.contains("url = https://forge.example/a/b?x=@"), "{config}");
        assert!(config.contains("url = git@forge.example:a/b"), "{config}");
        git(unpacked.path(), &["remote", "-v"]);
    }

    /// Cuts a file as soon as the first bytes of the archive are written.
    struct Meddler<'a>(&'a Path, Vec<u8>);

    impl Write for Meddler<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            fs::write(self.0, "short")?;
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_file_that_changes_meanwhile_does_not_damage_the_archive() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::write(root.join("a"), "x".repeat(1000)).unwrap();
        fs::write(root.join("b"), "end").unwrap();
        let file = root.join("a");
        let mut output = Meddler(&file, Vec::new());
        write_tar(root, &mut output).unwrap();
        let mut archive = tar::Archive::new(output.1.as_slice());
        let entries = archive.entries().unwrap().map(|entry| entry.unwrap().size());
        assert_eq!(entries.collect::<Vec<_>>(), [1000, 3]);
    }

    #[test]
    fn caches_and_linked_repositories() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir(root.join("target")).unwrap();
        fs::write(root.join("target").join(CACHE_MARK), "").unwrap();
        fs::write(root.join("a"), "1").unwrap();
        assert_eq!(names(root), ["a"]);
        git(root, &["init", "-q"]);
        git(root, &["add", "a"]);
        git(root, &["commit", "-q", "-m", "m"]);
        let linked = root.join("linked");
        git(root, &["worktree", "add", "-q", linked.to_str().unwrap()]);
        git(&linked, &["commit", "-q", "--allow-empty", "-m", "of the linked tree"]);
        fs::write(linked.join("b"), "2").unwrap();
        git(&linked, &["add", "b"]);
        git(root, &["config", "core.bare", "true"]);
        assert_eq!(names(&linked), ["a", "b"]);
        let there = sent(&linked);
        fs::remove_dir_all(root).unwrap();
        let asked = |arguments: &[&str]| git(there.path(), arguments);
        assert_eq!(asked(&["log", "--format=%s"]), "of the linked tree\nm\n");
        assert_eq!(asked(&["status", "--porcelain", "--branch"]), "## linked\nA  b\n");
        assert_eq!(asked(&["fsck"]), "");
        assert_eq!(asked(&["worktree", "list"]).lines().count(), 1);
    }

    #[test]
    fn a_submodule_is_a_repository_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let (inner, outer) = (directory.path().join("inner"), directory.path().join("outer"));
        for root in [&inner, &outer] {
            fs::create_dir(root).unwrap();
            git(root, &["init", "-q"]);
            git(root, &["commit", "-q", "--allow-empty", "-m", "m"]);
        }
        let source = inner.to_str().unwrap();
        git(&outer, &["-c", "protocol.file.allow=always", "submodule", "add", "-q", source, "sub"]);
        let there = sent(&outer.join("sub"));
        assert_eq!(git(there.path(), &["log", "--format=%s"]), "m\n");
        assert_eq!(git(there.path(), &["status", "--porcelain"]), "");
    }

    #[test]
    fn a_broken_stream_is_told_from_a_broken_tree() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a"), "1").unwrap();
        assert!(matches!(write_tar(directory.path(), Full), Err(TreeError::Send(_))));
        assert!(matches!(
            write_tar(Path::new("/nonexistent/tree"), Vec::new()),
            Err(TreeError::Read { .. })
        ));
    }
}
