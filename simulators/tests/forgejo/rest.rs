//! Registration, authentication, versions and the REST API.

use connectrpc::client::HttpClient;
use forgejo_proto::ping::{PingRequest, PingServiceClient};
use forgejo_proto::runner::{RegisterRequest, RunnerServiceClient};
use reqwest::{Client as Http, StatusCode};
use serde_json::{Value, json};
use simulators::forgejo::{Forge, Identity, Profile, Scope};

use crate::client::{Client, ONE, code, config};

fn http() -> Http {
    Http::builder().build().unwrap()
}

async fn get(forge: &Forge, path: &str, token: &str) -> (StatusCode, Value) {
    let request = http().get(format!("{}{path}", forge.url()));
    let response = request.header("authorization", format!("token {token}")).send().await.unwrap();
    let status = response.status();
    (status, response.json().await.unwrap_or_default())
}

#[tokio::test]
async fn a_server_greets_and_says_what_it_is() {
    for profile in Profile::ALL {
        let forge = Forge::builder().profile(profile).sub_path("git").start().await;
        let ping = PingServiceClient::new(HttpClient::plaintext(), config(&forge));
        let request = PingRequest { data: "x".to_owned(), ..PingRequest::default() };
        assert_eq!(ping.ping(request).await.unwrap().into_owned().data, "Hello, x!");
        let (status, version) = get(&forge, "/api/v1/version", "").await;
        assert_eq!((status, version), (StatusCode::OK, json!({"version": profile.version()})));
        let (status, _) = get(&forge, "/api/forgejo/v1/version", "").await;
        assert_eq!(status == StatusCode::NOT_FOUND, profile.is_gitea(), "{profile:?}");
    }
}

#[tokio::test]
async fn registration_tokens_are_for_many_runners() {
    let forge = Forge::start(Profile::V15).await;
    let token = forge.registration_token(Scope::Repository("acme/widget".to_owned()));
    let register = async |name: &str, token: &str| {
        let calls = RunnerServiceClient::new(HttpClient::plaintext(), config(&forge).json());
        let request = RegisterRequest {
            name: name.to_owned(),
            token: token.to_owned(),
            labels: vec!["vm".to_owned()],
            ephemeral: true,
            ..RegisterRequest::default()
        };
        calls.register(request).await.map(|answer| answer.into_owned().runner)
    };
    let one = register("one", &token).await.unwrap();
    let two = register("one", &token).await.unwrap();
    assert_ne!(one.uuid, two.uuid, "names need not differ");
    assert!(one.ephemeral && one.id != 0);
    assert_eq!(uuid::Uuid::parse_str(&one.uuid).unwrap().get_version_num(), 4);
    assert!(one.token.len() == 40 && one.token.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let client = Client::new(&forge, Identity { uuid: one.uuid.clone(), token: one.token.clone() });
    forge.push_workflow("acme/widget", "ci.yml", ONE);
    assert!(client.next().await.is_some(), "its labels came with the registration");
    for (name, token) in [("", token.as_str()), ("x", ""), ("x", "unknown")] {
        assert_eq!(code(register(name, token).await), "invalid_argument");
    }
    forge.revoke_registration_token(&token);
    assert_eq!(code(register("x", &token).await), "invalid_argument");
}

#[tokio::test]
async fn strangers_are_refused_in_the_protocols_form() {
    let forge = Forge::start(Profile::V15).await;
    let known = forge.create_runner("one", Scope::Global);
    let identities = [
        Identity { token: "0".repeat(40), ..known.clone() },
        Identity { uuid: "unknown".to_owned(), ..known.clone() },
    ];
    for identity in identities {
        let client = Client::new(&forge, identity);
        assert_eq!(code(client.declare(&["vm"]).await), "unauthenticated");
        assert_eq!(code(client.fetch_with(0, None, None).await), "unauthenticated");
        assert_eq!(code(client.beat(1).await), "unauthenticated");
        assert_eq!(code(client.log(1, 0, &["a"], false).await), "unauthenticated");
    }
    let path = format!("{}/api/actions/runner.v1.RunnerService/Declare", forge.url());
    let request = http().post(path).header("content-type", "application/proto");
    let response = request.body("").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["content-type"], "application/json");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body, json!({"code": "unauthenticated", "message": "unregistered runner"}));
    assert!(forge.seen(&known.uuid).unwrap().0.is_none());
    Client::new(&forge, known.clone()).declare(&["vm"]).await.unwrap();
    let (online, active) = forge.seen(&known.uuid).unwrap();
    assert!(online.is_some() && active.is_none());
    assert_eq!(forge.labels(&known.uuid).unwrap(), ["vm"]);
    assert_eq!(forge.version(&known.uuid).unwrap(), "test");
}

#[tokio::test]
async fn a_secret_makes_one_runner() {
    let forge = Forge::start(Profile::V11).await;
    let secret = "00112233445566778899aabbccddeeff01234567";
    let identity = forge.register_secret(secret);
    assert_eq!(forge.register_secret(secret), identity);
    assert_eq!(forge.runners(), std::slice::from_ref(&identity.uuid));
    Client::declared_as(&forge, identity, &["vm"]).await;
}

