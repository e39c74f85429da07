//! Jobs and what they are given: needs, outputs, conditions, context, secrets, attempts.

use forgejo_proto::runner::TaskResult;
use simulators::forgejo::{Forge, Profile, Status};

use crate::client::{Client, ONE, context};

use TaskResult::{RESULT_FAILURE as FAILURE, RESULT_SKIPPED as SKIPPED, RESULT_SUCCESS as SUCCESS};

const NEEDS: &str = "
jobs:
  leg:
    runs-on: vm
    strategy: {matrix: {x: [1, 2]}}
    outputs: {o: '${{ steps.s.outputs.o }}'}
    steps: [{id: s, run: x}]
  after: {needs: [leg], runs-on: vm, steps: [{run: x}]}
  always: {needs: leg, if: always(), runs-on: vm, steps: [{run: x}]}
  last: {needs: after, runs-on: vm, steps: [{run: x}]}
";

#[tokio::test]
async fn outputs_of_all_legs_are_merged() {
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    let run = forge.push_workflow("acme/widget", "ci.yml", NEEDS);
    assert_eq!(forge.view(run).job("after").status, Status::Blocked);
    let [one, two] = [client.task().await, client.task().await];
    assert!(client.next().await.is_none());
    client.finish(&one, SUCCESS, &[("o", "1"), ("p", "2")]).await;
    client.finish(&two, SUCCESS, &[("o", "")]).await;
    let after = client.task().await;
    assert_eq!(context(&after, "job").as_deref(), Some("after"));
    let need = &after.needs["leg"];
    assert_eq!(need.result, SUCCESS);
    assert_eq!(need.outputs.get("o").map(String::as_str), Some("1"), "not empty wins");
    assert_eq!(need.outputs.get("p").map(String::as_str), Some("2"));
    client.finish(&client.task().await, SUCCESS, &[]).await;
    client.finish(&after, SUCCESS, &[]).await;
    let last = client.task().await;
    assert_eq!(last.needs.keys().collect::<Vec<_>>(), ["after"], "direct needs only");
    client.finish(&last, SUCCESS, &[]).await;
    assert_eq!(forge.view(run).status, Status::Success);
    forge.assert_no_violations();
}

#[tokio::test]
async fn a_failed_need_skips_who_does_not_want_to_know() {
    for profile in [Profile::V11, Profile::V17, Profile::Gitea124] {
        let forge = Forge::start(profile).await;
        let client = Client::declared(&forge).await;
        let run = forge.push_workflow("acme/widget", "ci.yml", NEEDS);
        let [one, two] = [client.task().await, client.task().await];
        client.finish(&one, SUCCESS, &[]).await;
        client.finish(&two, FAILURE, &[]).await;
        let task = client.task().await;
        assert_eq!(context(&task, "job").as_deref(), Some("always"), "{profile:?}");
        assert_eq!(task.needs["leg"].result, FAILURE);
        assert!(client.next().await.is_none());
        client.finish(&task, SUCCESS, &[]).await;
        let view = forge.view(run);
        assert_eq!(view.job("after").status, Status::Skipped);
        assert_eq!(view.job("last").status, Status::Skipped);
        assert_eq!(view.status, Status::Failure);
    }
}

