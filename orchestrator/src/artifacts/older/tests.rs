//! Artifacts of the third version, of runs without a forge.

use std::io::Write as _;

use axum::http::Request;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt;
use serde_json::Value as Json;
use tokio::io::AsyncReadExt;

use super::super::LocalArtifacts;
use super::*;

const BASE: &str = "/api/actions_pipeline/_apis/pipelines/workflows/7/artifacts";

/// Jobs of one run.
struct Story {
    directory: tempfile::TempDir,
    limits: Limits,
}

impl Story {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), limits: Limits::default() }
    }

    fn run(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    fn job(&self) -> LocalArtifacts {
        LocalArtifacts::with_limits(&self.run(), JobId::new(), self.limits)
    }

    /// All files of the run with what they have.
    fn kept(&self) -> Vec<(String, String)> {
        let (mut kept, mut open) = (Vec::new(), vec![self.run()]);
        while let Some(place) = open.pop() {
            for entry in fs::read_dir(place).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    let name = path.strip_prefix(self.run()).unwrap().to_str().unwrap().to_owned();
                    kept.push((
                        name,
                        String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned(),
                    ));
                }
            }
        }
        kept.sort();
        kept
    }
}

type Fields<'a> = &'a [(&'a str, &'a str)];

async fn ask(
    job: &LocalArtifacts,
    (method, path): (&str, &str),
    fields: Fields<'_>,
    body: &[u8],
) -> (u16, Vec<u8>) {
    let parts: Vec<_> = body.chunks(3).map(|part| Ok(part.to_vec().into())).collect();
    let body: Body = futures_util::stream::iter(parts).boxed();
    let mut request = Request::builder().method(method).uri(path).header("host", "here:1");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let answer = job.answer(request.body(body).unwrap()).await;
    let status = answer.status().as_u16();
    let mut bytes = Vec::new();
    answer.into_body().read_to_end(&mut bytes).await.unwrap();
    (status, bytes)
}

/// The path in an address that was answered.
fn path_of(address: &Json) -> String {
    address.as_str().unwrap().strip_prefix("http://here:1").unwrap().to_owned()
}

async fn said(job: &LocalArtifacts, what: (&str, &str), body: &str) -> (u16, Json) {
    let (status, bytes) = ask(job, what, &[], body.as_bytes()).await;
    (status, serde_json::from_slice(&bytes).unwrap())
}

async fn begin(job: &LocalArtifacts, name: &str) -> (u16, Json) {
    let wish = json!({ "Type": "actions_storage", "Name": name, "RetentionDays": 3 });
    said(job, ("POST", &format!("{BASE}?api-version=6.0-preview")), &wish.to_string()).await
}

/// Sends a chunk as the originals do.
async fn put(
    job: &LocalArtifacts,
    item: &str,
    (first, total): (usize, usize),
    content: &[u8],
    more: Fields<'_>,
) -> (u16, String) {
    let name = item.split(['/', '\\']).next().unwrap();
    let query: String = form_urlencoded::byte_serialize(item.as_bytes()).collect();
    let path = format!("{BASE}/{}/upload?itemPath={query}", hash_of(name));
    let range = match total {
        0 => "bytes 0--1/0".to_owned(),
        _ => format!("bytes {first}-{}/{total}", first + content.len() - 1),
    };
    let md5 = BASE64_STANDARD.encode(Md5::digest(content));
    let mut fields = vec![("content-range", range.as_str()), ("x-actions-results-md5", &md5)];
    fields.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
    fields.extend(more);
    let (status, text) = ask(job, ("PUT", &path), &fields, content).await;
    (status, String::from_utf8(text).unwrap())
}

async fn put_whole(job: &LocalArtifacts, item: &str, content: &str) {
    let (status, text) = put(job, item, (0, content.len()), content.as_bytes(), &[]).await;
    assert_eq!(status, 200, "{item}: {text}");
}

async fn confirm(job: &LocalArtifacts, name: &str) -> (u16, String) {
    let query: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let what = format!("{BASE}?artifactName={query}");
    let (status, said) = said(job, ("PATCH", &what), "{\"Size\":1}").await;
    (status, said["message"].as_str().unwrap().to_owned())
}

