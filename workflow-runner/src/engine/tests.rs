//! Jobs that run for real, on this machine, in a directory of their own.

mod actions;
mod commands;
mod containers;
mod ending;
mod full_disk;
mod natives;
mod story;
mod values;
mod within;

use std::os::unix::fs::MetadataExt;

use common::event::{Conclusion, JobResult};
use common::plan::Dialect;

use story::{job, run};

use Conclusion::{Failure, Skipped, Success};

#[tokio::test]
async fn steps_run_in_order_and_their_output_is_the_log() {
    let story = job().run("echo one; echo two >&2").run("printf three").play().await;
    assert_eq!(story.result, JobResult::Success);
    assert_eq!(story.output(), "one\ntwo\nthree");
    assert_eq!(story.outcomes(), [(Success, Success), (Success, Success)]);
}

#[tokio::test]
async fn the_log_of_a_step_begins_with_what_it_does() {
    let story = job().env("LEVEL", "3").step(run("echo one\necho two").shell("sh")).play().await;
    let log = story.log();
    let sh = story.program("sh");
    let expected = format!(
        "##[group]Run echo one\n\x1b[36;1mecho one\x1b[0m\n\x1b[36;1mecho two\x1b[0m\nshell: {sh} \
         -e {{0}}\nenv:\n  LEVEL: 3\n##[endgroup]\none\ntwo"
    );
    assert_eq!(log, expected);
}

#[tokio::test]
async fn a_failed_step_fails_the_job_and_skips_the_rest() {
    let story = job().run("exit 3").run("echo no").play().await;
    assert_eq!(story.result, JobResult::Failure);
    assert_eq!(story.outcomes(), [(Failure, Failure), (Skipped, Skipped)]);
    assert!(story.log().ends_with("##[error]Process completed with exit code 3."));
    assert_eq!(story.started(), [0]);
}

#[tokio::test]
async fn conditions_see_the_state_of_the_job() {
    let story = job()
        .run("exit 1")
        .step(run("echo always").when("always()"))
        .step(run("echo failure").when("failure() && job.status == 'failure'"))
        .step(run("echo success").when("success()"))
        .step(run("echo cancelled").when("${{ cancelled() }}"))
        .play()
        .await;
    assert_eq!(story.output(), "always\nfailure");
    assert_eq!(story.result, JobResult::Failure);
}

#[tokio::test]
async fn a_wrong_condition_fails_its_step_with_the_message() {
    let story = job().step(run("echo no").when("github.x ==")).play().await;
    assert_eq!(story.outcomes(), [(Failure, Failure)]);
    assert!(story.log().starts_with("##[error]The condition of this step is wrong: "));
}

#[tokio::test]
async fn continue_on_error_keeps_the_job_going() {
    let story = job()
        .step(run("exit 1").id("bad").continue_on_error("true"))
        .run("echo ${{ steps.bad.outcome }} ${{ steps.bad.conclusion }}")
        .step(run("exit 1").continue_on_error("${{ 1 == 2 }}"))
        .play()
        .await;
    assert_eq!(story.output(), "failure success");
    assert_eq!(story.outcomes(), [(Failure, Success), (Success, Success), (Failure, Failure)]);
}

#[tokio::test]
async fn a_process_that_a_signal_ended_is_named_so() {
    let story = job().run("kill -9 $$").play().await;
    assert!(story.log().ends_with("##[error]Process ended by signal 9 (KILL)."), "{}", story.log());
}

#[tokio::test]
#[expect(unsafe_code, reason = "nix has no safe way to ignore a signal")]
async fn a_signal_that_this_program_ignores_is_not_ignored_by_steps() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: no handler is set, and nothing here waits for this signal.
    unsafe { signal(Signal::SIGUSR2, SigHandler::SigIgn) }.unwrap();
    let story = job().run("kill -USR2 $$; echo ignored").play().await;
    assert_eq!(story.output(), "", "{}", story.log());
    assert_eq!(story.result, JobResult::Failure);
}

