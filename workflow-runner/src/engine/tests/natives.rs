//! When this program stands for an action, and when the original runs.

use common::event::{Conclusion, JobResult};
use common::guest::NativeCommits;

use super::story::{JobBuilder, Story, job};

use Conclusion::Success;

const COMMIT: &str = "0123456789012345678901234567890123456789";

/// A machine that has a `node`, which runs a file as a script, or has none.
fn machine(has_node: bool) -> (JobBuilder, tempfile::TempDir) {
    let bin = tempfile::tempdir().unwrap();
    if has_node {
        std::os::unix::fs::symlink("/bin/sh", bin.path().join("node")).unwrap();
    }
    (job().env("PATH", bin.path().to_str().unwrap()), bin)
}

/// Runs an action whose original says so.
async fn use_it(
    has_node: bool,
    commits: NativeCommits,
    reference: &str,
    with: &[(&str, &str)],
) -> Story {
    let (builder, _bin) = machine(has_node);
    builder
        .native_commits(commits)
        .tree(&[("a", "")])
        .action(reference, "action.yml", "runs: { using: node20, main: main }\n")
        .action(reference, "main", "echo the original")
        .uses(reference, with)
        .play()
        .await
}

fn is_original(story: &Story) -> bool {
    story.log().contains("the original\n") || story.output().contains("the original")
}

#[tokio::test]
async fn a_listed_version_is_done_here_and_another_by_the_original() {
    let default = NativeCommits::default();
    for has_node in [true, false] {
        let story = use_it(has_node, default, "actions/checkout@v4", &[]).await;
        assert!(story.log().contains("native checkout (for actions/checkout@v4)"));
        assert!(!is_original(&story), "{}", story.log());
    }
    let story = use_it(true, default, "actions/checkout@main", &[]).await;
    assert!(is_original(&story), "{}", story.log());
    let story = use_it(false, default, "actions/checkout@main", &[]).await;
    assert_eq!(story.result, JobResult::Failure);
    assert!(story.log().contains("write actions/checkout@v6"), "{}", story.log());
}

#[tokio::test]
async fn a_commit_is_replaced_as_the_setting_says() {
    let reference = format!("actions/checkout@{COMMIT}");
    for (commits, has_node, expected) in [
        (NativeCommits::Always, true, "native checkout"),
        (NativeCommits::Always, false, "native checkout"),
        (NativeCommits::WithoutNode, true, "the original"),
        (NativeCommits::WithoutNode, false, "native checkout"),
        (NativeCommits::Never, true, "the original"),
        (NativeCommits::Never, false, "no node to run the original"),
    ] {
        let story = use_it(has_node, commits, &reference, &[]).await;
        let log = story.log();
        assert!(log.contains(expected), "{commits:?} {has_node}: {log}");
    }
}

/// A checkout with such inputs where the original is there and can run.
async fn original_checkout(with: &[(&str, &str)]) -> Story {
    let (builder, _bin) = machine(true);
    builder
        .action("actions/checkout@v4", "action.yml", "runs: { using: node20, main: main }\n")
        .action("actions/checkout@v4", "main", "echo the original")
        .uses("actions/checkout@v4", with)
        .play()
        .await
}

#[tokio::test]
async fn an_input_that_this_program_does_not_know_is_for_the_original() {
    let with = [("lfs", "true")];
    let default = NativeCommits::default();
    assert!(is_original(&original_checkout(&with).await));
    let (builder, _bin) = machine(false);
    let story = builder.native_commits(default).uses("actions/checkout@v4", &with).play().await;
    assert!(story.log().contains("no node to run the original"), "{}", story.log());
}

#[tokio::test]
async fn inputs_that_the_original_does_not_have_are_a_warning() {
    let unexpected = "Unexpected input(s)";
    let with = [("Path", "x"), ("show-progress", "false"), ("ssh-strict", "true")];
    let story = job().tree(&[("a", "")]).uses("actions/checkout@v4", &with).play().await;
    assert_eq!(story.result, JobResult::Success, "{}", story.log());
    assert!(!story.log().contains(unexpected), "{}", story.log());
    for (reference, with, expected) in [
        ("actions/checkout@v4", [("depth", "0"), ("clean", "")], "'depth', valid inputs are ['rep"),
        ("actions/cache@v4", [("key", "k"), ("paths", "a")], "'paths', valid inputs are ['path'"),
        ("actions/cache/save@v4", [("restore-keys", "k"), ("key", "k")], "'restore-keys', valid"),
        ("actions/upload-artifact@v4", [("pth", "a"), ("files", "a")], "'pth', 'files', valid"),
        ("actions/download-artifact@v4", [("a", "b"), ("path", "a")], "'a', valid inputs are"),
    ] {
        let story = job().tree(&[("a", "")]).uses(reference, &with).play().await;
        let text = format!("{unexpected} {expected}");
        assert!(story.log().contains(&text), "{reference}: {}", story.log());
    }
    // An original says it itself, and once.
    let with = [("lfs", "true"), ("other", "x")];
    let story = original_checkout(&with).await;
    assert!(is_original(&story));
    assert!(story.log().contains("Unexpected input(s) 'lfs', 'other', valid inputs are []"));
    assert_eq!(story.log().matches(unexpected).count(), 1, "{}", story.log());
}

#[tokio::test]
async fn a_cache_whose_service_is_down_is_a_warning() {
    let with = [("path", "a"), ("key", "k")];
    let story = job()
        .uses("actions/cache@v4", &with)
        .uses("actions/cache/restore@v4", &with)
        .run("echo x >a")
        .uses("actions/cache/save@v4", &with)
        .play()
        .await;
    assert_eq!(story.outcomes(), [(Success, Success); 4], "{}", story.log());
    assert_eq!(story.log().matches("Failed to restore: the service cache is down").count(), 2);
    assert_eq!(story.log().matches("Failed to save: the service cache is down").count(), 2);
    let must = [("path", "a"), ("key", "k"), ("fail-on-cache-miss", "true")];
    let story = job().uses("actions/cache@v4", &must).play().await;
    assert_eq!(story.result, JobResult::Failure);
    assert!(story.log().contains("fail-on-cache-miss is set"), "{}", story.log());
}

#[tokio::test]
async fn nothing_is_saved_when_nothing_is_there_or_the_job_failed() {
    let with = [("path", "none"), ("key", "k")];
    let story = job().uses("actions/cache@v4", &with).play().await;
    assert!(story.log().contains("Path Validation Error"), "{}", story.log());
    let story = job().uses("actions/cache@v4", &with).run("exit 1").play().await;
    assert!(!story.log().contains("Post Run"), "{}", story.log());
    let story = job().uses("actions/cache@v4", &[("key", "k")]).play().await;
    assert_eq!(story.result, JobResult::Failure);
    assert!(story.log().contains("Input required and not supplied: path"), "{}", story.log());
}
