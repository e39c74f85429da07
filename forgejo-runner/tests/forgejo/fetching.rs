//! How tasks are asked for.

use common::event::Conclusion;
use forgejo_runner::{OneJob, Runner};
use simulators::forgejo::{Answer, Call, Fault, Forge, Profile, Rpc, Scope, Status};

use tokio_util::sync::CancellationToken;

use crate::harness::{PATIENCE, World};

const REPOSITORY: &str = "team/project";
const ONE: &str = "on: push\njobs:\n  build:\n    runs-on: tiny\n    steps:\n      - name: Say\n        run: echo\n";

fn legs(count: usize) -> String {
    let values: Vec<String> = (0..count).map(|leg| leg.to_string()).collect();
    format!(
        "on: push\njobs:\n  build:\n    runs-on: tiny\n    strategy:\n      matrix:\n        leg: [{}]\n    \
         steps:\n      - run: echo ${{{{ matrix.leg }}}}\n",
        values.join(", ")
    )
}

fn fetches(forge: &Forge) -> Vec<Call> {
    forge.calls().into_iter().filter(|call| call.rpc == Rpc::FetchTask).collect()
}

#[tokio::test]
async fn every_server_gives_its_jobs_and_sees_them_pass() {
    for profile in Profile::ALL {
        let world = World::new(profile).await;
        let runner = world.daemon().await;
        let run = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
        world.hosts.job().await.pass(&["hello"]).await;
        let view = world.forge.wait_for_run(run, PATIENCE).await;
        assert_eq!(view.status, Status::Success, "{profile:?}\n{view}");
        assert_eq!(view.job("build").step("Say").lines(), ["hello"], "{profile:?}");
        world.end(runner).await;
    }
}

#[tokio::test]
async fn a_matrix_is_fetched_as_room_allows() {
    for (profile, room) in [(Profile::V11, 3), (Profile::V14, 3), (Profile::V17, 1)] {
        let world = World::new(profile).await;
        world.hosts.set_room(room);
        let runner = world.daemon().await;
        let run = world.forge.push_workflow(REPOSITORY, "ci.yml", &legs(8));
        for _ in 0..8 {
            world.hosts.job().await.pass(&["leg"]).await;
        }
        let view = world.forge.wait_for_run(run, PATIENCE).await;
        assert_eq!(view.status, Status::Success, "{view}");
        for call in fetches(&world.forge) {
            let given = call.given.len();
            assert!(given <= usize::try_from(room).unwrap(), "{given} tasks for {room} machines");
        }
        world.end(runner).await;
    }
}

#[tokio::test]
async fn nothing_is_fetched_without_room_and_what_is_not_used_is_given_back() {
    let world = World::new(Profile::V15).await;
    world.hosts.set_room(0);
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", &legs(2));
    world.hosts.until("room was asked for, again and again", |hosts| hosts.questions() > 3).await;
    assert!(fetches(&world.forge).is_empty());
    world.hosts.set_room(4);
    let mut first = world.hosts.job().await;
    let mut second = world.hosts.job().await;
    world.hosts.until("two are used, the rest is given back", |hosts| hosts.held() == 2).await;
    first.pass(&[]).await;
    second.pass(&[]).await;
    world.forge.wait_for_run(run, PATIENCE).await;
    world.end(runner).await;
}

