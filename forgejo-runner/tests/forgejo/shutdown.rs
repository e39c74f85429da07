//! How a daemon ends.

use std::time::Duration;

use common::event::Conclusion;
use simulators::forgejo::{Profile, Rpc, Status};
use tokio_util::sync::CancellationToken;

use crate::harness::{PATIENCE, World};

const REPOSITORY: &str = "team/project";
const ONE: &str = "on: push\njobs:\n  build:\n    runs-on: tiny\n    steps:\n      - name: Say\n        run: echo\n";

#[tokio::test]
async fn a_daemon_that_ends_takes_nothing_new_and_waits_for_its_jobs() {
    let world = World::new(Profile::V15).await;
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
    let mut job = world.hosts.job().await;
    job.boot().await;
    let stopping = tokio::spawn(async move { runner.stop(CancellationToken::new()).await });
    let before = world.forge.calls().iter().filter(|call| call.rpc == Rpc::UpdateTask).count();
    world
        .forge
        .wait_until(PATIENCE, |forge| {
            forge.calls().iter().filter(|call| call.rpc == Rpc::UpdateTask).count() > before + 3
        })
        .await;
    let later = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
    job.step(0, &["done"], Conclusion::Success).await;
    job.finish(Conclusion::Success).await;
    tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
    assert_eq!(world.forge.view(run).status, Status::Success);
    assert_eq!(world.forge.view(later).job("build").status, Status::Waiting);
    assert!(world.forge.violations().is_empty(), "{:?}", world.forge.violations());
}

#[tokio::test]
async fn a_daemon_in_a_hurry_cancels_and_still_reports() {
    for by_limit in [false, true] {
        let world = World::new(Profile::V15).await;
        let identity = world.forge.create_runner("solstice", simulators::forgejo::Scope::Global);
        let mut settings = world.settings(vec![world.connection("main", &identity)]);
        if by_limit {
            settings.shutdown = Duration::from_millis(10);
        }
        let runner = world.start(settings).await;
        let run = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
        let mut job = world.hosts.job().await;
        job.boot().await;
        job.start_step(0).await;
        let hurry = CancellationToken::new();
        let stopping = tokio::spawn({
            let hurry = hurry.clone();
            async move { runner.stop(hurry).await }
        });
        if !by_limit {
            hurry.cancel();
        }
        job.cancelled().await;
        job.log(Some(0), &["ended"]).await;
        job.end_step(0, Conclusion::Cancelled).await;
        job.finish(Conclusion::Cancelled).await;
        tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
        let view = world.forge.view(run);
        assert_eq!(view.status, Status::Cancelled, "{view}");
        assert_eq!(view.job("build").step("Say").lines(), ["ended"]);
    }
}
