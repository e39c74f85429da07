//! Values that go from step to step and out of the job.

use common::event::JobResult;
use common::plan::Dialect;

use super::story::{job, run};

#[tokio::test]
async fn variables_outputs_and_paths_reach_later_steps() {
    let story = job()
        .step(
            run("echo A=one >> $GITHUB_ENV; printf 'B<<E\\nx\\ny\\nE\\n' >> $GITHUB_ENV
                 echo v=42 >> $GITHUB_OUTPUT
                 mkdir bin; printf '#!/bin/sh\\necho tool\\n' > bin/my-tool; chmod +x bin/my-tool
                 echo $PWD/bin >> $GITHUB_PATH")
            .id("first"),
        )
        .run("echo \"$A $B ${{ env.A }} ${{ steps.first.outputs.v }}\"; my-tool")
        .play()
        .await;
    assert_eq!(story.output(), "one x\ny one 42\ntool");
}

#[tokio::test]
async fn what_a_failed_step_wrote_counts_too() {
    let story = job()
        .step(run("echo A=one >> $GITHUB_ENV; exit 1").continue_on_error("true"))
        .run("echo $A")
        .play()
        .await;
    assert_eq!(story.output(), "one");
}

#[tokio::test]
async fn env_layers_override_each_other_and_see_what_came_before() {
    let story = job()
        .env("A", "job")
        .env("B", "${{ env.A }}+")
        .step(run("echo $A $B $C").env(&[("A", "step"), ("C", "${{ env.A }}")]))
        .step(run("echo $A").when("env.A == 'job'"))
        .step(run("echo own").env(&[("X", "1")]).when("env.X == '1'"))
        .play()
        .await;
    assert_eq!(story.output(), "step job+ job\njob\nown");
}

#[tokio::test]
async fn a_broken_file_fails_the_step_with_file_and_line() {
    for file in ["GITHUB_ENV", "GITHUB_OUTPUT", "GITHUB_STATE"] {
        let story = job().run(&format!("printf 'A=1\\nbroken\\n' > ${file}")).play().await;
        assert_eq!(story.result, JobResult::Failure, "{file}");
        let message = format!("##[error]Line 2 of {file} (\"broken\")");
        assert!(story.log().contains(&message), "{}", story.log());
    }
}

#[tokio::test]
async fn state_reaches_no_other_step() {
    // It is for the later stages of the same action.
    let story = job()
        .run("echo A=one >> $GITHUB_STATE; echo '::save-state name=B::two'")
        .run("echo \"[$A$B$STATE_A$STATE_B]\"; test ! -s $GITHUB_STATE && echo empty")
        .play()
        .await;
    assert_eq!(story.output(), "[]\nempty");
    assert_eq!(story.result, JobResult::Success);
}

#[tokio::test]
async fn node_options_are_refused() {
    let story =
        job().run("echo NODE_OPTIONS=x >> $GITHUB_ENV").run("echo [$NODE_OPTIONS]").play().await;
    assert_eq!(story.output(), "[]");
    assert!(story.log().contains("NODE_OPTIONS cannot be set through GITHUB_ENV"));
}

#[tokio::test]
async fn a_file_that_was_removed_or_replaced_harms_nothing() {
    let story = job()
        .run("rm $GITHUB_ENV")
        .run("rm $GITHUB_OUTPUT; mkfifo $GITHUB_OUTPUT")
        .step(run("echo on").when("always()"))
        .play()
        .await;
    assert_eq!(story.output(), "on");
    assert!(story.log().contains("it is no regular file"), "{}", story.log());
}

#[tokio::test]
async fn job_outputs_are_evaluated_last_and_empty_ones_left_out() {
    let story = job()
        .output("version", "v${{ steps.meta.outputs.version }}")
        .output("empty", "${{ steps.meta.outputs.none }}")
        .step(run("echo version=1.2 >> $GITHUB_OUTPUT").id("meta"))
        .play()
        .await;
    let outputs = story.outputs().unwrap();
    assert_eq!(
        outputs.into_iter().collect::<Vec<_>>(),
        [("version".to_owned(), "v1.2".to_owned())]
    );
}

#[tokio::test]
async fn outputs_have_a_limit() {
    let story = job()
        .run("printf big= > $GITHUB_OUTPUT; head -c 1048576 /dev/zero | tr '\\0' x >> $GITHUB_OUTPUT")
        .play()
        .await;
    assert_eq!(story.result, JobResult::Failure);
    assert!(story.log().contains("larger than 1024 KiB together"), "{}", story.log());
}

#[tokio::test]
async fn summaries_are_reported_and_bounded() {
    let story = job()
        .run("echo '# Hello' >> $GITHUB_STEP_SUMMARY")
        .run("head -c 1048577 /dev/zero | tr '\\0' x >> $GITHUB_STEP_SUMMARY")
        .play()
        .await;
    assert_eq!(story.summaries(), ["# Hello\n"]);
    assert_eq!(story.result, JobResult::Success);
    assert!(story.log().contains("is dropped; the limit is 1024 KiB"));
}

#[tokio::test]
async fn hash_files_is_computed_where_it_is_asked_for() {
    let story = job()
        .run("printf 'hello\\n' > a.txt")
        .run("echo ${{ hashFiles('*.txt') }} ${{ hashFiles('none') }}.")
        .step(run("echo yes").when("hashFiles('a.txt') != ''"))
        .play()
        .await;
    assert_eq!(
        story.output(),
        "ecb65bb98f9d905b70458986c39fcbad7715e5f2fcc3b1f07767d7c83e2438cc .\nyes"
    );
}

#[tokio::test]
async fn the_results_of_expressions_are_not_evaluated_again() {
    let story = job()
        .secret("TOKEN", "s3cret")
        .env("BRANCH", "${{ format('{0}{{{{ secrets.TOKEN }}}}', '$') }}")
        .run("echo '${{ env.BRANCH }}'")
        .play()
        .await;
    assert_eq!(story.output(), "${{ secrets.TOKEN }}");
}

#[tokio::test]
async fn the_context_has_other_names_on_forgejo() {
    let script = "echo ${{ forgejo.sha }} ${{ github.sha }} $FORGEJO_SHA";
    let story = job().dialect(Dialect::Forgejo).run(script).play().await;
    assert_eq!(story.output(), "abc abc abc");
    let story = job().run(script).play().await;
    assert_eq!(story.result, JobResult::Failure);
}

#[tokio::test]
async fn what_steps_leave_has_limits() {
    let story = job()
        .run("i=0; while [ $i -lt 1001 ]; do echo /p/$i; i=$((i+1)); done > $GITHUB_PATH")
        .play()
        .await;
    assert_eq!(story.result, JobResult::Failure);
    assert!(story.log().contains("or 1000 paths"), "{}", story.log());
    let story = job().run("head -c 16777217 /dev/zero > $GITHUB_ENV").play().await;
    assert!(story.log().contains("The file GITHUB_ENV is larger than 16 MiB"), "{}", story.log());
}
