//! `uses:` of actions in guests without git, without node and without a way to where the actions are.

use simulators::GitServer;
use simulators::forgejo::Forge;

use crate::forgejo::{RUN, connected, printed};
use crate::harness::{Story, steps};

/// Says what it was given, and has a script beside its file.
const GREET: &str = r#"
name: Greet
inputs:
  who: { required: true }
  word: { default: Hello }
outputs:
  said: { value: "${{ steps.say.outputs.said }}" }
runs:
  using: composite
  steps:
    - id: say
      shell: sh
      env: { WORD: "${{ inputs.word }}", WHO: "${{ inputs.who }}" }
      run: sh "$GITHUB_ACTION_PATH/say.sh"
"#;

const SAY: &str = "echo \"$WORD, $WHO\"\necho \"said=$WORD, $WHO\" >>\"$GITHUB_OUTPUT\"\n";

/// Uses the other one.
const TWICE: &str = r#"
inputs: { who: {} }
runs:
  using: composite
  steps:
    - uses: own/greet@v1
      with: { who: "${{ inputs.who }}" }
    - uses: own/greet/again@v1
      with: { who: "${{ inputs.who }}", word: Again }
"#;

const SCRIPTED: &str = "runs: { using: node24, main: main.js }\n";

/// A forge for actions.
async fn server() -> GitServer {
    let server = GitServer::start().await;
    let files = [
        ("action.yml", GREET),
        ("say.sh", SAY),
        ("again/action.yml", GREET),
        ("again/say.sh", SAY),
    ];
    let commit = server.commit("own/greet", &files);
    server.tag("own/greet", "v1", &commit, true);
    server.commit("own/twice", &[("action.yml", TWICE)]);
    server.commit("own/scripted", &[("action.yml", SCRIPTED)]);
    server
}

fn with_actions(story: Story, server: &GitServer) -> Story {
    story.env("SOLSTICE_ACTIONS_GITHUB", server.url())
}

/// Runs a story, which blocks.
async fn run(story: Story) -> crate::harness::Ended {
    tokio::task::spawn_blocking(|| story.run()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_made_of_steps_run_in_a_guest_without_git() {
    let server = server().await;
    let story = steps(
        r#"
- run: if command -v git; then exit 1; fi
- id: greet
  uses: own/greet@v1
  with: { who: guest }
- run: echo "it said ${{ steps.greet.outputs.said }}"
- uses: own/twice@main
  with: { who: you }
- uses: actions/checkout@v4
- uses: ./.github/actions/local
"#,
    )
    .file(
        ".github/actions/local/action.yml",
        "runs: { using: composite, steps: [ { run: echo local, shell: sh } ] }\n",
    );
    run(with_actions(story, &server)).await.code(0).shows_in_order(&[
        "Download action 'own/greet@v1' (SHA:",
        "Hello, guest",
        "it said Hello, guest",
        "Hello, you",
        "Again, you",
        "local",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_fetched_or_run_says_why() {
    let server = server().await;
    for (uses, expected) in [
        ("own/missing@v1", "own/missing does not exist, or this job may not read it (404"),
        ("own/greet@v9", "has no branch or tag v9"),
        ("own/scripted@main", "is written in JavaScript, and this machine has no node"),
        ("https://127.0.0.1:1/own/greet@v1", "belongs to this host or to a private network"),
        ("http://forge.invalid/own/greet@v1", "because it is not https"),
    ] {
        let story = steps(&format!("- run: echo first\n- uses: {uses}"));
        run(with_actions(story, &server)).await.code(1).shows(expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_an_instance_uses_actions_from_where_the_instance_says() {
    let server = server().await;
    let forge = Forge::builder().actions_url(server.url()).start().await;
    let story = connected(&forge).env("SOLSTICE_ACTIONS_ALLOW", server.url());
    let service = story.serve();
    let workflow = r#"on: push
jobs:
  job:
    runs-on: omnios-like
    steps:
      - { name: Greet, id: greet, uses: own/twice@main, with: { who: page } }
      - { name: After, run: "echo after" }
"#;
    let run = forge.push_workflow("team/project", "uses.yml", workflow);
    let view = forge.wait_for_run(run, RUN).await;
    let job = view.job("job");
    let lines = printed(job, "Greet");
    let said: Vec<&&str> = lines.iter().filter(|line| line.ends_with(", page")).collect();
    assert_eq!(said, [&"Hello, page", &"Again, page"], "{view}");
    assert_eq!(printed(job, "After"), ["after"], "{view}");
    forge.assert_no_violations();
    service.stop();
    drop(story);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_an_instance_checks_out_without_git() {
    let forge = Forge::builder().start().await;
    let first = forge.git().commit("team/project", &[("build.sh", "echo the first\n")]);
    let files = [("build.sh", "echo built $(cat data/word)\n"), ("data/word", "here\n")];
    let commit = forge.git().commit("team/project", &files);
    let action =
        "runs: { using: composite, steps: [ { run: echo of the repository, shell: sh } ] }\n";
    forge.git().commit("team/tools", &[("action.yml", action)]);
    forge.make_public("team/tools");
    let story = connected(&forge);
    let service = story.serve();
    let workflow = format!(
        r#"on: push
jobs:
  job:
    runs-on: omnios-like
    steps:
      - {{ name: Checkout, id: tree, uses: actions/checkout@v4 }}
      - {{ name: Build, run: "sh build.sh; cat .git/HEAD; echo ${{{{ steps.tree.outputs.commit }}}}" }}
      - {{ name: Other, uses: "https://code.forgejo.org/actions/checkout@v4", with: {{ ref: {first}, path: old }} }}
      - {{ name: Old, run: sh old/build.sh }}
      - {{ name: Tools, uses: actions/checkout@v4, with: {{ repository: team/tools, path: tools }} }}
      - {{ name: Use, uses: ./tools }}
      - {{ name: Private, uses: actions/checkout@v4, with: {{ repository: team/secret }} }}
"#
    );
    let run = forge.trigger("team/project", "ci.yml", &workflow).sha(&commit).push();
    let view = forge.wait_for_run(run, RUN).await;
    let job = view.job("job");
    assert_eq!(printed(job, "Build"), ["built here", "ref: refs/heads/main", &commit], "{view}");
    let notice = "native checkout (for actions/checkout@v4): team/project at refs/heads/main";
    assert!(printed(job, "Checkout").contains(&notice), "{view}");
    assert_eq!(printed(job, "Old"), ["the first"], "{view}");
    assert!(printed(job, "Use").contains(&"of the repository"), "{view}");
    let refused = printed(job, "Private").join("\n");
    assert!(refused.contains("does not exist, or this job may not read it (401"), "{view}");
    forge.assert_no_violations();
    service.stop();
    drop(story);
}
