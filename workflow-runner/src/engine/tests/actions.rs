//! `uses:` of actions that are not this program's own.

use common::event::{Conclusion, JobResult};
use common::plan::Dialect;

use super::story::{JobBuilder, job, run};

use Conclusion::{Failure, Skipped, Success};

/// A composite action with these steps, and what else stands in its file.
fn composite(steps: &str, rest: &str) -> String {
    let steps: String = steps.lines().map(|line| format!("    {line}\n")).collect();
    format!("name: A\n{rest}runs:\n  using: composite\n  steps:\n{steps}")
}

/// A `node` that runs the file as a script: what an action in JavaScript is given is the same.
const NODE: &str =
    "mkdir bin; ln -s \"$(command -v sh)\" bin/node; echo \"$PWD/bin\" >>$GITHUB_PATH";

/// A job in which that `node` is there before the first step, and the directory that has it.
fn with_node_before() -> (JobBuilder, tempfile::TempDir) {
    let bin = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/sh", bin.path().join("node")).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.path().display());
    (job().env("PATH", &path), bin)
}

fn with_node() -> JobBuilder {
    job().run(NODE)
}

#[tokio::test]
async fn a_composite_action_has_inputs_outputs_and_steps_of_its_own() {
    let file = composite(
        "- id: one\n  run: echo \"value=$GREETING ${{ inputs.who }}\" >>$GITHUB_OUTPUT\n  shell: sh\n  \
         env: { GREETING: \"${{ inputs.greeting }}\" }\n\
         - run: echo [${{ steps.one.outputs.value }}] [${{ steps.outer.outputs.x }}]\n  shell: sh",
        "inputs:\n  who: { required: true }\n  greeting: { default: \"Hello from ${{ github.ref_name }},\" }\n\
         outputs:\n  said: { value: \"${{ steps.one.outputs.value }}\" }\n",
    );
    let story = job()
        .action("own/greet@v1", "action.yml", &file)
        .step(run("echo x=1 >>$GITHUB_OUTPUT").id("outer"))
        .step_uses("greet", "own/greet@v1", &[("who", "you")])
        .run("echo ${{ steps.greet.outputs.said }} ${{ steps.greet.outcome }} [${{ steps.one.outcome }}]")
        .play()
        .await;
    let expected = "[Hello from main, you] []\nHello from main, you success []";
    assert_eq!(story.output(), expected, "{}", story.log());
    assert_eq!(story.outcomes(), [(Success, Success); 3]);
    assert!(story.log().contains("Download action 'own/greet@v1' (SHA:c0ffee)"));
}

#[tokio::test]
async fn what_a_composite_action_sets_is_set_for_the_job() {
    let file = composite(
        "- run: echo A=inner >>$GITHUB_ENV; echo /added >>$GITHUB_PATH\n  shell: sh\n\
         - run: echo $A $B; case $PATH in /added:*) echo added;; esac; cat $GITHUB_ACTION_PATH/data\n  shell: sh",
        "",
    );
    let story = job()
        .action("own/set@v1", "sub/action.yaml", &file)
        .action("own/set@v1", "sub/data", "data\n")
        .run("echo A=outer >>$GITHUB_ENV")
        .env("B", "job")
        .uses("own/set/sub@v1", &[])
        .run("echo $A; case $PATH in /added:*) echo added;; esac")
        .play()
        .await;
    assert_eq!(story.output(), "inner job\nadded\ndata\ninner\nadded", "{}", story.log());
}

#[tokio::test]
async fn conditions_in_a_composite_action_are_about_its_own_steps() {
    let file = composite(
        "- run: echo first; exit 3\n  shell: sh\n\
         - run: echo never\n  shell: sh\n\
         - run: echo failed ${{ github.action_status }}\n  shell: sh\n  if: failure()\n\
         - run: exit 1\n  shell: sh\n  if: always()\n  continue-on-error: true",
        "",
    );
    let story = job()
        .action("own/fail@v1", "action.yml", &file)
        .uses("own/fail@v1", &[])
        .run("echo no")
        .play()
        .await;
    assert_eq!(story.output(), "first\nfailed failure", "{}", story.log());
    assert_eq!(story.outcomes(), [(Failure, Failure), (Skipped, Skipped)]);
    // After a failure of the job an action that runs all the same begins anew.
    let file = composite("- run: echo cleaned\n  shell: sh", "");
    let story = job()
        .action("own/clean@v1", "action.yml", &file)
        .run("exit 1")
        .step_uses_when("own/clean@v1", "always()")
        .play()
        .await;
    assert_eq!(story.output(), "cleaned", "{}", story.log());
}

