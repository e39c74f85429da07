//! Artifacts by the newer interface.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use simulators::forgejo::{ArtifactView, Forge, Profile};

use crate::client::{Client, ONE, context};
use crate::job::{Job, claims, get, put};

const OK: StatusCode = StatusCode::OK;
const CREATED: StatusCode = StatusCode::CREATED;
const BAD: StatusCode = StatusCode::BAD_REQUEST;
const UNAUTHORIZED: StatusCode = StatusCode::UNAUTHORIZED;
const MISSING: StatusCode = StatusCode::NOT_FOUND;
const BROKEN: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;

fn hash(bytes: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

#[tokio::test]
async fn blocks_go_up_in_any_order_and_come_down_as_one_file() {
    let job = Job::start().await;
    let name = "a b&c=ü";
    assert_eq!(job.call("ListArtifacts", json!({})).await.0, MISSING, "there is nothing");
    let address = job.create(name).await;
    let service = "/twirp/github.actions.results.api.v1.ArtifactService/UploadArtifact?";
    assert!(address.starts_with(&format!("{}{service}", job.forge.url())), "{address}");
    let (first, second) = ("A".repeat(3 << 20), "B".repeat(1024));
    for (block, bytes) in [("Yg%3D%3D", &second), ("YQ%3D%3D", &first)] {
        let block = format!("{address}&comp=block&blockid={block}");
        assert_eq!(put(&block, bytes).await, CREATED);
    }
    let list = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\
                <BlockList><Latest>YQ==</Latest><Latest>Yg==</Latest></BlockList>";
    assert_eq!(put(&format!("{address}&comp=blocklist"), list).await, CREATED);
    assert_eq!(job.call("ListArtifacts", json!({})).await.0, MISSING, "nothing is complete");
    assert_eq!(job.call("GetSignedArtifactURL", json!({"name": name})).await.0, MISSING);
    assert!(job.forge.artifacts(job.run).is_empty());

    let whole = format!("{first}{second}");
    let size = whole.len();
    let message = json!({"name": name, "size": size.to_string(), "hash": hash(&whole)});
    let (status, complete) = job.call("FinalizeArtifact", message).await;
    assert_eq!((status, &complete["ok"]), (OK, &json!(true)));
    let id = complete["artifactId"].as_str().unwrap();

    let (status, list) = job.call("ListArtifacts", json!({})).await;
    let entry = &list["artifacts"][0];
    assert_eq!(status, OK);
    for (key, value) in [
        ("workflowRunBackendId", job.run.to_string()),
        ("workflowJobRunBackendId", job.id.clone()),
        ("databaseId", id.to_owned()),
        ("name", name.to_owned()),
        ("size", size.to_string()),
    ] {
        assert_eq!(entry[key], json!(value), "{key}");
    }
    assert!(entry["createdAt"].as_str().unwrap().ends_with('Z'));
    for (filter, count) in [
        (json!({"name_filter": name}), 1),
        (json!({"nameFilter": "other"}), 0),
        (json!({"id_filter": id}), 1),
        (json!({"idFilter": "999"}), 0),
    ] {
        let (_, list) = job.call("ListArtifacts", filter.clone()).await;
        let found = list.get("artifacts").and_then(Value::as_array).map_or(0, Vec::len);
        assert_eq!(found, count, "{filter}");
    }

    let address = job.address(name).await;
    let response = get(&address, None).await;
    assert_eq!(
        (response.status(), &response.headers()["accept-ranges"]),
        (OK, &"bytes".parse().unwrap())
    );
    assert_eq!(response.text().await.unwrap(), whole);
    let response = get(&address, Some(&format!("bytes={}-", size - 1025))).await;
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
    let range = format!("bytes {}-{}/{size}", size - 1025, size - 1);
    assert_eq!(response.headers()["content-range"], range.as_str());
    assert_eq!(response.text().await.unwrap(), format!("A{second}"));
    let response = get(&address, Some(&format!("bytes={size}-"))).await;
    assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);

    let view = ArtifactView {
        name: name.to_owned(),
        path: format!("{name}.zip"),
        length: size as u64,
        size: size as u64,
        encoding: None,
    };
    assert_eq!(job.forge.artifacts(job.run), [view]);
    assert_eq!(job.forge.artifact(job.run, name), whole.as_bytes());

    let (status, deleted) = job.call("DeleteArtifact", json!({"name": name})).await;
    assert_eq!((status, deleted), (OK, json!({"ok": true, "artifactId": id})));
    assert_eq!(job.call("DeleteArtifact", json!({"name": name})).await.0, MISSING);
    assert_eq!(get(&address, None).await.status(), MISSING);
    job.forge.assert_no_violations();
}

