//! Caches as jobs save and restore them, by both versions of the protocol.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::{Request, Response, StatusCode};
use common::ids::JobId;
use common::plan::Dialect;
use common::size::ByteSize;
use futures_util::StreamExt;
use serde_json::{Value as Json, json};
use tokio::io::AsyncReadExt;

use super::*;
use crate::calls::{Body, Bytes, OutBody, empty};

const FIRST: &str = "/_apis/artifactcache";
const SECOND: &str = "/twirp/github.actions.results.api.v1.CacheService";

fn store(directory: &Path, quota: u64) -> Arc<CacheStore> {
    let quota = ByteSize(quota);
    CacheStore::new(CacheSettings { directory: directory.to_owned(), quota })
}

/// A job of a repository's branch.
fn job_of(store: &Arc<CacheStore>, repository: &str, reference: &str) -> JobCache {
    let mut request = simulators::jobs::job("tiny", &["true"]);
    request.body.plan.dialect = Dialect::Github;
    request.envelope.repository = repository.to_owned();
    let github = &mut request.body.contexts.github;
    github.insert("repository".to_owned(), repository.into());
    github.insert("ref".to_owned(), reference.into());
    github.insert("event".to_owned(), json!({ "repository": { "default_branch": "main" } }));
    JobCache::new(Arc::clone(store), Scope::of(&request), JobId::new())
}

fn main_job(store: &Arc<CacheStore>) -> JobCache {
    job_of(store, "o/r", "refs/heads/main")
}

fn body_of(bytes: impl Into<Bytes>) -> Body {
    futures_util::stream::iter([Ok(bytes.into())]).boxed()
}

/// What is asked, and what comes back: the status and the body.
async fn ask(job: &JobCache, method: &str, path: &str, body: Body, range: &str) -> (u16, Vec<u8>) {
    let request = Request::builder().method(method).uri(path).header("host", "here:1");
    let request = match range {
        "" => request,
        range if method == "PATCH" => request.header("content-range", range),
        range => request.header("range", range),
    };
    let answer: Response<OutBody> = job.answer(request.body(body).unwrap()).await;
    let status = answer.status().as_u16();
    let mut bytes = Vec::new();
    answer.into_body().read_to_end(&mut bytes).await.unwrap();
    (status, bytes)
}

async fn ask_json(job: &JobCache, method: &str, path: &str, body: Json) -> (u16, Json) {
    let (status, bytes) = ask(job, method, path, body_of(body.to_string()), "").await;
    (status, serde_json::from_slice(&bytes).unwrap_or(Json::Null))
}

/// Saves by the first version, in parts of four bytes, the last first.
async fn save(job: &JobCache, key: &str, content: &str) -> u16 {
    let wish = json!({ "key": key, "version": "v" });
    let (status, reserved) = ask_json(job, "POST", &format!("{FIRST}/caches"), wish).await;
    if status != 200 {
        return status;
    }
    let place = format!("{FIRST}/caches/{}", reserved["cacheId"]);
    let parts: Vec<&[u8]> = content.as_bytes().chunks(4).collect();
    for (number, part) in parts.iter().enumerate().rev() {
        let from = number * 4;
        let range = format!("bytes {from}-{}/*", from + part.len() - 1);
        let sent = ask(job, "PATCH", &place, body_of(part.to_vec()), &range).await;
        assert_eq!(sent.0, 200, "{sent:?}");
    }
    ask_json(job, "POST", &place, json!({ "size": content.len() })).await.0
}

/// Restores by the first version: the key that was found, and the content.
async fn restore(job: &JobCache, keys: &str) -> Option<(String, String)> {
    let path = format!("{FIRST}/cache?keys={keys}&version=v");
    let (status, found) = ask(job, "GET", &path, empty(), "").await;
    if status == 204 {
        return None;
    }
    let found: Json = serde_json::from_slice(&found).unwrap();
    assert_eq!((status, &found["result"]), (200, &json!("hit")), "{found}");
    let place = found["archiveLocation"].as_str().unwrap();
    let path = place.strip_prefix("http://here:1").expect("it is where the job asked");
    let (status, content) = ask(job, "GET", path, empty(), "").await;
    assert_eq!(status, 200);
    Some((found["cacheKey"].as_str().unwrap().to_owned(), String::from_utf8(content).unwrap()))
}

