//! One job as the server of Forgejo or Gitea hands it out: a workflow with a single job, of which the
//! server has evaluated some parts (forgejo-runner-protocol 7.1).
//!
//! What is evaluated is never evaluated again, so these parts are taken out of the tree before any
//! expression in it is looked for.

use std::ops::Range;
use std::sync::Arc;

use common::plan::{Dialect, Location};
use serde_json::{Map, Value as Json};

use super::model::Workflow;
use super::{Inspection, inspect_document};
use crate::diagnostic::Diagnostic;
use crate::yaml::{self, Kind, Node, Scalar, Style};

/// A job that a server handed out.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The workflow with this job alone.
    pub workflow: Workflow,
    /// The job's name, evaluated; absent where it has none.
    pub name: Option<String>,
    /// What `runs-on` names, evaluated.
    pub labels: Vec<String>,
    /// The values of the job's leg; null where it has no matrix.
    pub matrix: Json,
    /// `fail-fast` and `max-parallel` as far as they were delivered.
    pub strategy: Map<String, Json>,
    /// What the job asks for that no machine here gives. It cannot run.
    pub unsupported: Vec<Diagnostic>,
    /// Findings that change nothing.
    pub warnings: Vec<Diagnostic>,
}

/// Why a delivered job cannot run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undeliverable {
    /// What is wrong; never empty.
    pub errors: Vec<Diagnostic>,
    /// How many steps the server shows for the job, as far as it can be told.
    pub steps: usize,
}

/// Reads a job as a server delivered it. `file` is what messages call it.
///
/// # Errors
///
/// It is no workflow, it has not exactly one job, or something in the job cannot run anywhere.
pub fn delivered(text: &str, file: &str, dialect: Dialect) -> Result<Delivered, Undeliverable> {
    let one = |error| Undeliverable { errors: vec![error], steps: 0 };
    let mut document = yaml::parse(text, file).map_err(one)?;
    let Some(job) = only_job(&mut document.root) else {
        let error = document.source.about_file("the server did not deliver exactly one job");
        return Err(one(error.hint("run the job again; if that does not help, report this")));
    };
    let steps = job.get("steps").and_then(Node::as_sequence).unwrap_or_default();
    let steps = steps.iter().filter(|step| !step.is_null()).count();
    let calls = job.get("uses").is_some();
    let name = take(job, "name").and_then(|node| node.text().map(str::to_owned));
    let labels = take(job, "runs-on").map(|node| labels(&node)).unwrap_or_default();
    let strategy = take(job, "strategy").map(|node| node.to_json()).unwrap_or_default();
    drop(take(job, "needs"));
    if calls {
        let error = document.source.about_file(
            "the job calls a workflow and has `runs-on`, so the server did not expand it, and no \
             machine here runs a whole workflow as one job",
        );
        let hint =
            "remove `runs-on` from the job that has `uses`; Forgejo 15 and later expand it then";
        return Err(Undeliverable { errors: vec![error.hint(hint)], steps });
    }
    put(job, "runs-on");
    let Inspection { workflow, errors, unsupported, warnings } =
        inspect_document(&document, dialect);
    let Some(workflow) = workflow else { return Err(Undeliverable { errors, steps }) };
    let (matrix, strategy) = leg(strategy);
    Ok(Delivered {
        workflow,
        name: name.filter(|name| !name.trim().is_empty()),
        labels,
        matrix,
        strategy,
        unsupported: unsupported.into_iter().map(|(_, error)| error).collect(),
        warnings: warnings.into_iter().map(|warning| warning.finding).collect(),
    })
}

/// The pairs of the single job.
fn only_job(root: &mut Node) -> Option<&mut Node> {
    let Kind::Mapping(pairs) = &mut root.kind else { return None };
    // What the server notes for itself is no part of a workflow.
    pairs.retain(|(key, _)| {
        let name = key.text().unwrap_or_default();
        name != "__metadata" && !name.starts_with("incomplete_") && name != "enable-openid-connect"
    });
    let (_, jobs) = pairs.iter_mut().find(|(key, _)| key.text() == Some("jobs"))?;
    let Kind::Mapping(jobs) = &mut jobs.kind else { return None };
    match jobs.as_mut_slice() {
        [(_, job)] if matches!(job.kind, Kind::Mapping(_)) => Some(job),
        _ => None,
    }
}

/// Takes a key out of a mapping.
fn take(node: &mut Node, key: &str) -> Option<Node> {
    let Kind::Mapping(pairs) = &mut node.kind else { return None };
    let at = pairs.iter().position(|(name, _)| name.text() == Some(key))?;
    Some(pairs.remove(at).1)
}

