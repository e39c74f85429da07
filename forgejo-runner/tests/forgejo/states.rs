//! The state of tasks and steps, outputs, cancels, conditions.

use common::event::Conclusion;
use simulators::forgejo::{Fault, Profile, Rpc, RunId, Status};

use crate::harness::{PATIENCE, World};

const REPOSITORY: &str = "team/project";
const TWO: &str = "on: push\njobs:\n  build:\n    runs-on: tiny\n    steps:\n      - name: First\n        run: \
                   a\n      - name: Second\n        run: b\n";
const CHAIN: &str = "on: push\njobs:\n  first:\n    runs-on: tiny\n    outputs: { path: x }\n    steps:\n      \
                     - run: a\n  second:\n    needs: first\n    runs-on: big\n    steps:\n      - run: b\n";

#[tokio::test]
async fn a_cancel_reaches_the_job_once_and_what_it_says_then_is_kept() {
    for failure in [false, true] {
        let world = World::new(Profile::V15).await;
        let runner = world.daemon().await;
        if failure {
            world.forge.faults().next(Rpc::UpdateTask, Fault::FailureForCancelled);
        }
        let run = world.forge.push_workflow(REPOSITORY, "ci.yml", TWO);
        let mut job = world.hosts.job().await;
        job.boot().await;
        job.start_step(0).await;
        job.log(Some(0), &["running"]).await;
        world
            .forge
            .wait_until(PATIENCE, |forge| {
                forge
                    .view(run)
                    .job("build")
                    .steps
                    .iter()
                    .any(|step| step.title == "First" && !step.rows.is_empty())
            })
            .await;
        world.forge.cancel(run);
        job.cancelled().await;
        job.log(Some(0), &["post steps"]).await;
        job.end_step(0, Conclusion::Cancelled).await;
        job.finish(Conclusion::Cancelled).await;
        world.end(runner).await;
        let view = world.forge.view(run);
        assert_eq!(view.status, Status::Cancelled, "{view}");
        assert!(view.job("build").log().contains(&"post steps"), "{view}");
        assert_eq!(job.cancels(), 1);
    }
}

#[tokio::test]
async fn outputs_reach_the_job_that_needs_them() {
    let world = World::new(Profile::V15).await;
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", CHAIN);
    let mut first = world.hosts.job().await;
    first.boot().await;
    first.step(0, &[], Conclusion::Success).await;
    first.outputs(&[("path", "a/b"), ("empty", "")]).await;
    first.finish(Conclusion::Success).await;
    let mut second = world.hosts.job().await;
    let needs = serde_json::to_value(&second.request.body.contexts.needs).unwrap();
    assert_eq!(needs["first"]["result"], "success");
    assert_eq!(needs["first"]["outputs"]["path"], "a/b");
    assert_eq!(second.request.envelope.size.cpus, Some(2), "the label `big`");
    second.pass(&[]).await;
    assert_eq!(world.forge.wait_for_run(run, PATIENCE).await.status, Status::Success);
    world.end(runner).await;
}

#[tokio::test]
async fn outputs_of_a_failed_job_are_not_sent() {
    let world = World::new(Profile::V15).await;
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", CHAIN);
    let mut first = world.hosts.job().await;
    first.boot().await;
    first.outputs(&[("path", "a/b")]).await;
    first.step(0, &[], Conclusion::Failure).await;
    first.finish(Conclusion::Failure).await;
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    assert_eq!(view.job("first").status, Status::Failure);
    assert_eq!(view.job("second").status, Status::Skipped, "{view}");
    assert!(view.job("first").outputs.is_empty());
    world.end(runner).await;
}

#[tokio::test]
async fn outputs_that_are_lost_on_the_way_are_sent_again() {
    let world = World::new(Profile::V15).await;
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", CHAIN);
    let mut first = world.hosts.job().await;
    first.boot().await;
    first.step(0, &[], Conclusion::Success).await;
    first.outputs(&[("path", "a/b")]).await;
    world.forge.faults().times(Rpc::UpdateTask, Fault::DropResponse, 2);
    first.finish(Conclusion::Success).await;
    world.hosts.job().await.pass(&[]).await;
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    assert_eq!(view.job("first").outputs["path"], "a/b");
    world.end(runner).await;
}

#[tokio::test]
async fn a_condition_that_is_false_costs_no_machine() {
    let text = "on: push\njobs:\n  build:\n    runs-on: tiny\n    if: github.ref_name == 'nowhere'\n    \
                steps:\n      - name: First\n        run: a\n";
    for profile in [Profile::V11, Profile::V15, Profile::Gitea124] {
        let world = World::new(profile).await;
        let runner = world.daemon().await;
        let run = world.forge.push_workflow(REPOSITORY, "ci.yml", text);
        let view = world.forge.wait_for_run(run, PATIENCE).await;
        let build = view.job("build");
        assert_eq!(build.status, Status::Skipped, "{view}");
        assert_eq!(build.step("First").status, Status::Skipped);
        assert!(build.log_closed);
        world.end(runner).await;
        world.hosts.until("what was reserved is given back", |hosts| hosts.held() == 0).await;
    }
}

#[tokio::test]
async fn a_job_after_a_failure_runs_when_it_says_always() {
    let text = CHAIN.replace("    needs: first\n", "    needs: first\n    if: always()\n");
    let world = World::new(Profile::V15).await;
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", &text);
    let mut first = world.hosts.job().await;
    first.boot().await;
    first.step(0, &[], Conclusion::Failure).await;
    first.finish(Conclusion::Failure).await;
    let mut second = world.hosts.job().await;
    assert_eq!(second.request.body.contexts.needs["first"]["result"], "failure");
    second.pass(&[]).await;
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    assert_eq!(view.job("second").status, Status::Success);
    world.end(runner).await;
}

