//! What only this form has: its file, its limits, and how it reads ahead. The contract of both
//! forms is checked in tests/conformance.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::event::{EventBody, JobEvent, LogBatch};
use tempfile::TempDir;

use super::lane::{AHEAD_BYTES, AHEAD_MESSAGES};
use super::*;
use crate::Delivery;
use crate::message::EventPart;
use crate::seal::KeyRing;

/// How long anything that must happen may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Place {
    _directory: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        Self { _directory: directory, path }
    }

    async fn open(&self) -> Embedded {
        Embedded::open(&self.path).await.unwrap()
    }

    async fn with_limits(&self, limits: Limits) -> Embedded {
        Embedded::start(Database::open(&self.path).await.unwrap(), limits).await.unwrap()
    }
}

fn address() -> Address {
    "runner-1".parse().unwrap()
}

/// Events of about so many bytes, of which the first has this number.
fn batch(number: u64, bytes: usize) -> EventBatch {
    let text = vec![b'x'; bytes].into();
    let time = Timestamp::from_micros(1);
    let line = common::event::LogLine { time, stream: common::event::Stream::Stdout, text };
    let event = EventBody::Log(LogBatch { step: None, lines: vec![line] });
    let event = JobEvent { job: JobId::new(), try_number: 1, seq: number, time, event };
    let part = EventPart::seal(&[event], &KeyRing::ephemeral()).unwrap();
    EventBatch { host: HostId::new(), parts: vec![part] }
}

async fn next(receiver: &mut EventReceiver) -> Delivery<EventBatch> {
    timeout(PATIENCE, receiver.next()).await.expect("nothing came").unwrap()
}

fn number(delivery: &Delivery<EventBatch>) -> u64 {
    delivery.message.as_ref().unwrap().parts[0].first
}

/// Whether nothing can be taken now. What was published or given back can be taken at once, unless
/// it has to be read first.
async fn is_silent(receiver: &mut EventReceiver) -> bool {
    tokio::select! {
        biased;
        _ = receiver.next() => false,
        () = std::future::ready(()) => true,
    }
}

#[tokio::test]
async fn a_file_is_private_and_keeps_what_is_not_acknowledged() {
    let place = Place::new();
    std::fs::write(&place.path, b"").unwrap();
    let queue = place.open().await;
    for suffix in ["", "-wal"] {
        let file = format!("{}{suffix}", place.path.display());
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o600, "{file}");
    }
    let mut receiver = queue.events(&address(), 2).await.unwrap();
    for number in 1..=3 {
        queue.publish_events(&address(), &batch(number, 1)).await.unwrap();
    }
    let [first, second] = [next(&mut receiver).await, next(&mut receiver).await];
    second.acknowledge().await.unwrap();
    queue.close().await;
    assert!(matches!(first.acknowledge().await, Err(QueueError::Closed)));

    // In order, not closed a second time, and without the one that was acknowledged.
    for _ in 0..2 {
        let queue = place.open().await;
        let mut receiver = queue.events(&address(), 3).await.unwrap();
        assert_eq!(number(&next(&mut receiver).await), 1);
        drop(receiver);
        let mut receiver = queue.events(&address(), 3).await.unwrap();
        let both = [next(&mut receiver).await, next(&mut receiver).await];
        assert_eq!(both.each_ref().map(number), [1, 3]);
        assert!(is_silent(&mut receiver).await);
    }
}

#[tokio::test]
async fn a_newer_file_and_what_is_no_database_are_refused() {
    let place = Place::new();
    let queue = place.open().await;
    queue.close().await;
    let alter = async |statement: &'static str| {
        let mut database = Database::open(&place.path).await.unwrap();
        database.alter(statement).await;
        database.close().await;
    };
    alter("PRAGMA user_version = 2").await;
    let before = std::fs::read(&place.path).unwrap();
    let (opened, looked) = (Embedded::open(&place.path).await, Embedded::look(&place.path).await);
    for refused in [opened.unwrap_err(), looked.unwrap_err()] {
        let QueueError::Newer { path, found: 2, known: 1 } = &refused else {
            panic!("{refused:?}")
        };
        assert_eq!(Path::new(path), place.path);
    }
    assert_eq!(std::fs::read(&place.path).unwrap(), before, "a newer file is left as it was");

    let other = Place::new();
    std::fs::write(&other.path, b"no database, but long enough for one".repeat(100)).unwrap();
    let refused = Embedded::open(&other.path).await.unwrap_err().to_string();
    assert!(refused.contains("not a database"), "{refused}");
    assert!(refused.contains(other.path.to_str().unwrap()), "{refused}");
    let missing = place.path.join("no/such/directory");
    assert!(matches!(Embedded::open(&missing).await, Err(QueueError::Unavailable { .. })));
}

