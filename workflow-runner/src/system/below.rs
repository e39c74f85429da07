//! Files below a directory, and nowhere else, whatever their names say.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::Owner;

/// Makes a file below a directory, with the directories on the way; one that is there is replaced.
/// The name must be one that stays below.
pub(super) fn create(to: &Path, name: &Path, mode: u32, owner: Owner) -> io::Result<File> {
    create_directory(to, name.parent().unwrap_or(Path::new("")), owner)?;
    let path = to.join(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::options().write(true).create_new(true).mode(mode).open(&path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    give(&path, owner)?;
    Ok(file)
}

/// Makes directories below one, and goes through no link on the way.
pub(super) fn create_directory(to: &Path, name: &Path, owner: Owner) -> io::Result<()> {
    let mut path = to.to_owned();
    for part in name.components() {
        path.push(part);
        match fs::create_dir(&path) {
            Ok(()) => give(&path, owner)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !fs::symlink_metadata(&path)?.is_dir() {
                    let text = format!("{} is there and no directory", path.display());
                    return Err(io::Error::other(text));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn give(path: &Path, owner: Owner) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid))
}

/// Whether each part of a name is one of a file, so that it stays below a directory.
pub(super) fn stays_below(name: &str) -> bool {
    name.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_known() {
        for name in ["a", "a/b.c", "..a/b..", "-"] {
            assert!(stays_below(name), "{name}");
        }
        for name in ["", "/a", "a/", "a//b", "..", "../a", "a/../../b", "./a", "a\0"] {
            assert!(!stays_below(name), "{name}");
        }
    }
}
