//! Artifacts of runs without a forge.

use axum::http::Request;
use futures_util::StreamExt;
use serde_json::{Value as Json, json};
use tokio::io::AsyncReadExt;

use super::*;

async fn ask(artifacts: &LocalArtifacts, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
    let body: Body = futures_util::stream::iter([Ok(body.to_owned().into())]).boxed();
    let request = Request::builder().method(method).uri(path).header("host", "here:1");
    let answer = artifacts.answer(request.body(body).unwrap()).await;
    let status = answer.status().as_u16();
    let mut bytes = Vec::new();
    answer.into_body().read_to_end(&mut bytes).await.unwrap();
    (status, bytes)
}

async fn call(artifacts: &LocalArtifacts, name: &str, body: Json) -> (u16, Json) {
    let path = format!("{ARTIFACT_CALLS}{name}");
    let (status, bytes) = ask(artifacts, "POST", &path, &body.to_string()).await;
    (status, serde_json::from_slice(&bytes).unwrap())
}

/// Sends an artifact; gives the last answer.
async fn upload(artifacts: &LocalArtifacts, name: &str, content: &str) -> (u16, Json) {
    let (status, created) = call(artifacts, "CreateArtifact", json!({ "name": name })).await;
    if status != 200 {
        return (status, created);
    }
    let place = created["signedUploadUrl"].as_str().unwrap();
    let place = place.strip_prefix("http://here:1").unwrap().to_owned();
    let sent = ask(artifacts, "PUT", &format!("{place}?comp=block&blockid=a"), content).await;
    assert_eq!(sent.0, 201);
    let list = "<BlockList><Latest>a</Latest></BlockList>";
    assert_eq!(ask(artifacts, "PUT", &format!("{place}?comp=blocklist"), list).await.0, 201);
    let hash = hex::encode(Sha256::digest(content.as_bytes()));
    let wish = json!({ "name": name, "size": content.len().to_string(), "hash": format!("sha256:{hash}") });
    call(artifacts, "FinalizeArtifact", wish).await
}

#[tokio::test]
async fn an_artifact_is_kept_listed_and_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let artifacts = LocalArtifacts::new(&directory.path().join("run"), JobId::new());
    let (status, list) = call(&artifacts, "ListArtifacts", json!({})).await;
    assert_eq!((status, list), (200, json!({ "artifacts": [] })));
    let (status, done) = upload(&artifacts, "made", "content").await;
    assert_eq!((status, &done["ok"]), (200, &json!(true)), "{done}");
    assert_eq!(upload(&artifacts, "made", "other").await.0, 409);
    assert_eq!(upload(&artifacts, "empty one", "").await.0, 200);
    let (_, list) = call(&artifacts, "ListArtifacts", json!({ "name_filter": "made" })).await;
    assert_eq!(list["artifacts"][0]["name"], "made");
    assert_eq!(list["artifacts"][0]["size"], "7");
    assert_eq!(list["artifacts"][0]["databaseId"], done["artifactId"]);
    assert_eq!(list["artifacts"].as_array().unwrap().len(), 1);
    let wish = json!({ "name": "made" });
    let (_, signed) = call(&artifacts, "GetSignedArtifactURL", wish.clone()).await;
    let place = signed["signedUrl"].as_str().unwrap().strip_prefix("http://here:1").unwrap();
    assert_eq!(ask(&artifacts, "GET", place, "").await, (200, b"content".to_vec()));
    // It is a file with its name, and nothing else is left.
    let mut names: Vec<String> = fs::read_dir(directory.path().join("run"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["empty one.zip", "made.zip"]);
    assert_eq!(call(&artifacts, "DeleteArtifact", wish.clone()).await.0, 200);
    assert_eq!(call(&artifacts, "DeleteArtifact", wish).await.0, 404);
    assert_eq!(upload(&artifacts, "made", "other").await.0, 200);
}

