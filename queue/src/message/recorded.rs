//! The recorded messages of every version: what an older program wrote must stay readable.
//!
//! tests/data/v1/ was made once by [`record`], with the key that lies there. A file with the same
//! name and the end `.json` says what must come out. A change that needs another file here is a
//! change of the protocol: it needs a new version and a new directory.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use common::request::PROTOCOL_VERSION;
use serde::Serialize;
use serde_json::{Value, json};

use super::samples::{HOST, controls, events, id, request, reserve, reserved};
use super::{Control, EventBatch, EventPart, JobMessage, Message, Reserve, Reserved};
use crate::seal::KeyRing;

fn directory(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/v{version}"))
}

/// The key of a version, read as an installation reads its own.
fn keys(version: u16) -> KeyRing {
    let text = fs::read(directory(version).join("seal.key")).unwrap();
    let private = tempfile::tempdir().unwrap();
    let path = private.path().join("seal.key");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    file.write_all(&text).unwrap();
    KeyRing::load(&[path]).unwrap()
}

/// What a recorded file says, in a form that people can read.
fn read(name: &str, bytes: &[u8], keys: &KeyRing) -> Value {
    match name {
        "job" => text(&JobMessage::decode(bytes).unwrap().open(keys).unwrap()),
        "stored" => {
            let (length, rest) = bytes.split_first_chunk().unwrap();
            let (envelope, body) = rest.split_at(u32::from_be_bytes(*length) as usize);
            text(&JobMessage::from_stored(envelope, body).unwrap().open(keys).unwrap())
        }
        "events" => {
            let batch = EventBatch::decode(bytes).unwrap();
            let part = |part: &EventPart| {
                json!({
                    "job": part.job, "try": part.try_number, "first": part.first,
                    "count": part.count, "last": part.last, "events": part.open(keys).unwrap(),
                })
            };
            let parts: Vec<_> = batch.parts.iter().map(part).collect();
            json!({ "host": batch.host, "parts": parts })
        }
        "reserve" => text(&Reserve::decode(bytes).unwrap()),
        "reserved" => text(&Reserved::decode(bytes).unwrap()),
        _ => text(&Control::decode(bytes).unwrap()),
    }
}

fn text(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

/// The messages of this version by the names of their files.
fn samples(keys: &KeyRing) -> Vec<(&'static str, Vec<u8>)> {
    let job = JobMessage::seal(&request(), keys).unwrap();
    let length = u32::try_from(job.envelope_bytes().len()).unwrap().to_be_bytes();
    let stored = [&length, job.envelope_bytes(), &job.body_bytes()].concat();
    let all = events();
    let parts = [&all[..2], &all[2..]].map(|events| EventPart::seal(events, keys).unwrap());
    let batch = EventBatch { host: id(HOST), parts: parts.into() };
    let mut samples = vec![
        ("job", job.encode()),
        ("stored", stored),
        ("events", batch.encode().unwrap()),
        ("reserve", reserve().encode().unwrap()),
        ("reserved", reserved().encode().unwrap()),
    ];
    samples.extend(controls().map(|(name, control)| (name, control.encode().unwrap())));
    samples
}

#[test]
fn what_every_version_wrote_is_still_read() {
    for version in 1..=PROTOCOL_VERSION {
        let keys = keys(version);
        let mut seen = 0;
        for entry in fs::read_dir(directory(version)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "bin") {
                continue;
            }
            let name = path.file_stem().unwrap().to_str().unwrap();
            let found = read(name, &fs::read(&path).unwrap(), &keys);
            let expected = fs::read(path.with_extension("json")).unwrap();
            let expected: Value = serde_json::from_slice(&expected).unwrap();
            assert_eq!(found, expected, "{}", path.display());
            seen += 1;
        }
        assert_eq!(seen, samples(&keys).len(), "version {version}");
    }
}

/// What is not sealed has the same bytes as when it was recorded: another program of this version
/// may be as old as the recording.
#[test]
fn this_version_is_still_written_as_it_was_recorded() {
    let directory = directory(PROTOCOL_VERSION);
    let keys = keys(PROTOCOL_VERSION);
    for (name, bytes) in samples(&keys) {
        let recorded = fs::read(directory.join(name).with_extension("bin")).unwrap();
        match name {
            "events" => assert_eq!(bytes.len(), recorded.len(), "{name}"),
            "job" | "stored" => {
                assert_eq!(bytes.len(), recorded.len(), "{name}");
                // The envelope is not sealed.
                let envelope = JobMessage::seal(&request(), &keys).unwrap();
                let envelope = envelope.envelope_bytes();
                let holds = recorded.windows(envelope.len()).any(|window| window == envelope);
                assert!(holds, "{name}");
            }
            _ => assert_eq!(bytes, recorded, "{name}"),
        }
    }
}

#[test]
#[ignore = "makes the recording of a new version"]
fn record() {
    let directory = directory(PROTOCOL_VERSION);
    let keys = keys(PROTOCOL_VERSION);
    for (name, bytes) in samples(&keys) {
        let mut text = serde_json::to_vec_pretty(&read(name, &bytes, &keys)).unwrap();
        text.push(b'\n');
        let path = directory.join(name);
        for (extension, content) in [("bin", bytes), ("json", text)] {
            let mut file =
                fs::File::create_new(path.with_extension(extension)).expect("it is recorded once");
            file.write_all(&content).unwrap();
        }
    }
}
