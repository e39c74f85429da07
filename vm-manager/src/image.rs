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

// SHIM until the real store is merged.
#[allow(missing_docs)]
pub mod shim {
    use super::*;
    #[derive(Debug, Clone, Default)]
    pub struct Catalogue;
    #[derive(Debug, thiserror::Error)]
    #[error("catalogue")]
    pub struct CatalogueError;
    #[derive(Debug, thiserror::Error)]
    #[error("unknown label {0}")]
    pub struct UnknownLabel(pub String);
    #[derive(Debug, thiserror::Error)]
    #[error("image {0}")]
    pub struct ImageError(pub String);
    #[derive(Debug)]
    pub enum Progress {
        Building { line: String },
    }
    impl Catalogue {
        pub fn load(_extra: Option<&std::path::Path>) -> Result<Self, CatalogueError> {
            Ok(Self)
        }
        pub fn get(&self, label: &str) -> Result<Arc<Entry>, UnknownLabel> {
            if !["tiny", "debian-12"].contains(&label) {
                return Err(UnknownLabel(label.to_owned()));
            }
            Ok(Arc::new(Entry {
                label: label.to_owned(),
                runner_os: "Linux".into(),
                runner_arch: "X64".into(),
                hardware: Hardware {
                    machine: "q35".into(),
                    disk: DiskModel::Virtio,
                    seed: SeedDevice::Virtio,
                    network: "virtio-net-pci".into(),
                    firmware: None,
                    kernel_command_line: Some(
                        "console=ttyS0 panic=-1 quiet root=/dev/vda rw".into(),
                    ),
                },
                user: "root".into(),
                privilege: vec![],
                shutdown: "poweroff".into(),
                tool_cache: "/opt/hostedtoolcache".into(),
                work_directory: "/home/runner/work".into(),
                run_as: None,
                cpus: 1,
                memory: if label == "tiny" { ByteSize(256 << 20) } else { ByteSize(1 << 30) },
                disk: ByteSize(2 << 30),
                boot_ceiling: Duration::from_secs(180),
            }))
        }
    }
    #[derive(Debug)]
    pub struct ImageStore;
    impl ImageStore {
        pub fn open(_dir: &std::path::Path) -> Self {
            Self
        }
        pub async fn ensure(
            &self,
            entry: &Arc<Entry>,
            _progress: &(dyn Fn(Progress) + Sync),
        ) -> Result<Image, ImageError> {
            let d = PathBuf::from("/work/images-ready").join(&entry.label);
            Ok(Image {
                entry: entry.clone(),
                digest: "sha256:x".into(),
                disk: d.join("disk.qcow2"),
                kernel: Some(d.join("vmlinuz")),
                initrd: Some(d.join("initrd")),
            })
        }
    }
}
pub use shim::*;
