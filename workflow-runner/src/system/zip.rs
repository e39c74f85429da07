//! Zip archives of artifacts: made of what patterns include, and unpacked below a directory.
//!
//! Which directory is the root of an archive follows the originals: with one pattern it is where the
//! search begins, or the directory of the file that is all; with several it is what they have in common.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ::zip::read::ZipArchive;
use ::zip::write::SimpleFileOptions;
use ::zip::{CompressionMethod, ZipWriter};
use common::call::may_be_in_artifact;

use super::glob::Patterns;
use super::walk::{Visitor, walk};
use super::{Found, Owner, Packed, SystemError, below};

/// The most entries of an archive that is unpacked.
const ENTRIES: usize = 2_000_000;

/// A file of this size needs the larger form of an entry.
const LARGE: u64 = u32::MAX as u64;

/// What an artifact is made of.
#[derive(Clone, Debug)]
pub struct ZipWish {
    /// Absolute patterns.
    pub patterns: Vec<String>,
    /// Whether what begins with a dot is included.
    pub hidden: bool,
    /// How much effort is spent on making it small, from 0 to 9.
    pub level: u32,
}

/// Finds the files, by the names that they have in the archive.
pub(super) fn find(wish: &ZipWish) -> Result<Vec<Found>, SystemError> {
    let files = files(wish)?;
    let root = root(wish, &files);
    let found = |path: PathBuf| {
        let name = name_of(&root, &path);
        let name = name.map_err(|error| SystemError::new("take", display(&path), error))?;
        Ok(Found { path, name })
    };
    files.into_iter().map(found).collect()
}

