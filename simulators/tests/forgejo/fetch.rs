//! Fetching: the cases of forgejo-runner-protocol 11.4.

use std::collections::HashSet;
use std::time::Duration;

use forgejo_proto::runner::{FetchTaskResponse, TaskResult};
use simulators::forgejo::{Forge, Profile, Rpc, Scope, Status};

use crate::client::{Client, ONE, SOON, code, context, key};

const MATRIX: &str = "
jobs:
  leg:
    runs-on: vm
    strategy:
      matrix:
        a: [1, 2, 3, 4, 5]
        b: [1, 2, 3, 4, 5]
        c: [1, 2, 3, 4, 5]
    steps:
      - run: make
";

fn ids(answer: &FetchTaskResponse) -> Vec<i64> {
    answer
        .task
        .as_option()
        .into_iter()
        .chain(&answer.additional_tasks)
        .map(|task| task.id)
        .collect()
}

#[tokio::test]
async fn a_large_matrix_is_given_by_capacity_and_in_order() {
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    let run = forge.push_workflow("acme/widget", "ci.yml", MATRIX);
    assert_eq!(forge.view(run).jobs.len(), 125);
    for (capacity, count) in [(None, 1), (Some(1), 1), (Some(10), 10)] {
        let answer = client.fetch_with(0, capacity, None).await.unwrap();
        assert!(answer.task.is_set());
        assert_eq!(answer.additional_tasks.len() + 1, count, "{capacity:?}");
        assert!(ids(&answer).is_sorted());
        assert!(answer.tasks_version > 1);
    }
    let view = forge.view(run);
    let running: Vec<_> = view.jobs.iter().map(|job| job.status == Status::Running).collect();
    assert!(running.iter().take(12).all(|running| *running), "the first twelve are taken");
    assert!(!running.iter().skip(12).any(|running| *running));
    assert!(view.job("leg (1, 1, 2)").task_id.is_some());
    forge.assert_no_violations();
}

#[tokio::test]
async fn servers_differ_in_capacity() {
    for profile in Profile::ALL {
        let forge = Forge::start(profile).await;
        let client = Client::declared(&forge).await;
        forge.push_workflow("acme/widget", "ci.yml", MATRIX);
        let answer = client.fetch_with(0, Some(3), None).await.unwrap();
        let count = if profile.has_capacity() { 3 } else { 1 };
        assert_eq!(ids(&answer).len(), count, "{profile:?}");
        assert_eq!(answer.task.is_unset(), profile == Profile::V14, "{profile:?}");
    }
}

#[tokio::test]
async fn an_equal_version_means_no_search() {
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    let idle = client.fetch_with(0, None, None).await.unwrap();
    assert_eq!((idle.tasks_version, idle.task.is_set()), (1, false));
    forge.push_workflow("acme/widget", "ci.yml", ONE);
    forge.push_workflow("acme/widget", "ci.yml", ONE);
    let first = client.fetch_with(idle.tasks_version, None, None).await.unwrap();
    assert!(first.task.is_set(), "the counter was raised");
    let same = client.fetch_with(first.tasks_version, None, None).await.unwrap();
    assert!(same.task.is_unset(), "there is another one, but the version is the same");
    let again = client.fetch_with(0, None, None).await.unwrap();
    assert!(again.task.is_set());
}

#[tokio::test]
async fn labels_and_scopes_decide() {
    let forge = Forge::start(Profile::V15).await;
    let repository = forge.create_runner("r", Scope::Repository("acme/widget".to_owned()));
    let repository = Client::declared_as(&forge, repository, &["vm"]).await;
    let owner = forge.create_runner("o", Scope::Owner("acme".to_owned()));
    let owner = Client::declared_as(&forge, owner, &["vm", "other"]).await;
    let upper = Client::declared_as(&forge, forge.create_runner("u", Scope::Global), &["VM"]).await;
    let silent = Client::new(&forge, forge.create_runner("s", Scope::Global));

    forge.push_workflow("elsewhere/x", "ci.yml", ONE);
    forge.push_workflow("acme/other", "ci.yml", ONE);
    assert!(repository.next().await.is_none());
    assert!(upper.next().await.is_none(), "case counts");
    assert!(silent.next().await.is_none(), "it has declared nothing");
    let task = owner.task().await;
    assert_eq!(context(&task, "repository").as_deref(), Some("acme/other"));
    assert!(owner.next().await.is_none(), "the last one is of nobody it knows");
    let both = "jobs: {a: {runs-on: [vm, other], steps: [{run: x}]}}";
    forge.push_workflow("acme/widget", "ci.yml", both);
    assert!(repository.next().await.is_none(), "it has one of the two labels");
    assert!(owner.next().await.is_some());
}