#[tokio::test]
async fn actions_use_actions_but_not_for_ever() {
    let outer = composite(
        "- uses: own/inner@v1\n  with: { word: \"${{ inputs.word }}!\" }",
        "inputs: { word: {} }\n",
    );
    let inner = composite(
        "- run: echo ${{ inputs.word }} $GITHUB_ACTION_REPOSITORY\n  shell: sh",
        "inputs: { word: {} }\n",
    );
    let story = job()
        .action("own/outer@v1", "action.yml", &outer)
        .action("own/inner@v1", "action.yml", &inner)
        .uses("own/outer@v1", &[("word", "hey")])
        .play()
        .await;
    assert_eq!(story.output(), "hey! own/inner", "{}", story.log());
    let cycle = composite("- uses: own/cycle@v1", "");
    let story =
        job().action("own/cycle@v1", "action.yml", &cycle).uses("own/cycle@v1", &[]).play().await;
    assert_eq!(story.result, JobResult::Failure);
    assert!(story.log().contains("does one of them use itself?"), "{}", story.log());
}

#[tokio::test]
async fn a_local_action_comes_with_the_checkout() {
    let file = composite(
        "- run: echo local ${{ inputs.a }}\n  shell: sh",
        "inputs: { a: { default: b } }\n",
    );
    let story = job()
        .tree(&[("actions/here/action.yml", &file)])
        .uses("actions/checkout@v4", &[])
        .uses("./actions/here", &[])
        .play()
        .await;
    assert_eq!(story.output(), "local b", "{}", story.log());
    let story = job().uses("./actions/here", &[]).play().await;
    assert!(story.log().contains("check the repository out in an earlier step"), "{}", story.log());
    let story = job().uses("./../outside", &[]).play().await;
    assert!(story.log().contains("lies outside the workspace"), "{}", story.log());
}

#[tokio::test]
async fn javascript_has_inputs_state_and_its_three_parts() {
    let file = "inputs:\n  some-name: { default: d }\n  with blank: {}\nruns:\n  using: node20\n  main: main.js\n  post: post.js\n  post-if: success()\n";
    let story = with_node()
        .action("own/js@v1", "action.yml", file)
        .action("own/js@v1", "main.js", "tr '\\0' '\\n' </proc/$$/environ | grep ^INPUT_ | sort; echo out=1 >>$GITHUB_OUTPUT; echo word=kept >>$GITHUB_STATE; echo $GITHUB_ACTION_REPOSITORY@$GITHUB_ACTION_REF")
        .action("own/js@v1", "post.js", "echo post $STATE_word; tr '\\0' '\\n' </proc/$$/environ | grep ^INPUT_SOME")
        .step_uses("js", "own/js@v1", &[("with blank", "x y")])
        .run("echo ${{ steps.js.outputs.out }}")
        .play()
        .await;
    let expected =
        "INPUT_SOME-NAME=d\nINPUT_WITH_BLANK=x y\nown/js@v1\n1\npost kept\nINPUT_SOME-NAME=d";
    assert_eq!(story.output(), expected, "{}", story.log());
    assert_eq!(story.result, JobResult::Success);
}

#[tokio::test]
async fn what_runs_before_the_first_step_tells_the_step_and_needs_a_node_by_then() {
    let builder = || {
        job()
            .action("own/js@v1", "action.yml", "runs: { using: node20, pre: pre, main: main }\n")
            .action("own/js@v1", "pre", "echo before $INPUT_A; echo word=kept >>$GITHUB_STATE")
            .action("own/js@v1", "main", "echo main $STATE_word")
            .run("echo first")
            .uses("own/js@v1", &[("a", "b")])
    };
    let bin = tempfile::tempdir().unwrap();
    let node = bin.path().join("node");
    std::fs::write(&node, "#!/bin/sh\nexec sh \"$@\"\n").unwrap();
    std::fs::set_permissions(&node, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.path().display());
    let story = builder().env("PATH", &path).play().await;
    assert_eq!(story.output(), "before b\nfirst\nmain kept", "{}", story.log());
    let story = builder().env("PATH", "/nonexistent").play().await;
    assert_eq!(story.result, JobResult::Failure);
    assert!(story.log().contains("this machine has no node"), "{}", story.log());
}

