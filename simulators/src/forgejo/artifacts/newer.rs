//! The newer interface: calls with the token of the task, and signed addresses for the bytes. A file
//! comes in blocks with names and a list of them, or in pieces that are appended.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, State as Shares};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::chunks::{Chunk, in_order};
use super::message::{Fields, Kind, Message};
use super::store::remove;
use super::{
    Answered, Artifact, BROKEN, Stored, Upload, answered, block_list, bytes, check_name,
    json_answer, not_found, parameter,
};
use crate::forgejo::runtime_token::{Bearer, Refusal};
use crate::forgejo::server::Shared;
use crate::forgejo::state::State;

/// Where it is.
pub(super) const BASE: &str = "/twirp/github.actions.results.api.v1.ArtifactService";

/// What is answered here.
pub(in crate::forgejo) const PATH: &str =
    "/twirp/github.actions.results.api.v1.ArtifactService/{method}";

/// Bytes of a message or a list that are read at all.
const MESSAGE: usize = 16 * 1024 * 1024;

const RUN: (&str, Kind) = ("workflow_run_backend_id", Kind::Text);
const JOB: (&str, Kind) = ("workflow_job_run_backend_id", Kind::Text);
const NAME: (&str, Kind) = ("name", Kind::Text);

const CREATE: Fields = &[RUN, JOB, NAME, ("expires_at", Kind::Moment), ("version", Kind::Number)];
const FINALIZE: Fields = &[RUN, JOB, NAME, ("size", Kind::Number), ("hash", Kind::Text)];
const LIST: Fields = &[RUN, JOB, ("name_filter", Kind::Text), ("id_filter", Kind::Number)];
const NAMED: Fields = &[RUN, JOB, NAME];

/// Answers a job.
pub(in crate::forgejo) async fn answer(
    Shares(shared): Shares<Arc<Shared>>,
    Path(method): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let answer = match (parts.method.as_str(), method.as_str()) {
        ("POST", "FinalizeArtifact") => finalize(&shared, &parts, body).await,
        ("POST", _) => call(&shared, &method, &parts, body).await,
        ("PUT", "UploadArtifact") => upload(&shared, &parts, body).await,
        ("GET", "DownloadArtifact") => download(&shared, &parts).await,
        _ => Err(unknown()),
    };
    answered(&shared, &method, answer)
}

fn unknown() -> Refusal {
    Refusal::of(StatusCode::NOT_FOUND, "404 page not found")
}

/// Answers a call that needs no bytes of artifacts.
async fn call(shared: &Shared, method: &str, parts: &Parts, body: Body) -> Answered {
    let fields = match method {
        "CreateArtifact" => CREATE,
        "ListArtifacts" => LIST,
        "GetSignedArtifactURL" | "DeleteArtifact" => NAMED,
        _ => return Err(unknown()),
    };
    let (bearer, message) = read(shared, parts, body, fields).await?;
    let answer = shared.change(|state| match method {
        "CreateArtifact" => state.create(bearer, &message),
        "ListArtifacts" => state.list(bearer, &message),
        "DeleteArtifact" => state.delete(bearer, message.text("name")),
        _ => state.address(bearer, message.text("name")),
    });
    answer.map(|value| json_answer(StatusCode::OK, &value))
}

/// Who calls, and the message.
async fn read(
    shared: &Shared,
    parts: &Parts,
    body: Body,
    fields: Fields,
) -> Result<(Bearer, Message), Refusal> {
    let bearer = shared.lock().bearer(&parts.headers)?;
    let undecoded =
        |what: String| Refusal::of(BROKEN, format!("Error decode request body: {what}"));
    let body = to_bytes(body, MESSAGE).await.map_err(|error| undecoded(error.to_string()))?;
    let message = Message::read(&body, fields).map_err(undecoded)?;
    for ((field, _), expected) in [(RUN, bearer.run), (JOB, bearer.job)] {
        if message.text(field) != expected.to_string() {
            // A server looks at the run alone; a job that is another one is a mistake of the client.
            let what = if field == RUN.0 { "run-id" } else { "job-id" };
            return Err(Refusal::of(StatusCode::BAD_REQUEST, format!("{what} does not match")));
        }
    }
    Ok((bearer, message))
}

