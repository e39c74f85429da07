//! Every bad workflow in `tests/invalid` is refused with exactly the text beside it.
//!
//! To write the texts anew after a change of words: `SOLSTICE_ACCEPT=1 cargo test -p workflow-runner
//! --test invalid`, then read what `git diff` shows.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use workflow_runner::workflow;

/// The variable that makes the test write what it should expect.
const ACCEPT: &str = "SOLSTICE_ACCEPT";

#[test]
fn bad_workflows_are_refused_with_their_place() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/invalid");
    let accept = std::env::var_os(ACCEPT).is_some();
    let (workflows, texts) = files(&folder);
    assert!(workflows.len() > 60, "only {} bad workflows were found", workflows.len());

    let mut wrong = Vec::new();
    for path in &workflows {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
        let text = fs::read_to_string(path).expect("the workflow can be read");
        let found = match workflow::parse(&text, name) {
            Ok(_) => {
                wrong.push(format!("{name} is accepted"));
                continue;
            }
            Err(error) => format!("{error}\n"),
        };
        let beside = path.with_extension("txt");
        if accept {
            fs::write(&beside, &found).expect("the text can be written");
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        if found != expected {
            wrong.push(format!("{name}\n--- expected\n{expected}--- found\n{found}"));
        }
    }
    let is_of = |text: &Path, kind: &str| workflows.contains(&text.with_extension(kind));
    let left: Vec<_> =
        texts.iter().filter(|text| !is_of(text, "yml") && !is_of(text, "kdl")).collect();
    assert!(left.is_empty(), "these texts belong to no workflow: {left:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The workflows and the texts in a folder, in the order of their names.
fn files(folder: &Path) -> (BTreeSet<PathBuf>, BTreeSet<PathBuf>) {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let paths: Vec<_> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    let of = |kinds: &[&str]| {
        let is_of = |end: &OsStr| kinds.iter().copied().any(|kind| end == kind);
        paths.iter().filter(|path| path.extension().is_some_and(is_of)).cloned().collect()
    };
    (of(&["yml", "kdl"]), of(&["txt"]))
}
