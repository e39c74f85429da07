//! `workflow-runner unpack`: places a tar archive below a directory, and nowhere else.
//!
//! The archive is the user's working tree, or what a guest says that its directory is. Whatever
//! stands in it: nothing is written outside the directory or through a symbolic link, and nothing
//! but files, directories and links is made. Nobody else may write below the directory meanwhile.

mod owner;
mod tail;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Component, Path, PathBuf};

use nix::sys::stat::{UtimensatFlags, futimens, utimensat};
use nix::sys::time::TimeSpec;
use tar::{Archive, Entry, EntryType};

use super::GuestError;
use crate::system::{BASE, Owner, ROOT};
use tail::Tail;

/// The bytes that are read and written at once.
const BUFFER_BYTES: usize = 128 * 1024;

/// The most entries of an archive.
const ENTRIES: u64 = 2_000_000;

/// The longest path of an entry, in bytes: as long as one may be on Linux (PATH_MAX).
const PATH_BYTES: usize = 4096;

/// The most bytes of directories' paths, which are kept in memory.
const DIRECTORY_BYTES: usize = 64 * 1024 * 1024;

/// The permission bits that are kept: no set-user-id, set-group-id or sticky bits.
const MODE_BITS: u32 = 0o777;

/// Unpacks the archive `input` below `directory`, which is made if it is not there. Permission bits
/// and times of modification are kept. Files and links that are there already are replaced. With
/// `owner`, everything belongs to that user of this machine.
///
/// # Errors
/// The archive is damaged or cut off, an entry must not be unpacked or cannot be written. What was
/// unpacked before stays.
pub fn unpack(input: impl Read, directory: &Path, owner: Option<&str>) -> Result<(), GuestError> {
    unpack_for(input, directory, owner.map(owner::of_user).transpose()?)
}

/// The same for a user that is known by number.
pub(super) fn unpack_for(
    input: impl Read,
    directory: &Path,
    owner: Option<Owner>,
) -> Result<(), GuestError> {
    fs::create_dir_all(directory).map_err(GuestError::io("create", directory))?;
    if let Some(owner) = owner {
        owner::give(owner, directory).map_err(GuestError::io("change the owner of", directory))?;
    }
    place_all(input, Roots::One(directory.to_owned()), owner)
}

/// Unpacks what [`crate::system::System::pack`] has packed: what lay below `base` goes there, and what
/// lay elsewhere to where it was. Links to directories that are there already are followed: whoever
/// packed the archive was a job of the same repository, and this machine is the job's.
///
/// # Errors
/// As those of [`unpack`].
pub fn unpack_packed(input: impl Read, base: &Path, owner: Owner) -> Result<(), GuestError> {
    place_all(input, Roots::Packed { base: base.to_owned() }, Some(owner))
}

fn place_all(input: impl Read, roots: Roots, owner: Option<Owner>) -> Result<(), GuestError> {
    let mut tree = Tree {
        roots,
        owner,
        directories: BTreeMap::new(),
        directory_bytes: 0,
        known: HashSet::new(),
        buffer: vec![0; BUFFER_BYTES],
    };
    let tail = Tail::new(BufReader::with_capacity(BUFFER_BYTES, input));
    let bound = tail.bound();
    let mut archive = Archive::new(tail);
    let broken = |error: &io::Error| archive_error("the archive", error.to_string());
    let (mut last, mut count) = (0, 0);
    for entry in archive.entries().map_err(|error| broken(&error))? {
        let mut entry = entry.map_err(|error| broken(&error))?;
        bound.lift();
        last = entry.raw_file_position().saturating_add(entry.size());
        count += 1;
        if count > ENTRIES {
            return Err(archive_error(
                "the archive",
                format!("it has more than {ENTRIES} entries"),
            ));
        }
        tree.place(&mut entry)?;
        bound.set_behind(last);
    }
    archive.into_inner().check_end(last).map_err(|error| broken(&error))?;
    tree.finish()
}

fn archive_error(entry: &str, why: impl Into<String>) -> GuestError {
    GuestError::Archive { entry: entry.to_owned(), why: why.into() }
}

