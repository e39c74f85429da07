//! Files of this machine. Everything here may block.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{
    DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown,
};
use std::path::{Path, PathBuf};

use common::size::ByteSize;
use flate2::read::GzDecoder;
use nix::fcntl::OFlag;
use nix::sys::statvfs::statvfs;

use super::{Kind, Owner, RECEIVE, Room, StorePlace, SystemError, below};

/// The mode of a directory that is made.
const DIRECTORY_MODE: u32 = 0o755;

/// That of a file that is stored.
const FILE_MODE: u32 = 0o644;

/// The most blocks that ext4 keeps for itself (Linux, fs/ext4/super.c,
/// `ext4_calculate_resv_clusters`).
const EXT4_OWN_BLOCKS: u64 = 4096;

/// See [`super::System::kind`].
pub(super) fn kind(path: &str) -> Result<Option<Kind>, SystemError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(Some(Kind::Directory)),
        Ok(metadata) if metadata.is_file() => Ok(Some(Kind::File)),
        Ok(_) => Ok(Some(Kind::Other)),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(SystemError::new("look at", path, error)),
    }
}

/// See [`super::System::read`].
pub(super) fn read(path: &str, limit: u64) -> Result<Vec<u8>, SystemError> {
    let failed = |source| SystemError::new("read", path, source);
    // A job may have put anything in the file's place: a pipe must not block us, and a link must
    // not make us read on its behalf what it could not read itself.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file =
        OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
    }
    let mut contents = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut contents).map_err(failed)?;
    if contents.len() as u64 > limit {
        return Err(failed(too_large(format!("it is larger than {limit} bytes"))));
    }
    Ok(contents)
}

/// See [`super::System::store`].
pub(super) fn store(contents: impl Read, place: &StorePlace) -> Result<u64, SystemError> {
    let failed = |source| SystemError::new("write", place.name.clone(), source);
    if !below::stays_below(&place.name) {
        let text = format!("it leads out of {}", place.directory);
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, text)));
    }
    let (to, name) = (Path::new(&place.directory), Path::new(&place.name));
    let mut file = below::create(to, name, FILE_MODE, place.owner).map_err(failed)?;
    if !place.is_gzip {
        return io::copy(&mut { contents }, &mut file).map_err(failed);
    }
    io::copy(&mut GzDecoder::new(contents), &mut file).map_err(|error| match error.kind() {
        ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof => {
            SystemError::new(RECEIVE, place.name.clone(), error)
        }
        _ => failed(error),
    })
}

/// See [`super::System::open`].
pub(super) fn open(path: &Path) -> Result<File, SystemError> {
    let failed = |source| SystemError::new("open", path.display().to_string(), source);
    // Whoever put a pipe there must not block us.
    let flags = OFlag::O_NONBLOCK.bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    match file.metadata().map_err(failed)?.is_file() {
        true => Ok(file),
        false => Err(failed(io::Error::new(ErrorKind::InvalidInput, "it is no regular file"))),
    }
}

/// See [`super::System::create_file`].
pub(super) fn create(
    path: &str,
    contents: &[u8],
    mode: u32,
    owner: Owner,
) -> Result<(), SystemError> {
    let failed = |source| SystemError::new("write", path, source);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(contents).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if (metadata.uid(), metadata.gid()) != (owner.uid, owner.gid) {
        fchown(&file, Some(owner.uid), Some(owner.gid)).map_err(failed)?;
    }
    Ok(())
}

