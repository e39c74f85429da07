//! Messages on the queue that nobody of ours would send: each is named in the log, counted, and put
//! to the dead letters; a forge runner that can be told is told; and the service goes on.

use std::path::Path;
use std::time::Instant;

use common::JobId;
use common::event::{EventBody, JobResult};
use common::infrastructure::Infrastructure;
use common::limits::{CONTROL_BYTES, JOB_REQUEST_BYTES, RESERVE_BYTES};
use common::request::JobRequest;
use queue::Queue;
use queue::embedded::Embedded;
use queue::message::{JobMessage, Message, Progress};
use simulators::jobs::{Received, job};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::harness::{Host, LOOK, PATIENCE};
use crate::shared::{Runner, Shared};

/// A broker, a database, a host with a service, and a forge runner whose queue for events is there.
struct World {
    shared: Shared,
    host: Host,
    runner: Runner,
}

impl World {
    async fn start() -> Self {
        let shared = Shared::of_all().await;
        let host = shared.host();
        let runner = shared.runner("runner-1").await;
        drop(runner.queue.events(&runner.address, 1).await.unwrap());
        Self { shared, host, runner }
    }

    /// A job of the forge runner.
    fn request(&self, line: &str) -> JobRequest {
        let mut request = job("scripted", &[&format!("echo {line}")]);
        request.envelope.reply_to = self.runner.address.to_string();
        request
    }

    fn message(&self, request: &JobRequest) -> JobMessage {
        JobMessage::seal(request, &self.runner.keys).unwrap()
    }

    /// Runs a job that is as it should be.
    async fn good_job_runs(&self) {
        let id = self.runner.publish(job("scripted", &["echo good"])).await;
        let received = self.runner.finish(&[id]).await;
        assert_eq!(received[&id].lines(), ["good"]);
        assert_eq!(received[&id].finished().unwrap().result, JobResult::Success);
    }

    /// Takes the events of a job that was turned down.
    async fn told(&self, job: JobId) -> Infrastructure {
        let received = self.runner.finish(&[job]).await;
        assert_turned_down(&received[&job])
    }

    /// Whether the log names all of this in one line.
    fn assert_logged(&self, words: &[&str]) {
        let log = self.host.diagnostics();
        let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "no line with {words:?} in\n{log}");
    }
}

fn assert_turned_down(received: &Received) -> Infrastructure {
    let finished = received.finished().unwrap();
    assert_eq!(finished.result, JobResult::Failure);
    assert!(received.lines().is_empty(), "it ran: {:?}", received.lines());
    let finals = received.events().filter(|e| matches!(e.event, EventBody::Finished(_))).count();
    assert_eq!(finals, 1);
    let cause = finished.infrastructure.clone().unwrap();
    assert_eq!(cause.cause.code(), "SOL-JOB-UNREADABLE", "{cause}");
    cause
}

/// A message that was spoilt in every way, with what must be said about it.
fn spoilt(good: &[u8], limit: usize) -> Vec<(Vec<u8>, String)> {
    let mut newer = good.to_vec();
    newer[4..6].copy_from_slice(&9_u16.to_be_bytes());
    let mut oversized = good.to_vec();
    oversized.resize(limit + 1, 0);
    let mut malformed = good.to_vec();
    malformed[6] = 0xc1; // A byte that MessagePack does not use.
    let mut other = good.to_vec();
    other[3] = b'?';
    vec![
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "not a message of Solstice".to_owned()),
        (malformed, "cannot be read".to_owned()),
        (good[..good.len() - 1].to_vec(), "cannot be read".to_owned()),
        (other, "a message of kind 63".to_owned()),
        (oversized, format!("over the limit of {limit}")),
        (newer, "protocol version 9, this program knows up to 1; upgrade this part".to_owned()),
    ]
}

