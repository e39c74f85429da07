//! Workflow files, as the server cuts them into jobs and payloads (forgejo-runner-protocol 7.1).

use serde_json::Value;

use super::emit::emit;
use super::expression::{Scope, Unknown};
use super::matrix::{self, Leg};
use super::yaml::Node;

/// Bytes of a step's title (forgejo-runner-protocol 8.1).
const TITLE: usize = 255;

/// A workflow file.
#[derive(Clone, Debug)]
pub(super) struct Workflow {
    root: Node,
    /// Its jobs in the order of the file.
    pub(super) jobs: Vec<Source>,
}

/// A job of a file, before its matrix is expanded.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Its key.
    pub(super) key: String,
    /// Jobs that it needs.
    pub(super) needs: Vec<String>,
    /// Its `if`.
    pub(super) condition: Option<String>,
    node: Node,
}

/// A job of a run, after its matrix was expanded.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) runs_on: Vec<String>,
    /// What a task of it carries.
    pub(super) payload: String,
    /// What the steps are called.
    pub(super) titles: Vec<String>,
}

/// What `concurrency` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Concurrency {
    pub(super) group: String,
    /// A new run ends the older ones instead of waiting for them.
    pub(super) cancel: bool,
}

impl Workflow {
    /// Reads a file.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let root = Node::parse(text)?;
        let jobs = root.get("jobs").map(Node::entries).unwrap_or_default();
        if jobs.is_empty() {
            return Err("it has no jobs".to_owned());
        }
        let jobs: Vec<_> = jobs.iter().map(|(key, node)| Source::new(key, node)).collect();
        for job in &jobs {
            if let Some(missing) =
                job.needs.iter().find(|need| jobs.iter().all(|job| job.key != **need))
            {
                return Err(format!("job {:?} needs {missing:?}, which is none", job.key));
            }
        }
        Ok(Self { root, jobs })
    }

    /// What `concurrency` at the top says.
    pub(super) fn concurrency(&self, scope: &Scope) -> Result<Option<Concurrency>, Unknown> {
        let Some(node) = self.root.get("concurrency") else { return Ok(None) };
        let Some(group) = node.text().or_else(|| node.get("group").and_then(Node::text)) else {
            return Ok(None);
        };
        let cancel = node.get("cancel-in-progress").is_some_and(Node::is_true);
        Ok(Some(Concurrency { group: scope.text(group)?, cancel }))
    }

    /// Whether it asks for OIDC.
    pub(super) fn wants_oidc(&self) -> bool {
        self.root.get("enable-openid-connect").is_some_and(Node::is_true)
    }

    /// The `inputs` context of a dispatch: what was given, else the defaults of the file.
    pub(super) fn inputs(&self, given: &[(String, String)]) -> Value {
        let declared = self
            .root
            .get("on")
            .and_then(|on| on.get("workflow_dispatch"))
            .and_then(|dispatch| dispatch.get("inputs"))
            .map(Node::entries)
            .unwrap_or_default();
        let mut inputs = serde_json::Map::new();
        for (name, input) in declared {
            let default = input.get("default").and_then(Node::text).unwrap_or_default();
            inputs.insert(name.clone(), default.into());
        }
        for (name, value) in given {
            inputs.insert(name.clone(), value.clone().into());
        }
        Value::Object(inputs)
    }

    /// The jobs that a job becomes, one for each leg of its matrix.
    pub(super) fn expand(&self, job: &Source, scope: &Scope) -> Result<Vec<Draft>, Unknown> {
        let strategy = job.node.get("strategy");
        let legs = matrix::legs(strategy.and_then(|strategy| strategy.get("matrix")), scope)?;
        legs.iter().map(|leg| self.draft(job, leg, scope)).collect()
    }

    fn draft(&self, job: &Source, leg: &Leg, scope: &Scope) -> Result<Draft, Unknown> {
        let scope = scope.clone().with("matrix", matrix::context(leg));
        let name = job.name(leg, &scope)?;
        let runs_on = job.runs_on(&scope)?;
        let steps = job.steps();
        let payload = emit(&self.payload(job, leg, &name, &runs_on, &steps));
        let titles = steps.iter().map(title).collect();
        Ok(Draft { name, runs_on, payload, titles })
    }

    fn payload(
        &self,
        job: &Source,
        leg: &Leg,
        name: &str,
        runs_on: &[String],
        steps: &[Node],
    ) -> Node {
        let mut root = Vec::new();
        for (key, node) in self.root.entries() {
            match key.as_str() {
                "jobs" | "run-name" | "concurrency" => {}
                "env" => root.push((key.clone(), node.stringified())),
                _ => root.push((key.clone(), node.clone())),
            }
        }
        let mut body = vec![("name".to_owned(), Node::Text(name.to_owned()))];
        match runs_on {
            [] => {}
            [one] => body.push(("runs-on".to_owned(), Node::Text(one.clone()))),
            several => {
                let labels = several.iter().map(|label| Node::Text(label.clone())).collect();
                body.push(("runs-on".to_owned(), Node::List(labels)));
            }
        }
        for (key, node) in job.node.entries() {
            let node = match key.as_str() {
                "name" | "runs-on" | "needs" | "continue-on-error" => continue,
                "steps" => Node::List(steps.to_vec()),
                "strategy" => strategy(node, leg),
                "env" | "timeout-minutes" => node.stringified(),
                _ => node.clone(),
            };
            body.push((key.clone(), node));
        }
        root.push(("jobs".to_owned(), Node::Map(vec![(job.key.clone(), Node::Map(body))])));
        Node::Map(root)
    }
}

