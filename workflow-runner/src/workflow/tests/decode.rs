//! What is read from a file, and what is only warned about.

use common::plan::Value;

use super::{job, one_job, parsed, refused, workflow};
use crate::workflow::InputKind;

/// The warnings of a workflow, as shown.
fn warnings(text: &str) -> Vec<String> {
    parsed(text).warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn jobs_run_after_what_they_need() {
    let order = |jobs: &str| {
        let lines: String = jobs
            .split(' ')
            .map(|job| {
                let (key, needs) = job.split_once(':').expect("key:needs");
                format!("  {key}: {{needs: [{needs}], runs-on: t, steps: [run: x]}}\n")
            })
            .collect();
        workflow(&format!("on: push\njobs:\n{lines}")).order().join(" ")
    };
    assert_eq!(order("a: b: c:"), "a b c");
    assert_eq!(order("a:b b:c c:"), "c b a");
    assert_eq!(order("a:b,c b:d c:d d:"), "d b c a");
    assert_eq!(order("z: a:z m:a,z"), "z a m");
}

#[test]
fn a_job_knows_all_that_it_depends_on() {
    let workflow = workflow(
        "on: push
jobs:
  a: {runs-on: t, steps: [run: x]}
  b: {needs: a, runs-on: t, steps: [run: x]}
  c: {needs: b, runs-on: t, steps: [run: x]}
  d: {runs-on: t, steps: [run: x]}
",
    );
    assert_eq!(workflow.ancestors("c").into_iter().collect::<Vec<_>>(), ["a", "b"]);
    assert!(workflow.ancestors("d").is_empty());
}

#[test]
fn events_have_three_forms() {
    let names = |on: &str| -> Vec<String> {
        let text = format!("on: {on}\njobs: {{a: {{runs-on: t, steps: [run: x]}}}}\n");
        workflow(&text).on.into_iter().map(|event| event.name).collect()
    };
    assert_eq!(names("push"), ["push"]);
    assert_eq!(names("[push, pull_request]"), ["push", "pull_request"]);
    assert_eq!(
        names("{workflow_dispatch: , push: {branches: [main]}}"),
        ["workflow_dispatch", "push"]
    );
    assert_eq!(names("{schedule: [{cron: '0 0 * * *'}]}"), ["schedule"]);
}

#[test]
fn inputs_keep_their_order_and_type() {
    let workflow = workflow(
        "on: {workflow_dispatch: {inputs: {b: {type: boolean, description: B}, a: {required: true}}}}
jobs: {a: {runs-on: t, steps: [run: x]}}
",
    );
    let inputs = &workflow.event("workflow_dispatch").expect("it is there").inputs;
    assert_eq!((inputs[0].name.as_str(), inputs[0].kind), ("b", InputKind::Boolean));
    assert_eq!(inputs[0].description.as_deref(), Some("B"));
    assert_eq!((inputs[1].name.as_str(), inputs[1].required), ("a", true));
}

#[test]
fn anchors_share_parts_of_a_workflow() {
    let workflow = workflow(
        "on: push
jobs:
  a: &job
    runs-on: tiny
    env: &env {X: 1}
    steps: &steps
      - run: make
  b: *job
  c: {runs-on: tiny, env: *env, steps: *steps}
",
    );
    assert_eq!(workflow.jobs[0].steps(), workflow.jobs[1].steps());
    let env = |job: usize| &workflow.jobs[job].on_machine().expect("it has steps").env;
    assert_eq!(env(0), env(2));
}

#[test]
fn a_file_from_another_system_is_read_the_same() {
    let text = one_job("runs-on: tiny\nname: x");
    let other = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    let (a, b) = (workflow(&text), workflow(&other));
    assert_eq!(a.jobs[0].steps(), b.jobs[0].steps());
    assert_eq!(a.jobs[0].name, b.jobs[0].name);
}

#[test]
fn unknown_keys_are_warned_about() {
    let text = "on: push
nam: x
jobs:
  a:
    runs-on: tiny
    time-out: 5
    steps:
      - run: make
        continue-on-eror: true
";
    assert_eq!(
        warnings(text),
        [
            "ci.yml:2:1: \"nam\" is not a key of a workflow; it is ignored\n  2 | nam: x\n    | ^\n  did you mean \"name\"?",
            "ci.yml:6:5: \"time-out\" is not a key of a job; it is ignored\n  6 |     time-out: 5\n    |     ^",
            "ci.yml:9:9: \"continue-on-eror\" is not a key of a step; it is ignored\n  9 |         continue-on-eror: true\n    |         ^\n  did you mean \"continue-on-error\"?",
        ]
    );
}

#[test]
fn oddities_are_warned_about() {
    for (text, message) in [
        ("jobs: {a: {runs-on: t, steps: [run: x]}}", "the workflow has no `on`"),
        ("on: pushh\njobs: {a: {runs-on: t, steps: [run: x]}}", "did you mean \"push\"?"),
        (&one_job("runs-on: t\nif: ${{ github.ref == 'x' }} && true"), "always true"),
        ("on: push\njobs: {a: {runs-on: t, steps: [{run: x}, ]}}", ""),
        ("on: push\njobs: {a: {runs-on: t, steps: [~, {run: x}]}}", "an empty step is ignored"),
        (
            "on: push\njobs: {a: {runs-on: t, steps: [{run: x, with: {a: b}}]}}",
            "no effect beside `run`",
        ),
        (
            "on: push\njobs: {a: {runs-on: t, steps: [{uses: a/b@v1, shell: sh}]}}",
            "no effect beside `uses`",
        ),
        (
            &one_job("runs-on: t\ndefaults: {run: {shel: sh}}"),
            "\"shel\" is not a key of `defaults.run`",
        ),
        (&one_job("runs-on: t\nstrategy: {fail-fasst: true}"), "did you mean \"fail-fast\"?"),
    ] {
        let found = warnings(text);
        if message.is_empty() {
            assert_eq!(found, Vec::<String>::new(), "{text}");
        } else {
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].contains(message), "{text}: {}", found[0]);
        }
    }
}

