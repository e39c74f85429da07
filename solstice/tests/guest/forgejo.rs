//! Workflows that are pushed to a simulated Forgejo and run in real guests. What is asserted is what
//! a user sees on the instance's pages.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use queue::seal::KeyRing;
use simulators::Installation;
use simulators::forgejo::{Forge, JobView, Profile, RunId, RunView, Scope, Status};

use crate::harness::{Story, empty};

/// How long a run of several machines may take.
pub(crate) const RUN: Duration = Duration::from_secs(300);
const REPOSITORY: &str = "team/project";

/// Every part of a page: lines, folds, environment, secrets, outputs, a matrix, failures, skips.
const WHOLE: &str = r#"name: whole
on: push
env: { COLOUR: green }
jobs:
  build:
    runs-on: omnios-like
    outputs:
      path: ${{ steps.make.outputs.path }}
    steps:
      - name: Say
        run: |
          echo "$COLOUR $FORGEJO_REPOSITORY $GITHUB_EVENT_NAME ${{ vars.REGION }}"
          echo "the key is ${{ secrets.KEY }}"
          echo "::group::Inside"
          echo folded
          echo "::endgroup::"
          echo "server $FORGEJO_SERVER_URL"
      - name: Make
        id: make
        run: echo "path=a/b" >> "$FORGEJO_OUTPUT"
      - name: Not needed
        if: failure()
        run: echo never
  legs:
    needs: build
    runs-on: omnios-like
    strategy: { matrix: { leg: [1, 2, 3] } }
    steps:
      - name: Leg
        run: echo "leg ${{ matrix.leg }} of ${{ needs.build.outputs.path }}"
  broken:
    runs-on: omnios-like
    steps:
      - name: Breaks
        run: exit 3
      - name: After
        run: echo never
      - name: Always
        if: always()
        run: echo "status ${{ job.status }}"
  after:
    needs: broken
    runs-on: omnios-like
    steps: [{ run: echo never }]
  skipped:
    runs-on: omnios-like
    if: github.ref_name == 'elsewhere'
    steps: [{ name: Nothing, run: echo never }]
"#;

pub(crate) fn connected(forge: &Forge) -> Story {
    let identity = forge.create_runner("solstice", Scope::Global);
    let story = empty().file("forge.token", &identity.token);
    let token = story.repository().join("forge.token");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    story
        .env("SOLSTICE_FORGEJO_MAIN_URL", &forge.url())
        .env("SOLSTICE_FORGEJO_MAIN_UUID", &identity.uuid)
        .env("SOLSTICE_FORGEJO_MAIN_TOKEN_FILE", token.to_str().unwrap())
        .env("SOLSTICE_FORGEJO_MAIN_LABELS", "omnios-like:vm://tiny")
        .env("SOLSTICE_FORGEJO_MAIN_FETCH_INTERVAL", "200ms")
}

/// What a step printed, after the fold with its script.
pub(crate) fn printed<'a>(job: &'a JobView, step: &str) -> Vec<&'a str> {
    let mut lines = job.step(step).lines();
    // Solstice itself says so where one was killed.
    lines.retain(|line| !line.starts_with("The orchestrator was restarted"));
    let begin = lines.iter().position(|line| *line == "##[endgroup]").map_or(0, |at| at + 1);
    lines.split_off(begin)
}

