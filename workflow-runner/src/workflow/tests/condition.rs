//! Whether a job runs, by the results of those before it.

use std::collections::BTreeMap;

use common::event::Conclusion::{Cancelled, Failure, Skipped, Success};
use common::event::JobResult;
use common::plan::Dialect;

use super::contexts;
use crate::workflow::{Workflow, job_condition, parse_for};

/// A chain in which `c` needs `b` and `b` needs `a`; whether `c` runs.
fn runs(condition: &str, a: JobResult, b: JobResult, dialect: Dialect) -> bool {
    runs_in(condition, a, b, false, dialect)
}

fn runs_in(condition: &str, a: JobResult, b: JobResult, cancelled: bool, dialect: Dialect) -> bool {
    let line = if condition.is_empty() { String::new() } else { format!("if: \"{condition}\", ") };
    let text = format!(
        "on: push
jobs:
  a: {{runs-on: t, steps: [run: x]}}
  b: {{needs: a, runs-on: t, steps: [run: x]}}
  c: {{needs: [b], {line}runs-on: t, steps: [run: x]}}
"
    );
    let workflow = parse_for(&text, "ci.yml", dialect).expect("it is a workflow").workflow;
    let results = BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
    let job = workflow.job("c").expect("it is there");
    job_condition(&workflow, job, &contexts(), &BTreeMap::new(), &results, cancelled, dialect)
        .unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn github_looks_at_the_whole_chain() {
    for (condition, a, b, expected) in [
        ("", Success, Success, true),
        ("", Success, Failure, false),
        ("", Failure, Success, false),
        ("", Skipped, Success, false),
        ("", Cancelled, Success, false),
        ("failure()", Failure, Skipped, true),
        ("failure()", Failure, Success, true),
        ("failure()", Skipped, Skipped, false),
        ("failure()", Cancelled, Cancelled, false),
        ("always()", Failure, Skipped, true),
        ("!cancelled()", Skipped, Skipped, true),
        ("!failure()", Skipped, Skipped, true),
        ("success() || failure()", Success, Skipped, false),
        ("github.ref_name == 'main'", Success, Success, true),
        ("github.ref_name == 'main'", Failure, Skipped, false),
        ("github.ref_name == 'other'", Success, Success, false),
        ("${{ always() && needs.list.result == 'success' }}", Failure, Skipped, true),
    ] {
        let found = runs(condition, a, b, Dialect::Github);
        assert_eq!(found, expected, "{condition:?} after {a:?}, {b:?}");
    }
}

#[test]
fn forgejo_looks_at_the_jobs_that_are_needed() {
    for (condition, a, b, expected) in [
        ("", Failure, Success, true),
        ("", Success, Skipped, false),
        ("failure()", Failure, Success, false),
        ("failure()", Success, Failure, true),
        ("always()", Success, Failure, true),
        ("forgejo.ref_name == 'main' && gitea.ref_name == 'main'", Success, Success, true),
    ] {
        let found = runs(condition, a, b, Dialect::Forgejo);
        assert_eq!(found, expected, "{condition:?} after {a:?}, {b:?}");
    }
}

#[test]
fn a_cancelled_run_starts_only_what_asks_for_it() {
    for (condition, expected) in
        [("", false), ("always()", true), ("cancelled()", true), ("failure()", false)]
    {
        let found = runs_in(condition, Success, Success, true, Dialect::Github);
        assert_eq!(found, expected, "{condition:?}");
    }
}

/// A workflow that GitHub would refuse: its conditions use what does not exist there.
fn forgejo(text: &str) -> Workflow {
    parse_for(text, "ci.yml", Dialect::Forgejo).expect("it is a workflow").workflow
}

#[test]
fn a_context_that_a_condition_does_not_see_is_an_error_with_its_place() {
    let text = "on: push
jobs:
  a:
    if: matrix.x == 1
    runs-on: t
    steps: [run: x]
";
    let workflow = forgejo(text);
    let job = &workflow.jobs[0];
    let (secrets, results) = (BTreeMap::new(), BTreeMap::new());
    let ask = |dialect| {
        job_condition(&workflow, job, &contexts(), &secrets, &results, false, dialect)
            .map_err(|error| error.to_string())
    };
    let shown = ask(Dialect::Github).expect_err("no matrix here");
    assert!(shown.starts_with("ci.yml:4:9: the `if` of job \"a\": "), "{shown}");
    assert_eq!(ask(Dialect::Forgejo), Ok(false));
}

#[test]
fn forgejo_gives_a_condition_the_env_of_the_workflow() {
    let text = "on: push
env: {X: '${{ github.ref_name }}'}
jobs:
  a: {if: env.X == 'main', runs-on: t, steps: [run: x]}
";
    let workflow = forgejo(text);
    let job = &workflow.jobs[0];
    let (secrets, results) = (BTreeMap::new(), BTreeMap::new());
    let dialect = Dialect::Forgejo;
    let ran = job_condition(&workflow, job, &contexts(), &secrets, &results, false, dialect);
    assert_eq!(ran, Ok(true));
}