#[test]
fn the_number_of_warnings_is_bounded() {
    let keys: String = (0..500).map(|n| format!("unknown{n}: 1\n")).collect();
    let found =
        warnings(&format!("{keys}on: push\njobs: {{a: {{runs-on: t, steps: [run: x]}}}}\n"));
    assert_eq!(found.len(), 101);
    assert_eq!(found[100], "ci.yml: 400 more warnings are not shown");
}

#[test]
fn what_is_empty_is_no_container() {
    let text = one_job("runs-on: t\ncontainer:\nservices: {}");
    assert_eq!(warnings(&text), Vec::<String>::new());
}

#[test]
fn the_place_inside_a_script_is_exact() {
    let text = "on: push
jobs:
  a:
    runs-on: t
    steps:
      - run: |
          echo one
            echo ${{ format('x' }}
";
    let shown = refused(text);
    let line = "  8 |             echo ${{ format('x' }}";
    assert!(shown.starts_with("ci.yml:8:"), "{shown}");
    assert!(shown.contains(line), "{shown}");
}

#[test]
fn a_job_without_steps_enters_the_workflow_in_kdl() {
    let parsed = parsed("on: push\njobs:\n  a:\n    runs-on: tiny\n");
    let job = &parsed.workflow.jobs[0];
    assert_eq!(super::super::entered_file(job).as_deref(), Some(".solstice/workflow.kdl"));
    assert!(parsed.warnings[0].to_string().contains("has no `steps`: it runs"));
}

#[test]
fn containers_are_what_the_file_says() {
    let text = "
container:
  image: node:${{ matrix.node }}
  credentials: { username: ci, password: '${{ secrets.PASSWORD }}' }
  env: { LEVEL: 3 }
  ports: [80, '8080:80/udp']
  volumes: [data:/data]
  options: --cpus 1
services:
  db: { image: 'postgres:16' }
  cache: redis";
    let job = job(text);
    let containers = &job.on_machine().expect("steps").containers;
    let literal = |text: &str| Value::literal(text);
    let template = |text: &str| Value::Template(text.to_owned());
    let mapping = |pairs: &[(&str, Value)]| {
        Value::Mapping(pairs.iter().map(|(k, v)| (literal(k), v.clone())).collect())
    };
    let expected = mapping(&[
        ("image", template("node:${{ matrix.node }}")),
        (
            "credentials",
            mapping(&[
                ("username", literal("ci")),
                ("password", template("${{ secrets.PASSWORD }}")),
            ]),
        ),
        ("env", mapping(&[("LEVEL", literal("3"))])),
        ("ports", Value::Sequence(vec![literal("80"), literal("8080:80/udp")])),
        ("volumes", Value::Sequence(vec![literal("data:/data")])),
        ("options", literal("--cpus 1")),
    ]);
    assert_eq!(containers.job, Some(expected));
    let services = [
        ("db".to_owned(), mapping(&[("image", literal("postgres:16"))])),
        ("cache".to_owned(), literal("redis")),
    ];
    assert_eq!(containers.services, services);
    let unknown = warnings(&one_job("runs-on: t\ncontainer: {image: a, imagee: b}"));
    assert!(unknown[0].contains("\"imagee\" is not a key of a container"), "{unknown:?}");
}
