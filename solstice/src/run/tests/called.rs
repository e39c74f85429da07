//! Workflows that call others.

use super::*;

/// A workflow that can be called.
const CALLED: &str = "
on:
  workflow_call:
    inputs:
      level: { type: number, default: 1 }
      name: { type: string, required: true }
    secrets:
      KEY: { required: true }
    outputs:
      version: { value: '${{ jobs.build.outputs.v }}-${{ inputs.level }}' }
jobs:
  build:
    runs-on: tiny
    outputs: { v: '${{ steps.s.outputs.v }}' }
    steps: [{ id: s, run: 'echo ${{ inputs.name }}' }]
  test:
    needs: build
    runs-on: tiny
    steps: [{ run: 'echo ${{ needs.build.outputs.v }}' }]
";

const CALLING: &str = "
deploy:
  uses: ./.github/workflows/called.yml
  with: { name: 'x${{ github.event_name }}', level: 3 }
  secrets: { KEY: '${{ secrets.DEPLOY }}' }
after: { runs-on: tiny, needs: deploy, steps: [{ run: 'echo' }] }
";

/// The caller, with what it calls and the secret that it hands on, which stands in the file.
fn calling() -> (Story, tempfile::NamedTempFile) {
    let secrets = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secrets.path(), "DEPLOY=1\n").unwrap();
    let story = jobs(CALLING).file("called.yml", CALLED);
    (story.with(&["--secrets-file", secrets.path().to_str().unwrap()]), secrets)
}

#[tokio::test]
async fn a_called_workflow_runs_its_jobs_and_gives_its_outputs() {
    let (story, _secrets) = calling();
    let ended = story.when("build", End::Passes(&[("v", "1.0")])).run().await;
    assert_eq!(ended.exit, Exit::Passed);
    assert_eq!(ended.names(), ["deploy / build", "deploy / test", "after"]);
    let build = ended.request("build");
    assert_eq!(build.body.contexts.inputs["name"], "xpush");
    assert_eq!(build.body.contexts.inputs["level"], 3);
    assert_eq!(build.body.secrets.keys().collect::<Vec<_>>(), ["KEY"]);
    let needs = &ended.request("test").body.contexts.needs;
    assert_eq!(needs["build"]["outputs"]["v"], "1.0");
    let needs = &ended.request("after").body.contexts.needs;
    let expected = serde_json::json!({ "result": "success", "outputs": { "version": "1.0-3" } });
    assert_eq!(needs["deploy"], expected);
}

#[tokio::test]
async fn a_called_workflow_that_fails_fails_its_caller() {
    let (story, _secrets) = calling();
    let ended = story.when("build", End::Fails).run().await;
    assert_eq!(ended.exit, Exit::Failed);
    let results: Vec<_> =
        ended.report.jobs.iter().map(|job| (job.name.as_str(), job.result)).collect();
    assert_eq!(
        results,
        [
            ("deploy / build", JobResult::Failure),
            ("deploy / test", JobResult::Skipped),
            ("after", JobResult::Skipped),
        ]
    );
}

#[tokio::test]
async fn each_leg_of_a_caller_runs_the_workflow_once() {
    let text = "
all:
  uses: ./.github/workflows/called.yml
  strategy: { max-parallel: 1, matrix: { name: [a, b] } }
  with: { name: '${{ matrix.name }}' }
  secrets: inherit
";
    let ended = jobs(text).file("called.yml", CALLED).run().await;
    assert_eq!(
        ended.names(),
        ["all (a) / build", "all (a) / test", "all (b) / build", "all (b) / test"]
    );
    let failing = jobs(text).file("called.yml", CALLED).when("build", End::Fails).run().await;
    assert_eq!(failing.exit, Exit::Failed);
    assert_eq!(failing.names(), ["all (a) / build", "all (a) / test"]);
}

#[tokio::test]
async fn a_call_that_does_not_fit_is_refused_before_anything_runs() {
    let refused = async |call: &str, called: &str| {
        let story = jobs(&format!("a: {call}")).file("called.yml", called);
        story.refused().await
    };
    let path = "./.github/workflows/called.yml";
    let found = refused("{ uses: ./.github/workflows/none.yml }", CALLED).await;
    assert!(found.contains("cannot read .github/workflows/none.yml"), "{found}");
    let found = refused("{ uses: ./../called.yml }", CALLED).await;
    assert!(found.contains("lies outside the repository"), "{found}");
    let other = "on: push\njobs: { x: { runs-on: tiny, steps: [{ run: x }] } }\n";
    let found = refused(&format!("{{ uses: {path} }}"), other).await;
    assert!(found.contains("its `on` has no `workflow_call`"), "{found}");
    let found = refused(&format!("{{ uses: {path}, secrets: inherit }}"), CALLED).await;
    assert!(found.contains("needs the input \"name\""), "{found}");
    let found = refused(&format!("{{ uses: {path}, with: {{ name: a }} }}"), CALLED).await;
    assert!(found.contains("needs the secret \"KEY\""), "{found}");
    let found =
        refused(&format!("{{ uses: {path}, secrets: inherit, with: {{ nam: a }} }}"), CALLED).await;
    assert!(found.contains("has no input \"nam\"\n"), "{found}");
    assert!(found.ends_with(" | did you mean \"name\"?"), "{found}");
    let circle = format!("on: workflow_call\njobs:\n  x: {{ uses: {path} }}\n");
    let found = refused(&format!("{{ uses: {path} }}"), &circle).await;
    assert!(found.contains("the calls go in a circle"), "{found}");
}