/// Makes the cache of a key so many seconds older, by when it was made and when it was used.
fn make_older(job: &JobCache, directory: &Path, key: &str, seconds: u64) {
    let place = directory.join(job.scope().directory);
    for path in store::entries(&place) {
        let mut entry = store::read(&path).unwrap();
        if entry.key == key {
            entry.made -= seconds * 1000;
            fs::write(&path, serde_json::to_vec(&entry).unwrap()).unwrap();
            let time = SystemTime::now() - Duration::from_secs(seconds);
            File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        }
    }
}

fn some(key: &str, content: &str) -> Option<(String, String)> {
    Some((key.to_owned(), content.to_owned()))
}

#[tokio::test]
async fn what_is_saved_is_restored_by_key_and_by_its_begin() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path(), 1 << 20);
    let job = main_job(&store);
    assert_eq!(restore(&job, "a-1").await, None);
    assert_eq!(save(&job, "a-1", "the first").await, 200);
    make_older(&job, directory.path(), "a-1", 1);
    assert_eq!(save(&job, "a-2", "the second").await, 200);
    let later = main_job(&store);
    assert_eq!(restore(&later, "a-1").await, some("a-1", "the first"));
    assert_eq!(restore(&later, "none,a-").await, some("a-2", "the second"));
    assert_eq!(restore(&later, "a-1,a-2").await, some("a-1", "the first"));
    assert_eq!(restore(&later, "b").await, None);
    let (status, _) =
        ask(&later, "GET", &format!("{FIRST}/cache?keys=&version=v"), empty(), "").await;
    assert_eq!(status, 400);
    let other = format!("{FIRST}/cache?keys=a-1&version=other");
    assert_eq!(ask(&later, "GET", &other, empty(), "").await.0, 204);
}

#[tokio::test]
async fn the_first_to_save_a_key_wins() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path(), 1 << 20);
    let (one, other) = (main_job(&store), main_job(&store));
    let wish = || json!({ "key": "k", "version": "v" });
    let reserve = format!("{FIRST}/caches");
    let (status, first) = ask_json(&one, "POST", &reserve, wish()).await;
    assert_eq!(status, 200);
    // The same job again, as after a lost connection.
    assert_eq!(ask_json(&one, "POST", &reserve, wish()).await, (200, first));
    let (status, said) = ask_json(&other, "POST", &reserve, wish()).await;
    assert_eq!(status, 409, "{said}");
    assert_eq!(save(&one, "k", "mine").await, 200);
    assert_eq!(save(&other, "k", "theirs").await, 409);
    assert_eq!(restore(&other, "k").await, some("k", "mine"));
    // What a job that is over did not complete is for another.
    let half = json!({ "key": "half", "version": "v" });
    assert_eq!(ask_json(&one, "POST", &reserve, half.clone()).await.0, 200);
    assert_eq!(ask_json(&other, "POST", &reserve, half.clone()).await.0, 409);
    one.end().await;
    assert_eq!(ask_json(&other, "POST", &reserve, half).await.0, 200);
    // What one job saves is nobody else's to go on with.
    let (_, third) = ask_json(&one, "POST", &reserve, json!({ "key": "l", "version": "v" })).await;
    let place = format!("{FIRST}/caches/{}", third["cacheId"]);
    let sent = ask(&other, "PATCH", &place, body_of("x"), "bytes 0-0/*").await;
    assert_eq!(sent.0, 404);
    assert_eq!(ask_json(&other, "POST", &place, json!({ "size": 0 })).await.0, 404);
}