#[tokio::test]
async fn what_runs_behind_the_last_step_runs_in_reverse_and_whatever_happened() {
    let file = |post_if: &str| {
        format!("runs: {{ using: node24, main: main.js, post: post.js{post_if} }}\n")
    };
    let mut builder = with_node();
    for (name, post_if) in [("one", ""), ("two", ", post-if: success()"), ("three", "")] {
        let reference = format!("own/{name}@v1");
        builder = builder
            .action(&reference, "action.yml", &file(post_if))
            .action(&reference, "main.js", &format!("echo main {name}"))
            .action(&reference, "post.js", &format!("echo post {name}"));
    }
    let nested = composite("- uses: own/three@v1", "");
    let story = builder
        .action("own/nested@v1", "action.yml", &nested)
        .uses("own/one@v1", &[])
        .uses("own/two@v1", &[])
        .uses("own/nested@v1", &[])
        .run("exit 1")
        .uses("own/one@v1", &[])
        .play()
        .await;
    let expected = "main one\nmain two\nmain three\npost three\npost one";
    assert_eq!(story.output(), expected, "{}", story.log());
    assert_eq!(story.result, JobResult::Failure);
}

#[tokio::test]
async fn a_failure_behind_the_last_step_fails_the_job() {
    let story = with_node()
        .action("own/js@v1", "action.yml", "runs: { using: node20, main: m.js, post: p.js }\n")
        .action("own/js@v1", "m.js", "true")
        .action("own/js@v1", "p.js", "exit 4")
        .uses("own/js@v1", &[])
        .play()
        .await;
    assert_eq!(story.result, JobResult::Failure);
    assert_eq!(story.outcomes()[1], (Success, Success));
    assert!(
        story.log().contains("##[error]Process completed with exit code 4."),
        "{}",
        story.log()
    );
}

#[tokio::test]
async fn what_cannot_run_is_a_sentence() {
    for (files, uses, expected) in [
        (
            ("own/a@v1", "action.yml", "runs: { using: docker, image: x }"),
            "own/a@v1",
            "neither a Dockerfile nor docker://NAME",
        ),
        (("own/a@v1", "action.yml", "runs: { using: docker }"), "own/a@v1", "has `image`"),
        (("own/a@v1", "README", ""), "own/a@v1", "has neither action.yml nor action.yaml"),
        (("own/a@v1", "action.yml", "runs: { using: node99x }"), "own/a@v1", "has `main`"),
        (("own/a@v1", "action.yml", "runs: { using: go }"), "own/a@v1", "\"using: go\""),
        (("own/a@v1", "action.yml", "name: [}"), "own/a@v1", "action.yml:1:7: invalid YAML"),
        (
            ("own/a@v1", "action.yml", "runs: { using: composite, steps: [ { run: x } ] }"),
            "own/a@v1",
            "must have a `shell`",
        ),
        (("own/a@v1", "action.yml", ""), "own/missing@v1", "annot fetch the action own/missing@v1"),
        (("own/a@v1", "action.yml", ""), "own/a", "has no version"),
    ] {
        let (reference, path, text) = files;
        let story = job().action(reference, path, text).uses(uses, &[]).play().await;
        assert_eq!(story.result, JobResult::Failure, "{uses}");
        assert!(story.log().contains(expected), "{expected}: {}", story.log());
    }
}

#[tokio::test]
async fn an_action_that_may_come_another_time_says_so() {
    let again = "running the job again may help.";
    for (reference, says) in [("https://down.example/own/a@v1", true), ("own/none@v1", false)] {
        let story = job().run("echo first").uses(reference, &[]).play().await;
        assert_eq!(story.result, JobResult::Failure, "{}", story.log());
        assert!(story.log().contains("Cannot fetch the action"), "{}", story.log());
        assert_eq!(story.log().contains(again), says, "{}", story.log());
    }
}

