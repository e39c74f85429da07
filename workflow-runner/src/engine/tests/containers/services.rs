//! `services` of a job.

use common::event::{Conclusion, JobResult};

use super::super::story::run;
use super::Engine;

use Conclusion::{Failure, Skipped};

#[tokio::test]
async fn services_run_beside_the_steps() {
    let engine = Engine::new("docker");
    let containers = "
services:
  db:
    image: postgres:16
    ports: [80]
    volumes: ['data:/data']
    env: { PASSWORD: '${{ secrets.DB }}' }
    options: --health-cmd=\"pg isready\"
  cache: redis";
    let story = engine
        .job(containers)
        .secret("DB", "hunter2")
        .step(run("echo ${{ job.services.db.ports['80'] }} ${{ job.services.cache.network == job.services.db.network }}")
            .when("job.services.db.id != ''"))
        .step(run("echo $GITHUB_WORKSPACE"))
        .play()
        .await;
    assert_eq!(story.result, JobResult::Success, "{}", story.log());
    assert!(story.output().starts_with("4000 true\n/"), "{}", story.output());
    let calls = engine.calls(&story);
    let expected = [
        "docker version",
        "docker network create --label solstice.job=JOB solstice_ID",
        "docker pull postgres:16",
        "docker create --name solstice_ID_db --label solstice.job=JOB --network solstice_ID \
         --publish 80 --volume data:/data --health-cmd=pg isready --network-alias db --env \
         PASSWORD postgres:16",
        "docker start id_solstice_ID_db",
        "docker port id_solstice_ID_db",
        "docker pull redis",
        "docker create --name solstice_ID_cache --label solstice.job=JOB --network solstice_ID \
         --network-alias cache redis",
        "docker start id_solstice_ID_cache",
    ];
    assert_eq!(calls[..expected.len()], expected);
    let looks = &calls[expected.len()..expected.len() + 2];
    assert!(looks[0].starts_with("docker inspect --format {{.State.Status}}"), "{looks:?}");
    assert!(looks[0].ends_with("id_solstice_ID_db"), "{looks:?}");
    let end = [
        "docker ps --all --quiet --filter label=solstice.job=JOB",
        "docker rm --force --volumes id_solstice_ID_db id_solstice_ID_cache",
        "docker network ls --quiet --filter label=solstice.job=JOB",
        "docker network rm solstice_ID",
    ];
    assert_eq!(calls[expected.len() + 2..], end);
    let env = engine.read("env");
    assert!(env.contains("db: PASSWORD=hunter2"), "{env}");
    engine.assert_clean();
}

#[tokio::test]
async fn no_credential_stands_in_a_command_line() {
    for program in ["docker", "podman"] {
        let engine = Engine::new(program);
        let containers = "
services:
  db:
    image: registry.example/db:1
    credentials: { username: '${{ github.sha }}', password: '${{ secrets.KEY }}' }
    env: { TOKEN: '${{ secrets.KEY }}' }";
        let story = engine.job(containers).secret("KEY", "hunter2").run("true").play().await;
        assert_eq!(story.result, JobResult::Success, "{}", story.log());
        assert!(!engine.read("calls").contains("hunter2"), "{}", engine.read("calls"));
        assert!(!story.log().contains("hunter2"), "{}", story.log());
        assert_eq!(engine.read("password"), "hunter2\n");
        assert!(story.masks().is_empty(), "a secret is masked from the start");
        let (config, file) =
            ("--config WORK/_temp/_registry_1", "--authfile WORK/_temp/_registry_1/auth.json");
        let expected = match program {
            "docker" => [
                format!("docker {config} login --username abc --password-stdin registry.example"),
                format!("docker {config} pull registry.example/db:1"),
            ],
            _ => [
                format!("podman login {file} --username abc --password-stdin registry.example"),
                format!("podman pull {file} registry.example/db:1"),
            ],
        };
        assert_eq!(engine.calls(&story)[2..4], expected);
    }
}

#[tokio::test]
async fn a_service_is_awaited_until_it_is_healthy() {
    let engine = Engine::new("docker");
    engine.write("health", "running starting\nrunning starting\nrunning healthy\n");
    let story = engine.job("services: {db: {image: a}}").run("echo ready").play().await;
    assert_eq!(story.output(), "ready", "{}", story.log());
    assert_eq!(engine.calls_of(&story, "inspect").len(), 3);
    assert!(story.log().contains("Waiting for the service db"), "{}", story.log());
}

#[tokio::test]
async fn the_log_of_a_service_that_is_not_healthy_is_shown() {
    for (health, why) in [
        ("running starting\nrunning unhealthy\n", "its health check fails"),
        ("running starting\nexited starting\n", "it has ended"),
    ] {
        let engine = Engine::new("docker");
        engine.write("health", health);
        let story = engine
            .job("services: {db: {image: a}}")
            .run("echo no")
            .step(run("echo no").when("failure()"))
            .play()
            .await;
        assert_eq!(story.outcomes(), [(Failure, Failure), (Skipped, Skipped)]);
        let logs = engine.calls_of(&story, "logs");
        assert_eq!(logs, ["docker logs --tail 500 id_solstice_ID_db"]);
        assert!(story.log().contains("log of id_solstice"), "{}", story.log());
        let expected = format!("##[error]The service db cannot be used: {why}; its log is above.");
        assert!(story.log().contains(&expected), "{}", story.log());
        engine.assert_clean();
    }
}

#[tokio::test]
async fn an_empty_image_is_no_service() {
    let engine = Engine::new("docker");
    let story = engine
        .job("services: {db: {image: '${{ vars.NONE }}'}, cache: {image: redis}}")
        .run("echo [${{ job.services.db.id }}]")
        .play()
        .await;
    assert_eq!(story.output(), "[]", "{}", story.log());
    assert_eq!(engine.calls_of(&story, "create").len(), 1);
}
