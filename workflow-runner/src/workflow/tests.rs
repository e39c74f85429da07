//! What a workflow means: tables for the matrix, the order of jobs, labels, inputs and conditions.

mod condition;
mod decode;
mod inputs;
mod kdl;
mod matrix;
mod planning;
mod total;

use common::plan::Dialect;
use common::request::Contexts;
use serde_json::{Value as Json, json};

use super::{Job, JobScope, Parsed, Workflow, parse, parse_for};

/// A workflow that must be one.
fn parsed(text: &str) -> Parsed {
    parse(text, "ci.yml").unwrap_or_else(|error| panic!("{error}"))
}

fn workflow(text: &str) -> Workflow {
    parsed(text).workflow
}

/// What is wrong with a workflow, as shown.
fn refused(text: &str) -> String {
    match parse(text, "ci.yml") {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error.to_string(),
    }
}

/// A workflow of one job `a` with these further lines, each indented by the job's four spaces.
fn one_job(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("on: push\njobs:\n  a:\n{lines}    steps: [run: make]\n")
}

/// The job `a` of [`one_job`] on a label.
fn job(lines: &str) -> Job {
    workflow(&one_job(&format!("runs-on: tiny\n{lines}"))).jobs.remove(0)
}

fn contexts() -> Contexts {
    let object = |json: Json| match json {
        Json::Object(map) => map,
        _ => panic!("not an object"),
    };
    Contexts {
        github: object(json!({"ref_name": "main", "event_name": "push"})),
        vars: object(json!({"LABEL": "debian-12"})),
        needs: object(json!({"list": {"result": "success", "outputs": {
            "matrix": "{\"os\": [\"tiny\", \"debian-12\"], \"n\": [1]}",
            "names": "[\"x\", \"y\"]",
        }}})),
        matrix: Json::Null,
        strategy: object(json!({})),
        inputs: object(json!({})),
    }
}

fn scope() -> JobScope {
    JobScope::new(&contexts(), Dialect::Github)
}

#[test]
fn a_dialect_decides_how_plain_numbers_read() {
    let text = one_job("runs-on: tiny\nenv: {V: 3.10, W: '3.10', X: 1e2, Y: TRUE, Z: 0x10, N: ~}");
    let env = |dialect| {
        let workflow = parse_for(&text, "ci.yml", dialect).expect("it parses").workflow;
        let env = &workflow.jobs[0].on_machine().expect("it has steps").env;
        crate::template::evaluate(env, &scope()).expect("it has a value").to_json()
    };
    assert_eq!(
        env(Dialect::Github),
        json!({"V": "3.1", "W": "3.10", "X": "100", "Y": "true", "Z": "16", "N": ""})
    );
    assert_eq!(
        env(Dialect::Forgejo),
        json!({"V": "3.10", "W": "3.10", "X": "1e2", "Y": "TRUE", "Z": "0x10", "N": ""})
    );
}
