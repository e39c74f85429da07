//! Containers in a guest with podman: that of a job, its services, and images as actions.

use crate::harness::workflow;

/// The shell of the service waits at its terminal, and its health check makes a server of it.
const WORKFLOW: &str = r#"
on: push
jobs:
  inside:
    runs-on: debian-12-podman
    container: { image: localhost/busybox, env: { OF_THE_JOB: mine } }
    services: &services
      web:
        image: localhost/busybox
        env: { WORD: served }
        ports: [8080]
        options: >-
          --tty --health-interval 10s
          --health-cmd "pidof httpd || { echo $WORD >/tmp/word && httpd -p 8080 -h /tmp; }"
    outputs: { word: "${{ steps.ask.outputs.word }}" }
    steps:
      - uses: actions/checkout@v4
      - uses: actions/cache@v4
        with: { path: made, key: made-1 }
      - id: ask
        run: |
          if [ -e /etc/debian_version ]; then exit 1; fi
          echo "$OF_THE_JOB at $PWD with $(cat seed)"
          echo "word=$(wget -q -O- http://web:8080/word)" >>"$GITHUB_OUTPUT"
          mkdir made; echo "kept by a container" >made/word
      - uses: actions/upload-artifact@v4
        with: { name: made, path: "${{ github.workspace }}/made" }
      - uses: docker://localhost/busybox
        with: { args: "sh -c 'cat made/word; wget -q -O- http://web:8080/word'" }
      - run: echo "it was ${{ steps.ask.outputs.word }}"
  beside:
    needs: inside
    runs-on: debian-12-podman
    services: *services
    steps:
      - uses: actions/checkout@v4
      - uses: actions/cache/restore@v4
        with: { path: made, key: made-1, fail-on-cache-miss: true }
      - uses: actions/download-artifact@v4
        with: { name: made, path: got }
      - run: |
          cmp made/word got/word
          cat made/word
          echo "to the machine: $(curl -sS http://127.0.0.1:${{ job.services.web.ports['8080'] }}/word)"
      - id: shout
        uses: ./shout
        with: { word: "${{ needs.inside.outputs.word }}" }
      - run: echo "and now ${{ steps.shout.outputs.loud }}"
"#;

/// An action that is built on the image of the machine.
const ACTION: &str = r#"
inputs: { word: { required: true } }
outputs: { loud: {} }
runs:
  using: docker
  image: Dockerfile
  args: ["${{ inputs.word }}"]
  post-entrypoint: /post.sh
"#;

const DOCKERFILE: &str =
    "FROM localhost/busybox\nCOPY --chmod=755 *.sh /\nENTRYPOINT [\"/main.sh\"]\n";

const MAIN: &str = r#"#!/bin/sh -e
echo "$INPUT_WORD at $PWD with $(cat seed)"
echo "to the action: $(wget -q -O- http://web:8080/word)"
ask="${ACTIONS_CACHE_URL}_apis/artifactcache/cache?keys=none&version=none"
echo "the cache: $(wget -S -O /dev/null "$ask" 2>&1 | grep -o '204 .*')"
echo "loud=$(echo "$1" | tr a-z A-Z)" >>"$GITHUB_OUTPUT"
echo "word=$1" >>"$GITHUB_STATE"
"#;

const POST: &str = "#!/bin/sh\necho \"post: $STATE_word\"\n";

#[test]
fn jobs_services_and_actions_run_in_containers() {
    workflow(WORKFLOW)
        .file("seed", "a file of the tree\n")
        .file("shout/action.yml", ACTION)
        .file("shout/Dockerfile", DOCKERFILE)
        .file("shout/main.sh", MAIN)
        .file("shout/post.sh", POST)
        .run()
        .code(0)
        .shows_in_order(&[
            "inside | ",
            "native checkout (for actions/checkout@v4)",
            "Cache not found for input keys: made-1",
            "  mine at /__w/repo/repo with a file of the tree",
            "Artifact made has been uploaded",
            "  kept by a container",
            "  served",
            "  it was served",
            "Cache saved with key: made-1",
            "beside | ",
            "Cache restored from key: made-1",
            "  kept by a container",
            "  to the machine: served",
            "  served at /github/workspace with a file of the tree",
            "  to the action: served",
            "  the cache: 204 No Content",
            "  and now SERVED",
            "post: served",
        ]);
}
