//! `container` of a job.

use std::time::Duration;

use common::event::{Conclusion, JobResult};
use common::guest::GuestEvent;
use common::plan::Dialect;
use tokio_util::sync::CancellationToken;

use super::super::story::{job, run};
use super::{Engine, read};

use Conclusion::{Cancelled, Failure, Skipped, Success};

/// What a job with a container does before its first step, and at its end.
const AROUND: [&str; 10] =
    ["version", "network", "pull", "create", "start", "inspect", "ps", "rm", "network", "network"];

#[tokio::test]
async fn the_container_is_made_with_the_directories_of_the_job() {
    let engine = Engine::new("docker");
    let story = engine
        .job("container: node:22")
        .run("basename \"$PWD\"; echo made >file")
        .step(run("cat ../file").directory("sub"))
        .play()
        .await;
    assert_eq!(story.outcomes(), [(Success, Success), (Failure, Failure)], "{}", story.log());
    assert!(story.log().contains("/__w/repo/repo/sub does not exist"), "{}", story.log());
    let calls = engine.calls_of(&story, "create");
    let expected = "docker create --name solstice_ID_job --label solstice.job=JOB --network \
                    solstice_ID --workdir /__w/repo/repo --entrypoint tail --env HOME=/github/home \
                    --env GITHUB_ACTIONS --env CI --volume WORK:/__w --volume WORK/_tool:/__t \
                    --volume WORK/_temp/_github_home:/github/home --volume \
                    WORK/_temp/_github_workflow:/github/workflow node:22 -f /dev/null";
    assert_eq!(calls, [expected]);
    let calls = engine.calls_of(&story, "exec");
    assert!(calls[0].starts_with("docker exec --workdir /__w/repo/repo --env "), "{calls:?}");
    assert!(calls[0].contains(" --env GITHUB_WORKSPACE "), "{calls:?}");
    // The container has its own.
    for name in ["PATH", "HOME", "USER", "LOGNAME", "LANG"] {
        assert!(!calls[0].contains(&format!(" --env {name}")), "{calls:?}");
    }
    assert!(calls[0].contains(" id_solstice_ID_job sh -c "), "{calls:?}");
    assert!(calls[0].ends_with(" sh -e /__w/_temp/ID_0.sh"), "{calls:?}");
    engine.assert_clean();
}

#[tokio::test]
async fn expressions_and_variables_have_the_paths_of_the_container() {
    let engine = Engine::new("docker");
    let paths = "${{ github.workspace }} ${{ runner.temp }} ${{ github.event_path }}";
    let story = engine
        .job("container: {image: 'node:${{ github.ref_name }}', env: {LEVEL: 3, HOME: /home/me}}")
        .step(
            run("cat $GITHUB_EVENT_PATH | grep -c number")
                .env(&[("SEEN", paths), ("OWN", "${{ runner.tool_cache }}/x")]),
        )
        .run("mkdir sub; echo OUT=1 >>$GITHUB_ENV; echo /added >>$GITHUB_PATH")
        .step(
            run("echo $OUT; case $PATH in /added:/image/bin:*) echo path;; esac").directory("sub"),
        )
        .run("echo ${{ job.container.network != '' && job.container.id != '' }}")
        .play()
        .await;
    assert_eq!(story.result, JobResult::Success, "{}", story.log());
    // The engine of the tests exchanges what it knows for a container's.
    assert!(story.log().contains("SEEN: /__w/repo/repo /__w/_temp /github/workflow/event.json"));
    assert!(story.log().contains("OWN: /__t/x"), "{}", story.log());
    assert_eq!(story.output(), "1\n1\npath\ntrue", "{}", story.log());
    let create = &engine.calls_of(&story, "create")[0];
    assert!(create.contains("--env LEVEL ") && create.contains(" node:main "), "{create}");
    assert!(create.contains("--env HOME=/home/me") && !create.contains("HOME=/github"), "{create}");
    assert_eq!(engine.commands(&story)[..6], AROUND[..6]);
}

#[tokio::test]
async fn the_default_shell_follows_the_dialect() {
    for (dialect, expected) in [
        (Dialect::Github, "sh -e /__w"),
        (Dialect::Forgejo, "bash --noprofile --norc -e -o pipefail /__w"),
    ] {
        let engine = Engine::new("docker");
        let story = engine.job("container: a").dialect(dialect).run("echo x").play().await;
        let calls = engine.calls_of(&story, "exec --workdir");
        assert!(calls[0].contains(expected), "{calls:?}");
    }
}

#[tokio::test]
async fn everything_is_removed_whatever_happened() {
    for (script, result) in [("true", JobResult::Success), ("exit 3", JobResult::Failure)] {
        let engine = Engine::new("podman");
        let story = engine.job("container: alpine").run(script).play().await;
        assert_eq!(story.result, result, "{}", story.log());
        let mut commands = engine.commands(&story);
        commands.retain(|command| command != "exec");
        assert_eq!(commands, AROUND);
        let pull = engine.calls_of(&story, "pull");
        assert_eq!(pull, ["podman pull docker.io/library/alpine"]);
        // Podman would wait for a process that does not end.
        let removed = engine.calls_of(&story, "rm");
        let expected = "podman rm --force --time 0 --volumes id_solstice_ID_job";
        assert_eq!(removed, [expected]);
        engine.assert_clean();
    }
}