impl Source {
    fn new(key: &str, node: &Node) -> Self {
        let needs = match node.get("needs") {
            Some(Node::List(items)) => {
                items.iter().filter_map(Node::text).map(str::to_owned).collect()
            }
            Some(single) => single.text().map(str::to_owned).into_iter().collect(),
            None => Vec::new(),
        };
        let condition = node.get("if").and_then(Node::text).filter(|text| !text.trim().is_empty());
        let condition = condition.map(str::to_owned);
        Self { key: key.to_owned(), needs, condition, node: node.clone() }
    }

    /// Whether it calls another workflow that the server would expand (forgejo-runner-protocol 7.5).
    pub(super) fn is_expandable_call(&self) -> bool {
        self.node.get("uses").is_some() && self.node.get("runs-on").is_none()
    }

    /// The name of a leg. Without an expression in it the leg's values stand behind.
    fn name(&self, leg: &Leg, scope: &Scope) -> Result<String, Unknown> {
        let written = self.node.get("name").and_then(Node::text).filter(|name| !name.is_empty());
        let written = written.unwrap_or(&self.key);
        if leg.is_empty() || written.contains("${{") {
            scope.text(written)
        } else {
            Ok(format!("{written} {}", matrix::name(leg)))
        }
    }

    /// Its labels; a group is one more of them.
    fn runs_on(&self, scope: &Scope) -> Result<Vec<String>, Unknown> {
        let Some(node) = self.node.get("runs-on") else { return Ok(Vec::new()) };
        let mut labels = Vec::new();
        let parts = match node {
            Node::Map(_) => [node.get("labels"), node.get("group")],
            _ => [Some(node), None],
        };
        for part in parts.into_iter().flatten() {
            match part {
                Node::List(items) => {
                    for item in items {
                        labels.push(scope.text(item.text().unwrap_or_default())?);
                    }
                }
                single => match scope.template(single.text().unwrap_or_default())? {
                    Value::Array(items) => {
                        labels.extend(items.iter().map(super::expression::display));
                    }
                    value => labels.push(super::expression::display(&value)),
                },
            }
        }
        labels.retain(|label| !label.is_empty());
        Ok(labels)
    }

    /// Its steps, without those that are null.
    fn steps(&self) -> Vec<Node> {
        let steps = self.node.get("steps").map(Node::items).unwrap_or_default();
        steps.iter().filter(|step| !step.is_null()).map(step).collect()
    }
}

/// A step with its texts as texts.
fn step(node: &Node) -> Node {
    let Node::Map(entries) = node else { return node.clone() };
    let entries = entries.iter().map(|(key, value)| match key.as_str() {
        "with" | "timeout-minutes" => (key.clone(), value.stringified()),
        _ => (key.clone(), value.clone()),
    });
    Node::Map(entries.collect())
}

fn strategy(node: &Node, leg: &Leg) -> Node {
    let entries = node.entries().iter().map(|(key, value)| match key.as_str() {
        "matrix" => (key.clone(), matrix::reduced(leg)),
        _ => (key.clone(), value.stringified()),
    });
    Node::Map(entries.collect())
}

