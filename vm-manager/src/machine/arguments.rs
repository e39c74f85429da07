//! QEMU's command line.
//!
//! `-nodefaults -no-user-config`: a machine has what stands here and nothing else. Disks are attached
//! with `-blockdev`, as JSON, so that no path can be read as an option. Secrets never stand here:
//! command lines can be read by everybody on the host.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use common::size::ByteSize;
use serde_json::{Value, json};

use super::origin::MEMORY_ID;
use super::{MachineError, Origin};
use crate::host::{Acceleration, MachineName, MachinePaths};
use crate::image::{DiskModel, Image, SeedDevice};

/// QEMU may not gain rights, start programs or change its own limits. The user was changed before
/// exec, where it has to be: QEMU's own way does not go with this (vm-facts 5).
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// A failing disk stops the guest before it sees the error, and we end the machine: an error of the
/// host must not look like a failed test. QEMU's default does so only when the host's disk is full,
/// and reports everything else to the guest.
const ON_DISK_ERROR: &str = "werror=stop,rerror=stop";

/// The guest's port that is forwarded from a free port of the host's loopback.
pub(super) const SSH_PORT: u16 = 22;

/// Everything that the command line depends on.
#[derive(Debug)]
pub(super) struct CommandLine<'a> {
    pub(super) name: MachineName,
    pub(super) image: &'a Image,
    pub(super) acceleration: Acceleration,
    pub(super) cpus: u32,
    pub(super) memory: ByteSize,
    pub(super) origin: &'a Origin,
    pub(super) paths: &'a MachinePaths,
}

impl CommandLine<'_> {
    /// The arguments after the program's name.
    pub(super) fn arguments(&self) -> Result<Vec<OsString>, MachineError> {
        let mut line = Line::default();
        self.machine(&mut line)?;
        self.boot(&mut line);
        self.disks(&mut line)?;
        self.network(&mut line);
        self.devices(&mut line);
        Ok(line.0)
    }

    fn machine(&self, line: &mut Line) -> Result<(), MachineError> {
        line.option("-name", &self.name.to_string());
        line.flag("-nodefaults").flag("-no-user-config").option("-display", "none");
        line.option("-sandbox", SANDBOX);
        let mut machine = self.image.entry.hardware.machine.clone();
        if let Some((file, mut object)) = self.origin.memory(self.memory) {
            if let Some(file) = file {
                object["mem-path"] = text(&file)?.into();
            }
            line.json("-object", &object);
            machine.push_str(",memory-backend=");
            machine.push_str(MEMORY_ID);
        }
        line.option("-machine", &machine);
        line.option("-accel", self.acceleration.name());
        line.option("-cpu", self.acceleration.cpu());
        line.option("-smp", &self.cpus.to_string());
        line.option("-m", &format!("{}M", self.memory.mebibytes()));
        // A reboot ends QEMU with the reason in an event, as a shutdown does (vm-facts 9).
        line.flag("-no-reboot");
        if self.origin.is_restored() {
            line.option("-incoming", "defer");
        }
        Ok(())
    }

    fn boot(&self, line: &mut Line) {
        let hardware = &self.image.entry.hardware;
        if let Some(firmware) = &hardware.firmware {
            line.path("-bios", firmware);
        }
        if let (Some(command_line), Some(kernel)) =
            (&hardware.kernel_command_line, &self.image.kernel)
        {
            line.path("-kernel", kernel);
            if let Some(initrd) = &self.image.initrd {
                line.path("-initrd", initrd);
            }
            line.option("-append", command_line);
        }
    }

    fn disks(&self, line: &mut Line) -> Result<(), MachineError> {
        let hardware = &self.image.entry.hardware;
        // Discarded blocks leave the overlay, and flushes are not carried to the host's disk: the
        // overlay does not outlive the machine, and that of a mould is synced when it becomes a template.
        let file = json!({ "driver": "file", "filename": text(&self.origin.overlay(self.paths))?,
            "discard": "unmap" });
        line.json(
            "-blockdev",
            &json!({ "driver": "qcow2", "node-name": "disk", "file": file,
            "discard": "unmap", "detect-zeroes": "unmap", "cache": { "no-flush": true } }),
        );
        let file = json!({ "driver": "file", "filename": text(&self.paths.seed())?,
            "read-only": true });
        line.json(
            "-blockdev",
            &json!({ "driver": "raw", "node-name": "seed", "file": file,
            "read-only": true }),
        );
        if hardware.disk == DiskModel::Scsi || hardware.seed == SeedDevice::ScsiCdrom {
            line.option("-device", "virtio-scsi-pci,id=scsi");
        }
        let disk = match hardware.disk {
            DiskModel::Virtio => "virtio-blk-pci",
            DiskModel::Scsi => "scsi-hd,bus=scsi.0",
            DiskModel::Ide => "ide-hd,bus=ide.0",
        };
        // A kernel that QEMU loads itself has place 0.
        line.option("-device", &format!("{disk},drive=disk,bootindex=1,{ON_DISK_ERROR}"));
        // The seed comes after the disk: guests take the first virtio disk as their root.
        line.option(
            "-device",
            match hardware.seed {
                SeedDevice::Virtio => "virtio-blk-pci,drive=seed",
                SeedDevice::IdeCdrom => "ide-cd,bus=ide.1,drive=seed",
                SeedDevice::ScsiCdrom => "scsi-cd,bus=scsi.0,drive=seed",
            },
        );
        Ok(())
    }

    fn network(&self, line: &mut Line) {
        // Port 0: the system chooses, and we read it back. Without IPv6, whose translated host
        // address would reach the host's loopback (vm-facts 0).
        line.option(
            "-netdev",
            &format!("user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:0-:{SSH_PORT}"),
        );
        // No boot from the network, so no boot program of the card.
        let network = &self.image.entry.hardware.network;
        line.option("-device", &format!("{network},netdev=net,romfile="));
    }

    fn devices(&self, line: &mut Line) {
        // Random numbers from the start: sshd would wait for them.
        line.option("-device", "virtio-rng-pci");
        line.option("-device", "pvpanic-pci");
        line.chardev("file,id=console,path=", &self.paths.console());
        line.option("-serial", "chardev:console");
        if self.origin.has_port() {
            line.chardev("socket,id=port,server=on,wait=off,path=", &self.paths.port());
            line.option("-serial", "chardev:port");
        }
        let mut socket = OsString::from("unix:");
        socket.push(escape(self.paths.qmp().as_os_str()));
        socket.push(",server=on,wait=off");
        line.flag("-qmp").0.push(socket);
    }
}

