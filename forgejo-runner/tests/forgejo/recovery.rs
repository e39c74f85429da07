//! Daemons that end without a warning, and what the next one makes of it.

use common::event::Conclusion;
use forgejo_runner::Runner;
use simulators::forgejo::{Fault, Hold, Profile, Rpc, Scope, Status};

use crate::harness::{PATIENCE, World};

const REPOSITORY: &str = "team/project";
const ONE: &str = "on: push\njobs:\n  build:\n    runs-on: tiny\n    steps:\n      - name: Say\n        run: echo\n";

#[tokio::test]
async fn a_task_goes_on_after_a_crash_at_every_moment() {
    let world = World::new(Profile::V15).await;
    let identity = world.forge.create_runner("solstice", Scope::Global);
    let settings = || world.settings(vec![world.connection("main", &identity)]);
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
    let runner = world.start(settings()).await;
    let mut job = world.hosts.job().await;
    drop(runner);
    job.boot().await;
    let runner = world.start(settings()).await;
    job.start_step(0).await;
    job.log(Some(0), &["one"]).await;
    job.taken().await;
    drop(runner);
    job.log(Some(0), &["two"]).await;
    // An orchestrator that was restarted meanwhile tells everything again.
    job.tell_again().await;
    let runner = world.start(settings()).await;
    job.log(Some(0), &["three"]).await;
    job.end_step(0, Conclusion::Success).await;
    job.finish(Conclusion::Success).await;
    job.taken().await;
    drop(runner);
    let runner = world.start(settings()).await;
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    assert_eq!(view.job("build").step("Say").lines(), ["one", "two", "three"], "{view}");
    assert_eq!(view.status, Status::Success);
    world.end_after_crashes(runner).await;
}

#[tokio::test]
async fn a_crash_before_the_answer_came_loses_no_task() {
    let world = World::new(Profile::V15).await;
    let identity = world.forge.create_runner("solstice", Scope::Global);
    let settings = || world.settings(vec![world.connection("main", &identity)]);
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
    let hold = Hold::new();
    world.forge.faults().next(Rpc::FetchTask, Fault::Hold(hold.clone()));
    let runner = world.start(settings()).await;
    hold.reached().await;
    // The server has assigned the task, and nobody heard of it.
    drop(runner);
    hold.release();
    let runner = world.start(settings()).await;
    world.hosts.job().await.pass(&["found again"]).await;
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    assert_eq!(view.job("build").step("Say").lines(), ["found again"]);
    world.end_after_crashes(runner).await;
}

#[tokio::test]
async fn the_end_is_offered_until_the_server_takes_it() {
    let world = World::new(Profile::V15).await;
    let identity = world.forge.create_runner("solstice", Scope::Global);
    let settings = || world.settings(vec![world.connection("main", &identity)]);
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
    let runner = world.start(settings()).await;
    let mut job = world.hosts.job().await;
    world.forge.faults().always(Rpc::UpdateTask, Fault::Page(502));
    job.pass(&["kept"]).await;
    job.taken().await;
    drop(runner);
    let runner = world.start(settings()).await;
    let played = world.forge.faults().played(Rpc::UpdateTask);
    world.forge.wait_until(PATIENCE, |forge| forge.faults().played(Rpc::UpdateTask) > played).await;
    world.forge.faults().clear();
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    assert_eq!(view.job("build").step("Say").lines(), ["kept"]);
    assert_eq!(view.status, Status::Success);
    world.end_after_crashes(runner).await;
}

#[tokio::test]
async fn a_server_that_was_away_is_found_again() {
    let world = World::new(Profile::V15).await;
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
    let mut job = world.hosts.job().await;
    job.boot().await;
    job.start_step(0).await;
    world.forge.restart().await;
    job.log(Some(0), &["while it was away"]).await;
    job.end_step(0, Conclusion::Success).await;
    job.finish(Conclusion::Success).await;
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    assert_eq!(view.job("build").step("Say").lines(), ["while it was away"]);
    world.end_after_crashes(runner).await;
}

#[tokio::test]
async fn a_connection_whose_tasks_are_not_reported_cannot_be_left_out() {
    let world = World::new(Profile::V15).await;
    let identity = world.forge.create_runner("solstice", Scope::Global);
    let settings = |name| world.settings(vec![world.connection(name, &identity)]);
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
    let runner = world.start(settings("main")).await;
    let mut job = world.hosts.job().await;
    drop(runner);
    let refused = Runner::start(settings("typo"), world.queue.clone(), world.keys()).await;
    let error = refused.map(drop).unwrap_err().to_string();
    assert!(error.contains("\"main\" are not reported yet"), "{error}");
    let runner = world.start(settings("main")).await;
    job.pass(&["after all"]).await;
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    assert_eq!(view.job("build").step("Say").lines(), ["after all"]);
    world.end_after_crashes(runner).await;
}

#[tokio::test]
async fn two_processes_with_one_directory_are_one_too_many() {
    let world = World::new(Profile::V15).await;
    let runner = world.daemon().await;
    let second = Runner::start(world.settings(Vec::new()), world.queue.clone(), world.keys()).await;
    let error = second.map(drop).unwrap_err().to_string();
    assert!(error.contains("another process works with"), "{error}");
    world.end_after_crashes(runner).await;
}
