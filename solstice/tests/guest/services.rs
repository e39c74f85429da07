//! What jobs keep for later jobs: caches and artifacts, in guests that have nothing but a shell.

use simulators::forgejo::{Forge, Profile};

use crate::forgejo::{RUN, connected, printed};
use crate::harness::workflow;

const CACHES: &str = r#"
on: push
jobs:
  save:
    runs-on: tiny
    steps: &steps
      - uses: actions/checkout@v4
      - id: cache
        uses: actions/cache@v4
        with:
          path: |
            made
            ~/tools
            !made/not
          key: k-${{ hashFiles('lock') }}-${{ github.job }}
          restore-keys: k-
      - run: |
          echo "$GITHUB_JOB hit=[${{ steps.cache.outputs.cache-hit }}]"
          if [ -d made ]; then
            sha256sum -c sums && cat made/link/word ~/tools/word && ls made
            test -x ~/tools/word
          fi
      - run: |
          mkdir -p made/deep made/not ~/tools
          echo deep >made/deep/word; ln -s deep made/link; echo tool >~/tools/word
          chmod 755 ~/tools/word
          dd if=/dev/urandom of=made/large bs=1048576 count=9 2>/dev/null
          sha256sum made/large made/deep/word >made/sums
        if: github.job == 'save'
  restore:
    needs: save
    runs-on: tiny
    steps: *steps
"#;

#[test]
fn a_cache_is_restored_in_another_machine() {
    let workflow = CACHES.replace("sha256sum -c sums", "sha256sum -c made/sums");
    workflow_of(&workflow).run().code(0).shows_in_order(&[
        "native cache (for actions/cache@v4)",
        "Cache not found for input keys: k-",
        "save hit=[]",
        "Cache saved with key: k-",
        "Cache restored from key: k-",
        "restore hit=[false]",
        "made/large: OK",
        "deep",
        "tool",
        "Cache saved with key: k-",
    ]);
}

fn workflow_of(text: &str) -> crate::harness::Story {
    workflow(text).file("lock", "1")
}

/// What a program of a step sees: `ACTIONS_CACHE_URL` leads to the service.
#[test]
fn programs_reach_the_services_at_their_own_machine() {
    let script = r#"
on: push
jobs:
  job:
    runs-on: tiny
    steps:
      - run: |
          case $ACTIONS_CACHE_URL in http://127.0.0.1:*/) ;; *) exit 1;; esac
          api=${ACTIONS_CACHE_URL}_apis/artifactcache
          wget -q -O reserved --post-data '{"key":"a","version":"v"}' $api/caches
          cat reserved; echo
          if wget -q -O- --post-data '{"key":1}' $api/caches; then exit 1; fi
          if wget -q -O- ${ACTIONS_CACHE_URL}elsewhere; then exit 1; fi
          echo the end
"#;
    let story = workflow(script).with(&["--dialect", "forgejo"]);
    story.run().code(0).shows_in_order(&["{\"cacheId\":", "the end"]);
}

const ARTIFACTS: &str = r#"
on: push
jobs:
  make:
    runs-on: RUNS_ON
    steps:
      - name: Make
        run: mkdir -p out/deep; echo one >out/one; echo two >out/deep/two; chmod 755 out/one; echo x >out/.hidden
      - name: Upload
        id: up
        uses: actions/upload-artifact@v4
        with: { name: made, path: out/ }
      - name: File
        uses: actions/upload-artifact@v4
        with: { name: file, path: "out/deep/two\n!out/none", compression-level: 0 }
      - name: Again
        uses: actions/upload-artifact@v4
        with: { name: made, path: out }
        continue-on-error: true
      - name: Over
        uses: actions/upload-artifact@v4
        with: { name: file, path: out/deep/two, overwrite: true }
      - name: Older
        uses: actions/upload-artifact@v3
        with: { name: older, path: out/ }
      - name: More
        run: mkdir more; echo three >more/three; touch more/empty; dd if=/dev/zero of=more/large bs=1000000 count=9
      - name: Older with more
        uses: actions/upload-artifact@v3
        with: { name: older, path: "more/*" }
      - name: Nothing
        uses: actions/upload-artifact@v4
        with: { path: none }
      - name: Say
        run: |
          test -n "${{ steps.up.outputs.artifact-id }}"
          echo "digest ${{ steps.up.outputs.artifact-digest }}"
  use:
    needs: make
    runs-on: RUNS_ON
    steps:
      - name: One
        uses: actions/download-artifact@v4
        with: { name: made, path: got }
      - name: All
        uses: actions/download-artifact@v4
        with: { path: all }
      - name: Older
        uses: actions/download-artifact@v3
        with: { name: older, path: old }
      - name: All older
        uses: actions/download-artifact@v3
        with: { path: older }
      - name: See
        run: |
          cat got/one got/deep/two all/made/one all/file/two
          test -x got/one
          test ! -e got/.hidden
          test ! -e all/older
          cat old/one old/deep/two older/older/three
          test ! -s old/empty && test -f old/empty
          test $(wc -c <old/large) = 9000000
          cmp old/large older/older/large
      - name: Missing
        uses: actions/download-artifact@v4
        with: { name: other }
