//! Tasks as servers hand them out.

use common::plan::{StepAction, Value as PlanValue};
use forgejo_proto::protobuf::{ListValue, Struct, Value};
use forgejo_proto::runner::{TaskNeed, TaskResult};
use serde_json::{Value as Json, json};

use super::*;

const PAYLOAD: &str = "
name: ci
\"on\": { workflow_dispatch: { inputs: { fast: { type: boolean }, who: { default: you } } } }
env: { COLOR: \"1\" }
jobs:
  unit:
    name: unit (20)
    runs-on: [big, tiny]
    if: needs.build.result == 'success'
    timeout-minutes: 5
    steps:
      - uses: actions/checkout@v4
      - run: echo ${{ matrix.node }} ${{ needs.build.outputs.path }}
    outputs: { report: '${{ steps.t.outputs.path }}' }
    strategy: { matrix: { node: ['20'] } }
";

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::null(),
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => number.as_f64().unwrap_or_default().into(),
        Json::String(text) => text.clone().into(),
        Json::Array(items) => {
            let values = items.iter().map(value).collect();
            ListValue { values, ..ListValue::default() }.into()
        }
        Json::Object(_) => Value::from(structure(json)),
    }
}

fn structure(json: &Json) -> Struct {
    let fields = json.as_object().into_iter().flatten();
    let mut built = Struct::default();
    for (name, field) in fields {
        built.fields.insert(name.clone(), value(field));
    }
    built
}

fn task(payload: &str) -> Task {
    let context = json!({
        "event": { "inputs": { "fast": "true" }, "number": 3 },
        "event_name": "workflow_dispatch",
        "repository": "team/project",
        "workflow": "ci.yml",
        "server_url": "https://public.example/",
        "token": "job-token",
        "gitea_runtime_token": "runtime",
        "gitea_default_actions_url": "https://data.forgejo.org",
        "forgejo_server_version": "15.0.3",
        "forgejo_actions_id_token_request_token": "id",
        "forgejo_actions_id_token_request_url":
            "https://public.example/api/actions/_apis/pipelines/workflows/1/idtoken?placeholder=true",
        "ref_protected": false,
    });
    let mut task = Task {
        id: 7,
        workflow_payload: Some(payload.as_bytes().to_vec()),
        context: Some(structure(&context)).into(),
        ..Task::default()
    };
    task.secrets.insert("KEY".to_owned(), "s3cret".to_owned());
    task.secrets.insert("FORGEJO_TOKEN".to_owned(), "job-token".to_owned());
    task.vars.insert("REGION".to_owned(), "north".to_owned());
    let mut need = TaskNeed { result: TaskResult::RESULT_SUCCESS.into(), ..TaskNeed::default() };
    need.outputs.insert("path".to_owned(), "a/b".to_owned());
    task.needs.insert("build".to_owned(), need);
    task
}

fn translated(task: &Task) -> Translated {
    let labels: Vec<Label> = ["tiny", "big:vm://debian-12?cpus=4"]
        .iter()
        .map(|text| text.parse().expect("a label"))
        .collect();
    let origin = Origin {
        url: "http://forge.internal:3000",
        kind: Some(Kind::Forgejo),
        labels: &labels,
        reply_to: "forgejo-1",
    };
    translate(task, &origin, None)
}

fn request(task: &Task) -> JobRequest {
    match translated(task).work {
        Work::Run(request) => *request,
        Work::End(conclusion, lines) => panic!("{conclusion:?} {lines:?}"),
    }
}

fn ended(payload: &str) -> (Conclusion, String, usize) {
    let translated = translated(&task(payload));
    match translated.work {
        Work::End(conclusion, lines) => (conclusion, lines.join("\n"), translated.steps),
        Work::Run(_) => panic!("it runs"),
    }
}

#[test]
fn a_task_becomes_a_request() {
    let JobRequest { envelope, body } = request(&task(PAYLOAD));
    assert_eq!(envelope.label, "debian-12");
    assert_eq!(envelope.size.cpus, Some(4));
    assert_eq!(envelope.repository, "team/project");
    assert_eq!(envelope.deadlines.running, Duration::from_secs(300));
    assert_eq!(envelope.reply_to, "forgejo-1");
    assert_eq!(body.plan.name, "unit (20)");
    assert_eq!(body.plan.dialect, Dialect::Forgejo);
    assert_eq!(body.plan.server_version.as_deref(), Some("15.0.3"));
    assert_eq!(body.plan.steps.len(), 2);
    let StepAction::Run { script, .. } = &body.plan.steps[1].action else { panic!() };
    assert!(matches!(script, PlanValue::Template(_)));
    assert_eq!(body.contexts.matrix, json!({"node": "20"}));
    assert_eq!(Json::Object(body.contexts.vars), json!({"REGION": "north"}));
    let needs = json!({"build": {"result": "success", "outputs": {"path": "a/b"}}});
    assert_eq!(Json::Object(body.contexts.needs), needs);
    assert_eq!(Json::Object(body.contexts.inputs), json!({"fast": true, "who": "you"}));
    let github = Json::Object(body.contexts.github);
    assert_eq!(github["server_url"], "http://forge.internal:3000");
    assert_eq!(github["api_url"], "http://forge.internal:3000/api/v1");
    assert_eq!(github["event"]["number"], 3);
    assert_eq!(github["ref_protected"], false);
    assert!(!github.to_string().contains("runtime"), "{github}");
    assert!(body.has_checkout);
}

