//! Jobs that were sealed with a key that is not there.

use common::event::JobResult;
use queue::seal::KeyRing;
use simulators::jobs::{Received, job};

use crate::harness::Host;
use crate::shared::Shared;

fn assert_unreadable(received: &Received) {
    let finished = received.finished().unwrap();
    assert_eq!(finished.result, JobResult::Failure);
    assert!(received.lines().is_empty(), "it ran: {:?}", received.lines());
    let cause = finished.infrastructure.clone().unwrap();
    assert_eq!(cause.cause.code(), "SOL-JOB-UNREADABLE", "{cause}");
    assert!(cause.message.contains("does not have"), "{cause}");
    assert!(cause.message.contains("seal_keys"), "{cause}");
}

/// A forge runner whose first key is newer than those of the hosts: it reads what they send.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_sealed_with_an_unknown_key_is_answered() {
    let shared = Shared::of_all().await;
    let host = shared.host();
    let service = host.serve().await;
    let mut runner = shared.runner("runner-1").await;
    drop(runner.queue.events(&runner.address, 1).await.unwrap());
    let newer = tempfile::tempdir().unwrap();
    let newer = newer.path().join("newer.key");
    KeyRing::load_or_create(&newer).unwrap();
    runner.keys = KeyRing::load(&[newer, shared.key_file()]).unwrap();
    let refused = runner.publish(job("scripted", &["echo never"])).await;
    assert_unreadable(&runner.finish(&[refused]).await[&refused]);
    let letters = runner.letters(1).await;
    assert!(letters[0].reason.contains("sealed with the key"), "{letters:?}");
    let log = host.diagnostics();
    let id = refused.to_string();
    assert!(log.lines().any(|l| l.contains(&id) && l.contains("sealed with the key")), "{log}");
    assert_eq!(service.errors("message").await, 1.0);
    runner.keys = KeyRing::load(&[shared.key_file()]).unwrap();
    let good = runner.publish(job("scripted", &["echo good"])).await;
    assert_eq!(runner.finish(&[good]).await[&good].lines(), ["good"]);
    service.stop().await;
}

/// Nothing can be read by a forge runner that shares no key at all; it still learns that its job is
/// over.
#[tokio::test(flavor = "multi_thread")]
async fn a_runner_without_any_common_key_learns_that_its_job_is_over() {
    let shared = Shared::of_all().await;
    let host = shared.host();
    let service = host.serve().await;
    let mut runner = shared.runner("runner-1").await;
    let mut events = runner.queue.events(&runner.address, 1).await.unwrap();
    runner.keys = KeyRing::ephemeral();
    let id = runner.publish(job("scripted", &["echo never"])).await;
    let delivery = tokio::time::timeout(crate::harness::PATIENCE, events.next()).await;
    let delivery = delivery.unwrap().unwrap();
    let batch = delivery.message.as_ref().unwrap();
    let last = batch.parts.last().unwrap();
    assert!(last.last && last.job == id, "{last:?}");
    assert!(last.open(&runner.keys).is_err());
    delivery.acknowledge().await.unwrap();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_jobs_whose_key_was_lost_end_and_others_run() {
    let host = Host::new();
    let service = host.serve().await;
    assert_eq!(host.solstice(&["drain"]).0, 0);
    let lost = service.submit(&job("scripted", &["echo never"])).await;
    service.wait_state(lost, &["queued"]).await;
    service.stop().await;
    std::fs::remove_file(host.state().join("seal.key")).unwrap();
    let service = host.serve().await;
    assert_eq!(host.solstice(&["drain", "--off"]).0, 0);
    assert_unreadable(&service.finish(lost).await);
    service.wait_state(lost, &["done"]).await;
    assert_eq!(service.errors("recorded job").await, 1.0);
    let log = host.diagnostics();
    assert!(log.contains("a recorded job cannot be read"), "{log}");
    let good = service.submit(&job("scripted", &["echo good"])).await;
    assert_eq!(service.finish(good).await.lines(), ["good"]);
    service.stop().await;
}
