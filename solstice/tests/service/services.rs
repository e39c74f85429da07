//! What a host does for its guests: caches, over a kill of the service too, and guests that ask for
//! what is not theirs.

use common::JobId;
use common::event::JobResult;
use common::request::JobRequest;
use rand::Rng;
use simulators::jobs::{Received, job};

use crate::harness::{Host, Running, on_both};

/// The bytes of a large cache, and the parts in which it comes.
const LARGE: u64 = 200_000_000;
const PARTS: u64 = LARGE.div_ceil(4 << 20);

/// A job of another repository than the others.
fn stranger(script: &str) -> JobRequest {
    let mut request = job("scripted", &[script]);
    request.envelope.repository = "team/other".to_owned();
    request
}

async fn run(service: &Running<'_>, request: &JobRequest) -> Received {
    let id = service.submit(request).await;
    service.finish(id).await
}

/// Waits until a job has begun to save this, and gives the number of its upload.
async fn upload_of(service: &Running<'_>, id: JobId, key: &str) -> String {
    let begin = format!("saving {key} as ");
    let received = service.wait_for(id, &begin).await;
    let line = received.lines().into_iter().find(|line| line.starts_with(&begin)).unwrap();
    line[begin.len()..].to_owned()
}

on_both! {
    async fn an_upload_goes_on_when_its_service_was_killed(world) {
        let host = world.host();
        let service = host.serve().await;
        let id = service.submit(&job("scripted", &[&format!("cache-put {LARGE} large 5")])).await;
        let part = simulators::dice().random_range(3..PARTS - 5);
        service.wait_for(id, &format!("part {part} of large")).await;
        service.kill();
        let service = host.serve().await;
        let received = service.finish(id).await;
        assert_eq!(received.finished().unwrap().result, JobResult::Success);
        assert_eq!(received.tries(), 1);
        let said = received.lines();
        let parts: Vec<String> = (1..=PARTS).map(|part| format!("part {part} of large")).collect();
        assert!(said[0].starts_with("saving large as "), "{said:?}");
        assert_eq!(said[1..said.len() - 1], parts);
        let whole = said.last().unwrap().strip_prefix("saved ").unwrap();
        assert!(whole.starts_with(&format!("large: {LARGE} bytes, sha256 ")), "{whole}");

        let got = run(&service, &job("scripted", &["cache-get large"])).await;
        assert_eq!(got.lines(), [format!("restored {whole}")]);
        let other = run(&service, &stranger("cache-get large")).await;
        assert_eq!(other.lines(), ["no cache large"]);
        host.wait_until_empty().await;
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_gets_only_what_is_its_own_and_the_others_go_on() {
    let host = Host::new().env("SOLSTICE_MAX_CPUS", "8");
    let service = host.serve().await;
    // It goes on as long as the others are there.
    let victim = service.submit(&job("scripted", &["cache-put 80000000 victim 500"])).await;
    let upload = upload_of(&service, victim, "victim").await;
    let hostile = job("scripted", &[&format!("hostile-calls {upload}")]);
    let strange = stranger(&format!("hostile-calls {upload}"));
    let overfull = job("scripted", &["hostile-body"]);
    let mut ids = Vec::new();
    for request in [&hostile, &strange, &overfull] {
        ids.push(service.submit(request).await);
    }
    let good = run(&service, &job("scripted", &["echo good", "cache-put 9000000 good"])).await;
    assert_eq!(good.finished().unwrap().result, JobResult::Success, "{:?}", good.log());
    for id in &ids[..2] {
        let received = service.finish(*id).await;
        assert_eq!(received.finished().unwrap().result, JobResult::Success);
        assert_eq!(received.lines(), REFUSED);
    }
    let ended = service.finish(ids[2]).await;
    let cause = ended.finished().unwrap().infrastructure.clone().unwrap();
    assert_eq!(cause.cause.code(), "SOL-GUEST-PROTOCOL");
    assert!(cause.to_string().contains("came than there was room for"), "{cause}");
    let saved = service.finish(victim).await.lines().pop().unwrap();
    let whole = saved.strip_prefix("saved ").unwrap();
    assert!(whole.starts_with("victim: 80000000 bytes"), "{whole}");
    let got = run(&service, &job("scripted", &["cache-get victim", "cache-get hostile"])).await;
    assert_eq!(got.lines(), [format!("restored {whole}"), "no cache hostile".to_owned()]);
    host.wait_until_empty().await;
    service.stop().await;
}

/// What a host says to what `hostile-calls` asks for.
const REFUSED: [&str; 18] = [
    "10000 calls: 9936 were too many",
    "a part longer than its range: 413",
    "a part shorter than its range: 400",
    "a range without end: 400",
    "a range that ends before it begins: 400",
    "a range beyond every cache: 413",
    "a commit of more than came: 400",
    "a part of another job's upload: 404",
    "a commit of another job's upload: 404",
    "a path with dots: 404",
    "a path with hidden dots: 404",
    "a path without a slash: invalid",
    "a path beside the service's: 404",
    "a service that the job does not have: refused",
    "a service with dots: refused",
    "../../etc@v1: invalid",
    "file:///etc/passwd@v1: invalid",
    "http://169.254.169.254/a/b@v1: refused",
];