#[tokio::test]
async fn a_file_that_is_looked_at_stays_as_it_is() {
    let place = Place::new();
    let files = || {
        let directory = std::fs::read_dir(place.path.parent().unwrap()).unwrap();
        let read = |entry: std::fs::DirEntry| (entry.path(), std::fs::read(entry.path()).unwrap());
        directory.map(|entry| read(entry.unwrap())).collect::<std::collections::BTreeMap<_, _>>()
    };
    let queue = place.open().await;
    let before = files();
    Embedded::look(&place.path).await.unwrap();
    assert_eq!(files(), before, "while it is in use");
    queue.close().await;
    let before = files();
    Embedded::look(&place.path).await.unwrap();
    assert_eq!(files(), before);
    let missing = place.path.with_file_name("missing");
    assert!(matches!(Embedded::look(&missing).await, Err(QueueError::Unavailable { .. })));
    assert!(!missing.exists());
}

#[tokio::test]
async fn another_database_is_not_taken_for_a_queue() {
    let place = Place::new();
    let mut database = Database::open(&place.path).await.unwrap();
    database.alter("PRAGMA application_id = 7").await;
    database.close().await;
    let refused = Embedded::open(&place.path).await.unwrap_err().to_string();
    assert!(refused.contains("not a queue's file"), "{refused}");
}

#[tokio::test]
async fn a_full_lane_refuses_and_loses_nothing() {
    let large = Limits { messages: 3, bytes: MIB, age: Duration::from_secs(3600) };
    for (limits, bytes, fit) in [(large, 1, 3), (Limits { bytes: 2500, ..large }, 1000, 2)] {
        let place = Place::new();
        let queue = place.with_limits(limits).await;
        drop(queue.events(&address(), 1).await.unwrap());
        for number in 1..=fit {
            queue.publish_events(&address(), &batch(number, bytes)).await.unwrap();
        }
        queue.close().await;
        // What an earlier process left counts too.
        let queue = place.with_limits(limits).await;
        let refused = queue.publish_events(&address(), &batch(9, bytes)).await.unwrap_err();
        let QueueError::Unavailable { reason } = refused else { panic!("{refused:?}") };
        assert!(reason.contains("\"events.runner-1\" is full"), "{reason}");

        let mut receiver = queue.events(&address(), 9).await.unwrap();
        for expected in 1..=fit {
            let delivery = next(&mut receiver).await;
            assert_eq!(number(&delivery), expected);
            delivery.acknowledge().await.unwrap();
        }
        // The acknowledgements are before it in the same line.
        queue.dead_letters(1).await.unwrap();
        queue.publish_events(&address(), &batch(8, bytes)).await.unwrap();
        assert_eq!(number(&next(&mut receiver).await), 8);
        queue.close().await;
    }
}

#[tokio::test]
async fn a_lane_that_nobody_empties_is_full_after_its_time() {
    let place = Place::new();
    let queue = place.with_limits(Limits { age: Duration::ZERO, ..LIMITS }).await;
    drop(queue.events(&address(), 1).await.unwrap());
    queue.publish_events(&address(), &batch(1, 1)).await.unwrap();
    let before = Timestamp::now();
    while Timestamp::now() == before {
        tokio::task::yield_now().await;
    }
    let refused = queue.publish_events(&address(), &batch(2, 1)).await;
    assert!(matches!(refused, Err(QueueError::Unavailable { .. })), "{refused:?}");
}

#[tokio::test]
async fn only_one_process_has_the_file_open() {
    let place = Place::new();
    let queue = place.open().await;
    let second = tokio::spawn({
        let path = place.path.clone();
        async move { Embedded::open(&path).await }
    });
    let refused = timeout(PATIENCE, second).await.unwrap().unwrap().unwrap_err();
    assert!(refused.to_string().contains("locked"), "{refused}");
    queue.close().await;
    place.open().await.close().await;
}

