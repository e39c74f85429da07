//! Labels, names, strategies and plans.

use common::plan::{Dialect, StepAction, Value};
use serde_json::json;

use super::{contexts, job, one_job, scope, workflow};
use crate::workflow::{
    StrategyValues, Workflow, continues_on_error, display_name, expand, labels, parse_for, plan,
    secrets_used, secrets_used_by, strategy_values, timeout_minutes, uses_checkout,
};

/// A workflow that GitHub would refuse: it uses contexts where they do not exist there.
fn forgejo(text: &str) -> Workflow {
    parse_for(text, "ci.yml", Dialect::Forgejo).expect("it is a workflow").workflow
}

fn labels_of(runs_on: &str) -> Result<Vec<String>, String> {
    let job = workflow(&one_job(&format!("runs-on: {runs_on}"))).jobs.remove(0);
    labels(&job, &scope()).map_err(|error| error.to_string())
}

#[test]
fn runs_on_has_many_forms() {
    for (runs_on, expected) in [
        ("debian-12", &["debian-12"][..]),
        ("'${{ vars.LABEL }}'", &["debian-12"]),
        ("[self-hosted, '${{ vars.LABEL }}']", &["self-hosted", "debian-12"]),
        ("${{ fromJSON('[\"a\", \"b\"]') }}", &["a", "b"]),
        ("{group: big, labels: [a, b]}", &["a", "b", "big"]),
        ("{labels: a}", &["a"]),
        ("{group: big}", &["big"]),
        ("{labels: '${{ fromJSON(needs.list.outputs.names) }}'}", &["x", "y"]),
        ("${{ fromJSON('{\"labels\":\"a\",\"group\":\"g\"}') }}", &["a", "g"]),
        ("[a, '${{ vars.NONE }}']", &["a"]),
    ] {
        let found = labels_of(runs_on).unwrap_or_else(|error| panic!("{runs_on}: {error}"));
        assert_eq!(found, expected, "{runs_on}");
    }
}

#[test]
fn runs_on_that_gives_no_label_is_an_error_with_its_place() {
    let shown = labels_of("${{ vars.NONE }}").expect_err("no label");
    assert!(shown.starts_with("ci.yml:4:14: `runs-on` of job \"a\" is empty once"), "{shown}");
    let shown = labels_of("${{ fromJSON('[1]') }}").expect_err("a number");
    assert!(shown.contains("neither text nor a list of texts"), "{shown}");
    let job = forgejo(&one_job("runs-on: ${{ secrets.LABEL }}")).jobs.remove(0);
    let shown = labels(&job, &scope()).expect_err("no secrets here").to_string();
    assert!(shown.contains("secrets"), "{shown}");
}

#[test]
fn a_finding_about_runs_on_has_its_place() {
    let job = workflow(&one_job("runs-on: [self-hosted, linux]")).jobs.remove(0);
    let shown = job.about_runs_on("no image").to_string();
    assert!(shown.starts_with("ci.yml:4:14: no image\n"), "{shown}");
    assert!(shown.ends_with("\n    |              ^"), "{shown}");
}

#[test]
fn a_limit_of_time_is_evaluated_where_it_can_be() {
    for (lines, expected) in [
        ("", Some(None)),
        ("timeout-minutes: 5", Some(Some(5.0))),
        ("timeout-minutes: '${{ 0.5 }}'", Some(Some(0.5))),
        ("timeout-minutes: '${{ 0 }}'", Some(None)),
        ("timeout-minutes: '${{ vars.NONE && 1 }}'", Some(None)),
        ("timeout-minutes: '${{ github }}'", None),
        ("timeout-minutes: '${{ env.LIMIT }}'", None),
    ] {
        let job = forgejo(&one_job(&format!("runs-on: tiny\n{lines}"))).jobs.remove(0);
        assert_eq!(timeout_minutes(&job, &scope()).ok(), expected, "{lines}");
    }
}

#[test]
fn a_leg_is_named_by_its_name_or_its_values() {
    for (lines, expected) in [
        ("strategy: {matrix: {os: [x], n: [1]}}", "a (x, 1)"),
        ("name: Build\nstrategy: {matrix: {os: [x]}}", "Build (x)"),
        ("name: On ${{ matrix.os }}\nstrategy: {matrix: {os: [x], n: [1]}}", "On x"),
        ("name: Build", "Build"),
        ("name: ${{ github.none }}", "a"),
        ("", "a"),
    ] {
        let job = job(lines);
        let leg = expand(&job, &scope()).expect("it has legs").remove(0);
        assert_eq!(display_name(&job, &leg, &scope()), Ok(expected.to_owned()), "{lines}");
    }
}

#[test]
fn a_strategy_has_defaults_and_a_context() {
    let both = |lines: &str| strategy_values(&job(lines), &scope()).map_err(|e| e.to_string());
    assert_eq!(both(""), Ok(StrategyValues { fail_fast: true, max_parallel: None }));
    assert_eq!(
        both("strategy: {fail-fast: false, max-parallel: 2}"),
        Ok(StrategyValues { fail_fast: false, max_parallel: Some(2) })
    );
    assert_eq!(
        both("strategy: {fail-fast: '${{ 1 == 2 }}', max-parallel: '${{ 1 }}'}"),
        Ok(StrategyValues { fail_fast: false, max_parallel: Some(1) })
    );
    assert!(both("strategy: {max-parallel: '${{ 0 }}'}").is_err());
    let job = job("strategy: {matrix: {a: [1, 2]}}");
    let legs = expand(&job, &scope()).expect("it has legs");
    let values = strategy_values(&job, &scope()).expect("a strategy");
    let context = values.context(&legs[1], Dialect::Github);
    assert_eq!(
        json!(context),
        json!({"fail-fast": true, "job-index": 1, "job-total": 2, "max-parallel": 2})
    );
}

