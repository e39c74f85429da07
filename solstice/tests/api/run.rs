//! `solstice run` where a service runs.

use std::fs;

use common::event::JobResult;
use orchestrator::api::{ApiError, ApiErrorKind};
use serde_json::{Value, json};

use crate::backend::finished;
use crate::harness::{Place, line, step};

const WORKFLOW: &str = "on: push\njobs:\n  a:\n    runs-on: tiny\n    steps:\n      \
                        - uses: actions/checkout@v4\n      - run: echo\n";

/// A service that runs every job in this way, and a project with one.
fn place(script: Vec<common::event::EventBody>) -> Place {
    let place = Place::new();
    place.workflow(WORKFLOW);
    place.backend.change(|state| state.script = script);
    place
}

fn passing() -> Vec<common::event::EventBody> {
    let mut script = step(&["one", "two"]);
    script.push(finished(JobResult::Success));
    script
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_runs_the_jobs() {
    let place = place(passing());
    let done = place.solstice(&["run", "--keep"]).await;
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(
        done.stdout.starts_with("▶ Say hello\n  one\n  two\n✓ Say hello: success in 1.5s\n"),
        "{}",
        done.stdout
    );
    let notice = format!(
        "jobs run on the service at {} (host builder-1, version 0.1.0)\n",
        place.socket().display()
    );
    assert_eq!(done.stderr, notice);
    let state = place.backend.state();
    let [request] = state.submitted.as_slice() else { panic!("{}", state.submitted.len()) };
    // No forge waits for the events, and the service runs in another directory.
    assert_eq!(request.envelope.reply_to, "");
    assert_eq!(request.body.tree, Some(fs::canonicalize(place.project()).unwrap()));
    assert!(request.body.keep.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_printed_as_without_a_service() {
    let place = place(passing());
    let done = place.solstice(&["run", "--json"]).await;
    let lines: Vec<Value> =
        done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (summary, events) = lines.split_last().unwrap();
    let state = place.backend.state();
    let job = state.submitted[0].envelope.job;
    let named = |event| {
        let mut event = serde_json::to_value(event).unwrap();
        event["name"] = json!("a");
        event
    };
    let expected: Vec<Value> = state.events[&job].iter().map(named).collect();
    assert_eq!(events, expected);
    assert_eq!(summary["summary"]["jobs"][0]["id"], job.to_string());
    assert_eq!(summary["summary"]["exit_code"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_those_of_the_service_unless_it_is_left_out() {
    let place = place(passing());
    let done = place.solstice(&["run", "--image", "tinny"]).await;
    assert_eq!(done.code, 64);
    let text = "error: no host of the service runs the label \"tinny\", did you mean \"tiny\"?\n";
    assert!(done.stderr.ends_with(text), "{}", done.stderr);
    let done = place.solstice(&["run", "--image", "tinny", "--standalone"]).await;
    assert_eq!(done.code, 64);
    assert!(done.stderr.starts_with("error: no image has the label \"tinny\""), "{}", done.stderr);
    assert!(place.backend.state().submitted.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_service_loses_and_doubles_nothing() {
    let mut place = place(vec![line("1"), line("2")]);
    let mut run = place.spawn(&["run"]);
    run.says("2").await;
    place.stop().await;
    let job = place.backend.state().submitted[0].envelope.job;
    place.backend.happen(job, [line("3")]);
    run.notes("waiting for it for 60 s").await;
    place.start();
    run.notes("the service is back").await;
    run.says("3").await;
    place.backend.happen(job, [line("4"), finished(JobResult::Failure)]);
    let (code, lines) = run.end().await;
    assert_eq!(code, 1);
    assert_eq!(lines[..4], ["  1", "  2", "  3", "  4"]);
    assert_eq!(place.backend.state().submitted.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_cancels_the_job_and_a_second_one_destroys_its_machine() {
    let place = place(vec![line("1")]);
    let mut run = place.spawn(&["run"]);
    run.says("1").await;
    let job = place.backend.state().submitted[0].envelope.job;
    run.interrupt();
    let cancel = format!("cancel {job}");
    crate::harness::within(place.backend.until(|state| state.said == [cancel.as_str()])).await;
    run.interrupt();
    let destroy = format!("destroy {job}");
    crate::harness::within(place.backend.until(|state| state.said.contains(&destroy))).await;
    place.backend.happen(job, [finished(JobResult::Cancelled)]);
    // After the second signal nothing is waited for but the machines, so the last lines may be cut.
    let (code, lines) = run.end().await;
    assert_eq!((code, lines[0].as_str()), (130, "  1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_the_service_refuses_is_no_failed_test() {
    let place = place(passing());
    place.backend.change(|state| {
        let text = "the tree /x does not exist on this host";
        state.submit_refusal = Some(ApiError::new(ApiErrorKind::Invalid, text));
    });
    let done = place.solstice(&["run"]).await;
    assert_eq!(done.code, 2);
    let text = "error: SOL-SERVICE-REFUSED: the tree /x does not exist on this host\n";
    assert!(done.stdout.contains(text), "{}", done.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_drains_is_not_waited_for() {
    let place = place(passing());
    place.backend.change(|state| state.hosts[0].report.draining = true);
    let done = place.solstice(&["run"]).await;
    assert_eq!((done.code, done.stdout.as_str()), (2, ""));
    assert!(done.stderr.contains("takes no jobs: it drains\nhint: "), "{}", done.stderr);
    assert!(done.stderr.contains("--standalone"), "{}", done.stderr);
}