#[tokio::test]
async fn only_large_answers_are_compressed_for_who_offers_it() {
    let forge = Forge::start(Profile::V15).await;
    let client = Client::declared(&forge).await;
    let fetch = async |encoding: &str| {
        http()
            .post(format!("{}/api/actions/runner.v1.RunnerService/FetchTask", forge.url()))
            .header("content-type", "application/json")
            .header("accept-encoding", encoding)
            .header("x-runner-uuid", &client.identity.uuid)
            .header("x-runner-token", &client.identity.token)
            .body("{}")
            .send()
            .await
            .unwrap()
    };
    for (tasks, encoding, compressed) in
        [(false, "gzip", false), (true, "gzip", true), (true, "identity", false)]
    {
        if tasks {
            forge.push_workflow("acme/widget", "ci.yml", ONE);
        }
        let response = fetch(encoding).await;
        assert_eq!(
            response.headers().contains_key("content-encoding"),
            compressed,
            "{tasks} {encoding}"
        );
        if !compressed {
            let answer: Value = response.json().await.unwrap();
            assert!(answer["tasksVersion"].is_string(), "64 bits are text in JSON");
            assert_eq!(answer.get("task").is_some(), tasks);
        }
    }
}

#[tokio::test]
async fn runners_are_made_listed_and_deleted() {
    let forge = Forge::start(Profile::V15).await;
    let token = forge.api_token();
    let path = "/api/v1/repos/acme/widget/actions/runners";
    let create = async |body: Value| {
        let request = http().post(format!("{}{path}", forge.url()));
        let request = request.header("authorization", format!("token {token}"));
        request.json(&body).send().await.unwrap()
    };
    assert_eq!(create(json!({})).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let response = create(json!({"name": "one", "ephemeral": true})).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let made: Value = response.json().await.unwrap();
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    let client = Client::new(&forge, Identity { uuid: text("uuid"), token: text("token") });
    assert!(client.declare(&["vm"]).await.unwrap());

    let (status, list) = get(&forge, path, &token).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(list[0]["labels"], json!(["vm"]));
    let (_, others) = get(&forge, "/api/v1/admin/actions/runners", &token).await;
    assert_eq!(others, json!([]));
    assert!(!forge.create_runner("all", Scope::Global).uuid.is_empty());
    let (_, visible) = get(&forge, &format!("{path}?visible=true"), &token).await;
    assert_eq!(visible.as_array().unwrap().len(), 2, "with those of everybody");
    let (status, _) = get(&forge, path, "wrong").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);

    let one = format!("{}{path}/{}", forge.url(), made["id"]);
    let delete = || http().delete(&one).header("authorization", format!("token {token}")).send();
    assert_eq!(delete().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(delete().await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(code(client.declare(&["vm"]).await), "unauthenticated");

    let (status, answer) =
        get(&forge, "/api/v1/orgs/acme/actions/runners/registration-token", &token).await;
    assert!(status == StatusCode::OK && answer["token"].is_string());
    forge.set_profile(Profile::V14);
    assert_eq!(create(json!({"name": "one"})).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_queue_has_handles() {
    let forge = Forge::start(Profile::V15).await;
    let token = forge.api_token();
    let run = forge.push_workflow(
        "acme/widget",
        "ci.yml",
        "jobs: {a: {runs-on: vm}, b: {runs-on: [vm, big]}, c: {needs: a, runs-on: vm}}",
    );
    let names = async |query: &str| {
        let path = format!("/api/v1/repos/acme/widget/actions/runners/jobs{query}");
        let (_, list) = get(&forge, &path, &token).await;
        let names =
            list.as_array().unwrap().iter().map(|job| job["name"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>(), list)
    };
    assert_eq!(names("").await.0, ["a", "b"], "those that wait");
    assert_eq!(names("?labels=vm,big").await.0, ["a", "b"]);
    let (only, list) = names("?labels=vm").await;
    assert_eq!(only, ["a"]);
    assert_eq!(list[0]["handle"], json!(forge.view(run).job("a").handle));
    assert_eq!(list[0]["run_id"], json!(run.number()));
    let client = Client::declared(&forge).await;
    let handle = list[0]["handle"].as_str().unwrap();
    let task = client.fetch_single(Some(handle), None).await.unwrap().task;
    let (_, list) = names("?labels=vm").await;
    assert_eq!((&list[0]["status"], &list[0]["task_id"]), (&json!("running"), &json!(task.id)));

    let job_token = forge.token_of(task.id).unwrap();
    let (status, own) = get(&forge, "/api/v1/actions/run", &job_token).await;
    assert_eq!((status, &own["id"]), (StatusCode::OK, &json!(run.number())));
    let (status, _) = get(&forge, "/api/v1/actions/run", &token).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "a user's token is of no run");
}
