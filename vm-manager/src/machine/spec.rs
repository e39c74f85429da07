//! What a machine shall be.

use std::sync::Arc;

use common::limits::MACHINE_CPUS;
use common::size::ByteSize;

use super::{MachineError, Origin, Privileges};
use crate::host::Promise;
use crate::image::Image;

/// The processor for which machines are made. Their command lines are for no other emulator.
const ARCHITECTURE: &str = "x86_64";

/// Below this a Linux guest prints nothing at all (vm-facts 1).
const LEAST_MEMORY: ByteSize = ByteSize(96 * common::limits::MIB);

/// What a machine shall be.
#[derive(Debug)]
pub struct MachineSpec {
    /// What it boots.
    pub image: Arc<Image>,
    /// Number of virtual processors.
    pub cpus: u32,
    /// Memory of the guest.
    pub memory: ByteSize,
    /// The guest's host name: lower-case letters, digits and dashes.
    pub hostname: String,
    /// The user, groups and limits of QEMU.
    pub privileges: Privileges,
    /// Room that was promised before, of this size; absent means to ask for it now.
    pub promise: Option<Promise>,
    /// What it begins with.
    pub origin: Origin,
    /// Whether another owner can [adopt](super::Machine::adopt) the machine: the login key is then
    /// written to tmpfs with mode 0600, where it goes with the machine.
    pub adoptable: bool,
}

impl MachineSpec {
    /// A machine of the image's own size, run as the caller.
    #[must_use]
    pub fn of(image: Arc<Image>, hostname: &str) -> Self {
        Self {
            cpus: image.entry.cpus,
            memory: image.entry.memory,
            image,
            hostname: hostname.to_owned(),
            privileges: Privileges::default(),
            promise: None,
            origin: Origin::Boot,
            adoptable: false,
        }
    }

    /// Checks everything that can be checked without starting anything.
    pub(super) fn check(&self) -> Result<(), MachineError> {
        let entry = &self.image.entry;
        if entry.architecture != ARCHITECTURE {
            return Err(MachineError::Architecture {
                label: entry.label.clone(),
                wanted: entry.architecture.clone(),
                there: ARCHITECTURE,
            });
        }
        let size = |reason: String| Err(MachineError::Size { reason });
        if self.cpus == 0 || self.cpus > MACHINE_CPUS {
            return size(format!(
                "{} processors; from 1 to {MACHINE_CPUS} are possible",
                self.cpus
            ));
        }
        if self.memory < LEAST_MEMORY {
            return size(format!("{} of memory; a guest needs {LEAST_MEMORY}", self.memory));
        }
        if let Some(promise) = &self.promise
            && (promise.memory() < self.memory || promise.cpus() < self.cpus)
        {
            return size("more memory or processors than the room that was promised".to_owned());
        }
        let hardware = &self.image.entry.hardware;
        let direct = hardware.kernel_command_line.is_some();
        let files = [
            Some(&self.image.disk),
            self.image.kernel.as_ref().filter(|_| direct),
            self.image.initrd.as_ref().filter(|_| direct),
            hardware.firmware.as_ref(),
        ];
        for path in files.into_iter().flatten() {
            std::fs::File::open(path).map_err(|error| MachineError::ImageFile {
                label: self.image.entry.label.clone(),
                path: path.clone(),
                reason: error.to_string(),
            })?;
        }
        if direct && self.image.kernel.is_none() {
            return Err(MachineError::ImageFile {
                label: self.image.entry.label.clone(),
                path: self.image.disk.with_file_name("vmlinuz"),
                reason: "the catalogue has a kernel command line and the image no kernel"
                    .to_owned(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::*;
    use crate::image::{Catalogue, DiskModel, Entry, Hardware, SeedDevice};

    /// An image with one disk, for tests.
    pub(in crate::machine) fn image(disk: &Path) -> Image {
        let hardware = Hardware {
            machine: "q35".to_owned(),
            disk: DiskModel::Virtio,
            seed: SeedDevice::Virtio,
            network: "virtio-net-pci".to_owned(),
            firmware: None,
            kernel_command_line: None,
        };
        let tiny = Catalogue::load(None).unwrap().get("tiny").unwrap();
        let entry = Entry { label: "test".to_owned(), hardware, ..(*tiny).clone() };
        Image {
            entry: Arc::new(entry),
            digest: "sha256:0".to_owned(),
            disk: disk.to_owned(),
            kernel: None,
            initrd: None,
        }
    }

    impl Image {
        pub(in crate::machine) fn entry_mut(&mut self) -> &mut Entry {
            Arc::make_mut(&mut self.entry)
        }
    }

    #[test]
    fn impossible_machines_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("disk.qcow2");
        std::fs::write(&disk, "").unwrap();
        let check = |change: fn(&mut MachineSpec, &mut Image), expected: Option<&str>| {
            let mut changed = image(&disk);
            let mut spec = MachineSpec::of(Arc::new(image(&disk)), "host");
            change(&mut spec, &mut changed);
            spec.image = Arc::new(changed);
            let found = spec.check().err().map(|error| error.to_string());
            let matches = match (&found, expected) {
                (Some(found), Some(expected)) => found.contains(expected),
                (None, None) => true,
                _ => false,
            };
            assert!(matches, "{found:?} instead of {expected:?}");
        };
        check(|_, _| {}, None);
        check(|spec, _| spec.cpus = 0, Some("0 processors"));
        check(|spec, _| spec.cpus = 64, None);
        check(|spec, _| spec.cpus = 65, Some("from 1 to 64"));
        check(
            |_, image| image.entry_mut().architecture = "aarch64".to_owned(),
            Some("`test` is for aarch64, and QEMU here is that for x86_64"),
        );
        check(|spec, _| spec.memory = ByteSize(1), Some("a guest needs 96 MiB"));
        check(|_, image| image.disk = "/nonexistent".into(), Some("`/nonexistent`: No such file"));
        check(|_, image| image.kernel = Some("/nonexistent".into()), None);
        check(
            |_, image| {
                image.kernel = Some("/nonexistent".into());
                image.entry_mut().hardware.kernel_command_line = Some(String::new());
            },
            Some("solstice image pull test"),
        );
        check(
            |_, image| image.entry_mut().hardware.kernel_command_line = Some(String::new()),
            Some("no kernel"),
        );
    }
}