/// The name of a file in the archive.
fn name_of(root: &Path, path: &Path) -> io::Result<String> {
    let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
    match name.chars().find(|c| !may_be_in_artifact(*c)) {
        Some(odd) => Err(io::Error::other(format!(
            "its path contains {odd:?}, and no artifact may have \" : < > | * ? or a line break in one"
        ))),
        None => Ok(name),
    }
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

/// The files; the archive is made of these.
fn files(wish: &ZipWish) -> Result<Vec<PathBuf>, SystemError> {
    let mut finder = Finder { hidden: wish.hidden, files: Vec::new() };
    walk(&wish.patterns, &mut finder)?;
    Ok(finder.files)
}

struct Finder {
    hidden: bool,
    files: Vec<PathBuf>,
}

impl Visitor for Finder {
    fn visit(&mut self, path: &Path, facts: &Metadata) -> io::Result<()> {
        // A link counts as what it leads to.
        let is_file = facts.is_file() || (facts.is_symlink() && path.is_file());
        if is_file {
            self.files.push(path.to_owned());
        }
        Ok(())
    }

    fn follows(&self) -> bool {
        true
    }

    fn enters(&self, path: &Path) -> bool {
        let name = path.file_name().map(|name| name.to_string_lossy());
        self.hidden || name.is_none_or(|name| !name.starts_with('.'))
    }
}

/// Writes the archive.
pub(super) fn zip(wish: &ZipWish, out: impl Write) -> Result<Packed, SystemError> {
    let files = files(wish)?;
    let root = root(wish, &files);
    let mut archive = ZipWriter::new_stream(out);
    let mut packed = Packed::default();
    for path in &files {
        let failed = |error| SystemError::new("pack", display(path), error);
        add(&mut archive, &root, path, wish.level, &mut packed).map_err(failed)?;
    }
    let ended = archive.finish().map_err(io::Error::other);
    let ended = ended.and_then(|stream| stream.into_inner().flush());
    ended.map_err(|error| SystemError::new("end", "the archive", error))?;
    Ok(packed)
}

fn add<W: Write + Seek>(
    archive: &mut ZipWriter<W>,
    root: &Path,
    path: &Path,
    level: u32,
    packed: &mut Packed,
) -> io::Result<()> {
    let mut file = File::open(path)?;
    let facts = file.metadata()?;
    let method = match level {
        0 => CompressionMethod::Stored,
        _ => CompressionMethod::Deflated,
    };
    let options = SimpleFileOptions::default()
        .compression_method(method)
        .compression_level((level > 0).then_some(i64::from(level)))
        .unix_permissions(facts.permissions().mode() & 0o777)
        .large_file(facts.size() >= LARGE);
    let name = name_of(root, path)?;
    archive.start_file(name, options).map_err(io::Error::other)?;
    packed.files += 1;
    packed.bytes += io::copy(&mut file, archive)?;
    Ok(())
}

/// The directory to which the names in the archive are relative.
fn root(wish: &ZipWish, files: &[PathBuf]) -> PathBuf {
    let starts = Patterns::parse("/", wish.patterns.iter().map(String::as_str)).starts();
    let path = |parts: &[String]| parts.iter().fold(PathBuf::from("/"), |path, p| path.join(p));
    let common = match starts.split_first() {
        None => return PathBuf::from("/"),
        Some((first, rest)) => rest.iter().fold(first.clone(), |common, start| {
            common.iter().zip(start).take_while(|(a, b)| a == b).map(|(a, _)| a.clone()).collect()
        }),
    };
    let common = path(&common);
    match files {
        [file] if *file == common => common.parent().map_or(PathBuf::from("/"), Path::to_owned),
        _ => common,
    }
}

/// Unpacks an archive below a directory, and nowhere else. Files that are there are replaced.
pub(super) fn unzip(
    file: impl Read + Seek,
    to: &Path,
    owner: Owner,
) -> Result<Packed, SystemError> {
    let broken = |error| SystemError::new("unpack", "the archive", io::Error::other(error));
    let mut archive = ZipArchive::new(file).map_err(|error| broken(error.to_string()))?;
    if archive.len() > ENTRIES {
        return Err(broken(format!("it has more than {ENTRIES} entries")));
    }
    let mut packed = Packed::default();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| broken(error.to_string()))?;
        let name = entry.name().map(|name| name.into_owned());
        let name = name.map_err(|error| broken(error.to_string()))?;
        let failed = |error| SystemError::new("unpack", name.clone(), error);
        let refuse = |why: &str| failed(io::Error::other(why.to_owned()));
        let inner = entry.enclosed_name().ok_or_else(|| refuse("it leads out of the directory"))?;
        if entry.is_dir() {
            below::create_directory(to, &inner, owner).map_err(failed)?;
            continue;
        }
        // What the originals unpack has the permissions of a new file, and may be run if it could be.
        let mode = 0o644 | (entry.unix_mode().unwrap_or_default() & 0o111);
        let mut out = below::create(to, &inner, mode, owner).map_err(failed)?;
        packed.bytes += io::copy(&mut entry.by_ref(), &mut out).map_err(failed)?;
        packed.files += 1;
    }
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Cursor;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::system::{Local, System};

    fn owner() -> Owner {
        Owner { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw() }
    }

    fn tree() -> TempDir {
        let base = tempfile::tempdir().unwrap();
        let path = |name: &str| base.path().join(name);
        fs::create_dir_all(path("out/deep")).unwrap();
        fs::create_dir_all(path("out/.git")).unwrap();
        for name in ["out/one", "out/deep/two", "out/.hidden", "out/.git/HEAD", "log"] {
            fs::write(path(name), name).unwrap();
        }
        fs::set_permissions(path("out/one"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("one", path("out/link")).unwrap();
        base
    }

    /// The names in the archive that a wish makes, with a directory in front of each pattern.
    async fn names(patterns: &[&str], hidden: bool) -> Vec<String> {
        let (base, to) = (tree(), tempfile::tempdir().unwrap());
        let at = |pattern: &&str| match pattern.strip_prefix('!') {
            Some(rest) => format!("!{}/{rest}", base.path().display()),
            None => format!("{}/{pattern}", base.path().display()),
        };
        let wish = ZipWish { patterns: patterns.iter().map(at).collect(), hidden, level: 6 };
        let mut packing = Local::new().zip(wish);
        let mut bytes = Vec::new();
        packing.archive.read_to_end(&mut bytes).await.unwrap();
        let files = packing.result.await.unwrap().files;
        let temporary = to.path().join("zip").to_str().unwrap().to_owned();
        let place = to.path().join("x");
        let system = Local::new();
        let unzipped = system.unzip(
            Box::new(Cursor::new(bytes)),
            &temporary,
            place.to_str().unwrap(),
            owner(),
        );
        assert_eq!(unzipped.await.unwrap().files, files);
        assert!(!Path::new(&temporary).exists());
        let mut names = Vec::new();
        let mut open = vec![place.clone()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                match entry.path().is_dir() {
                    true => open.push(entry.path()),
                    false => {
                        let path = entry.path();
                        let name = path.strip_prefix(&place).unwrap().to_str().unwrap().to_owned();
                        let mode = path.metadata().unwrap().permissions().mode() & 0o111;
                        names.push(if mode == 0 { name } else { format!("{name}*") });
                    }
                }
            }
        }
        names.sort();
        names
    }

    #[tokio::test]
    async fn the_root_of_an_archive_is_where_the_originals_have_it() {
        assert_eq!(names(&["out/"], false).await, ["deep/two", "link*", "one*"]);
        assert_eq!(names(&["out/**"], false).await, ["deep/two", "link*", "one*"]);
        assert_eq!(names(&["out/deep/two"], false).await, ["two"]);
        assert_eq!(names(&["out/deep", "log"], false).await, ["log", "out/deep/two"]);
        assert_eq!(names(&["out", "!out/deep"], false).await, ["link*", "one*"]);
        let all = [".git/HEAD", ".hidden", "deep/two", "link*", "one*"];
        assert_eq!(names(&["out"], true).await, all);
        assert_eq!(names(&["missing"], true).await, [""; 0]);
    }

    #[tokio::test]
    async fn links_to_directories_are_entered_and_those_that_go_round_are_not() {
        let base = tree();
        let (other, path) = (tempfile::tempdir().unwrap(), |name: &str| base.path().join(name));
        fs::create_dir(other.path().join("sub")).unwrap();
        fs::write(other.path().join("sub/far"), "far").unwrap();
        symlink(other.path(), path("out/away")).unwrap();
        symlink(other.path().join("sub"), other.path().join("twin")).unwrap();
        for (target, link) in [
            ("..", "out/deep/up"),
            (".", "out/deep/here"),
            ("self", "out/self"),
            ("nothing", "out/nothing"),
            ("one/x", "out/through"),
        ] {
            symlink(target, path(link)).unwrap();
        }
        let found = |pattern: &str| -> Vec<String> {
            let patterns = vec![format!("{}/{pattern}", base.path().display())];
            let files = find(&ZipWish { patterns, hidden: false, level: 0 }).unwrap();
            let below = |path: &Path| path.strip_prefix(base.path()).unwrap().to_owned();
            let text = |path: PathBuf| path.to_str().unwrap().to_owned();
            files.iter().map(|file| text(below(&file.path))).collect()
        };
        let far = ["out/away/sub/far", "out/away/twin/far"];
        let near = ["out/deep/two", "out/link", "out/one"];
        assert_eq!(found("out"), [&far[..], &near[..]].concat());
        assert_eq!(found("out/away/"), far);
        assert_eq!(found("out/*/sub"), far[..1]);
        // A link out of where the search begins is followed once.
        let up = ["away/sub/far", "away/twin/far", "link", "one"];
        let up = up.map(|name| format!("out/deep/up/{name}"));
        assert_eq!(found("out/deep"), [&["out/deep/two".to_owned()], &up[..]].concat());
    }

    #[tokio::test]
    async fn a_link_to_a_directory_is_packed_as_a_directory() {
        let (base, to) = (tree(), tempfile::tempdir().unwrap());
        symlink("out/deep", base.path().join("made")).unwrap();
        let patterns = vec![format!("{}/made", base.path().display())];
        let mut packing = Local::new().zip(ZipWish { patterns, hidden: false, level: 6 });
        let mut bytes = Vec::new();
        packing.archive.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(packing.result.await.unwrap().files, 1);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        unzip(file, to.path(), owner()).unwrap();
        assert_eq!(fs::read_to_string(to.path().join("two")).unwrap(), "out/deep/two");
    }

    #[tokio::test]
    async fn paths_that_the_originals_refuse_are_refused() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("12:30.log"), "x").unwrap();
        let patterns = vec![base.path().display().to_string()];
        let wish = ZipWish { patterns, hidden: true, level: 6 };
        let error = find(&wish).unwrap_err().to_string();
        assert!(error.contains("12:30.log: its path contains ':'"), "{error}");
        assert!(zip(&wish, Vec::new()).unwrap_err().to_string().contains("contains ':'"));
    }

    /// An archive with entries of these names.
    fn archive(names: &[&str]) -> File {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        for name in names {
            archive.start_file(*name, SimpleFileOptions::default()).unwrap();
            archive.write_all(b"x").unwrap();
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&archive.finish().unwrap().into_inner()).unwrap();
        file
    }

    #[test]
    fn nothing_is_written_outside_the_directory() {
        let outside = tempfile::tempdir().unwrap();
        let to = outside.path().join("to");
        fs::create_dir(&to).unwrap();
        symlink(outside.path(), to.join("link")).unwrap();
        for name in ["../evil", "/evil", "a/../../evil", "link/evil"] {
            let unzipped = unzip(archive(&[name]), &to, owner());
            assert!(!outside.path().join("evil").exists(), "{name}");
            assert!(!Path::new("/evil").exists());
            assert!(unzipped.is_err() || name == "/evil" || name == "a/../../evil", "{name}");
        }
        let mut junk = tempfile::tempfile().unwrap();
        junk.write_all(b"no archive").unwrap();
        assert!(unzip(junk, &to, owner()).is_err());
    }
}
