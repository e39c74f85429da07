//! Artifacts of a run that has no forge: a directory of this host.
//!
//! ```text
//!   NAME.zip        an artifact of the fourth version of the protocol
//!   v3/NAME/...     one of the third, whose files come one by one
//! ```
//!
//! Jobs speak either version, as with a forge, and neither sees the artifacts of the other
//! (forgejo-runner-protocol 8.9, github-runner-protocol 8.5). What is here is the fourth; the third is
//! in [`older`].

mod kept;
mod older;
#[cfg(test)]
mod tests;

use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use common::call::{ARTIFACT_CALLS, ARTIFACT_FILES, OLDER_ARTIFACT_CALLS, may_name_artifact};
use common::{JobId, Timestamp};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use crate::answer::{self, Refusal};
use crate::blob::{Blob, BlobError, Room};
use crate::calls::{Body, OutBody};
use kept::{Change, Completing, Limits, TREES, entries};
use older::Older;

/// The bytes of an artifact. A job may send as much twice and not complete it: an archive takes twice its
/// bytes while it is put together.
const ARTIFACT_BYTES: u64 = 10 * 1024 * 1024 * 1024;

/// How long the artifacts of a run are kept, counted from its last.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// After how long nobody completes what a run has begun: no job runs for as long.
const UNFINISHED: Duration = Duration::from_secs(6 * 24 * 3600);

/// The end of the name of an archive.
const ARCHIVE: &str = ".zip";

/// The characters of a name: with its end it must be the name of a file.
const NAME_BYTES: usize = 240;

/// The artifacts of a run.
#[derive(Debug)]
pub(crate) struct LocalArtifacts {
    directory: PathBuf,
    job: JobId,
    /// What the job may send that is no artifact yet.
    room: Room,
    /// What all jobs of the run may keep.
    limits: Limits,
    older: Older,
}

type Answered = Result<Response<OutBody>, Refusal>;

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Finalize {
    name: String,
    /// A 64 bit number, which is text in protobuf's JSON; what this reads may also be a number.
    #[serde(default)]
    size: Json,
    #[serde(default)]
    hash: Option<String>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default, alias = "nameFilter")]
    name_filter: Option<String>,
    #[serde(default, alias = "idFilter")]
    id_filter: Option<Json>,
}

