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

/// What the action prints wherever it runs.
const PRE: &str = "pre: the cache says 204";
const CACHE: [&str; 5] =
    ["state: by pre", "before: null", "hit: js-1", "cache: 1570000 bytes", "again: 409"];
const POST: &str = "post: by pre and by main, the cache says 204";

/// An artifact of the runner's own goes to the action, and the action's to the runner's own.
#[tokio::test(flavor = "multi_thread")]
async fn an_action_in_javascript_and_the_natives_share_the_services_of_an_instance() {
    let server = server().await;
    let forge = Forge::builder().actions_url(server.url()).start().await;
    let story = connected(&forge)
        .env("SOLSTICE_FORGEJO_MAIN_LABELS", "tiny,debian-12-node")
        .env("SOLSTICE_ACTIONS_ALLOW", server.url());
    let service = story.serve();
    let workflow = r#"on: push
jobs:
  before:
    runs-on: tiny
    steps:
      - run: echo kept by a native >word
      - uses: actions/upload-artifact@v4
        with: { name: native, path: word }
  script:
    needs: before
    runs-on: debian-12-node
    outputs: { places: "${{ steps.js.outputs.places }}" }
    steps:
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
    runs-on: tiny
    steps:
      - uses: actions/download-artifact@v4
        with: { name: js-1 }
      - name: See
        run: cat word
"#;
    let run = forge.push_workflow("team/project", "services.yml", workflow);
    let view = forge.wait_for_run(run, RUN).await;
    let script = view.job("script");
    // What runs before the first step is printed in it.
    let first = script.step("Step").lines();
    assert!(first.contains(&PRE) && first.ends_with(&["steps have it"]), "{view}\n{first:#?}");
    let used = printed(script, "Use");
    let of_both = ["artifacts: js-1,native", "native has: kept by a native"];
    for line in CACHE.iter().chain(&of_both) {
        assert!(used.contains(line), "no {line:?}:\n{view}\n{used:#?}");
    }
    assert!(script.log().contains(&POST), "{view}\n{:#?}", script.log());
    assert_eq!(printed(script, "Places"), ["127.0.0.1"], "{view}");
    assert_eq!(printed(view.job("after"), "See"), ["kept by js-1"], "{view}");
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