#[tokio::test]
async fn steps_get_the_constructed_environment_and_nothing_else() {
    let story = job().step(run("env").shell("sh")).play().await;
    let own = [
        "GITHUB_", "RUNNER_", "CI=", "PATH=", "HOME=", "USER=", "LOGNAME=", "LANG=", "PWD=", "_=",
        "SHLVL=", "OLDPWD=",
    ];
    for line in story.output().lines() {
        assert!(own.iter().any(|name| line.starts_with(name)), "{line}");
    }
    assert!(story.output().contains("GITHUB_SHA=abc"), "{}", story.output());
}

#[tokio::test]
async fn standard_input_is_empty() {
    let story = job().run("cat; echo done").play().await;
    assert_eq!(story.output(), "done");
}

#[tokio::test]
async fn the_working_directory_is_the_workspace_or_where_the_step_says() {
    let story = job()
        .run("mkdir -p a/b; test \"$(pwd -P)\" = \"$(cd \"$GITHUB_WORKSPACE\"; pwd -P)\"")
        .step(run("basename \"$PWD\"").directory("a/b"))
        .step(run("echo no").directory("missing"))
        .play()
        .await;
    assert_eq!(story.output(), "b");
    assert!(story.log().contains("missing does not exist; make it in an earlier step"));
}

#[tokio::test]
async fn defaults_set_shell_and_directory_and_steps_override_them() {
    let story = job()
        .defaults("sh -eu {0}", "sub")
        .step(run("mkdir sub").directory("."))
        .run("basename \"$PWD\"; echo ${UNSET?message}")
        .step(run("basename \"$PWD\"; echo [$UNSET]").directory(".").shell("sh").when("always()"))
        .play()
        .await;
    assert!(story.output().starts_with("sub\n"), "{}", story.output());
    assert!(story.output().ends_with("\nrepo\n[]"), "{}", story.output());
}

#[tokio::test]
async fn a_missing_shell_is_a_sentence() {
    let story = job().step(run("echo").name("Build").shell("no-such-shell {0}")).play().await;
    let expected = "The shell \"no-such-shell {0}\" of step \"Build\" is not on this machine";
    assert!(story.log().contains(expected), "{}", story.log());
    assert_eq!(story.result, JobResult::Failure);
}

#[tokio::test]
async fn unsupported_steps_fail_when_reached() {
    let story = job()
        .run("exit 1")
        .step(run("").unsupported("services need containers").when("always()"))
        .step(run("").unsupported("never reached"))
        .play()
        .await;
    assert!(story.log().contains("##[error]Services need containers."));
    assert_eq!(story.outcomes()[2], (Skipped, Skipped));
}

#[tokio::test]
async fn names_are_evaluated_or_made() {
    let story = job()
        .step(run("true").name("Build ${{ github.sha }}"))
        .run("\n  true a\nb=1")
        .step(run("true").name("Skip ${{ steps.x.outputs.y.z }}").when("false"))
        .step(run("true").name(&"é".repeat(500)))
        .play()
        .await;
    let names = story.names();
    assert_eq!(names[..3], ["Build abc", "Run true a", "Skip"]);
    assert_eq!(names[3], "é".repeat(127));
}

#[tokio::test]
async fn checkout_places_the_tree() {
    let story = job()
        .tree(&[("src/a.txt", "hello"), (".git/HEAD", "ref")])
        .uses("actions/checkout@v4", &[("path", "copy")])
        .run("cat copy/src/a.txt copy/.git/HEAD; touch stale")
        .uses("actions/checkout@v4", &[])
        .run("cat src/a.txt; ls")
        .play()
        .await;
    assert_eq!(story.output(), "helloref\nhellosrc");
    let notice = "native checkout (for actions/checkout@v4): local working tree";
    assert!(story.log().contains(notice), "{}", story.log());
}

