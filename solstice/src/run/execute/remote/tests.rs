use std::path::Path;

use common::plan::{Containers, Dialect, PLAN_VERSION, Plan, Value};
use common::request::{
    Contexts, Deadlines, Envelope, Forge, JobBody, MachineSize, PROTOCOL_VERSION,
};
use common::size::ByteSize;
use orchestrator::store::Size;

use super::*;

fn request() -> JobRequest {
    let plan = Plan {
        version: PLAN_VERSION,
        dialect: Dialect::Github,
        server_version: None,
        job: "a".to_owned(),
        name: "a".to_owned(),
        env: Vec::new(),
        defaults: Vec::new(),
        containers: Containers::default(),
        steps: Vec::new(),
        outputs: Value::Mapping(Vec::new()),
        timeout_minutes: None,
        file: None,
    };
    JobRequest {
        envelope: Envelope {
            version: PROTOCOL_VERSION,
            job: JobId::new(),
            forge: Forge::Local,
            repository: "me/app".to_owned(),
            label: "tiny".to_owned(),
            size: MachineSize::default(),
            priority: 0,
            deadlines: Deadlines::default(),
            reply_to: "local".to_owned(),
            reservation: None,
        },
        body: JobBody {
            plan,
            contexts: Contexts::default(),
            secrets: std::collections::BTreeMap::new(),
            masks: Vec::new(),
            tree: None,
            has_checkout: true,
            keep: None,
            keep_frozen: false,
            actions_url: None,
            run: None,
            services: Vec::new(),
            debug: None,
        },
    }
}

fn remote(socket: &Path, labels: &[&str]) -> Remote {
    let size = Size { cpus: 1, memory: ByteSize(1 << 30) };
    let offer = |label: &&str| LabelOffer { label: (*label).to_owned(), size };
    Remote { client: Client::open(socket).unwrap(), labels: labels.iter().map(offer).collect() }
}

/// Hands a job to a service that is not there; how it ended and what was said about it.
async fn run_without_service(control: JobControl) -> (Finished, Vec<JobEvent>) {
    let directory = tempfile::tempdir().unwrap();
    let remote = remote(&directory.path().join("none.sock"), &["tiny"]);
    let (sender, mut receiver) = mpsc::channel(16);
    let finished = remote.run(request(), sender, control).await;
    let mut events = Vec::new();
    while let Some(event) = receiver.recv().await {
        events.push(event);
    }
    (finished, events)
}

#[tokio::test(start_paused = true)]
async fn a_service_that_stays_away_is_a_named_cause_after_a_minute() {
    let begun = Instant::now();
    let (finished, events) = run_without_service(JobControl::default()).await;
    assert!((AWAY..AWAY + Duration::from_secs(5)).contains(&begun.elapsed()));
    let cause = finished.infrastructure.clone().unwrap();
    assert_eq!((finished.result, cause.cause), (JobResult::Failure, Cause::ServiceLost));
    assert!(cause.message.starts_with("no service runs: nobody answers on "), "{cause}");
    // The end is an event like any other, with nothing missing before it.
    let places: Vec<_> = events.iter().map(|event| (event.try_number, event.seq)).collect();
    assert_eq!(places, [(1, 1), (1, 2)]);
    let EventBody::Log(log) = &events[0].event else { panic!("{:?}", events[0]) };
    let text = log.lines[0].text.to_text();
    assert!(text.starts_with("##[error]SOL-SERVICE-LOST: no service runs"), "{text}");
    assert_eq!(events[1].event, EventBody::Finished(finished));
}

#[tokio::test(start_paused = true)]
async fn whoever_cancels_does_not_wait_for_a_service_that_is_away() {
    for now in [false, true] {
        let control = JobControl::default();
        control.cancel.cancel();
        if now {
            control.destroy.cancel();
        }
        let begun = Instant::now();
        let (finished, events) = run_without_service(control).await;
        assert!(begun.elapsed() < Duration::from_secs(1));
        let cancelled = Finished { result: JobResult::Cancelled, infrastructure: None };
        assert_eq!(finished, cancelled);
        let ends: Vec<_> = events.into_iter().map(|event| event.event).collect();
        assert_eq!(ends, [EventBody::Finished(cancelled)]);
    }
}

#[tokio::test]
async fn labels_are_compared_as_the_catalogue_does() {
    let remote = remote(Path::new("none.sock"), &["debian-12", "tiny"]);
    assert_eq!(remote.has_label("Debian-12"), Ok(()));
    let nothing = "no host of the service runs the label \"windows\"".to_owned();
    assert_eq!(remote.has_label("windows"), Err(nothing));
    let near = remote.has_label("debian-11").unwrap_err();
    assert!(near.ends_with("the label \"debian-11\", did you mean \"debian-12\"?"), "{near}");
}
