//! `solstice check`.

use crate::place::{place, workflow};

/// A workflow with three things that are wrong and two that are odd.
const WRONG: &str = "\
on: push
jobs:
  a:
    runs-on: tiny
    stpes: []
    steps:
      - run: echo ${{ secret.A }}
      - { run: a, uses: b }
  b:
    runs-on: ubuntu-latest
    needs: c
    container: debian
    steps: [{ run: echo }]
";

#[test]
fn every_finding_is_shown_in_the_order_of_the_lines() {
    let done = workflow(WRONG).solstice(&["check"]);
    assert_eq!((done.code, done.stdout.as_str(), done.created), (64, "", false));
    let lines: Vec<&str> = done
        .stderr
        .lines()
        .filter(|line| line.starts_with("error") || line.starts_with("warning"))
        .collect();
    assert_eq!(
        lines,
        [
            "warning: .github/workflows/ci.yml:5:5: \"stpes\" is not a key of a job; it is ignored",
            "error: .github/workflows/ci.yml:7:23: there is no context \"secret\"",
            "error: .github/workflows/ci.yml:8:25: a step has either `run` or `uses`, this one has \
             both",
        ]
    );
    assert!(done.stderr.contains("\n  7 |       - run: echo ${{ secret.A }}\n    |"));
    assert!(done.stderr.ends_with("\n1 workflow: 2 errors, 1 warning\n"), "{}", done.stderr);
}

#[test]
fn labels_features_and_cycles() {
    let text = "\
on: push
jobs:
  a: { uses: own/name/.github/workflows/ci.yml@v1 }
  b: { runs-on: ubuntu-latest, container: debian, steps: [{ uses: docker/login-action@v3 }] }
  c: { runs-on: tiny, container: debian, steps: [{ uses: docker://alpine:3 }, { uses: own/name }] }
";
    let done = workflow(text).solstice(&["check", "--json"]);
    assert_eq!((done.code, done.created), (64, false));
    let findings: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let shown: Vec<String> = findings
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            format!("{} {} {}", finding["line"], finding["severity"], finding["message"])
        })
        .collect();
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert!(shown[0].starts_with("3 \"error\" \"job \\\"a\\\" calls a workflow of"), "{shown:?}");
    assert!(shown[1].starts_with("4 \"warning\" \"no image has the label"), "{shown:?}");
    assert!(
        shown[2].starts_with("5 \"warning\" \"the action own/name has no version"),
        "{shown:?}"
    );

    let text = "on: push\njobs:\n  a: { needs: b, runs-on: tiny, steps: [{ run: x }] }\n  b: { needs: \
                a, runs-on: tiny, steps: [{ run: x }] }\n";
    let done = workflow(text).solstice(&["check"]);
    assert!(done.stderr.contains("these jobs wait for each other"), "{}", done.stderr);
}

#[test]
fn strict_refuses_what_the_forge_would() {
    let text =
        "on: push\njobs:\n  a:\n    runs-on: tiny\n    extra: 1\n    steps: [{ run: echo }]\n";
    let good = text.replace("    extra: 1\n", "");
    let place = workflow(text).file(".forgejo/workflows/ok.yml", &good);
    assert_eq!(place.solstice(&["check"]).code, 0);
    let strict = place.solstice(&["check", "--strict"]);
    assert_eq!(strict.code, 64);
    assert!(strict.stderr.contains("error: .github/workflows/ci.yml:5:5"), "{}", strict.stderr);
    assert!(strict.stderr.ends_with("2 workflows: 1 error, 0 warnings\n"), "{}", strict.stderr);
    assert_eq!(place.solstice(&["check", "--strict", "ok.yml"]).code, 0);
}

#[test]
fn a_context_in_a_wrong_place() {
    let text = "on: push\nenv: { A: '${{ steps.x.outputs.y }}' }\njobs:\n  a:\n    runs-on: tiny\n    \
                if: env.A\n    steps: [{ run: 'echo ${{ success() }}' }]\n";
    let done = workflow(text).solstice(&["check"]);
    assert_eq!(done.code, 64);
    for (place, finding) in [
        ("2:16", "the context \"steps\" does not exist here"),
        ("6:9", "the context \"env\" does not exist here"),
        ("7:30", "the function success does not exist here"),
    ] {
        let start = format!("error: .github/workflows/ci.yml:{place}: {finding}\n");
        assert!(done.stderr.contains(&start), "{start}{}", done.stderr);
    }
}

#[test]
fn nothing_to_check() {
    place().refuses(
        &["check"],
        "error: there is no workflow file in .forgejo/workflows, .gitea/workflows, \
         .github/workflows, and no .solstice/workflow.kdl\nhint: name one: solstice check WORKFLOW\n",
    );
}

#[test]
fn an_entered_file_that_is_not_there() {
    let text =
        "on: push\njobs:\n  a:\n    runs-on: tiny\n    steps: [{ uses: solstice/workflow@v1 }]\n";
    let place = workflow(text);
    let done = place.solstice(&["check"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let finding = "warning: .github/workflows/ci.yml:3:3: job \"a\" runs .solstice/workflow.kdl, which \
                   does not exist\n";
    assert!(done.stderr.starts_with(finding), "{}", done.stderr);
    let kdl = "job \"b\" {\n    runs-on \"tiny\"\n    step \"echo\"\n}\n";
    let done = place.file(".solstice/workflow.kdl", kdl).solstice(&["check"]);
    assert!(done.stderr.ends_with("2 workflows: 0 errors, 0 warnings\n"), "{}", done.stderr);
}
