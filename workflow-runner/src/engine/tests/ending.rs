//! How steps and jobs end: limits, cancels, and what is left behind.

use std::time::{Duration, Instant};

use common::event::{Conclusion, JobResult};
use common::guest::GuestEvent;
use common::plan::Dialect;
use tokio_util::sync::CancellationToken;

use super::story::{Story, job, run};

use Conclusion::{Cancelled, Failure, Skipped, Success};

/// Cancels as soon as a line is in the log.
fn when_logged(line: &str) -> impl FnMut(&GuestEvent, &CancellationToken) {
    move |event, cancel| {
        if let GuestEvent::Log(batch) = event
            && batch.lines.iter().any(|logged| logged.text.to_text() == line)
        {
            cancel.cancel();
        }
    }
}

#[tokio::test]
async fn a_cancel_ends_the_step_and_runs_what_asks_for_it() {
    // A process that obeys ends at the first signal of the ladder, also when that comes before its
    // sleep does.
    let traps = "trap 'echo interrupted; exit 1' INT; trap 'echo terminated; exit 1' TERM";
    let story = job()
        .run(&format!("{traps}; echo ready; while :; do sleep 0.1; done"))
        .run("echo no")
        .step(run("echo always").when("always()"))
        .step(run("echo cancelled ${{ job.status }}").when("cancelled()"))
        .step(run("echo failure").when("failure()"))
        .play_with(when_logged("ready"))
        .await;
    assert_eq!(story.result, JobResult::Cancelled);
    assert_eq!(story.output(), "ready\ninterrupted\nalways\ncancelled cancelled");
    let expected = [Cancelled, Skipped, Success, Success, Skipped];
    assert_eq!(story.outcomes(), expected.map(|outcome| (outcome, outcome)));
    assert!(story.log().contains("##[error]The operation was canceled."));
}

#[tokio::test]
async fn a_step_that_asks_for_cancelled_jobs_survives_on_github() {
    let step = || run("echo ready; sleep 0.3; echo done").when("always()");
    let story = job().step(step()).play_with(when_logged("ready")).await;
    assert_eq!(story.result, JobResult::Cancelled);
    let story = job().step(step()).run("echo no").play_with(when_logged("ready")).await;
    assert_eq!(story.output(), "ready\ndone");
    assert_eq!(story.outcomes(), [(Success, Success), (Skipped, Skipped)]);
    assert_eq!(story.result, JobResult::Cancelled);
    let story = job().dialect(Dialect::Forgejo).step(step()).play_with(when_logged("ready")).await;
    assert_eq!(story.outcomes(), [(Cancelled, Cancelled)]);
}

#[tokio::test]
async fn the_state_after_failure_and_cancel_follows_the_dialect() {
    for (dialect, expected) in [(Dialect::Github, "cancelled"), (Dialect::Forgejo, "failure")] {
        let story = job()
            .dialect(dialect)
            .run("exit 1")
            .step(run("echo ready; sleep 600").when("failure()"))
            .step(run("echo failure").when("failure()"))
            .step(run("echo cancelled").when("cancelled()"))
            .play_with(when_logged("ready"))
            .await;
        assert_eq!(story.output(), format!("ready\n{expected}"), "{dialect:?}");
        assert_eq!(story.result, JobResult::Cancelled);
    }
}

#[tokio::test]
async fn a_step_that_takes_too_long_fails_and_the_job_goes_on() {
    let story = job()
        .step(run("echo begin; sleep 600").name("Slow").timeout_minutes("0.005"))
        .step(run("echo after").when("failure()"))
        .play()
        .await;
    assert_eq!(story.output(), "begin\nafter");
    assert_eq!(story.outcomes(), [(Failure, Failure), (Success, Success)]);
    let message = "##[error]The action 'Slow' has timed out after 0.005 minutes.";
    assert!(story.log().contains(message), "{}", story.log());
    assert_eq!(story.result, JobResult::Failure);
}

#[tokio::test]
async fn a_job_that_takes_too_long_is_cancelled() {
    let story = job()
        .timeout_minutes("${{ 0.005 }}")
        .run("sleep 600")
        .step(run("echo after").when("always()"))
        .play()
        .await;
    assert_eq!(story.output(), "after");
    assert_eq!(story.result, JobResult::Cancelled);
    assert!(story.log().contains("exceeded its maximum execution time of 0.005 minutes"));
}

#[tokio::test]
async fn a_limit_that_is_no_number_fails_the_step() {
    let story = job().step(run("echo no").timeout_minutes("soon")).play().await;
    assert_eq!(story.outcomes(), [(Failure, Failure)]);
    assert!(story.log().contains("\"soon\" is not a number of minutes"), "{}", story.log());
}

