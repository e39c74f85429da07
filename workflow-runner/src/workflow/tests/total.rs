//! No text, whatever it is, makes the decoder panic or run away.

use common::limits::WORKFLOW_BYTES;
use proptest::prelude::*;

use super::{parsed, scope};
use crate::workflow::{expand, labels, parse, secrets_used};

/// A workflow with something of everything.
const VALID: &str = r#"name: All
run-name: Run of ${{ github.actor }}
on:
  push: {branches: [main]}
  workflow_dispatch:
    inputs:
      level: {type: choice, options: [a, 'b'], default: a}
env: &env
  A: 1
  B: "x\ty ${{ github.sha }}"
defaults: {run: {shell: bash}}
permissions: read-all
concurrency: {group: '${{ github.ref }}', cancel-in-progress: true}
jobs:
  one:
    runs-on: [self-hosted, "${{ vars.LABEL }}"]
    env: *env
    strategy:
      fail-fast: false
      matrix:
        os: [tiny, debian-12]
        include: [{os: tiny, extra: true}]
        exclude:
          - os: debian-12
    outputs: {v: '${{ steps.s.outputs.v }}'}
    steps:
      - id: s
        run: |
          echo ${{ matrix.os }}
          echo >&2 "${{ secrets.TOKEN }}"
      - uses: actions/checkout@v4
        with: {fetch-depth: 0}
  two:
    needs: one
    if: ${{ always() && needs.one.result == 'success' }}
    timeout-minutes: 5
    runs-on: tiny
    steps:
      - name: >
          folded
          text
        if: failure()
        run: make
        continue-on-error: true
"#;

/// Uses all that was read, so that nothing lazy hides.
fn exercise(text: &str) {
    match parse(text, "f.yml") {
        Ok(parsed) => {
            for warning in &parsed.warnings {
                assert!(!warning.to_string().is_empty());
            }
            assert_eq!(parsed.workflow.order().len(), parsed.workflow.jobs.len());
            let _ = secrets_used(&parsed.workflow).len();
            for job in &parsed.workflow.jobs {
                for error in [expand(job, &scope()).err(), labels(job, &scope()).err()] {
                    assert!(error.is_none_or(|error| !error.to_string().is_empty()));
                }
            }
        }
        Err(error) => assert!(error.to_string().starts_with("f.yml")),
    }
}

#[test]
fn the_valid_workflow_is_one() {
    assert_eq!(parsed(VALID).warnings, []);
}

#[test]
fn every_prefix_of_a_workflow_is_read_or_refused() {
    for (end, _) in VALID.char_indices() {
        exercise(&VALID[..end]);
    }
}

#[test]
fn a_workflow_of_the_largest_size_is_read() {
    let mut text = String::from("on: push\njobs:\n  a:\n    runs-on: tiny\n    steps:\n");
    let line = "          echo ${{ github.sha }} ${{ secrets.TOKEN }} and then some more text\n";
    for _ in 0..500 {
        text.push_str("      - run: |\n");
        (0..25).for_each(|_| text.push_str(line));
    }
    assert!(text.len() as u64 > WORKFLOW_BYTES * 9 / 10 && text.len() as u64 <= WORKFLOW_BYTES);
    assert_eq!(parsed(&text).workflow.jobs[0].steps().len(), 500);
}

#[test]
fn many_secrets_in_one_line_are_found_in_time() {
    let uses: String = (0..20_000).map(|n| format!("${{{{ secrets.S{n} }}}}")).collect();
    let text =
        format!("on: push\nenv: {{A: '{uses}'}}\njobs: {{a: {{runs-on: t, steps: [run: x]}}}}\n");
    assert_eq!(secrets_used(&parsed(&text).workflow).len(), 20_000);
}

#[derive(Clone, Debug)]
enum Change {
    Remove(usize, usize),
    Insert(usize, String),
    Swap(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "\n",
            "  ",
            "- ",
            ": ",
            "{",
            "}",
            "[",
            "]",
            "'",
            "\"",
            "${{",
            "}}",
            "&a ",
            "*a",
            "*env",
            "|\n",
            ">-\n",
            "#",
            "\t",
            "~",
            "<<: *env\n",
            "!!str ",
            "---\n",
            "é",
            "\r\n",
            "if: ",
            "needs: two\n",
            "matrix",
            "null",
            "\\",
            "? ",
            "%",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    prop_oneof![
        (any::<usize>(), 0..40usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<usize>(), piece).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Change::Swap(a, b)),
    ]
}

fn changed(changes: &[Change]) -> String {
    let mut text: Vec<char> = VALID.chars().collect();
    for change in changes {
        let length = text.len().max(1);
        match change {
            Change::Remove(at, count) => {
                let at = at % length;
                let end = (at + count).min(text.len());
                text.drain(at.min(end)..end);
            }
            Change::Insert(at, piece) => {
                let at = (at % length).min(text.len());
                text.splice(at..at, piece.chars());
            }
            Change::Swap(a, b) if !text.is_empty() => text.swap(a % length, b % length),
            Change::Swap(..) => {}
        }
    }
    text.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_is_read_or_refused(text in any::<String>()) {
        exercise(&text);
    }

    #[test]
    fn arbitrary_yaml_is_read_or_refused(text in "[a-c:\\-\\[\\]{}&*'\"#|>!%@` \n\t?,~$]{0,80}") {
        exercise(&text);
        exercise(&format!("on: push\njobs:\n  a:\n    runs-on: t\n    steps:\n      - run: {text}\n"));
    }

    #[test]
    fn a_changed_workflow_is_read_or_refused(changes in prop::collection::vec(change(), 1..6)) {
        exercise(&changed(&changes));
    }
}
