//! Artifacts by the older interface.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest as _, Md5};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::client::ONE;
use crate::job::Job;

const OK: StatusCode = StatusCode::OK;
const BAD: StatusCode = StatusCode::BAD_REQUEST;
const MISSING: StatusCode = StatusCode::NOT_FOUND;
const BROKEN: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;

impl Job {
    fn base(&self) -> String {
        let runs = "api/actions_pipeline/_apis/pipelines/workflows";
        format!("{}/{runs}/{}/artifacts", self.forge.url(), self.run)
    }

    async fn json(&self, method: Method, address: &str, body: Value) -> (StatusCode, Value) {
        let request = self.request(method, address);
        let request = if body.is_null() { request } else { request.json(&body) };
        let response = request.send().await.unwrap();
        (response.status(), response.json().await.unwrap_or_default())
    }

    /// Where the files of an artifact go.
    async fn container(&self, name: &str) -> String {
        let body = json!({"Type": "actions_storage", "Name": name});
        let address = format!("{}?api-version=6.0-preview", self.base());
        let (status, answer) = self.json(Method::POST, &address, body).await;
        assert_eq!(status, OK);
        answer["fileContainerResourceUrl"].as_str().unwrap().to_owned()
    }

    /// A chunk as the actions send it.
    fn chunk(&self, item: &str, bytes: &str, first: usize, total: usize) -> RequestBuilder {
        let name = item.split('/').next().unwrap();
        let hash = hex::encode(Md5::digest(name));
        let address = format!("{}/{hash}/upload?itemPath={item}", self.base());
        let last = i64::try_from(first + bytes.len()).unwrap() - 1;
        let request = self.request(Method::PUT, &address).body(bytes.to_owned());
        request
            .header("content-range", format!("bytes {first}-{last}/{total}"))
            .header("x-tfs-filelength", total)
            .header("x-actions-results-md5", BASE64_STANDARD.encode(Md5::digest(bytes)))
    }

    async fn confirm(&self, name: &str) -> StatusCode {
        let address = format!("{}?artifactName={name}", self.base());
        self.json(Method::PATCH, &address, Value::Null).await.0
    }
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn files_go_up_in_chunks_and_come_down() {
    let job = Job::start().await;
    let get = async |address: &str| job.json(Method::GET, address, Value::Null).await;
    assert_eq!(get(&job.base()).await.0, MISSING);
    let hash = hex::encode(Md5::digest("logs"));
    assert_eq!(job.container("logs").await, format!("{}/{hash}/upload", job.base()));
    assert_eq!(status(job.chunk("logs/a/one.txt", "world", 7, 12)).await, OK);
    assert_eq!(status(job.chunk("logs/a/one.txt", "hello, ", 0, 12)).await, OK);
    assert_eq!(status(job.chunk("logs/a/one.txt", "hello, ", 0, 12)).await, OK, "again");
    assert_eq!(status(job.chunk("logs/empty", "", 0, 0)).await, OK);
    let packed = job.chunk("logs/packed", "not really", 0, 10);
    let packed = packed.header("content-encoding", "gzip");
    assert_eq!(status(packed).await, OK);
    assert_eq!(get(&job.base()).await.0, MISSING, "nothing is confirmed");
    assert_eq!(job.confirm("logs").await, OK);

    let (code, list) = get(&job.base()).await;
    let container = format!("{}/{hash}/download_url", job.base());
    let expected = json!({"name": "logs", "fileContainerResourceUrl": container});
    assert_eq!((code, list), (OK, json!({"count": 1, "value": [expected]})));
    let (code, files) = get(&format!("{container}?itemPath=logs")).await;
    assert_eq!(code, OK);
    let files = files["value"].as_array().unwrap().clone();
    let paths: Vec<_> = files.iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["logs/a/one.txt", "logs/empty", "logs/packed"]);
    for (file, bytes, encoding) in [
        (&files[0], "hello, world", None),
        (&files[1], "", None),
        (&files[2], "not really", Some("gzip")),
    ] {
        assert_eq!(file["itemType"], "file");
        let address = file["contentLocation"].as_str().unwrap();
        let response = job.request(Method::GET, address).send().await.unwrap();
        let header = response.headers().get("content-encoding");
        assert_eq!(header.map(|value| value.to_str().unwrap()), encoding);
        assert_eq!(response.text().await.unwrap(), bytes);
    }
    let lengths: Vec<_> = job.forge.artifacts(job.run).iter().map(|file| file.length).collect();
    assert_eq!(lengths, [12, 0, 10]);
    assert_eq!(job.forge.artifact_file(job.run, "logs", "a/one.txt"), b"hello, world");
    job.forge.assert_no_violations();
}