#[tokio::test]
async fn odd_inputs_are_warnings() {
    let file = composite(
        "- run: echo [${{ inputs.needed }}${{ inputs.other }}]\n  shell: sh",
        "inputs:\n  needed: { required: true }\n  old: { deprecationMessage: use needed }\n",
    );
    let story = job()
        .dialect(Dialect::Forgejo)
        .action("own/a@v1", "action.yml", &file)
        .uses("own/a@v1", &[("other", "x"), ("old", "y")])
        .play()
        .await;
    assert_eq!(story.result, JobResult::Success, "{}", story.log());
    for expected in [
        "Input required and not supplied: needed",
        "Unexpected input(s) 'other', valid inputs are ['needed', 'old']",
        "Input 'old' has been deprecated with message: use needed",
    ] {
        assert!(story.log().contains(expected), "{}", story.log());
    }
}

#[tokio::test]
async fn an_action_sees_no_secret_that_it_was_not_given() {
    let file = composite(
        "- run: echo [${{ secrets.TOKEN }}] ${{ inputs.t == 'hush' }}\n  shell: sh",
        "inputs: { t: {} }\n",
    );
    let story = job()
        .secret("TOKEN", "hush")
        .action("own/a@v1", "action.yml", &file)
        .uses("own/a@v1", &[("t", "${{ secrets.TOKEN }}")])
        .play()
        .await;
    assert_eq!(story.output(), "[] true", "{}", story.log());
}

/// An action in JavaScript with a part before the first step.
const BEFORE: &str = "runs: { using: node20, pre: pre, main: main }\n";

/// Steps that use an action so many times.
fn uses(reference: &str, times: usize) -> String {
    composite(&vec![format!("- uses: {reference}"); times].join("\n"), "")
}

#[tokio::test]
async fn actions_that_use_each_other_many_times_are_looked_at_once() {
    let mut builder = job().action("own/1@v1", "action.yml", &uses("own/2@v1", 20));
    for number in 2..9 {
        let file = uses(&format!("own/{}@v1", number + 1), 20);
        builder = builder.action(&format!("own/{number}@v1"), "action.yml", &file);
    }
    let file = composite("- run: echo never\n  shell: sh", "");
    let story = builder
        .action("own/9@v1", "action.yml", &file)
        .step_uses_when("own/1@v1", "false")
        .run("echo ran")
        .play()
        .await;
    assert_eq!(story.output(), "ran", "{}", story.log());
}

#[tokio::test]
async fn what_runs_before_the_first_step_is_bounded() {
    for (steps, is_too_much) in [(11, true), (1, false)] {
        let (builder, _bin) = with_node_before();
        let story = builder
            .action("own/js@v1", "action.yml", BEFORE)
            .action("own/js@v1", "pre", "echo before")
            .action("own/ten@v1", "action.yml", &uses("own/js@v1", 10))
            .action("own/many@v1", "action.yml", &uses("own/ten@v1", 10))
            .action("own/outer@v1", "action.yml", &uses("own/many@v1", steps))
            .step_uses_when("own/outer@v1", "false")
            .run("echo ran")
            .play()
            .await;
        let text = "More than 1000 parts of actions would run before the first step";
        assert_eq!(story.log().contains(text), is_too_much, "{}", story.log());
        let expected = if is_too_much { String::new() } else { "before\n".repeat(100) + "ran" };
        assert_eq!(story.output(), expected);
    }
}

#[tokio::test]
async fn what_runs_before_the_first_step_may_be_as_deep_as_any_action() {
    let (mut builder, _bin) = with_node_before();
    for number in 1..9 {
        let file = uses(&format!("own/{}@v1", number + 1), 1);
        builder = builder.action(&format!("own/{number}@v1"), "action.yml", &file);
    }
    let story = builder
        .action("own/9@v1", "action.yml", &uses("own/js@v1", 2))
        .action("own/js@v1", "action.yml", BEFORE)
        .action("own/js@v1", "pre", "echo before")
        .action("own/js@v1", "main", "echo main")
        .uses("own/1@v1", &[])
        .play()
        .await;
    assert_eq!(story.output(), "before\nbefore\nmain\nmain", "{}", story.log());
}