#[tokio::test]
async fn newer_servers_decide_what_they_can() {
    let file = "
jobs:
  no: {if: false, runs-on: vm, steps: [{run: x}]}
  ref: {if: \"github.ref == 'refs/heads/other'\", runs-on: vm, steps: [{run: x}]}
  env: {if: \"env.X == '1'\", runs-on: vm, steps: [{run: x}]}
  after: {needs: no, runs-on: vm, steps: [{run: x}]}
";
    let forge = Forge::start(Profile::V17).await;
    let client = Client::declared(&forge).await;
    let run = forge.push_workflow("acme/widget", "ci.yml", file);
    let view = forge.view(run);
    for job in ["no", "ref", "after"] {
        assert_eq!(view.job(job).status, Status::Skipped, "{job}");
    }
    let task = client.task().await;
    assert_eq!(context(&task, "job").as_deref(), Some("env"), "the runner has to know");

    let outputs = "
jobs:
  a: {runs-on: vm, steps: [{run: x}]}
  b: {needs: a, if: \"needs.a.outputs.go == 'no'\", runs-on: vm, steps: [{run: x}]}
  c: {needs: a, if: \"needs.a.outputs.go == 'yes'\", runs-on: vm, steps: [{run: x}]}
";
    let run = forge.push_workflow("acme/widget", "ci.yml", outputs);
    client.finish(&client.task().await, SUCCESS, &[("go", "yes")]).await;
    let view = forge.view(run);
    assert_eq!(view.job("b").status, Status::Skipped);
    assert_eq!(view.job("c").status, Status::Waiting);

    let older = Forge::start(Profile::V15).await;
    let client = Client::declared(&older).await;
    let run = older.push_workflow("acme/widget", "ci.yml", file);
    let task = client.task().await;
    assert_eq!(context(&task, "job").as_deref(), Some("no"), "the runner decides");
    client.finish(&task, SKIPPED, &[]).await;
    let view = older.view(run);
    assert_eq!(view.job("no").status, Status::Skipped);
    assert_eq!(view.job("after").status, Status::Skipped, "a skipped need is no success");
}

#[tokio::test]
async fn a_matrix_may_come_from_a_job() {
    let file = "
jobs:
  plan: {runs-on: vm, steps: [{run: x}]}
  leg:
    needs: plan
    runs-on: ${{ needs.plan.outputs.label }}
    strategy: {matrix: {x: '${{ fromJSON(needs.plan.outputs.list) }}'}}
    steps: [{run: x}]
  after: {needs: leg, runs-on: vm, steps: [{run: x}]}
";
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    let run = forge.push_workflow("acme/widget", "ci.yml", file);
    let plan = client.task().await;
    client.finish(&plan, SUCCESS, &[("label", "vm"), ("list", "[\"a\", \"b\"]")]).await;
    let answer = client.fetch_with(0, Some(9), None).await.unwrap();
    assert_eq!(answer.additional_tasks.len(), 1);
    let view = forge.view(run);
    assert_eq!(view.job("leg (a)").status, Status::Running);
    assert_eq!(view.job("leg (b)").status, Status::Running);
    assert_eq!(view.job("after").status, Status::Blocked);
}

#[tokio::test]
async fn every_key_of_the_context_is_there() {
    let file = format!("enable-openid-connect: true\n{ONE}");
    for profile in Profile::ALL {
        let forge = Forge::builder().profile(profile).sub_path("/git/").start().await;
        let client = Client::declared(&forge).await;
        let run = forge
            .trigger("acme/widget", "ci.yml", &file)
            .reference("refs/tags/v1")
            .sha("abc")
            .actor("bob")
            .push();
        let task = client.task().await;
        let url = forge.url();
        assert!(url.ends_with("/git"));
        let directory = if profile.is_gitea() { ".gitea" } else { ".forgejo" };
        let expected = [
            ("event_name", "push".to_owned()),
            ("ref", "refs/tags/v1".to_owned()),
            ("ref_name", "v1".to_owned()),
            ("ref_type", "tag".to_owned()),
            ("sha", "abc".to_owned()),
            ("base_ref", String::new()),
            ("head_ref", String::new()),
            ("repository", "acme/widget".to_owned()),
            ("repository_owner", "acme".to_owned()),
            ("actor", "bob".to_owned()),
            ("run_id", run.to_string()),
            ("run_number", "1".to_owned()),
            ("run_attempt", "1".to_owned()),
            ("job", "one".to_owned()),
            ("workflow", "ci.yml".to_owned()),
            ("workflow_ref", format!("acme/widget/{directory}/workflows/ci.yml@refs/tags/v1")),
            ("server_url", format!("{url}/")),
            ("api_url", format!("{url}/api/v1")),
            ("graphql_url", String::new()),
            ("retention_days", String::new()),
            ("secret_source", "Actions".to_owned()),
            ("gitea_default_actions_url", "https://data.forgejo.org".to_owned()),
            ("token", forge.token_of(task.id).unwrap()),
        ];
        for (key, value) in expected {
            assert_eq!(context(&task, key), Some(value), "{profile:?} {key}");
        }
        assert!(context(&task, "gitea_runtime_token").unwrap().split('.').count() == 3);
        assert_eq!(task.context.get("ref_protected").unwrap().as_bool(), Some(false));
        let event = task.context.get("event").unwrap().as_struct().unwrap();
        assert_eq!(event.get("ref").unwrap().as_str(), Some("refs/tags/v1"));
        let has = |key: &str| context(&task, key).is_some();
        assert_eq!(has("repository_id"), profile == Profile::V17, "{profile:?}");
        assert_eq!(has("forgejo_server_version"), profile.has_capacity(), "{profile:?}");
        let oidc =
            ["url", "token"].map(|part| has(&format!("forgejo_actions_id_token_request_{part}")));
        assert_eq!(oidc, [profile.has_oidc(); 2], "{profile:?}");
        let names = |name: &str| task.secrets.contains_key(name);
        assert!(names("GITHUB_TOKEN") && names("GITEA_TOKEN"));
        assert_eq!(names("FORGEJO_TOKEN"), !profile.is_gitea());
    }
}

#[tokio::test]
async fn forks_see_no_secrets() {
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    forge.set_secret("acme", "shared", "of the owner");
    forge.set_secret("acme", "both", "of the owner");
    forge.set_var("acme", "v", "of the owner");
    forge.set_var("", "i", "of the instance");
    let file = format!("enable-openid-connect: true\n{ONE}");
    let trigger = || {
        let trigger = forge.trigger("acme/widget", "ci.yml", &file).event("pull_request");
        trigger.secret("both", "of the repository").var("v", "of the repository")
    };
    trigger().push();
    let own = client.task().await;
    let mut names: Vec<_> = own.secrets.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["BOTH", "FORGEJO_TOKEN", "GITEA_TOKEN", "GITHUB_TOKEN", "SHARED"]);
    assert_eq!(own.secrets["BOTH"], "of the repository");
    assert_eq!(own.vars["V"], "of the owner", "the owner's wins");
    assert_eq!(own.vars["I"], "of the instance");
    assert_eq!(context(&own, "ref").as_deref(), Some("refs/pull/3/head"));
    assert_eq!(context(&own, "base_ref").as_deref(), Some("main"));
    assert_eq!(context(&own, "head_ref").as_deref(), Some("topic"));

    trigger().fork(true).push();
    let fork = client.task().await;
    assert_eq!(fork.secrets.len(), 3, "the aliases of its token");
    assert_eq!(context(&fork, "forgejo_actions_id_token_request_url"), None);

    trigger().event("pull_request_target").fork(true).push();
    let target = client.task().await;
    assert_eq!(target.secrets.len(), 5);
    assert_eq!(context(&target, "ref").as_deref(), Some("refs/heads/main"));
}

#[tokio::test]
async fn secrets_in_what_a_runner_sends_are_found() {
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    forge.trigger("acme/widget", "ci.yml", ONE).secret("K", "swordfish").push();
    let task = client.task().await;
    client.log(task.id, 0, &["fish"], false).await.unwrap();
    forge.assert_no_violations();
    client.log(task.id, 1, &["a swordfish"], false).await.unwrap();
    let token = context(&task, "token").unwrap();
    client.log(task.id, 2, &[&token], false).await.unwrap();
    let running = TaskResult::RESULT_UNSPECIFIED;
    client.update(task.id, running, Vec::new(), &[("o", "swordfish")]).await.unwrap();
    assert_eq!(forge.violations().len(), 3, "{:?}", forge.violations());
}

#[tokio::test]
async fn inputs_reach_labels_and_events() {
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    let file = "
on: {workflow_dispatch: {inputs: {label: {default: none}, other: {default: d}}}}
jobs: {a: {name: 'on ${{ inputs.label }}', runs-on: '${{ inputs.label }}', steps: [{run: x}]}}
";
    let trigger = forge.trigger("acme/widget", "ci.yml", file).event("workflow_dispatch");
    let run = trigger.input("label", "vm").push();
    assert_eq!(forge.view(run).jobs[0].name, "on vm");
    let task = client.task().await;
    let event = task.context.get("event").unwrap().as_struct().unwrap();
    let inputs = event.get("inputs").unwrap().as_struct().unwrap();
    assert_eq!(inputs.get("label").unwrap().as_str(), Some("vm"));
    assert_eq!(inputs.get("other").unwrap().as_str(), Some("d"));
}

#[tokio::test]
async fn an_attempt_has_its_own_task_and_log() {
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    let run = forge.push_workflow("acme/widget", "ci.yml", ONE);
    let first = client.task().await;
    let handle = forge.view(run).job("one").handle.clone();
    client.finish(&first, FAILURE, &[]).await;
    forge.rerun(run);
    assert_ne!(forge.view(run).job("one").handle, handle);
    let second = client.task().await;
    assert_ne!(second.id, first.id);
    assert_eq!(context(&second, "run_attempt").as_deref(), Some("2"));
    client.log(second.id, 0, &["anew"], false).await.unwrap();
    let view = forge.view(run);
    assert_eq!((view.attempt, view.job("one").log()), (2, vec!["anew"]));
    let older = forge.view_of_attempt(run, 1);
    assert_eq!(older.job("one").status, Status::Failure);
    assert_eq!(older.job("one").log().len(), 4);
    // The first is final; what its runner still says changes nothing of the second.
    client.beat(first.id).await.unwrap();
    assert_eq!(forge.view(run).job("one").status, Status::Running);
}