#[test]
fn a_job_may_fail_without_failing_the_run() {
    let ask = |lines: &str| continues_on_error(&job(lines), &scope());
    assert_eq!(ask(""), Ok(false));
    assert_eq!(ask("continue-on-error: true"), Ok(true));
    assert_eq!(ask("continue-on-error: false"), Ok(false));
    assert_eq!(ask("continue-on-error: ${{ github.ref_name == 'main' }}"), Ok(true));
}

#[test]
fn a_plan_has_all_that_a_job_says() {
    let workflow = workflow(
        "name: W
on: push
env: {A: 1, B: '${{ github.sha }}'}
defaults: {run: {shell: sh}}
jobs:
  build:
    name: Build ${{ matrix.os }}
    runs-on: ${{ matrix.os }}
    env: ${{ fromJSON('{}') }}
    timeout-minutes: 5
    strategy: {matrix: {os: [tiny]}}
    outputs: {v: '${{ steps.s.outputs.v }}'}
    steps:
      -
      - id: s
        name: Say
        if: success()
        run: |
          echo ${{ matrix.os }}
        shell: bash
        working-directory: src
        continue-on-error: true
        timeout-minutes: 1
        env: {X: y}
      - uses: actions/checkout@v4
        with: {fetch-depth: 0, '${{ insert }}': '${{ matrix }}'}
",
    );
    let job = workflow.job("build").expect("it is there");
    let leg = expand(job, &scope()).expect("it has legs").remove(0);
    let plan = plan(&workflow, "build", &leg, &contexts(), Dialect::Github).expect("a plan");
    assert_eq!((plan.name.as_str(), plan.job.as_str()), ("Build tiny", "build"));
    assert_eq!(plan.env.len(), 2);
    assert_eq!(plan.env[1], Value::Template("${{ fromJSON('{}') }}".into()));
    assert_eq!(
        plan.defaults,
        [Value::Mapping(vec![(
            Value::literal("run"),
            Value::Mapping(vec![(Value::literal("shell"), Value::literal("sh"))])
        )])]
    );
    assert_eq!(plan.timeout_minutes, Some(Value::literal("5")));
    assert_eq!(plan.file.as_deref(), Some("ci.yml"));
    let indexes: Vec<_> = plan.steps.iter().map(|step| step.index).collect();
    assert_eq!(indexes, [0, 1], "the empty step is not numbered");
    let step = &plan.steps[0];
    assert_eq!(step.condition.as_deref(), Some("success()"));
    assert_eq!(step.continue_on_error, Some(Value::literal("true")));
    assert_eq!(
        step.action,
        StepAction::Run {
            script: Value::Template("echo ${{ matrix.os }}\n".into()),
            shell: Some(Value::literal("bash")),
            working_directory: Some(Value::literal("src")),
        }
    );
    let StepAction::Uses { reference, with } = &plan.steps[1].action else {
        panic!("{:?}", plan.steps[1].action);
    };
    assert_eq!(reference, "actions/checkout@v4");
    assert_eq!(
        with,
        &Value::Mapping(vec![
            (Value::literal("fetch-depth"), Value::literal("0")),
            (Value::Insert, Value::Template("${{ matrix }}".into())),
        ])
    );
    assert!(uses_checkout(job));
}

#[test]
fn an_unknown_job_has_no_plan() {
    let workflow = workflow(&one_job("runs-on: tiny"));
    let leg = expand(&workflow.jobs[0], &scope()).expect("a leg").remove(0);
    let error = plan(&workflow, "b", &leg, &contexts(), Dialect::Github).expect_err("no job");
    assert_eq!(error.to_string(), "ci.yml: there is no job \"b\"\n  the jobs are: a");
}

#[test]
fn secrets_are_found_wherever_they_are_read() {
    let workflow = forgejo(
        "on: push
env: {A: '${{ secrets.SHARED }}'}
jobs:
  a:
    runs-on: tiny
    steps:
      - run: |
          echo one
          echo ${{ secrets.One }} ${{ secrets['TWO'] }}
      - uses: x/y@v1
        with: {token: '${{ secrets.ONE }}'}
  b:
    runs-on: tiny
    steps:
      - if: secrets.THREE != ''
        run: make
",
    );
    let names = |found: Vec<(String, _)>| -> Vec<String> {
        found.into_iter().map(|(name, _)| name).collect()
    };
    let all = secrets_used(&workflow);
    let places: Vec<_> = all.iter().map(|(_, at)| (at.line, at.column)).collect();
    assert_eq!(places, [(2, 15), (9, 20), (9, 39), (15, 13)]);
    assert_eq!(names(all), ["SHARED", "One", "TWO", "THREE"]);
    assert_eq!(names(secrets_used_by(&workflow, "b")), ["SHARED", "THREE"]);
}
