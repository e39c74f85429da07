//! Archives of what patterns include: what a cache keeps.
//!
//! What lies below the base directory is `base/PATH` in the archive, all else `root/PATH`, so that it is
//! found again where the base directory is elsewhere.

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use super::walk::{Visitor, walk};
use super::{Packed, SystemError};

/// What stands before the paths below the base directory.
pub(crate) const BASE: &str = "base";
/// What stands before all others.
pub(crate) const ROOT: &str = "root";

/// Writes an archive of what absolute patterns include. See [`super::System::pack`].
pub(super) fn pack(
    base: &str,
    patterns: &[String],
    out: impl Write,
) -> Result<Packed, SystemError> {
    let packed = Packed::default();
    let mut packer = Packer { base: Path::new(base), archive: tar::Builder::new(out), packed };
    walk(patterns, &mut packer)?;
    let Packer { archive, packed, .. } = packer;
    let ended = archive.into_inner().and_then(|mut out| out.flush());
    ended.map_err(|error| SystemError::new("end", "the archive", error))?;
    Ok(packed)
}

struct Packer<'a, W: Write> {
    base: &'a Path,
    archive: tar::Builder<W>,
    packed: Packed,
}

impl<W: Write> Visitor for Packer<'_, W> {
    fn visit(&mut self, path: &Path, facts: &Metadata) -> io::Result<()> {
        let name = match path.strip_prefix(self.base) {
            Ok(below) => Path::new(BASE).join(below),
            Err(_) => Path::new(ROOT).join(path.strip_prefix("/").unwrap_or(path)),
        };
        let mut header = Header::new_gnu();
        header.set_mode(facts.permissions().mode() & 0o7777);
        header.set_mtime(u64::try_from(facts.mtime()).unwrap_or_default());
        header.set_size(0);
        if facts.is_dir() {
            header.set_entry_type(EntryType::Directory);
            return self.archive.append_data(&mut header, name, io::empty());
        }
        self.packed.files += 1;
        if facts.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            let target: PathBuf = std::fs::read_link(path)?;
            return self.archive.append_link(&mut header, name, target);
        }
        self.packed.bytes += facts.len();
        header.set_size(facts.len());
        // A file that changes meanwhile has the length that it had.
        let content = File::open(path)?.chain(io::repeat(0)).take(facts.len());
        self.archive.append_data(&mut header, name, content)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;
    use crate::system::{Local, Owner, System};

    fn owner() -> Owner {
        Owner { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw() }
    }

    /// A base directory with files, and a directory elsewhere.
    fn tree() -> (TempDir, TempDir) {
        let (base, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = |name: &str| base.path().join(name);
        fs::create_dir_all(path("made/deep/empty")).unwrap();
        fs::write(path("made/deep/file"), "file").unwrap();
        fs::write(path("made/not"), "not").unwrap();
        symlink("deep/file", path("made/link")).unwrap();
        fs::set_permissions(path("made/deep/file"), fs::Permissions::from_mode(0o750)).unwrap();
        fs::write(other.path().join("tool"), "tool").unwrap();
        (base, other)
    }

    #[tokio::test]
    async fn what_is_packed_is_found_again_where_it_was() {
        let (base, other) = tree();
        let (system, to) = (Local::new(), tempfile::tempdir().unwrap());
        let at = |path: &Path| path.to_str().unwrap().to_owned();
        let patterns = [
            format!("{}/made", at(base.path())),
            format!("!{}/made/not", at(base.path())),
            at(other.path()),
            format!("{}/missing", at(base.path())),
        ];
        let packing = system.pack(&at(base.path()), &patterns);
        let (kept, tool) = (at(to.path()), other.path().join("tool"));
        fs::remove_file(&tool).ok();
        fs::write(&tool, "tool").unwrap();
        system.unpack(packing.archive, &kept, owner()).await.unwrap();
        assert_eq!(packing.result.await.unwrap(), Packed { files: 3, bytes: 8 });
        let file = to.path().join("made/deep/file");
        assert_eq!(fs::read_to_string(&file).unwrap(), "file");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o750);
        assert!(to.path().join("made/deep/empty").is_dir());
        assert!(!to.path().join("made/not").exists());
        let link = fs::read_link(to.path().join("made/link")).unwrap();
        assert_eq!(link, Path::new("deep/file"));
        assert_eq!(fs::read_to_string(tool).unwrap(), "tool");
    }

    #[tokio::test]
    async fn an_archive_that_is_cut_off_is_an_error() {
        let (base, _other) = tree();
        let (system, to) = (Local::new(), tempfile::tempdir().unwrap());
        let base = base.path().to_str().unwrap();
        let packing = system.pack(base, &[format!("{base}/made")]);
        let cut = Box::new(tokio::io::AsyncReadExt::take(packing.archive, 700));
        let unpacked = system.unpack(cut, to.path().to_str().unwrap(), owner()).await;
        assert!(unpacked.is_err());
        // Whoever packs is told that nobody reads.
        assert!(packing.result.await.is_err() || unpacked.is_err());
    }
}