#[tokio::test]
async fn checkout_says_what_it_cannot_do() {
    let without_node = || job().env("PATH", "/nowhere");
    let story = without_node().uses("actions/checkout@v4", &[("lfs", "true")]).play().await;
    assert!(story.log().contains("The input lfs of a checkout is not supported"));
    assert!(story.log().contains("no node to run the original"), "{}", story.log());
    let story =
        job().tree(&[("a", "")]).uses("actions/checkout@v4", &[("ref", "elsewhere")]).play().await;
    assert!(story.log().contains("cannot check out elsewhere"));
}

#[tokio::test]
async fn a_job_without_a_local_tree_gets_one_from_its_host() {
    let story = job()
        .run("touch stale")
        .uses("actions/checkout@v4", &[])
        .run("cat wish; ls")
        .tree(&[])
        .uses("actions/checkout@v4", &[("repository", "other/thing"), ("path", "there")])
        .run("cat there/wish; ls \"$RUNNER_TEMP\" | grep tree_ | wc -l")
        .play()
        .await;
    let expected = "owner/repo refs/heads/main abc 1 None\nwish\nother/thing  none 1 None\n0";
    assert_eq!(story.output(), expected, "{}", story.log());
    assert!(story.log().contains("The commit is abc"), "{}", story.log());
}

#[tokio::test]
async fn a_job_that_cannot_be_set_up_fails_with_its_cause() {
    let story = job().env("A", "${{ nothing.here }}").run("echo no").play().await;
    assert_eq!(story.result, JobResult::Failure);
    assert!(story.log().starts_with("##[error]Env: A: the context \"nothing\""), "{}", story.log());
    assert_eq!(story.outcomes(), [(Skipped, Skipped)]);
}

#[tokio::test]
async fn the_default_shell_follows_the_dialect() {
    for (dialect, failed) in [(Dialect::Github, false), (Dialect::Forgejo, true)] {
        let story = job().dialect(dialect).run("false | true").play().await;
        // Only where there is a bash, which has pipefail; sh has none in either dialect.
        if story.program("bash").is_empty() {
            continue;
        }
        assert_eq!(story.result == JobResult::Failure, failed, "{dialect:?}");
    }
}

#[tokio::test]
async fn the_event_is_a_file_and_temporary_files_go() {
    let story = job()
        .run("cat \"$GITHUB_EVENT_PATH\"; echo; touch \"$RUNNER_TEMP/x\"; test -d \"$RUNNER_TOOL_CACHE\"")
        .play()
        .await;
    assert_eq!(story.output(), "{\n  \"number\": 7\n}");
    assert_eq!(story.result, JobResult::Success);
    assert!(!story.path("work/_temp").exists());
}

#[tokio::test]
async fn steps_run_as_another_user_when_root_may_do_so() {
    let job = job()
        .tree(&[("a.txt", "hello")])
        .run_as("nobody")
        .uses("actions/checkout@v4", &[])
        .run("id -un; cat a.txt; echo x > made; echo A=1 >> $GITHUB_ENV; echo $HOME > \"$RUNNER_TEMP/h\"")
        .run("echo $A$USER; ls -ln made a.txt | awk '{print $3}' | uniq");
    let story = job.play().await;
    if nix::unistd::geteuid().is_root() {
        let uid = std::fs::metadata(story.path("work/repo/repo/made")).unwrap().uid();
        assert_ne!(uid, 0);
        assert_eq!(story.output(), format!("nobody\nhello\n1nobody\n{uid}"), "{}", story.log());
    } else {
        assert!(story.log().contains("only root can become another user"), "{}", story.log());
    }
}

/// The engine can run as a task of any runtime.
#[test]
fn the_engine_can_move_between_threads() {
    fn assert_send<T: Send>(_: fn() -> T) {}
    assert_send(|| {
        let (sender, _) = tokio::sync::mpsc::channel(1);
        let cancel = tokio_util::sync::CancellationToken::new();
        let system = std::sync::Arc::new(crate::system::Local::new());
        let host = std::sync::Arc::new(crate::host::NoHost);
        super::run(job().into_document(), system, host, sender, cancel)
    });
}
