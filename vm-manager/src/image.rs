//! STUB: the types are the border; the owner of this module completes it and splits it into files.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::size::ByteSize;

/// One entry of the catalogue, as read from `images/catalogue.toml`.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name in `runs-on`.
    pub label: String,
    /// `runner.os`.
    pub runner_os: String,
    /// `runner.arch`.
    pub runner_arch: String,
    /// How the machine is built.
    pub hardware: Hardware,
    /// The user that SSH logs in as.
    pub user: String,
    /// The command in front of another that runs it as root, empty if `user` is root:
    /// `["sudo", "-n"]`.
    pub privilege: Vec<String>,
    /// The command that shuts the guest down, run as root.
    pub shutdown: String,
    /// `runner.tool_cache`.
    pub tool_cache: String,
    /// Below it the job's directories lie.
    pub work_directory: String,
    /// The user that steps run as; absent means root.
    pub run_as: Option<String>,
    /// Default number of processors.
    pub cpus: u32,
    /// Default memory.
    pub memory: ByteSize,
    /// Size of the disk that the guest sees.
    pub disk: ByteSize,
    /// The longest time from start to an answer of the guest's SSH server.
    pub boot_ceiling: Duration,
}

/// How a machine is built: data of the image.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// QEMU's machine type: `q35`, `pc`.
    pub machine: String,
    /// How the disk is attached.
    pub disk: DiskModel,
    /// How the seed is attached.
    pub seed: SeedDevice,
    /// QEMU's network device: `virtio-net-pci`, `e1000`.
    pub network: String,
    /// UEFI firmware image; absent means the machine's BIOS.
    pub firmware: Option<PathBuf>,
    /// Kernel command line for direct boot; absent means the disk's own boot loader.
    pub kernel_command_line: Option<String>,
}

/// How the disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskModel {
    /// virtio-blk-pci
    Virtio,
    /// virtio-scsi-pci and scsi-hd
    Scsi,
    /// The machine's IDE or AHCI bus.
    Ide,
}

/// How the seed is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedDevice {
    /// A second virtio disk.
    Virtio,
    /// A CD-ROM on the machine's IDE or AHCI bus.
    IdeCdrom,
    /// A CD-ROM on a virtio-scsi bus.
    ScsiCdrom,
}

/// An image on this host, ready to boot.
#[derive(Clone, Debug)]
pub struct Image {
    /// The catalogue's entry.
    pub entry: Arc<Entry>,
    /// `sha256:...` of the content.
    pub digest: String,
    /// The read-only disk, qcow2.
    pub disk: PathBuf,
    /// The kernel, for direct boot.
    pub kernel: Option<PathBuf>,
    /// The initial RAM disk, for direct boot.
    pub initrd: Option<PathBuf>,
}