/// Puts spoilt messages on a queue and checks what becomes of them.
async fn refuses_all(queue: &str, good: &[u8], limit: usize) {
    let world = World::start().await;
    let service = world.host.serve().await;
    let queue = queue.replace("HOST", &service.host_id());
    let spoilt = spoilt(good, limit);
    let bytes: Vec<_> = spoilt.iter().map(|(bytes, _)| bytes.clone()).collect();
    world.shared.put(&queue, &bytes).await;
    let letters = world.runner.letters(spoilt.len()).await;
    for ((bytes, reason), letter) in spoilt.iter().zip(&letters) {
        assert!(letter.reason.contains(reason), "{reason}: {letter:?}");
        assert_eq!(letter.queue, world.shared.queue(&queue));
        assert_eq!(letter.bytes, bytes[..bytes.len().min(1024)]);
        world.assert_logged(&["cannot be used", reason]);
    }
    assert_eq!(service.errors("message").await, spoilt.len() as f64);
    world.good_job_runs().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_job_are_put_aside() {
    let keys = queue::seal::KeyRing::ephemeral();
    let good = JobMessage::seal(&job("scripted", &["echo never"]), &keys).unwrap().encode();
    refuses_all("jobs", &good, usize::try_from(JOB_REQUEST_BYTES).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_control_message_are_put_aside() {
    let progress = Progress { job: JobId::new(), try_number: 1, seq: 1 };
    let good = queue::message::Control::Progress(progress).encode().unwrap();
    refuses_all("host.HOST", &good, CONTROL_BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_question_are_put_aside() {
    let question = queue::message::Reserve {
        id: common::ids::ReservationId::new(),
        runner: "runner-1".to_owned(),
        labels: vec!["scripted".to_owned()],
        want: 1,
    };
    refuses_all("reserve", &question.encode().unwrap(), RESERVE_BYTES).await;
}

/// The embedded queue is a file, which anything may have been written to.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_in_the_queues_file_that_are_no_job_are_put_aside() {
    let host = Host::new();
    host.serve().await.stop().await;
    let keys = queue::seal::KeyRing::ephemeral();
    let good = JobMessage::seal(&job("scripted", &["echo never"]), &keys).unwrap().encode();
    let spoilt = spoilt(&good, usize::try_from(JOB_REQUEST_BYTES).unwrap());
    let file = host.state().join("queue.db");
    put_into(&file, &spoilt).await;

    let service = host.serve().await;
    let deadline = Instant::now() + PATIENCE;
    while service.errors("message").await < spoilt.len() as f64 {
        assert!(Instant::now() < deadline, "{}", host.diagnostics());
        tokio::time::sleep(LOOK).await;
    }
    let id = service.submit(&job("scripted", &["echo good"])).await;
    assert_eq!(service.finish(id).await.lines(), ["good"]);
    assert_eq!(service.errors("message").await, spoilt.len() as f64);
    service.stop().await;

    let queue = Queue::Embedded(Embedded::open(&file).await.unwrap());
    let mut letters = queue.dead_letters(100).await.unwrap();
    queue.close().await;
    letters.reverse();
    assert_eq!(letters.len(), spoilt.len(), "{letters:#?}");
    let log = host.diagnostics();
    for ((bytes, reason), letter) in spoilt.iter().zip(&letters) {
        assert!(letter.reason.contains(reason), "{reason}: {letter:?}");
        assert_eq!(letter.queue, "jobs");
        assert_eq!(letter.bytes, bytes[..bytes.len().min(1024)]);
        let is_logged = |line: &str| line.contains("cannot be used") && line.contains(reason);
        assert!(log.lines().any(is_logged), "{reason}:\n{log}");
    }
}

/// Puts messages among the jobs of a queue's file that nobody has open.
async fn put_into(file: &Path, messages: &[(Vec<u8>, String)]) {
    const PUT: &str = "INSERT INTO message (lane, time, bytes) \
                       SELECT id, 1, $1 FROM lane WHERE name = 'jobs'";
    let mut connection = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    for (bytes, _) in messages {
        let put = sqlx::query(PUT).bind(bytes).execute(&mut connection).await.unwrap();
        assert_eq!(put.rows_affected(), 1, "the queue has no jobs");
    }
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_job_runs_once() {
    let world = World::start().await;
    let service = world.host.serve().await;
    let request = world.request("once");
    let id = request.envelope.job;
    let bytes = world.message(&request).encode();
    world.shared.put("jobs", &[bytes.clone(), bytes.clone()]).await;
    let received = world.runner.finish(&[id]).await;
    assert_eq!(received[&id].lines(), ["once"]);
    service.wait_state(id, &["done"]).await;
    // Also when it is over.
    world.shared.put("jobs", &[bytes]).await;
    world.good_job_runs().await;
    assert_eq!(service.finish(id).await.lines(), ["once"]);
    assert_eq!(service.errors("repeated message").await, 2.0);
    world.assert_logged(&["came again", &id.to_string()]);
    world.runner.letters(0).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_job_with_an_id_seen_before_changes_nothing() {
    let world = World::start().await;
    let service = world.host.serve().await;
    let request = world.request("first");
    let id = request.envelope.job;
    let first = world.message(&request);
    let mut other = world.request("second");
    other.envelope.job = id;
    let second = world.message(&other);
    // The same envelope with the other's body: it would be told, if its id were not taken.
    let moved = JobMessage::from_stored(first.envelope_bytes(), &second.body_bytes()).unwrap();
    let all = [first.encode(), second.encode(), moved.encode()];
    world.shared.put("jobs", &all).await;
    let letters = world.runner.letters(2).await;
    for letter in &letters {
        assert!(letter.reason.contains("another job with the same id"), "{letter:?}");
    }
    let received = world.runner.finish(&[id]).await;
    assert_eq!(received[&id].lines(), ["first"]);
    assert_eq!(received[&id].finished().unwrap().result, JobResult::Success);
    world.assert_logged(&["another job with the same id", &id.to_string()]);
    assert_eq!(service.errors("message").await, 2.0);
    world.good_job_runs().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_was_moved_to_another_envelope_is_answered() {
    let world = World::start().await;
    let service = world.host.serve().await;
    let (one, two) = (world.request("one"), world.request("two"));
    let id = one.envelope.job;
    let (one, two) = (world.message(&one), world.message(&two));
    let moved = JobMessage::from_stored(one.envelope_bytes(), &two.body_bytes()).unwrap();
    world.shared.put("jobs", &[moved.encode()]).await;
    let cause = world.told(id).await;
    assert!(cause.message.contains("do not belong to job, or were changed"), "{cause}");
    let letters = world.runner.letters(1).await;
    assert!(letters[0].reason.contains("do not belong to job"), "{letters:?}");
    world.assert_logged(&["cannot be used", &id.to_string(), "do not belong to job"]);
    assert_eq!(service.errors("message").await, 1.0);
    service.wait_state(id, &["done"]).await;
    // Its own message comes too late: a job has one final event.
    world.shared.put("jobs", &[one.encode()]).await;
    let letters = world.runner.letters(2).await;
    assert!(letters[1].reason.contains("another job with the same id"), "{letters:?}");
    world.good_job_runs().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_with_shell_or_path_characters_is_answered() {
    let world = World::start().await;
    let service = world.host.serve().await;
    let labels = ["../../etc/x", "$(touch x)", "a;b", "-drive", "a\nb", ""];
    let mut jobs = Vec::new();
    for label in labels {
        let request = world.request("never");
        let bytes = with_label(&world.message(&request).encode(), label);
        jobs.push((request.envelope.job, label));
        world.shared.put("jobs", &[bytes]).await;
    }
    let ids: Vec<_> = jobs.iter().map(|(id, _)| *id).collect();
    let received = world.runner.finish(&ids).await;
    for (id, label) in &jobs {
        let cause = assert_turned_down(&received[id]);
        assert!(cause.message.contains(&format!("label is {label:?}")), "{cause}");
    }
    for (letter, (id, label)) in world.runner.letters(labels.len()).await.iter().zip(&jobs) {
        world.assert_logged(&["cannot be used", &id.to_string(), "label is"]);
        assert!(letter.reason.starts_with(&format!("label is {label:?}")), "{letter:?}");
    }
    assert_eq!(service.errors("message").await, labels.len() as f64);
    // Nothing of it is a name on this host.
    let listed = service.get(&format!("/v1/jobs/{}", ids[0])).await;
    assert_eq!(listed["job"]["label"], "refused");
    world.good_job_runs().await;
    service.stop().await;
}

/// The message with another label in its envelope. Both have fewer than 32 characters and the
/// envelope more than 255 bytes, so that the lengths in front of them keep their form.
fn with_label(message: &[u8], label: &str) -> Vec<u8> {
    const KEY: &[u8] = b"\xa5label";
    const OLD: &str = "scripted";
    let at = |needle: &[u8]| message.windows(needle.len()).position(|w| w == needle).unwrap();
    let length = at(b"\xa8envelope") + 9;
    let change = |size: u16| size + u16::try_from(label.len()).unwrap() - OLD.len() as u16;
    let mut bytes = message[..length].to_vec();
    let rest = match message[length] {
        0xc4 => {
            let size = change(u16::from(message[length + 1]));
            bytes.extend([0xc4, u8::try_from(size).unwrap()]);
            length + 2
        }
        0xc5 => {
            let size = change(u16::from_be_bytes([message[length + 1], message[length + 2]]));
            bytes.push(0xc5);
            bytes.extend(size.to_be_bytes());
            length + 3
        }
        other => panic!("no bytes: {other:x}"),
    };
    let value = at(KEY) + KEY.len();
    bytes.extend(&message[rest..value]);
    bytes.push(0xa0 | u8::try_from(label.len()).unwrap());
    bytes.extend(label.as_bytes());
    bytes.extend(&message[value + 1 + OLD.len()..]);
    bytes
}