#[tokio::test]
async fn chunks_have_to_be_what_they_say() {
    let job = Job::start().await;
    let mut seen = 0;
    let hash = hex::encode(Md5::digest("x"));
    let other = hex::encode(Md5::digest("other"));
    let wrong = |item: &str| job.chunk(item, "bytes", 0, 5);
    let at = |rest: &str| {
        let md5 = BASE64_STANDARD.encode(Md5::digest("bytes"));
        let request = job.request(Method::PUT, &format!("{}/{rest}", job.base())).body("bytes");
        request.header("x-tfs-filelength", "5").header("x-actions-results-md5", md5)
    };
    let range = ("content-range", "bytes 0-4/5");
    let cases = [
        (at(&format!("{hash}/upload?itemPath=x/f")), BROKEN, "parse content range"),
        (
            at(&format!("{other}/upload?itemPath=x/f")).header(range.0, range.1),
            BAD,
            "Invalid artifact hash",
        ),
        (
            at(&format!("{hash}/upload?itemPath=x/f&retentionDays=x")).header(range.0, range.1),
            BAD,
            "retention days",
        ),
        (wrong("a:b/f"), BAD, "invalid character"),
        (at(&format!("{hash}/other")), MISSING, "404 page not found"),
    ];
    for (request, expected, words) in cases {
        assert_eq!(status(request).await, expected, "{words}");
        job.expect_violations(&mut seen, &[words]);
    }
    let unlike = job.request(Method::PUT, &format!("{}/{hash}/upload?itemPath=x/f", job.base()));
    let unlike = unlike.body("bytes").header(range.0, range.1).header("x-tfs-filelength", "5");
    assert_eq!(status(unlike.header("x-actions-results-md5", "AAAA")).await, BROKEN);
    job.expect_violations(&mut seen, &["md5 not match"]);

    assert_eq!(job.confirm("x").await, OK, "a server has nothing against it");
    job.expect_violations(&mut seen, &["is confirmed without"]);
    assert_eq!(status(job.chunk("x/f", "bytes", 0, 10)).await, OK);
    assert_eq!(job.confirm("x").await, OK, "nor against this");
    job.expect_violations(&mut seen, &["without all of [\"f\"]"]);
    assert!(job.forge.artifacts(job.run).is_empty());
    assert_eq!(job.confirm("").await, BAD);
    job.expect_violations(&mut seen, &["name is empty"]);
    assert_eq!(status(job.chunk("x/f", "bytes", 0, 5)).await, OK);
    assert_eq!(job.confirm("x").await, OK);
    job.expect_violations(&mut seen, &[]);
}

#[tokio::test]
async fn files_are_of_their_run() {
    let job = Job::start().await;
    assert_eq!(status(job.chunk("x/f", "bytes", 0, 5)).await, OK);
    assert_eq!(job.confirm("x").await, OK);
    let hash = hex::encode(Md5::digest("x"));
    let address = format!("{}/{hash}/download_url?itemPath=x", job.base());
    let (_, files) = job.json(Method::GET, &address, Value::Null).await;
    let file = files["value"][0]["contentLocation"].as_str().unwrap();
    let stranger = Job::next(&job.forge, &job.runner, ONE).await;
    let (mut seen, get) =
        (0, async |job: &Job, address: &str| status(job.request(Method::GET, address)).await);
    assert_eq!(get(&stranger, &job.base()).await, BAD);
    assert_eq!(get(&stranger, file).await, BAD);
    job.expect_violations(&mut seen, &["run-id does not match"; 2]);
    let own = file.replace(&job.base(), &stranger.base());
    assert_eq!(get(&stranger, &own).await, BAD);
    job.expect_violations(&mut seen, &["Bad Request"]);
    assert_eq!(get(&job, &format!("{}/999/download", job.base())).await, MISSING);
    job.end().await;
    assert_eq!(get(&job, file).await, BROKEN);
    job.expect_violations(&mut seen, &[]);
}
