//! That faults do what they say (forgejo-runner-protocol 11.3).

use std::time::{Duration, Instant};

use connectrpc::ErrorCode;
use forgejo_proto::runner::TaskResult;
use simulators::forgejo::{Answer, Fault, Forge, Profile, Rpc, Status};

use crate::client::{Client, ONE, SOON, code};

async fn with_task(profile: Profile) -> (Forge, Client, i64) {
    let forge = Forge::start(profile).await;
    let client = Client::declared(&forge).await;
    forge.push_workflow("acme/widget", "ci.yml", ONE);
    let task = client.task().await.id;
    (forge, client, task)
}

fn held(forge: &Forge) -> usize {
    forge.view(forge.runs()[0]).job("one").rows.len()
}

#[tokio::test]
async fn answers_are_lost_before_and_after() {
    let (forge, client, task) = with_task(Profile::V15).await;
    let faults = forge.faults();
    faults.next(Rpc::UpdateLog, Fault::DropRequest).next(Rpc::UpdateLog, Fault::DropResponse);
    assert_eq!(code(client.log(task, 0, &["a"], false).await), "unavailable");
    assert_eq!(held(&forge), 0, "it was not processed");
    assert_eq!(code(client.log(task, 0, &["a"], false).await), "unavailable");
    assert_eq!(held(&forge), 1, "it was processed");
    assert_eq!(client.log(task, 0, &["a"], false).await.unwrap(), 1);
    assert_eq!((faults.played(Rpc::UpdateLog), faults.left(Rpc::UpdateLog)), (2, 0));
    let calls = forge.wait_for_calls(Rpc::UpdateLog, 1, SOON).await;
    let delivered: Vec<_> = calls.iter().map(|call| call.delivered).collect();
    assert_eq!(delivered, [false, false, true]);
    forge.assert_no_violations();
}

#[tokio::test]
async fn bodies_end_early() {
    let (forge, client, task) = with_task(Profile::V15).await;
    for fault in [Fault::ResetInBody, Fault::TruncateBody] {
        forge.faults().next(Rpc::UpdateLog, fault.clone());
        let before = held(&forge);
        let index = i64::try_from(before).unwrap();
        client.log(task, index, &["a"], false).await.expect_err("half an answer");
        assert_eq!(held(&forge), before + 1, "{fault:?}: it was processed");
    }
    forge.assert_no_violations();
}

#[tokio::test]
async fn a_cut_gzip_body_is_a_whole_response() {
    let (forge, client, _) = with_task(Profile::V15).await;
    forge.push_workflow("acme/widget", "ci.yml", ONE);
    forge.faults().next(Rpc::FetchTask, Fault::TruncateBody);
    client.fetch_with(0, None, None).await.unwrap_err();
    let raw = reqwest::Client::builder().build().unwrap();
    forge.faults().next(Rpc::FetchTask, Fault::TruncateBody);
    let response = raw
        .post(format!("{}/api/actions/runner.v1.RunnerService/FetchTask", forge.url()))
        .header("content-type", "application/json")
        .header("accept-encoding", "gzip")
        .header("x-runner-uuid", &client.identity.uuid)
        .header("x-runner-token", &client.identity.token)
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let body = response.bytes().await.unwrap();
    assert_eq!(body.get(..2), Some([0x1f, 0x8b].as_slice()), "it begins as gzip");
}

#[tokio::test]
async fn pages_and_errors_come_instead() {
    let (forge, client, task) = with_task(Profile::V15).await;
    for status in [502, 503, 429] {
        forge.faults().next(Rpc::UpdateTask, Fault::Page(status));
        assert_eq!(code(client.beat(task).await), "unavailable", "{status}");
    }
    forge.faults().next(Rpc::UpdateTask, Fault::Error(ErrorCode::ResourceExhausted));
    assert_eq!(code(client.beat(task).await), "resource_exhausted");
    forge
        .faults()
        .times(Rpc::UpdateTask, Fault::Page(500), 2)
        .always(Rpc::UpdateTask, Fault::Page(502));
    let codes = [code(client.beat(task).await), code(client.beat(task).await)];
    assert_eq!(codes, ["unknown", "unknown"], "those in the queue first");
    for _ in 0..3 {
        assert_eq!(code(client.beat(task).await), "unavailable");
    }
    assert_eq!(forge.calls_of(Rpc::UpdateTask).last().unwrap().answer, Answer::Page(502));
    forge.faults().clear();
    client.beat(task).await.unwrap();

    let older = Forge::start(Profile::V7).await;
    let stranger = Client::declared(&older).await;
    older.faults().next(Rpc::UpdateTask, Fault::Error(ErrorCode::FailedPrecondition));
    assert_eq!(code(stranger.beat(1).await), "failed_precondition", "whatever the status is");

    forge.set_body_limit(Some(100));
    let long = "x".repeat(200);
    let refused = client.log(task, 0, &[&long], false).await;
    assert!(refused.is_err());
    assert_eq!(forge.calls_of(Rpc::UpdateLog).last().unwrap().answer, Answer::Page(413));
    assert_eq!(held(&forge), 0);
}