/// Where the entries of an archive go.
enum Roots {
    /// Below a directory, and nowhere else.
    One(PathBuf),
    /// Below this directory, or that of the whole file system.
    Packed { base: PathBuf },
}

impl Roots {
    /// Where an entry goes.
    fn place(&self, inner: &Path) -> Option<PathBuf> {
        match self {
            Self::One(root) => Some(root.join(inner)),
            Self::Packed { base } => match inner.strip_prefix(BASE) {
                Ok(below) => Some(base.join(below)),
                Err(_) => inner.strip_prefix(ROOT).ok().map(|below| Path::new("/").join(below)),
            },
        }
    }

    /// Whether a link to a directory is as good as one.
    fn follow(&self) -> bool {
        matches!(self, Self::Packed { .. })
    }
}

/// What was unpacked so far.
struct Tree {
    roots: Roots,
    owner: Option<Owner>,
    /// Directories of the archive with the mode and time that they get in the end: a read-only
    /// directory must take its files first.
    directories: BTreeMap<PathBuf, (u32, u64)>,
    /// The bytes of their paths.
    directory_bytes: usize,
    /// Directories below the root that are known to be directories and no links.
    known: HashSet<PathBuf>,
    /// One for all files: making it anew for each costs an emulated machine more than the copying.
    buffer: Vec<u8>,
}

impl Tree {
    fn place(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), GuestError> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refuse = |why: &str| archive_error(&name, why);
        let failed = |source| GuestError::Unpack { entry: name.clone(), source };

        let inner = entry.path().map_err(failed)?.into_owned();
        let Some(inner) = inner_path(&inner) else {
            return Err(refuse("its path leads out of the directory, or is too long"));
        };
        let mode = entry.header().mode().map_err(|error| refuse(&error.to_string()))? & MODE_BITS;
        let time = entry.header().mtime().map_err(|error| refuse(&error.to_string()))?;
        let outside = || refuse("its path leads out of the directory");
        let path = self.roots.place(&inner).ok_or_else(outside)?;
        if inner.as_os_str().is_empty() {
            // `./`, the directory itself.
            return if kind.is_dir() { Ok(()) } else { Err(refuse("it has no name")) };
        }
        self.ensure_parents(&inner, &name)?;
        match kind {
            EntryType::Directory => {
                self.ensure_directory(&inner, &name)?;
                self.directories.insert(path, (mode, time));
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous => {
                self.write_file(entry, &path, mode, time, &name)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name().map_err(failed)?;
                let target = target.ok_or_else(|| refuse("the link leads nowhere"))?;
                make_way(&path).map_err(failed)?;
                symlink(&target, &path).map_err(failed)?;
                self.give(&path).map_err(failed)?;
                set_time(&path, time).map_err(failed)?;
            }
            EntryType::Link => {
                let target = entry.link_name().map_err(failed)?;
                let target = target.as_deref().and_then(inner_path);
                let target = target.ok_or_else(|| refuse("it links to a place outside"))?;
                let inner = target;
                let target = self.roots.place(&inner).ok_or_else(outside)?;
                self.ensure_parents(&inner, &name)?;
                let facts = fs::symlink_metadata(&target).map_err(failed)?;
                if !facts.is_file() {
                    return Err(refuse("it links to something that is no file"));
                }
                if target != path {
                    make_way(&path).map_err(failed)?;
                    fs::hard_link(&target, &path).map_err(failed)?;
                }
            }
            _ => return Err(refuse("it is no file, directory or link")),
        }
        Ok(())
    }

    /// Sets modes and times of directories, the innermost first.
    fn finish(self) -> Result<(), GuestError> {
        for (path, (mode, time)) in self.directories.iter().rev() {
            fs::set_permissions(path, fs::Permissions::from_mode(*mode))
                .and_then(|()| set_time(path, *time))
                .map_err(|source| GuestError::Unpack {
                    entry: path.display().to_string(),
                    source,
                })?;
        }
        Ok(())
    }