#[tokio::test]
async fn a_branch_reads_its_own_and_the_default_branch_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path(), 1 << 20);
    let main = main_job(&store);
    let branch = job_of(&store, "o/r", "refs/heads/feature");
    let sibling = job_of(&store, "o/r", "refs/heads/sibling");
    let stranger = job_of(&store, "o/other", "refs/heads/main");
    save(&main, "of-main", "main").await;
    save(&branch, "of-branch", "branch").await;
    assert_eq!(restore(&branch, "of-").await, some("of-branch", "branch"));
    assert_eq!(restore(&branch, "of-main").await, some("of-main", "main"));
    assert_eq!(restore(&main, "of-branch").await, None);
    assert_eq!(restore(&sibling, "of-branch").await, None);
    assert_eq!(restore(&stranger, "of-").await, None);
    // The same key is another cache in another branch.
    assert_eq!(save(&branch, "of-main", "own").await, 200);
    assert_eq!(restore(&branch, "of-main").await, some("of-main", "own"));
    assert_eq!(restore(&main, "of-main").await, some("of-main", "main"));
    // Nor can its content be asked for by its name.
    let path = format!("{FIRST}/cache?keys=of-branch&version=v");
    let (_, found) = ask(&branch, "GET", &path, empty(), "").await;
    let found: Json = serde_json::from_slice(&found).unwrap();
    let place = found["archiveLocation"].as_str().unwrap().strip_prefix("http://here:1").unwrap();
    assert_eq!(ask(&branch, "GET", place, empty(), "").await.0, 200);
    for other in [&main, &sibling, &stranger] {
        assert_eq!(ask(other, "GET", place, empty(), "").await.0, 404);
    }
}

#[tokio::test]
async fn what_has_holes_or_another_length_is_no_cache() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path(), 1 << 20);
    let job = main_job(&store);
    let wish = json!({ "key": "k", "version": "v" });
    let (_, reserved) = ask_json(&job, "POST", &format!("{FIRST}/caches"), wish).await;
    let place = format!("{FIRST}/caches/{}", reserved["cacheId"]);
    let patch = async |range: &'static str, bytes: &'static str| {
        ask(&job, "PATCH", &place, body_of(bytes), range).await.0
    };
    assert_eq!(patch("bytes 0-3/*", "abcd").await, 200);
    assert_eq!(patch("bytes 6-7/*", "gh").await, 200);
    for size in [0, 4, 6, 8] {
        let (status, said) = ask_json(&job, "POST", &place, json!({ "size": size })).await;
        assert_eq!(status, 400, "{size}: {said}");
    }
    assert_eq!(patch("bytes 4-5/*", "e").await, 400, "shorter than it says");
    assert_eq!(patch("bytes 4-5/*", "efg").await, 413, "longer than it says");
    assert_eq!(patch("4-5", "ef").await, 400);
    assert_eq!(patch("bytes 5-4/*", "ef").await, 400);
    assert_eq!(patch("bytes 0-18446744073709551615/*", "ef").await, 400);
    assert_eq!(patch("bytes 9999999999-9999999999/*", "e").await, 413);
    assert_eq!(patch("bytes 4-5/*", "ef").await, 200);
    // Twice is once.
    assert_eq!(patch("bytes 4-5/*", "ef").await, 200);
    assert_eq!(ask_json(&job, "POST", &place, json!({ "size": 8 })).await.0, 200);
    assert_eq!(restore(&job, "k").await, some("k", "abcdefgh"));
    assert_eq!(restore(&job, "K").await, None, "GitHub's keys have their case");
}