impl State {
    /// The artifact of a name, complete or not.
    fn newer(&self, run: i64, name: &str) -> Result<&Artifact, Refusal> {
        let artifact = self.artifact(run, name, &path_of(name));
        artifact.filter(|artifact| artifact.is_newer).ok_or_else(not_found)
    }

    /// The same if it is complete.
    fn complete_newer(&self, run: i64, name: &str) -> Result<(&Artifact, &Stored), Refusal> {
        let artifact = self.newer(run, name)?;
        Ok((artifact, artifact.stored().ok_or_else(not_found)?))
    }

    fn create(&mut self, bearer: Bearer, message: &Message) -> Result<Value, Refusal> {
        let name = message.text("name");
        check_name(name)?;
        let id = self.ensure_artifact(bearer.run, name, &path_of(name), true);
        if let Some(artifact) = self.artifacts.get_mut(&id) {
            artifact.is_newer = true;
            artifact.upload.clear();
        }
        let address = self.link("UploadArtifact", name, bearer.task, id);
        Ok(json!({"ok": true, "signedUploadUrl": address}))
    }

    fn list(&self, bearer: Bearer, message: &Message) -> Result<Value, Refusal> {
        let complete = self.complete_artifacts(bearer.run);
        if complete.is_empty() {
            return Err(Refusal::innocent(StatusCode::NOT_FOUND, "Not Found"));
        }
        let (name, id) = (message.optional_text("name_filter"), message.number("id_filter"));
        let wanted = complete.into_iter().filter(|(artifact, _)| {
            artifact.is_newer
                && name.is_none_or(|name| artifact.name == name)
                && id.is_none_or(|id| artifact.id == id)
        });
        let entries: Vec<_> = wanted.map(|found| entry(bearer, found)).collect();
        // What is empty is not written.
        Ok(if entries.is_empty() { json!({}) } else { json!({"artifacts": entries}) })
    }

    /// What is wrong with the name of a block: a server keeps the blocks of all uploads of a run in one
    /// place, so one of another upload with the same name would be lost.
    fn taken_by_another(&self, id: i64, block: &str) -> Option<String> {
        let artifact = self.artifacts.get(&id).filter(|_| !block.is_empty())?;
        let other = self.artifacts.values().find(|other| {
            (other.run, other.id != id) == (artifact.run, true)
                && other.upload.blocks.iter().any(|(name, _)| name == block)
        })?;
        let (name, taken) = (&artifact.name, &other.name);
        Some(format!("the block {block:?} of {name:?} has the name of one of {taken:?}"))
    }

    fn address(&self, bearer: Bearer, name: &str) -> Result<Value, Refusal> {
        let (artifact, _) = self.complete_newer(bearer.run, name)?;
        let address = self.link("DownloadArtifact", name, bearer.task, artifact.id);
        Ok(json!({"signedUrl": address}))
    }

    fn delete(&mut self, bearer: Bearer, name: &str) -> Result<Value, Refusal> {
        let id = self.complete_newer(bearer.run, name)?.0.id;
        if let Some(mut artifact) = self.artifacts.remove(&id) {
            artifact.upload.clear();
            remove(artifact.stored().map(|stored| &stored.path));
        }
        Ok(json!({"ok": true, "artifactId": id.to_string()}))
    }
}

fn path_of(name: &str) -> String {
    format!("{name}.zip")
}

fn entry(bearer: Bearer, (artifact, stored): (&Artifact, &Stored)) -> Value {
    let mut entry = json!({
        "workflowRunBackendId": bearer.run.to_string(),
        "workflowJobRunBackendId": bearer.job.to_string(),
        "databaseId": artifact.id.to_string(),
        "name": artifact.name,
        "createdAt": humantime::format_rfc3339_seconds(artifact.created).to_string(),
    });
    if stored.length > 0 {
        entry["size"] = stored.length.to_string().into();
    }
    entry
}

