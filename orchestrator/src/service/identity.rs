//! The host's id, made once and kept in its state directory.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use common::ids::HostId;
use sha2::{Digest, Sha256};

use super::StartError;

/// The file's name.
const FILE: &str = "host-id";
/// An id and its line end; more is not ours.
const FILE_BYTES: usize = 64;

/// Reads the id, or makes it.
pub(super) fn load_or_create(state: &Path) -> Result<HostId, StartError> {
    let path = state.join(FILE);
    let unusable = |reason: String| StartError::Identity { path: path.clone(), reason };
    match fs::read(&path) {
        Ok(bytes) => {
            let text = bytes.get(..bytes.len().min(FILE_BYTES)).unwrap_or_default();
            let text = String::from_utf8_lossy(text);
            text.trim().parse().map_err(|_| {
                unusable("it holds no id; remove it if no job of this host is left".to_owned())
            })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let host = HostId::new();
            fs::create_dir_all(state)
                .and_then(|()| write_new(&path, &format!("{host}\n")))
                .map_err(|error| unusable(error.to_string()))?;
            Ok(host)
        }
        Err(error) => Err(unusable(error.to_string())),
    }
}

/// Tells a service that was started again from another one with a copied id: the same directory on
/// the same machine since its last boot.
pub(super) fn place(state: &Path) -> uuid::Uuid {
    let mut hash = Sha256::new();
    for file in ["/etc/machine-id", "/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/hostname"]
    {
        hash.update(fs::read(file).unwrap_or_default());
        hash.update([0]);
    }
    let state = fs::canonicalize(state).unwrap_or_else(|_| state.to_owned());
    hash.update(state.as_os_str().as_encoded_bytes());
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// Whole or not at all, also after a loss of power.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    let unfinished = path.with_extension("new");
    let mut file = fs::File::create(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_directory() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(place(one.path()), place(&one.path().join(".")));
        assert_ne!(place(one.path()), place(two.path()));
    }

    #[test]
    fn a_host_keeps_its_id() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let made = load_or_create(&state).unwrap();
        assert_eq!(load_or_create(&state).unwrap(), made);
        fs::write(state.join(FILE), "nonsense").unwrap();
        let error = load_or_create(&state).unwrap_err();
        assert!(error.to_string().contains("holds no id"), "{error}");
    }
}