#[tokio::test]
async fn pieces_are_appended_and_names_are_used_again() {
    let job = Job::start().await;
    let address = job.create("log").await;
    for (part, bytes) in [("block", "one, "), ("appendBlock", "two, "), ("appendBlock", "three")] {
        assert_eq!(put(&format!("{address}&comp={part}"), bytes).await, CREATED);
    }
    assert_eq!(job.call("FinalizeArtifact", json!({"name": "log"})).await.0, OK);
    assert_eq!(job.forge.artifact(job.run, "log"), b"one, two, three");

    let address = job.create("log").await;
    assert_eq!(put(&format!("{address}&comp=appendBlock"), "anew").await, CREATED);
    let old = get(&job.address("log").await, None).await;
    assert_eq!(old.text().await.unwrap(), "one, two, three", "until the new one is complete");
    assert_eq!(job.call("FinalizeArtifact", json!({"name": "log"})).await.0, OK);
    assert_eq!(job.forge.artifact(job.run, "log"), b"anew");
    assert_eq!(job.forge.artifacts(job.run).len(), 1);
    job.forge.assert_no_violations();
}

#[tokio::test]
async fn jobs_of_a_run_share_its_artifacts_and_no_others_do() {
    let forge = Forge::start(Profile::V17).await;
    let runner = Client::declared(&forge).await;
    let two = "jobs: {a: {runs-on: vm}, b: {runs-on: vm}}";
    let first = Job::next(&forge, &runner, two).await;
    let second = Job::of(&forge, &runner, first.run, runner.task().await);
    let stranger = Job::next(&forge, &runner, ONE).await;
    first.upload("x", "bytes").await;
    let response = get(&second.address("x").await, None).await;
    assert_eq!(response.text().await.unwrap(), "bytes");
    let (_, list) = second.call("ListArtifacts", json!({})).await;
    assert_eq!(list["artifacts"][0]["workflowJobRunBackendId"], json!(second.id));
    assert_eq!(stranger.call("ListArtifacts", json!({})).await.0, MISSING);
    assert_eq!(stranger.call("GetSignedArtifactURL", json!({"name": "x"})).await.0, MISSING);
    forge.assert_no_violations();

    let mut seen = 0;
    let other = json!({"workflow_run_backend_id": first.run.to_string()});
    assert_eq!(stranger.call("ListArtifacts", other).await.0, BAD);
    let other = json!({"workflow_job_run_backend_id": first.id});
    assert_eq!(second.call("ListArtifacts", other).await.0, BAD);
    first.expect_violations(&mut seen, &["run-id does not match", "job-id does not match"]);
}

#[tokio::test]
async fn only_tokens_of_tasks_that_run_let_in() {
    let mut job = Job::start().await;
    let said = claims(&job.token);
    let scope = format!("Actions.Results:{}:{}", job.run, job.id);
    assert_eq!(said["scp"], json!(scope), "{said}");
    assert_eq!(said["TaskID"], json!(job.task.id));
    let token = job.token.clone();
    let mut seen = 0;
    for (wrong, status, words) in [
        ("nonsense".to_owned(), BROKEN, "Error runner api getting task"),
        (format!("{token}x"), BROKEN, "Error runner api getting task"),
        (format!("{token}, too"), BROKEN, "Error runner api getting task"),
    ] {
        job.token = wrong;
        assert_eq!(job.call("CreateArtifact", json!({"name": "x"})).await.0, status);
        job.expect_violations(&mut seen, &[words]);
    }
    let address = job.forge.url() + "/twirp/github.actions.results.api.v1.ArtifactService/";
    let http = reqwest::Client::builder().build().unwrap();
    let response = http.post(format!("{address}ListArtifacts")).body("{}").send().await.unwrap();
    assert_eq!(response.status(), UNAUTHORIZED);
    job.expect_violations(&mut seen, &["Bad authorization header"]);
    job.token.clone_from(&token);
    let response = job.request(Method::POST, &format!("{address}Other")).send().await.unwrap();
    assert_eq!(response.status(), MISSING);
    job.expect_violations(&mut seen, &["Other got 404"]);

    job.token = context(&job.task, "token").unwrap();
    job.upload("x", "by an old runner").await;
    let (up, down) = (job.create("y").await, job.address("x").await);
    job.end().await;
    for token in [job.token.clone(), token] {
        job.token = token;
        assert_eq!(job.call("ListArtifacts", json!({})).await.0, BROKEN);
    }
    assert_eq!(put(&format!("{up}&comp=appendBlock"), "late").await, BROKEN);
    assert_eq!(get(&down, None).await.status(), BROKEN);
    // Its action cannot know that the task has ended.
    job.expect_violations(&mut seen, &[]);
    assert_eq!(job.forge.artifact(job.run, "x"), b"by an old runner", "a user sees it");
}

#[tokio::test]
async fn a_cancelled_job_uploads_nothing_any_more() {
    let job = Job::start().await;
    let address = job.create("x").await;
    job.forge.cancel(job.run);
    assert_eq!(put(&format!("{address}&comp=appendBlock"), "late").await, BROKEN);
    assert_eq!(job.call("FinalizeArtifact", json!({"name": "x"})).await.0, BROKEN);
    job.forge.assert_no_violations();
}

