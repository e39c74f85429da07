//! The Actions language: how long reading takes, in this process, and how large what is pushed is.

use std::fmt::Write;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use common::event::JobResult;
use serde_json::json;
use workflow_runner::expression::{Expression, HashFiles, Scope, Value};
use workflow_runner::workflow;

use super::{Figures, millis, percentile};

/// A condition as workflows have it.
const CONDITION: &str = "success() && github.ref == 'refs/heads/main' && \
                         !contains(github.event.head_commit.message, '[skip]')";

/// How often it is evaluated in one sample, and how many samples there are.
const EVALUATIONS: u32 = 1_000;
const SAMPLES: usize = 101;

/// How often the large workflow is read.
const READS: usize = 21;
/// The size of the large workflow in bytes: as much as a file may have.
const LARGE: usize = 1_000_000;
/// The bytes of one script in it.
const SCRIPT: usize = 1_500;

/// Parsing and evaluating a condition, as for every step that has one.
pub(super) fn expression() -> Figures {
    let scope = Contexts::new();
    let mut times: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..EVALUATIONS {
                let parsed = Expression::parse(black_box(CONDITION)).expect("it parses");
                assert!(parsed.evaluate(&scope).expect("it has a value").is_truthy());
            }
            began.elapsed().as_secs_f64() * 1e9 / f64::from(EVALUATIONS)
        })
        .collect();
    Figures::from([("expression_ns", percentile(&mut times, 50))])
}

/// Reading a workflow that is as large as a workflow may be.
pub(super) fn parse() -> Figures {
    let mut text = String::from("on: push\njobs:\n");
    let mut job = 0;
    while text.len() + SCRIPT * 3 < LARGE {
        job += 1;
        write!(text, "  job{job}:\n    runs-on: tiny\n    steps:\n").expect("a text takes it");
        for step in 0..2 {
            write!(
                text,
                "      - name: Step {step}\n        if: github.ref != ''\n        run: |\n"
            )
            .expect("a text takes it");
            for line in 0..SCRIPT / 60 {
                let line = format!("echo ${{{{ github.sha }}}} line {line} of a script");
                writeln!(text, "          {line:<49}").expect("a text takes it");
            }
        }
    }
    let mut times: Vec<f64> = (0..READS)
        .map(|_| {
            let began = Instant::now();
            let parsed = workflow::parse(black_box(&text), "large.yml").expect("it is a workflow");
            assert_eq!(parsed.workflow.jobs.len(), job);
            millis(began.elapsed())
        })
        .collect();
    Figures::from([("workflow_parse_ms", percentile(&mut times, 50))])
}

/// The guest program, which is sent to every machine.
pub(super) fn guest_program(target: &Path) -> Figures {
    let path = target.join("guest/workflow-runner-linux-x64");
    let size = fs::metadata(&path).expect("the guest program is built").len();
    Figures::from([("guest_program_bytes", size as f64)])
}

struct Contexts {
    github: Value,
}

impl Contexts {
    fn new() -> Self {
        let github = json!({
            "ref": "refs/heads/main",
            "event": { "head_commit": { "message": "Make the parser faster" } },
        });
        Self { github: Value::from_json(&github) }
    }
}

impl Scope for Contexts {
    fn context(&self, name: &str) -> Option<Value> {
        (name == "github").then(|| self.github.clone())
    }

    fn status(&self) -> Option<JobResult> {
        Some(JobResult::Success)
    }

    fn hash_files(&self, _patterns: &[String]) -> HashFiles {
        HashFiles::Unavailable
    }
}
