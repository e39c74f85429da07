//! The machine's own disk: what it writes, over the image that it shares.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::size::ByteSize;
use tokio::process::Command;

use super::MachineError;
use crate::host::{HostError, QemuMissing};

/// Making an empty overlay takes some ten milliseconds (vm-facts 4), on a busy host longer.
const CREATE_DEADLINE: Duration = Duration::from_secs(60);

/// Makes an empty qcow2 file over `base`, which must be qcow2. The disk that the guest sees has
/// `size`, but is never smaller than the base: that would cut its file system off.
pub(super) async fn create(
    qemu_img: &Path,
    base: &Path,
    overlay: &Path,
    size: ByteSize,
) -> Result<(), MachineError> {
    let size = size.max(virtual_size(base)?);
    // qemu-img takes a relative base as relative to the overlay. One beside it may be moved with it.
    let base = match base.file_name() {
        Some(name) if base.parent() == overlay.parent() => PathBuf::from(name),
        _ => std::path::absolute(base)
            .map_err(HostError::io("find the working directory for", base))?,
    };
    let mut command = Command::new(qemu_img);
    command
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .args([base.as_path(), overlay])
        .arg(size.0.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let failed = |reason: String| MachineError::Overlay { reason };
    let output = tokio::time::timeout(CREATE_DEADLINE, command.output())
        .await
        .map_err(|_| failed(format!("qemu-img did not end within {CREATE_DEADLINE:?}")))?
        .map_err(|error| {
            let (path, reason) = (qemu_img.to_owned(), error.to_string());
            HostError::from(QemuMissing::NotFound { path, reason })
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(said.trim().chars().take(500).collect()))
}

/// The size that a guest sees, from the header of a qcow2 file: magic, version, backing file (8 + 4
/// bytes), cluster bits, then the size as a big-endian number (QEMU's docs/interop/qcow2).
fn virtual_size(path: &Path) -> Result<ByteSize, MachineError> {
    let failed =
        |what: &str| MachineError::Overlay { reason: format!("`{}`: {what}", path.display()) };
    let mut header = [0; 32];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut header))
        .map_err(|error| failed(&error.to_string()))?;
    if !header.starts_with(b"QFI\xfb") {
        return Err(failed("is not a qcow2 file"));
    }
    let size: [u8; 8] = header[24..].try_into().expect("eight bytes are left of the header");
    Ok(ByteSize(u64::from_be_bytes(size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QEMU_IMG: &str = "/usr/bin/qemu-img";

    #[tokio::test]
    async fn the_guest_sees_the_larger_size() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("base, with a comma.qcow2");
        let made = std::process::Command::new(QEMU_IMG)
            .args(["create", "-q", "-f", "qcow2"])
            .arg(&base)
            .arg("64M")
            .status()
            .unwrap();
        assert!(made.success());
        for (asked, seen) in [(16, 64), (64, 64), (128, 128)] {
            let overlay = directory.path().join(format!("overlay-{asked}"));
            create(QEMU_IMG.as_ref(), &base, &overlay, ByteSize(asked << 20)).await.unwrap();
            assert_eq!(virtual_size(&overlay).unwrap(), ByteSize(seen << 20));
        }
    }

    #[tokio::test]
    async fn failures_say_why() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("base");
        std::fs::write(&base, [b'x'; 64]).unwrap();
        let overlay = directory.path().join("overlay");
        let error = create(QEMU_IMG.as_ref(), &base, &overlay, ByteSize(1)).await.unwrap_err();
        assert!(error.to_string().contains("is not a qcow2 file"), "{error}");
        std::fs::write(&base, [b"QFI\xfb".as_slice(), &[0; 60]].concat()).unwrap();
        let error = create(QEMU_IMG.as_ref(), &base, &overlay, ByteSize(1)).await.unwrap_err();
        assert!(error.to_string().contains("Unsupported qcow2 version"), "{error}");
    }
}
