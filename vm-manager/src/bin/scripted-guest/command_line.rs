//! QEMU's command line, as vm-manager writes it. An option that it does not write is an error, as a
//! wrong one is with QEMU: the real program is the measure of what may be added here.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use serde_json::Value;

use crate::disk_tool;

/// Options that stand alone.
const FLAGS: [&str; 3] = ["-nodefaults", "-no-user-config", "-no-reboot"];

/// Options with a value that changes nothing here.
const IGNORED: [&str; 7] =
    ["-display", "-sandbox", "-machine", "-accel", "-cpu", "-smp", "-append"];

/// Options whose value is a file that QEMU loads.
const FILES: [&str; 3] = ["-bios", "-kernel", "-initrd"];

/// The devices that QEMU is asked for.
const DEVICES: [&str; 11] = [
    "e1000",
    "ide-cd",
    "ide-hd",
    "isa-debug-exit",
    "pvpanic-pci",
    "scsi-cd",
    "scsi-hd",
    "virtio-blk-pci",
    "virtio-net-pci",
    "virtio-rng-pci",
    "virtio-scsi-pci",
];

/// What the program was started as.
#[derive(Debug)]
pub(crate) enum Started {
    /// The guest that only tells whether acceleration works.
    Probe,
    /// A machine.
    Machine(CommandLine),
}

/// What a machine is made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// The value of `-name`.
    pub(crate) name: String,
    /// The seed disk.
    pub(crate) seed: PathBuf,
    /// The file that the serial console is written to.
    pub(crate) console: PathBuf,
    /// The monitor's socket.
    pub(crate) monitor: PathBuf,
    /// Where the host's end of the forwarding listens; port 0 means any.
    pub(crate) forward: SocketAddr,
    /// The guest's port behind it.
    pub(crate) guest_port: u16,
}

#[derive(Default)]
struct Found {
    name: Option<String>,
    seed: Option<PathBuf>,
    disk: Option<PathBuf>,
    console: Option<PathBuf>,
    monitor: Option<PathBuf>,
    forward: Option<(SocketAddr, u16)>,
    probe: bool,
}

/// Reads the arguments after the program's name and opens what QEMU would open; the error is what
/// QEMU would print.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Started, String> {
    let mut found = Found::default();
    let mut arguments = arguments.iter();
    while let Some(option) = arguments.next() {
        let option = option.to_string_lossy();
        if FLAGS.contains(&&*option) {
            continue;
        }
        let value = arguments.next().ok_or(format!("{option}: requires an argument"))?;
        found.take(&option, value).map_err(|error| format!("{option}: {error}"))?;
    }
    if found.probe {
        return Ok(Started::Probe);
    }
    let missing = |option: &str| format!("{option} is missing, without which there is no guest");
    found.disk.ok_or(missing("-blockdev of a qcow2 disk"))?;
    let (forward, guest_port) = found.forward.ok_or(missing("-netdev with hostfwd"))?;
    Ok(Started::Machine(CommandLine {
        name: found.name.ok_or(missing("-name"))?,
        seed: found.seed.ok_or(missing("-blockdev of a raw seed"))?,
        console: found.console.ok_or(missing("-chardev of the console"))?,
        monitor: found.monitor.ok_or(missing("-qmp"))?,
        forward,
        guest_port,
    }))
}

impl Found {
    fn take(&mut self, option: &str, value: &OsStr) -> Result<(), String> {
        let text = || value.to_string_lossy().into_owned();
        match option {
            "-name" => self.name = Some(text()),
            "-m" => {
                let number = text().strip_suffix('M').and_then(|number| number.parse::<u64>().ok());
                // The probe guest's is written without a unit.
                number.or_else(|| text().parse().ok()).ok_or("invalid memory size")?;
            }
            "-serial" if text() == "chardev:console" => {}
            "-blockdev" => self.disk(&text())?,
            "-device" => self.device(&text())?,
            "-netdev" => self.forward = Some(forwarding(&text())?),
            "-chardev" => self.console = Some(console(value)?),
            "-qmp" => self.monitor = Some(monitor(value)?),
            _ if FILES.contains(&option) => {
                File::open(value).map_err(|error| format!("could not open {value:?}: {error}"))?;
            }
            _ if IGNORED.contains(&option) => {}
            _ => return Err("invalid option".to_owned()),
        }
        Ok(())
    }

