//! Artifacts: files that jobs leave for other jobs and for users (forgejo-runner-protocol 8.9). Jobs
//! talk to the server themselves, by the `newer` interface (version 4 of the actions) or by the `older`
//! one (version 3).
//!
//! An [`Artifact`] is one file of a run. It collects an [`Upload`] in pieces, which the `store` keeps
//! on disk; the job then says that it is complete, and only what was put together then is listed and
//! given back. Names can be uploaded again, and a run's jobs see each other's artifacts.
//!
//! What a client must not do is refused and a violation. What can happen to an honest one is only
//! refused: its task has ended, or nothing has this name.

mod block_list;
mod bytes;
mod chunks;
mod link;
mod message;
mod newer;
mod older;
mod store;
mod view;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode, Uri};
use serde_json::Value;
use url::form_urlencoded;

use chunks::Chunk;
pub(super) use newer::{PATH as NEWER, answer as newer};
pub(super) use older::{PATH as OLDER, answer as older};
pub(super) use store::Store;
use store::remove;
pub use view::ArtifactView;

use super::runtime_token::Refusal;
use super::server::Shared;
use super::state::State;

/// What the server says where it broke or, often, where the client did.
const BROKEN: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;

/// Characters that no name of an artifact has.
const FORBIDDEN: [char; 11] = ['\\', '/', '"', ':', '<', '>', '|', '*', '?', '\r', '\n'];

type Answered = Result<Response<Body>, Refusal>;

/// A file of a run, by the name of its artifact and its path in it.
#[derive(Debug)]
pub(super) struct Artifact {
    id: i64,
    run: i64,
    name: String,
    /// An artifact of the newer interface is one file, `name.zip`.
    path: String,
    is_newer: bool,
    created: SystemTime,
    upload: Upload,
    stored: Option<Stored>,
}

/// What came so far and is not put together yet.
#[derive(Debug, Default)]
struct Upload {
    /// Pieces with their places in the file.
    chunks: Vec<Chunk>,
    /// Pieces with names.
    blocks: Vec<(String, PathBuf)>,
    /// The names of the blocks in their order, as the client wrote them.
    list: Option<String>,
    /// Bytes of all chunks.
    total: i64,
    /// Bytes of the file, before it was compressed.
    size: i64,
    encoding: Option<String>,
}

/// A complete file.
#[derive(Clone, Debug)]
struct Stored {
    path: PathBuf,
    /// Bytes on the disk.
    length: u64,
    /// Bytes as the client has them.
    size: i64,
    encoding: Option<String>,
}

impl Upload {
    /// Forgets all that came.
    fn clear(&mut self) {
        let upload = std::mem::take(self);
        let chunks = upload.chunks.iter().map(|chunk| &chunk.path);
        remove(chunks.chain(upload.blocks.iter().map(|(_, path)| path)));
    }
}

impl Artifact {
    fn stored(&self) -> Option<&Stored> {
        self.stored.as_ref()
    }
}

impl State {
    /// The artifact of a run with a name and a path.
    fn artifact(&self, run: i64, name: &str, path: &str) -> Option<&Artifact> {
        let mut all = self.artifacts.values();
        all.find(|other| (other.run, &*other.name, &*other.path) == (run, name, path))
    }

    /// The artifact with a name and a path, which is made if it is not there.
    fn ensure_artifact(&mut self, run: i64, name: &str, path: &str, is_newer: bool) -> i64 {
        if let Some(artifact) = self.artifact(run, name, path) {
            return artifact.id;
        }
        let (id, created) = (self.new_id(), self.clock.now());
        let artifact = Artifact {
            id,
            run,
            name: name.to_owned(),
            path: path.to_owned(),
            is_newer,
            created,
            upload: Upload::default(),
            stored: None,
        };
        self.artifacts.insert(id, artifact);
        id
    }

    /// Takes over what was put together of an artifact. It may be gone.
    fn complete(&mut self, id: i64, stored: Stored) {
        if let Some(artifact) = self.artifacts.get_mut(&id) {
            artifact.upload.clear();
            let older = artifact.stored.replace(stored);
            remove(older.as_ref().map(|older| &older.path));
        }
    }

    /// The complete files of a run, the oldest first.
    fn complete_artifacts(&self, run: i64) -> Vec<(&Artifact, &Stored)> {
        let of_run = self.artifacts.values().filter(|artifact| artifact.run == run);
        of_run.filter_map(|artifact| Some((artifact, artifact.stored()?))).collect()
    }
}

/// Looks at the name of an artifact.
fn check_name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.contains(FORBIDDEN) {
        let what = format!("Error checking artifact name contains invalid character: {name:?}");
        return Err(Refusal::of(StatusCode::BAD_REQUEST, what));
    }
    Ok(())
}

/// A refusal of something that is not there.
fn not_found() -> Refusal {
    Refusal::innocent(StatusCode::NOT_FOUND, "Error artifact not found")
}

/// The first parameter of this name in the question of an address, or nothing.
pub(super) fn parameter(uri: &Uri, name: &str) -> String {
    let mut all = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    all.find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// Sends an answer, and writes a refusal down if the client is to blame.
pub(super) fn answered(shared: &Arc<Shared>, what: &str, answered: Answered) -> Response<Body> {
    answered.unwrap_or_else(|refusal| {
        let Refusal { status, message, is_violation } = refusal;
        if is_violation {
            let text = format!("{what} got {}: {message}", status.as_u16());
            shared.change(|state| state.violations.push(text));
        }
        let response = Response::builder().status(status);
        let response = response.header(CONTENT_TYPE, "text/plain; charset=utf-8");
        response.body(Body::from(format!("{message}\n"))).expect("it is complete")
    })
}

/// An answer in JSON.
pub(super) fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    let response = Response::builder().status(status);
    let response = response.header(CONTENT_TYPE, "application/json;charset=utf-8");
    response.body(Body::from(value.to_string())).expect("it is complete")
}
