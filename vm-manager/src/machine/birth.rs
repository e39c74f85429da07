//! What is known of a clone's way from its template to a machine of its own.

use std::time::Duration;

/// What is known of a clone's way from its template to a machine of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Birth {
    /// The digest of its first random numbers. No two machines have the same.
    pub sample: String,
    /// Keys, seed and overlay.
    pub files: Duration,
    /// QEMU, from its start to an answer of its monitor.
    pub qemu: Duration,
    /// Processors, devices and the mapping of the memory.
    pub restore: Duration,
    /// Random numbers, clock, names and keys in the guest.
    pub personal: Duration,
}