/// The artifacts that a job sees, with their files.
async fn seen(job: &LocalArtifacts) -> Vec<(String, Vec<u8>)> {
    let (status, list) = said(job, ("GET", BASE), "").await;
    if status == 404 {
        return Vec::new();
    }
    let mut seen = Vec::new();
    for artifact in list["value"].as_array().unwrap() {
        let name = artifact["name"].as_str().unwrap();
        let place = path_of(&artifact["fileContainerResourceUrl"]);
        let query: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
        let (status, files) = said(job, ("GET", &format!("{place}?itemPath={query}")), "").await;
        assert_eq!(status, 200, "{files}");
        for file in files["value"].as_array().unwrap() {
            assert_eq!(file["itemType"], "file");
            let place = path_of(&file["contentLocation"]);
            let (status, bytes) = ask(job, ("GET", &place), &[], b"").await;
            assert_eq!(status, 200);
            seen.push((file["path"].as_str().unwrap().to_owned(), bytes));
        }
    }
    assert_eq!(list["count"], list["value"].as_array().unwrap().len());
    seen
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    expected.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
}

fn packed(content: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(content).unwrap();
    packer.finish().unwrap()
}

#[tokio::test]
async fn files_come_in_chunks_and_are_seen_when_they_are_confirmed() {
    let story = Story::new();
    let (one, other) = (story.job(), story.job());
    assert_eq!(said(&one, ("GET", BASE), "").await.0, 404, "as with a forge");
    let (status, begun) = begin(&one, "logs & more").await;
    assert_eq!(status, 200);
    let place = path_of(&begun["fileContainerResourceUrl"]);
    assert_eq!(place, format!("{BASE}/{}/upload", hash_of("logs & more")));
    // In any order, and again.
    let item = "logs & more/a b/100%+ü.txt";
    assert_eq!(put(&one, item, (7, 12), b"world", &[]).await.0, 200);
    assert_eq!(put(&one, item, (0, 12), b"hello, ", &[]).await.0, 200);
    assert_eq!(put(&one, item, (0, 12), b"hello, ", &[]).await.0, 200);
    put_whole(&one, "logs & more/empty", "").await;
    put_whole(&one, "logs & more\\windows\\file", "x").await;
    let gzip = packed(b"packed and not packed any more");
    let total = gzip.len();
    for (at, part) in [(0, &gzip[..10]), (10, &gzip[10..])] {
        let fields = [("content-encoding", "gzip"), ("x-tfs-filelength", "30")];
        assert_eq!(put(&one, "logs & more/packed", (at, total), part, &fields).await.0, 200);
    }
    assert_eq!(seen(&other).await, [], "nothing is confirmed");
    assert_eq!(confirm(&one, "logs & more").await.0, 200);
    assert_eq!(confirm(&one, "logs & more").await.0, 200, "its answer was lost");
    let expected = [
        ("logs & more/a b/100%+ü.txt", "hello, world"),
        ("logs & more/empty", ""),
        ("logs & more/packed", "packed and not packed any more"),
        ("logs & more/windows/file", "x"),
    ];
    assert_eq!(seen(&other).await, pairs(&expected));
    // They are files as they were, and nothing else is left.
    let expected = expected.map(|(path, text)| (format!("v3/{path}"), text.to_owned()));
    assert_eq!(story.kept(), expected);
}

#[tokio::test]
async fn jobs_put_files_into_one_artifact_and_replace_them() {
    let story = Story::new();
    let (one, other) = (story.job(), story.job());
    put_whole(&one, "x/of/one", "1").await;
    put_whole(&other, "x/of/other", "2").await;
    put_whole(&other, "x/of/one", "longer").await;
    assert_eq!(confirm(&one, "x").await.0, 200);
    assert_eq!(seen(&other).await, pairs(&[("x/of/one", "1")]), "the other's is not confirmed");
    assert_eq!(confirm(&other, "x").await.0, 200);
    assert_eq!(seen(&one).await, pairs(&[("x/of/one", "longer"), ("x/of/other", "2")]));
}