/// Takes a part of a file, or the list of the parts.
async fn upload(shared: &Shared, parts: &Parts, body: Body) -> Answered {
    let (link, id) = {
        let state = shared.lock();
        let link = state.read_link("UploadArtifact", &parts.uri)?;
        let id = state.newer(link.bearer.run, &link.name)?.id;
        (link, id)
    };
    let lost = |error: &dyn std::fmt::Display| Refusal::innocent(BROKEN, format!("Error: {error}"));
    let (block, part) = (parameter(&parts.uri, "blockid"), parameter(&parts.uri, "comp"));
    let said = match part.as_str() {
        "block" | "appendBlock" => {
            let saved = shared.store.save(body, |_| ()).await;
            let (path, length) = saved.map_err(|error| lost(&error))?;
            shared.change(|state| {
                if let Some(what) = state.taken_by_another(id, &block) {
                    state.violations.push(what);
                }
                match state.artifacts.get_mut(&id) {
                    Some(artifact) => artifact.upload.take(block, path, length),
                    None => remove([&path]),
                }
            });
            "appended"
        }
        "blocklist" => {
            let list = to_bytes(body, MESSAGE).await.map_err(|error| lost(&error))?;
            let list = String::from_utf8_lossy(&list).into_owned();
            shared.change(|state| {
                if let Some(artifact) = state.artifacts.get_mut(&id) {
                    artifact.upload.list = Some(list);
                }
            });
            "created"
        }
        _ => {
            let what =
                format!("UploadArtifact of {:?} with comp={part:?}: nothing is kept", link.name);
            shared.change(|state| state.violations.push(what));
            return Ok(Response::new(Body::empty()));
        }
    };
    Ok(json_answer(StatusCode::CREATED, &said.into()))
}

/// Puts a file together. What the client says of it has to be so.
async fn finalize(shared: &Shared, parts: &Parts, body: Body) -> Answered {
    let (bearer, message) = read(shared, parts, body, FINALIZE).await?;
    let broken = |what: String| Refusal::of(BROKEN, format!("Error merge chunks: {what}"));
    let (id, pieces) = {
        let state = shared.lock();
        let artifact = state.newer(bearer.run, message.text("name"))?;
        (artifact.id, artifact.upload.pieces().map_err(broken)?)
    };
    let merged = shared.store.merge(pieces).await.map_err(|error| broken(error.to_string()))?;
    // A server goes by the hash alone; the size is as good as it was sent.
    let length = i64::try_from(merged.length).unwrap_or(i64::MAX);
    let size = message.number("size").filter(|size| *size != 0 && *size != length);
    let hash = message.optional_text("hash").and_then(|hash| hash.strip_prefix("sha256:"));
    let wrong = match (size, hash.filter(|hash| !hash.eq_ignore_ascii_case(&merged.hash))) {
        (Some(size), _) => Some(format!("{length} bytes where {size} are expected")),
        (None, Some(hash)) => Some(format!("the hash {} where {hash} is expected", merged.hash)),
        (None, None) => None,
    };
    let stored = Stored { path: merged.path, length: merged.length, size: length, encoding: None };
    if let Some(what) = wrong {
        remove([&stored.path]);
        shared.change(|state| {
            if let Some(artifact) = state.artifacts.get_mut(&id) {
                artifact.upload.clear();
            }
        });
        return Err(broken(what));
    }
    shared.change(|state| state.complete(id, stored));
    Ok(json_answer(StatusCode::OK, &json!({"ok": true, "artifactId": id.to_string()})))
}

impl Upload {
    /// Takes a block of a name, the last of which counts, or, without one, what comes next.
    fn take(&mut self, block: String, path: PathBuf, length: u64) {
        if block.is_empty() {
            let first = self.total;
            self.total += i64::try_from(length).unwrap_or(i64::MAX);
            self.chunks.push(Chunk { first, last: self.total - 1, path });
        } else {
            self.blocks.push((block, path));
        }
    }

    /// The pieces in order.
    fn pieces(&self) -> Result<Vec<PathBuf>, String> {
        let Some(list) = &self.list else {
            let pieces = in_order(&self.chunks, self.total);
            return pieces.ok_or_else(|| "nothing was uploaded".to_owned());
        };
        let names = block_list::read(list).filter(|names| !names.is_empty());
        let names = names.ok_or_else(|| format!("{list:?} lists no blocks"))?;
        let piece = |name: &String| {
            let found = self.blocks.iter().rfind(|(other, _)| other == name);
            found.map(|(_, path)| path.clone()).ok_or_else(|| format!("no block {name:?}"))
        };
        names.iter().map(piece).collect()
    }
}

/// Sends the bytes of a file.
async fn download(shared: &Shared, parts: &Parts) -> Answered {
    let stored = {
        let state = shared.lock();
        let link = state.read_link("DownloadArtifact", &parts.uri)?;
        state.complete_newer(link.bearer.run, &link.name)?.1.clone()
    };
    bytes::send(&stored, &parts.headers).await
}
