//! ID tokens of jobs.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use simulators::forgejo::{Forge, Profile};

use crate::client::{Client, ONE, context};
use crate::job::{Job, claims};

const URL: &str = "forgejo_actions_id_token_request_url";
const TOKEN: &str = "forgejo_actions_id_token_request_token";

/// A job that may have ID tokens.
async fn with_id_tokens(profile: Profile) -> (Job, String) {
    let forge = Forge::builder().profile(profile).sub_path("git").start().await;
    let runner = Client::declared(&forge).await;
    let job = Job::next(&forge, &runner, &format!("enable-openid-connect: true\n{ONE}")).await;
    assert_eq!(context(&job.task, TOKEN), Some(job.token.clone()), "it is the runtime token");
    let url = context(&job.task, URL).unwrap();
    (job, url)
}

async fn ask(job: &Job, url: &str) -> (StatusCode, Value) {
    let response = job.request(Method::GET, url).send().await.unwrap();
    (response.status(), response.json().await.unwrap_or_default())
}

#[tokio::test]
async fn jobs_say_who_they_are() {
    let (job, url) = with_id_tokens(Profile::V15).await;
    let both = format!("{}:{}", job.run, job.id);
    let scope = format!("Actions.Results:{both} generate_id_token:{both}");
    assert_eq!(claims(&job.token)["scp"], json!(scope));
    let root = job.forge.url();
    let cases = [
        (url.clone(), format!("{root}/acme")),
        (format!("{url}&audience=https%3A%2F%2Fexample.org"), "https://example.org".to_owned()),
    ];
    for (url, audience) in cases {
        let (status, answer) = ask(&job, &url).await;
        assert_eq!(status, StatusCode::OK);
        let token = answer["value"].as_str().unwrap();
        let said = Forge::id_token(token).unwrap();
        let expected = [
            ("aud", audience),
            ("iss", format!("{root}/api/actions")),
            ("sub", "repo:acme/widget:ref:refs/heads/main".to_owned()),
            ("repository", "acme/widget".to_owned()),
            ("event_name", "push".to_owned()),
            ("run_id", job.run.to_string()),
            ("run_attempt", "1".to_owned()),
            ("ref_protected", "false".to_owned()),
        ];
        for (key, value) in expected {
            assert_eq!(said[key], json!(value), "{key}");
        }
        let at = |key: &str| said[key].as_u64().unwrap();
        assert_eq!((at("exp") - at("iat"), at("iat")), (60 * 60, at("nbf")));
        assert_eq!(Forge::id_token(&format!("{token}A")), None);
        assert_eq!(Forge::id_token(&job.token), None, "the server alone reads this one");
    }
    job.upload("x", "bytes").await;
    job.forge.assert_no_violations();

    let (newer, url) = with_id_tokens(Profile::V17).await;
    let (_, answer) = ask(&newer, &url).await;
    let said = Forge::id_token(answer["value"].as_str().unwrap()).unwrap();
    let subject = said["sub"].as_str().unwrap();
    let id = said["repository_id"].as_str().unwrap();
    assert!(subject.starts_with("repo:acme-"), "{subject}");
    assert!(subject.ends_with(&format!("/widget-{id}:ref:refs/heads/main")), "{subject}");
}

#[tokio::test]
async fn who_may_have_none_gets_none() {
    let (mut job, url) = with_id_tokens(Profile::V15).await;
    let mut seen = 0;
    let plain = reqwest::Client::builder().build().unwrap().get(&url).send().await.unwrap();
    assert_eq!(plain.status(), StatusCode::UNAUTHORIZED);
    job.expect_violations(&mut seen, &["Bad authorization header"]);
    let elsewhere = url.replace(&format!("/{}/idtoken", job.run), "/999/idtoken");
    assert_eq!(ask(&job, &elsewhere).await.0, StatusCode::BAD_REQUEST);
    job.expect_violations(&mut seen, &["run-id does not match"]);
    let token = std::mem::replace(&mut job.token, context(&job.task, "token").unwrap());
    assert_eq!(ask(&job, &url).await.0, StatusCode::INTERNAL_SERVER_ERROR, "a job token");
    job.expect_violations(&mut seen, &["parsing authorization token"]);

    let mut other = Job::next(&job.forge, &job.runner, ONE).await;
    assert_eq!(context(&other.task, URL), None, "its file asks for none");
    let own = url.replace(&format!("/{}/", job.run), &format!("/{}/", other.run));
    assert_eq!(ask(&other, &own).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    job.expect_violations(&mut seen, &["parsing custom claims"]);
    let yaml = format!("enable-openid-connect: true\n{ONE}");
    let fork = job.forge.trigger("acme/widget", "ci.yml", &yaml).event("pull_request").fork(true);
    let run = fork.push();
    other = Job::of(&job.forge, &job.runner, run, job.runner.task().await);
    assert_eq!((context(&other.task, URL), context(&other.task, TOKEN)), (None, None));
    let own = url.replace(&format!("/{}/", job.run), &format!("/{run}/"));
    assert_eq!(ask(&other, &own).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    job.expect_violations(&mut seen, &["parsing custom claims"]);

    job.token = token;
    job.end().await;
    assert_eq!(ask(&job, &url).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    job.expect_violations(&mut seen, &[]);
    job.forge.set_profile(Profile::V11);
    assert_eq!(ask(&job, &url).await.0, StatusCode::NOT_FOUND);
}
