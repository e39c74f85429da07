//! The older interface: an artifact has many files, each of which comes in chunks that say where they
//! belong. All calls have the token of the task.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::State as Shares;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{CONTENT_ENCODING, CONTENT_RANGE};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use md5::{Digest as _, Md5};
use serde_json::{Map, Value, json};

use super::chunks::{Chunk, in_order, range};
use super::store::remove;
use super::{
    Answered, Artifact, BROKEN, Stored, answered, bytes, check_name, json_answer, not_found,
    parameter,
};
use crate::forgejo::runtime_token::Refusal;
use crate::forgejo::server::Shared;

/// What is answered here.
pub(in crate::forgejo) const PATH: &str = "/api/actions_pipeline/{*rest}";

/// Where the runs are.
const RUNS: &str = "/api/actions_pipeline/_apis/pipelines/workflows";

/// Bytes of a message that are read at all.
const MESSAGE: usize = 1024 * 1024;

/// Answers a job.
pub(in crate::forgejo) async fn answer(
    Shares(shared): Shares<Arc<Shared>>,
    request: Request<Body>,
) -> Response<Body> {
    let what = format!("{} {}", request.method(), request.uri().path());
    let answer = choose(&shared, request).await;
    answered(&shared, &what, answer)
}

async fn choose(shared: &Shared, request: Request<Body>) -> Answered {
    let (parts, body) = request.into_parts();
    let bearer = shared.lock().bearer(&parts.headers)?;
    let rest = parts.uri.path().strip_prefix(RUNS).unwrap_or_default();
    let pieces: Vec<_> = rest.split('/').collect();
    let ["", run, "artifacts", pieces @ ..] = pieces.as_slice() else {
        return Err(Refusal::of(StatusCode::NOT_FOUND, "404 page not found"));
    };
    if run.parse() != Ok(bearer.run) {
        return Err(Refusal::of(StatusCode::BAD_REQUEST, "run-id does not match"));
    }
    let ask = Ask { shared, run: bearer.run, parts: &parts };
    match (parts.method.as_str(), pieces) {
        ("POST", []) => ask.begin(body).await,
        ("PUT", [hash, "upload"]) => ask.upload(hash, body).await,
        ("PATCH", []) => ask.confirm().await,
        ("GET", []) => ask.list(),
        ("GET", [hash, "download_url"]) => ask.files(hash),
        ("GET", [id, "download"]) => ask.download(id).await,
        _ => Err(Refusal::of(StatusCode::NOT_FOUND, "404 page not found")),
    }
}

/// The name of an artifact in paths.
fn hash_of(name: &str) -> String {
    hex::encode(Md5::digest(name))
}

fn check_hash(hash: &str, name: &str) -> Result<(), Refusal> {
    let is_right = hash == hash_of(name);
    let refusal = || Refusal::of(StatusCode::BAD_REQUEST, "Invalid artifact hash");
    is_right.then_some(()).ok_or_else(refusal)
}

/// A path without what would lead out of its directory.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn success() -> Answered {
    Ok(json_answer(StatusCode::OK, &json!({"message": "success"})))
}

/// A call of a job of a run.
struct Ask<'a> {
    shared: &'a Shared,
    run: i64,
    parts: &'a Parts,
}

