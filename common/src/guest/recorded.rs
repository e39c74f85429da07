//! The recorded conversation of every version: a guest program that was pushed by an older
//! orchestrator must be understood by the one that adopts its machine.
//!
//! `tests/data/v1/` was made once by [`record`]. A change that needs another file here is a change of
//! the conversation: it needs a new version and a new directory.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::event::{AnnotationLevel, Conclusion, LogLine, Stream};
use crate::frame::{Decoder, encode_into};
use crate::plan::{Containers, Dialect, PLAN_VERSION, Step, StepAction, Value};
use crate::time::Timestamp;

fn directory(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/v{version}"))
}

fn job() -> JobId {
    "01890000-0000-7000-8000-000000000001".parse().unwrap()
}

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_micros((1_700_000_000 + seconds) * 1_000_000)
}

fn to_guest() -> Vec<ToGuest> {
    vec![
        ToGuest::Attach { version: ATTACH_VERSION, from: 1 },
        ToGuest::Ack { seq: 7 },
        ToGuest::Cancel,
    ]
}

fn from_guest() -> Vec<FromGuest> {
    let line = |stream, text: &[u8]| LogLine { time: time(2), stream, text: text.to_vec().into() };
    let events = [
        GuestEvent::Mask(Secret::new("hunter2")),
        GuestEvent::StepStarted(StepStarted { step: 0, name: "test".to_owned(), time: time(1) }),
        GuestEvent::Log(LogBatch {
            step: Some(0),
            lines: vec![line(Stream::Stdout, b"t\xc3\xa4wo"), line(Stream::Stderr, b"\xff")],
        }),
        GuestEvent::Annotation(Annotation {
            step: 0,
            level: AnnotationLevel::Warning,
            message: "careful".to_owned(),
            title: None,
            file: Some("src/main.c".to_owned()),
            line: Some(3),
            end_line: None,
            column: Some(1),
            end_column: None,
        }),
        GuestEvent::Summary(Summary { step: 0, markdown: "# fine".to_owned() }),
        GuestEvent::StepFinished(StepFinished {
            step: 0,
            name: "test".to_owned(),
            outcome: Conclusion::Failure,
            conclusion: Conclusion::Success,
            took: Duration::from_millis(1_500),
            time: time(3),
        }),
        GuestEvent::Outputs(BTreeMap::from([("a".to_owned(), "b".to_owned())])),
        GuestEvent::DiskFull("cannot write /var/tmp/x".to_owned()),
        GuestEvent::Finished(JobResult::Failure),
    ];
    let attached = FromGuest::Attached { version: ATTACH_VERSION, job: job(), next: 1 };
    let events = events.into_iter().zip(1..).map(|(event, seq)| FromGuest::Event { seq, event });
    let refused = FromGuest::Refused { reason: "no such job".to_owned() };
    [attached].into_iter().chain(events).chain([refused]).collect()
}

fn document() -> JobDocument {
    let step = Step {
        index: 0,
        id: Some("one".to_owned()),
        name: Some(Value::literal("test")),
        condition: Some("always()".to_owned()),
        env: Value::empty_mapping(),
        continue_on_error: None,
        timeout_minutes: Some(Value::literal("5")),
        action: StepAction::Run {
            script: Value::Template("echo ${{ github.ref }}".to_owned()),
            shell: None,
            working_directory: None,
        },
        location: None,
    };
    let plan = Plan {
        version: PLAN_VERSION,
        dialect: Dialect::Forgejo,
        server_version: Some("11.0.1".to_owned()),
        job: "build".to_owned(),
        name: "build".to_owned(),
        env: Vec::new(),
        defaults: Vec::new(),
        containers: Containers::default(),
        steps: vec![step],
        outputs: Value::empty_mapping(),
        timeout_minutes: None,
        file: Some(".forgejo/workflows/ci.yml".to_owned()),
    };
    JobDocument {
        version: ATTACH_VERSION,
        job: job(),
        plan,
        contexts: Contexts::default(),
        secrets: BTreeMap::from([("TOKEN".to_owned(), Secret::new("hunter2"))]),
        runner: RunnerFacts {
            os: "illumos".to_owned(),
            arch: "X64".to_owned(),
            name: "host-1".to_owned(),
            tool_cache: "/opt/hostedtoolcache".to_owned(),
        },
        work_directory: "/home/runner/work".to_owned(),
        run_as: None,
        label: None,
        checkout_first: false,
        tree: Some("/var/tmp/solstice/tree".to_owned()),
        services: Vec::new(),
        native_commits: Default::default(),
    }
}

fn frames<T: Serialize>(messages: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        encode_into(&mut bytes, message).unwrap();
    }
    bytes
}

fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Vec<T> {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()
}

/// What this version says, by the names of the files.
fn samples() -> [(&'static str, Vec<u8>); 3] {
    let document = serde_json::to_vec_pretty(&document()).unwrap();
    [
        ("to-guest.bin", frames(&to_guest())),
        ("from-guest.bin", frames(&from_guest())),
        ("document.json", [document, b"\n".to_vec()].concat()),
    ]
}

#[test]
fn what_the_first_version_said_is_still_understood() {
    let file = |name: &str| fs::read(directory(1).join(name)).unwrap();
    assert_eq!(read::<ToGuest>(&file("to-guest.bin")), to_guest());
    assert_eq!(read::<FromGuest>(&file("from-guest.bin")), from_guest());
    let read: JobDocument = serde_json::from_slice(&file("document.json")).unwrap();
    assert_eq!(read, document());
}

/// The other side may be as old as the recording.
#[test]
fn this_version_is_still_spoken_as_it_was_recorded() {
    for (name, bytes) in samples() {
        assert_eq!(fs::read(directory(ATTACH_VERSION).join(name)).unwrap(), bytes, "{name}");
    }
}

#[test]
#[ignore = "makes the recording of a new version"]
fn record() {
    let directory = directory(ATTACH_VERSION);
    fs::create_dir_all(&directory).unwrap();
    for (name, bytes) in samples() {
        let mut file = fs::File::create_new(directory.join(name)).expect("it is recorded once");
        file.write_all(&bytes).unwrap();
    }
}
