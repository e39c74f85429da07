//! The files of a template.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::host::HostError;

/// The guest's memory, mapped by every clone.
pub(super) const MEMORY: &str = "memory";
/// The state of processors and devices.
pub(super) const DEVICE: &str = "device";
/// What the guest wrote over what it began with.
pub(super) const DISK: &str = "disk.qcow2";
/// The disk of the template that this one goes on from.
pub(super) const BASE: &str = "base.qcow2";

/// What a machine calls the disk of its template.
const TEMPLATE: &str = "template.qcow2";

pub(crate) fn memory(directory: &Path) -> PathBuf {
    directory.join(MEMORY)
}

pub(crate) fn device(directory: &Path) -> PathBuf {
    directory.join(DEVICE)
}

pub(crate) fn disk(directory: &Path) -> PathBuf {
    directory.join(DISK)
}

pub(crate) fn base(directory: &Path) -> PathBuf {
    directory.join(BASE)
}

/// Where a machine has the disk of its template.
pub(crate) fn template(machine: &Path) -> PathBuf {
    machine.join(TEMPLATE)
}

/// Gives a clone the disks of its template, so that it does without the template; a template that
/// lies on another file system is used where it is. Says which it is.
pub(crate) fn link_template(from: &Path, machine: &Path) -> Result<PathBuf, HostError> {
    let own = template(machine);
    match link(&disk(from), &own) {
        Ok(true) => {}
        Ok(false) => return Ok(disk(from)),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => return Ok(disk(from)),
        Err(error) => return Err(HostError::io("link", &own)(error)),
    }
    link(&base(from), &base(machine)).map_err(HostError::io("link", &base(machine)))?;
    Ok(own)
}

/// Gives a directory the disks below a clone's own.
pub(crate) fn link_below(from: &Path, to: &Path) -> Result<(), HostError> {
    for path in [template(from), base(from)] {
        let own = to.join(path.file_name().unwrap_or_default());
        link(&path, &own).map_err(HostError::io("link", &own))?;
    }
    Ok(())
}

/// Whether there was something to link.
fn link(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