impl From<BlobError> for Refusal {
    fn from(error: BlobError) -> Self {
        let status = match &error {
            BlobError::Invalid(_) => StatusCode::BAD_REQUEST,
            BlobError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            BlobError::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

fn broken(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the host cannot keep it: {error}"))
}

impl LocalArtifacts {
    pub(crate) fn new(directory: &Path, job: JobId) -> Self {
        Self::with_limits(directory, job, Limits::default())
    }

    fn with_limits(directory: &Path, job: JobId, limits: Limits) -> Self {
        let room = Room::new(2 * ARTIFACT_BYTES);
        let older = Older::new(directory, job, room.clone(), limits);
        Self { directory: directory.to_owned(), job, room, limits, older }
    }

    /// The job is over: what it did not complete goes.
    pub(crate) async fn end(&self) {
        let (directory, own) = (self.directory.clone(), self.blob_begin());
        let older = self.older.clone();
        let end = move || {
            older.end();
            for (path, _) in entries(&directory).unwrap_or_default() {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if name.starts_with(&own) && !name.ends_with(ARCHIVE) {
                    drop(fs::remove_file(&path));
                }
            }
        };
        // What cannot be removed goes with the run.
        drop(self.room.work_alone(end).await);
    }

    /// Answers a request of a job.
    pub(crate) async fn answer(&self, request: Request<Body>) -> Response<OutBody> {
        if let Some(path) = request.uri().path().strip_prefix(OLDER_ARTIFACT_CALLS) {
            let path = path.to_owned();
            let answered = self.older.answer(&path, request).await;
            return answered.unwrap_or_else(|refusal| answer::plain(&refusal));
        }
        let answered = self.try_answer(request).await;
        answered.unwrap_or_else(|refusal| answer::twirp(&refusal))
    }

    async fn try_answer(&self, request: Request<Body>) -> Answered {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        if let (&Method::POST, Some(call)) = (&parts.method, path.strip_prefix(ARTIFACT_CALLS)) {
            let text = answer::short(body).await?;
            let said = self.call(call, &text, &answer::address(&parts.headers)).await?;
            return Ok(answer::json(StatusCode::OK, &said));
        }
        let name = path.strip_prefix(ARTIFACT_FILES).map(decoded).transpose()?;
        match (&parts.method, name) {
            (&Method::PUT, Some(name)) => {
                make_directory(&self.directory, &self.room).await?;
                let query = parts.uri.query().unwrap_or_default();
                self.blob(&name).put(query, body, &self.room).await?;
                Ok(answer::empty(StatusCode::CREATED))
            }
            (&(Method::GET | Method::HEAD), Some(name)) => {
                let file = self.path(&name);
                let file = fs::File::open(&file).map_err(|_| missing(&name))?;
                content(file, "application/zip", &parts.method)
            }
            _ => Err(Refusal::new(StatusCode::NOT_FOUND, format!("{path} is not known"))),
        }
    }

    async fn call(&self, call: &str, text: &[u8], address: &str) -> Result<Json, Refusal> {
        let place = |name: &str| format!("{address}{ARTIFACT_FILES}{}", hex::encode(name));
        match call {
            "CreateArtifact" => {
                let Named { name } = answer::read(text)?;
                check_name(&name)?;
                if self.path(&name).exists() {
                    return Err(exists(&name));
                }
                self.blob(&name).remove();
                Ok(json!({ "ok": true, "signedUploadUrl": place(&name) }))
            }
            "FinalizeArtifact" => {
                let Finalize { name, size, hash } = answer::read(text)?;
                check_name(&name)?;
                let size = match &size {
                    Json::String(text) => text.parse().ok(),
                    other => other.as_u64(),
                };
                let size = size.ok_or_else(|| Refusal::invalid("the size is no number"))?;
                let (blob, own) = (self.blob(&name), name.clone());
                let (directory, limits) = (self.directory.clone(), self.limits);
                let room = self.room.clone();
                let finalize = move || {
                    let (places, facts) = ((&blob, &*directory), (size, hash.as_deref()));
                    // Only what was made now, and has this size, makes room.
                    if finalize(places, &own, facts, &limits)? {
                        room.give(size);
                    }
                    Ok::<(), Refusal>(())
                };
                self.room.work_alone(finalize).await.map_err(broken)??;
                Ok(json!({ "ok": true, "artifactId": id_of(&name).to_string() }))
            }
            "ListArtifacts" => {
                let List { name_filter, id_filter } = answer::read(text)?;
                let id =
                    id_filter.map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
                let mut all = self.all().map_err(broken)?;
                all.retain(|(name, _, _)| name_filter.as_ref().is_none_or(|wanted| wanted == name));
                all.retain(|(name, _, _)| {
                    id.as_ref().is_none_or(|id| *id == id_of(name).to_string())
                });
                let list: Vec<Json> = all.iter().map(described).collect();
                Ok(json!({ "artifacts": list }))
            }
            "GetSignedArtifactURL" => {
                let Named { name } = answer::read(text)?;
                check_name(&name)?;
                if !self.path(&name).exists() {
                    return Err(missing(&name));
                }
                Ok(json!({ "signedUrl": place(&name) }))
            }
            "DeleteArtifact" => {
                let Named { name } = answer::read(text)?;
                check_name(&name)?;
                fs::remove_file(self.path(&name)).map_err(|_| missing(&name))?;
                Ok(json!({ "ok": true, "artifactId": id_of(&name).to_string() }))
            }
            _ => Err(Refusal::new(StatusCode::NOT_FOUND, format!("the call {call} is not known"))),
        }
    }

    /// The complete artifacts by their names, with their sizes and times.
    fn all(&self) -> io::Result<Vec<(String, u64, SystemTime)>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap_or_default();
            if let Some(name) = name.strip_suffix(ARCHIVE) {
                let facts = entry.metadata()?;
                all.push((name.to_owned(), facts.len(), facts.modified()?));
            }
        }
        all.sort();
        Ok(all)
    }

    fn path(&self, name: &str) -> PathBuf {
        path_of(&self.directory, name)
    }

    fn blob(&self, name: &str) -> Blob {
        Blob::new(&self.directory, &format!("{}{:x}", self.blob_begin(), id_of(name)))
    }

    /// How the names of what the job has not completed begin: another may send an artifact of the same
    /// name.
    fn blob_begin(&self) -> String {
        format!("{}-", self.job.short())
    }
}

/// Makes the directory of a run; what runs of long ago have left goes then.
async fn make_directory(directory: &Path, room: &Room) -> Result<(), Refusal> {
    let directory = directory.to_owned();
    let make = move || {
        if directory.is_dir() {
            return Ok(());
        }
        let runs = directory.parent().map(entries).and_then(Result::ok);
        for (run, facts) in runs.unwrap_or_default() {
            tidy(&run, &facts);
        }
        fs::create_dir_all(directory)
    };
    room.work(make).await.map_err(broken)?.map_err(broken)
}

/// Removes what is left of a run of long ago. What cannot be removed now goes another time.
fn tidy(run: &Path, facts: &Metadata) {
    let Some(age) = facts.modified().ok().and_then(|used| used.elapsed().ok()) else { return };
    if age > KEPT {
        drop(fs::remove_dir_all(run));
    } else if age > UNFINISHED {
        for (path, facts) in entries(run).unwrap_or_default() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            match facts.is_dir() {
                true if name != TREES => drop(fs::remove_dir_all(&path)),
                false if !name.ends_with(ARCHIVE) => drop(fs::remove_file(&path)),
                _ => {}
            }
        }
    }
}