#[tokio::test]
async fn the_second_version_does_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path(), 1 << 20);
    let job = main_job(&store);
    let create = format!("{SECOND}/CreateCacheEntry");
    let finalize = format!("{SECOND}/FinalizeCacheEntryUpload");
    let find = format!("{SECOND}/GetCacheEntryDownloadURL");
    for (key, blocks) in [("whole", false), ("blocks", true)] {
        let wish = json!({ "key": key, "version": "v" });
        let (status, created) = ask_json(&job, "POST", &create, wish).await;
        assert_eq!((status, &created["ok"]), (200, &json!(true)), "{created}");
        let place = created["signed_upload_url"].as_str().unwrap();
        let place = place.strip_prefix("http://here:1").unwrap();
        if blocks {
            for (name, bytes) in [("QQ%3D%3D", "one "), ("Qg%3D%3D", "two")] {
                let path = format!("{place}?comp=block&blockid={name}");
                assert_eq!(ask(&job, "PUT", &path, body_of(bytes), "").await.0, 201);
            }
            let list = "<BlockList><Latest>QQ==</Latest><Latest>Qg==</Latest></BlockList>";
            let path = format!("{place}?comp=blocklist");
            assert_eq!(ask(&job, "PUT", &path, body_of(list), "").await.0, 201);
            assert_eq!(ask(&job, "PUT", &path, body_of(list), "").await.0, 201, "twice is once");
        } else {
            assert_eq!(ask(&job, "PUT", place, body_of("lost and"), "").await.0, 201);
            assert_eq!(ask(&job, "PUT", place, body_of("one two"), "").await.0, 201);
        }
        let wish = json!({ "key": key, "version": "v", "size_bytes": "7" });
        let (status, done) = ask_json(&job, "POST", &finalize, wish).await;
        assert_eq!((status, &done["ok"]), (200, &json!(true)), "{done}");
    }
    let wish = json!({ "key": "none", "restore_keys": ["bl"], "version": "v" });
    let (_, found) = ask_json(&job, "POST", &find, wish).await;
    assert_eq!((&found["ok"], &found["matched_key"]), (&json!(true), &json!("blocks")));
    let place = found["signed_download_url"].as_str().unwrap();
    let place = place.strip_prefix("http://here:1").unwrap();
    for (range, expected) in
        [("", "one two"), ("bytes=0-2", "one"), ("bytes=4-", "two"), ("bytes=9-", "one two")]
    {
        let (_, bytes) = ask(&job, "GET", place, empty(), range).await;
        assert_eq!(String::from_utf8(bytes).unwrap(), expected, "{range}");
    }
    assert_eq!(ask(&job, "HEAD", place, empty(), "").await, (200, Vec::new()));
    let wish = json!({ "key": "whole", "version": "v" });
    let (status, said) = ask_json(&job, "POST", &create, wish).await;
    assert_eq!((status, &said["code"]), (409, &json!("already_exists")));
    let (_, found) = ask_json(&job, "POST", &find, json!({ "key": "x", "version": "v" })).await;
    assert_eq!(found["ok"], false);
    assert_eq!(ask_json(&job, "POST", &format!("{SECOND}/Other"), json!({})).await.0, 404);
    assert_eq!(ask_json(&job, "POST", &create, json!({ "key": 1 })).await.0, 400);
}

#[tokio::test]
async fn an_upload_goes_on_after_the_process_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let before = store(directory.path(), 1 << 20);
    let job = main_job(&before);
    let wish = json!({ "key": "k", "version": "v" });
    let (_, reserved) = ask_json(&job, "POST", &format!("{FIRST}/caches"), wish).await;
    let place = format!("{FIRST}/caches/{}", reserved["cacheId"]);
    assert_eq!(ask(&job, "PATCH", &place, body_of("abcd"), "bytes 0-3/*").await.0, 200);
    let after = JobCache::new(store(directory.path(), 1 << 20), job.scope(), job.job());
    assert_eq!(ask(&after, "PATCH", &place, body_of("ef"), "bytes 4-5/*").await.0, 200);
    assert_eq!(ask_json(&after, "POST", &place, json!({ "size": 6 })).await.0, 200);
    assert_eq!(restore(&after, "k").await, some("k", "abcdef"));
    // Nothing of the upload is left.
    let left = fs::read_dir(directory.path()).unwrap().flatten().next().unwrap().path();
    let ends: Vec<String> = fs::read_dir(left)
        .unwrap()
        .flatten()
        .map(|entry| entry.path().extension().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    assert!(ends.iter().all(|end| ["", "entry", "data"].contains(&end.as_str())), "{ends:?}");
}

