//! An action in JavaScript, in a guest with node, and the services of its job: it speaks to them as a
//! client that knows the forge's protocols and nothing of us.

use simulators::GitServer;
use simulators::forgejo::{Forge, Status};

use crate::forgejo::{RUN, connected, printed};
use crate::harness::workflow;

/// A forge for actions, with `own/services`.
async fn server() -> GitServer {
    let server = GitServer::start().await;
    server.commit(
        "own/services",
        &[
            ("action.yml", include_str!("node/action.yml")),
            ("ask.js", include_str!("node/ask.js")),
            ("zip.js", include_str!("node/zip.js")),
            ("pre.js", include_str!("node/pre.js")),
            ("main.js", include_str!("node/main.js")),
            ("post.js", include_str!("node/post.js")),
        ],
    );
    server
}

const REPOSITORY: &str = "team/project";
/// What the action prints wherever it runs.
const PRE: &str = "pre: the cache says 204";
const CACHE: [&str; 5] =
    ["state: by pre", "before: null", "hit: js-1", "cache: 1570000 bytes", "again: 409"];
const POST: &str = "post: by pre and by main, the cache says 204";

/// The commits of the instance's repository, and the files that each adds.
const COMMITS: usize = 50;
const FILES: usize = 100;

/// A large repository is there on guests with and without node; a cache and artifacts of the runner's
/// own go from guest to guest, and one goes to the action; the action's goes to the runner's own.
#[tokio::test(flavor = "multi_thread")]
async fn an_action_in_javascript_and_the_natives_share_the_services_of_an_instance() {
    let server = server().await;
    let forge = Forge::builder().actions_url(server.url()).start().await;
    let story = connected(&forge)
        .env("SOLSTICE_FORGEJO_MAIN_LABELS", "tiny,debian-12,debian-12-node")
        .env("SOLSTICE_ACTIONS_ALLOW", server.url());
    let service = story.serve();
    let stream = simulators::history(COMMITS, FILES);
    let commit = forge.git().import(REPOSITORY, stream.as_bytes());
    let workflow = r#"on: push
jobs:
  save:
    runs-on: tiny
    steps:
      - run: echo kept by a native >word
      - uses: actions/cache/save@v4
        with: { path: word, key: native-1 }
  before:
    needs: save
    runs-on: tiny
    steps:
      - &checkout
        name: Checkout
        uses: actions/checkout@v4
        with: { fetch-depth: 0 }
      - &count
        name: Count
        run: |
          find src -type f | wc -l
          test ! -e .git/shallow && cat .git/HEAD
          tail -n 1 src/part-49/file-99.rs
      - uses: actions/cache/restore@v4
        with: { path: word, key: native-, restore-keys: native-, fail-on-cache-miss: true }
      - uses: actions/upload-artifact@v4
        with: { name: native, path: word }
  script:
    needs: before
    runs-on: debian-12-node
    outputs: { places: "${{ steps.js.outputs.places }}" }
    steps:
      - *checkout
      - *count
      - name: Step
        run: case $ACTIONS_CACHE_URL in http://127.0.0.1:*/) echo "steps have it";; esac
      - name: Use
        id: js
        uses: own/services@main
        with: { name: js-1, look: native }
      - name: Places
        run: echo "${{ steps.js.outputs.places }}"
  after:
    needs: script
    runs-on: debian-12
    steps:
      - *checkout
      - name: Git
        run: |
          git status --short --branch && git log --oneline | wc -l
          echo more >>src/part-0/file-0.rs && git -c user.name=a -c user.email=b commit -qam more
          git log --format=%s -n 2
      - uses: actions/download-artifact@v4
      - name: See
        run: cat js-1/word native/word
"#;
    let run = forge.trigger(REPOSITORY, "services.yml", workflow).sha(&commit).push();
    let view = forge.wait_for_run(run, RUN).await;
    let script = view.job("script");
    let files = (COMMITS * FILES).to_string();
    for job in [view.job("before"), script] {
        let expected = [&files, "ref: refs/heads/main", "// The file 99 of part 49."];
        assert_eq!(printed(job, "Count"), expected, "{view}");
    }
    // What runs before the first step is printed in it.
    let first = script.step("Checkout").lines();
    assert!(first.contains(&PRE), "{view}\n{first:#?}");
    assert_eq!(printed(script, "Step"), ["steps have it"], "{view}");
    let used = printed(script, "Use");
    let of_both = ["artifacts: js-1,native", "native has: kept by a native"];
    for line in CACHE.iter().chain(&of_both) {
        assert!(used.contains(line), "no {line:?}:\n{view}\n{used:#?}");
    }
    assert!(script.log().contains(&POST), "{view}\n{:#?}", script.log());
    assert_eq!(printed(script, "Places"), ["127.0.0.1"], "{view}");
    // The guest's own git goes on with what the host has made.
    let known = ["## main...origin/main", &COMMITS.to_string(), "more", "Part 49"];
    assert_eq!(printed(view.job("after"), "Git"), known, "{view}");
    let seen = ["kept by js-1", "kept by a native"];
    assert_eq!(printed(view.job("after"), "See"), seen, "{view}");
    assert_eq!(view.status, Status::Success, "{view}");
    let mut names: Vec<String> = forge.artifacts(run).into_iter().map(|one| one.name).collect();
    names.sort();
    assert_eq!(names, ["js-1", "native"], "{view}");
    forge.assert_no_violations();
    service.stop();
    drop(story);
}

/// By the rules of GitHub only actions are told of the services, and the second version of the cache is
/// announced.
#[tokio::test(flavor = "multi_thread")]
async fn an_action_in_javascript_uses_the_services_of_a_run_without_a_forge() {
    let server = server().await;
    let text = r#"on: push
jobs:
  script:
    runs-on: debian-12-node
    steps:
      - run: env | grep '^ACTIONS_' || echo "steps are told nothing"
      - id: js
        uses: own/services@main
        with: { name: js-1 }
      - run: echo "at ${{ steps.js.outputs.places }}"
  after:
    needs: script
    runs-on: tiny
    steps:
      - uses: actions/download-artifact@v4
        with: { name: js-1 }
      - run: cat word
"#;
    let story = workflow(text).env("SOLSTICE_ACTIONS_GITHUB", server.url());
    let ended = tokio::task::spawn_blocking(|| story.run()).await.unwrap();
    let before = [PRE, "steps are told nothing"];
    let after = [
        "second hit: js-1",
        "second cache: 100000 bytes",
        "artifacts: js-1",
        "at 127.0.0.1",
        POST,
        "kept by js-1",
    ];
    ended.code(0).shows_in_order(&[&before[..], &CACHE[..], &after[..]].concat());
}
