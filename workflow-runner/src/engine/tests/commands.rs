//! Workflow commands in the output of steps.

use common::event::{AnnotationLevel, JobResult};
use common::guest::GuestEvent;
use common::plan::Dialect;

use super::story::{Story, job, run};

#[tokio::test]
async fn groups_and_findings_are_marked_on_github_and_verbatim_on_forgejo() {
    let script =
        "echo '::group::Build'; echo '::endgroup::'; echo '::error file=a.c,line=3::bad%0Athing'";
    let story = job().run(script).play().await;
    assert_eq!(story.output(), "##[group]Build\n##[endgroup]\n##[error]bad\nthing");
    let [annotation] = &story.annotations()[..] else { panic!("one annotation") };
    assert_eq!(annotation.level, AnnotationLevel::Error);
    assert_eq!(annotation.message, "bad\nthing");
    assert_eq!((annotation.file.as_deref(), annotation.line), (Some("a.c"), Some(3)));

    let story = job().dialect(Dialect::Forgejo).run(script).play().await;
    let expected = "##[group]Build\n##[endgroup]\n::error file=a.c,line=3::bad%0Athing";
    assert_eq!(story.output(), expected);
}

#[tokio::test]
async fn a_position_that_contradicts_itself_is_dropped() {
    let story = job().run("echo '::warning file=a,endLine=3::x'").play().await;
    let annotation = &story.annotations()[0];
    assert_eq!((annotation.line, annotation.end_line), (None, None));
    assert_eq!(annotation.file.as_deref(), Some("a"));
    assert_eq!(story.output(), "##[warning]x");
    let positions = ["endLine=3", "line=1,endColumn=3", "col=3", "line=1,endLine=2,col=3"];
    for position in positions {
        let script = format!("echo '::notice file=a,{position}::x'");
        let story = job().secret("ACTIONS_STEP_DEBUG", "true").run(&script).play().await;
        assert_eq!(story.annotations()[0].line, None, "{position}");
        let note = "##[debug]The position of this notice is dropped: it has a";
        assert!(story.output().contains(note), "{position}: {}", story.output());
    }
}

#[tokio::test]
async fn the_file_of_a_finding_is_named_as_in_the_repository() {
    let script = "for f in $GITHUB_WORKSPACE/src/a.c ./b.c ${GITHUB_WORKSPACE}2/c.c /d.c; do \
                  echo \"::error file=$f,line=1::x\"; done; echo $GITHUB_WORKSPACE";
    let story = job().run(script).play().await;
    let annotations = story.annotations();
    let files: Vec<&str> = annotations.iter().filter_map(|found| found.file.as_deref()).collect();
    let output = story.output();
    let beside = format!("{}2/c.c", output.lines().last().unwrap());
    assert_eq!(files, ["src/a.c", "./b.c", &beside, "/d.c"]);
}

#[tokio::test]
async fn a_mask_comes_before_the_lines_that_it_hides() {
    for dialect in [Dialect::Github, Dialect::Forgejo] {
        let story = job()
            .dialect(dialect)
            .run("echo before; echo '::add-mask::hidden'; echo hidden >&2")
            .play()
            .await;
        assert_eq!(story.masks(), ["hidden"]);
        assert_eq!(story.output(), "before\nhidden");
        let mask = position(&story, |event| matches!(event, GuestEvent::Mask(_)));
        let hidden = position(&story, |event| {
            matches!(event, GuestEvent::Log(batch)
                if batch.lines.iter().any(|line| line.text.to_text() == "hidden"))
        });
        assert!(mask < hidden);
    }
}

fn position(story: &Story, wanted: impl FnMut(&GuestEvent) -> bool) -> usize {
    story.events.iter().position(wanted).unwrap()
}