#[tokio::test]
async fn tokens_and_addresses_grow_old() {
    let job = Job::start().await;
    let address = job.create("x").await;
    let upload = format!("{address}&comp=appendBlock");
    job.forge.clock().advance(Duration::from_secs(59 * 60));
    assert_eq!(put(&upload, "in time").await, CREATED);
    job.forge.assert_no_violations();
    job.forge.clock().advance(Duration::from_secs(2 * 60));
    assert_eq!(put(&upload, "late").await, UNAUTHORIZED);
    let mut seen = 0;
    job.expect_violations(&mut seen, &["Error link expired"]);
    assert_eq!(job.call("FinalizeArtifact", json!({"name": "x"})).await.0, OK);
    job.forge.clock().advance(Duration::from_secs(24 * 60 * 60));
    assert_eq!(job.call("ListArtifacts", json!({})).await.0, BROKEN);
}

#[tokio::test]
async fn addresses_are_good_for_what_they_were_made_for() {
    let job = Job::start().await;
    job.upload("x", "bytes").await;
    let (up, down) = (job.create("x").await, job.address("x").await);
    let mut seen = 0;
    let other_name = down.replace("artifactName=x", "artifactName=y");
    let other_use = down.replace("DownloadArtifact", "UploadArtifact");
    let other_time = down.replace("expires=2", "expires=3");
    let unsigned = down.replace("sig=", "sig=x");
    for address in [&other_name, &other_time, &unsigned, &up.replace("Upload", "Download")] {
        assert_eq!(get(address, None).await.status(), UNAUTHORIZED, "{address}");
        job.expect_violations(&mut seen, &["Error unauthorized"]);
    }
    assert_eq!(put(&format!("{other_use}&comp=appendBlock"), "x").await, UNAUTHORIZED);
    job.expect_violations(&mut seen, &["Error unauthorized"]);
    assert_eq!(put(&up, "whole").await, OK, "a server does nothing and says nothing");
    job.expect_violations(&mut seen, &["nothing is kept"]);
}

#[tokio::test]
async fn what_is_said_of_an_artifact_has_to_be_so() {
    let job = Job::start().await;
    let mut seen = 0;
    for name in ["", "a/b", "a\\b", "a:b", "a\nb", "<a>", "a|b", "*", "?", "\"a\""] {
        assert_eq!(job.call("CreateArtifact", json!({"name": name})).await.0, BAD, "{name:?}");
        job.expect_violations(&mut seen, &["invalid character"]);
    }
    for message in [json!({"name": 7}), json!({"name": "x", "mime_type": "text/plain"})] {
        assert_eq!(job.call("CreateArtifact", message).await.0, BROKEN);
        job.expect_violations(&mut seen, &["Error decode request body"]);
    }
    let finalize = async |message: Value| job.call("FinalizeArtifact", message).await.0;
    assert_eq!(finalize(json!({"name": "x"})).await, MISSING);
    job.expect_violations(&mut seen, &[]);
    job.create("x").await;
    assert_eq!(finalize(json!({"name": "x"})).await, BROKEN);
    job.expect_violations(&mut seen, &["nothing was uploaded"]);
    for (wrong, words) in [
        (json!({"name": "x", "size": "6"}), "5 bytes where 6"),
        (json!({"name": "x", "size": "5", "hash": hash("other")}), "is expected"),
    ] {
        let address = job.create("x").await;
        assert_eq!(put(&format!("{address}&comp=appendBlock"), "bytes").await, CREATED);
        assert_eq!(finalize(wrong).await, BROKEN);
        job.expect_violations(&mut seen, &[words]);
    }
    for (list, words) in [
        ("<BlockList><Latest>b</Latest></BlockList>", "no block \"b\""),
        ("<BlockList></BlockList>", "lists no blocks"),
        ("nonsense", "lists no blocks"),
    ] {
        let address = job.create("x").await;
        // A name that would lead out of a directory is a name like others.
        assert_eq!(put(&format!("{address}&comp=block&blockid=%2F..%2Fa"), "1").await, CREATED);
        assert_eq!(put(&format!("{address}&comp=blocklist"), list).await, CREATED);
        assert_eq!(finalize(json!({"name": "x"})).await, BROKEN);
        job.expect_violations(&mut seen, &[words]);
    }
    assert!(job.forge.artifacts(job.run).is_empty());
    let address = job.create("x").await;
    assert_eq!(put(&format!("{address}&comp=block&blockid=%2F..%2Fa"), "1").await, CREATED);
    let other = job.create("y").await;
    assert_eq!(put(&format!("{other}&comp=block&blockid=%2F..%2Fa"), "2").await, CREATED);
    job.expect_violations(&mut seen, &["has the name of one of \"x\""]);
    let list = "<BlockList><Latest>/../a</Latest></BlockList>";
    assert_eq!(put(&format!("{address}&comp=blocklist"), list).await, CREATED);
    assert_eq!(finalize(json!({"name": "x", "hash": hash("1")})).await, OK);
}
