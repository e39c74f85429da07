//! Reporting: logs, states, outputs, cancels and timers (forgejo-runner-protocol 6).

use std::time::Duration;

use forgejo_proto::runner::TaskResult;
use simulators::forgejo::{Forge, Profile, Status};

use crate::client::{Client, ONE, SOON, code, context, step};

use TaskResult::{
    RESULT_CANCELLED as CANCELLED, RESULT_FAILURE as FAILURE, RESULT_SKIPPED as SKIPPED,
    RESULT_SUCCESS as SUCCESS, RESULT_UNSPECIFIED as RUNNING,
};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_job_looks_as_its_runner_said() {
    let encodings = |profile| [false, true].map(|json| (profile, json));
    for (profile, json) in Profile::ALL.into_iter().flat_map(encodings) {
        let forge = Forge::start(profile).await;
        let declared = Client::declared(&forge).await;
        let client = if json { Client::json(&forge, declared.identity.clone()) } else { declared };
        let run = forge.push_workflow("acme/widget", "ci.yml", ONE);
        let task = client.task().await;
        assert_eq!(client.log(task.id, 0, &["boot"], false).await.unwrap(), 1);
        client.update(task.id, RUNNING, vec![step(0, RUNNING, 1, 0)], &[]).await.unwrap();
        assert_eq!(client.log(task.id, 1, &["a", "b"], false).await.unwrap(), 3);
        client.update(task.id, RUNNING, vec![step(0, RUNNING, 1, 2)], &[]).await.unwrap();
        let view = forge.view(run);
        let job = view.job("one");
        assert_eq!(job.status, Status::Running);
        assert_eq!(job.step("Set up job").lines(), ["boot"]);
        assert_eq!(job.step("Set up job").status, Status::Success);
        assert_eq!(job.step("build").lines(), ["a", "b"]);
        assert_eq!(job.step("Complete job").status, Status::Waiting);

        assert_eq!(client.log(task.id, 3, &["c", "bye"], true).await.unwrap(), 5);
        let steps = vec![step(0, SUCCESS, 1, 2), step(1, SUCCESS, 3, 1)];
        let answer = client.update(task.id, SUCCESS, steps, &[("o", "1")]).await.unwrap();
        assert_eq!((answer.state.id, answer.sent_outputs), (task.id, vec!["o".to_owned()]));
        let view = forge.wait_for_run(run, SOON).await;
        assert_eq!(view.status, Status::Success);
        let job = view.job("one");
        assert_eq!(job.log(), ["boot", "a", "b", "c", "bye"]);
        assert_eq!(job.step("make test").lines(), ["c"]);
        assert_eq!(job.step("Complete job").lines(), ["bye"]);
        assert_eq!(job.outputs.get("o").map(String::as_str), Some("1"));
        assert!(job.log_closed);
        assert!(forge.calls().iter().skip(1).all(|call| call.json == json));
        forge.assert_no_violations();
    }
}

#[tokio::test]
async fn a_closed_log_takes_nothing_more() {
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    forge.push_workflow("acme/widget", "ci.yml", ONE);
    let task = client.task().await.id;
    assert_eq!(client.log(task, 0, &["a", "b"], false).await.unwrap(), 2);
    assert_eq!(client.log(task, 5, &["x"], false).await.unwrap(), 2, "a gap");
    assert_eq!(client.log(task, 2, &[], true).await.unwrap(), 2, "no_more is ignored");
    assert_eq!(client.log(task, 1, &["b"], true).await.unwrap(), 2, "and here");
    assert_eq!(client.log(task, 1, &["b", "c"], true).await.unwrap(), 3);
    assert_eq!(client.log(task, 2, &["c"], true).await.unwrap(), 3, "a retry");
    assert_eq!(code(client.log(task, 3, &["d"], false).await), "already_exists");

    let other = Client::declared(&forge).await;
    assert_eq!(code(other.log(task, 3, &["d"], false).await), "internal", "it is not its task");
    assert_eq!(code(other.beat(task).await), "internal");
    assert_eq!(code(client.beat(9999).await), "internal", "there is no such task");
}

#[tokio::test]
async fn rows_are_closed_by_an_empty_batch_on_newer_giteas() {
    let forge = Forge::start(Profile::Gitea127).await;
    let client = Client::declared(&forge).await;
    let run = forge.push_workflow("acme/widget", "ci.yml", ONE);
    let task = client.task().await.id;
    client.log(task, 0, &["a"], false).await.unwrap();
    client.log(task, 1, &[], true).await.unwrap();
    assert!(forge.view(run).job("one").log_closed);
}

#[tokio::test]
async fn an_old_gitea_lets_anybody_update_a_task() {
    let forge = Forge::start(Profile::Gitea122).await;
    let client = Client::declared(&forge).await;
    forge.push_workflow("acme/widget", "ci.yml", ONE);
    let task = client.task().await.id;
    let other = Client::declared(&forge).await;
    assert_eq!(other.beat(task).await.unwrap(), RUNNING);
}

