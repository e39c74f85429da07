//! Jobs of a Forgejo instance: on one host by itself, and through processes of their own that are
//! killed in turn. What is asserted is what a user sees on the instance's pages.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;
use simulators::forgejo::{Forge, Profile, Rpc, RunView, Scope, Status};

use crate::harness::{Host, LOOK, PATIENCE, numbered};
use crate::shared::Shared;

const REPOSITORY: &str = "team/project";
const LINES: usize = 100;

/// A workflow with one job of these scripts.
fn workflow(scripts: &[&str]) -> String {
    let steps: String = scripts
        .iter()
        .zip(1..)
        .map(|(script, number)| format!("      - name: Step {number}\n        run: {script}\n"))
        .collect();
    format!("on: push\njobs:\n  job:\n    runs-on: vm\n    steps:\n{steps}")
}

/// A host with a connection to the forge.
fn connected(host: Host, forge: &Forge) -> Host {
    let identity = forge.create_runner("solstice", Scope::Global);
    let token = host.state().with_file_name("forge.token");
    fs::write(&token, &identity.token).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    host.env("SOLSTICE_FORGEJO_MAIN_URL", &forge.url())
        .env("SOLSTICE_FORGEJO_MAIN_UUID", &identity.uuid)
        .env("SOLSTICE_FORGEJO_MAIN_TOKEN_FILE", token.to_str().unwrap())
        .env("SOLSTICE_FORGEJO_MAIN_LABELS", "vm:vm://scripted")
        .env("SOLSTICE_FORGEJO_MAIN_FETCH_INTERVAL", "100ms")
        .env("SOLSTICE_FORGEJO_REPORT_INTERVAL", "200ms")
}

/// What a step printed itself, after the fold with its script.
fn printed<'a>(view: &'a RunView, step: &str) -> Vec<&'a str> {
    let lines = view.job("job").step(step).lines();
    let begin = lines.iter().position(|line| *line == "##[endgroup]").map_or(0, |at| at + 1);
    lines[begin..].to_vec()
}

/// What holds for a job that printed its lines whatever was killed meanwhile.
fn assert_whole(view: &RunView, forge: &Forge) {
    assert_eq!(view.status, Status::Success, "{view}");
    // Solstice itself may have said there that a part was started again.
    let mut lines = printed(view, "Step 1");
    lines.retain(|line| line.starts_with("line "));
    assert_eq!(lines, numbered(LINES), "{view}");
    assert_eq!(printed(view, "Step 2"), ["after"], "{view}");
    forge.assert_no_violations_but_of_crashes();
}

fn long() -> String {
    workflow(&[&format!("lines {LINES} 20"), "echo after"])
}

