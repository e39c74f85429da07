//! Actions that run in a container, and images as actions.

use common::event::{Conclusion, JobResult};

use super::super::story::{job, run};
use super::Engine;
use super::job::cancel_at;

use Conclusion::{Failure, Success};

#[tokio::test]
async fn an_image_is_an_action() {
    let engine = Engine::new("docker");
    engine.write("image", "echo \"$@\"; echo $INPUT_WORD; echo out=$GITHUB_SHA >>$GITHUB_OUTPUT");
    let story = engine
        .job("")
        .step_uses("one", "docker://alpine:3", &[("word", "x y"), ("args", "a 'b c'")])
        .run("echo ${{ steps.one.outputs.out }}")
        .uses("docker://alpine:3", &[("entrypoint", "echo"), ("args", "again")])
        .play()
        .await;
    assert_eq!(story.output(), "a b c\nx y\nabc\nagain", "{}", story.log());
    assert!(!story.log().contains("Unexpected input"), "{}", story.log());
    let commands = engine.commands(&story);
    assert_eq!(commands, ["version", "pull", "run", "run", "ps", "rm"]);
    let run = &engine.calls_of(&story, "run")[0];
    let start = "docker run --rm --name solstice_ID_action_1 --label solstice.job=JOB --workdir \
                 /github/workspace --volume WORK/repo/repo:/github/workspace --volume \
                 WORK/_temp/_github_home:/github/home --volume \
                 WORK/_temp/_github_workflow:/github/workflow --volume \
                 WORK/_temp/_runner_file_commands:/github/file_commands --volume \
                 WORK/_temp:/github/runner_temp --env HOME=/github/home --env ";
    assert!(run.starts_with(start), "{run}");
    assert!(run.ends_with(" alpine:3 a b c"), "{run}");
    assert!(engine.calls_of(&story, "run")[1].contains(" --entrypoint echo "));
    engine.assert_clean();
}

#[tokio::test]
async fn an_action_is_built_from_its_files_and_has_what_its_file_says() {
    let engine = Engine::new("podman");
    engine.write(
        "image",
        "echo \"$#: $1 $2\"; echo $OWN $OTHER; echo $GITHUB_WORKSPACE | grep -c repo/repo; \
         echo $RUNNER_TEMP >&2; echo word=kept >>$GITHUB_STATE; echo '::add-mask::hush'",
    );
    let file = "inputs: { who: { default: you } }\nruns:\n  using: docker\n  image: sub/Dockerfile\n  \
                args: ['${{ inputs.who }} there', '${{ github.workspace }}']\n  \
                env: { OWN: '${{ inputs.who }}', OTHER: never }\n";
    let story = engine
        .job("")
        .action("own/d@v1", "action.yml", file)
        .uses("own/d@v1", &[("args", "ignored")])
        .step_env("OTHER", "mine")
        .uses("own/d@v1", &[])
        .play()
        .await;
    assert_eq!(story.result, JobResult::Success, "{}", story.log());
    assert!(story.output().starts_with("2: you there "), "{}", story.output());
    assert!(story.output().contains("\nyou mine\n1\n"), "{}", story.output());
    assert!(story.output().contains("\nyou never\n"), "{}", story.output());
    assert_eq!(story.masks(), ["hush"]);
    let built = engine.calls_of(&story, "build");
    let expected = "podman build --tag localhost/solstice_ID:1 --file \
                    WORK/_actions/own/d/v1/sub/Dockerfile WORK/_actions/own/d/v1/sub";
    assert_eq!(built, [expected]);
    let run = &engine.calls_of(&story, "run")[0];
    assert!(run.ends_with("localhost/solstice_ID:1 you there /github/workspace"), "{run}");
    assert!(run.contains(" --env INPUT_WHO ") && run.contains(" --env OWN "), "{run}");
}

#[tokio::test]
async fn a_dockerfile_alone_is_an_action_also_in_the_repository() {
    let engine = Engine::new("docker");
    engine.write("image", "echo hello");
    let story = engine
        .job("")
        .tree(&[("here/Dockerfile", "FROM scratch")])
        .uses("actions/checkout@v4", &[])
        .uses("./here", &[])
        .play()
        .await;
    assert_eq!(story.output(), "hello", "{}", story.log());
    engine.write("no_build", "");
    let story = engine
        .job("")
        .action("own/d@v1", "Dockerfile", "FROM scratch")
        .uses("own/d@v1", &[])
        .play()
        .await;
    assert_eq!(story.outcomes(), [(Failure, Failure)]);
    assert!(story.log().contains("Docker build failed with exit code 1"), "{}", story.log());
}

