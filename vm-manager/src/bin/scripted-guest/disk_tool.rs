//! qemu-img, as far as vm-manager calls it: an empty disk, over another one or not.
//!
//! The files have a header and no tables behind it, so QEMU itself would not take them. The scripted
//! guest has no disk whose content anybody could want, and a thousand of them cost nothing.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::VERSION;

/// The magic number, then version 3 (QEMU's docs/interop/qcow2).
const START: &[u8] = b"QFI\xfb\x00\x00\x00\x03";

/// The bytes of a header of version 3 without compression type and extensions.
const HEADER_BYTES: u32 = 104;

/// The longest name of a backing file in the format.
const BACKING_BYTES: usize = 1023;

/// Is qemu-img; the error is what qemu-img would print.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode, String> {
    match arguments.first().map(|argument| argument.to_string_lossy()).as_deref() {
        Some("--version") => println!("qemu-img {VERSION}"),
        Some("create") => create(&arguments[1..])?,
        Some(other) => return Err(format!("{other} is nothing that the scripted guest does")),
        None => return Err("Not enough arguments".to_owned()),
    }
    Ok(ExitCode::SUCCESS)
}

/// `create [-q] -f qcow2 [-F qcow2 -b BASE] FILE SIZE`.
fn create(arguments: &[OsString]) -> Result<(), String> {
    let mut base = None;
    let mut words = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument:?} requires an argument"));
        match &*argument.to_string_lossy() {
            "-q" => {}
            "-f" | "-F" if value()? == "qcow2" => {}
            "-b" => base = Some(PathBuf::from(value()?)),
            option if option.starts_with('-') => return Err(format!("unexpected {option}")),
            _ => words.push(argument),
        }
    }
    let [path, size] = words[..] else { return Err("a file and a size are expected".to_owned()) };
    let size = parse_size(&size.to_string_lossy()).ok_or(format!("Invalid image size {size:?}"))?;
    if let Some(base) = &base {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", base.display());
        check(File::open(base).map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
    }
    let header = header(size, base.as_deref())?;
    let written = File::create(path).and_then(|mut file| file.write_all(&header));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

/// Reads the start of a disk: whether it is one.
pub(crate) fn check(mut disk: File) -> Result<(), String> {
    let mut start = [0; START.len()];
    let read = disk.read_exact(&mut start);
    if read.is_err() || start[..4] != START[..4] {
        return Err("Image is not in qcow2 format".to_owned());
    }
    match start[4..] {
        [0, 0, 0, 2 | 3] => Ok(()),
        _ => Err("Unsupported qcow2 version".to_owned()),
    }
}

fn header(size: u64, base: Option<&Path>) -> Result<Vec<u8>, String> {
    let name = base.map(|path| path.as_os_str().as_bytes()).unwrap_or_default();
    if name.len() > BACKING_BYTES {
        return Err("Backing file name is too long".to_owned());
    }
    // The name lies behind the header and the end mark of its extensions.
    let offset = if name.is_empty() { 0 } else { u64::from(HEADER_BYTES) + 8 };
    let cluster_bits: u32 = 16;
    let mut bytes = START.to_vec();
    bytes.extend(offset.to_be_bytes());
    bytes.extend(u32::try_from(name.len()).expect("it was compared above").to_be_bytes());
    bytes.extend(cluster_bits.to_be_bytes());
    bytes.extend(size.to_be_bytes());
    bytes.resize(HEADER_BYTES as usize - 4, 0);
    bytes.extend(HEADER_BYTES.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend(name);
    Ok(bytes)
}

/// A number of bytes, or of MiB or GiB.
fn parse_size(text: &str) -> Option<u64> {
    let (number, shift) = match text.as_bytes().last()? {
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn a_disk_over_another_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let (base, overlay) = (path("base"), path("overlay"));
        create(&words(&["-q", "-f", "qcow2", &base, "64M"])).unwrap();
        let arguments = ["-q", "-f", "qcow2", "-F", "qcow2", "-b", &base, &overlay, "5"];
        create(&words(&arguments)).unwrap();
        let bytes = std::fs::read(&overlay).unwrap();
        assert_eq!(bytes[24..32], 5_u64.to_be_bytes());
        assert_eq!(&bytes[HEADER_BYTES as usize + 8..], base.as_bytes());
        check(File::open(&overlay).unwrap()).unwrap();

        let error = create(&words(&["-b", "/nonexistent", &overlay, "5"])).unwrap_err();
        assert!(error.contains("No such file"), "{error}");
        let error = create(&words(&["-f", "raw", &overlay, "5"])).unwrap_err();
        assert!(error.contains("unexpected -f"), "{error}");
        assert!(create(&words(&[&overlay, "big"])).is_err());
        assert!(create(&words(&[&overlay])).is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4096"), Some(4096));
        assert_eq!(parse_size("2G"), Some(2 << 30));
        assert_eq!(parse_size("G"), None);
        assert_eq!(parse_size(""), None);
        assert_eq!(parse_size("18446744073709551615G"), None);
    }
}