#[tokio::test]
async fn what_is_missing_is_said() {
    let story = Story::new();
    let job = story.job();
    let (status, said) = confirm(&job, "x").await;
    assert_eq!((status, said.as_str()), (404, "no file of the artifact x has come"));
    put_whole(&job, "x/whole", "whole").await;
    for (at, part) in [(0, b"01"), (4, b"45")] {
        assert_eq!(put(&job, "x/a/b", (at, 6), part, &[]).await.0, 200);
    }
    let (status, said) = confirm(&job, "x").await;
    let expected =
        "a/b in the artifact x is to have 6 bytes, and 2 of them from its begin are there";
    assert_eq!((status, said.as_str()), (400, expected));
    assert_eq!(put(&job, "x/c", (1, 2), b"1", &[]).await.0, 200);
    let (_, said) = confirm(&job, "x").await;
    assert_eq!(said, format!("{expected}; 1 other files are not complete either"));
    assert_eq!(seen(&job).await, []);
    // An upload that begins again is another one.
    assert_eq!(begin(&job, "x").await.0, 200);
    assert_eq!(confirm(&job, "x").await.0, 404);
    // So is a file of another size.
    assert_eq!(put(&job, "x/a", (0, 6), b"old", &[]).await.0, 200);
    assert_eq!(put(&job, "x/a", (3, 5), b"ew", &[]).await.0, 200);
    assert!(confirm(&job, "x").await.1.contains("5 bytes, and 0"));
    assert_eq!(put(&job, "x/a", (0, 5), b"all n", &[]).await.0, 200);
    assert_eq!(confirm(&job, "x").await.0, 200);
    assert_eq!(seen(&job).await, pairs(&[("x/a", "all n")]));
}

#[tokio::test]
async fn what_a_job_did_not_confirm_goes_with_it() {
    let story = Story::new();
    let (one, other) = (story.job(), story.job());
    put_whole(&one, "x/one", "1").await;
    put_whole(&other, "x/other", "2").await;
    one.end().await;
    assert_eq!(confirm(&one, "x").await.0, 404);
    assert_eq!(confirm(&other, "x").await.0, 200);
    other.end().await;
    assert_eq!(story.kept(), [("v3/x/other".to_owned(), "2".to_owned())]);
}

#[tokio::test]
async fn paths_that_lead_elsewhere_are_refused() {
    let story = Story::new();
    let job = story.job();
    fs::create_dir_all(story.run()).unwrap();
    fs::write(story.run().join("secret"), "s").unwrap();
    let deep = format!("x{}", "/d".repeat(64));
    let long = format!("x/{}", "n".repeat(241));
    let whole = format!("x{}", format!("/{}", "n".repeat(240)).repeat(5));
    for item in [
        "x",
        "x/",
        "/x",
        "x//y",
        "x/./y",
        "x/../y",
        "x/..",
        "../x",
        "..",
        "./x",
        "x/y/",
        "x/a\0b",
        "x\\..\\y",
        "a:b/c",
        "",
        &deep,
        &long,
        &whole,
        "../../secret",
        "..\\secret",
    ] {
        let (status, said) = put(&job, item, (0, 1), b"1", &[]).await;
        assert_eq!(status, 400, "{item:?}: {said}");
        let name = item.split(['/', '\\']).next().unwrap();
        let query: String = form_urlencoded::byte_serialize(item.as_bytes()).collect();
        let path = format!("{BASE}/{}/download?itemPath={query}", hash_of(name));
        let (status, _) = ask(&job, ("GET", &path), &[], b"").await;
        assert_eq!(status, 400, "{item:?}");
    }
    for name in ["", ".", "..", "a/b", "a\\b", "a\0", &"n".repeat(241)] {
        assert_eq!(begin(&job, name).await.0, 400, "{name:?}");
        assert_eq!(confirm(&job, name).await.0, 400, "{name:?}");
        let query: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
        let path = format!("{BASE}/{}/download_url?itemPath={query}", hash_of(name));
        assert_eq!(said(&job, ("GET", &path), "").await.0, 400, "{name:?}");
    }
    assert_eq!(story.kept(), [("secret".to_owned(), "s".to_owned())]);
}

