//! Directories to and from a kept machine, as a tar stream: every guest has `tar`.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use tar::{Builder, Header};
use tokio::io::AsyncWriteExt;
use tokio_util::io::SyncIoBridge;
use vm_manager::ssh::{Ending, Guest, SshError, quote_path};
use workflow_runner::guest::unpack;

use super::{
    COPY, COPY_BYTES, is_wrong_path, local_error, part_of, target_in_guest, target_on_host,
    transfer_error,
};
use crate::exit::CommandError;
use crate::message;

/// The bytes that are sent at once: each piece costs an emulated guest a turn.
const PIECE_BYTES: usize = 256 * 1024;

/// Copies a directory of the guest. The copy is whole or not there; what is there already stays, for
/// a guest must not decide what is overwritten.
pub(super) async fn download(guest: &Guest, path: &str, local: &Path) -> Result<(), CommandError> {
    let target = target_on_host(path, local).await?;
    if tokio::fs::symlink_metadata(&target).await.is_ok() {
        return Err(CommandError::usage(format!("{} is there already", target.display()))
            .hint("a directory is only copied to a new place; name another"));
    }
    let part = part_of(&target)?;
    let failed = |error: io::Error| local_error("write", &target, &error);
    tokio::fs::create_dir(&part).await.map_err(failed)?;
    let copied = match in_time(guest, fetch(guest, path, part.clone())).await {
        Ok(()) => tokio::fs::rename(&part, &target).await.map_err(failed),
        Err(error) => Err(error),
    };
    if copied.is_err() {
        // The first error is the one to report.
        drop(tokio::fs::remove_dir_all(&part).await);
    }
    copied
}

/// Copies a directory into the guest, with what is there already below the same name.
pub(super) async fn upload(guest: &Guest, local: &Path, path: &str) -> Result<(), CommandError> {
    // `.` has a name as well.
    let source = tokio::fs::canonicalize(local).await;
    let source = source.map_err(|error| local_error("read", local, &error))?;
    let target = target_in_guest(guest, &source, path).await?;
    in_time(guest, send(guest, source, &target)).await
}

async fn in_time(
    guest: &Guest,
    copy: impl Future<Output = Result<(), CommandError>>,
) -> Result<(), CommandError> {
    match tokio::time::timeout(COPY, copy).await {
        Ok(ended) => ended,
        Err(_) => {
            // So that the thread that reads or writes comes to its end.
            guest.close().await;
            let text = format!("the copy did not end within {} s", COPY.as_secs());
            Err(CommandError::infrastructure(text))
        }
    }
}

async fn fetch(guest: &Guest, path: &str, part: PathBuf) -> Result<(), CommandError> {
    let command = format!("tar -cf - -C {} .", quote_path(path));
    let (stream, _stdin) = guest.exec_stream(&command).await.map_err(|e| transfer_error(&e))?;
    let mut bridge = SyncIoBridge::new(stream);
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut bounded = (&mut bridge).take(COPY_BYTES);
        let unpacked = unpack(&mut bounded, &part, None);
        let too_much = bounded.limit() == 0;
        (bridge.into_inner(), unpacked, too_much)
    });
    let (stream, unpacked, too_much) = unpacking
        .await
        .map_err(|error| CommandError::infrastructure(format!("the copy ended early: {error}")))?;
    if too_much {
        let text = format!("{path} has more than {COPY_BYTES} bytes");
        return Err(CommandError::infrastructure(text));
    }
    if let Err(error) = &unpacked
        && !matches!(error, workflow_runner::guest::GuestError::Archive { .. })
    {
        return Err(CommandError::infrastructure(error.to_string()));
    }
    // An archive that ends early is explained by its writer.
    ended_well(stream.finish().await, path)?;
    unpacked.map_err(|error| CommandError::infrastructure(error.to_string()))
}

async fn send(guest: &Guest, local: PathBuf, target: &str) -> Result<(), CommandError> {
    let quoted = quote_path(target);
    let command = format!("mkdir -p {quoted} && tar -xf - -C {quoted}");
    let (stream, mut stdin) = guest.exec_stream(&command).await.map_err(|e| transfer_error(&e))?;
    // Not a simplex: its end is not seen when the writer is dropped.
    let (mut ours, theirs) = tokio::io::duplex(PIECE_BYTES);
    let bridge = SyncIoBridge::new(theirs);
    let packing = tokio::task::spawn_blocking(move || {
        pack(&local, BufWriter::with_capacity(PIECE_BYTES, bridge))
    });
    let feed = async {
        // A guest that stops reading says why.
        drop(tokio::io::copy(&mut ours, &mut stdin).await);
        drop(ours);
        drop(stdin.shutdown().await);
    };
    let ((), ending) = tokio::join!(feed, stream.finish());
    let packed = packing.await.unwrap_or_else(|error| {
        Err(PackError::Read(CommandError::infrastructure(format!("the copy ended early: {error}"))))
    });
    if let Err(PackError::Read(error)) = packed {
        return Err(error);
    }
    ended_well(ending, target)?;
    packed.map_err(|_| CommandError::infrastructure(format!("{target} did not take everything")))
}

