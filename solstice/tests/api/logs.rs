//! `solstice logs`, as it is and as it grows.

use common::event::{EventBody, Finished, JobEvent, JobResult};
use common::ids::JobId;
use common::infrastructure::{Cause, Infrastructure};
use orchestrator::store::JobState;

use crate::backend::{detail, finished};
use crate::harness::{Place, line, step, within};

/// A job that runs and has said this.
fn job(place: &Place, bodies: Vec<EventBody>) -> JobId {
    let job = place.backend.add(detail(JobState::Running));
    place.backend.happen(job, bodies);
    job
}

const TEXT: &str = "▶ Say hello\n  one\n  two\n✓ Say hello: success in 1.5s\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_of_a_log() {
    let place = Place::new();
    let job = job(&place, step(&["one", "two"]));
    let done = place.solstice(&["logs", &job.short()]).await;
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (0, TEXT, ""));
    let done = place.solstice(&["logs", &job.short(), "--json"]).await;
    let events: Vec<JobEvent> =
        done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events, place.backend.state().events[&job]);
    let waiting = place.backend.add(detail(JobState::Queued));
    let done = place.solstice(&["logs", &waiting.short()]).await;
    assert_eq!((done.code, done.stdout.as_str()), (0, ""));
    assert_eq!(done.stderr, format!("{} has no log yet: it is queued\n", waiting.short()));
    let old = place.backend.add(detail(JobState::Done));
    let done = place.solstice(&["logs", &old.short()]).await;
    assert_eq!(done.code, 2);
    assert_eq!(done.stderr, format!("error: the log of job {old} is not kept any more\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn following_ends_with_the_exit_code_of_the_job() {
    let place = Place::new();
    let lost = Infrastructure::new(Cause::SshLost, "gone");
    let lost = Finished { result: JobResult::Failure, infrastructure: Some(lost) };
    for (end, code, word) in [
        (finished(JobResult::Success), 0, "success"),
        (finished(JobResult::Skipped), 0, "skipped"),
        (finished(JobResult::Failure), 1, "failure"),
        (finished(JobResult::Cancelled), 1, "cancelled"),
        (EventBody::Finished(lost), 2, "SOL-SSH-LOST"),
    ] {
        let job = job(&place, step(&["one", "two"]));
        place.backend.happen(job, [end]);
        let done = place.solstice(&["logs", "-f", &job.to_string()]).await;
        assert_eq!(done.code, code, "{word}");
        assert!(done.stdout.starts_with(TEXT));
        assert_eq!(done.stderr, format!("{} is over: {word}\n", job.short()));
        // Without -f the command tells what there is, and that worked.
        assert_eq!(place.solstice(&["logs", &job.to_string()]).await.code, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn following_survives_a_restart_of_the_service() {
    let mut place = Place::new();
    let job = job(&place, vec![line("1"), line("2")]);
    let mut logs = place.spawn(&["logs", "-f", &job.short()]);
    logs.says("2").await;
    place.stop().await;
    logs.notes("waiting for it for 60 s").await;
    place.backend.happen(job, [line("3")]);
    place.start();
    logs.says("3").await;
    place.backend.happen(job, [line("4"), finished(JobResult::Failure)]);
    let (code, lines) = logs.end().await;
    assert_eq!((code, lines), (1, ["  1", "  2", "  3", "  4"].map(str::to_owned).to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_the_command_and_not_the_job() {
    let place = Place::new();
    let job = job(&place, vec![line("1")]);
    let mut logs = place.spawn(&["logs", "--follow", &job.short()]);
    logs.says("1").await;
    logs.interrupt();
    assert_eq!(logs.end().await.0, 130);
    within(place.backend.streams(0)).await;
    assert!(place.backend.state().said.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_ends_the_command() {
    let place = Place::new();
    let job = job(&place, vec![line("1")]);
    let logs = place.spawn(&["logs", "-f", &job.short()]);
    within(place.backend.streams(1)).await;
    assert_eq!(logs.close_and_wait().await, 0);
    within(place.backend.streams(0)).await;
}
