//! The job's services for programs in containers.

use common::event::JobResult;
use common::plan::Dialect;

use super::super::story::{CONTAINER_PORT, JobBuilder};
use super::Engine;

/// Where the machine has the services.
const HERE: &str = "http://127.0.0.1:4711";

/// What docker says of a network.
const DOCKER: &str = r#"[
    {
        "Name": "x",
        "IPAM": { "Config": [ { "Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1" } ] }
    }
]"#;

/// What podman says of one.
const PODMAN: &str = r#"[
    { "name": "x", "subnets": [ { "subnet": "10.89.0.0/24", "gateway": "10.89.0.1" } ] }
]"#;

/// Prints the variables that are addresses.
const SAY: &str = "for name in CACHE RESULTS RUNTIME; do eval echo \\$ACTIONS_${name}_URL; done; \
                   echo $ACTIONS_ID_TOKEN_REQUEST_URL";

/// What that prints where the services are at this address.
fn said(address: &str) -> String {
    format!("{address}/\n{address}\n{address}/api/actions_pipeline/\n{address}/id?placeholder=true")
}

/// The address for containers whose network has this gateway.
fn at(gateway: &str) -> String {
    format!("http://{gateway}:{CONTAINER_PORT}")
}

/// A job with services whose steps are told of them all.
fn job(engine: &Engine, containers: &str) -> JobBuilder {
    engine.job(containers).dialect(Dialect::Forgejo).services_at(HERE)
}

#[tokio::test]
async fn programs_in_the_jobs_container_find_the_services_at_the_gateway() {
    for (program, inspected, gateway) in
        [("docker", DOCKER, "172.18.0.1"), ("podman", PODMAN, "10.89.0.1")]
    {
        let engine = Engine::new(program);
        engine.write("inspected", inspected);
        engine.write("image", SAY);
        let story = job(&engine, "container: a").run(SAY).uses("docker://b", &[]).play().await;
        let expected = said(&at(gateway));
        assert_eq!(story.output(), format!("{expected}\n{expected}"), "{}", story.log());
        // Once, and before any container is there.
        let asked = format!("{program} network inspect solstice_ID");
        assert_eq!(engine.calls_of(&story, "network inspect"), [asked.as_str()]);
        assert_eq!(engine.calls(&story)[2], asked);
        engine.assert_clean();
    }
}

#[tokio::test]
async fn javascript_in_the_jobs_container_finds_them_there_too() {
    let engine = Engine::new("docker");
    engine.write("inspected", DOCKER);
    std::os::unix::fs::symlink("/bin/sh", engine.directory.path().join("bin/node")).unwrap();
    let story = engine
        .job("container: a")
        .services_at(HERE)
        .action("own/js@v1", "action.yml", "runs: { using: node20, main: main.js }\n")
        .action("own/js@v1", "main.js", SAY)
        .uses("own/js@v1", &[])
        .play()
        .await;
    assert_eq!(story.output(), said(&at("172.18.0.1")), "{}", story.log());
}

#[tokio::test]
async fn an_action_beside_steps_on_the_machine_has_the_gateway_and_they_do_not() {
    for (program, network) in [("docker", "bridge"), ("podman", "podman")] {
        let engine = Engine::new(program);
        engine.write("inspected", DOCKER);
        engine.write("image", "echo $ACTIONS_CACHE_URL $SAVED");
        let story = job(&engine, "")
            .run("echo SAVED=$ACTIONS_RESULTS_URL >>$GITHUB_ENV")
            .uses("docker://a", &[])
            .uses("docker://a", &[])
            .run("echo $ACTIONS_CACHE_URL $SAVED")
            .play()
            .await;
        let there = at("172.18.0.1");
        let expected = format!("{there}/ {there}\n{there}/ {there}\n{HERE}/ {HERE}");
        assert_eq!(story.output(), expected, "{}", story.log());
        let asked = format!("{program} network inspect {network}");
        assert_eq!(engine.calls_of(&story, "network"), [asked]);
        engine.assert_clean();
    }
}

#[tokio::test]
async fn steps_on_the_machine_beside_services_keep_its_own_address() {
    let engine = Engine::new("docker");
    engine.write("inspected", DOCKER);
    let story = job(&engine, "services: {db: {image: a}}").run(SAY).play().await;
    assert_eq!(story.output(), said(HERE), "{}", story.log());
}

#[tokio::test]
async fn where_the_gateway_is_not_known_there_are_no_addresses() {
    let say = "env | grep '^ACTIONS_.*_URL=' || echo none; echo $ACTIONS_RUNTIME_TOKEN";
    for inspected in [None, Some("[]"), Some("no such network")] {
        for debug in [false, true] {
            let engine = Engine::new("podman");
            if let Some(inspected) = inspected {
                engine.write("inspected", inspected);
            }
            engine.write("image", say);
            let mut job = job(&engine, "container: a").run(say);
            if debug {
                job = job.secret("ACTIONS_STEP_DEBUG", "true");
            }
            let story = job.uses("docker://b", &[]).play().await;
            assert_eq!(story.result, JobResult::Success, "{}", story.log());
            assert_eq!(story.output(), "none\nt0k3n\nnone\nt0k3n", "{}", story.log());
            let lines = story.log().matches("do not reach the services of this job").count();
            assert_eq!(lines, usize::from(debug), "{}", story.log());
            assert!(!story.log().contains("##[warning]"), "{}", story.log());
        }
    }
}

#[tokio::test]
async fn a_job_without_services_asks_for_no_gateway() {
    let engine = Engine::new("docker");
    let story = engine.job("container: a").run("true").play().await;
    assert!(engine.calls_of(&story, "network inspect").is_empty());
}