#[derive(Default)]
struct Line(Vec<OsString>);

impl Line {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.into());
        self
    }

    fn option(&mut self, flag: &str, value: &str) {
        self.flag(flag).0.push(value.into());
    }

    /// A path as a whole value: taken as it is, but right in QEMU's working directory as well.
    fn path(&mut self, flag: &str, path: &Path) {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        self.flag(flag).0.push(path.into());
    }

    fn json(&mut self, flag: &str, value: &Value) {
        self.option(flag, &value.to_string());
    }

    /// A path at the end of a character device's options.
    fn chardev(&mut self, options: &str, path: &Path) {
        let mut value = OsString::from(options);
        value.push(escape(path.as_os_str()));
        self.flag("-chardev").0.push(value);
    }
}

/// A value among options separated by commas: its own commas are doubled.
fn escape(value: &OsStr) -> OsString {
    let mut escaped = Vec::with_capacity(value.len());
    for byte in value.as_bytes() {
        escaped.push(*byte);
        if *byte == b',' {
            escaped.push(b',');
        }
    }
    OsString::from_vec(escaped)
}

/// JSON has no other strings than UTF-8.
fn text(path: &Path) -> Result<&str, MachineError> {
    path.to_str().ok_or_else(|| MachineError::QemuStart {
        reason: format!("the path `{}` is not UTF-8; set another state directory", path.display()),
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::machine::spec::tests::image;

    fn name() -> MachineName {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        MachineName { instance: id.parse().unwrap(), vm: id.parse().unwrap() }
    }

    fn arguments(image: &Image, state: &str) -> Vec<String> {
        let paths = MachinePaths { state: state.into(), runtime: "/r".into() };
        let line = CommandLine {
            name: name(),
            image,
            acceleration: Acceleration::Tcg,
            cpus: 2,
            memory: ByteSize(256 << 20),
            origin: &Origin::Boot,
            paths: &paths,
        };
        let words = line.arguments().unwrap().into_iter();
        words.map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn the_whole_line_of_a_direct_boot() {
        let mut image = image("/i/disk.qcow2".as_ref());
        image.entry_mut().hardware.kernel_command_line = Some("console=ttyS0 root=/dev/vda".into());
        image.kernel = Some("/i/vmlinuz".into());
        image.initrd = Some("/i/initrd".into());
        let expected = [
            "-name",
            "solstice-01890a5d-ac96-774b-bcce-b302099a8057-01890a5d-ac96-774b-bcce-b302099a8057",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            "-machine",
            "q35",
            "-accel",
            "tcg",
            "-cpu",
            "max,la57=off",
            "-smp",
            "2",
            "-m",
            "256M",
            "-no-reboot",
            "-kernel",
            "/i/vmlinuz",
            "-initrd",
            "/i/initrd",
            "-append",
            "console=ttyS0 root=/dev/vda",
            "-blockdev",
            r#"{"driver":"qcow2","node-name":"disk","file":{"driver":"file","filename":"/s/disk.qcow2","discard":"unmap"},"discard":"unmap","detect-zeroes":"unmap","cache":{"no-flush":true}}"#,
            "-blockdev",
            r#"{"driver":"raw","node-name":"seed","file":{"driver":"file","filename":"/r/seed.iso","read-only":true},"read-only":true}"#,
            "-device",
            "virtio-blk-pci,drive=disk,bootindex=1,werror=stop,rerror=stop",
            "-device",
            "virtio-blk-pci,drive=seed",
            "-netdev",
            "user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22",
            "-device",
            "virtio-net-pci,netdev=net,romfile=",
            "-device",
            "virtio-rng-pci",
            "-device",
            "pvpanic-pci",
            "-chardev",
            "file,id=console,path=/r/console.log",
            "-serial",
            "chardev:console",
            "-qmp",
            "unix:/r/qmp,server=on,wait=off",
        ];
        assert_eq!(arguments(&image, "/s"), expected);
    }

    #[test]
    fn each_hardware_has_its_devices() {
        let check = |disk: DiskModel, seed: SeedDevice, expected: &[&str]| {
            let mut image = image("/i/disk.qcow2".as_ref());
            image.entry_mut().hardware.disk = disk;
            image.entry_mut().hardware.seed = seed;
            let line = arguments(&image, "/s");
            let devices: Vec<&str> = line
                .windows(2)
                .filter(|pair| pair[0] == "-device")
                .map(|pair| pair[1].as_str())
                .filter(|device| device.contains("drive=") || device.contains("scsi"))
                .collect();
            assert_eq!(devices, expected, "{disk:?} {seed:?}");
        };
        let (scsi, error) = ("virtio-scsi-pci,id=scsi", ON_DISK_ERROR);
        let virtio = format!("virtio-blk-pci,drive=disk,bootindex=1,{error}");
        let scsi_disk = format!("scsi-hd,bus=scsi.0,drive=disk,bootindex=1,{error}");
        let ide_disk = format!("ide-hd,bus=ide.0,drive=disk,bootindex=1,{error}");
        let (ide_seed, scsi_seed) =
            ("ide-cd,bus=ide.1,drive=seed", "scsi-cd,bus=scsi.0,drive=seed");
        check(DiskModel::Virtio, SeedDevice::Virtio, &[&virtio, "virtio-blk-pci,drive=seed"]);
        check(DiskModel::Virtio, SeedDevice::IdeCdrom, &[&virtio, ide_seed]);
        check(DiskModel::Virtio, SeedDevice::ScsiCdrom, &[scsi, &virtio, scsi_seed]);
        check(DiskModel::Scsi, SeedDevice::ScsiCdrom, &[scsi, &scsi_disk, scsi_seed]);
        check(DiskModel::Scsi, SeedDevice::IdeCdrom, &[scsi, &scsi_disk, ide_seed]);
        check(DiskModel::Ide, SeedDevice::IdeCdrom, &[&ide_disk, ide_seed]);
        check(DiskModel::Ide, SeedDevice::Virtio, &[&ide_disk, "virtio-blk-pci,drive=seed"]);
    }

    #[test]
    fn other_machines_networks_and_firmware() {
        let mut image = image("/i/disk.qcow2".as_ref());
        image.entry_mut().hardware.machine = "pc".to_owned();
        image.entry_mut().hardware.network = "e1000".to_owned();
        image.entry_mut().hardware.firmware = Some(PathBuf::from("/f/OVMF.fd"));
        // A kernel without a command line for it is not used: the disk boots itself.
        image.kernel = Some("/i/vmlinuz".into());
        let line = arguments(&image, "/s").join(" ");
        assert!(line.contains("-machine pc ") && line.contains("-bios /f/OVMF.fd "), "{line}");
        assert!(line.contains("-device e1000,netdev=net,romfile= "), "{line}");
        assert!(!line.contains("-kernel"), "{line}");
    }

    #[test]
    fn no_path_is_read_as_an_option() {
        let image = image("/i/disk.qcow2".as_ref());
        let line = arguments(&image, "/s,readonly=on\"").join(" ");
        assert!(line.contains(r#""filename":"/s,readonly=on\"/disk.qcow2""#), "{line}");
        assert_eq!(escape("/a,b,,c".as_ref()), OsString::from("/a,,b,,,,c"));
        let path = PathBuf::from(OsString::from_vec(vec![b'/', 0xff]));
        assert!(text(&path).is_err());
    }
}
