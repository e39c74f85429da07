//! What this host can give to machines.

use std::fs;
use std::io;

use common::limits::{GIB, MIB};
use common::size::ByteSize;

/// Virtual processors promised for each real one. Jobs wait for disks and networks much of the time,
/// so processors may be promised twice; memory may not.
const CPU_OVERCOMMIT: u32 = 2;

/// Memory and processors of the host, as far as machines may have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// All the memory that machines could ever have together.
    pub memory: ByteSize,
    /// What machines could have now in addition to what they use already.
    pub available: ByteSize,
    /// Virtual processors that may be promised together.
    pub cpus: u32,
}

impl Capacity {
    /// Looks at this host: `/proc/meminfo` and, where this process lives in a container, the limit
    /// of its control group.
    ///
    /// # Errors
    ///
    /// When `/proc/meminfo` cannot be read or has no totals.
    pub fn of_host() -> io::Result<Self> {
        let (mut total, mut available) = parse_meminfo(&fs::read_to_string("/proc/meminfo")?)
            .ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal or MemAvailable"))?;
        let group = |name: &str| {
            let text = fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?;
            text.trim().parse::<u64>().ok()
        };
        if let Some(limit) = group("memory.max") {
            let used = group("memory.current").unwrap_or(0);
            total = total.min(limit);
            available = available.min(limit.saturating_sub(used));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let cpus = u32::try_from(cores).unwrap_or(u32::MAX).saturating_mul(CPU_OVERCOMMIT);
        let margin = margin(total);
        Ok(Self {
            memory: ByteSize(total.saturating_sub(margin)),
            available: ByteSize(available.saturating_sub(margin)),
            cpus,
        })
    }

    /// This host, or what its operator says of it.
    ///
    /// # Errors
    ///
    /// As for [`Capacity::of_host`].
    pub fn within(limits: &CapacityLimits) -> io::Result<Self> {
        let host = Self::of_host()?;
        let memory = limits.memory.unwrap_or(host.memory);
        let available = if memory > host.memory { memory } else { host.available };
        Ok(Self { memory, available, cpus: limits.cpus.unwrap_or(host.cpus) })
    }
}

/// What an operator says about a host instead of what it says itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapacityLimits {
    /// Virtual processors that may be promised together.
    pub cpus: Option<u32>,
    /// All the memory that machines may have together. More than the host has is the operator's
    /// risk: nothing looks at what is really free then.
    pub memory: Option<ByteSize>,
}

/// What is left to the host itself: a twentieth, at least 128 MiB and at most 1 GiB.
fn margin(total: u64) -> u64 {
    (total / 20).clamp(128 * MIB, GIB)
}

/// MemTotal and MemAvailable in bytes.
fn parse_meminfo(text: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes = line.strip_prefix(':')?.trim().strip_suffix("kB")?;
        kibibytes.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some((field("MemTotal")?, field("MemAvailable")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_as_the_kernel_writes_it() {
        let text = "MemTotal:       24000 kB\nMemFree: 1 kB\nMemAvailable:   12000 kB\n";
        assert_eq!(parse_meminfo(text), Some((24_576_000, 12_288_000)));
        assert_eq!(parse_meminfo("MemTotal: 5 kB\n"), None);
        assert_eq!(parse_meminfo("MemTotal: x kB\nMemAvailable: 5 kB"), None);
    }

    #[test]
    fn the_host_keeps_a_margin() {
        assert_eq!(margin(GIB), 128 * MIB);
        assert_eq!(margin(8 * GIB), 8 * GIB / 20);
        assert_eq!(margin(256 * GIB), GIB);
        let host = Capacity::of_host().unwrap();
        assert!(host.cpus >= CPU_OVERCOMMIT && host.memory.0 > 0);
    }
}
