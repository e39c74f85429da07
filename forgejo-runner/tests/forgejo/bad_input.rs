//! What is wrong, and what a user or administrator reads about it.

use std::time::Duration;

use common::event::Conclusion;
use forgejo_runner::client::{self, Registration, RpcErrorKind};
use forgejo_runner::{Patience, Runner, RunnerSettings, Trust};
use simulators::forgejo::{Fault, Identity, Profile, Rpc, Scope, Status};

use crate::harness::{PATIENCE, World};

const REPOSITORY: &str = "team/project";
const ONE: &str = "on: push\njobs:\n  build:\n    runs-on: tiny\n    steps:\n      - name: Say\n        run: echo\n";

/// Pushes a workflow that cannot run, and gives what its log says.
async fn refused(world: &World, text: &str) -> String {
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", text);
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    assert_eq!(view.status, Status::Failure, "{view}");
    let build = view.job("build");
    assert!(build.log_closed);
    let log = build.log().join("\n");
    world.end(runner).await;
    log
}

#[tokio::test]
async fn what_cannot_run_says_so_in_the_log_of_the_job() {
    for (part, expected) in [
        ("    container: [node]\n", "`container`"),
        ("    services: { db: { ports: [5432] } }\n", "`image`"),
        ("    if: bogus(\n", "ci.yml:"),
    ] {
        let text = ONE.replace("    steps:", &format!("{part}    steps:"));
        let log = refused(&World::new(Profile::V11).await, &text).await;
        assert!(log.contains(expected), "{part}: {log}");
    }
}

#[tokio::test]
async fn a_reusable_workflow_with_runs_on_is_refused_with_the_way_out() {
    let text =
        "on: push\njobs:\n  build:\n    runs-on: tiny\n    uses: ./.forgejo/workflows/other.yml\n";
    let log = refused(&World::new(Profile::V15).await, text).await;
    assert!(log.contains("remove `runs-on` from the job that has `uses`"), "{log}");
}

#[tokio::test]
async fn two_jobs_invalid_yaml_and_bytes_that_are_no_text() {
    for (payload, expected) in [
        (
            &b"jobs: { a: { runs-on: tiny, steps: [] }, b: { runs-on: tiny, steps: [] } }"[..],
            "exactly one job",
        ),
        (b"jobs: [", "The workflow cannot run"),
        (b"\xff\xfe", "not UTF-8"),
        (b"jobs: { a: { runs-on: elsewhere, steps: [{ run: x }] } }", "`runs-on` names elsewhere"),
    ] {
        let world = World::new(Profile::V15).await;
        world.forge.replace_payload(payload.to_vec());
        let _runner = world.daemon().await;
        let run = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
        // Of steps that nobody can count none is reported.
        let view = world.forge.wait_for_run(run, PATIENCE).await;
        let build = view.job("build");
        assert!(build.log_closed && build.status == Status::Failure, "{view}");
        let log = build.log().join("\n");
        assert!(log.contains(expected), "{log}");
    }
}

#[tokio::test]
async fn a_runner_that_was_deleted_does_not_hammer() {
    let world = World::new(Profile::V15).await;
    let identity = world.forge.create_runner("solstice", Scope::Global);
    let runner: Runner =
        world.start(world.settings(vec![world.connection("main", &identity)])).await;
    let fetched = |forge: &simulators::forgejo::Forge| {
        forge.calls().iter().filter(|call| call.rpc == Rpc::FetchTask).count()
    };
    world.forge.wait_until(PATIENCE, |forge| fetched(forge) > 0).await;
    world.forge.delete_runner(&identity.uuid);
    let refused = |forge: &simulators::forgejo::Forge| {
        let wrong = simulators::forgejo::Answer::Error("unauthenticated".to_owned());
        forge.calls().iter().filter(|call| call.answer == wrong).count()
    };
    world.forge.wait_until(PATIENCE, |forge| refused(forge) > 0).await;
    world.end(runner).await;
    assert_eq!(refused(&world.forge), 1, "one, then a pause of a minute");
}