#[tokio::test]
async fn a_cancel_is_noticed_between_what_runs_before_the_first_step() {
    let (mut builder, bin) = with_node_before();
    for (name, pre_if, pre) in [
        ("waits", "always()", "mkfifo \"$FIFO\"; echo ready; read line <\"$FIFO\""),
        ("success", "success()", "echo success"),
        ("cancelled", "cancelled()", "echo cancelled"),
    ] {
        let reference = format!("own/{name}@v1");
        let file = format!("runs: {{ using: node20, pre: p, pre-if: {pre_if}, main: m }}\n");
        builder = builder.action(&reference, "action.yml", &file).action(&reference, "p", pre);
    }
    let outer =
        composite("- uses: own/waits@v1\n- uses: own/success@v1\n- uses: own/cancelled@v1", "");
    let fifo = bin.path().join("fifo");
    let story = builder
        .env("FIFO", fifo.to_str().unwrap())
        .action("own/outer@v1", "action.yml", &outer)
        .uses("own/outer@v1", &[])
        .uses("own/cancelled@v1", &[])
        .play_with(move |event, cancel| {
            let common::guest::GuestEvent::Log(batch) = event else { return };
            if batch.lines.iter().any(|line| line.text.to_text() == "ready") {
                cancel.cancel();
                std::fs::write(&fifo, "go on\n").unwrap();
            }
        })
        .await;
    assert_eq!(story.output(), "ready\ncancelled\ncancelled", "{}", story.log());
    assert_eq!(story.result, JobResult::Cancelled);
    assert_eq!(story.outcomes(), [(Skipped, Skipped); 2]);
}

#[tokio::test]
async fn an_action_that_uses_itself_beside_one_with_a_part_before_the_first_step_fails() {
    let (builder, _bin) = with_node_before();
    let cycle = composite("- uses: own/js@v1\n- uses: own/cycle@v1", "");
    let story = builder
        .action("own/js@v1", "action.yml", BEFORE)
        .action("own/js@v1", "pre", "echo before")
        .action("own/js@v1", "main", "true")
        .action("own/cycle@v1", "action.yml", &cycle)
        .uses("own/cycle@v1", &[])
        .uses("own/cycle@v1", &[])
        .play()
        .await;
    assert_eq!(story.result, JobResult::Failure);
    assert!(story.log().contains("does one of them use itself?"), "{}", story.log());
}

#[tokio::test]
async fn what_a_local_action_uses_has_no_part_before_the_first_step() {
    let (builder, _bin) = with_node_before();
    let local = composite("- uses: own/js@v1", "");
    let story = builder
        .tree(&[("here/action.yml", &local)])
        .action("own/js@v1", "action.yml", BEFORE)
        .action("own/js@v1", "pre", "echo before")
        .action("own/js@v1", "main", "echo main")
        .uses("actions/checkout@v4", &[])
        .uses("./here", &[])
        .play()
        .await;
    assert_eq!(story.output(), "main", "{}", story.log());
}

#[tokio::test]
async fn what_is_wrong_before_the_first_step_inside_an_action_fails_the_job() {
    let (builder, _bin) = with_node_before();
    let outer = composite(
        "- uses: own/js@v1\n  with: { a: \"${{ fromJSON(inputs.word) }}\" }\n- uses: own/js@v1",
        "inputs: { word: {} }\n",
    );
    let story = builder
        .action("own/js@v1", "action.yml", BEFORE)
        .action("own/js@v1", "pre", "echo before")
        .action("own/js@v1", "main", "echo main")
        .action("own/outer@v1", "action.yml", &outer)
        .uses("own/outer@v1", &[("word", "{")])
        .play()
        .await;
    assert_eq!(story.output(), "before", "{}", story.log());
    assert_eq!(story.result, JobResult::Failure);
    assert_eq!(story.outcomes(), [(Skipped, Skipped)]);
}

