//! The project in the examples folder: what one machine builds, tests and keeps, another one uses.

use std::fs;
use std::path::{Path, PathBuf};

use simulators::forgejo::{Forge, RunView, Status};

use crate::forgejo::{RUN, connected, printed};
use crate::harness::empty;

const REPOSITORY: &str = "team/project";
const WORKFLOW: &str = ".github/workflows/ci.yml";
/// What the matrix of the project has.
const SYSTEMS: [&str; 3] = ["tiny", "debian-12", "debian-12-node"];

/// The files of the project, by their paths in it. What a build leaves is none.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/project");
    let mut open: Vec<PathBuf> = [".github", "src", "tests", "words"].map(PathBuf::from).to_vec();
    let mut files = Vec::new();
    open.extend(["VERSION", "build.sh", "make-words.sh", "test.sh"].map(PathBuf::from));
    while let Some(path) = open.pop() {
        if root.join(&path).is_dir() {
            let entries = fs::read_dir(root.join(&path)).unwrap();
            open.extend(entries.map(|entry| path.join(entry.unwrap().file_name())));
        } else {
            let text = fs::read_to_string(root.join(&path)).unwrap();
            files.push((path.to_str().unwrap().to_owned(), text));
        }
    }
    files
}

#[test]
fn a_project_passes_on_each_of_its_systems() {
    let story = files().into_iter().fold(empty(), |story, (path, text)| story.file(&path, &text));
    let ended = story.run().code(0);
    for system in SYSTEMS {
        let of = |job: &str, text: &str| format!("{job} ({system}) |   {text}");
        for (job, text) in [
            ("build", "native checkout (for actions/checkout@v4)"),
            ("build", &format!("Cache not found for input keys: words-{system}-")),
            ("build", "67 words"),
            ("build", "built tally 1.2.0"),
            ("build", "ok seasons"),
            ("build", &format!("Artifact tally-{system} has been uploaded")),
            ("build", &format!("Cache saved with key: words-{system}-")),
            ("check", &format!("Artifact tally-{system} (")),
            ("check", "tally: OK"),
            ("check", "2 fox"),
        ] {
            let line = of(job, text);
            assert!(ended.text.contains(&line), "no {line:?} in:\n{}", ended.text);
        }
    }
    // What was saved is there for the next run, and the step that makes it is not needed.
    let again = ended.story.with(&["--matrix", "system=tiny"]).run().code(0).hides("67 words");
    again.shows("Cache restored from key: words-tiny-").shows("2 fox").hides("(debian-12");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_passes_on_a_simulated_instance() {
    let forge = Forge::builder().start().await;
    forge.set_var(REPOSITORY, "SYSTEMS", r#"["tiny", "debian-12-node"]"#);
    let files = files();
    let texts: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let commit = forge.git().commit(REPOSITORY, &texts);
    let (_, workflow) = files.iter().find(|(path, _)| path == WORKFLOW).unwrap();
    let story = connected(&forge).env("SOLSTICE_FORGEJO_MAIN_LABELS", &SYSTEMS.join(","));
    let service = story.serve();
    let push = || forge.trigger(REPOSITORY, "ci.yml", workflow).sha(&commit).push();
    let run = push();
    let view = forge.wait_for_run(run, RUN).await;
    for system in ["tiny", "debian-12-node"] {
        assert_passed(&view, system);
        let build = view.job(&format!("build ({system})"));
        assert_eq!(printed(build, "Make the list of words"), ["67 words"], "{view}");
    }
    let mut names: Vec<String> = forge.artifacts(run).into_iter().map(|one| one.name).collect();
    names.sort();
    assert_eq!(names, ["tally-debian-12-node", "tally-tiny"], "{view}");

    forge.set_var(REPOSITORY, "SYSTEMS", r#"["tiny"]"#);
    let view = forge.wait_for_run(push(), RUN).await;
    assert_passed(&view, "tiny");
    let build = view.job("build (tiny)");
    assert_eq!(build.step("Make the list of words").status, Status::Skipped, "{view}");
    forge.assert_no_violations();
    service.stop();
    drop(story);
}

/// What the pages of both jobs say.
fn assert_passed(view: &RunView, system: &str) {
    let (build, check) =
        (view.job(&format!("build ({system})")), view.job(&format!("check ({system})")));
    assert_eq!((build.status, check.status), (Status::Success, Status::Success), "{view}");
    assert_eq!(build.outputs["version"], "1.2.0", "{view}");
    assert_eq!(printed(build, "Test"), ["ok garten", "ok seasons"], "{view}");
    assert_eq!(printed(check, "Check"), ["tally: OK", "2 fox"], "{view}");
}