impl Ask<'_> {
    fn address(&self, rest: &str) -> String {
        format!("{}{RUNS}/{}/artifacts/{rest}", self.shared.lock().url, self.run)
    }

    fn header(&self, name: &str) -> &str {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn violation(&self, what: String) {
        self.shared.change(|state| state.violations.push(what));
    }

    /// Says where the files of an artifact go.
    async fn begin(&self, body: Body) -> Answered {
        let undecoded = || Refusal::of(BROKEN, "Error decode request body");
        let body = to_bytes(body, MESSAGE).await.map_err(|_| undecoded())?;
        let sent: Map<String, Value> = serde_json::from_slice(&body).map_err(|_| undecoded())?;
        // Whatever the case of its letters.
        let field = |name: &str| {
            sent.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        };
        let name = field("Name").and_then(Value::as_str).unwrap_or_default();
        let days = field("RetentionDays").and_then(Value::as_i64).filter(|days| *days > 0);
        let days = days.map(|days| format!("?retentionDays={days}")).unwrap_or_default();
        let address = self.address(&format!("{}/upload{days}", hash_of(name)));
        Ok(json_answer(StatusCode::OK, &json!({"fileContainerResourceUrl": address})))
    }

    /// Takes a chunk of a file.
    async fn upload(&self, hash: &str, body: Body) -> Answered {
        let item = clean(&parameter(&self.parts.uri, "itemPath"));
        let (name, path) = item.split_once('/').unwrap_or((&item, &item));
        check_hash(hash, name)?;
        check_name(name)?;
        let days = parameter(&self.parts.uri, "retentionDays");
        if !days.is_empty() && days.parse::<i64>().is_err() {
            return Err(Refusal::of(StatusCode::BAD_REQUEST, "Error parse retention days"));
        }
        let broken = |what: &str| Refusal::of(BROKEN, format!("Error save upload chunk: {what}"));
        let range = range(self.header(CONTENT_RANGE.as_str()));
        let (first, last, total) = range.ok_or_else(|| broken("parse content range error"))?;
        let mut md5 = Md5::new();
        let saved = self.shared.store.save(body, |bytes| md5.update(bytes)).await;
        let (file, length) = saved.map_err(|error| {
            Refusal::innocent(BROKEN, format!("Error save upload chunk: {error}"))
        })?;
        if self.header("x-actions-results-md5") != BASE64_STANDARD.encode(md5.finalize()) {
            remove([&file]);
            return Err(broken("md5 not match"));
        }
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        if length != last + 1 - first {
            self.violation(format!("a chunk of {length} bytes for {first} to {last} of {item:?}"));
        }
        let encoding = Some(self.header(CONTENT_ENCODING.as_str())).filter(|text| !text.is_empty());
        let size = self.header("x-tfs-filelength").parse::<i64>().ok();
        if size.is_none_or(|size| encoding.is_none() && size != total) {
            self.violation(format!(
                "x-tfs-filelength is {size:?} where {item:?} has {total} bytes"
            ));
        }
        self.shared.change(|state| {
            let id = state.ensure_artifact(self.run, name, path, false);
            let Some(artifact) = state.artifacts.get_mut(&id) else { return };
            let upload = &mut artifact.upload;
            upload.total = total;
            upload.size = size.filter(|size| *size > 0).unwrap_or(length);
            upload.encoding = encoding.map(str::to_owned);
            upload.chunks.retain(|chunk| (chunk.first, chunk.last) != (first, last));
            upload.chunks.push(Chunk { first, last, path: file });
        });
        success()
    }

    /// Puts all files of an artifact together of which every chunk is there.
    async fn confirm(&self) -> Answered {
        let name = parameter(&self.parts.uri, "artifactName");
        if name.is_empty() {
            return Err(Refusal::of(StatusCode::BAD_REQUEST, "Error artifact name is empty"));
        }
        let mut found = Vec::new();
        let mut missing = Vec::new();
        {
            let state = self.shared.lock();
            let files = state.artifacts.values();
            let files = files.filter(|file| file.run == self.run && file.name == name);
            for file in files.filter(|file| !file.is_newer) {
                match in_order(&file.upload.chunks, file.upload.total) {
                    Some(pieces) => found.push((file.id, pieces)),
                    None if file.upload.chunks.is_empty() => {}
                    None => missing.push(file.path.clone()),
                }
            }
        }
        if found.is_empty() || !missing.is_empty() {
            self.violation(format!("{name:?} is confirmed without all of {missing:?}"));
        }
        for (id, pieces) in found {
            let broken = |what: String| Refusal::of(BROKEN, format!("Error merge chunks: {what}"));
            let merged = self.shared.store.merge(pieces).await;
            let merged = merged.map_err(|error| broken(error.to_string()))?;
            let complete = self.shared.change(|state| {
                let upload = &state.artifacts.get(&id)?.upload;
                if u64::try_from(upload.total) != Ok(merged.length) {
                    return None;
                }
                let (size, encoding) = (upload.size, upload.encoding.clone());
                let (path, length) = (merged.path.clone(), merged.length);
                state.complete(id, Stored { path, length, size, encoding });
                Some(())
            });
            if complete.is_none() {
                remove([&merged.path]);
                return Err(broken("the size is another than it was said".to_owned()));
            }
        }
        success()
    }

    /// The artifacts of the run.
    fn list(&self) -> Answered {
        let mut names: Vec<_> = self.complete(None).into_iter().map(|(_, name, _)| name).collect();
        names.dedup();
        if names.is_empty() {
            return Err(Refusal::innocent(StatusCode::NOT_FOUND, "Not Found"));
        }
        let entry = |name: &String| {
            let address = self.address(&format!("{}/download_url", hash_of(name)));
            json!({"name": name, "fileContainerResourceUrl": address})
        };
        let value: Vec<_> = names.iter().map(entry).collect();
        Ok(json_answer(StatusCode::OK, &json!({"count": value.len(), "value": value})))
    }

    /// The files of an artifact.
    fn files(&self, hash: &str) -> Answered {
        let name = clean(&parameter(&self.parts.uri, "itemPath"));
        check_hash(hash, &name)?;
        let files = self.complete(Some(&name));
        if files.is_empty() {
            return Err(Refusal::innocent(StatusCode::NOT_FOUND, "Not Found"));
        }
        let entry = |(id, name, path): (i64, String, String)| {
            let address = self.address(&format!("{id}/download"));
            json!({"path": format!("{name}/{path}"), "itemType": "file", "contentLocation": address})
        };
        let value: Vec<_> = files.into_iter().map(entry).collect();
        Ok(json_answer(StatusCode::OK, &json!({"value": value})))
    }

    /// Complete files by name and path, those of an artifact together.
    fn complete(&self, name: Option<&str>) -> Vec<(i64, String, String)> {
        let state = self.shared.lock();
        let files = state.complete_artifacts(self.run).into_iter();
        let files = files.filter(|(file, _)| name.is_none_or(|name| file.name == name));
        let mut files: Vec<_> =
            files.map(|(file, _)| (file.id, file.name.clone(), file.path.clone())).collect();
        files.sort_by(|one, other| (&one.1, &one.2).cmp(&(&other.1, &other.2)));
        files
    }

    /// The bytes of a file.
    async fn download(&self, id: &str) -> Answered {
        let stored = {
            let state = self.shared.lock();
            let file = id.parse().ok().and_then(|id: i64| state.artifacts.get(&id));
            let file = file.ok_or_else(not_found)?;
            if file.run != self.run {
                return Err(Refusal::of(StatusCode::BAD_REQUEST, "Bad Request"));
            }
            Artifact::stored(file).ok_or_else(not_found)?.clone()
        };
        bytes::send(&stored, &self.parts.headers).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_their_artifact() {
        for (path, expected) in [
            ("name/a/b.txt", "name/a/b.txt"),
            ("/name//./b", "name/b"),
            ("name/../../b", "b"),
            ("", ""),
        ] {
            assert_eq!(clean(path), expected, "{path:?}");
        }
    }

    #[test]
    fn names_have_the_hash_that_everybody_knows() {
        assert_eq!(hash_of("artifact"), "8e5b948a454515dbabfc7eb718daa52f");
    }
}
