//! The files of a template.

use std::path::{Path, PathBuf};

/// The guest's memory, mapped by every clone.
pub(super) const MEMORY: &str = "memory";
/// The state of processors and devices.
pub(super) const DEVICE: &str = "device";
/// What the guest wrote over what it began with.
pub(super) const DISK: &str = "disk.qcow2";
/// The disk of the template that this one goes on from.
pub(super) const BASE: &str = "base.qcow2";

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