/// Makes an artifact of what has come; false if it was made before.
fn finalize(
    (blob, directory): (&Blob, &Path),
    name: &str,
    (size, hash): (u64, Option<&str>),
    limits: &Limits,
) -> Result<bool, Refusal> {
    if size > ARTIFACT_BYTES {
        let text = format!("the artifact {name} has {size} bytes; it may have {ARTIFACT_BYTES}");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    let (file, path) = (blob.file(), path_of(directory, name));
    if path.exists() && (!file.exists() || is_same(&file, &path)) {
        // The answer to the same question was lost.
        blob.remove();
        return Ok(false);
    }
    blob.check(size)?;
    if let Some(expected) = hash.and_then(|hash| hash.strip_prefix("sha256:"))
        && !hash_of(&file).map_err(broken)?.eq_ignore_ascii_case(expected)
    {
        return Err(Refusal::invalid("the artifact has another hash than it should have"));
    }
    let completing = Completing::begin(directory).map_err(broken)?;
    completing.admit(Change { bytes: size, artifacts: 1, entries: 1 }, limits)?;
    match fs::hard_link(file, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(name)),
        linked => linked.map(|()| blob.remove()).map(|()| true).map_err(broken),
    }
}

/// Where the archive of an artifact is.
fn path_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}{ARCHIVE}"))
}

/// Whether two names are those of one file.
fn is_same(one: &Path, other: &Path) -> bool {
    let of = |path: &Path| path.metadata().map(|facts| (facts.dev(), facts.ino())).ok();
    of(one).is_some() && of(one) == of(other)
}

fn described((name, size, time): &(String, u64, SystemTime)) -> Json {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let micros = u64::try_from(since.as_micros()).unwrap_or_default();
    json!({
        "workflowRunBackendId": "local",
        "workflowJobRunBackendId": "local",
        "databaseId": id_of(name).to_string(),
        "name": name,
        "size": size.to_string(),
        "createdAt": Timestamp::from_micros(micros).to_string(),
    })
}

fn content(file: fs::File, kind: &'static str, method: &Method) -> Answered {
    let size = file.metadata().map_err(broken)?.len();
    let mut response = answer::empty(StatusCode::OK);
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if method != Method::HEAD {
        *response.body_mut() = Box::new(tokio::fs::File::from_std(file));
    }
    Ok(response)
}

fn hash_of(path: &Path) -> io::Result<String> {
    let (mut digest, mut file) = (Sha256::new(), fs::File::open(path)?);
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(digest.finalize())),
            count => digest.update(&buffer[..count]),
        }
    }
}

/// A number for a name; it fits into the numbers that JavaScript has.
fn id_of(name: &str) -> u64 {
    let hash = Sha256::digest(name.as_bytes());
    hash.iter().take(6).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

/// The name in an address.
fn decoded(text: &str) -> Result<String, Refusal> {
    let bytes = hex::decode(text).ok();
    let name = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let name = name.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "there is no such file"))?;
    check_name(&name)?;
    Ok(name)
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let is_odd = |c: char| !may_name_artifact(c) || c == '\0';
    if name.is_empty() || name.len() > NAME_BYTES || name.contains(is_odd) {
        return Err(Refusal::invalid(format!("{name:?} is no name for an artifact")));
    }
    Ok(())
}

fn exists(name: &str) -> Refusal {
    let text = format!("an artifact with the name {name} already exists in this run");
    Refusal::new(StatusCode::CONFLICT, text)
}

fn missing(name: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("this run has no artifact {name}"))
}