#[tokio::test]
async fn what_runs_of_long_ago_have_left_goes() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (old, new, young) = (path("old"), path("new"), path("young"));
    for (run, days) in [(&old, 31), (&new, 29), (&young, 5)] {
        fs::create_dir_all(run.join("pending/job")).unwrap();
        fs::create_dir_all(run.join("v3/b")).unwrap();
        fs::write(run.join("a.zip"), "").unwrap();
        fs::write(run.join("job-1.upload"), "").unwrap();
        let time = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
        fs::File::open(run).unwrap().set_modified(time).unwrap();
    }
    let artifacts = LocalArtifacts::new(&directory.path().join("run"), JobId::new());
    assert_eq!(upload(&artifacts, "made", "content").await.0, 200);
    assert!(!old.exists());
    for (run, is_left) in [(&new, false), (&young, true)] {
        assert!(run.join("a.zip").exists() && run.join("v3/b").exists());
        assert_eq!(run.join("pending").exists(), is_left, "what nobody will complete");
        assert_eq!(run.join("job-1.upload").exists(), is_left);
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let artifacts = LocalArtifacts::new(directory.path(), JobId::new());
    for name in ["", "a/b", "../x", "a\0", &"n".repeat(300)] {
        let (status, said) = call(&artifacts, "CreateArtifact", json!({ "name": name })).await;
        assert_eq!((status, &said["code"]), (400, &json!("invalid_argument")), "{name}");
    }
    let (status, _) = call(&artifacts, "CreateArtifact", json!({ "name": "x" })).await;
    assert_eq!(status, 200);
    let finalize = |size: Json, hash: &str| {
        call(&artifacts, "FinalizeArtifact", json!({ "name": "x", "size": size, "hash": hash }))
    };
    assert_eq!(finalize(json!("3"), "").await.0, 400);
    assert_eq!(finalize(json!("many"), "").await.0, 400);
    let place = format!("{ARTIFACT_FILES}{}", hex::encode("x"));
    assert_eq!(ask(&artifacts, "PUT", &place, "abc").await.0, 201);
    assert_eq!(finalize(json!(3), "sha256:00").await.0, 400);
    assert_eq!(finalize(json!(3), "").await.0, 200);
    assert_eq!(finalize(json!(3), "").await.0, 200, "twice is once");
    for path in [
        format!("{ARTIFACT_FILES}{}", hex::encode("../x")),
        format!("{ARTIFACT_FILES}zz"),
        format!("{ARTIFACT_FILES}{}", hex::encode("none")),
        "/etc/passwd".to_owned(),
    ] {
        assert!(ask(&artifacts, "GET", &path, "").await.0 >= 400, "{path}");
    }
    assert_eq!(call(&artifacts, "Other", json!({})).await.0, 404);
    assert_eq!(call(&artifacts, "GetSignedArtifactURL", json!({ "name": "y" })).await.0, 404);
}

#[tokio::test]
async fn what_is_complete_makes_room_for_more() {
    let directory = tempfile::tempdir().unwrap();
    let artifacts = LocalArtifacts {
        // Blocks and what they are put together to are there at the same time.
        room: Room::new(16),
        ..LocalArtifacts::new(directory.path(), JobId::new())
    };
    for name in ["a", "b", "c", "d"] {
        assert_eq!(upload(&artifacts, name, "12345678").await.0, 200, "{name}");
    }
}

#[tokio::test]
async fn what_one_run_keeps_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { bytes: 10, artifacts: 2, ..Limits::default() };
    let job = || LocalArtifacts::with_limits(directory.path(), JobId::new(), limits);
    let (one, other) = (job(), job());
    assert_eq!(upload(&one, "a", "123456").await.0, 200);
    let (status, said) = upload(&other, "b", "12345").await;
    assert_eq!((status, &said["code"]), (413, &json!("resource_exhausted")));
    let expected =
        "this run keeps 6 bytes of artifacts and these are 5 more; it may keep 10 in all";
    assert_eq!(said["msg"], expected);
    assert_eq!(call(&one, "DeleteArtifact", json!({ "name": "a" })).await.0, 200);
    let finalize = json!({ "name": "b", "size": "5" });
    assert_eq!(call(&other, "FinalizeArtifact", finalize).await.0, 200, "there is room now");
    assert_eq!(upload(&one, "a", "").await.0, 200);
    assert_eq!(upload(&one, "c", "").await.0, 413);
}

/// A guest that loses its connection asks again while the first question is still worked at.
#[tokio::test]
async fn a_question_that_is_asked_again_before_it_is_answered_has_one_answer() {
    let directory = tempfile::tempdir().unwrap();
    let artifacts = LocalArtifacts {
        room: Room::new(16),
        ..LocalArtifacts::new(directory.path(), JobId::new())
    };
    for name in ["a", "b", "c", "d"] {
        let place = format!("{ARTIFACT_FILES}{}", hex::encode(name));
        assert_eq!(ask(&artifacts, "PUT", &place, "0123456789").await.0, 201);
        let wish = json!({ "name": name, "size": "10" });
        let finalize = || call(&artifacts, "FinalizeArtifact", wish.clone());
        let (one, two, three) = tokio::join!(finalize(), finalize(), finalize());
        assert_eq!([one.0, two.0, three.0], [200; 3], "{one:?} {two:?} {three:?}");
    }
}

#[tokio::test]
async fn what_a_job_did_not_complete_goes_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    let (one, other) =
        (LocalArtifacts::new(&run, JobId::new()), LocalArtifacts::new(&run, JobId::new()));
    assert_eq!(upload(&one, "made", "content").await.0, 200);
    for job in [&one, &other] {
        let place = format!("{ARTIFACT_FILES}{}?comp=block&blockid=a", hex::encode("x"));
        assert_eq!(ask(job, "PUT", &place, "block").await.0, 201);
    }
    let count = || fs::read_dir(&run).unwrap().count();
    assert!(count() > 2);
    one.end().await;
    assert!(count() > 1, "that of the other is there");
    other.end().await;
    assert_eq!(count(), 1);
    assert!(run.join("made.zip").exists());
}