#[tokio::test]
async fn the_quota_is_kept_and_the_fullest_repository_gives() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path(), 100);
    let small = job_of(&store, "o/small", "refs/heads/main");
    assert_eq!(save(&small, "oldest", &"s".repeat(20)).await, 200);
    make_older(&small, directory.path(), "oldest", 30);
    let large = main_job(&store);
    for (key, age) in [("one", 20), ("two", 10)] {
        assert_eq!(save(&large, key, &"l".repeat(30)).await, 200);
        make_older(&large, directory.path(), key, age);
    }
    // It was used since.
    assert!(restore(&large, "one").await.is_some());
    assert_eq!(save(&large, "three", &"l".repeat(40)).await, 200);
    assert_eq!(restore(&large, "two").await, None);
    assert!(restore(&large, "one").await.is_some());
    assert!(restore(&large, "three").await.is_some());
    assert!(restore(&small, "oldest").await.is_some());
    // One cache has half of it at most.
    let wish = json!({ "key": "huge", "version": "v" });
    let (_, reserved) = ask_json(&large, "POST", &format!("{FIRST}/caches"), wish).await;
    let place = format!("{FIRST}/caches/{}", reserved["cacheId"]);
    let sent = ask(&large, "PATCH", &place, body_of("x".repeat(51)), "bytes 0-50/*").await;
    assert_eq!(sent.0, 413);
}

#[tokio::test]
async fn what_is_old_or_of_nobody_goes() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path(), 1 << 20);
    let job = main_job(&store);
    save(&job, "old", "x").await;
    let place = fs::read_dir(directory.path()).unwrap().flatten().next().unwrap().path();
    let age = |path: &Path, days: u64| {
        let time = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    };
    let entry = store::entries(&place).next().unwrap();
    age(&entry, 8);
    for name in ["1.upload", "2.pending", "lost.data"] {
        fs::write(place.join(name), "x").unwrap();
        age(&place.join(name), 1);
    }
    fs::write(place.join("3.upload"), "x").unwrap();
    save(&job, "new", "y").await;
    let mut names: Vec<String> = fs::read_dir(&place)
        .unwrap()
        .flatten()
        .map(|entry| entry.path().extension().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["", "data", "entry", "upload"]);
    assert_eq!(restore(&job, "new").await, some("new", "y"));
    // One whose content is not whole is none, and may be saved again.
    let content = fs::read_dir(&place).unwrap().flatten().map(|entry| entry.path());
    let content = content.filter(|path| path.extension().is_some_and(|end| end == "data"));
    fs::write(content.last().unwrap(), "").unwrap();
    assert_eq!(restore(&job, "new").await, None);
    assert_eq!(save(&job, "new", "again").await, 200);
    assert_eq!(restore(&job, "new").await, some("new", "again"));
}