/// A host that is away for ever must not keep a cancel from the others.
#[tokio::test]
async fn a_cancel_passes_a_full_host_by() {
    let place = Place::new();
    let queue = place.with_limits(Limits { messages: 1, ..LIMITS }).await;
    let (here, away) = (HostId::new(), HostId::new());
    drop(queue.control(away).await.unwrap());
    queue.cancel(JobId::new()).await.unwrap();
    assert!(queue.cancel(JobId::new()).await.is_err(), "nobody could take it");
    let mut control = queue.control(here).await.unwrap();
    let job = JobId::new();
    queue.cancel(job).await.unwrap();
    let crate::Heard::Control(delivery) = control.next().await.unwrap() else { panic!() };
    assert!(matches!(delivery.message, Ok(Control::Cancel { job: came, .. }) if came == job));
}

#[tokio::test]
async fn a_long_lane_is_read_ahead_in_order_and_without_holes() {
    let place = Place::new();
    let queue = place.open().await;
    drop(queue.events(&address(), 1).await.unwrap());
    let small = 3 * AHEAD_MESSAGES as u64;
    let all = small + 8;
    for number in 1..=all {
        let bytes = if number > small { AHEAD_BYTES / 3 } else { 1 };
        queue.publish_events(&address(), &batch(number, bytes)).await.unwrap();
    }
    let mut receiver = queue.events(&address(), 100).await.unwrap();
    let mut held = Vec::new();
    for expected in 1..=all {
        // While it is read, more comes, and now and then a receiver is lost.
        if expected % 100 == 0 {
            drop(std::mem::take(&mut held));
            queue.publish_events(&address(), &batch(all + expected / 100, 1)).await.unwrap();
        }
        let delivery = next(&mut receiver).await;
        assert_eq!(number(&delivery), expected);
        delivery.acknowledge().await.unwrap();
        if expected == small / 2 {
            for ahead in 1..=50 {
                let delivery = next(&mut receiver).await;
                assert_eq!(number(&delivery), expected + ahead);
                held.push(delivery);
            }
        }
        if !held.is_empty() {
            drop(receiver);
            receiver = queue.events(&address(), 100).await.unwrap();
            held.clear();
        }
    }
    for expected in 1..=all / 100 {
        let delivery = next(&mut receiver).await;
        assert_eq!(number(&delivery), all + expected);
        delivery.acknowledge().await.unwrap();
    }
}

#[tokio::test]
async fn a_delivery_that_is_dropped_comes_again_to_the_same_receiver() {
    let place = Place::new();
    let queue = place.open().await;
    let mut receiver = queue.events(&address(), 2).await.unwrap();
    for number in 1..=3 {
        queue.publish_events(&address(), &batch(number, 1)).await.unwrap();
    }
    let [first, second] = [next(&mut receiver).await, next(&mut receiver).await];
    assert!(is_silent(&mut receiver).await);
    drop(first);
    assert_eq!(number(&next(&mut receiver).await), 1);
    drop(second);
    assert_eq!(number(&next(&mut receiver).await), 1, "the one that was dropped just now");
}

#[tokio::test]
async fn the_second_receiver_of_events_waits_until_the_first_is_gone() {
    let place = Place::new();
    let queue = place.open().await;
    let mut first = queue.events(&address(), 2).await.unwrap();
    let mut second = queue.events(&address(), 2).await.unwrap();
    for number in 1..=2 {
        queue.publish_events(&address(), &batch(number, 1)).await.unwrap();
    }
    assert!(is_silent(&mut second).await);
    let held = next(&mut first).await;
    let waiting = tokio::spawn(async move { [next(&mut second).await, next(&mut second).await] });
    drop(first);
    let came = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(came.each_ref().map(number), [1, 2]);
    let lost = held.acknowledge().await.unwrap_err();
    assert!(lost.to_string().contains("its receiver is gone"), "{lost}");
}