#[tokio::test]
async fn the_number_of_the_queue_is_used_and_forgotten_by_the_rule() {
    let world = World::new(Profile::V15).await;
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
    world.hosts.job().await.pass(&[]).await;
    world.forge.wait_for_run(run, PATIENCE).await;
    let count = fetches(&world.forge).len();
    world.forge.wait_until(PATIENCE, |forge| fetches(forge).len() >= count + 3).await;
    let calls = fetches(&world.forge);
    let mut expected = 0;
    let mut keys = Vec::new();
    for call in &calls {
        assert_eq!(call.tasks_version, Some(expected), "{call:?}");
        let key = call.request_key.clone().expect("every fetch has a key");
        assert!(!keys.contains(&key), "a key after its answer");
        keys.push(key);
        if call.answer != Answer::Ok {
            continue;
        }
        expected = if call.given.is_empty() { expected.max(call.answered.unwrap()) } else { 0 };
    }
    assert!(calls.iter().any(|call| call.tasks_version > Some(0)));
    world.end(runner).await;
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_by_its_key() {
    for fault in [Fault::DropResponse, Fault::ResetInBody, Fault::TruncateBody] {
        let world = World::new(Profile::V15).await;
        // The first fetch brings the task.
        let run = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
        world.forge.faults().next(Rpc::FetchTask, fault.clone());
        let runner = world.daemon().await;
        world.hosts.job().await.pass(&["once"]).await;
        let view = world.forge.wait_for_run(run, PATIENCE).await;
        assert_eq!(view.job("build").step("Say").lines(), ["once"], "{fault:?}");
        let calls = world.forge.wait_for_calls(Rpc::FetchTask, 3, PATIENCE).await;
        assert_eq!(calls[0].request_key, calls[1].request_key, "{fault:?}");
        assert_ne!(calls[1].request_key, calls[2].request_key, "{fault:?}");
        world.end(runner).await;
    }
}

#[tokio::test]
async fn a_server_that_is_asked_too_often_keeps_its_tasks_for_later() {
    let world = World::new(Profile::V15).await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
    // The task is assigned, and what says so is lost.
    world.forge.faults().next(Rpc::FetchTask, Fault::DropResponse);
    let too_many = Fault::Error(connectrpc::ErrorCode::ResourceExhausted);
    world.forge.faults().times(Rpc::FetchTask, too_many, 4);
    let runner = world.daemon().await;
    world.hosts.job().await.pass(&["in the end"]).await;
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    assert_eq!(view.job("build").step("Say").lines(), ["in the end"]);
    let calls = fetches(&world.forge);
    assert!(calls[..6].iter().all(|call| call.request_key == calls[0].request_key));
    world.end(runner).await;
}

#[tokio::test]
async fn an_answer_that_nobody_can_read_does_not_stop_the_runner_for_ever() {
    let world = World::new(Profile::V15).await;
    world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
    world.forge.faults().times(Rpc::FetchTask, Fault::TruncateBody, 6);
    let runner = world.daemon().await;
    let calls = world.forge.wait_for_calls(Rpc::FetchTask, 7, PATIENCE).await;
    assert!(calls[..6].iter().all(|call| call.request_key == calls[0].request_key));
    assert_ne!(calls[6].request_key, calls[5].request_key);
    let next = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
    world.hosts.job().await.pass(&["the next"]).await;
    world.forge.wait_for_run(next, PATIENCE).await;
    world.end(runner).await;
}

#[tokio::test]
async fn two_connections_have_each_their_jobs_and_their_share() {
    let world = World::new(Profile::V15).await;
    let ours = world.forge.create_runner("ours", Scope::Owner("team".to_owned()));
    let theirs = world.forge.create_runner("theirs", Scope::Owner("others".to_owned()));
    let mut first = world.connection("ours", &ours);
    first.capacity = 1;
    let second = world.connection("theirs", &theirs);
    let runner = world.start(world.settings(vec![first, second])).await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", &legs(2));
    let other = world.forge.push_workflow("others/thing", "ci.yml", ONE);
    let mut jobs = vec![world.hosts.job().await, world.hosts.job().await];
    let mut repositories: Vec<&str> =
        jobs.iter().map(|job| job.request.envelope.repository.as_str()).collect();
    repositories.sort_unstable();
    assert_eq!(repositories, ["others/thing", REPOSITORY], "one slot of ours");
    for job in &mut jobs {
        job.pass(&[]).await;
    }
    world.hosts.job().await.pass(&[]).await;
    for run in [run, other] {
        assert_eq!(world.forge.wait_for_run(run, PATIENCE).await.status, Status::Success);
    }
    world.end(runner).await;
}

#[tokio::test]
async fn labels_are_declared_as_hosts_can_run_them() {
    let world = World::new(Profile::V15).await;
    world.hosts.set_labels(&[]);
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
    world.hosts.until("no host said that it can run them", |hosts| hosts.questions() > 3).await;
    let calls = world.forge.calls();
    assert!(calls.iter().all(|call| call.rpc != Rpc::Declare && call.rpc != Rpc::FetchTask));
    world.hosts.set_labels(&["tiny"]);
    world.hosts.job().await.pass(&[]).await;
    world.forge.wait_for_run(run, PATIENCE).await;
    let declared: Vec<Vec<String>> = world
        .forge
        .calls()
        .into_iter()
        .filter(|call| call.rpc == Rpc::Declare)
        .map(|call| call.labels)
        .collect();
    assert_eq!(declared, [["big", "tiny"]], "names only, once");
    world.end(runner).await;
}

#[tokio::test]
async fn a_job_is_taken_by_its_handle() {
    let world = World::new(Profile::V15).await;
    let identity = world.forge.create_runner("solstice", Scope::Global);
    let settings = || world.settings(vec![world.connection("main", &identity)]);
    world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
    let second = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
    let handle = world.forge.view(second).job("build").handle.clone();
    let take = |handle: &str| {
        let wish = OneJob { handle: Some(handle.to_owned()), wait: false };
        let (queue, keys) = (world.queue.clone(), world.keys());
        let words = (CancellationToken::new(), CancellationToken::new());
        Runner::one_job(settings(), queue, keys, wish, words)
    };
    assert!(!take("00000000-0000-4000-8000-000000000000").await.unwrap());
    let pass = async { world.hosts.job().await.pass(&["the second"]).await };
    let (taken, ()) = tokio::join!(take(&handle), pass);
    assert!(taken.unwrap());
    assert_eq!(world.forge.view(second).status, Status::Success);
    world.forge.assert_no_violations();
}

#[tokio::test]
async fn an_ephemeral_runner_has_one_task() {
    let world = World::with(Forge::start(Profile::V15).await).await;
    let identity = world.forge.create_ephemeral_runner("once", Scope::Global);
    let runner = world.start(world.settings(vec![world.connection("once", &identity)])).await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", &legs(2));
    let mut job = world.hosts.job().await;
    job.boot().await;
    job.step(0, &["only"], Conclusion::Success).await;
    job.finish(Conclusion::Success).await;
    let forge = &world.forge;
    let refused = |forge: &Forge| {
        fetches(forge).iter().any(|call| call.answer == Answer::Error("unauthenticated".to_owned()))
    };
    forge.wait_until(PATIENCE, refused).await;
    let done = forge.view(run).jobs.iter().filter(|job| job.status == Status::Success).count();
    assert_eq!(done, 1);
    world.end(runner).await;
}
