//! A workflow and what is expected of it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::plan::Dialect;
use serde_json::Value as Json;
use workflow_runner::yaml;

/// A workflow and what is expected of it.
#[derive(Clone)]
pub(super) struct Case {
    /// The file's name without its end.
    pub(super) name: String,
    /// The workflow file.
    pub(super) text: String,
    expected: Arc<Json>,
}

/// Every case of the folder.
pub(super) fn all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workflow-runner/tests/workflows");
    let mut cases = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(name) = name.strip_suffix(".expected.yml") else { continue };
        let expected = fs::read_to_string(&path).unwrap();
        let expected = yaml::parse(&expected, name).unwrap().root.to_json();
        let text = fs::read_to_string(folder.join(format!("{name}.yml"))).unwrap();
        cases.push(Case { name: name.to_owned(), text, expected: Arc::new(expected) });
    }
    let files = fs::read_dir(&folder).unwrap().count();
    assert_eq!(
        files,
        2 * cases.len() + 1,
        "each workflow has its expectation, and a README beside"
    );
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

impl Case {
    /// Whether the documents say what this forge does.
    pub(super) fn is_for(&self, dialect: Dialect) -> bool {
        match self.expected.get("dialects") {
            Some(dialects) => {
                dialects.as_array().unwrap().iter().any(|name| *name == dialect.name())
            }
            None => true,
        }
    }

    /// What the case is about, in a sentence.
    pub(super) fn about(&self) -> &str {
        self.expected["about"].as_str().unwrap()
    }

    /// Whether a refusal of the file is as good as the result.
    pub(super) fn may_be_refused(&self, dialect: Dialect) -> bool {
        self.expected("or_refused", dialect).is_some_and(|refused| *refused == true)
    }

    /// Whether it takes a minute and more.
    pub(super) fn is_slow(&self) -> bool {
        self.expected.get("slow").is_some()
    }

    /// Why the program is known to do otherwise.
    pub(super) fn unmet(&self, dialect: Dialect) -> Option<&Json> {
        self.expected("unmet", dialect)
    }

    /// Whether there is a `node`.
    pub(super) fn has_node(&self) -> bool {
        self.given("node").is_some_and(|node| *node == true)
    }

    /// What the run is given: `event`, `inputs`, `needs`, `vars`, `secrets`, `matrix`, `node`.
    pub(super) fn given(&self, what: &str) -> Option<&Json> {
        self.expected.get("given")?.get(what)
    }

    /// What is expected of the job, where the documents say it for this forge.
    pub(super) fn expected(&self, what: &str, dialect: Dialect) -> Option<&Json> {
        of(self.expected.get(what)?, dialect)
    }

    /// What is expected of each step.
    pub(super) fn steps(&self) -> &[Json] {
        self.expected["steps"].as_array().unwrap()
    }
}

/// The value for a forge, of a value that may be a mapping with one for each.
pub(super) fn of(value: &Json, dialect: Dialect) -> Option<&Json> {
    match value.as_object() {
        Some(forges)
            if !forges.is_empty()
                && forges.keys().all(|name| matches!(name.as_str(), "github" | "forgejo")) =>
        {
            forges.get(dialect.name())
        }
        _ => Some(value),
    }
}