#[tokio::test]
async fn a_full_disk_is_an_error_until_there_is_room() {
    let place = Place::new();
    let mut database = Database::open(&place.path).await.unwrap();
    database.alter("PRAGMA max_page_count = 60").await;
    let queue = Embedded::start(database, LIMITS).await.unwrap();
    let mut receiver = queue.events(&address(), 100).await.unwrap();
    let mut taken = 0;
    let refused = loop {
        match queue.publish_events(&address(), &batch(taken + 1, 16 * 1024)).await {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
        assert!(taken < 60, "there is no limit");
    };
    assert!(matches!(refused, QueueError::Unavailable { .. }), "{refused:?}");
    assert!(refused.to_string().contains("full"), "{refused}");
    for expected in 1..=taken {
        let delivery = next(&mut receiver).await;
        assert_eq!(number(&delivery), expected);
        delivery.acknowledge().await.unwrap();
    }
    assert!(is_silent(&mut receiver).await, "what was refused is not delivered");
    // The space of what was acknowledged is free with the transaction that removes it.
    queue.close().await;
    let queue = place.open().await;
    queue.publish_events(&address(), &batch(99, 16 * 1024)).await.unwrap();
    let mut receiver = queue.events(&address(), 1).await.unwrap();
    assert_eq!(number(&next(&mut receiver).await), 99);
}

#[tokio::test]
async fn many_publishers_share_the_cost_of_the_disk() {
    const PUBLISHERS: u64 = 200;
    let place = Place::new();
    let queue = place.open().await;
    let mut receiver = queue.events(&address(), 1000).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let queue = queue.clone();
        tasks.spawn(async move {
            for number in 1..=5 {
                let batch = batch(publisher * 10 + number, 1);
                queue.publish_events(&address(), &batch).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    // Each publisher's messages come in its order.
    let mut last = vec![0; PUBLISHERS as usize];
    for _ in 0..5 * PUBLISHERS {
        let delivery = next(&mut receiver).await;
        let number = number(&delivery);
        let last = &mut last[(number / 10) as usize];
        assert_eq!(number % 10, *last + 1);
        *last += 1;
        delivery.acknowledge().await.unwrap();
    }
    assert!(is_silent(&mut receiver).await);
}

/// A file that version 1 of this program left, with something in each lane.
#[tokio::test]
async fn the_file_of_an_older_program_is_still_read() {
    let place = Place::new();
    std::fs::copy(recorded(), &place.path).unwrap();
    let queue = place.open().await;
    let mut jobs = queue.jobs(1).await.unwrap();
    let job = timeout(PATIENCE, jobs.next()).await.unwrap().unwrap();
    assert_eq!(job.message.unwrap().envelope().repository, "team/wídget");
    let mut receiver = queue.events(&"forgejo-1".parse().unwrap(), 9).await.unwrap();
    assert_eq!(next(&mut receiver).await.message.unwrap().parts.len(), 2);
    let host: HostId = "01890000-0000-7000-8000-000000000002".parse().unwrap();
    let mut control = queue.control(host).await.unwrap();
    let mut heard = Vec::new();
    for _ in 0..3 {
        match timeout(PATIENCE, control.next()).await.unwrap().unwrap() {
            crate::Heard::Control(delivery) => {
                heard.push(delivery.message.as_ref().unwrap().clone());
                delivery.acknowledge().await.unwrap();
            }
            crate::Heard::Reserve(..) => panic!("nobody asks"),
        }
    }
    let has = |is: fn(&Control) -> bool| heard.iter().any(is);
    assert!(has(|control| matches!(control, Control::Cancel { .. })));
    assert!(has(|control| matches!(control, Control::Progress(progress) if progress.seq == 5)));
    assert!(has(|control| matches!(control, Control::Release(release) if release.count == 3)));
    let letters = queue.dead_letters(9).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].queue.as_str(), letters[0].reason.as_str()), ("jobs", "recorded"));
    queue.close().await;
}

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1/queue.db")
}

#[tokio::test]
#[ignore = "makes the recording of a new version"]
async fn record() {
    let path = recorded();
    assert!(!path.exists(), "it is recorded once");
    let place = Place::new();
    let queue = place.open().await;
    let read = |name: &str| std::fs::read(path.with_file_name(name)).unwrap();
    let job = JobMessage::decode(&read("job.bin")).unwrap();
    queue.publish_job(&job).await.unwrap();
    let mut jobs = queue.jobs(1).await.unwrap();
    jobs.next().await.unwrap().reject("recorded").await.unwrap();
    queue.publish_job(&job).await.unwrap();
    let to = "forgejo-1".parse().unwrap();
    drop(queue.events(&to, 1).await.unwrap());
    let events = EventBatch::decode(&read("events.bin")).unwrap();
    queue.publish_events(&to, &events).await.unwrap();
    drop(queue.control(events.host).await.unwrap());
    for name in ["cancel.bin", "progress.bin", "release.bin"] {
        match Control::decode(&read(name)).unwrap() {
            Control::Cancel { job, .. } => queue.cancel(job).await.unwrap(),
            Control::Progress(progress) => queue.progress(events.host, progress).await.unwrap(),
            Control::Release(release) => queue.release(release).await.unwrap(),
        }
    }
    queue.close().await;
    std::fs::copy(&place.path, &path).unwrap();
}
