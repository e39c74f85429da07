//! Where things lie on this host, and what may be used of it.

use std::path::PathBuf;

use common::size::ByteSize;

use super::{Acceleration, CapacityLimits};

/// Where things lie on this host, and what may be used of it. The caller reads its configuration
/// and environment; this crate reads neither.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// Directory on disk for images, overlays and records.
    pub state: PathBuf,
    /// Directory on tmpfs for sockets, seeds, keys and consoles. Socket paths have about a hundred
    /// bytes in all, so this one should be short.
    pub runtime: PathBuf,
    /// The QEMU program: a path, or a name to look up in `PATH`.
    pub qemu: PathBuf,
    /// The `qemu-img` program: a path, or a name to look up in `PATH`.
    pub qemu_img: PathBuf,
    /// Free space that a start must leave in `state`.
    pub disk_reserve: ByteSize,
    /// The acceleration to use without asking; absent means to probe.
    pub acceleration: Option<Acceleration>,
    /// What machines may have together, where that is not what the host has.
    pub limits: CapacityLimits,
}

#[cfg(test)]
impl HostSettings {
    /// Settings for a test of its own directory, on a host without QEMU.
    pub(crate) fn below(directory: &std::path::Path) -> Self {
        Self {
            state: directory.join("state"),
            runtime: directory.join("run"),
            qemu: "/nonexistent/qemu".into(),
            qemu_img: "/nonexistent/qemu-img".into(),
            disk_reserve: ByteSize(0),
            acceleration: None,
            limits: CapacityLimits::default(),
        }
    }
}
