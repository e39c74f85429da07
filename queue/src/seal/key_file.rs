//! The file that holds one sealing key.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{KEY_BYTES, Secret, fill_random};

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the key file {path:?} cannot be used: {reason}")]
pub struct KeyFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub reason: String,
}

/// The permissions of a key file: its owner may read and write it.
const MODE: u32 = 0o600;
const DIGITS: usize = 2 * KEY_BYTES;
/// A line of digits with blanks around it; a longer file holds something else.
const MOST_BYTES: u64 = 256;

impl KeyFileError {
    pub(super) fn new(path: &Path, reason: impl Into<String>) -> Self {
        Self { path: path.to_owned(), reason: reason.into() }
    }
}

/// The key in a file; `None` if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Secret>, KeyFileError> {
    let refused = |reason: String| KeyFileError::new(path, reason);
    // Not blocking: a pipe in the file's place must not hold up the start.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(refused("it is a symbolic link; name the file itself".to_owned()));
        }
        Err(error) => return Err(refused(error.to_string())),
    };
    let metadata = file.metadata().map_err(|error| refused(error.to_string()))?;
    check(&metadata).map_err(&refused)?;

    let mut text = Zeroizing::new(Vec::with_capacity(MOST_BYTES as usize));
    file.take(MOST_BYTES).read_to_end(&mut text).map_err(|error| refused(error.to_string()))?;
    let mut secret = Secret::default();
    hex::decode_to_slice(text.trim_ascii(), &mut *secret).map_err(|_| {
        refused(format!(
            "it holds no key: write one line of {DIGITS} hexadecimal digits, such as \
             `openssl rand -hex {KEY_BYTES}` prints"
        ))
    })?;
    Ok(Some(secret))
}

/// The error for a file that has to be there.
pub(super) fn missing(path: &Path) -> KeyFileError {
    KeyFileError::new(path, "there is no such file")
}

/// Puts a key where no file is yet: whole or not at all. A file that appears meanwhile stays.
pub(super) fn create(path: &Path, secret: &Secret) -> Result<(), KeyFileError> {
    link_new(path, secret).map_err(|error| KeyFileError::new(path, error.to_string()))
}

fn check(metadata: &Metadata) -> Result<(), String> {
    let mode = metadata.mode() & 0o7777;
    if !metadata.is_file() {
        Err("it is not a regular file".to_owned())
    } else if mode & 0o077 != 0 {
        Err(format!("others may use it (mode {mode:04o}); give it mode {MODE:04o}"))
    } else if metadata.len() > MOST_BYTES {
        Err(format!("it holds {} bytes, a key file holds one line", metadata.len()))
    } else {
        Ok(())
    }
}

fn link_new(path: &Path, secret: &Secret) -> io::Result<()> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut random = [0; 8];
    fill_random(&mut random);
    let draft = directory.join(format!(".{}.{}", name.to_string_lossy(), hex::encode(random)));

    let written = write_new(&draft, secret).and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    let removed = fs::remove_file(&draft);
    written?;
    removed?;
    File::open(directory)?.sync_all()
}

fn write_new(path: &Path, secret: &Secret) -> io::Result<()> {
    let mut line = Zeroizing::new([b'\n'; DIGITS + 1]);
    hex::encode_to_slice(**secret, &mut line[..DIGITS]).expect("the line has room for the digits");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    file.write_all(&*line)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use crate::seal::KeyRing;

    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_start_makes_a_key_and_the_next_one_finds_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal.key");
        let first = KeyRing::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, MODE);
        let second = KeyRing::load_or_create(&path).unwrap();
        assert_eq!(first.ids(), second.ids());
        let sealed = first.seal("job", b"", b"", b"x");
        assert_eq!(second.open("job", b"", b"", &sealed), Ok(b"x".to_vec()));
        let names: Vec<_> = fs::read_dir(&directory).unwrap().collect();
        assert_eq!(names.len(), 1, "only the key is left: {names:?}");
    }

    #[test]
    fn whoever_comes_second_takes_the_key_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal.key");
        let ids: Vec<_> = std::thread::scope(|scope| {
            let load = || KeyRing::load_or_create(&path).unwrap().ids();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let directory = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| directory.path().join(name));
        let before = KeyRing::load_or_create(&old).unwrap();
        let after = KeyRing::load_or_create(&new).unwrap();
        let both = KeyRing::load(&[new, old]).unwrap();
        let sealed = before.seal("job", b"", b"", b"x");
        assert_eq!(both.open("job", b"", b"", &sealed), Ok(b"x".to_vec()));
        let sealed = both.seal("job", b"", b"", b"y");
        assert_eq!(after.open("job", b"", b"", &sealed), Ok(b"y".to_vec()));
        assert!(before.open("job", b"", b"", &sealed).is_err());
    }

    #[test]
    fn files_that_cannot_be_trusted_are_refused_with_a_sentence() {
        let directory = tempfile::tempdir().unwrap();
        let key = "ab".repeat(KEY_BYTES);
        let refuse = |path: &Path, expected: &str| {
            let error = KeyRing::load_or_create(path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(!error.contains("abab"), "{error}");
        };
        let file = directory.path().join("key");
        for mode in [0o644, 0o640, 0o602, 0o610] {
            write(&file, &key, mode);
            refuse(&file, &format!("mode {mode:04o}"));
        }
        for text in ["", "ab", &key[1..], &format!("{key}00"), &format!("{key}\n{key}")] {
            write(&file, text, MODE);
            refuse(&file, "it holds no key");
        }
        write(&file, &key.repeat(10), MODE);
        refuse(&file, "640 bytes");

        write(&file, &format!("{key}\n"), MODE);
        KeyRing::load(std::slice::from_ref(&file)).unwrap();
        let link = directory.path().join("link");
        symlink(&file, &link).unwrap();
        refuse(&link, "symbolic link");
        refuse(directory.path(), "not a regular file");
        refuse(&directory.path().join("no/such/key"), "os error 2");
        let missing = KeyRing::load(&[directory.path().join("missing")]).unwrap_err();
        assert!(missing.to_string().contains("there is no such file"), "{missing}");
        assert!(KeyRing::load(&[]).is_err());
    }
}