#[tokio::test]
async fn a_wrong_token_and_a_page_instead_of_an_answer_are_named() {
    let world = World::new(Profile::V15).await;
    let wrong = Identity { uuid: uuid::Uuid::new_v4().to_string(), token: "0".repeat(40) };
    let connection = world.connection("main", &wrong);
    let error = client::declare(&connection, &["tiny".to_owned()]).await.unwrap_err();
    assert_eq!(error.kind, RpcErrorKind::Unauthenticated);
    assert!(error.message.contains("unregistered runner"), "{error}");

    let url = world.forge.url().parse().unwrap();
    let registration = Registration {
        token: common::request::Secret::new("wrong"),
        name: "x".to_owned(),
        labels: Vec::new(),
        ephemeral: false,
    };
    let error = client::register(&url, &Trust::Host, &registration).await.unwrap_err();
    assert_eq!(error.kind, RpcErrorKind::Refused, "{error}");

    for (status, kind, text) in [
        (502, RpcErrorKind::Unavailable, "web page"),
        (413, RpcErrorKind::TooLarge, "limit of the proxy"),
        (429, RpcErrorKind::TooMany, "fetch_interval"),
    ] {
        world.forge.faults().next(Rpc::Ping, Fault::Page(status));
        let error = client::ping(&url, &Trust::Host).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(text), "{error}");
    }
    client::ping(&url, &Trust::Host).await.unwrap();
}

#[tokio::test]
async fn a_server_that_refuses_a_task_for_a_while_gets_it_all_the_same() {
    // Its database is away.
    let world = World::new(Profile::V15).await;
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
    let mut job = world.hosts.job().await;
    job.boot().await;
    world.forge.faults().times(Rpc::UpdateTask, Fault::Error(connectrpc::ErrorCode::Internal), 3);
    job.step(0, &["after three errors"], Conclusion::Success).await;
    job.finish(Conclusion::Success).await;
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    assert_eq!(view.job("build").step("Say").lines(), ["after three errors"]);
    world.end(runner).await;
}

#[tokio::test]
async fn a_task_that_a_server_does_not_want_is_given_up_and_its_job_ended() {
    use connectrpc::ErrorCode;
    let short = Duration::from_millis(300);
    let never = Patience::default();
    for (code, patience) in [
        // The task is somebody else's.
        (ErrorCode::Internal, Patience { refused: short, ..never }),
        (ErrorCode::Unauthenticated, Patience { unknown: short, ..never }),
        (ErrorCode::Unavailable, Patience { unreachable: short, ..never }),
    ] {
        let world = World::new(Profile::V15).await;
        let identity = world.forge.create_runner("solstice", Scope::Global);
        let settings = world.settings(vec![world.connection("main", &identity)]);
        let runner = world.start(RunnerSettings { patience, ..settings }).await;
        world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
        let mut job = world.hosts.job().await;
        job.boot().await;
        world.forge.faults().always(Rpc::UpdateTask, Fault::Error(code));
        world.forge.faults().always(Rpc::UpdateLog, Fault::Error(code));
        job.start_step(0).await;
        job.cancelled().await;
        world.end(runner).await;
    }
}

#[tokio::test]
async fn wide_lines_and_outputs_that_are_too_large() {
    let world = World::new(Profile::V15).await;
    let runner = world.daemon().await;
    let run = world.forge.push_workflow(REPOSITORY, "ci.yml", ONE);
    let mut job = world.hosts.job().await;
    let wide = "w".repeat(70_000);
    let large = "o".repeat(1_048_577);
    job.boot().await;
    job.step(0, &[&wide], Conclusion::Success).await;
    job.outputs(&[("large", &large), ("fits", "1")]).await;
    job.finish(Conclusion::Success).await;
    let view = world.forge.wait_for_run(run, PATIENCE).await;
    let build = view.job("build");
    let shown = build.step("Say").lines()[0];
    assert!(shown.len() <= 65_536 && shown.ends_with("[cut]"), "{}", shown.len());
    assert_eq!(build.outputs.keys().collect::<Vec<_>>(), ["fits"]);
    let complete = build.step("Complete job").lines().join("\n");
    assert!(complete.contains("\"large\" is too large"), "{complete}");
    world.end(runner).await;
}