#[tokio::test]
async fn what_makes_no_sense_is_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path(), 1 << 20);
    let job = main_job(&store);
    for (method, path, body, expected) in [
        ("GET", "/other", "", 404),
        ("GET", "/_apis/artifactcache/artifacts/../../etc", "", 404),
        ("GET", "/_apis/artifactcache/artifacts/none", "", 404),
        ("POST", "/_apis/artifactcache/caches", "no", 400),
        ("POST", "/_apis/artifactcache/caches", r#"{"key":"","version":"v"}"#, 400),
        ("POST", "/_apis/artifactcache/caches/x", r#"{"size":1}"#, 400),
        ("POST", "/_apis/artifactcache/caches/7", r#"{"size":1}"#, 404),
        ("POST", "/_apis/artifactcache/clean", "", 200),
        ("PUT", "/_apis/artifactcache/blobs/uploads/7", "x", 404),
        ("PUT", "/_apis/artifactcache/blobs/../x", "x", 404),
        ("DELETE", "/_apis/artifactcache/caches/7", "", 404),
    ] {
        let (status, said) = ask(&job, method, path, body_of(body), "").await;
        assert_eq!(status, expected, "{method} {path}: {}", String::from_utf8_lossy(&said));
    }
    let long = json!({ "key": "k".repeat(513), "version": "v" });
    assert_eq!(ask_json(&job, "POST", &format!("{FIRST}/caches"), long).await.0, 400);
    let endless =
        futures_util::stream::iter(std::iter::repeat_with(|| Ok(Bytes::from(vec![b' '; 4096]))));
    let (status, _) = ask(&job, "POST", &format!("{FIRST}/caches"), endless.boxed(), "").await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE.as_u16());
}

#[tokio::test]
async fn what_one_job_sends_is_bounded_also_where_it_fails() {
    let directory = tempfile::tempdir().unwrap();
    // One cache may have 500 bytes, and what is not complete 1 000.
    let store = store(directory.path(), 1000);
    let job = main_job(&store);
    let wish = json!({ "key": "k", "version": "v" });
    let create = format!("{SECOND}/CreateCacheEntry");
    let (_, created) = ask_json(&job, "POST", &create, wish).await;
    let place = created["signed_upload_url"].as_str().unwrap();
    let place = place.strip_prefix("http://here:1").unwrap();
    let block = format!("{place}?comp=block&blockid=a");
    assert_eq!(ask(&job, "PUT", &block, body_of("x".repeat(300)), "").await.0, 201);
    // A short list of a block that it names a thousand times is a large blob.
    let list = format!("<BlockList>{}</BlockList>", "<Latest>a</Latest>".repeat(1000));
    let put = format!("{place}?comp=blocklist");
    assert_eq!(ask(&job, "PUT", &put, body_of(list), "").await.0, 413);
    // What was too much was counted: nothing of it can be had back by failing.
    let other = format!("{place}?comp=block&blockid=b");
    assert_eq!(ask(&job, "PUT", &other, body_of("x".repeat(300)), "").await.0, 413);
    let left: u64 = fs::read_dir(directory.path().join(job.scope().directory))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(left < 1500, "{left}");
    // Others have room of their own.
    assert_eq!(save(&main_job(&store), "other", "content").await, 200);
}

#[tokio::test]
async fn a_repeated_question_is_answered_as_before() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path(), 1 << 20);
    let job = main_job(&store);
    let reserve = format!("{FIRST}/caches");
    let wish = json!({ "key": "k", "version": "v" });
    let (_, reserved) = ask_json(&job, "POST", &reserve, wish.clone()).await;
    let place = format!("{FIRST}/caches/{}", reserved["cacheId"]);
    assert_eq!(ask(&job, "PATCH", &place, body_of("stale"), "bytes 0-4/*").await.0, 200);
    // A step that tries again begins again.
    assert_eq!(ask_json(&job, "POST", &reserve, wish).await, (200, reserved));
    assert_eq!(ask(&job, "PATCH", &place, body_of("new"), "bytes 0-2/*").await.0, 200);
    for _ in 0..2 {
        assert_eq!(ask_json(&job, "POST", &place, json!({ "size": 3 })).await.0, 200);
    }
    assert_eq!(restore(&job, "k").await, some("k", "new"));
    for number in 0..64 {
        let wish = json!({ "key": format!("many-{number}"), "version": "v" });
        assert_eq!(ask_json(&job, "POST", &reserve, wish).await.0, 200, "{number}");
    }
    let wish = json!({ "key": "one more", "version": "v" });
    assert_eq!(ask_json(&job, "POST", &reserve, wish).await.0, 413);
}

/// Before what a process may be killed that makes an entry.
#[derive(Clone, Copy, Debug)]
enum Before {
    Content,
    Tidying,
    Answer,
}

/// The files of a directory whose names begin or end so.
fn files(place: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<std::path::PathBuf> {
    let all = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| is_wanted(path.file_name().unwrap().to_str().unwrap())).collect()
}