    fn write_file(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        path: &Path,
        mode: u32,
        time: u64,
        name: &str,
    ) -> Result<(), GuestError> {
        let failed = |source| GuestError::Unpack { entry: name.to_owned(), source };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode | 0o200);
        let file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                make_way(path).and_then(|()| options.open(path))
            }
            other => other,
        };
        let file = file.map_err(failed)?;
        let size = entry.size();
        let copied = copy(entry, &file, &mut self.buffer).map_err(failed)?;
        if copied != size {
            return Err(archive_error(name, format!("it ends after {copied} of {size} bytes")));
        }
        // By the open file and not by its path, which an emulated machine would look up each time.
        if let Some(owner) = self.owner {
            fchown(&file, Some(owner.uid), Some(owner.gid)).map_err(failed)?;
        }
        // After the owner, and again because the umask had its say when the file was made.
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
        let time = time_of(time);
        futimens(&file, &time, &time).map_err(io::Error::from).map_err(failed)
    }

    /// Makes sure that everything above the path is a directory below the root.
    fn ensure_parents(&mut self, inner: &Path, name: &str) -> Result<(), GuestError> {
        let Some(parent) = inner.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
            return Ok(());
        };
        if self.known.contains(parent) {
            return Ok(());
        }
        self.ensure_parents(parent, name)?;
        self.ensure_directory(parent, name)
    }

    /// Makes a directory whose parents are there, or takes the one that is there.
    fn ensure_directory(&mut self, inner: &Path, name: &str) -> Result<(), GuestError> {
        if self.known.contains(inner) {
            return Ok(());
        }
        let failed = |source| GuestError::Unpack { entry: name.to_owned(), source };
        let Some(path) = self.roots.place(inner) else {
            return Err(archive_error(name, "its path leads out of the directory"));
        };
        match DirBuilder::new().mode(0o755).create(&path) {
            Ok(()) => self.give(&path).map_err(failed)?,
            // Not every system says of all directories that they exist: of `/`, FreeBSD says that it is
            // one.
            Err(error) => {
                let facts = match self.roots.follow() {
                    true => fs::metadata(&path),
                    false => fs::symlink_metadata(&path),
                };
                match facts {
                    Ok(facts) if facts.is_dir() => {}
                    Ok(_) => {
                        let there = inner.display();
                        let text = format!("{there} is there and no directory");
                        return Err(archive_error(name, text));
                    }
                    Err(_) => return Err(failed(error)),
                }
            }
        }
        self.directory_bytes += path.as_os_str().len();
        if self.directory_bytes > DIRECTORY_BYTES {
            return Err(archive_error(name, "there are too many directories"));
        }
        self.known.insert(inner.to_owned());
        Ok(())
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        self.owner.map_or(Ok(()), |owner| owner::give(owner, path))
    }
}

/// A path of the archive as a path below the root: no `..`, not absolute. Empty for `./`.
fn inner_path(path: &Path) -> Option<PathBuf> {
    if path.as_os_str().len() > PATH_BYTES {
        return None;
    }
    let mut inner = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) if !name.as_bytes().contains(&0) => inner.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(inner)
}

/// Removes the file or link that stands where a new one comes. A directory stays, and is an error.
fn make_way(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Copies with a large buffer: each call into the system costs more in an emulated machine.
fn copy(from: &mut impl Read, mut to: &File, buffer: &mut [u8]) -> io::Result<u64> {
    let mut copied = 0;
    loop {
        let bytes = from.read(buffer)?;
        if bytes == 0 {
            return Ok(copied);
        }
        to.write_all(&buffer[..bytes])?;
        copied += bytes as u64;
    }
}

/// Seconds since the epoch, as the system takes them.
fn time_of(time: u64) -> TimeSpec {
    let seconds = i64::try_from(time).unwrap_or(i64::MAX);
    TimeSpec::from_duration(std::time::Duration::from_secs(seconds.unsigned_abs()))
}

/// Sets the time of modification of a file, directory or link, in seconds since the epoch.
fn set_time(path: &Path, time: u64) -> io::Result<()> {
    let time = time_of(time);
    let here = nix::fcntl::AT_FDCWD;
    utimensat(here, path, &time, &time, UtimensatFlags::NoFollowSymlink).map_err(io::Error::from)
}
