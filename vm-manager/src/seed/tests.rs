//! The seed is read back as guests read it.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use granit_parser::{Event, Parser};
use serde_json::Value;

use super::*;
use crate::ssh::Keys;

const SECTOR: usize = 2048;

fn seed(keys: &Keys) -> Seed {
    Seed {
        instance_id: "vm-0193.a_b".to_owned(),
        hostname: "debian-12".to_owned(),
        user: "root".to_owned(),
        authorized_key: keys.login_public_line(),
        host_key_private_openssh: keys.host_private_openssh().unwrap(),
    }
}

fn written(seed: &Seed) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("seed.iso");
    write_iso(&path, seed).unwrap();
    std::fs::read(path).unwrap()
}

/// The files in the root of an ISO 9660 image, by the name that Rock Ridge gives them
/// (ECMA-119, sections 8.4 and 9.1; the Rock Ridge `NM` entry).
fn files(image: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let volume = &image[16 * SECTOR..];
    assert_eq!(&volume[..7], b"\x01CD001\x01", "a primary volume descriptor");
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
    let (start, length) = (number(&volume[158..]), number(&volume[166..]));
    let mut records = &image[start * SECTOR..start * SECTOR + length];
    let mut files = BTreeMap::new();
    while let Some((&size, _)) = records.split_first() {
        if size == 0 {
            break;
        }
        let (record, rest) = records.split_at(usize::from(size));
        records = rest;
        if record[25] & 2 != 0 {
            continue;
        }
        let name_length = usize::from(record[32]);
        let mut entries = &record[33 + name_length + usize::from(name_length % 2 == 0)..];
        let mut name = String::new();
        while entries.len() >= 4 && entries[2] >= 4 {
            let (entry, rest) = entries.split_at(usize::from(entries[2]));
            entries = rest;
            if entry.starts_with(b"NM") {
                name.push_str(std::str::from_utf8(&entry[5..]).unwrap());
            }
        }
        let (start, length) = (number(&record[2..]), number(&record[10..]));
        files.insert(name, image[start * SECTOR..start * SECTOR + length].to_vec());
    }
    files
}

/// What a shell pipeline makes of `input`.
fn sh(script: &str, input: &[u8]) -> String {
    let mut child = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// A YAML document of strings.
fn yaml(text: &str) -> Value {
    let mut events = Parser::new_from_str(text)
        .map(|event| event.unwrap().0)
        .filter(|event| !matches!(event, Event::Comment(..)));
    assert!(matches!(events.next(), Some(Event::StreamStart)));
    assert!(matches!(events.next(), Some(Event::DocumentStart(..))));
    let first = events.next().unwrap();
    node(first, &mut events)
}

fn node<'a>(event: Event<'a>, events: &mut impl Iterator<Item = Event<'a>>) -> Value {
    match event {
        Event::Scalar(text, ..) => Value::String(text.into_owned()),
        Event::SequenceStart(..) => {
            let mut list = Vec::new();
            loop {
                match events.next().unwrap() {
                    Event::SequenceEnd => return Value::Array(list),
                    item => list.push(node(item, events)),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut map = serde_json::Map::new();
            loop {
                let key = match events.next().unwrap() {
                    Event::MappingEnd => return Value::Object(map),
                    Event::Scalar(key, ..) => key.into_owned(),
                    other => panic!("a key: {other:?}"),
                };
                let first = events.next().unwrap();
                let value = node(first, events);
                assert!(map.insert(key.clone(), value).is_none(), "{key} twice");
            }
        }
        other => panic!("a node: {other:?}"),
    }
}

#[test]
fn the_image_is_found_by_its_volume_id_and_holds_two_files() {
    let keys = Keys::generate().unwrap();
    let image = written(&seed(&keys));
    assert_eq!(image.len() % SECTOR, 0);
    // Where the tiny guest looks.
    assert_eq!(&image[32808..32814], b"CIDATA");
    assert_eq!(image[32814..32840], [b' '; 26]);
    let files = files(&image);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["meta-data", "user-data"]);
    assert_eq!(
        files["meta-data"],
        b"instance-id: vm-0193.a_b\nlocal-hostname: debian-12\n".to_vec()
    );
    assert!(files["user-data"].starts_with(b"#cloud-config\n"));
}

#[test]
fn only_this_user_can_read_it_even_over_an_older_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("seed.iso");
    std::fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let keys = Keys::generate().unwrap();
    write_iso(&path, &seed(&keys)).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read(&path).unwrap(), written(&seed(&keys)));
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let keys = Keys::generate().unwrap();
    assert_eq!(written(&seed(&keys)), written(&seed(&keys)));
    assert_ne!(written(&seed(&keys)), written(&seed(&Keys::generate().unwrap())));
}

