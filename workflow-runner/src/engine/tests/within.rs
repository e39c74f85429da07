//! `uses: solstice/workflow@v1`.

use common::event::{Conclusion, JobResult};

use super::story::job;

use Conclusion::{Failure, Skipped, Success};

const ENTRY: &str = "solstice/workflow@v1";
const FILE: &str = ".solstice/workflow.kdl";

const WORKFLOW: &str = r#"
name "ci"
env { LEVEL 3 }

job "test" {
    os "tiny" "omnios-bloody"
    setup "echo set up on ${{ matrix.os }} > made"
    step "Look" {
        run "cat made; echo level $LEVEL; echo \"::error::found\"; echo A=1 >> $GITHUB_ENV"
    }
    step "echo A is $A; echo ${{ job.status }}"
    step "echo no" if="failure()"
}

job "late" {
    runs-on "tiny"
    needs "test" "elsewhere"
    step "echo late after ${{ needs.test.result }}"
}

job "elsewhere" {
    runs-on "debian-12"
    step "echo not here"
}
"#;

#[tokio::test]
async fn the_jobs_for_this_label_run_inside_the_step() {
    let story = job()
        .tree(&[(FILE, WORKFLOW)])
        .label("tiny")
        .uses(ENTRY, &[])
        .run("echo A is [$A]; cat made")
        .play()
        .await;
    assert_eq!(
        story.output(),
        "set up on tiny\nlevel 3\n##[error]found\nA is 1\nsuccess\nlate after success\nA is []\nset \
         up on tiny",
        "{}",
        story.log()
    );
    assert_eq!(story.outcomes(), [(Success, Success), (Success, Success)]);
    assert_eq!(story.annotations().len(), 1);
    assert_eq!(story.annotations()[0].step, 0);
    for line in ["##[section]test (tiny): Look", "##[section]late: Run echo late"] {
        assert!(story.log().contains(line), "{line}\n{}", story.log());
    }
}

#[tokio::test]
async fn a_job_that_fails_fails_the_step_and_those_that_need_it_are_skipped() {
    let text = "job a { runs-on x; step \"exit 3\"; step \"echo no\" }\njob b { runs-on x; needs a; step \
                \"echo no\" }\njob c { runs-on x; needs a; if \"failure()\"; step \"echo yes\" }\n";
    let story = job()
        .tree(&[("own.kdl", text)])
        .uses(ENTRY, &[("file", "own.kdl")])
        .run("echo no")
        .play()
        .await;
    assert_eq!(story.output(), "yes", "{}", story.log());
    assert_eq!(story.outcomes(), [(Failure, Failure), (Skipped, Skipped)]);
    assert_eq!(story.result, JobResult::Failure);
    assert!(story.log().contains("##[section]b is skipped"), "{}", story.log());
}

#[tokio::test]
async fn a_file_that_cannot_run_is_named() {
    let refused = async |files: &[(&str, &str)], with: &[(&str, &str)]| {
        let story = job().tree(files).label("tiny").uses(ENTRY, with).play().await;
        assert_eq!(story.result, JobResult::Failure);
        story.log()
    };
    let log = refused(&[("x", "")], &[]).await;
    assert!(log.contains("There is no file .solstice/workflow.kdl in the workspace"), "{log}");
    let log = refused(&[("x", "")], &[("file", "../x")]).await;
    assert!(log.contains("lies outside the workspace"), "{log}");
    let log = refused(&[(FILE, "jobs {}\n")], &[]).await;
    assert!(log.contains(".solstice/workflow.kdl:1:1: \"jobs\" is no part of a workflow"), "{log}");
    let log = refused(&[(FILE, "job a { runs-on b; step x }\n")], &[]).await;
    assert!(log.contains("runs on tiny; its labels are b"), "{log}");
}

#[tokio::test]
async fn a_label_can_check_out_before_the_first_step() {
    let story = job().tree(&[("a.txt", "hello")]).checkout_first().run("cat a.txt").play().await;
    assert_eq!(story.output(), "hello");
    let notice = "native checkout (by the label's setting): local working tree";
    assert!(story.log().starts_with(notice), "{}", story.log());
    assert_eq!(story.outcomes(), [(Success, Success)]);
}
