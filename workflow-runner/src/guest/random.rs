//! The kernel's random numbers, which clones of a template share until a new seed is in.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use common::personal::SAMPLE_BYTES;
use sha2::{Digest, Sha256};

/// Where every system takes a seed and gives random numbers that wait for nothing.
const DEVICE: &str = "/dev/urandom";

/// Mixes a seed into the kernel's generator, and makes the generator use it at once. As root.
///
/// # Errors
/// The kernel refuses it.
pub(super) fn reseed(seed: &[u8]) -> io::Result<()> {
    let mut device = OpenOptions::new().write(true).open(DEVICE)?;
    device.write_all(seed)?;
    force(&device)
}

/// Linux uses what was written only at the next of its own times, unless it is told (random(4);
/// vm-facts 3). The others reseed by the write itself.
#[cfg(target_os = "linux")]
fn force(device: &File) -> io::Result<()> {
    nix::ioctl_none_bad!(
        /// `RNDRESEEDCRNG` of linux/random.h.
        reseed_now,
        nix::request_code_none!(b'R', 7)
    );
    use std::os::fd::AsRawFd;
    #[expect(unsafe_code, reason = "an ioctl has no safe form")]
    // SAFETY: the descriptor is open for the time of the call, and this request has no argument.
    let done = unsafe { reseed_now(device.as_raw_fd()) };
    done.map(drop).map_err(io::Error::from)
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "Linux has more to do")]
fn force(_: &File) -> io::Result<()> {
    Ok(())
}

/// The digest of the next random numbers.
///
/// # Errors
/// The device cannot be read.
pub(super) fn sample() -> io::Result<String> {
    let mut bytes = [0; SAMPLE_BYTES];
    File::open(DEVICE)?.read_exact(&mut bytes)?;
    Ok(hex::encode(Sha256::digest(bytes)))
}