#[tokio::test]
async fn a_cancel_is_in_the_next_answer() {
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    let run = forge.push_workflow("acme/widget", "ci.yml", ONE);
    let task = client.task().await;
    let token = context(&task, "token").unwrap();
    client.log(task.id, 0, &["boot", "a"], false).await.unwrap();
    client.update(task.id, RUNNING, vec![step(0, RUNNING, 1, 1)], &[]).await.unwrap();
    assert!(forge.token_is_valid(&token));
    forge.cancel(run);
    assert!(!forge.token_is_valid(&token), "it dies with the task");
    assert_eq!(client.beat(task.id).await.unwrap(), CANCELLED);
    assert_eq!(client.log(task.id, 2, &["b", "post"], true).await.unwrap(), 4, "rows still count");
    let steps = vec![step(0, FAILURE, 1, 2), step(1, SKIPPED, 3, 0)];
    let answer = client.update(task.id, FAILURE, steps, &[]).await.unwrap();
    assert_eq!(answer.state.result, CANCELLED, "the server's view stays");
    let view = forge.view(run);
    let job = view.job("one");
    assert_eq!(job.status, Status::Cancelled);
    assert_eq!(job.step("build").status, Status::Cancelled, "as an open step");
    assert_eq!(job.step("build").lines(), ["a"], "as far as it was known before");
    forge.assert_no_violations();
}

#[tokio::test]
async fn the_reaper_ends_what_takes_too_long() {
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    let [kept, lost] = [1, 2].map(|_| forge.push_workflow("acme/widget", "ci.yml", ONE));
    let [kept_task, lost_task] = [client.task().await.id, client.task().await.id];
    for _ in 0..3 {
        forge.clock().advance(4 * MINUTE);
        client.beat(kept_task).await.unwrap();
        client.log(lost_task, 0, &["rows are no sign of life"], false).await.unwrap();
        forge.reap();
    }
    assert_eq!(forge.view(kept).status, Status::Running);
    let view = forge.view(lost);
    assert_eq!(view.status, Status::Failure, "ten minutes without a report");
    assert_eq!(view.job("one").step("build").status, Status::Failure);
    assert_eq!(client.beat(lost_task).await.unwrap(), FAILURE);
    assert_eq!(code(client.log(lost_task, 1, &["late"], true).await), "already_exists");

    for _ in 0..20 {
        forge.clock().advance(9 * MINUTE);
        client.beat(kept_task).await.unwrap();
        forge.reap();
    }
    assert_eq!(forge.view(kept).status, Status::Failure, "three hours");

    let waiting = forge.push_workflow("acme/widget", "ci.yml", "jobs: {a: {runs-on: none}}");
    forge.clock().advance(24 * 60 * MINUTE - MINUTE);
    forge.reap();
    assert_eq!(forge.view(waiting).status, Status::Waiting, "not yet a day");
    forge.clock().advance(MINUTE);
    forge.reap();
    assert_eq!(forge.view(waiting).status, Status::Cancelled);
}

#[tokio::test]
async fn two_log_calls_at_once_are_found() {
    use simulators::forgejo::{Fault, Hold, Rpc};
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    forge.push_workflow("acme/widget", "ci.yml", ONE);
    let task = client.task().await.id;
    let hold = Hold::new();
    forge.faults().next(Rpc::UpdateLog, Fault::Hold(hold.clone()));
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.log(task, 0, &["a"], false).await }
    });
    hold.reached().await;
    client.log(task, 1, &["b"], false).await.unwrap();
    assert!(forge.violations().is_empty(), "the first may be of a dead connection");
    hold.release();
    assert_eq!(first.await.unwrap().unwrap(), 1);
    forge.wait_until(SOON, |forge| forge.violations().len() == 1).await;

    let hold = Hold::new();
    forge.faults().next(Rpc::UpdateLog, Fault::Hold(hold.clone()));
    let hung_up = tokio::spawn({
        let client = client.clone();
        async move { client.log(task, 2, &["c"], false).await }
    });
    hold.reached().await;
    hung_up.abort();
    client.log(task, 2, &["c"], false).await.unwrap();
    forge
        .wait_until(SOON, |forge| {
            forge.calls_of(Rpc::UpdateLog).iter().filter(|call| call.delivered).count() == 3
        })
        .await;
    assert_eq!(forge.violations().len(), 1, "who hung up may send again");
}

#[tokio::test]
#[should_panic(expected = "job \"one\" [one]: waiting")]
async fn who_waits_in_vain_is_told_everything() {
    let forge = Forge::start(Profile::V15).await;
    let run = forge.push_workflow("acme/widget", "ci.yml", ONE);
    forge.wait_for_run(run, Duration::ZERO).await;
}

#[tokio::test]
async fn what_changes_wakes_who_waits() {
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    let run = forge.push_workflow("acme/widget", "ci.yml", ONE);
    let waiting = tokio::spawn({
        let forge = forge.clone();
        async move {
            let running = |job: &simulators::forgejo::JobView| job.status == Status::Running;
            forge.wait_for_job(run, "one", SOON, running).await;
            forge.wait_for_view(run, SOON, |view| view.job("one").rows.len() == 4).await;
            forge.wait_for_run(run, SOON).await.status
        }
    });
    client.finish(&client.task().await, SUCCESS, &[]).await;
    assert_eq!(waiting.await.unwrap(), Status::Success);
}