#[test]
fn tokens_are_masked_and_reach_the_services() {
    let JobBody { masks, secrets, services, .. } = request(&task(PAYLOAD)).body;
    let masked: Vec<&str> = masks.iter().map(Secret::expose).collect();
    // `printf x-access-token:job-token | base64`
    let basic = "eC1hY2Nlc3MtdG9rZW46am9iLXRva2Vu";
    for value in ["id", "job-token", "runtime", basic] {
        assert!(masked.contains(&value), "{value}: {masked:?}");
    }
    let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["artifacts", "oidc"]);
    for service in &services {
        assert_eq!(service.base_url, "http://forge.internal:3000");
        let token = service.token.as_ref().expect("a token");
        assert!(secrets.contains_key(token), "{token}");
    }
    assert_eq!(services[1].paths, ["/api/actions/_apis/pipelines/workflows/1/idtoken"]);
}

#[test]
fn what_an_error_quotes_is_masked() {
    let job = "runs-on: job-token, steps: [{ run: a }]";
    let (_, text, _) = ended(&format!("jobs: {{ a: {{ {job} }} }}"));
    assert!(text.contains("***") && !text.contains("job-token"), "{text}");
}

#[test]
fn a_secret_that_is_a_part_of_another_leaves_nothing_of_it() {
    let mut lines = ["is abcdef".to_owned()];
    hide(&mut lines, ["abc", "", "abcdef"].map(Secret::new).to_vec());
    assert_eq!(lines, ["is ***"]);
}

#[test]
fn a_condition_is_decided_before_a_machine_starts() {
    let mut failed = task(PAYLOAD);
    if let Some(need) = failed.needs.get_mut("build") {
        need.result = TaskResult::RESULT_FAILURE.into();
    }
    let translated = translated(&failed);
    assert!(matches!(translated.work, Work::End(Conclusion::Skipped, _)), "{translated:?}");
    assert_eq!(translated.steps, 2);
    let by_default = PAYLOAD.replace("    if: needs.build.result == 'success'\n", "");
    if let Some(need) = failed.needs.get_mut("build") {
        need.result = TaskResult::RESULT_SKIPPED.into();
    }
    failed.workflow_payload = Some(by_default.into_bytes());
    let translated = super::tests::translated(&failed);
    assert!(
        matches!(translated.work, Work::End(Conclusion::Skipped, _)),
        "success() needs success"
    );
}

#[test]
fn what_cannot_run_is_answered_in_the_log() {
    let (end, text, steps) = ended("jobs: [");
    assert!(end == Conclusion::Failure && text.contains("The workflow cannot run"), "{text}");
    assert_eq!(steps, 0);
    let step = "steps: [{ run: a }, { run: b }]";
    let (_, text, steps) = ended(&format!("jobs: {{ a: {{ runs-on: nowhere, {step} }} }}"));
    assert!(text.contains("`runs-on` names nowhere, and this runner has tiny, big"), "{text}");
    assert_eq!(steps, 2);
    let (_, text, _) = ended(&format!(
        "jobs: {{ a: {{ runs-on: tiny, services: {{ db: {{ ports: [80] }} }}, {step} }} }}"
    ));
    assert!(text.contains("the service \"db\" has no `image`"), "{text}");
    let (_, text, _) = ended("jobs: { a: { runs-on: tiny, uses: ./b.yml } }");
    assert!(text.contains("remove `runs-on`"), "{text}");
    let (_, text, _) = ended(&format!("jobs: {{ a: {{ runs-on: tiny, {step} }}, b: {{}} }}"));
    assert!(text.contains("exactly one job"), "{text}");
    let (_, text, _) = ended(&format!("jobs: {{ a: {{ runs-on: tiny, if: 'bogus(', {step} }} }}"));
    assert!(text.contains("ci.yml:1:"), "{text}");
    let mut broken = task(PAYLOAD);
    broken.workflow_payload = Some(vec![0xff, 0xfe]);
    assert!(matches!(translated(&broken).work, Work::End(Conclusion::Failure, _)));
}