/// Commits an upload of five bytes, is killed, and is asked the same again by its job and by another.
async fn commit_and_be_killed(killed: Before, is_second: bool) {
    let directory = tempfile::tempdir().unwrap();
    let first = store(directory.path(), 1 << 20);
    let (job, other) = (main_job(&first), main_job(&first));
    let wish = json!({ "key": "k", "version": "v" });
    let (_, reserved) = ask_json(&job, "POST", &format!("{FIRST}/caches"), wish).await;
    let place = format!("{FIRST}/caches/{}", reserved["cacheId"]);
    assert_eq!(ask(&job, "PATCH", &place, body_of("bytes"), "bytes 0-4/*").await.0, 200);
    let finalize = format!("{SECOND}/FinalizeCacheEntryUpload");
    let commit = async |job: &JobCache, size: u64| match is_second {
        true => {
            let wish = json!({ "key": "k", "version": "v", "size_bytes": size });
            ask_json(job, "POST", &finalize, wish).await.0
        }
        false => ask_json(job, "POST", &place, json!({ "size": size })).await.0,
    };
    let repository = directory.path().join(job.scope().directory);
    let begin = format!("{}.", reserved["cacheId"]);
    let upload = repository.join(format!("{begin}upload"));
    let rest = files(&repository, |name| name.starts_with(&begin) && !name.ends_with("upload"));
    let rest: Vec<_> = rest.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    assert_eq!(commit(&job, 5).await, 200);
    if !matches!(killed, Before::Answer) {
        rest.iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
    }
    if matches!(killed, Before::Content) {
        let data = files(&repository, |name| name.ends_with(".data"));
        fs::rename(&data[0], upload).unwrap();
    }
    let after = store(directory.path(), 1 << 20);
    let again = JobCache::new(Arc::clone(&after), job.scope(), job.job());
    let other = JobCache::new(after, other.scope(), other.job());
    assert_eq!(commit(&other, 5).await, 404, "it is another's");
    assert!(commit(&again, 4).await >= 400, "it has another size");
    for _ in 0..2 {
        assert_eq!(commit(&again, 5).await, 200);
    }
    assert_eq!(restore(&other, "k").await, some("k", "bytes"));
    assert!(files(&repository, |name| name.starts_with(&begin)).is_empty());
}

#[tokio::test]
async fn a_commit_that_was_not_answered_may_be_repeated() {
    for killed in [Before::Content, Before::Tidying, Before::Answer] {
        for is_second in [false, true] {
            eprintln!("{killed:?}, the second version: {is_second}");
            commit_and_be_killed(killed, is_second).await;
        }
    }
}

#[tokio::test]
async fn a_commit_may_be_repeated_before_it_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let job = main_job(&store(directory.path(), 1 << 20));
    let wish = json!({ "key": "k", "version": "v" });
    let (_, reserved) = ask_json(&job, "POST", &format!("{FIRST}/caches"), wish).await;
    let place = format!("{FIRST}/caches/{}", reserved["cacheId"]);
    assert_eq!(ask(&job, "PATCH", &place, body_of("bytes"), "bytes 0-4/*").await.0, 200);
    let commits = (0..8).map(|_| ask_json(&job, "POST", &place, json!({ "size": 5 })));
    for (status, said) in futures_util::future::join_all(commits).await {
        assert_eq!(status, 200, "{said}");
    }
    assert_eq!(restore(&job, "k").await, some("k", "bytes"));
}

#[tokio::test]
async fn the_quota_is_kept_by_many_repositories_with_one_cache_each() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path(), 100);
    for number in 0..6 {
        let job = job_of(&store, &format!("o/r{number}"), "refs/heads/main");
        assert_eq!(save(&job, "k", &"x".repeat(40)).await, 200);
        assert!(restore(&job, "k").await.is_some(), "the newest stays");
        make_older(&job, directory.path(), "k", 60 - number);
    }
    let mut kept = 0;
    for number in 0..6 {
        let job = job_of(&store, &format!("o/r{number}"), "refs/heads/main");
        kept += usize::from(restore(&job, "k").await.is_some());
    }
    assert_eq!(kept, 2);
}