#[tokio::test]
async fn a_file_is_no_directory() {
    let story = Story::new();
    let (one, other) = (story.job(), story.job());
    put_whole(&one, "x/a", "1").await;
    put_whole(&one, "x/a/b", "2").await;
    let clash = "the artifact has a file a, which cannot be something else too";
    assert_eq!(confirm(&one, "x").await, (409, clash.to_owned()));
    assert_eq!(begin(&one, "x").await.0, 200);
    put_whole(&one, "x/a", "1").await;
    put_whole(&one, "x/d/e", "1").await;
    assert_eq!(confirm(&one, "x").await.0, 200);
    put_whole(&other, "x/a/b", "2").await;
    assert_eq!(confirm(&other, "x").await, (409, clash.to_owned()));
    assert_eq!(begin(&other, "x").await.0, 200);
    put_whole(&other, "x/d", "2").await;
    assert_eq!(confirm(&other, "x").await.0, 409);
    assert_eq!(seen(&one).await, pairs(&[("x/a", "1"), ("x/d/e", "1")]));
    let path = format!("{BASE}/{}/download?itemPath=x/d", hash_of("x"));
    assert_eq!(ask(&one, ("GET", &path), &[], b"").await.0, 404, "a directory is no file");
}

#[tokio::test]
async fn a_chunk_is_what_it_says() {
    let story = Story::new();
    let job = story.job();
    for (fields, expected) in [
        (&[("content-range", "bytes 0-4/*")][..], 400),
        (&[("content-range", "bytes 0-3/5")], 413),
        (&[("content-range", "bytes 0-5/6")], 400),
        (&[("x-tfs-filelength", "6")], 400),
        (&[("content-encoding", "br")], 415),
        (&[("x-actions-results-md5", "AAAA")], 500),
    ] {
        let (status, said) = put(&job, "x/f", (0, 5), b"bytes", fields).await;
        assert_eq!(status, expected, "{fields:?}: {said}");
    }
    assert_eq!(confirm(&job, "x").await.0, 400, "none of them counts");
    // One that comes broken does no harm to the one before.
    put_whole(&job, "x/f", "bytes").await;
    let wrong = [("x-actions-results-md5", "AAAA")];
    assert_eq!(put(&job, "x/f", (0, 5), b"wrong", &wrong).await.0, 500);
    assert_eq!(confirm(&job, "x").await.0, 200);
    assert_eq!(seen(&job).await, pairs(&[("x/f", "bytes")]));
    let other = format!("{BASE}/{}/upload?itemPath=x/f", hash_of("y"));
    assert_eq!(ask(&job, ("PUT", &other), &[], b"").await.0, 400);
    for path in ["", "/a", "/a/b/c", "/a/upload/"] {
        assert_eq!(ask(&job, ("PUT", &format!("{BASE}{path}")), &[], b"").await.0, 404, "{path}");
    }
    for run in ["", "x", "-1", "7/8", "..", "7%20"] {
        let path = format!("/api/actions_pipeline/_apis/pipelines/workflows/{run}/artifacts");
        let (status, text) = ask(&job, ("GET", &path), &[], b"").await;
        assert_eq!(status, 404, "{run}");
        assert!(String::from_utf8(text).unwrap().contains("is not known"), "{run}");
    }
    let path = BASE.replace('7', &"7".repeat(500));
    assert_eq!(ask(&job, ("GET", &path), &[], b"").await.0, 400);
    let path = "/api/actions_pipeline/_apis/pipelines/workflows/12345/artifacts";
    assert_eq!(ask(&job, ("GET", path), &[], b"").await.0, 200, "whatever the run is called");
}

#[tokio::test]
async fn what_does_not_unpack_is_refused() {
    let story = Story::new();
    let job = story.job();
    let gzip = [("content-encoding", "gzip")];
    let content = packed(b"content");
    for wrong in [&b"no gzip"[..], &content[..content.len() - 1], b""] {
        assert_eq!(begin(&job, "x").await.0, 200);
        assert_eq!(put(&job, "x/f", (0, wrong.len()), wrong, &gzip).await.0, 200);
        let (status, said) = confirm(&job, "x").await;
        assert_eq!(status, 400, "{said}");
        assert!(said.starts_with("f is not what gzip makes"), "{said}");
    }
    assert_eq!(seen(&job).await, []);
}