#[tokio::test]
async fn a_cancel_before_the_first_step_runs_what_asks_for_it() {
    let job = job().run("echo no").step(run("echo always").when("always()"));
    let mut first = true;
    // The first event is that of the skipped step at the earliest, so cancel before it.
    let story = job
        .play_with(move |_, cancel| {
            if std::mem::take(&mut first) {
                cancel.cancel();
            }
        })
        .await;
    assert_eq!(story.result, JobResult::Cancelled);
    assert!(story.output().ends_with("always"), "{}", story.output());
}

#[tokio::test]
async fn a_process_in_the_background_holds_up_no_step_and_ends_with_the_job() {
    let began = Instant::now();
    let story = job()
        .run("sleep 600 & echo $! > background; echo started")
        .run("kill -0 $(cat background) && echo alive")
        .play()
        .await;
    assert_eq!(story.output(), "started\nalive");
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_ended(&story).await;
}

#[tokio::test]
async fn a_process_in_the_background_may_go_on_printing() {
    let story = job()
        .run("(while :; do echo noise; sleep 0.05; done) & echo $! > background; echo started")
        .run("sleep 0.3; kill -0 $(cat background) && echo alive")
        .play()
        .await;
    assert!(story.output().ends_with("alive"), "{}", story.output());
    assert_ended(&story).await;
}

/// Waits until the process whose number is in the file `background` is gone.
async fn assert_ended(story: &Story) {
    let number = std::fs::read_to_string(story.path("work/repo/repo/background")).unwrap();
    let process = nix::unistd::Pid::from_raw(number.trim().parse().unwrap());
    let gone = async {
        while is_running(process) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let patience = Duration::from_secs(10);
    tokio::time::timeout(patience, gone).await.expect("the process is gone");
}

/// Whether a process lives; one that ended and that nobody has waited for does not.
fn is_running(process: nix::unistd::Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat"));
    status.is_ok_and(|status| !status.contains(") Z "))
}

#[tokio::test]
async fn a_line_arrives_while_the_step_runs() {
    let go = tempfile::tempdir().unwrap();
    let file = go.path().join("go");
    let script = format!("echo ready; while ! test -e {}; do sleep 0.01; done", file.display());
    // Only a line that comes before the step's end can let it end.
    let mut ready = when_logged("ready");
    let noticed = CancellationToken::new();
    let story = job()
        .run(&script)
        .play_with(|event, _| {
            ready(event, &noticed);
            if noticed.is_cancelled() {
                std::fs::write(&file, "").unwrap();
            }
        })
        .await;
    assert_eq!(story.result, JobResult::Success);
}

#[tokio::test]
async fn a_flood_loses_no_line_and_keeps_the_order() {
    let story = job()
        .step(run("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done").shell("sh"))
        .play()
        .await;
    let output = story.output();
    let numbers: Vec<u32> = output.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(0..20_000));
}

#[tokio::test]
async fn an_endless_line_is_cut_and_harms_nothing() {
    let story = job().run("head -c 10485760 /dev/zero | tr '\\0' x; echo; echo after").play().await;
    let output = story.output();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].ends_with(" more bytes of this line were cut]"));
    assert_eq!(lines[1], "after");
}

#[tokio::test]
async fn a_step_whose_output_nobody_reads_can_still_be_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let number = directory.path().join("number");
    let script = format!("echo $$ > {}; while :; do echo noise; done", number.display());
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let cancel = CancellationToken::new();
    let mut document = job().run(&script).into_document();
    document.work_directory = directory.path().to_str().unwrap().to_owned();
    let system = std::sync::Arc::new(crate::system::Local::new());
    let host = std::sync::Arc::new(crate::host::NoHost);
    let engine = tokio::spawn(crate::engine::run(document, system, host, sender, cancel.clone()));

    // Reading stops at the first output; from then on the channel is full.
    let noticed = CancellationToken::new();
    let mut noise = when_logged("noise");
    while !noticed.is_cancelled() {
        noise(&receiver.recv().await.unwrap(), &noticed);
    }
    cancel.cancel();
    let gone = async {
        loop {
            let number = std::fs::read_to_string(&number).unwrap_or_default();
            match number.trim().parse() {
                Ok(number) if !is_running(nix::unistd::Pid::from_raw(number)) => break,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the process is gone");
    assert!(!engine.is_finished());
    while receiver.recv().await.is_some() {}
    assert_eq!(engine.await.unwrap(), JobResult::Cancelled);
}