    fn disk(&mut self, json: &str) -> Result<(), String> {
        let options: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let path = options.pointer("/file/filename").and_then(Value::as_str);
        let path = PathBuf::from(path.ok_or("Parameter 'filename' is missing")?);
        let opened = File::open(&path).map_err(|error| format!("Could not open {path:?}: {error}"));
        match options.get("driver").and_then(Value::as_str) {
            Some("qcow2") => {
                disk_tool::check(opened?).map_err(|error| format!("{path:?}: {error}"))?;
                self.disk = Some(path);
            }
            Some("raw") => {
                opened?;
                self.seed = Some(path);
            }
            _ => return Err("Parameter 'driver' does not accept this value".to_owned()),
        }
        Ok(())
    }

    fn device(&mut self, text: &str) -> Result<(), String> {
        let model = text.split(',').next().unwrap_or_default();
        if !DEVICES.contains(&model) {
            return Err(format!("'{model}' is not a valid device model name"));
        }
        self.probe |= model == "isa-debug-exit";
        Ok(())
    }
}

/// `user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22`.
fn forwarding(text: &str) -> Result<(SocketAddr, u16), String> {
    let rule = text.split(',').find_map(|part| part.strip_prefix("hostfwd=tcp:"));
    let parsed = rule.and_then(|rule| {
        let (host, guest) = rule.split_once("-:")?;
        Some((host.parse().ok()?, guest.parse().ok()?))
    });
    parsed.ok_or_else(|| "Invalid host forwarding rule".to_owned())
}

/// `file,id=console,path=...`.
fn console(value: &OsStr) -> Result<PathBuf, String> {
    let parts = options(value);
    let is_file = parts.first().is_some_and(|part| part == b"file");
    let path = parts.iter().find_map(|part| part.strip_prefix(b"path="));
    match path {
        Some(path) if is_file => Ok(OsString::from_vec(path.to_owned()).into()),
        _ => Err("'path' of a file is missing".to_owned()),
    }
}

/// `unix:PATH,server=on,wait=off`.
fn monitor(value: &OsStr) -> Result<PathBuf, String> {
    let parts = options(value);
    match &parts[..] {
        [path, server, wait] if server == b"server=on" && wait == b"wait=off" => {
            let path = path.strip_prefix(b"unix:").ok_or("it is no unix socket")?;
            Ok(OsString::from_vec(path.to_owned()).into())
        }
        _ => Err("it is not `unix:PATH,server=on,wait=off`".to_owned()),
    }
}

/// Options separated by commas; a doubled comma is one of a value's own.
fn options(value: &OsStr) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = value.as_bytes().iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b',' && bytes.next_if_eq(&b',').is_none() {
            parts.push(Vec::new());
        } else {
            parts.last_mut().expect("there is one from the start").push(byte);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<Started, String> {
        parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn wrong_options_are_refused_as_qemu_refuses_them() {
        let check = |words: &[&str], expected: &str| {
            let error = parse_words(words).unwrap_err();
            assert!(error.contains(expected), "{words:?}: {error}");
        };
        check(&["-frobnicate", "x"], "-frobnicate: invalid option");
        check(&["-name"], "requires an argument");
        check(&["-device", "no-such-card,netdev=net"], "'no-such-card' is not a valid device");
        check(&["-kernel", "/nonexistent"], "could not open");
        check(&["-blockdev", "{}"], "filename");
        check(
            &["-blockdev", r#"{"driver":"qcow2","file":{"filename":"/dev/null"}}"#],
            "not in qcow2 format",
        );
        check(&["-netdev", "user,id=net"], "forwarding rule");
        check(&["-m", "lots"], "memory");
        check(&["-serial", "stdio"], "invalid option");
        check(&["-nodefaults"], "is missing");
    }

    #[test]
    fn the_probe_guest_is_known_by_its_device() {
        let words = ["-m", "32", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4"];
        assert!(matches!(parse_words(&words), Ok(Started::Probe)));
    }

    #[test]
    fn values_with_commas() {
        assert_eq!(options("a,b,,c,,".as_ref()), [b"a".to_vec(), b"b,c,".to_vec()]);
        let socket = monitor("unix:/r,,x/qmp,server=on,wait=off".as_ref()).unwrap();
        assert_eq!(socket, PathBuf::from("/r,x/qmp"));
        assert!(monitor("unix:/r/qmp".as_ref()).is_err());
        let file = console("file,id=console,path=/r,,=x/c".as_ref()).unwrap();
        assert_eq!(file, PathBuf::from("/r,=x/c"));
        assert!(console("pty,id=console,path=/r".as_ref()).is_err());
        let rule = "user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22";
        assert_eq!(forwarding(rule).unwrap(), (([127, 0, 0, 1], 0).into(), 22));
    }
}
