//! Rows: each once, in order, whatever happens to a call.

use std::time::Duration;

use common::event::Conclusion;
use simulators::forgejo::{Fault, Profile, Rpc, Status};

use crate::harness::{PATIENCE, World};

const REPOSITORY: &str = "team/project";
const TWO: &str = "on: push\njobs:\n  build:\n    runs-on: tiny\n    steps:\n      - name: First\n        run: \
                   a\n      - name: Second\n        run: b\n";

#[tokio::test]
async fn a_page_shows_set_up_steps_and_completion() {
    let world = World::new(Profile::V17).await;
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", TWO);
    let mut job = world.hosts.job().await;
    job.boot().await;
    job.step(0, &["one", "two"], Conclusion::Success).await;
    job.log(None, &["between"]).await;
    job.step(1, &["three"], Conclusion::Failure).await;
    job.log(None, &["after"]).await;
    job.finish(Conclusion::Failure).await;
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    let build = view.job("build");
    assert_eq!(build.step("First").lines(), ["one", "two"]);
    assert_eq!(build.step("Second").lines(), ["between", "three"]);
    assert_eq!(build.step("First").status, Status::Success);
    assert_eq!(build.step("Second").status, Status::Failure);
    let set_up = build.step("Set up job").lines();
    assert_eq!(set_up.first(), Some(&"##[group]Set up the machine"));
    assert!(set_up.iter().any(|line| line.contains(&job.id().to_string())), "{set_up:?}");
    assert!(set_up.iter().any(|line| line.starts_with("boot: ")), "{set_up:?}");
    assert_eq!(set_up.last(), Some(&"##[endgroup]"));
    assert_eq!(build.step("Complete job").lines(), ["after", "The job failed"]);
    assert!(build.log_closed);
    world.end(runner).await;
}

#[tokio::test]
async fn no_fault_loses_or_doubles_a_row() {
    let faults = [
        Fault::DropRequest,
        Fault::DropResponse,
        Fault::ResetInBody,
        Fault::Page(502),
        Fault::Page(503),
        Fault::AckFewer(3),
        Fault::SlowAnswer(Duration::from_millis(200)),
    ];
    let lines: Vec<String> = (0..40).map(|number| format!("line {number}")).collect();
    for fault in faults {
        let world = World::new(Profile::V15).await;
        world.forge.faults().times(Rpc::UpdateLog, fault.clone(), 2);
        let runner = world.daemon().await;
        let run = world.forge.push_workflow(REPOSITORY, "ci.yml", TWO);
        let mut job = world.hosts.job().await;
        job.boot().await;
        job.start_step(0).await;
        for part in lines.chunks(7) {
            job.log(Some(0), &part.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
        job.end_step(0, Conclusion::Success).await;
        job.step(1, &["end"], Conclusion::Success).await;
        job.finish(Conclusion::Success).await;
        let view = world.forge.wait_for_run(run, PATIENCE).await;
        let build = view.job("build");
        assert_eq!(build.step("First").lines(), lines, "{fault:?}");
        assert_eq!(build.step("Second").lines(), ["end"], "{fault:?}");
        assert!(build.log_closed, "{fault:?}");
        world.end(runner).await;
    }
}

#[tokio::test]
async fn rows_keep_their_numbers_when_the_server_loses_some() {
    let world = World::new(Profile::V15).await;
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", TWO);
    let mut job = world.hosts.job().await;
    job.boot().await;
    job.step(0, &["one"], Conclusion::Success).await;
    world.forge.wait_until(PATIENCE, |forge| !forge.view(run).job("build").rows.is_empty()).await;
    world.forge.faults().next(Rpc::UpdateLog, Fault::LoseLog);
    job.step(1, &["two", "three"], Conclusion::Success).await;
    job.finish(Conclusion::Success).await;
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    let build = view.job("build");
    assert_eq!(build.step("Second").lines(), ["two", "three"], "{build}");
    let log = build.log();
    assert!(log.iter().any(|line| line.contains("lost") && line.contains("lines")), "{log:?}");
    // The simulated server counts a gap as a violation only when the client made it.
    world.end(runner).await;
}

#[tokio::test]
async fn a_closed_log_ends_the_rows_and_not_the_report() {
    let world = World::new(Profile::V15).await;
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", TWO);
    let mut job = world.hosts.job().await;
    job.boot().await;
    job.start_step(0).await;
    job.log(Some(0), &["one"]).await;
    world.forge.wait_until(PATIENCE, |forge| !forge.view(run).job("build").rows.is_empty()).await;
    // The reaper ends the task and closes its log.
    world.forge.clock().advance(Duration::from_secs(3 * 3600 + 60));
    world.forge.reap();
    job.cancelled().await;
    job.log(Some(0), &["late"]).await;
    job.end_step(0, Conclusion::Cancelled).await;
    job.finish(Conclusion::Cancelled).await;
    job.taken().await;
    world.end(runner).await;
    assert_eq!(world.forge.view(run).job("build").status, Status::Failure);
}

#[tokio::test]
async fn large_logs_go_in_parts_that_every_proxy_takes() {
    let world = World::new(Profile::V15).await;
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", TWO);
    let mut job = world.hosts.job().await;
    job.boot().await;
    job.start_step(0).await;
    let wide = "x".repeat(60_000);
    for _ in 0..4 {
        job.log(Some(0), &[wide.as_str(); 10]).await;
        job.log(Some(0), &["short"; 900]).await;
    }
    job.end_step(0, Conclusion::Success).await;
    job.finish(Conclusion::Success).await;
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    assert_eq!(view.job("build").step("First").lines().len(), 4 * 910);
    let limits = world.forge.calls().into_iter().filter(|call| call.rpc == Rpc::UpdateLog);
    for call in limits {
        assert!(call.rows <= 1000 && call.size <= 512 * 1024, "{} {}", call.rows, call.size);
    }
    world.end(runner).await;
}

#[tokio::test]
async fn a_proxy_that_takes_little_gets_little() {
    let world = World::new(Profile::V15).await;
    world.forge.set_body_limit(Some(20_000));
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", TWO);
    let mut job = world.hosts.job().await;
    job.boot().await;
    let wide = "y".repeat(40_000);
    let mut lines = vec!["row of some bytes, so that many of them are too many"; 900];
    lines.push(&wide);
    job.step(0, &lines, Conclusion::Success).await;
    job.finish(Conclusion::Success).await;
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    let shown = view.job("build").step("First").lines();
    assert_eq!(shown.len(), 901);
    assert!(shown[900].contains("[cut"), "{}", shown[900]);
    world.end(runner).await;
}

#[tokio::test]
async fn nobody_sees_a_token() {
    let world = World::new(Profile::V15).await;
    world.forge.set_secret(REPOSITORY, "KEY", "canary-4711");
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", TWO);
    let mut job = world.hosts.job().await;
    let secrets = &job.request.body.secrets;
    assert_eq!(secrets["KEY"].expose(), "canary-4711");
    assert!(secrets.contains_key("FORGEJO_TOKEN"));
    job.pass(&["masked by the orchestrator"]).await;
    world.forge.wait_for_run(run, PATIENCE).await;
    // `end` asserts that no secret stood in a call.
    world.end(runner).await;
}
