//! What is written down about a machine, so that it can be found after its owner died.

use std::net::SocketAddr;
use std::path::Path;

use common::ids::VmId;
use common::size::ByteSize;
use common::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::files::{read_bounded, write_private};
use super::{Acceleration, Accelerator, HostError, ProcessIdentity};

/// The version of the record that this program writes and reads. What is added to it later may be
/// absent: older programs pass over it, newer ones do without it.
const VERSION: u16 = 1;

/// Records have some hundred bytes; more is not ours.
const RECORD_BYTES: u64 = 64 * 1024;

/// One machine. Holds no secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u16,
    /// The machine.
    pub(crate) vm: VmId,
    /// The label of its image.
    pub(crate) label: String,
    /// Its QEMU; absent while it is being started.
    pub(crate) process: Option<ProcessIdentity>,
    /// Present when the machine outlives its job on purpose.
    pub(crate) keep: Option<Keep>,
    /// Present when another owner can adopt the machine.
    pub(crate) adoption: Option<Adoption>,
    /// What it was started with; older programs did not write it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shape: Option<RecordedShape>,
}

/// What a machine was started with, so that its like can be started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RecordedShape {
    /// The digest of its image.
    pub(crate) image: String,
    /// Its virtual processors.
    pub(crate) cpus: u32,
    /// The memory of its guest.
    pub(crate) memory: ByteSize,
    /// How it is run.
    pub(crate) acceleration: Acceleration,
    /// Whether it has the devices of a clone.
    pub(crate) clone: bool,
}

/// What an owner needs that did not start the machine. The private key is not here but in a file of
/// mode 0600 on tmpfs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Adoption {
    /// The host's end of the forwarding to its SSH server.
    pub(crate) address: SocketAddr,
    /// The user to log in as.
    pub(crate) user: String,
    /// The command in front of another that runs it as root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) privilege: Vec<String>,
    /// The host key to expect, as a line of `known_hosts` without the name.
    pub(crate) host_key: String,
    /// Its virtual processors.
    pub(crate) cpus: u32,
    /// The memory of its guest.
    pub(crate) memory: ByteSize,
    /// How it is run.
    pub(crate) accelerator: Accelerator,
}

/// How a kept machine is reached, and until when. The private key is not here but in a file of mode
/// 0600 on tmpfs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Keep {
    /// The name by which people find it.
    pub(crate) name: String,
    /// When it is destroyed.
    pub(crate) until: Timestamp,
    /// The host's end of the forwarding to its SSH server.
    pub(crate) address: SocketAddr,
    /// The user to log in as.
    pub(crate) user: String,
    /// The host key to expect, as a line of `known_hosts` without the name.
    pub(crate) host_key: String,
}

impl Record {
    pub(crate) fn new(vm: VmId, label: &str) -> Self {
        Self {
            version: VERSION,
            vm,
            label: label.to_owned(),
            process: None,
            keep: None,
            adoption: None,
            shape: None,
        }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), HostError> {
        let text = serde_json::to_vec_pretty(self).expect("a record has a JSON form");
        write_private(path, &text)
    }

    /// Reads a record, `None` if there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, HostError> {
        let Some(text) = read_bounded(path, RECORD_BYTES)? else { return Ok(None) };
        let malformed = |reason| HostError::Record { path: path.to_owned(), reason };
        let record: Self =
            serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        if record.version != VERSION {
            let version = record.version;
            return Err(malformed(format!(
                "it has version {version}, this program reads {VERSION}"
            )));
        }
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Acceleration;

    /// As the first release wrote it, before machines could be adopted.
    const FIRST_RELEASE: &str = r#"{
  "version": 1,
  "vm": "01890a5d-ac96-774b-bcce-b302099a8057",
  "label": "tiny",
  "process": {
    "pid": 4711,
    "start": 99
  },
  "keep": null
}"#;

    #[test]
    fn a_record_of_the_first_release_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.json");
        std::fs::write(&path, FIRST_RELEASE).unwrap();
        let record = Record::read(&path).unwrap().unwrap();
        assert_eq!(record.process, Some(ProcessIdentity { pid: 4711, start: 99 }));
        assert_eq!((record.label.as_str(), record.keep, record.adoption), ("tiny", None, None));
    }

    /// As a service writes it for a machine that the next one can adopt.
    const ADOPTABLE: &str = r#"{
  "version": 1,
  "vm": "01890a5d-ac96-774b-bcce-b302099a8057",
  "label": "tiny",
  "process": {
    "pid": 4711,
    "start": 99
  },
  "keep": null,
  "adoption": {
    "address": "127.0.0.1:2222",
    "user": "root",
    "host_key": "ssh-ed25519 AAAA",
    "cpus": 2,
    "memory": 1073741824,
    "accelerator": {
      "acceleration": "tcg",
      "reason": "as configured"
    }
  }
}"#;

    #[test]
    fn a_record_with_an_adoption_is_read_and_written_as_it_was_recorded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.json");
        std::fs::write(&path, ADOPTABLE).unwrap();
        let record = Record::read(&path).unwrap().unwrap();
        let adoption = record.adoption.as_ref().unwrap();
        assert_eq!((adoption.address, adoption.cpus), (([127, 0, 0, 1], 2222).into(), 2));
        assert_eq!(adoption.accelerator.acceleration, Acceleration::Tcg);
        record.write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), ADOPTABLE);
    }

    #[test]
    fn records_read_back_and_others_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.json");
        assert_eq!(Record::read(&path).unwrap(), None);
        let mut record = Record::new(VmId::new(), "tiny");
        record.process = Some(ProcessIdentity { pid: 4711, start: 99 });
        record.keep = Some(Keep {
            name: "r1".to_owned(),
            until: Timestamp::from_micros(5),
            address: ([127, 0, 0, 1], 2222).into(),
            user: "root".to_owned(),
            host_key: "ssh-ed25519 AAAA".to_owned(),
        });
        record.adoption = Some(Adoption {
            address: ([127, 0, 0, 1], 2222).into(),
            user: "root".to_owned(),
            privilege: vec!["doas".to_owned()],
            host_key: "ssh-ed25519 AAAA".to_owned(),
            cpus: 2,
            memory: ByteSize(1 << 30),
            accelerator: Accelerator { acceleration: Acceleration::Kvm, reason: None },
        });
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), Some(record.clone()));

        record.version = 2;
        record.write(&path).unwrap();
        assert!(Record::read(&path).unwrap_err().to_string().contains("version 2"));
        for garbage in ["", "{}", "[1]", "\u{0}"] {
            std::fs::write(&path, garbage).unwrap();
            assert!(Record::read(&path).is_err(), "{garbage:?}");
        }
        std::fs::write(&path, vec![b' '; 70_000]).unwrap();
        assert!(Record::read(&path).unwrap_err().to_string().contains("65536"));
    }
}