/// Puts a text in the place of what was taken out and must be there.
fn put(node: &mut Node, key: &str) {
    let at = (node.location, node.span.clone());
    if let Kind::Mapping(pairs) = &mut node.kind {
        pairs.push((scalar(&at, key), scalar(&at, "delivered")));
    }
}

fn scalar((location, span): &(Location, Range<usize>), text: &str) -> Node {
    let scalar = Scalar { text: Arc::from(text), style: Style::Plain, is_text: true };
    Node { location: *location, span: span.clone(), kind: Kind::Scalar(scalar) }
}

/// The labels of an evaluated `runs-on`: a text or a list of texts.
fn labels(node: &Node) -> Vec<String> {
    let own = node.text().into_iter();
    let listed = node.as_sequence().unwrap_or_default().iter().filter_map(Node::text);
    own.chain(listed).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

/// The leg, of whose matrix each name has one value left, and what else `strategy` says.
fn leg(strategy: Json) -> (Json, Map<String, Json>) {
    let Json::Object(mut strategy) = strategy else { return (Json::Null, Map::new()) };
    let matrix = match strategy.remove("matrix") {
        Some(Json::Object(names)) if !names.is_empty() => {
            names.into_iter().map(|(name, values)| (name, only(values))).collect()
        }
        _ => Json::Null,
    };
    strategy.retain(|name, _| matches!(name.as_str(), "fail-fast" | "max-parallel"));
    for value in strategy.values_mut() {
        // They arrive as texts.
        if let Some(plain) = value.as_str().and_then(|text| serde_json::from_str(text).ok()) {
            *value = plain;
        }
    }
    (matrix, strategy)
}

fn only(values: Json) -> Json {
    match values {
        Json::Array(mut values) if values.len() == 1 => values.remove(0),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use common::plan::Value;
    use serde_json::json;

    use super::*;

    const PAYLOAD: &str = r#"
name: ci
"on": { push: { branches: [main] } }
env: { COLOR: "1" }
__metadata: { x: "${{ nonsense" }
jobs:
  unit:
    name: unit (${{ secrets.CANARY }}, 20)
    runs-on: ["vm-debian", "${{ broken"]
    needs: [elsewhere]
    steps:
      - uses: actions/checkout@v4
      - id: t
        run: make test NODE=${{ matrix.node }}
    strategy:
      fail-fast: "false"
      matrix:
        image: ["${{ secrets.CANARY }}"]
        node: ["20"]
"#;

    #[test]
    fn what_the_server_evaluated_stays_as_it_is() {
        let job = delivered(PAYLOAD, "ci.yml", Dialect::Forgejo).expect("a job");
        assert_eq!(job.name.as_deref(), Some("unit (${{ secrets.CANARY }}, 20)"));
        assert_eq!(job.labels, ["vm-debian", "${{ broken"]);
        assert_eq!(job.matrix, json!({"image": "${{ secrets.CANARY }}", "node": "20"}));
        assert_eq!(Json::Object(job.strategy), json!({"fail-fast": false}));
        let steps = job.workflow.jobs[0].steps();
        assert_eq!(steps.len(), 2);
        let common::plan::StepAction::Run { script, .. } = &steps[1].action else { panic!() };
        assert_eq!(*script, Value::Template("make test NODE=${{ matrix.node }}".to_owned()));
        assert!(job.workflow.jobs[0].needs.is_empty());
    }

    #[test]
    fn what_cannot_run_says_why_and_how_many_steps_there_are() {
        let refused = |text: &str| delivered(text, "ci.yml", Dialect::Forgejo).expect_err(text);
        let two = refused("jobs: { a: { steps: [] }, b: { steps: [] } }");
        assert!(two.errors[0].to_string().contains("exactly one job"));
        assert_eq!(refused("jobs: [").steps, 0);
        let wrong =
            refused("jobs: { a: { runs-on: x, steps: [{ run: a }, null, { run: '${{ x' }] } }");
        assert_eq!(wrong.steps, 2);
        let call = refused("jobs: { a: { runs-on: x, uses: ./.forgejo/workflows/b.yml } }");
        assert!(call.errors[0].to_string().contains("remove `runs-on`"), "{call:?}");
    }

    #[test]
    fn containers_come_as_they_are_written() {
        let text =
            "jobs: { a: { runs-on: x, container: '${{ matrix.image }}', steps: [{ run: a }] } }";
        let job = delivered(text, "ci.yml", Dialect::Forgejo).expect("a job");
        let work = job.workflow.jobs[0].on_machine().expect("steps");
        assert_eq!(work.containers.job, Some(Value::Template("${{ matrix.image }}".to_owned())));
        assert!(job.unsupported.is_empty());
    }
}