#[tokio::test]
async fn a_run_that_is_started_again_has_a_log_of_its_own() {
    let world = World::new(Profile::V15).await;
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", TWO);
    world.hosts.job().await.pass(&["first attempt"]).await;
    world.forge.wait_for_run(run, PATIENCE).await;
    world.forge.rerun(run);
    let mut again = world.hosts.job().await;
    assert_eq!(again.request.body.contexts.github["run_attempt"], "2");
    again.pass(&["second attempt"]).await;
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    assert_eq!(view.job("build").step("First").lines(), ["second attempt"]);
    world.end(runner).await;
}

#[tokio::test]
async fn outputs_that_no_proxy_takes_do_not_keep_the_end_away() {
    let world = World::new(Profile::V15).await;
    world.forge.set_body_limit(Some(50_000));
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", CHAIN);
    let mut first = world.hosts.job().await;
    first.boot().await;
    first.step(0, &[], Conclusion::Success).await;
    first.outputs(&[("path", &"x".repeat(60_000))]).await;
    first.finish(Conclusion::Success).await;
    world.hosts.job().await.pass(&[]).await;
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    assert_eq!(view.job("first").status, Status::Success);
    assert!(view.job("first").outputs.is_empty());
    world.end(runner).await;
}

#[tokio::test]
async fn a_cancel_is_heard_while_rows_come_without_a_pause() {
    let world = World::new(Profile::V15).await;
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", TWO);
    let mut job = world.hosts.job().await;
    job.boot().await;
    job.start_step(0).await;
    // More than one call's rows always wait.
    let slow = Fault::SlowAnswer(std::time::Duration::from_millis(100));
    world.forge.faults().always(Rpc::UpdateLog, slow);
    for _ in 0..30 {
        job.log(Some(0), &["y"; 1000]).await;
    }
    world.forge.cancel(run);
    let before = world.forge.calls_of(Rpc::UpdateLog).len();
    job.cancelled().await;
    let calls = world.forge.calls_of(Rpc::UpdateLog).len() - before;
    assert!(calls < 10, "the cancel waited for {calls} calls with rows");
    world.forge.faults().clear();
    job.end_step(0, Conclusion::Cancelled).await;
    job.finish(Conclusion::Cancelled).await;
    world.end(runner).await;
}

#[tokio::test]
async fn a_job_gets_the_contexts_of_its_run() {
    for profile in [Profile::V11, Profile::V17, Profile::Gitea127] {
        let world = World::new(profile).await;
        let runner = world.daemon().await;
        let run = world
            .forge
            .trigger(REPOSITORY, "ci.yml", TWO)
            .event("pull_request")
            .branches("main", "topic")
            .sha("0123456789012345678901234567890123456789")
            .actor("someone")
            .payload(serde_json::json!({ "action": "opened", "number": 3 }))
            .secret("KEY", "value-of-the-key")
            .var("REGION", "north")
            .push();
        let mut job = world.hosts.job().await;
        let body = &job.request.body;
        let github = &body.contexts.github;
        for (key, expected) in [
            ("event_name", "pull_request"),
            ("base_ref", "main"),
            ("head_ref", "topic"),
            ("sha", "0123456789012345678901234567890123456789"),
            ("actor", "someone"),
            ("repository", REPOSITORY),
            ("repository_owner", "team"),
            ("workflow", "ci.yml"),
            ("job", "build"),
            ("run_attempt", "1"),
            ("secret_source", "Actions"),
            ("server_url", world.forge.url().as_str()),
        ] {
            assert_eq!(github[key], expected, "{profile:?} {key}");
        }
        assert_eq!(github["event"]["number"], 3);
        assert_eq!(github["token"].as_str(), world.forge.token_of(task(&world, run)).as_deref());
        let names: Vec<&String> = github.keys().collect();
        let for_us =
            |name: &&&String| name.starts_with("gitea_runtime") || name.contains("id_token");
        assert_eq!(names.iter().filter(for_us).count(), 0, "{names:?}");
        assert_eq!(body.contexts.vars["REGION"], "north");
        assert_eq!(body.secrets["KEY"].expose(), "value-of-the-key");
        let dialect = if profile.is_gitea() { "gitea" } else { "forgejo" };
        assert_eq!(body.plan.dialect.name(), dialect);
        let services: Vec<&str> = body.services.iter().map(|found| found.name.as_str()).collect();
        assert!(services.contains(&"artifacts"), "{services:?}");
        job.pass(&[]).await;
        world.forge.wait_for_run(run, PATIENCE).await;
        world.end(runner).await;
    }
}

/// The number of the task of a run's only job.
fn task(world: &World, run: RunId) -> i64 {
    world.forge.view(run).jobs[0].task_id.unwrap()
}

#[tokio::test]
async fn a_pull_request_of_a_fork_gets_no_secret_and_no_identity() {
    let world = World::new(Profile::V17).await;
    let runner = world.daemon().await;
    let text = TWO.replace("on: push\n", "on: pull_request\nenable-openid-connect: true\n");
    let trigger = |fork| {
        let trigger = world.forge.trigger(REPOSITORY, "ci.yml", &text).event("pull_request");
        trigger.fork(fork).secret("KEY", "value-of-the-key").push()
    };
    for fork in [false, true] {
        let run = trigger(fork);
        let mut job = world.hosts.job().await;
        let body = &job.request.body;
        assert_eq!(body.secrets.contains_key("KEY"), !fork);
        assert!(body.secrets.contains_key("FORGEJO_TOKEN"));
        assert_eq!(body.services.iter().any(|found| found.name == "oidc"), !fork, "{fork}");
        job.pass(&[]).await;
        world.forge.wait_for_run(run, PATIENCE).await;
    }
    world.end(runner).await;
}
