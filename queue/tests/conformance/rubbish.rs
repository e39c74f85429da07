//! Bytes on a queue that nobody of ours put there: each comes out as what is wrong with it, can be
//! rejected, and the queue goes on.

use common::ids::{HostId, JobId};
use common::limits::{
    CONTROL_BYTES, EVENT_BATCH_BYTES, EVENT_PART_BYTES, JOB_REQUEST_BYTES, RESERVE_BYTES,
};
use common::request::PROTOCOL_VERSION;
use queue::message::{Control, Message, MessageError, Progress};
use queue::{Delivery, Heard, Queue};

use crate::on_both;
use crate::samples::{address, batch, job};
use crate::world::{World, next_control, next_events, next_job, silent, within};

on_both! {
    rubbish_among_jobs,
    rubbish_among_events,
    rubbish_among_control_messages,
}

/// Ways to spoil a message, with what the reader must say. `limit` is that of its kind.
fn spoilt(good: &[u8], other: &[u8], limit: usize) -> Vec<(&'static str, Vec<u8>)> {
    let mut newer = good.to_vec();
    newer[4..6].copy_from_slice(&(PROTOCOL_VERSION + 1).to_be_bytes());
    let mut oversized = good.to_vec();
    oversized.resize(limit + 64 * 1024, 0);
    let mut trailing = good.to_vec();
    trailing.push(0);
    let mut broken = good.to_vec();
    broken[6] = 0xc1; // A byte that MessagePack does not use.
    vec![
        ("foreign", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("empty", Vec::new()),
        ("header only", good[..6].to_vec()),
        ("truncated", good[..good.len() - 1].to_vec()),
        ("trailing", trailing),
        ("broken", broken),
        ("newer", newer),
        ("other kind", other.to_vec()),
        ("oversized", oversized),
    ]
}

fn assert_refused(what: &str, error: &MessageError) {
    let right = match what {
        "foreign" | "empty" => matches!(error, MessageError::Foreign),
        "newer" => matches!(error, MessageError::Newer { .. }),
        "other kind" => matches!(error, MessageError::Kind { .. }),
        "oversized" => matches!(error, MessageError::TooLarge { .. }),
        _ => matches!(error, MessageError::Malformed { .. }),
    };
    assert!(right, "{what}: {error:?}");
}

/// Takes a spoilt message and rejects it. Gives the reason.
async fn refuse<T: std::fmt::Debug>(what: &str, delivery: Delivery<T>) -> String {
    let reason = match &delivery.message {
        Ok(message) => panic!("{what} was read as {message:?}"),
        Err(error) => {
            assert_refused(what, error);
            error.to_string()
        }
    };
    within(delivery.reject(&reason)).await;
    reason
}

/// Compares what is in the dead letters with what was rejected, oldest first.
async fn assert_letters(queue: &Queue, expected: &[(String, Vec<u8>)]) {
    let letters = within(queue.dead_letters(100)).await;
    let found: Vec<_> =
        letters.into_iter().rev().map(|letter| (letter.reason, letter.bytes)).collect();
    assert_eq!(found.len(), expected.len());
    for ((reason, bytes), (expected_reason, expected_bytes)) in found.iter().zip(expected) {
        assert_eq!(reason, expected_reason);
        assert_eq!(bytes, &expected_bytes[..expected_bytes.len().min(1024)]);
    }
}

fn control() -> Control {
    Control::Progress(Progress { job: JobId::new(), try_number: 1, seq: 1 })
}

async fn rubbish_among_jobs(world: World) {
    let queue = world.process().await;
    drop(within(queue.jobs(1)).await);
    world.end(queue).await;
    let limit = usize::try_from(JOB_REQUEST_BYTES).unwrap();
    let spoilt = spoilt(&job().encode(), &control().encode().unwrap(), limit);
    world.put("jobs", &spoilt).await;

    let queue = world.process().await;
    let good = job();
    within(queue.publish_job(&good)).await;
    let mut receiver = within(queue.jobs(2)).await;
    let mut letters = Vec::new();
    for (what, bytes) in spoilt {
        letters.push((refuse(what, next_job(&mut receiver).await).await, bytes));
    }
    let delivery = next_job(&mut receiver).await;
    assert_eq!(delivery.message.as_ref(), Ok(&good));
    within(delivery.acknowledge()).await;
    silent(receiver.next()).await;
    assert_letters(&queue, &letters).await;
}

async fn rubbish_among_events(world: World) {
    let queue = world.process().await;
    let to = address("runner-1");
    drop(within(queue.events(&to, 1)).await);
    world.end(queue).await;
    let good = batch(HostId::new(), 100);
    // One part alone may be larger than a batch of several.
    let limit = EVENT_BATCH_BYTES.max(EVENT_PART_BYTES) * 2;
    let spoilt = spoilt(&good.encode().unwrap(), &job().encode(), limit);
    world.put("events.runner-1", &spoilt).await;

    let queue = world.process().await;
    within(queue.publish_events(&to, &good)).await;
    let mut receiver = within(queue.events(&to, 2)).await;
    let mut letters = Vec::new();
    for (what, bytes) in spoilt {
        letters.push((refuse(what, next_events(&mut receiver).await).await, bytes));
    }
    let delivery = next_events(&mut receiver).await;
    assert_eq!(delivery.message.as_ref(), Ok(&good));
    within(delivery.acknowledge()).await;
    silent(receiver.next()).await;
    assert_letters(&queue, &letters).await;
}

async fn rubbish_among_control_messages(world: World) {
    let queue = world.process().await;
    let host = HostId::new();
    drop(within(queue.control(host)).await);
    world.end(queue).await;
    let spoilt = spoilt(&control().encode().unwrap(), &job().encode(), CONTROL_BYTES);
    world.put(&format!("host.{host}"), &spoilt).await;

    let queue = world.process().await;
    let cancelled = JobId::new();
    within(queue.cancel(cancelled)).await;
    let mut receiver = within(queue.control(host)).await;
    let mut letters = Vec::new();
    for (what, bytes) in spoilt {
        letters.push((refuse(what, next_control(&mut receiver).await).await, bytes));
    }
    let delivery = next_control(&mut receiver).await;
    assert!(
        matches!(&delivery.message, Ok(Control::Cancel { job, .. }) if *job == cancelled),
        "{delivery:?}"
    );
    within(delivery.acknowledge()).await;
    silent(receiver.next()).await;
    assert_letters(&queue, &letters).await;
}

/// What stands among the questions and is none comes to their host as a message that cannot be used.
/// In the embedded form a question never is bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbit_rubbish_among_questions() {
    let world = World::rabbit().await;
    let queue = world.process().await;
    let mut receiver = within(queue.control(HostId::new())).await;
    let question = crate::reservations::question(1);
    let spoilt = spoilt(&question.encode().unwrap(), &control().encode().unwrap(), RESERVE_BYTES);
    world.put("reserve", &spoilt).await;
    world.put("reserve", &[("no way back", question.encode().unwrap())]).await;
    let mut letters = Vec::new();
    for (what, bytes) in spoilt {
        letters.push((refuse(what, next_control(&mut receiver).await).await, bytes));
    }
    let lost = next_control(&mut receiver).await;
    letters.push((refuse("no way back", lost).await, question.encode().unwrap()));
    let (answer, ()) = tokio::join!(within(queue.reserve(&question)), async {
        match within(receiver.next()).await {
            Heard::Reserve(heard, replier) => {
                assert_eq!(heard, question);
                replier.answer(crate::reservations::answer(&heard)).await;
            }
            Heard::Control(delivery) => panic!("unexpected {delivery:?}"),
        }
    });
    assert_eq!(answer.id, question.id);
    assert_letters(&queue, &letters).await;
}