/// An error unless `tar` in the guest has succeeded.
fn ended_well(ending: Result<Ending, SshError>, path: &str) -> Result<(), CommandError> {
    let Ending { status, stderr } = ending.map_err(|error| transfer_error(&error))?;
    let said = String::from_utf8_lossy(&stderr);
    let said = said.lines().next().unwrap_or_default().trim();
    match status {
        Some(status) if status.success() => Ok(()),
        _ if is_wrong_path(said) => Err(CommandError::usage(format!("{path}: {said}"))),
        Some(status) => {
            let text = format!("tar in the machine failed with {status} on {path}: {said}");
            Err(CommandError::infrastructure(text))
        }
        None => {
            let text = format!("tar in the machine ended without an exit status on {path}");
            Err(CommandError::infrastructure(text))
        }
    }
}

/// Why a directory was not packed.
enum PackError {
    /// It cannot be read.
    Read(CommandError),
    /// The guest takes no more.
    Send,
}

/// Writes everything below a directory as an archive. What is neither a file nor a directory nor a
/// link is left out, with a warning.
fn pack(root: &Path, output: impl Write) -> Result<(), PackError> {
    let mut archive = Builder::new(output);
    pack_below(root, Path::new("."), &mut archive)?;
    let done = archive.into_inner().and_then(|mut output| output.flush());
    done.map_err(|_| PackError::Send)
}

fn pack_below(
    source: &Path,
    name: &Path,
    archive: &mut Builder<impl Write>,
) -> Result<(), PackError> {
    let failed = |error: io::Error| PackError::Read(local_error("read", source, &error));
    let metadata = fs::symlink_metadata(source).map_err(failed)?;
    let mut header = header_of(&metadata);
    let kind = metadata.file_type();
    if kind.is_dir() {
        header.set_size(0);
        let entry = archive.append_data(&mut header, name, io::empty());
        entry.map_err(|_| PackError::Send)?;
        let mut entries = fs::read_dir(source)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            pack_below(&entry.path(), &name.join(entry.file_name()), archive)?;
        }
        Ok(())
    } else if kind.is_file() {
        let file = File::open(source).map_err(failed)?;
        // Somebody may write to the file now: the archive holds as much as it has announced.
        let content = file.chain(io::repeat(0)).take(metadata.len());
        archive.append_data(&mut header, name, content).map_err(|_| PackError::Send)
    } else if kind.is_symlink() {
        let to = fs::read_link(source).map_err(failed)?;
        archive.append_link(&mut header, name, to).map_err(|_| PackError::Send)
    } else {
        let text = format!("{} is left out: it is no file, directory or link", source.display());
        message::warning(&text);
        Ok(())
    }
}

/// Mode and time as they are; the owner is root, for the guest has other users.
fn header_of(metadata: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_directory_is_packed_with_everything_in_it() {
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (place.path().join("from"), place.path().join("to"));
        fs::create_dir_all(from.join(".hidden/empty")).unwrap();
        let long = "long/".repeat(60) + "name";
        fs::create_dir_all(from.join(&long).parent().unwrap()).unwrap();
        fs::write(from.join(&long), vec![b'x'; 100_000]).unwrap();
        fs::write(from.join("run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(from.join("run"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("/nowhere", from.join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
        let mut archive = Vec::new();
        pack(&from, &mut archive).ok().unwrap();
        unpack(archive.as_slice(), &to, None).unwrap();
        assert_eq!(fs::read(to.join(&long)).unwrap().len(), 100_000);
        let mode = fs::metadata(to.join("run")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o750);
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/nowhere"));
        assert!(to.join(".hidden/empty").is_dir() && !to.join("socket").exists());
    }

    #[test]
    fn what_cannot_be_read_is_told_from_a_guest_that_takes_no_more() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let place = tempfile::tempdir().unwrap();
        assert!(matches!(pack(place.path(), Full), Err(PackError::Send)));
        let missing = pack(&place.path().join("missing"), Vec::new());
        assert!(matches!(missing, Err(PackError::Read(_))));
    }
}
