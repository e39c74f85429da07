//! Where untrusted text enters, for fuzzing: each function takes any bytes, and panics when something
//! that must always hold does not. `fuzz/` runs them under a fuzzer, with its corpus.

use common::event::JobResult;
use common::limits::EXPRESSION_CHARACTERS;
use common::plan::Dialect;
use common::request::Contexts;

use crate::engine;
use crate::expression::{Expression, HashFiles, Object, Scope, Value};
use crate::workflow::{self, Inspection, JobScope, Reference};

const DIALECTS: [Dialect; 3] = [Dialect::Github, Dialect::Forgejo, Dialect::Gitea];

/// An entry by its name.
#[must_use]
pub fn entry(name: &str) -> Option<fn(&[u8])> {
    Some(match name {
        "expression" => expression,
        "workflow" => workflow,
        "command" => command,
        "kdl" => kdl,
        _ => return None,
    })
}

/// An expression: what parses is printed as text that parses to the same, and has a value or an
/// error.
pub fn expression(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let expression = match Expression::parse(text) {
        Ok(expression) => expression,
        Err(error) => {
            assert!(error.offset <= text.chars().count(), "the place is in the text");
            return;
        }
    };
    let printed = expression.to_string();
    // A number may be longer in full than as it was written.
    if printed.chars().count() <= EXPRESSION_CHARACTERS {
        let again = Expression::parse(&printed).expect("what is printed parses");
        assert_eq!(again.to_string(), printed, "printing and parsing again gives the same");
    }
    match expression.evaluate(&Everything) {
        Ok(value) => drop((value.to_text(), value.is_truthy(), value.to_json())),
        Err(error) => {
            assert!(error.offset().is_none_or(|offset| offset < text.chars().count()));
        }
    }
}

/// A workflow file: it is refused with a place in it, or every job of it can be planned or is refused.
/// The file of an action, and what stands in `uses`, is refused or read.
pub fn workflow(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for dialect in DIALECTS {
        planned(&workflow::inspect(text, "fuzz.yml", dialect), dialect);
        match workflow::action(text, "action.yml", dialect) {
            Ok(action) => drop(action.inputs),
            Err(error) => drop(error.to_string()),
        }
    }
    if let Ok(Reference::Remote(remote)) = Reference::parse(text) {
        let directory = remote.directory();
        assert!(!directory.starts_with('/') && !directory.split('/').any(|part| part == ".."));
    }
}

/// A workflow in KDL, in the same way.
pub fn kdl(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    planned(&workflow::inspect(text, "fuzz.kdl", Dialect::Github), Dialect::Github);
}

/// What a step prints and leaves: its output as workflow commands, and each kind of file.
pub fn command(bytes: &[u8]) {
    for dialect in DIALECTS {
        engine::read_anything(bytes, dialect);
    }
}

fn planned(inspection: &Inspection, dialect: Dialect) {
    let Some(workflow) = &inspection.workflow else {
        assert!(!inspection.errors.is_empty(), "what is refused has a reason");
        return;
    };
    for error in &inspection.errors {
        drop(error.to_string());
    }
    let contexts = Contexts::default();
    let scope = JobScope::new(&contexts, dialect);
    for key in workflow.order() {
        let job = workflow.job(key).expect("the order is of jobs that exist");
        drop(workflow::labels(job, &scope));
        let Ok(legs) = workflow::expand(job, &scope) else { continue };
        for leg in legs.iter().take(3) {
            drop(workflow::plan(workflow, key, leg, &contexts, dialect));
        }
    }
}

/// A scope in which every context is the same mapping.
struct Everything;

impl Scope for Everything {
    fn context(&self, _name: &str) -> Option<Value> {
        let list = Value::array([Value::from(1.0), Value::from("text"), Value::Null]);
        let mut object = Object::new();
        object.insert("list", list.clone());
        object.insert("name", Value::from("a${{ b }}"));
        object.insert("nested", Value::object([("list".to_owned(), list)]));
        Some(object.into())
    }

    fn status(&self) -> Option<JobResult> {
        Some(JobResult::Success)
    }

    fn hash_files(&self, _patterns: &[String]) -> HashFiles {
        HashFiles::Known(String::new())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// What a fuzzer has found once, and what it begins with, holds without one too.
    #[test]
    fn the_corpus_holds() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for name in ["expression", "workflow", "command", "kdl"] {
            let run = entry(name).expect("the entry exists");
            let files: Vec<_> =
                fs::read_dir(corpus.join(name)).expect("there is a corpus").collect();
            assert!(files.len() > 5, "{name}");
            for file in files {
                run(&fs::read(file.expect("it can be listed").path()).expect("it can be read"));
            }
        }
    }
}
