//! A job in KDL, and its steps.

use common::limits::STEPS;
use common::plan::{Containers, Location, Step, StepAction, Value};
use kdl::KdlNode;

use super::super::data::{Data, Field};
use super::super::model::{Job, Matrix, Places, Steps, Strategy, Work};
use super::super::places::Place;
use super::node::{Reader, Text, text_of, texts};
use super::{children, expressions};

/// The nodes of a job.
const JOB_NODES: [&str; 10] = [
    "name",
    "runs-on",
    "os",
    "needs",
    "if",
    "env",
    "setup",
    "step",
    "timeout-minutes",
    "continue-on-error",
];
/// The nodes of a step.
const STEP_NODES: [&str; 7] =
    ["name", "run", "shell", "env", "if", "working-directory", "timeout-minutes"];
/// Its properties: what is one text.
const STEP_PROPERTIES: [&str; 6] =
    ["name", "run", "shell", "if", "working-directory", "timeout-minutes"];
/// The properties of `setup`.
const SETUP_PROPERTIES: [&str; 2] = ["if", "shell"];

/// The action that places the job's commit in the workspace.
const CHECKOUT: &str = "actions/checkout@v4";

/// Reads a job; `others` are those before it.
pub(super) fn job(reader: &mut Reader, node: &KdlNode, others: &[Job]) -> Option<Job> {
    let at = reader.place(node);
    reader.refuse_properties(node, &[]);
    let key = key(reader, node, others)?;
    reader.job = Some(key.clone());
    let mut job = Job {
        name: None,
        needs: Vec::new(),
        condition: None,
        strategy: Strategy::default(),
        work: Work::Steps(Box::new(nothing())),
        permissions: None,
        concurrency: None,
        location: at,
        places: Places { name: at, condition: at, runs_on: at, strategy: at, needs: Vec::new() },
        source: reader.source.clone(),
        key,
    };
    let mut work = nothing();
    work.steps.push(checkout());
    for child in children(node) {
        part(reader, &mut job, &mut work, child);
    }
    let is = |name: &'static str| move |child: &&KdlNode| child.name().value() == name;
    let from_first_step = children(node).iter().skip_while(|child| !is("step")(child));
    for late in from_first_step.filter(is("setup")) {
        let at = reader.place(late);
        reader.error(at, "`setup` stands before the steps", Some("move it up"));
    }
    let names_labels = children(node).iter().any(|child| is("runs-on")(&child));
    if !names_labels {
        if job.strategy.matrix.is_some() {
            work.runs_on = Value::Template("${{ matrix.os }}".to_owned());
        } else {
            let message = format!("the job {:?} has no `runs-on`", job.key);
            reader.error(at, message, Some("name the label of an image: runs-on \"debian-12\""));
        }
    }
    if work.steps.len() == 1 {
        let message = format!("the job {:?} has no step", job.key);
        reader.error(at, message, Some("add one: step \"make test\""));
    }
    if work.steps.len() > STEPS {
        reader.error(at, format!("a job has {STEPS} steps at most"), None);
    }
    reader.job = None;
    job.work = Work::Steps(Box::new(work));
    Some(job)
}

fn key(reader: &mut Reader, node: &KdlNode, others: &[Job]) -> Option<String> {
    let at = reader.place(node);
    let mut texts = texts(node);
    let Some(key) = texts.pop().filter(|_| texts.is_empty()) else {
        reader.error(at, "a job has one name", Some("write job \"test\" { ... }"));
        return None;
    };
    let at = reader.location(key.entry.span().offset());
    let key = key.text;
    let starts = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let rest = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if !starts || !rest || key.len() > 99 {
        let hint = "it starts with a letter or `_` and goes on with letters, digits, `_` and `-`";
        reader.error(at, format!("a job cannot be called {key:?}"), Some(hint));
        return None;
    }
    if others.iter().any(|other| other.key.eq_ignore_ascii_case(&key)) {
        reader.error(at, format!("there are two jobs {key:?}"), Some("rename one of them"));
        return None;
    }
    Some(key)
}

/// Takes a node of a job.
fn part(reader: &mut Reader, job: &mut Job, work: &mut Steps, node: &KdlNode) {
    let at = reader.place(node);
    match node.name().value() {
        "name" => {
            job.places.name = at;
            job.name = reader.single(node).map(|text| reader.template(&text, Place::Job));
        }
        "runs-on" => {
            job.places.runs_on = at;
            let labels = labels(reader, node);
            let labels = labels.iter().map(|text| reader.template(text, Place::Job));
            work.runs_on = Value::Sequence(labels.collect());
        }
        "os" => {
            job.places.strategy = at;
            if work.runs_on == Value::Sequence(Vec::new()) {
                job.places.runs_on = at;
            }
            let names = labels(reader, node);
            let names = names.into_iter().map(|name| Data::Scalar(name.text.into())).collect();
            let os = Field { name: "os".to_owned(), location: at, value: Data::Sequence(names) };
            let data = Data::Mapping(vec![os]);
            job.strategy.matrix = Some(Matrix { data, location: at });
            // One system that fails says nothing about the others.
            job.strategy.fail_fast = Some(Value::literal("false"));
        }
        "needs" => {
            for text in labels(reader, node) {
                job.places.needs.push(reader.location(text.entry.span().offset()));
                job.needs.push(text.text);
            }
        }
        "if" => {
            job.places.condition = at;
            job.condition = reader.single(node).map(|text| {
                expressions::condition(reader, &text, Place::JobCondition);
                text.text
            });
        }
        "env" => work.env = reader.env(node, Place::JobEnv),
        "timeout-minutes" => {
            work.timeout_minutes =
                reader.single(node).and_then(|text| minutes(reader, &text, Place::Job));
        }
        "continue-on-error" => {
            work.continue_on_error =
                reader.single(node).map(|text| reader.template(&text, Place::Job));
        }
        "setup" => setup(reader, work, node),
        "step" => step(reader, work, node),
        _ => reader.unknown(node, "a job", &JOB_NODES),
    }
}

