//! A small ISO 9660 image.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use hadris_fs::{Content, Node, PathError, SetAttr, Tree};
use hadris_iso::{IsoId, IsoOptions};
use hadris_storage::host::FileDevice;

use super::{SeedError, VOLUME_ID};

/// Writes an image with these files in its root, with Rock Ridge and Joliet names: Linux and the
/// BSDs read the first, Windows and some firmware the second. Dates are fixed.
pub(super) fn write(path: &Path, files: &[(&str, &[u8])]) -> Result<(), SeedError> {
    let image = |error: PathError| SeedError::Image(error.to_string());
    let mut tree = Tree::new();
    for (name, bytes) in files {
        let private = SetAttr::new().with_permissions(hadris_fs::Permissions::new(0o600));
        let node = Node::file(Content::bytes(*bytes)).with_attrs(private);
        tree.insert(name, node).map_err(image)?;
    }
    let options = IsoOptions::default()
        .with_id(IsoId::Volume, VOLUME_ID)
        .with_id(IsoId::Application, "SOLSTICE")
        .with_joliet()
        .with_rock_ridge();
    let device = create(path)
        .and_then(FileDevice::new)
        .map_err(|source| SeedError::Write { path: path.to_owned(), source })?;
    hadris_iso::sync::write(device, &tree, &options).map_err(image)?;
    Ok(())
}

/// An empty file that only this user can read, whatever was there before.
fn create(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}