#[tokio::test]
async fn values_are_set_by_commands() {
    let script = "echo '::set-output name=v::42'";
    let story = job().step(run(script).id("x")).run("echo ${{ steps.x.outputs.v }}").play().await;
    assert_eq!(story.output(), "42");
    let story = job()
        .dialect(Dialect::Forgejo)
        .run("echo '::set-env name=A::1'; echo '::add-path::/opt/x'")
        .run("echo $A; case $PATH in /opt/x:*) echo yes;; esac")
        .play()
        .await;
    assert_eq!(story.output(), "::set-env name=A::1\n::add-path::/opt/x\n1\nyes");
}

#[tokio::test]
async fn a_value_without_a_name_fails_the_step() {
    for command in ["set-output", "save-state"] {
        let story = job().run(&format!("echo '::{command} name=::x'; echo on")).play().await;
        assert_eq!(story.output(), "on", "{command}");
        assert_eq!(story.result, JobResult::Failure, "{command}");
        assert!(story.log().contains("has no name; write name=..."), "{}", story.log());
    }
}

#[tokio::test]
async fn insecure_commands_are_refused_on_github_unless_asked_for() {
    let step = || run("echo '::set-env name=A::1'");
    let story = job().step(step()).play().await;
    assert_eq!(story.result, JobResult::Failure);
    assert!(story.log().contains("The command set-env is refused"));
    let allow = [("ACTIONS_ALLOW_UNSECURE_COMMANDS", "true")];
    let story = job().step(step().env(&allow)).run("echo $A").play().await;
    assert_eq!(story.output(), "1");
}

#[tokio::test]
async fn commands_are_not_read_between_stop_and_its_token() {
    let script = "echo '::stop-commands::token-77'; echo '::group::x'; echo '::token-77::'; echo '::group::y'";
    let story = job().run(script).play().await;
    assert_eq!(story.output(), "::stop-commands::token-77\n::group::x\n::token-77::\n##[group]y");
    assert_eq!(story.masks(), ["token-77"]);
    let story = job().dialect(Dialect::Forgejo).run(script).play().await;
    assert_eq!(story.output(), "::group::x\n##[group]y");
}

#[tokio::test]
async fn a_stop_token_that_anyone_could_guess_is_refused() {
    let story = job().run("echo '::stop-commands::group'; echo '::group::x'").play().await;
    assert_eq!(story.output(), "##[group]x");
    assert_eq!(story.result, JobResult::Failure);
}

#[tokio::test]
async fn commands_are_shown_once_echo_is_on() {
    let script = "echo '::set-output name=a::1'; echo '::echo::on'; echo '::set-output name=b::2'
                  echo '::add-mask::hidden'; echo '::echo::off'; echo '::set-output name=c::3'";
    let story = job().run(script).play().await;
    assert_eq!(story.output(), "::set-output name=b::2\n::add-mask::***\n::echo::off");
}

#[tokio::test]
async fn debug_lines_are_shown_when_debugging_is_on() {
    let script = "echo '::debug::detail'; echo \"[$RUNNER_DEBUG]\"";
    let story = job().run(script).play().await;
    assert_eq!(story.output(), "[]");
    let story = job().secret("ACTIONS_STEP_DEBUG", "true").run(script).play().await;
    assert_eq!(story.output(), "##[debug]detail\n[1]");
    let story = job()
        .dialect(Dialect::Forgejo)
        .secret("ACTIONS_STEP_DEBUG", "true")
        .run(script)
        .play()
        .await;
    assert_eq!(story.output(), "detail\n[1]");
}

#[tokio::test]
async fn a_command_that_was_cut_takes_no_effect() {
    let story =
        job().run("printf '::add-mask::'; head -c 70000 /dev/zero | tr '\\0' x; echo").play().await;
    assert_eq!(story.output(), "");
    assert!(story.masks().is_empty());
    assert!(story.log().contains("longer than 64 KiB"));
}

#[tokio::test]
async fn unknown_commands_are_output() {
    let story =
        job().run("echo '::unknown::x'; echo 'std::vec::Vec'; echo '##[section]y'").play().await;
    assert_eq!(story.output(), "::unknown::x\nstd::vec::Vec\n##[section]y");
}
