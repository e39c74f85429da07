//! The recorded log of every version: what an older program wrote must stay readable, or a job that
//! ran over an upgrade would lose its log.
//!
//! `tests/data/segment/v1` was made once by [`record`], with the key that lies there. A change that
//! needs another file here is a change of the format: it needs a new version and a new directory.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use common::JobId;
use common::event::{EventBody, Finished, JobResult, LogBatch, LogLine, Stream};
use common::guest::GuestEvent;
use common::time::Timestamp;
use queue::seal::KeyRing;

use super::{HEAD_BYTES, Opened, open, read};
use crate::events::{EventLog, Outlet};
use crate::journal::{JournalSettings, Journals};
use crate::masking::Masker;

const JOB: &str = "01890000-0000-7000-8000-000000000001";

fn directory(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/segment/v{version}"))
}

fn job() -> JobId {
    JOB.parse().unwrap()
}

/// A copy of a recorded file that may be changed, and the key.
fn copy(version: u16) -> (tempfile::TempDir, KeyRing) {
    let place = tempfile::tempdir().unwrap();
    for name in ["seal.key", "segment"] {
        let bytes = fs::read(directory(version).join(name)).unwrap();
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o600).open(place.path().join(name)).unwrap();
        std::io::Write::write_all(&mut file, &bytes).unwrap();
    }
    let keys = KeyRing::load(&[place.path().join("seal.key")]).unwrap();
    (place, keys)
}

#[test]
fn the_log_of_the_first_version_is_still_read() {
    let (place, keys) = copy(1);
    let opened = open(&place.path().join("segment"), job(), &keys).unwrap();
    let Opened { segment, state, last } = opened.unwrap();
    let state = state.unwrap();
    assert_eq!((last, state.try_number, state.guest_seq), ((2, 3), 2, 2));
    assert_eq!(state.finished.map(|end| end.result), Some(JobResult::Success));
    let (mut at, mut events) = (HEAD_BYTES, Vec::new());
    while at < segment.length() {
        let chunk = read(segment.file(), job(), at, segment.length(), 1).unwrap();
        at = chunk.next;
        for part in chunk.parts {
            events.extend(part.part.open(&keys).unwrap());
        }
    }
    let places: Vec<_> = events.iter().map(|event| (event.try_number, event.seq)).collect();
    assert_eq!(places, [(1, 1), (2, 1), (2, 2), (2, 3)]);
    let lines: Vec<String> = events
        .iter()
        .filter_map(|event| match &event.event {
            EventBody::Log(batch) => Some(&batch.lines),
            _ => None,
        })
        .flatten()
        .map(|line| line.text.to_text().into_owned())
        .collect();
    assert_eq!(lines, ["the machine was lost", "once more", "it is ***"]);
    let end = Finished { result: JobResult::Success, infrastructure: None };
    assert_eq!(events.last().unwrap().event, EventBody::Finished(end));
}

#[tokio::test]
#[ignore = "makes the recording of a new version"]
async fn record() {
    let place = tempfile::tempdir().unwrap();
    let key = place.path().join("seal.key");
    let keys = KeyRing::load_or_create(&key).unwrap();
    let settings = JournalSettings {
        directory: place.path().join("journals"),
        host: "01890000-0000-7000-8000-000000000002".parse().unwrap(),
        days: 14,
        bytes: 1 << 30,
    };
    let journals = Journals::open(settings, keys, None).unwrap();
    let sender = journals.create(job(), None).unwrap();
    let mut log = EventLog::new(job(), 1, Masker::new(["hunter2"]), Outlet::Journal(sender));
    log.begin_try(1);
    log.notice("the machine was lost").await.unwrap();
    log.begin_try(2);
    log.notice("once more").await.unwrap();
    let time = Timestamp::from_micros(1_700_000_000_000_000);
    let line = LogLine { time, stream: Stream::Stdout, text: b"it is hunter2".to_vec().into() };
    log.record(GuestEvent::Log(LogBatch { step: None, lines: vec![line] })).unwrap();
    log.record(GuestEvent::Finished(JobResult::Success)).unwrap();
    log.finish(JobResult::Success, None).await.unwrap();
    journals.close().await;
    let mut found = fs::read_dir(place.path().join("journals")).unwrap();
    let found = found.next().unwrap().unwrap().path();
    let directory = directory(1);
    fs::create_dir_all(&directory).unwrap();
    for (from, name) in [(found, "segment"), (key, "seal.key")] {
        let to = directory.join(name);
        assert!(!to.exists(), "it is recorded once");
        fs::copy(from, to).unwrap();
    }
}
