//! What works every day.

use nix::sys::signal::Signal;

use crate::harness::{steps, workflow};

#[test]
fn steps_run_and_their_lines_are_seen() {
    steps(
        r#"
- name: Speak
  run: |
    echo "hello from $(uname -s)"
    echo "to the other stream" >&2
- run: echo second
"#,
    )
    .run()
    .code(0)
    .shows_in_order(&["Speak", "hello from Linux", "to the other stream", "second"]);
}

#[test]
fn a_failing_step_fails_the_job_and_the_command() {
    steps(
        r#"
- run: exit 3
- run: echo not reached
- if: failure()
  run: echo "clean-up ran"
- if: always()
  run: echo "so did this"
"#,
    )
    .run()
    .code(1)
    .shows("exit code 3")
    .hides("not reached\n")
    .shows_in_order(&["clean-up ran", "so did this"]);
}

#[test]
fn outputs_environment_and_conditions_pass_between_steps() {
    steps(
        r#"
- id: first
  env: { WHO: world }
  run: |
    echo "greeting=hello $WHO" >> "$GITHUB_OUTPUT"
    echo "LATER=from a file" >> "$GITHUB_ENV"
    mkdir -p "$RUNNER_TEMP/bin" && printf '#!/bin/sh\necho own tool\n' > "$RUNNER_TEMP/bin/tool"
    chmod +x "$RUNNER_TEMP/bin/tool" && echo "$RUNNER_TEMP/bin" >> "$GITHUB_PATH"
- run: |
    echo "${{ steps.first.outputs.greeting }}, $LATER"
    tool
- if: steps.first.outputs.greeting == 'HELLO world'
  run: echo "compared without case"
- if: github.event_name == 'pull_request'
  run: echo "wrong event"
- continue-on-error: true
  run: exit 1
- run: 'echo "outcome of nothing: ${{ job.status }}"'
"#,
    )
    .run()
    .code(0)
    .shows_in_order(&["hello world, from a file", "own tool", "compared without case"])
    .shows("outcome of nothing: success")
    .hides("wrong event\n");
}

#[test]
fn a_secret_is_never_seen() {
    steps(
        r#"
- env: { TOKEN: "${{ secrets.TOKEN }}" }
  run: |
    echo "the token is $TOKEN"
    echo "$TOKEN" | sed 's/./& /g' | head -c 5; echo
    value="late-"; value="${value}value"
    echo "::add-mask::$value"
    echo "a $value here"
    echo "a $value there" >&2
"#,
    )
    .with(&["--secret", "TOKEN"])
    .env("TOKEN", "correct-horse")
    .run()
    .code(0)
    .shows("the token is ***")
    .shows("a *** here")
    .shows("a *** there")
    .hides("correct-horse")
    .hides("late-value");
}

#[test]
fn jobs_follow_their_needs_and_pass_outputs() {
    workflow(
        r#"
on: push
jobs:
  last:
    needs: [build]
    runs-on: tiny
    steps:
      - run: echo "got ${{ needs.build.outputs.version }}"
  build:
    runs-on: tiny
    strategy: { matrix: { n: [1, 2] } }
    outputs:
      version: ${{ steps.v.outputs.version }}
    steps:
      - id: v
        run: |
          echo "leg ${{ matrix.n }}"
          echo "version=4.2" >> "$GITHUB_OUTPUT"
  skipped:
    if: ${{ false }}
    runs-on: tiny
    steps: [{ run: echo never }]
"#,
    )
    .run()
    .code(0)
    .shows("leg 1")
    .shows("leg 2")
    .shows("got 4.2")
    .hides("never\n");
}

#[test]
fn checkout_places_the_uncommitted_tree() {
    steps(
        r#"
- uses: actions/checkout@v4
- run: |
    cat tracked untracked
    test ! -e ignored && test -d .git && echo "as git sees it"
"#,
    )
    .file("tracked", "old\n")
    .file(".gitignore", "ignored\n")
    .committed()
    .file("tracked", "changed\n")
    .file("untracked", "new\n")
    .file("ignored", "secret\n")
    .run()
    .code(0)
    .shows_in_order(&["changed", "new", "as git sees it"]);
}

#[test]
fn ctrl_c_cancels_and_a_second_one_destroys() {
    let mut live = steps(
        r#"
- run: |
    trap 'echo interrupted; exit 1' INT TERM
    echo start''ed
    while :; do sleep 1; done
- if: cancelled()
  run: echo "cancelled() ran"
- if: success()
  run: echo "success() ran"
"#,
    )
    .start();
    live.wait_for("started\n").signal(Signal::SIGINT).wait_for("cancelled() ran\n");
    live.end().code(130).shows("interrupted\n").hides("success() ran\n");

    // A step that asks for it goes on for five minutes after a cancel, longer than a test waits, and
    // the next one runs then: only a machine that is destroyed ends here.
    let mut live = steps(
        r#"
- if: always()
  run: echo stub''born; sleep 1000
- if: always()
  run: echo "always() ran"
"#,
    )
    .start();
    live.wait_for("stubborn\n").signal(Signal::SIGINT).wait_for("cancelling; another Ctrl-C");
    live.signal(Signal::SIGINT);
    live.end().code(130).hides("always() ran\n");
}

#[test]
fn json_is_one_event_a_line_and_a_summary() {
    let ended = steps("- run: echo hello").with(&["--json"]).run().code(0);
    let lines = ended.json();
    let (summary, events) = lines.split_last().unwrap();
    assert_eq!(summary["summary"]["result"], "success", "{summary}");
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], index as u64 + 1, "{event}");
        assert_eq!(event["try"], 1);
    }
    assert!(events.last().unwrap()["event"]["finished"].is_object());
    assert!(ended.text.contains(r#""text":"hello""#));
}

#[test]
fn limits_of_time_end_a_step_and_a_job() {
    steps("- timeout-minutes: 0.02\n  run: sleep 100").run().code(1).shows("timed out");
    // The guest ends the job by its rules, long before the host would destroy the machine.
    steps("- run: echo begun; sleep 1000")
        .with(&["--timeout", "5s"])
        .run()
        .code(1)
        .shows_in_order(&["begun\n", "maximum execution time"])
        .hides("SOL-DEADLINE");
}

#[test]
fn debian_has_what_people_expect() {
    workflow(
        r#"
on: push
jobs:
  job:
    runs-on: debian-12
    steps:
      - uses: actions/checkout@v4
      - shell: python
        run: |
          import platform
          print("python on", platform.system())
      - run: |
          git log -1 --format='the last commit is %s'
          false | true && echo "unset shell: no pipefail"
      - shell: bash
        run: |
          [[ -o pipefail ]] && echo "shell bash: pipefail"
          systemctl is-system-running --wait || true
"#,
    )
    .file("a", "1")
    .committed()
    .run()
    .code(0)
    .shows_in_order(&[
        "python on Linux",
        "the last commit is one",
        "unset shell: no pipefail",
        "shell bash: pipefail",
    ]);
}