/// How many lines of the first step are shown.
fn shown(forge: &Forge, run: simulators::forgejo::RunId) -> usize {
    let view = forge.view(run);
    let steps = view.jobs.first().map(|job| job.steps.clone()).unwrap_or_default();
    steps.iter().find(|step| step.title == "Step 1").map_or(0, |step| step.rows.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_by_itself_runs_the_jobs_of_an_instance() {
    let forge = Forge::start(Profile::V15).await;
    forge.set_secret(REPOSITORY, "KEY", "canary-1234");
    let host = connected(Host::new(), &forge);
    let service = host.serve().await;
    let run = forge.push_workflow(
        REPOSITORY,
        "ci.yml",
        &workflow(&["echo the key is canary-1234", "exit 3", "echo never"]),
    );
    let view = forge.wait_for_run(run, PATIENCE).await;
    let job = view.job("job");
    assert_eq!(printed(&view, "Step 1"), ["the key is ***"], "{view}");
    assert_eq!((job.step("Step 2").status, job.status), (Status::Failure, Status::Failure));
    assert_eq!(job.step("Step 3").status, Status::Skipped, "{view}");
    let set_up = job.step("Set up job").lines().join("\n");
    for part in ["queue: ", "(on ", "scripted with 1 CPU", "boot: ", "Solstice "] {
        assert!(set_up.contains(part), "{set_up}");
    }
    let completion = job.step("Complete job").lines().join("\n");
    assert!(
        completion.contains("cleanup: ") && completion.contains("The job failed"),
        "{completion}"
    );

    // A cancel ends the step, and the machine with it.
    let run = forge.push_workflow(REPOSITORY, "ci.yml", &long());
    forge.wait_until(PATIENCE, |forge| shown(forge, run) > 0).await;
    forge.cancel(run);
    host.wait_until_empty().await;
    assert_eq!(forge.view(run).status, Status::Cancelled);
    forge.assert_no_violations();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_by_itself_that_is_killed_goes_on() {
    let forge = Forge::start(Profile::V15).await;
    let host = connected(Host::new(), &forge);
    let service = host.serve().await;
    let run = forge.push_workflow(REPOSITORY, "ci.yml", &long());
    let moment = simulators::dice().random_range(0..LINES);
    forge.wait_until(PATIENCE, |forge| shown(forge, run) >= moment).await;
    service.kill();
    let service = host.serve().await;
    assert_whole(&forge.wait_for_run(run, PATIENCE).await, &forge);
    service.stop().await;
}

/// `solstice forgejo-runner` on a host.
struct Daemon<'a> {
    host: &'a Host,
    child: Child,
}

impl<'a> Daemon<'a> {
    fn start(host: &'a Host) -> Self {
        let log = fs::OpenOptions::new().create(true).append(true).open(log(host)).unwrap();
        let mut command = host.command(&["forgejo-runner"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self { host, child: command.spawn().unwrap() }
    }

    /// Ends it by SIGKILL, and starts another.
    fn killed(mut self) -> Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        Self::start(self.host)
    }

    /// Tells it to end.
    fn tell(&self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
    }

    /// Ends it as a service manager does, and waits for it.
    async fn stop(mut self) {
        self.tell();
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(std::time::Instant::now() < deadline, "{}", said(self.host));
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn log(host: &Host) -> std::path::PathBuf {
    host.state().with_file_name("forgejo-runner.log")
}

fn said(host: &Host) -> String {
    fs::read_to_string(log(host)).unwrap_or_default()
}

/// The first half of a chain of jobs, whose output the second prints.
const CHAIN: &str = "on: push\njobs:\n  one:\n    runs-on: vm\n    outputs: { path: x }\n    steps:\n      - \
                     run: output path=a/b\n  two:\n    needs: one\n    runs-on: vm\n    steps:\n      - run: \
                     echo two\n";

#[tokio::test(flavor = "multi_thread")]
async fn processes_of_their_own_are_killed_in_turn() {
    let shared = Shared::of_all().await;
    let forge = Forge::start(Profile::V15).await;
    let machines = shared.host();
    let runners = connected(shared.host(), &forge);
    let mut service = machines.serve().await;
    let mut daemon = Daemon::start(&runners);
    for victim in ["runner", "orchestrator", "both"] {
        let run = forge.push_workflow(REPOSITORY, "ci.yml", &long());
        let moment = simulators::dice().random_range(0..LINES);
        forge.wait_until(PATIENCE, |forge| shown(forge, run) >= moment).await;
        if victim != "orchestrator" {
            daemon = daemon.killed();
        }
        if victim != "runner" {
            service.kill();
            service = machines.serve().await;
        }
        assert_whole(&forge.wait_for_run(run, PATIENCE).await, &forge);
    }
    let run = forge.push_workflow(REPOSITORY, "ci.yml", CHAIN);
    let view = forge.wait_for_run(run, PATIENCE).await;
    assert_eq!(view.status, Status::Success, "{view}");
    assert_eq!(view.job("one").outputs["path"], "a/b");
    daemon.stop().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_ends_waits_for_its_job() {
    let shared = Shared::of_all().await;
    let forge = Forge::start(Profile::V17).await;
    let machines = shared.host();
    let runners = connected(shared.host(), &forge);
    let service = machines.serve().await;
    let daemon = Daemon::start(&runners);
    let run = forge.push_workflow(REPOSITORY, "ci.yml", &long());
    forge.wait_until(PATIENCE, |forge| shown(forge, run) > 0).await;
    daemon.stop().await;
    assert_whole(&forge.view(run), &forge);
    let later = forge.push_workflow(REPOSITORY, "ci.yml", &long());
    assert_eq!(forge.view(later).job("job").status, Status::Waiting);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_told_twice_to_end_cancels_its_job_and_reports_that() {
    let shared = Shared::of_all().await;
    let forge = Forge::start(Profile::V15).await;
    let machines = shared.host();
    let runners = connected(shared.host(), &forge);
    let service = machines.serve().await;
    let daemon = Daemon::start(&runners);
    let text = workflow(&["echo begun", "sleep 600000"]);
    let run = forge.push_workflow(REPOSITORY, "ci.yml", &text);
    forge.wait_until(PATIENCE, |forge| shown(forge, run) > 0).await;
    daemon.tell();
    let deadline = std::time::Instant::now() + PATIENCE;
    while !said(&runners).contains("waiting for those in hand") {
        assert!(std::time::Instant::now() < deadline, "{}", said(&runners));
        tokio::time::sleep(LOOK).await;
    }
    assert_eq!(forge.view(run).job("job").status, Status::Running);
    daemon.stop().await;
    let view = forge.view(run);
    assert_eq!(view.job("job").status, Status::Cancelled, "{view}");
    assert!(view.job("job").log_closed, "{view}");
    forge.assert_no_violations();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_never_boots_is_named_and_no_failed_test() {
    let forge = Forge::start(Profile::V15).await;
    let host = connected(Host::new(), &forge);
    host.boots(Duration::ZERO, simulators::BootEnd::Panic);
    let service = host.serve().await;
    let run = forge.push_workflow(REPOSITORY, "ci.yml", &workflow(&["echo never"]));
    let view = forge.wait_for_run(run, PATIENCE).await;
    let log = view.job("job").log().join("\n");
    assert!(log.contains("SOL-GUEST-PANIC"), "{log}");
    assert!(log.contains("Try 3 on a fresh machine"), "{log}");
    assert!(log.contains("The infrastructure failed, not the job"), "{log}");
    assert_eq!(view.job("job").status, Status::Failure);
    forge.assert_no_violations();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_drains_finishes_its_job_and_fetches_no_other() {
    let forge = Forge::start(Profile::V15).await;
    let host = connected(Host::new(), &forge);
    let service = host.serve().await;
    let run = forge.push_workflow(REPOSITORY, "ci.yml", &long());
    forge.wait_until(PATIENCE, |forge| shown(forge, run) > 0).await;
    assert_eq!(host.solstice(&["drain"]).0, 0);
    let before = forge.calls_of(Rpc::FetchTask).len();
    let later = forge.push_workflow(REPOSITORY, "ci.yml", &workflow(&["echo later"]));
    assert_whole(&forge.wait_for_run(run, PATIENCE).await, &forge);
    assert_eq!(host.solstice(&["drain", "--wait"]).0, 0);
    // One question may have been on its way.
    let asked = forge.calls_of(Rpc::FetchTask).len() - before;
    assert!(asked <= 1, "asked {asked} times for jobs that cannot start");
    // What that brought waits here instead of there.
    let status = forge.view(later).job("job").status;
    assert!(matches!(status, Status::Waiting | Status::Running), "{status:?}");
    assert_eq!(shown(&forge, later), 0);
    assert_eq!(host.solstice(&["drain", "--off"]).0, 0);
    assert_eq!(forge.wait_for_run(later, PATIENCE).await.status, Status::Success);
    service.stop().await;
    forge.assert_no_violations();
}