#[tokio::test]
async fn a_cancel_reaches_the_process_inside() {
    let engine = Engine::new("docker");
    let story = engine
        .job("container: a")
        .run("trap 'echo interrupted; exit 1' INT; echo ready; while :; do sleep 0.1; done")
        .step(run("echo always").when("always()"))
        .play_with(cancel_at("ready"))
        .await;
    assert_eq!(story.result, JobResult::Cancelled, "{}", story.log());
    assert_eq!(story.output(), "ready\ninterrupted\nalways", "{}", story.log());
    let kill = engine.calls_of(&story, "exec id_solstice_ID_job sh -c for");
    assert!(kill[0].contains("kill -INT \"-$p\""), "{kill:?}");
    assert!(kill.last().unwrap().contains("kill -KILL"), "{kill:?}");
    engine.assert_clean();
}

/// Cancels as soon as a line that ends so is in the log.
pub(super) fn cancel_at(text: &str) -> impl FnMut(&GuestEvent, &CancellationToken) {
    move |event, cancel| {
        if let GuestEvent::Log(batch) = event
            && batch.lines.iter().any(|line| line.text.to_text().ends_with(text))
        {
            cancel.cancel();
        }
    }
}

#[tokio::test]
async fn a_cancel_before_the_containers_run_ends_the_job() {
    let engine = Engine::new("docker");
    engine.write("failures", "9");
    let began = std::time::Instant::now();
    let story = engine
        .job("container: a")
        .run("echo no")
        .step(run("echo no").when("always()"))
        .play_with(cancel_at("again in 1 s"))
        .await;
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(story.result, JobResult::Cancelled, "{}", story.log());
    assert_eq!(story.outcomes(), [(Cancelled, Cancelled), (Skipped, Skipped)]);
    assert_eq!(story.output(), "");
    engine.assert_clean();
}

#[tokio::test]
async fn an_image_is_asked_for_three_times() {
    let engine = Engine::new("docker");
    engine.write("failures", "1");
    let story = engine.job("container: a").run("echo yes").play().await;
    assert_eq!(story.output(), "yes", "{}", story.log());
    assert_eq!(engine.calls_of(&story, "pull").len(), 2);
    assert!(story.log().contains("no such registry"), "{}", story.log());
}

#[tokio::test]
async fn an_image_that_is_on_the_machine_serves_where_its_registry_is_away() {
    let (here, nowhere) = (Engine::new("docker"), Engine::new("docker"));
    for engine in [&here, &nowhere] {
        engine.write("failures", "9");
    }
    nowhere.write("no_image", "");
    let (story, other) = tokio::join!(
        here.job("container: a").run("echo yes").play(),
        nowhere.job("container: a").run("echo no").play(),
    );
    assert_eq!(story.output(), "yes", "{}", story.log());
    assert!(story.log().contains("that is on this machine is taken"), "{}", story.log());
    assert!(other.log().contains("##[error]The image a cannot be fetched"), "{}", other.log());
    for (engine, story) in [(&here, &story), (&nowhere, &other)] {
        assert_eq!(engine.calls_of(story, "pull").len(), 3);
        engine.assert_clean();
    }
}

#[tokio::test]
async fn an_image_of_the_machine_is_not_asked_for() {
    let engine = Engine::new("podman");
    let story = engine.job("container: localhost/busybox").run("echo yes").play().await;
    assert_eq!(story.output(), "yes", "{}", story.log());
    assert!(engine.calls_of(&story, "pull").is_empty());
    engine.write("no_image", "");
    let story = engine.job("container: localhost/busybox").run("echo yes").play().await;
    assert!(story.log().contains("localhost/busybox is not on this machine"), "{}", story.log());
}

#[tokio::test]
async fn without_its_container_no_step_runs() {
    let engine = Engine::new("docker");
    engine.write("no_start", "");
    let story = engine
        .job("container: a")
        .step(run("echo no").when("always()"))
        .step(run("echo no").when("always()"))
        .play()
        .await;
    assert_eq!(story.outcomes(), [(Failure, Failure), (Skipped, Skipped)]);
    assert_eq!(story.output(), "");
    for expected in
        ["cannot start", "##[error]Docker start id_solstice", "failed with exit code 125"]
    {
        assert!(story.log().contains(expected), "{}", story.log());
    }
    engine.assert_clean();
}

#[tokio::test]
async fn an_empty_image_is_no_container() {
    let engine = Engine::new("docker");
    let story =
        engine.job("container: '${{ matrix.image }}'").run("echo $GITHUB_WORKSPACE").play().await;
    assert!(story.output().starts_with('/') && !story.output().contains("__w"), "{}", story.log());
    assert_eq!(engine.read("calls"), "");
}