/// What the UI calls a step (forgejo-runner-protocol 8.1); expressions in it stay.
fn title(step: &Node) -> String {
    let text = ["name", "uses", "run", "id"]
        .iter()
        .find_map(|key| step.get(key).and_then(Node::text).filter(|text| !text.is_empty()))
        .unwrap_or_default();
    text.get(..text.floor_char_boundary(TITLE)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FILE: &str = "\
name: ci
run-name: nobody sees it
on: {push: {branches: [main]}}
concurrency: {group: 'g-${{ github.ref }}', cancel-in-progress: true}
env: {COLOR: 1}
jobs:
  unit:
    name: unit
    needs: [lint]
    runs-on: 'vm-${{ matrix.image }}'
    continue-on-error: true
    timeout-minutes: 5
    if: always()
    steps:
      - uses: actions/checkout@v4
        with: {fetch-depth: 0, lfs: true}
      -
      - id: t
        run: |
          make ${{ matrix.node }}
          make install
    outputs: {report: '${{ steps.t.outputs.path }}'}
    strategy:
      fail-fast: false
      matrix: {image: [bookworm], node: ['20', '22']}
  lint: {runs-on: [a, b], steps: [{run: x}]}
";

    fn scope() -> Scope {
        Scope::default().with("github", json!({"ref": "main"}))
    }

    #[test]
    fn a_job_becomes_payloads_of_one_job() {
        let workflow = Workflow::parse(FILE).unwrap();
        let unit = workflow.jobs.first().unwrap();
        assert_eq!(unit.needs, ["lint"]);
        assert_eq!(unit.condition.as_deref(), Some("always()"));
        let drafts = workflow.expand(unit, &scope()).unwrap();
        let names: Vec<_> = drafts.iter().map(|draft| draft.name.as_str()).collect();
        assert_eq!(names, ["unit (bookworm, 20)", "unit (bookworm, 22)"]);
        let draft = drafts.first().unwrap();
        assert_eq!(draft.runs_on, ["vm-bookworm"]);
        assert_eq!(
            draft.titles,
            ["actions/checkout@v4", "make ${{ matrix.node }}\nmake install\n"]
        );
        let payload = Node::parse(&draft.payload).unwrap().value();
        assert_eq!(
            payload,
            json!({
                "name": "ci",
                "on": {"push": {"branches": ["main"]}},
                "env": {"COLOR": "1"},
                "jobs": {"unit": {
                    "name": "unit (bookworm, 20)",
                    "runs-on": "vm-bookworm",
                    "timeout-minutes": "5",
                    "if": "always()",
                    "steps": [
                        {"uses": "actions/checkout@v4", "with": {"fetch-depth": "0", "lfs": "true"}},
                        {"id": "t", "run": "make ${{ matrix.node }}\nmake install\n"},
                    ],
                    "outputs": {"report": "${{ steps.t.outputs.path }}"},
                    "strategy": {"fail-fast": "false", "matrix": {"image": ["bookworm"], "node": ["20"]}},
                }},
            })
        );
        assert!(draft.payload.contains("\n\"on\":\n"), "{}", draft.payload);
    }

    #[test]
    fn labels_come_in_four_shapes() {
        let cases = [
            ("a", vec!["a"]),
            ("[a, b]", vec!["a", "b"]),
            ("{group: g, labels: [a]}", vec!["a", "g"]),
            ("${{ fromJSON('[\"x\", \"y\"]') }}", vec!["x", "y"]),
        ];
        for (runs_on, expected) in cases {
            let file = format!("jobs: {{a: {{runs-on: {runs_on}}}}}");
            let file = if runs_on.contains('$') {
                format!("jobs:\n  a:\n    runs-on: {runs_on}\n")
            } else {
                file
            };
            let workflow = Workflow::parse(&file).unwrap();
            let drafts = workflow.expand(workflow.jobs.first().unwrap(), &scope()).unwrap();
            assert_eq!(drafts.first().unwrap().runs_on, expected);
        }
    }

    #[test]
    fn groups_and_inputs_are_evaluated() {
        let workflow = Workflow::parse(FILE).unwrap();
        assert_eq!(
            workflow.concurrency(&scope()),
            Ok(Some(Concurrency { group: "g-main".to_owned(), cancel: true }))
        );
        let dispatch = Workflow::parse(
            "on: {workflow_dispatch: {inputs: {a: {default: x}, b: {}}}}\njobs: {a: {}}\n",
        );
        let inputs = dispatch.unwrap().inputs(&[("b".to_owned(), "y".to_owned())]);
        assert_eq!(inputs, json!({"a": "x", "b": "y"}));
    }

    #[test]
    fn a_file_without_sense_is_refused() {
        for file in ["on: push", "jobs: {a: {needs: b}}", "jobs: ["] {
            assert!(Workflow::parse(file).is_err(), "{file}");
        }
    }
}