/// See [`super::System::create_directory`].
pub(super) fn create_directory(path: &str, owner: Owner) -> Result<(), SystemError> {
    let failed = |source| SystemError::new("make directory", path, source);
    let mut missing: Vec<&Path> = Vec::new();
    for ancestor in Path::new(path).ancestors() {
        match fs::metadata(ancestor) {
            Ok(metadata) if metadata.is_dir() => break,
            Ok(_) => return Err(failed(io::Error::from(io::ErrorKind::NotADirectory))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(ancestor),
            Err(error) => return Err(failed(error)),
        }
    }
    for directory in missing.into_iter().rev() {
        match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
            Ok(()) => give(directory, owner).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// See [`super::System::remove`].
pub(super) fn remove(path: &str) -> Result<(), SystemError> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if !absent(&error) => Err(SystemError::new("remove", path, error)),
        _ => Ok(()),
    }
}

/// See [`super::System::list`].
pub(super) fn list(path: &str, limit: usize) -> Result<Vec<String>, SystemError> {
    let failed = |source| SystemError::new("list", path, source);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        if names.len() == limit {
            return Err(failed(too_large(format!("there are more than {limit} names in it"))));
        }
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// See [`super::System::room`].
pub(super) fn room(path: &str, owner: Owner) -> Result<Room, SystemError> {
    let found = statvfs(path).map_err(|error| SystemError::new("look at", path, error.into()))?;
    let (free, available) = (found.blocks_free(), found.blocks_available());
    let (blocks, files_free) = match owner.uid {
        0 => (free_for_root(free, available), found.files_free()),
        _ => (available, found.files_available()),
    };
    let bytes = |blocks: u64| ByteSize(blocks.saturating_mul(found.fragment_size()));
    let (size, free) = (bytes(found.blocks()), bytes(blocks));
    Ok(Room { size, free, files: found.files(), files_free })
}

/// The blocks that root may use, of those that are free and those that everybody may use: the
/// reserve for root is only in the first number. So are the blocks that ext4 gives to nobody.
fn free_for_root(free: u64, available: u64) -> u64 {
    available.max(free.saturating_sub(EXT4_OWN_BLOCKS))
}

/// See [`super::System::find_program`].
pub(super) fn find_program(name: &str, search_path: &str) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    if name.contains('/') {
        return is_program(Path::new(name)).then(|| name.to_owned());
    }
    search_path
        .split(':')
        .filter(|directory| directory.starts_with('/'))
        .map(|directory| PathBuf::from(directory).join(name))
        .find(|path| is_program(path))
        .map(|path| path.to_string_lossy().into_owned())
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Makes a path, not what a link there points to, belong to someone.
pub(super) fn give(path: &Path, owner: Owner) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if (metadata.uid(), metadata.gid()) == (owner.uid, owner.gid) {
        return Ok(());
    }
    if metadata.is_symlink() {
        std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid))
    } else {
        chown(path, Some(owner.uid), Some(owner.gid))
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn too_large(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, message)
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn me() -> Owner {
        Owner { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
    }

    fn text(path: &Path) -> &str {
        path.to_str().unwrap()
    }

    #[test]
    fn a_file_is_made_once_and_read_within_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        create(text(&path), b"12345", 0o600, me()).unwrap();
        assert_eq!(
            create(text(&path), b"", 0o600, me()).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(read(text(&path), 5).unwrap(), b"12345");
        assert_eq!(read(text(&path), 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_file_is_stored_below_its_directory_and_nowhere_else() {
        let outside = tempfile::tempdir().unwrap();
        let to = outside.path().join("to");
        fs::create_dir(&to).unwrap();
        std::os::unix::fs::symlink(outside.path(), to.join("link")).unwrap();
        let put = |name: &str, contents: &[u8], is_gzip| {
            let (directory, name) = (text(&to).to_owned(), name.to_owned());
            store(contents, &StorePlace { directory, name, owner: me(), is_gzip })
        };
        assert_eq!(put("a/b", b"12345", false).unwrap(), 5);
        assert_eq!(put("a/b", b"6", false).unwrap(), 1);
        assert_eq!(fs::read(to.join("a/b")).unwrap(), b"6");
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(b"12345").unwrap();
        let packed = packed.finish().unwrap();
        assert_eq!(put("packed", &packed, true).unwrap(), 5);
        assert_eq!(fs::read(to.join("packed")).unwrap(), b"12345");
        assert!(put("broken", &packed[..packed.len() - 9], true).is_err());
        for name in ["../evil", "/evil", "a/../../evil", "link/evil", "a/b/c", ""] {
            assert!(put(name, b"x", false).is_err(), "{name}");
            assert!(!outside.path().join("evil").exists() && !Path::new("/evil").exists());
        }
    }

    #[test]
    fn neither_a_link_nor_a_pipe_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(read(text(&link), 1 << 20).is_err());
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read(text(&pipe), 10).is_err());
    }

    #[test]
    fn directories_are_made_listed_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b/c");
        create_directory(text(&deep), me()).unwrap();
        create_directory(text(&deep), me()).unwrap();
        fs::write(deep.join("z"), "").unwrap();
        fs::write(deep.join("y"), "").unwrap();
        assert_eq!(list(text(&deep), 2).unwrap(), ["y", "z"]);
        assert_eq!(list(text(&deep), 1).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        remove(text(&directory.path().join("a"))).unwrap();
        remove(text(&directory.path().join("a"))).unwrap();
        assert_eq!(kind(text(&deep)).unwrap(), None);
    }

    #[test]
    fn the_room_of_a_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let found = room(text(directory.path()), me()).unwrap();
        assert!(found.free <= found.size && found.size.0 > 0, "{found:?}");
        let root = room(text(directory.path()), Owner { uid: 0, gid: 0 }).unwrap();
        let other = room(text(directory.path()), Owner { uid: 1, gid: 1 }).unwrap();
        assert!(other.free <= root.free, "{root:?} {other:?}");
        assert!(room(text(&directory.path().join("missing")), me()).is_err());
    }

    #[test]
    fn root_may_use_its_reserve_and_not_that_of_the_file_system() {
        // Full, of ext4: with what it keeps for itself, without and with a reserve for root.
        assert_eq!(free_for_root(4096, 0), 0);
        assert_eq!(free_for_root(4096 + 5000, 0), 5000);
        // Without any reserve, what is there is there.
        assert_eq!(free_for_root(100, 100), 100);
        assert_eq!(free_for_root(1_000_000, 1_000_000), 1_000_000);
    }

    #[test]
    fn programs_are_found_on_the_search_path() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("tool");
        create(text(&program), b"#!/bin/sh\n", 0o644, me()).unwrap();
        let search = format!("relative:{}:/nowhere", directory.path().display());
        assert_eq!(find_program("tool", &search), None);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_program("tool", &search).as_deref(), Some(text(&program)));
        assert_eq!(find_program(text(&program), "").as_deref(), Some(text(&program)));
        assert_eq!(find_program("", &search), None);
    }
}