fn is_shown(forge: &Forge, run: RunId, line: &str) -> bool {
    let view: RunView = forge.view(run);
    view.jobs.iter().any(|job| job.log().contains(&line))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_what_happened_in_the_guests() {
    let forge = instance().await;
    let story = connected(&forge);
    let service = story.serve();
    let run = forge.push_workflow(REPOSITORY, "whole.yml", WHOLE);
    assert_whole(&forge.wait_for_run(run, RUN).await, &forge);
    forge.assert_no_violations();
    service.stop();
    drop(story);
}

/// The same through a broker and a database, by processes of their own that are killed in turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_what_happened_whoever_is_killed_meanwhile() {
    let forge = instance().await;
    let installation = Installation::of_all().await.unwrap();
    KeyRing::load_or_create(&installation.key_file()).unwrap();
    let settings = installation.environment();
    let story =
        settings.iter().fold(connected(&forge), |story, (name, value)| story.env(name, value));
    let mut orchestrator = story.orchestrator();
    let mut runner = story.part("forgejo-runner");
    let run = forge.push_workflow(REPOSITORY, "whole.yml", WHOLE);
    // While a machine boots, within a step, and among the legs of the matrix.
    for (line, victim) in
        [("boot ... ", "runner"), ("folded", "orchestrator"), ("leg 1 of a/b", "runner")]
    {
        forge.wait_until(RUN, |forge| begins(forge, run, line)).await;
        if victim == "runner" {
            runner.kill();
            runner = story.part("forgejo-runner");
        } else {
            orchestrator.kill();
            orchestrator = story.orchestrator();
        }
    }
    assert_whole(&forge.wait_for_run(run, RUN).await, &forge);
    forge.assert_no_violations_but_of_crashes();
    runner.stop();
    orchestrator.stop();
    drop(story);
}

/// An instance with what the workflow asks for.
async fn instance() -> Forge {
    let forge = Forge::start(Profile::V15).await;
    forge.set_secret(REPOSITORY, "KEY", "canary-8472");
    forge.set_var(REPOSITORY, "REGION", "north");
    forge
}

/// Whether a line on a page begins so.
fn begins(forge: &Forge, run: RunId, text: &str) -> bool {
    let view: RunView = forge.view(run);
    view.jobs.iter().any(|job| job.log().iter().any(|line| line.starts_with(text)))
}

/// What the pages of the whole workflow say.
fn assert_whole(view: &RunView, forge: &Forge) {
    let build = view.job("build");
    let server = format!("server {}", forge.url());
    let said = [
        "green team/project push north",
        "the key is ***",
        "##[group]Inside",
        "folded",
        "##[endgroup]",
        &server,
    ];
    assert_eq!(printed(build, "Say"), said, "{view}");
    assert_eq!(build.outputs["path"], "a/b");
    assert_eq!(build.step("Not needed").status, Status::Skipped);
    assert_eq!(build.status, Status::Success);
    for leg in 1..=3 {
        let job = view.job(&format!("legs ({leg})"));
        assert_eq!(printed(job, "Leg"), [format!("leg {leg} of a/b")], "{view}");
    }
    let broken = view.job("broken");
    assert_eq!(broken.step("Breaks").status, Status::Failure);
    assert_eq!(broken.step("After").status, Status::Skipped);
    assert_eq!(printed(broken, "Always"), ["status failure"], "{view}");
    assert_eq!(broken.status, Status::Failure);
    assert_eq!(view.job("after").status, Status::Skipped);
    let skipped = view.job("skipped");
    assert_eq!(
        (skipped.status, skipped.step("Nothing").status),
        (Status::Skipped, Status::Skipped)
    );
    let set_up = skipped.log().join("\n");
    assert!(!set_up.contains("boot"), "no machine for a job that is skipped: {set_up}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_on_the_page_ends_the_step_in_the_guest() {
    let forge = Forge::start(Profile::V11).await;
    let story = connected(&forge);
    let service = story.serve();
    let text = "on: push\njobs:\n  job:\n    runs-on: omnios-like\n    steps:\n      - name: Long\n        run: \
                'echo begun; sleep 1000'\n      - name: Last\n        if: always()\n        run: echo cleaning\n";
    let run = forge.push_workflow(REPOSITORY, "ci.yml", text);
    forge.wait_until(RUN, |forge| is_shown(forge, run, "begun")).await;
    // What the service was killed by is nobody's cancel.
    service.kill();
    let service = story.serve();
    forge.cancel(run);
    forge.wait_until(RUN, |forge| is_shown(forge, run, "cleaning")).await;
    forge.wait_until(RUN, |forge| forge.view(run).job("job").log_closed).await;
    assert_eq!(forge.view(run).status, Status::Cancelled);
    service.stop();
    forge.assert_no_violations_but_of_crashes();
    drop(story);
}