#[test]
fn cloud_init_reads_it() {
    let keys = Keys::generate().unwrap();
    for (user, first) in [("root", "root"), ("debian", "default")] {
        let seed = Seed { user: user.to_owned(), ..seed(&keys) };
        let files = files(&written(&seed));
        let document = yaml(std::str::from_utf8(&files["user-data"]).unwrap());
        assert_eq!(document["hostname"], "debian-12");
        assert_eq!(document["disable_root"], "false");
        assert_eq!(document["ssh_pwauth"], "false");
        assert_eq!(document["ssh_deletekeys"], "true");
        assert_eq!(document["ssh_genkeytypes"], serde_json::json!([]));
        assert_eq!(document["ssh_keys"]["ed25519_private"], **keys.host_private_openssh().unwrap());
        assert_eq!(document["ssh_keys"]["ed25519_public"], keys.host_public_line());
        assert_eq!(document["ssh_authorized_keys"][0], keys.login_public_line());
        let users = document["users"].as_array().unwrap();
        let root = users.last().unwrap();
        assert_eq!(root["name"], "root");
        assert_eq!(root["ssh_authorized_keys"][0], keys.login_public_line());
        assert_eq!(users[0].as_str().or(users[0]["name"].as_str()), Some(first));
    }
}

/// The commands of the tiny guest's init (vm-facts, section 1).
#[test]
fn the_tiny_guest_reads_it() {
    let keys = Keys::generate().unwrap();
    let files = files(&written(&seed(&keys)));
    let login = keys.login_public_line();
    assert_eq!(
        sh(
            r"sed -n 's/^ *- *\(ssh-[a-z0-9-]* [A-Za-z0-9+/=]*.*\)$/\1/p' | sort -u",
            &files["user-data"]
        ),
        format!("{login}\n")
    );
    assert_eq!(
        sh(
            "sed -n '/-----BEGIN OPENSSH PRIVATE KEY/,/-----END OPENSSH/p' | sed 's/^ *//'",
            &files["user-data"]
        ),
        **keys.host_private_openssh().unwrap()
    );
    assert_eq!(sh("sed -n 's/^local-hostname: *//p'", &files["meta-data"]), "debian-12\n");
}

#[test]
fn values_cannot_break_out_of_their_line() {
    let keys = Keys::generate().unwrap();
    let refused = |change: fn(&mut Seed)| {
        let mut seed = seed(&keys);
        change(&mut seed);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seed.iso");
        let error = write_iso(&path, &seed).expect_err("a bad value");
        assert!(!path.exists());
        error.to_string()
    };
    assert_eq!(
        refused(|seed| seed.hostname = "a\nruncmd: [x]".to_owned()),
        "the host name `a\\nruncmd: [x]` of the seed is not valid: 1 to 63 lower-case letters, \
         digits and dashes, no dash at either end"
    );
    refused(|seed| seed.hostname = String::new());
    refused(|seed| seed.hostname = "-a".to_owned());
    refused(|seed| seed.hostname = "a".repeat(64));
    refused(|seed| seed.instance_id = "a: b".to_owned());
    refused(|seed| seed.user = "root\n".to_owned());
    refused(|seed| seed.authorized_key = "not a key".to_owned());
    refused(|seed| seed.authorized_key.push_str("\nssh-ed25519 AAAA"));
    refused(|seed| seed.host_key_private_openssh = "not a key".to_owned().into());
    // A comment is somebody's free text: it does not reach the guest.
    let mut commented = seed(&keys);
    commented.authorized_key.push_str(" somebody: here");
    assert_eq!(written(&commented), written(&seed(&keys)));
}