#[tokio::test]
async fn what_one_run_keeps_is_bounded() {
    let limits =
        Limits { bytes: 100, artifacts: 2, entries: 6, files: 3, path_bytes: 40, chunks: 8 };
    let story = Story { limits, ..Story::new() };
    let (one, other) = (story.job(), story.job());
    put_whole(&one, "x/a", &"a".repeat(60)).await;
    assert_eq!(confirm(&one, "x").await.0, 200);
    put_whole(&other, "y/a", &"b".repeat(41)).await;
    let (status, said) = confirm(&other, "y").await;
    let expected =
        "this run keeps 60 bytes of artifacts and these are 41 more; it may keep 100 in all";
    assert_eq!((status, said.as_str()), (413, expected));
    // What is replaced does not count, and what is packed counts as it is kept.
    put_whole(&other, "x/a", &"c".repeat(100)).await;
    assert_eq!(confirm(&other, "x").await.0, 200);
    let bomb = packed(&[0; 100_000]);
    let gzip = [("content-encoding", "gzip")];
    assert_eq!(put(&other, "x/a", (0, bomb.len()), &bomb, &gzip).await.0, 200);
    assert_eq!(confirm(&other, "x").await.0, 413);
    assert!(!story.kept().iter().any(|(path, _)| path.ends_with("/whole")));
    assert_eq!(begin(&other, "x").await.0, 200);
    assert_eq!(begin(&other, "y").await.0, 200);
    // So are files, directories and artifacts.
    for path in ["b", "c", "d"] {
        put_whole(&one, &format!("x/{path}"), "").await;
    }
    let (status, said) = confirm(&one, "x").await;
    assert_eq!(status, 413);
    assert_eq!(said, "the artifact x would have more than 3 files; pack them into one");
    assert_eq!(begin(&one, "x").await.0, 200);
    put_whole(&one, "y/a/b/c/d", "").await;
    let (_, said) = confirm(&one, "y").await;
    assert!(said.contains("2 files and directories of artifacts and these are 5 more"), "{said}");
    assert_eq!(begin(&one, "y").await.0, 200);
    put_whole(&one, "y/a", "").await;
    assert_eq!(confirm(&one, "y").await.0, 200);
    put_whole(&one, &format!("y/{}", "n".repeat(40)), "").await;
    let (status, said) = confirm(&one, "y").await;
    let expected = "the paths in the artifact y would have 41 bytes, and may have 40; pack the files \
                    into one";
    assert_eq!((status, said.as_str()), (413, expected));
    assert_eq!(begin(&one, "y").await.0, 200);
    put_whole(&one, "z/a", "").await;
    assert!(confirm(&one, "z").await.1.contains("this run keeps 2 artifacts and these are 1 more"));
}

#[tokio::test]
async fn chunks_that_belong_to_nothing_are_bounded() {
    let limits = Limits { chunks: 3, ..Limits::default() };
    let story = Story { limits, ..Story::new() };
    let job = story.job();
    for _ in 0..5 {
        for path in ["a", "b", "c"] {
            put_whole(&job, &format!("x/{path}"), "1").await;
        }
        let (status, said) = put(&job, "x/d", (0, 1), b"1", &[]).await;
        assert_eq!(status, 413);
        assert!(said.contains("the job has sent 3 chunks"), "{said}");
        assert_eq!(confirm(&job, "x").await.0, 200, "what is confirmed makes room");
        put_whole(&job, "x/e", "1").await;
        assert_eq!(begin(&job, "x").await.0, 200, "and so does what is begun anew");
    }
}

#[tokio::test]
async fn the_versions_do_not_see_each_other() {
    let story = Story::new();
    let job = story.job();
    put_whole(&job, "x.zip/a", "1").await;
    put_whole(&job, "v3/a", "2").await;
    assert_eq!(confirm(&job, "x.zip").await.0, 200);
    assert_eq!(confirm(&job, "v3").await.0, 200);
    let calls = common::call::ARTIFACT_CALLS;
    let list = format!("{calls}ListArtifacts");
    let (_, newer) = said(&job, ("POST", &list), "{}").await;
    assert_eq!(newer, json!({ "artifacts": [] }));
    let create = format!("{calls}CreateArtifact");
    let (status, created) = said(&job, ("POST", &create), r#"{"name":"x"}"#).await;
    assert_eq!(status, 200, "{created}");
    let place = path_of(&created["signedUploadUrl"]);
    assert_eq!(ask(&job, ("PUT", &place), &[], b"zip").await.0, 201);
    let finalize = format!("{calls}FinalizeArtifact");
    let (status, done) = said(&job, ("POST", &finalize), r#"{"name":"x","size":"3"}"#).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(seen(&job).await, pairs(&[("v3/a", "2"), ("x.zip/a", "1")]));
    let paths: Vec<_> = story.kept().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["v3/v3/a", "v3/x.zip/a", "x.zip"]);
}