/// A guest starts no process of the user's before its host knows that a step has begun.
#[tokio::test]
async fn what_runs_before_the_first_step_waits_until_the_host_knows() {
    let bin = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/sh", bin.path().join("node")).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.path().display());
    let heard = tokio::sync::watch::Sender::new(false);
    let system = crate::system::Local::new().held_until(heard.subscribe());
    let story = job()
        .env("PATH", &path)
        .action("own/js@v1", "action.yml", "runs: { using: node20, pre: pre, main: main }\n")
        .action("own/js@v1", "pre", "echo before $LEVEL; echo NEW=set >>$GITHUB_ENV")
        .action("own/js@v1", "main", "echo main $LEVEL")
        .step(run("echo skipped").when("false"))
        .step(run("echo ${{ env.NEW }} ${{ github.action }}"))
        .uses("own/js@v1", &[])
        .step_env("LEVEL", "3")
        .play_on(system, move |event, _| {
            if matches!(event, common::guest::GuestEvent::StepStarted(_)) {
                heard.send_replace(true);
            }
        })
        .await;
    assert_eq!(story.output(), "before 3\nset __run\nmain 3", "{}", story.log());
    assert_eq!(story.outcomes(), [(Skipped, Skipped), (Success, Success), (Success, Success)]);
    let (builder, _bin) = with_node_before();
    let story = builder
        .action("own/js@v1", "action.yml", "runs: { using: node20, pre: pre, main: main }\n")
        .action("own/js@v1", "pre", "exit 1")
        .action("own/js@v1", "main", "echo main")
        .run("echo never")
        .step(run("echo always").when("always()"))
        .uses("own/js@v1", &[])
        .play()
        .await;
    assert_eq!(story.output(), "always", "{}", story.log());
    assert_eq!(story.outcomes(), [(Skipped, Skipped), (Success, Success), (Skipped, Skipped)]);
    assert_eq!(story.result, JobResult::Failure);
}

#[tokio::test]
async fn what_an_action_inside_says_behind_the_last_step_is_of_the_jobs_step() {
    let nested =
        composite("- run: 'true'\n  shell: sh\n- run: 'true'\n  shell: sh\n- uses: own/js@v1", "");
    let story = with_node()
        .action("own/js@v1", "action.yml", "runs: { using: node20, main: m, post: p }\n")
        .action("own/js@v1", "m", "echo sum >>$GITHUB_STEP_SUMMARY")
        .action("own/js@v1", "p", "echo '::warning::late'; echo sum >>$GITHUB_STEP_SUMMARY")
        .action("own/nested@v1", "action.yml", &nested)
        .uses("own/nested@v1", &[])
        .play()
        .await;
    assert_eq!(story.result, JobResult::Success, "{}", story.log());
    let steps: Vec<u32> = story
        .events
        .iter()
        .filter_map(|event| match event {
            common::guest::GuestEvent::Annotation(found) => Some(found.step),
            common::guest::GuestEvent::Summary(summary) => Some(summary.step),
            _ => None,
        })
        .collect();
    assert_eq!(steps, [1, 1, 1]);
}

#[tokio::test]
async fn the_env_of_a_step_is_stronger_than_what_steps_wrote_and_weaker_than_an_actions_own() {
    let file = composite(
        "- run: echo $MODE $OTHER $FLAG\n  shell: sh\n  env: { FLAG: \"--${{ env.MODE }}\" }\n- run: echo $MODE\n  shell: sh\n  env: { MODE: own }",
        "outputs: { mode: { value: \"${{ env.MODE }}\" } }\n",
    );
    let story = job()
        .action("own/a@v1", "action.yml", &file)
        .run("echo MODE=written >>$GITHUB_ENV; echo OTHER=written >>$GITHUB_ENV")
        .step_uses("a", "own/a@v1", &[])
        .step_env("MODE", "step")
        .run("echo ${{ steps.a.outputs.mode }}")
        .play()
        .await;
    assert_eq!(story.output(), "step written --step\nown\nstep", "{}", story.log());
}

#[tokio::test]
async fn an_action_may_check_out_as_the_job_does() {
    let file = composite("- uses: actions/checkout@v4\n  with: { path: inner }", "");
    let checkout = "actions/checkout@v4";
    for first in [true, false] {
        let mut builder = job().tree(&[("a", "1")]).action("own/a@v1", "action.yml", &file);
        for reference in if first { [checkout, "own/a@v1"] } else { ["own/a@v1", checkout] } {
            builder = builder.uses(reference, &[("path", "outer")]);
        }
        let story = builder.run("cat inner/a outer/a").play().await;
        assert_eq!(story.output(), "11", "{first}: {}", story.log());
    }
}

#[tokio::test]
async fn summaries_are_bounded_for_all_steps_together() {
    let large = "head -c 700000 /dev/zero | tr '\\0' x >>$GITHUB_STEP_SUMMARY";
    let file = composite(&format!("- run: {large}\n  shell: sh\n- run: {large}\n  shell: sh"), "");
    let story = job().action("own/a@v1", "action.yml", &file).uses("own/a@v1", &[]).play().await;
    assert!(story.log().contains("larger summaries than they may together"), "{}", story.log());
}
