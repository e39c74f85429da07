//! One image: where it comes from, what machine it wants, how one works in it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::size::ByteSize;

use super::digest::Digest;

/// One entry of the catalogue, as read from `images/catalogue.toml`.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name in `runs-on`.
    pub label: String,
    /// Other names in `runs-on` for the same image.
    pub aliases: Vec<String>,
    /// The operating system: `Debian`, `OmniOS`.
    pub system: String,
    /// Its version, as its makers write it.
    pub version: String,
    /// `runner.os`.
    pub runner_os: String,
    /// `runner.arch`.
    pub runner_arch: String,
    /// The processor architecture as QEMU names it: `x86_64`, `aarch64`.
    pub architecture: String,
    /// Where the image comes from.
    pub source: Source,
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
    /// Whether the repository is checked out before a job's first step.
    pub checkout: Checkout,
    /// Default number of processors.
    pub cpus: u32,
    /// Default memory.
    pub memory: ByteSize,
    /// Size of the disk that the guest sees.
    pub disk: ByteSize,
    /// The longest time from start to an answer of the guest's SSH server.
    pub boot_ceiling: Duration,
    /// How a clone of a frozen guest becomes a machine of its own; absent means that every machine
    /// boots.
    pub template: Option<Templating>,
    /// What is done in a machine before a job's first step; a template has it done already.
    pub prepare: Option<Preparation>,
    /// Whether a guest of this image has been booted by the project's own tests.
    pub verified: bool,
    /// What a user should know, above all of an image that is not verified.
    pub note: Option<String>,
}

/// How a clone of a frozen guest becomes a machine of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Templating {
    /// The guest's name for its second serial port, such as `/dev/ttyS1`.
    pub port: String,
    /// The script that puts names and keys in their places, in POSIX shell.
    pub script: &'static str,
}

/// What is done in a machine before a job's first step: packages that are installed, and whatever
/// else is prepared for all jobs of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preparation {
    /// A POSIX shell script, run as root.
    pub script: String,
    /// How long it may take.
    pub deadline: Duration,
}

/// Whether the repository is checked out before a job's first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Checkout {
    /// By a step of the job alone.
    #[default]
    Never,
    /// Also where no step of the job does it.
    Auto,
}

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Built on this host by one of the recipes in the binary.
    Recipe(String),
    /// Downloaded.
    Download {
        /// An `https` or `http` address.
        url: String,
        /// What the downloaded bytes must be.
        digest: SourceDigest,
        /// What the disk image is once unpacked. It is never guessed from the bytes.
        format: DiskFormat,
        /// How the downloaded file is packed.
        compression: Compression,
    },
}

/// What the downloaded bytes must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceDigest {
    /// These.
    Known(Digest),
    /// Whatever the first pull finds and the user confirms; the same ever after.
    OnFirstPull,
}

/// The format of a downloaded disk image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFormat {
    /// QEMU's own.
    Qcow2,
    /// The bytes of the disk.
    Raw,
}

impl DiskFormat {
    /// The name that `qemu-img -f` takes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// How a downloaded file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// `gzip`
    Gzip,
    /// `xz`
    Xz,
    /// `zstd`
    Zstd,
}

impl Compression {
    /// The name in the catalogue.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }
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

/// An image on this host, ready to boot. Its files are read-only and never change.
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