#[tokio::test]
async fn slow_answers_take_their_time() {
    let (forge, client, task) = with_task(Profile::V15).await;
    let time = Duration::from_millis(50);
    for fault in [Fault::Delay(time), Fault::SlowAnswer(time)] {
        forge.faults().next(Rpc::UpdateTask, fault);
        let start = Instant::now();
        client.beat(task).await.unwrap();
        assert!(start.elapsed() >= time);
    }
}

#[tokio::test]
async fn servers_take_less_or_say_so() {
    let (forge, client, task) = with_task(Profile::V15).await;
    forge.faults().next(Rpc::UpdateLog, Fault::AckFewer(1));
    assert_eq!(client.log(task, 0, &["a", "b", "c"], true).await.unwrap(), 1);
    assert_eq!(held(&forge), 1);
    assert_eq!(client.log(task, 1, &["b"], false).await.unwrap(), 2);
    forge.faults().next(Rpc::UpdateLog, Fault::AckBack(2));
    assert_eq!(client.log(task, 2, &["c"], false).await.unwrap(), 1, "it has three");
    assert_eq!(client.log(task, 1, &["b", "c", "d"], false).await.unwrap(), 4);
    forge.assert_no_violations();
    forge.faults().next(Rpc::UpdateLog, Fault::LoseLog);
    assert_eq!(client.log(task, 4, &["e"], false).await.unwrap(), 0, "all is lost");
    forge.assert_no_violations();
    client.log(task, 4, &["e"], false).await.unwrap();
    assert_eq!(forge.violations().len(), 1, "it was told");
}

#[tokio::test]
async fn cancels_look_like_failures() {
    let (forge, client, task) = with_task(Profile::V15).await;
    forge.faults().next(Rpc::UpdateTask, Fault::FailureForCancelled);
    client.beat(task).await.unwrap();
    assert_eq!(forge.faults().left(Rpc::UpdateTask), 1, "it did not apply yet");
    forge.cancel(forge.runs()[0]);
    assert_eq!(client.beat(task).await.unwrap(), TaskResult::RESULT_FAILURE);
    assert_eq!(client.beat(task).await.unwrap(), TaskResult::RESULT_CANCELLED);
    assert_eq!(forge.faults().played(Rpc::UpdateTask), 1);
}

#[tokio::test]
async fn runners_are_forgotten() {
    let (forge, client, task) = with_task(Profile::V15).await;
    forge.faults().next(Rpc::UpdateTask, Fault::ForgetRunner);
    for _ in 0..2 {
        assert_eq!(code(client.beat(task).await), "unauthenticated");
    }
    let other = Client::declared(&forge).await;
    forge.delete_runner(&other.identity.uuid);
    assert_eq!(code(other.fetch_with(0, None, None).await), "unauthenticated");
}

#[tokio::test]
async fn a_restart_cuts_connections_and_keeps_what_is_on_disk() {
    let (forge, client, task) = with_task(Profile::V15).await;
    client.log(task, 0, &["a", "b"], false).await.unwrap();
    forge.restart().await;
    // The old one may still try its dead connection.
    let client = Client::new(&forge, client.identity);
    assert_eq!(client.log(task, 2, &["c"], false).await.unwrap(), 3);
    forge.restart_without_logs().await;
    let client = Client::new(&forge, client.identity);
    assert_eq!(client.log(task, 3, &["d"], false).await.unwrap(), 0);
    forge.go_down().await;
    for _ in 0..3 {
        assert_eq!(code(client.beat(task).await), "unavailable");
    }
    forge.come_back();
    assert_eq!(client.beat(task).await.unwrap(), TaskResult::RESULT_UNSPECIFIED);
    assert_eq!(forge.view(forge.runs()[0]).status, Status::Running);
    forge.assert_no_violations();
}

#[tokio::test]
async fn a_restart_ends_calls_that_go_on() {
    let (forge, client, task) = with_task(Profile::V15).await;
    let hold = simulators::forgejo::Hold::new();
    forge.faults().next(Rpc::UpdateLog, Fault::Hold(hold.clone()));
    let call = tokio::spawn(async move { client.log(task, 0, &["a"], false).await });
    hold.reached().await;
    forge.restart().await;
    assert_eq!(code(call.await.unwrap()), "unavailable");
    assert_eq!(held(&forge), 1);
}