#[tokio::test]
async fn the_three_parts_run_in_their_order_in_one_image() {
    let engine = Engine::new("docker");
    let file = "runs:\n  using: docker\n  image: Dockerfile\n  entrypoint: sh\n  args: [-c, 'echo main $STATE_word']\n  \
                pre-entrypoint: /bin/sh\n  post-entrypoint: /usr/bin/env\n  post-if: \"always()\"\n";
    let file = file.replace(
        "[-c, 'echo main $STATE_word']",
        "[-c, 'echo part; echo word=kept >>$GITHUB_STATE']",
    );
    let story = engine
        .job("")
        .action("own/d@v1", "action.yml", &file.replace("/usr/bin/env", "dash"))
        .run("echo first")
        .uses("own/d@v1", &[])
        .run("exit 1")
        .play()
        .await;
    assert_eq!(story.output(), "part\nfirst\npart\npart", "{}", story.log());
    assert_eq!(engine.calls_of(&story, "build").len(), 1);
    let run = engine.calls_of(&story, "run");
    let programs = ["/bin/sh", "sh", "dash"];
    assert_eq!(run.len(), programs.len());
    for (call, program) in run.iter().zip(programs) {
        assert!(call.contains(&format!(" --entrypoint {program} ")), "{call}");
    }
    // Main and post know what came before them.
    assert!(!run[0].contains("STATE_word") && run[1].contains("STATE_word"), "{run:?}");
    assert!(run[2].contains("STATE_word"), "{run:?}");
}

#[tokio::test]
async fn the_part_before_the_first_step_runs_inside_an_action_too() {
    let engine = Engine::new("docker");
    let file = "inputs: { word: {} }\nruns:\n  using: docker\n  image: docker://a\n  entrypoint: sh\n  \
                pre-entrypoint: /bin/sh\n  args:\n    \
                - -c\n    - echo $INPUT_WORD $STATE_word; echo word=kept >>$GITHUB_STATE\n";
    let outer = "inputs: { word: {} }\nruns:\n  using: composite\n  steps:\n    \
                 - uses: own/d@v1\n      with: { word: \"${{ inputs.word }}!\" }\n";
    let story = engine
        .job("")
        .action("own/d@v1", "action.yml", file)
        .action("own/outer@v1", "action.yml", outer)
        .run("echo first")
        .uses("own/outer@v1", &[("word", "x")])
        .play()
        .await;
    assert_eq!(story.output(), "x!\nfirst\nx! kept", "{}", story.log());
    let run = engine.calls_of(&story, "run");
    assert!(run[0].contains(" --entrypoint /bin/sh "), "{run:?}");
    engine.assert_clean();
}

#[tokio::test]
async fn a_post_part_runs_only_if_its_condition_holds() {
    let engine = Engine::new("docker");
    engine.write("image", "echo main");
    let file =
        "runs: { using: docker, image: 'docker://a', post-entrypoint: sh, post-if: failure() }";
    let story =
        engine.job("").action("own/d@v1", "action.yml", file).uses("own/d@v1", &[]).play().await;
    assert_eq!(story.output(), "main", "{}", story.log());
    assert_eq!(engine.calls_of(&story, "run").len(), 1);
}

#[tokio::test]
async fn a_cancel_ends_the_container() {
    let engine = Engine::new("docker");
    engine.write("image", "echo ready; exec sleep 600");
    let story = engine
        .job("")
        .uses("docker://a", &[])
        .step(run("echo always").when("always()"))
        .play_with(cancel_at("ready"))
        .await;
    assert_eq!(story.result, JobResult::Cancelled, "{}", story.log());
    assert_eq!(story.outcomes()[1], (Success, Success));
    let removed = engine.calls_of(&story, "rm");
    assert_eq!(removed[0], "docker rm --force solstice_ID_action_1");
    engine.assert_clean();
}

#[tokio::test]
async fn an_action_beside_a_containers_job_shares_its_network_and_workspace() {
    let engine = Engine::new("docker");
    engine.write("image", "cat made; echo $GITHUB_WORKSPACE | grep -c /__w");
    let story = engine
        .job("container: a")
        .run("echo from the job >made")
        .uses("docker://b", &[])
        .step_env("DIRECTORY", "${{ github.workspace }}/x")
        .play()
        .await;
    assert!(story.output().starts_with("from the job\n0"), "{}", story.log());
    let run = &engine.calls_of(&story, "run")[0];
    assert!(run.contains(" --network solstice_ID "), "{run}");
    assert!(!run.contains("/__w"), "{run}");
}

#[tokio::test]
async fn what_cannot_be_an_image_is_a_sentence() {
    let engine = Engine::new("docker");
    let outside = "runs: { using: docker, image: ../../Dockerfile }";
    for (uses, expected) in [
        ("docker://--privileged", "is no name of an image"),
        ("own/d@v1", "the image of the action own/d@v1 lies outside it"),
    ] {
        let job = engine.job("").action("own/d@v1", "action.yml", outside);
        let story = job.uses(uses, &[]).play().await;
        assert_eq!(story.outcomes(), [(Failure, Failure)]);
        assert!(story.log().to_lowercase().contains(expected), "{}", story.log());
    }
}

#[tokio::test]
async fn a_machine_without_an_engine_fails_the_step() {
    let docker = "runs: { using: docker, image: Dockerfile }";
    for uses in ["docker://alpine:3", "own/d@v1"] {
        let story = job()
            .search_path("/nonexistent")
            .action("own/d@v1", "action.yml", docker)
            .uses(uses, &[])
            .play()
            .await;
        assert_eq!(story.outcomes(), [(Failure, Failure)]);
        let expected = format!(
            "##[error]The action {uses} runs in a container, and this machine has neither docker \
             nor podman; let `runs-on` name a label whose image has one of them, such as \
             debian-12-podman."
        );
        assert!(story.log().ends_with(&expected), "{}", story.log());
    }
}
