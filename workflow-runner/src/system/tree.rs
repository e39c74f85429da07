//! Placing a directory's contents somewhere else.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{Owner, Placement, SystemError, files};

/// See [`super::System::place_tree`].
pub(super) fn place(from: &str, to: &str, how: Placement, owner: Owner) -> Result<(), SystemError> {
    files::create_directory(to, owner)?;
    merge(Path::new(from), Path::new(to), how, owner)
        .map_err(|source| SystemError::new("place", format!("{from} in {to}"), source))
}

/// Places the entries of one directory in another that exists.
fn merge(from: &Path, to: &Path, how: Placement, owner: Owner) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if how == Placement::Move && !exists(&target)? {
            match fs::rename(entry.path(), &target) {
                Ok(()) => {
                    give_all(&target, owner)?;
                    continue;
                }
                // Another file system: copied below.
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
                Err(error) => return Err(error),
            }
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !is_real_directory(&target) {
                remove_leaf(&target)?;
                fs::create_dir(&target)?;
            }
            merge(&entry.path(), &target, how, owner)?;
            fs::set_permissions(&target, entry.metadata()?.permissions())?;
        } else {
            remove_leaf(&target)?;
            if kind.is_symlink() {
                symlink(fs::read_link(entry.path())?, &target)?;
            } else if kind.is_file() {
                // A file only: the times matter to make and its like, the mode comes with copy.
                fs::copy(entry.path(), &target)?;
                keep_time(&entry.path(), &target)?;
            } else {
                continue;
            }
        }
        files::give(&target, owner)?;
    }
    Ok(())
}

fn exists(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_real_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Makes room for a file or directory.
fn remove_leaf(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn keep_time(from: &Path, to: &Path) -> io::Result<()> {
    let modified = fs::symlink_metadata(from)?.modified()?;
    // A file without write permission can still be opened for reading, and its times be set.
    fs::File::open(to)?.set_modified(modified)
}

fn give_all(path: &Path, owner: Owner) -> io::Result<()> {
    files::give(path, owner)?;
    if is_real_directory(path) {
        for entry in fs::read_dir(path)? {
            give_all(&entry?.path(), owner)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn me() -> Owner {
        Owner { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
    }

    fn check(how: Placement) {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir_all(from.join("src")).unwrap();
        fs::create_dir_all(to.join("src")).unwrap();
        fs::write(from.join("src/run"), "new").unwrap();
        fs::set_permissions(from.join("src/run"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("src/run", from.join("link")).unwrap();
        fs::write(to.join("src/run"), "old").unwrap();
        fs::write(to.join("src/kept"), "kept").unwrap();

        place(from.to_str().unwrap(), to.to_str().unwrap(), how, me()).unwrap();

        assert_eq!(fs::read_to_string(to.join("link")).unwrap(), "new");
        assert_eq!(fs::read_to_string(to.join("src/kept")).unwrap(), "kept");
        let mode = fs::metadata(to.join("src/run")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        if how == Placement::Copy {
            assert!(from.join("src/run").exists());
        }
    }

    #[test]
    fn a_tree_is_copied_over_what_is_there() {
        check(Placement::Copy);
    }

    #[test]
    fn a_tree_is_moved_over_what_is_there() {
        check(Placement::Move);
    }
}
