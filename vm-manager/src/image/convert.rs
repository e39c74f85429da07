//! Makes qcow2 of a downloaded disk image, which is not to be trusted.
//!
//! The format is the catalogue's, never a guess: a raw image whose first bytes are a qcow2 header
//! could otherwise name any file of the host as its backing file.

use std::path::Path;
use std::time::Duration;

use common::size::ByteSize;
use serde_json::Value;

use super::entry::{DiskFormat, Entry};
use super::error::ImageError;
use super::process::Helper;
use super::space::Room;

const QEMU_IMG: &str = "qemu-img";
/// The longest look at an image.
const INFO_DEADLINE: Duration = Duration::from_secs(60);
/// The longest conversion.
const CONVERT_DEADLINE: Duration = Duration::from_secs(60 * 60);
/// What `qemu-img info` may say, in bytes.
const INFO_BYTES: usize = 64 * 1024;

/// Writes the disk `from` as qcow2 to `to`.
pub(super) async fn convert(
    entry: &Entry,
    format: DiskFormat,
    from: &Path,
    to: &Path,
    room: &Room,
) -> Result<(), ImageError> {
    let helper = Helper {
        label: &entry.label,
        what: "the conversion",
        program: QEMU_IMG,
        directory: from.parent().expect("the file lies in a working directory"),
        deadline: CONVERT_DEADLINE,
    };
    check(entry, format, from, Helper { deadline: INFO_DEADLINE, ..helper }).await?;
    let arguments = ["convert".as_ref(), "-q".as_ref(), "-f".as_ref(), format.name().as_ref()];
    let arguments = arguments.into_iter().chain([
        "-O".as_ref(),
        "qcow2".as_ref(),
        from.as_os_str(),
        to.as_os_str(),
    ]);
    helper.run(arguments, |_| (), || room.check(0)).await
}

/// Refuses an image that leads to other files, or that is larger than the machine's disk.
async fn check(
    entry: &Entry,
    format: DiskFormat,
    path: &Path,
    helper: Helper<'_>,
) -> Result<(), ImageError> {
    let mut text = String::new();
    let arguments = ["info".as_ref(), "--output=json".as_ref(), "-f".as_ref()];
    let arguments = arguments.into_iter().chain([format.name().as_ref(), path.as_os_str()]);
    let collect = |line: &str| {
        if text.len() < INFO_BYTES {
            text.push_str(line);
        }
    };
    helper.run(arguments, collect, || Ok(())).await?;
    let unusable = |reason: String| ImageError::Unusable { label: entry.label.clone(), reason };
    let info: Value = serde_json::from_str(&text)
        .map_err(|error| unusable(format!("qemu-img describes it in no known form: {error}")))?;
    let data = &info["format-specific"]["data"];
    for (value, what) in [
        (&info["backing-filename"], "backing file"),
        (&info["full-backing-filename"], "backing file"),
        (&data["data-file"], "data file"),
    ] {
        if !value.is_null() {
            return Err(unusable(format!("it refers to another file, a {what} {value}")));
        }
    }
    if !data["encrypt"].is_null() {
        return Err(unusable("it is encrypted".to_owned()));
    }
    let size = info["virtual-size"]
        .as_u64()
        .map(ByteSize)
        .ok_or_else(|| unusable("qemu-img does not say how large its disk is".to_owned()))?;
    if size > entry.disk {
        return Err(unusable(format!(
            "its disk has {size}, and the catalogue's `disk` is {}; make that larger",
            entry.disk
        )));
    }
    Ok(())
}