#[tokio::test]
async fn runs_of_a_higher_priority_go_first() {
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    let low = forge.push_workflow("acme/widget", "ci.yml", ONE);
    let high = forge.trigger("acme/widget", "ci.yml", ONE).priority(1).push();
    assert_eq!(context(&client.task().await, "run_id"), Some(high.to_string()));
    assert_eq!(context(&client.task().await, "run_id"), Some(low.to_string()));
}

#[tokio::test]
async fn a_request_key_recovers_tasks_with_new_tokens() {
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    for _ in 0..3 {
        forge.push_workflow("acme/widget", "ci.yml", ONE);
    }
    forge.faults().next(Rpc::FetchTask, simulators::forgejo::Fault::DropResponse);
    let first = key();
    client.fetch_with(0, Some(2), Some(&first)).await.unwrap_err();
    let lost: Vec<_> = forge.calls_of(Rpc::FetchTask).remove(0).given;
    assert_eq!(lost.len(), 2);
    let old = forge.token_of(lost[0]).unwrap();
    assert!(forge.token_is_valid(&old));

    let again = client.fetch_with(0, Some(1), Some(&first)).await.unwrap();
    assert_eq!(ids(&again), lost, "all of them, whatever the capacity");
    assert_eq!(again.tasks_version, 0);
    let new = context(&again.task, "token").unwrap();
    assert_ne!(new, old);
    assert!(forge.token_is_valid(&new) && !forge.token_is_valid(&old));
    assert_eq!(again.task.secrets.get("FORGEJO_TOKEN"), Some(&new));
    assert!(forge.violations().is_empty());

    let single = client.fetch_single(None, Some(&first)).await;
    assert_eq!(code(single), "internal", "several tasks have the key");
    client.fetch_with(0, Some(1), Some(&first)).await.unwrap();
    let found = forge.violations();
    assert_eq!(found.len(), 2, "both used a key that had got an answer: {found:?}");

    let next = client.fetch_with(0, Some(1), Some(&key())).await.unwrap();
    assert!(!lost.contains(&next.task.id), "a new key, another task");
}

#[tokio::test]
async fn older_servers_know_no_key() {
    let forge = Forge::start(Profile::V11).await;
    let client = Client::declared(&forge).await;
    forge.push_workflow("acme/widget", "ci.yml", ONE);
    let first = key();
    forge.faults().next(Rpc::FetchTask, simulators::forgejo::Fault::DropResponse);
    client.fetch_with(0, None, Some(&first)).await.unwrap_err();
    let again = client.fetch_with(0, None, Some(&first)).await.unwrap();
    assert!(again.task.is_unset(), "it is lost");
}

#[tokio::test]
async fn a_handle_names_one_attempt() {
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    let file = "
jobs:
  a: {runs-on: vm, steps: [{run: x}]}
  b: {runs-on: other, steps: [{run: x}]}
  c: {runs-on: vm, steps: [{run: x}]}
  d: {runs-on: vm, steps: [{run: x}]}
";
    let run = forge.push_workflow("acme/widget", "ci.yml", file);
    let handle = |job: &str| forge.view(run).job(job).handle.clone();
    let fetch = async |handle: &str| client.fetch_single(Some(handle), None).await.unwrap().task;
    assert!(fetch(&handle("b")).await.is_unset(), "wrong labels");
    assert!(fetch("nobody").await.is_unset());
    let third = fetch(&handle("c")).await;
    assert_eq!(context(&third, "job").as_deref(), Some("c"));
    assert!(fetch(&handle("c")).await.is_unset(), "it is taken");
    let next = fetch("").await;
    assert_eq!(context(&next, "job").as_deref(), Some("a"), "the next one");
    let last = client.fetch_single(None, None).await.unwrap().task;
    assert_eq!(context(&last, "job").as_deref(), Some("d"));
}

#[tokio::test]
async fn servers_without_single_tasks_say_so() {
    for (profile, expected) in [
        (Profile::V11, "unimplemented"),
        (Profile::V14, "unimplemented"),
        (Profile::Gitea124, "unimplemented"),
        (Profile::V15, ""),
    ] {
        let forge = Forge::start(profile).await;
        let client = Client::declared(&forge).await;
        let answer = client.fetch_single(None, None).await;
        match expected {
            "" => assert!(answer.is_ok()),
            expected => assert_eq!(code(answer), expected, "{profile:?}"),
        }
    }
}