/// The values of a node that needs at least one.
fn labels<'a>(reader: &mut Reader, node: &'a KdlNode) -> Vec<Text<'a>> {
    reader.refuse_properties(node, &[]);
    reader.refuse_children(node);
    let texts = texts(node);
    if texts.is_empty() {
        let name = node.name().value();
        reader.error(reader.place(node), format!("{name:?} names nothing"), None);
    }
    texts
}

/// A limit: a number, or an expression that gives one.
fn minutes(reader: &mut Reader, text: &Text<'_>, place: Place) -> Option<Value> {
    let value = reader.template(text, place);
    let is_number =
        |text: &str| text.parse::<f64>().is_ok_and(|number| number > 0.0 && number.is_finite());
    if matches!(&value, Value::Literal(text) if !is_number(text)) {
        let at = reader.location(text.entry.span().offset());
        reader.error(at, "a limit is a number of minutes above zero", None);
        return None;
    }
    Some(value)
}

/// `setup "script"`: a step before the others.
fn setup(reader: &mut Reader, work: &mut Steps, node: &KdlNode) {
    let at = reader.place(node);
    reader.refuse_properties(node, &SETUP_PROPERTIES);
    reader.refuse_children(node);
    let mut parts = Parts { name: Some(Value::literal("Set up")), ..Parts::default() };
    for text in texts(node) {
        take(reader, &mut parts, "run", at, text);
    }
    properties(reader, &mut parts, node);
    push(reader, work, parts, at);
}

/// `step`: its script is its only value, unless there is a `run`; then that value is its name.
fn step(reader: &mut Reader, work: &mut Steps, node: &KdlNode) {
    let at = reader.place(node);
    reader.refuse_properties(node, &STEP_PROPERTIES);
    let mut parts = Parts::default();
    properties(reader, &mut parts, node);
    for child in children(node) {
        let at = reader.place(child);
        match child.name().value() {
            "env" => parts.env = Some(reader.env(child, Place::Step)),
            name if STEP_NODES.contains(&name) => {
                if let Some(text) = reader.single(child) {
                    take(reader, &mut parts, name, at, text);
                }
            }
            _ => reader.unknown(child, "a step", &STEP_NODES),
        }
    }
    let what = if parts.run.is_some() { "name" } else { "run" };
    for text in texts(node) {
        take(reader, &mut parts, what, at, text);
    }
    push(reader, work, parts, at);
}

/// The parts of a step while they are read.
#[derive(Default)]
struct Parts {
    name: Option<Value>,
    run: Option<Value>,
    shell: Option<Value>,
    condition: Option<String>,
    env: Option<Value>,
    working_directory: Option<Value>,
    timeout_minutes: Option<Value>,
}

fn properties(reader: &mut Reader, parts: &mut Parts, node: &KdlNode) {
    for entry in node.entries() {
        let Some(name) = entry.name() else { continue };
        let at = reader.location(entry.span().offset());
        take(reader, parts, name.value(), at, text_of(entry));
    }
}

/// Takes a part of a step by its name.
fn take(reader: &mut Reader, parts: &mut Parts, name: &str, at: Location, text: Text<'_>) {
    let twice = match name {
        "name" => parts.name.replace(reader.template(&text, Place::Step)).is_some(),
        "run" => parts.run.replace(reader.template(&text, Place::Step)).is_some(),
        "shell" => parts.shell.replace(reader.template(&text, Place::Step)).is_some(),
        "working-directory" => {
            parts.working_directory.replace(reader.template(&text, Place::Step)).is_some()
        }
        "timeout-minutes" => {
            let limit = minutes(reader, &text, Place::Step);
            limit.is_some_and(|limit| parts.timeout_minutes.replace(limit).is_some())
        }
        "if" => {
            expressions::condition(reader, &text, Place::StepCondition);
            parts.condition.replace(text.text).is_some()
        }
        // Refused already.
        _ => false,
    };
    if twice {
        reader.error(at, format!("the step has two values for {name:?}"), None);
    }
}

/// Adds a step that has a script.
fn push(reader: &mut Reader, work: &mut Steps, parts: Parts, at: Location) {
    let Some(script) = parts.run else {
        let hint = "write step \"make test\", or step \"Test\" { run \"make test\" }";
        return reader.error(at, "the step has nothing to run", Some(hint));
    };
    let action =
        StepAction::Run { script, shell: parts.shell, working_directory: parts.working_directory };
    let index = u32::try_from(work.steps.len()).unwrap_or(u32::MAX);
    work.steps.push(Step {
        name: parts.name,
        condition: parts.condition,
        env: parts.env.unwrap_or_else(Value::empty_mapping),
        timeout_minutes: parts.timeout_minutes,
        location: Some(at),
        ..Step::new(index, action)
    });
}

/// A job that has nothing yet.
fn nothing() -> Steps {
    Steps {
        runs_on: Value::Sequence(Vec::new()),
        env: Value::empty_mapping(),
        defaults: Value::empty_mapping(),
        timeout_minutes: None,
        continue_on_error: None,
        containers: Containers::default(),
        steps: Vec::new(),
        outputs: Value::empty_mapping(),
    }
}

/// The step that every job begins with.
fn checkout() -> Step {
    let reference = CHECKOUT.to_owned();
    let action = StepAction::Uses { reference, with: Value::empty_mapping() };
    Step { name: Some(Value::literal("Check out")), ..Step::new(0, action) }
}
