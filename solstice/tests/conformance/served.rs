//! The actions of the folder, fetched by the orchestrator from a git server into one machine.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use simulators::GitServer;
use tokio::process::Command;
use tokio::time::timeout;

use super::actions;
use super::host;

/// How long the job may take, with the boot of its machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// Repositories that are wrong on purpose.
const WRONG: [&str; 5] = ["own/broken", "own/cycle", "own/depth", "own/no-file", "own/shell"];

/// What the job really does with them; everything else is fetched and skipped.
const STEPS: &str = "
- { id: a, uses: own/steps/outer@v1, with: { word: you } }
- run: echo 'it said ${{ steps.a.outputs.said }}'
- uses: own/steps/who-twice@v1
- uses: own/versions@v2
- uses: own/versions@feature/x
";

const PRINTED: [&str; 7] = [
    "hello you and others",
    "it said hello you and others!",
    "own/steps v1 who-twice",
    "own/who v7 v7",
    "own/steps v1 who-twice",
    "two v2",
    "feature feature/x",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_action_comes_from_a_git_server() {
    let server = GitServer::start().await;
    let mut steps = String::new();
    let mut repositories = Vec::new();
    for repository in actions::repositories("own") {
        let name = &repository.name;
        if WRONG.contains(&name.as_str()) {
            continue;
        }
        let files: Vec<_> =
            repository.files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let commit = server.commit(name, &files);
        server.tag(name, &repository.version, &commit, true);
        for reference in repository.references() {
            writeln!(steps, "- {{ if: false, uses: {reference} }}").unwrap();
        }
        repositories.push(repository.name);
    }
    assert!(repositories.len() > 5, "{repositories:?}");
    let printed = run(&server, &format!("{steps}{STEPS}")).await;
    let mut lines = printed.lines();
    for expected in PRINTED {
        assert!(lines.any(|line| line.trim_end().ends_with(expected)), "{expected}:\n{printed}");
    }
    let asked = server.asked();
    for repository in repositories {
        let begin = format!("GET /{repository}/info/refs");
        assert!(asked.iter().any(|line| line.starts_with(&begin)), "{repository}: {asked:?}");
    }
    assert_eq!(server.credentials(), [""; 0]);
}

/// Runs the program with a workflow of these steps; gives what it printed.
async fn run(server: &GitServer, steps: &str) -> String {
    let host = host::Host::new();
    let steps: String = steps.lines().map(|line| format!("      {line}\n")).collect();
    let workflow = format!("on: push\njobs:\n  job:\n    runs-on: tiny\n    steps:\n{steps}");
    let repository = tempfile::tempdir().unwrap();
    let folder = repository.path().join(".github/workflows");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("ci.yml"), workflow).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_solstice"));
    let images = env::var_os("SOLSTICE_IMAGE_DIR").expect("run `make test`");
    let ended = Command::new(program)
        .args(["run", "--verbose"])
        .current_dir(repository.path())
        .env_remove("SOLSTICE_TEST_DIR")
        .env_remove("SOLSTICE_TEST_RUN")
        .env("SOLSTICE_STATE_DIR", host.state.path().join("state"))
        .env("SOLSTICE_RUNTIME_DIR", host.runtime.path())
        .env("SOLSTICE_TEMPLATE_DIR", Path::new(&images).with_file_name("templates"))
        .env("SOLSTICE_IMAGE_DIR", images)
        .env("SOLSTICE_GUEST_PROGRAMS", program.ancestors().nth(2).unwrap().join("guest"))
        .env("SOLSTICE_ACCELERATION", "tcg")
        .env("SOLSTICE_ACTIONS_GITHUB", server.url())
        .kill_on_drop(true)
        .output();
    let ended = timeout(PATIENCE, ended).await.expect("the job ends").unwrap();
    let printed = String::from_utf8_lossy(&ended.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{printed}\n{complaint}");
    printed
}