#[tokio::test]
async fn an_ephemeral_runner_has_one_task() {
    let forge = Forge::start(Profile::V15).await;
    let identity = forge.create_ephemeral_runner("once", Scope::Global);
    let client = Client::new(&forge, identity.clone());
    assert!(client.declare(&["vm"]).await.unwrap(), "it learns that it is ephemeral");
    for _ in 0..3 {
        forge.push_workflow("acme/widget", "ci.yml", ONE);
    }
    let answer = client.fetch_with(0, Some(3), None).await.unwrap();
    assert_eq!(ids(&answer).len(), 1);
    assert!(client.next().await.is_none());
    client.finish(&answer.task, TaskResult::RESULT_SUCCESS, &[]).await;
    assert_eq!(code(client.fetch_with(0, None, None).await), "unauthenticated");
    assert!(!forge.runners().contains(&identity.uuid));

    let cancelled = Client::new(&forge, forge.create_ephemeral_runner("twice", Scope::Global));
    cancelled.declare(&["vm"]).await.unwrap();
    let task = cancelled.task().await;
    forge.cancel(run_of(&forge, task.id));
    let lost = cancelled.log(task.id, 0, &["a"], false).await;
    assert_eq!(code(lost), "unauthenticated", "a cancel deletes it at once");
}

fn run_of(forge: &Forge, task: i64) -> simulators::forgejo::RunId {
    let runs = forge.runs();
    let of = |run: &&simulators::forgejo::RunId| {
        forge.view(**run).jobs.iter().any(|job| job.task_id == Some(task))
    };
    *runs.iter().find(of).unwrap()
}

#[tokio::test]
async fn two_runners_get_one_job_once() {
    let forge = Forge::start(Profile::V15).await;
    let [one, two] = [Client::declared(&forge).await, Client::declared(&forge).await];
    for _ in 0..20 {
        forge.push_workflow("acme/widget", "ci.yml", ONE);
        let (one, two) = tokio::join!(one.next(), two.next());
        assert!(one.is_some() != two.is_some(), "one wins, the other sees no task");
    }
}

#[tokio::test]
async fn runs_of_a_group_follow_each_other() {
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    let grouped = format!("concurrency: deploy\n{ONE}");
    let first = forge.push_workflow("acme/widget", "ci.yml", &grouped);
    let second = forge.push_workflow("acme/widget", "ci.yml", &grouped);
    let task = client.fetch_with(0, Some(5), None).await.unwrap();
    assert_eq!(ids(&task).len(), 1, "the second run waits");
    client.finish(&task.task, TaskResult::RESULT_SUCCESS, &[]).await;
    assert_eq!(forge.view(first).status, Status::Success);
    let next = client.fetch_with(task.tasks_version, None, None).await.unwrap();
    assert_eq!(context(&next.task, "run_id"), Some(second.to_string()), "the counter was raised");

    let replacing = format!("concurrency: {{group: deploy, cancel-in-progress: true}}\n{ONE}");
    forge.push_workflow("acme/widget", "ci.yml", &replacing);
    assert_eq!(forge.view(second).status, Status::Cancelled);
    assert_eq!(client.beat(next.task.id).await.unwrap(), TaskResult::RESULT_CANCELLED);

    let older = Forge::start(Profile::V11).await;
    let client = Client::declared(&older).await;
    for _ in 0..2 {
        older.push_workflow("acme/widget", "ci.yml", &grouped);
    }
    assert!(client.next().await.is_some() && client.next().await.is_some(), "it knows no groups");
}

#[tokio::test]
async fn what_a_poller_does_wrong_is_found() {
    let forge = Forge::builder().fetch_minimum(Duration::from_secs(3600)).start().await;
    let client = Client::declared(&forge).await;
    client.fetch_with(0, Some(0), Some("no uuid")).await.unwrap();
    client.fetch_with(0, Some(1), Some(&key())).await.unwrap();
    let labelled = client.declare(&["vm:docker://x"]).await;
    labelled.unwrap();
    let found = forge.violations();
    let expected =
        ["a fetch without a free slot", "is no UUID", "after the last", "is more than a name"];
    for what in expected {
        assert_eq!(found.iter().filter(|text| text.contains(what)).count(), 1, "{what}: {found:?}");
    }
    assert_eq!(found.len(), expected.len());
}

#[tokio::test]
async fn runs_of_other_scopes_do_not_raise_the_counter() {
    let forge = Forge::start(Profile::V15).await;
    let scoped = forge.create_runner("r", Scope::Repository("acme/widget".to_owned()));
    let scoped = Client::declared_as(&forge, scoped, &["vm"]).await;
    forge.push_workflow("acme/other", "ci.yml", ONE);
    let other = scoped.fetch_with(0, None, None).await.unwrap().tasks_version;
    forge.push_workflow("acme/widget", "ci.yml", ONE);
    let own = scoped.fetch_with(0, None, None).await.unwrap().tasks_version;
    assert_eq!((other, own), (1, 2));
    let seen: HashSet<_> =
        forge.calls_of(Rpc::FetchTask).iter().map(|call| call.answered).collect();
    assert_eq!(seen, [Some(1), Some(2)].into());
    forge.wait_for_calls(Rpc::FetchTask, 2, SOON).await;
}
