//! The examples folder, on the tiny image.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{Story, empty};

/// Where the repository of a story without a remote is checked out.
const WORKSPACE: &str = "/var/solstice/repo/repo";

/// A story with an example as its only workflow.
fn example(name: &str) -> Story {
    let path = format!("{}/../examples/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).unwrap();
    let place = match name.strip_suffix(".kdl") {
        Some(_) => ".solstice/workflow.kdl".to_owned(),
        None => format!(".github/workflows/{name}"),
    };
    empty().file(&place, &text)
}

/// A program of the repository that says how it was called.
fn stub(story: Story, name: &str) -> Story {
    let path = format!("stubs/{name}");
    let story = story.file(&path, &format!("#!/bin/sh\necho \"{name} $*\"\n"));
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(story.repository().join(path), mode).unwrap();
    story
}

#[test]
fn three_lines_are_enough_where_the_label_checks_out() {
    let story = stub(stub(example("omnios.yml"), "pkg"), "cargo");
    let story = story.file("catalogue.toml", "[tiny]\ncheckout = \"auto\"\n");
    let catalogue = story.repository().join("catalogue.toml");
    story
        .env("SOLSTICE_CATALOGUE", catalogue.to_str().unwrap())
        .with(&["--image", "tiny", "--env"])
        .with(&[&format!("PATH={WORKSPACE}/stubs:/usr/bin:/bin")])
        .run()
        .code(0)
        .shows("native checkout (by the label's setting)")
        .shows_in_order(&["pkg install developer/gcc13", "cargo build --release", "cargo test"]);
}

#[test]
fn a_workflow_in_kdl_runs_on_each_of_its_systems() {
    stub(example("workflow.kdl"), "cargo")
        .with(&["--image", "tiny", "--matrix", "os=debian-12", "--env"])
        .with(&[&format!("PATH={WORKSPACE}/stubs:/usr/bin:/bin")])
        .run()
        .code(0)
        .shows_in_order(&["set up on debian-12", "cargo build --release", "cargo test"])
        .hides("pkg install");
}

#[test]
fn conditions_and_outputs() {
    example("conditions.yml").run().code(0).hides("never shown\n").shows_in_order(&[
        "it failed with failure and passed as success",
        "always shown",
        "the other job said failure",
    ]);
}

#[test]
fn a_matrix_with_inputs() {
    example("matrix.yml")
        .with(&["--event", "workflow_dispatch", "--input", "level=low", "--matrix", "flavour=sour"])
        .run()
        .code(0)
        .shows_in_order(&["sour 1 salt low", "1 of 2"]);
}

#[test]
fn commands_and_files() {
    example("commands.yml").run().code(0).shows_in_order(&[
        "A group",
        "a tool of ours",
        "the password is ***",
        "level high",
        "one",
        "two",
        "main.c:3: warning: unused",
        "::error::not a command",
    ]);
}

#[test]
fn expressions_and_hashes() {
    example("expressions.yml").run().code(0).shows_in_order(&[
        "${{_secrets.TOKEN_}}",
        "a+b true 1.5",
        "null a default",
        // forgejo-runner-protocol 8.5 has this digest.
        "ecb65bb98f9d905b70458986c39fcbad7715e5f2fcc3b1f07767d7c83e2438cc",
    ]);
}

#[test]
fn shells_and_variables() {
    example("shells.yml").run().code(0).shows_in_order(&[
        "level job",
        "sub",
        "level step",
        "unset is not set",
        "in time",
    ]);
}

#[test]
fn a_called_workflow() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/called.yml"));
    example("calling.yml")
        .file("examples/called.yml", &text.unwrap())
        .run()
        .code(0)
        .shows_in_order(&["Hello from a called workflow", "it said Hello"]);
}