#[tokio::test]
async fn a_machine_without_an_engine_refuses_the_job_before_its_first_step() {
    for containers in ["container: a", "services: {db: {image: b}}"] {
        let job = job().search_path("/nonexistent").containers(read(containers));
        let story = job.run("echo no").play().await;
        assert_eq!(story.result, JobResult::Failure);
        assert!(story.started().is_empty());
        let expected = "##[error]The job asks for containers, and this machine has neither docker \
                        nor podman; let `runs-on` name a label whose image has one of them, such \
                        as debian-12-podman.";
        assert_eq!(story.log(), expected);
    }
}

#[tokio::test]
async fn an_engine_that_does_not_work_is_not_taken() {
    let engine = Engine::new("docker");
    engine.write("broken", "");
    let story = engine.job("container: a").run("echo no").play().await;
    let expected = "this machine does not work: docker says: no daemon";
    assert!(story.log().contains(expected), "{}", story.log());
    // Podman beside it is.
    let bin = tempfile::tempdir().unwrap();
    let podman = Engine::new("podman");
    let path =
        format!("{}:{}", engine.directory.path().display(), podman.directory.path().display());
    let job = podman.job("container: a").env("PATH", &format!("{path}:/usr/bin:/bin"));
    let story = job.run("echo yes").play().await;
    assert_eq!(story.output(), "yes", "{}", story.log());
    drop(bin);
}

#[tokio::test]
async fn what_is_asked_for_wrongly_is_a_sentence() {
    let engine = Engine::new("docker");
    for (containers, expected) in [
        ("container: {image: a, options: --network=host}", "--network=host cannot be set"),
        ("services: {db: {image: a, ports: '${{ 1 }}'}}", "service db: ports: a number stands"),
    ] {
        let story = engine.job(containers).run("echo no").play().await;
        assert!(story.log().contains(expected), "{}", story.log());
        assert!(story.started().is_empty());
    }
}

#[tokio::test]
async fn javascript_runs_inside_where_there_is_a_node() {
    let engine = Engine::new("docker");
    let builder = |engine: &Engine| {
        engine
            .job("container: a")
            .action(
                "own/js@v1",
                "action.yml",
                "runs: { using: node20, main: main.js, post: post.js }\n",
            )
            .action("own/js@v1", "main.js", "echo $INPUT_A; basename $GITHUB_ACTION_PATH")
            .action("own/js@v1", "post.js", "echo post")
    };
    let story = builder(&engine).uses("own/js@v1", &[("a", "b")]).play().await;
    assert!(story.log().contains("the job's container has no node"), "{}", story.log());
    let engine = Engine::new("docker");
    std::os::unix::fs::symlink("/bin/sh", engine.directory.path().join("bin/node")).unwrap();
    let story = builder(&engine).uses("own/js@v1", &[("a", "b")]).play().await;
    assert_eq!(story.output(), "b\nv1\npost", "{}", story.log());
    let calls = engine.calls_of(&story, "exec --workdir");
    assert!(calls[0].ends_with("node /__w/_actions/own/js/v1/main.js"), "{calls:?}");
}

#[tokio::test]
async fn composite_actions_and_checkouts_are_at_home_inside() {
    let engine = Engine::new("docker");
    let file = "runs:\n  using: composite\n  steps:\n    - run: cat a.txt; echo ${{ github.action_path }}\n      shell: sh\n";
    let story = engine
        .job("container: a")
        .tree(&[("a.txt", "hello\n"), ("here/action.yml", file)])
        .uses("actions/checkout@v4", &[])
        .uses("./here", &[])
        .play()
        .await;
    assert!(story.output().starts_with("hello\n"), "{}", story.log());
    let calls = engine.calls_of(&story, "exec --workdir");
    assert_eq!(calls.len(), 1, "{calls:?}");
    let story = engine
        .job("container: a")
        .tree(&[("a.txt", "hello\n")])
        .uses("actions/checkout@v4", &[("path", "${{ github.workspace }}/sub")])
        .run("cat sub/a.txt")
        .play()
        .await;
    assert_eq!(story.output(), "hello", "{}", story.log());
}

#[tokio::test]
async fn problem_matchers_find_the_files_of_the_machine() {
    let engine = Engine::new("docker");
    let matcher = r#"{"problemMatcher":[{"owner":"t","pattern":[{"regexp":"^(.+):(\\d+): (.*)$","file":1,"line":2,"message":3}]}]}"#;
    let story = engine
        .job("container: a")
        .tree(&[("a.c", ""), (".git/HEAD", ""), ("m.json", matcher)])
        .uses("actions/checkout@v4", &[])
        .run("echo \"::add-matcher::/__w\"/repo/repo/m.json; printf '/__%s\\n' 'w/repo/repo/a.c:3: odd'")
        .play()
        .await;
    let found = story.annotations();
    assert_eq!(found.len(), 1, "{}", story.log());
    assert_eq!(found[0].file.as_deref(), Some("a.c"));
}