"#;

#[test]
fn artifacts_go_from_one_machine_to_another() {
    let story = workflow(&ARTIFACTS.replace("RUNS_ON", "tiny"));
    story.run().code(1).shows("Artifacts: ").shows_in_order(&[
        "native upload-artifact (for actions/upload-artifact@v4)",
        "Artifact made has been uploaded: ID",
        "an artifact with the name made already exists in this run (409)",
        "Artifact file has been uploaded",
        "Artifact older has been uploaded: 2 files, 8 bytes",
        "Artifact older has been uploaded: 3 files, 9000006 bytes",
        "No files were found with the provided path: none. No artifacts will be uploaded.",
        "digest ",
        "one",
        "two",
        "one",
        "two",
        "one",
        "two",
        "three",
        "Artifact not found for name other",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_of_an_instance_are_on_the_instance() {
    let forge = Forge::builder().start().await;
    let story = connected(&forge);
    let service = story.serve();
    let workflow = ARTIFACTS.replace("RUNS_ON", "omnios-like");
    let run = forge.push_workflow("team/project", "artifacts.yml", &workflow);
    let view = forge.wait_for_run(run, RUN).await;
    let expected = ["one", "two", "one", "two", "one", "two", "three"];
    assert_eq!(printed(view.job("use"), "See"), expected, "{view}");
    let missing = printed(view.job("use"), "Missing").join("\n");
    assert!(missing.contains("Artifact not found for name other"), "{view}");
    let mut names: Vec<String> = forge.artifacts(run).into_iter().map(|one| one.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names, ["file", "made", "older"], "{view}");
    forge.assert_no_violations();
    service.stop();
    drop(story);
}

/// A program asks for a token that says who the job is, without a way to the instance.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_an_instance_gets_a_token_that_says_who_it_is() {
    let forge = Forge::builder().profile(Profile::V15).start().await;
    let story = connected(&forge);
    let service = story.serve();
    let workflow = r#"on: push
enable-openid-connect: true
jobs:
  job:
    runs-on: omnios-like
    steps:
      - name: Ask
        run: |
          case $ACTIONS_ID_TOKEN_REQUEST_URL in http://127.0.0.1:*) ;; *) exit 1;; esac
          url="$ACTIONS_ID_TOKEN_REQUEST_URL&audience=vault"
          wget -q -O token --header "Authorization: bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN" "$url"
          # A token would be masked if it were known; it is printed in pieces.
          sed 's/.*"value":"\([^"]*\)".*/\1/' token | sed 's/\./ . /g'; echo
          if wget -q -O- "${ACTIONS_ID_TOKEN_REQUEST_URL%/idtoken*}/../../api/v1/user" 2>&1; then exit 1; fi
"#;
    let run = forge.push_workflow("team/project", "oidc.yml", workflow);
    let view = forge.wait_for_run(run, RUN).await;
    let printed = printed(view.job("job"), "Ask");
    let token = printed.iter().find(|line| line.starts_with("eyJ"));
    let token = token.unwrap_or_else(|| panic!("{view}")).replace(' ', "");
    let claims = Forge::id_token(&token).unwrap_or_else(|| panic!("{token}: {view}"));
    assert_eq!(claims["aud"], "vault", "{claims}");
    assert_eq!(claims["repository"], "team/project", "{claims}");
    service.stop();
    drop(story);
}
