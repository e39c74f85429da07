//! The third version: an artifact is a directory of files, which come in chunks
//! (forgejo-runner-protocol 8.9).
//!
//! Several jobs may send files of one artifact, and a file that comes again takes the place of the one
//! before. What a job has sent is in the artifact when that job confirms it, all of it at once.

mod chunk;
mod pending;
#[cfg(test)]
mod tests;
mod tree;

use std::fs;
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use common::JobId;
use common::call::OLDER_ARTIFACT_CALLS;
use md5::{Digest, Md5};
use serde::Deserialize;
use serde_json::json;
use url::form_urlencoded;

use super::kept::{Limits, alone};
use super::{
    ARTIFACT_BYTES, Answered, NAME_BYTES, broken, check_name, content, make_directory, missing,
};
use crate::answer::{self, Refusal};
use crate::blob::Room;
use crate::calls::{Body, OutBody};
use chunk::Chunk;
use pending::{Pending, PendingFile};
use tree::Trees;

/// The bytes of the name of an artifact and the path in it together.
const PATH_BYTES: usize = 1024;

/// The directories above a file, and the file.
const PATH_PARTS: usize = 64;

/// The bytes of what stands before each address in an answer; the guest says where it has found us.
const BASE_BYTES: usize = 512;

/// The artifacts of the third version that one job sends and sees.
#[derive(Clone, Debug)]
pub(super) struct Older {
    /// That of the run.
    directory: PathBuf,
    room: Room,
    limits: Limits,
    pending: Pending,
    trees: Trees,
}

#[derive(Deserialize)]
struct Begin {
    #[serde(rename = "Name", alias = "name")]
    name: String,
}

/// A file of an artifact.
#[derive(Debug, PartialEq, Eq)]
struct Item {
    name: String,
    /// The path in the artifact, with slashes.
    path: String,
}

impl Item {
    /// Reads `NAME/DIRECTORY/FILE`. What would lead elsewhere is refused, not repaired.
    fn read(text: &str) -> Result<Self, Refusal> {
        // Programs on Windows have another separator.
        let text = text.replace('\\', "/");
        let wrong = || Refusal::invalid(format!("{text:?} is no path of a file in an artifact"));
        let (name, path) = text.split_once('/').ok_or_else(wrong)?;
        check_name(name)?;
        let is_long = text.len() > PATH_BYTES || text.split('/').count() > PATH_PARTS;
        if is_long || !text.split('/').all(is_part) {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), path: path.to_owned() })
    }
}

impl Older {
    pub(super) fn new(directory: &Path, job: JobId, room: Room, limits: Limits) -> Self {
        Self {
            directory: directory.to_owned(),
            room,
            limits,
            pending: Pending::new(directory, job, limits.chunks),
            trees: Trees::new(directory),
        }
    }

    /// The job is over: what it did not confirm goes.
    pub(super) fn end(&self) {
        self.pending.end();
    }

    /// Answers a request whose path has this behind what all have.
    pub(super) async fn answer(&self, path: &str, request: Request<Body>) -> Answered {
        let (parts, body) = request.into_parts();
        let text = || format!("{} {OLDER_ARTIFACT_CALLS}{path} is not known", parts.method);
        let unknown = || Refusal::new(StatusCode::NOT_FOUND, text());
        let elements: Vec<&str> = path.split('/').collect();
        let ["_apis", "pipelines", "workflows", run, "artifacts", rest @ ..] = elements.as_slice()
        else {
            return Err(unknown());
        };
        // Whatever the guest calls its run: the directory is that run's.
        if run.is_empty() || !run.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(unknown());
        }
        let query = Query(parts.uri.query().unwrap_or_default());
        let address = answer::address(&parts.headers);
        let base =
            format!("{address}{OLDER_ARTIFACT_CALLS}_apis/pipelines/workflows/{run}/artifacts");
        if base.len() > BASE_BYTES {
            return Err(Refusal::invalid("the address of the artifacts is too long"));
        }
        match (&parts.method, rest) {
            (&Method::POST, []) => self.begin(&base, body).await,
            (&Method::PUT, [hash, "upload"]) => {
                self.upload(&query.item(hash)?, &parts.headers, body).await
            }
            (&Method::PATCH, []) => self.confirm(query.find("artifactName")).await,
            (&Method::GET, []) => self.list(&base).await,
            (&Method::GET, [hash, "download_url"]) => {
                let name = query.find("itemPath");
                check_tree_name(&name)?;
                check_hash(hash, &name)?;
                self.files(&base, name).await
            }
            (&(Method::GET | Method::HEAD), [hash, "download"]) => {
                let file = self.trees.open(&query.item(hash)?)?;
                content(file, "application/octet-stream", &parts.method)
            }
            _ => Err(unknown()),
        }
    }

    /// Says where the files of an artifact go. What came of an earlier try is forgotten.
    async fn begin(&self, base: &str, body: Body) -> Answered {
        let Begin { name } = answer::read(&answer::short(body).await?)?;
        check_tree_name(&name)?;
        let place = format!("{base}/{}/upload", hash_of(&name));
        let own = self.clone();
        let forget = move || own.pending.forget(&name, &own.room);
        self.room.work_alone(forget).await.map_err(broken)?.map_err(broken)?;
        Ok(answer::json(StatusCode::OK, &json!({ "fileContainerResourceUrl": place })))
    }

    async fn upload(&self, item: &Item, headers: &HeaderMap, body: Body) -> Answered {
        let chunk = Chunk::of(headers)?;
        make_directory(&self.directory, &self.room).await?;
        self.pending.take(item, &chunk, body, &self.room).await?;
        Ok(success())
    }

    async fn confirm(&self, name: String) -> Answered {
        check_tree_name(&name)?;
        let own = self.clone();
        self.room.work_alone(move || own.confirm_now(&name)).await.map_err(broken)??;
        Ok(success())
    }

    /// Puts what has come of an artifact where all jobs see it.
    fn confirm_now(&self, name: &str) -> Result<(), Refusal> {
        let files = self.pending.files(name).map_err(broken)?;
        if files.is_empty() && self.trees.has(name) {
            // The answer to the same question was lost.
            return Ok(());
        }
        if files.is_empty() {
            let text = format!("no file of the artifact {name} has come");
            return Err(Refusal::new(StatusCode::NOT_FOUND, text));
        }
        let added = self.add(name, &files);
        match &added {
            Ok(()) => self.pending.release(name, &files, &self.room),
            // Nobody counts what these have.
            Err(_) => files.iter().for_each(PendingFile::take_apart),
        }
        added
    }

    fn add(&self, name: &str, files: &[PendingFile]) -> Result<(), Refusal> {
        tree::check_count(name, files.len() as u64, &self.limits)?;
        tree::check_paths(name, files, &self.limits)?;
        pending::check(name, files)?;
        let mut left = ARTIFACT_BYTES.min(self.limits.bytes);
        for file in files {
            left = left.saturating_sub(file.assemble(left)?);
        }
        self.trees.add(name, files, &self.limits)
    }

    /// The artifacts of the run. A forge answers 404 where there is none.
    async fn list(&self, base: &str) -> Answered {
        let trees = self.trees.clone();
        let names = self.room.work(move || trees.names()).await.map_err(broken)?;
        let names = names.map_err(broken)?;
        if names.is_empty() {
            let text = "this run has no artifact of the third version";
            return Err(Refusal::new(StatusCode::NOT_FOUND, text));
        }
        let entry = |name: &String| {
            let place = format!("{base}/{}/download_url", hash_of(name));
            json!({ "name": name, "fileContainerResourceUrl": place })
        };
        let value: Vec<_> = names.iter().map(entry).collect();
        Ok(answer::json(StatusCode::OK, &json!({ "count": value.len(), "value": value })))
    }

    /// The files of an artifact.
    async fn files(&self, base: &str, name: String) -> Answered {
        let (own, base) = (self.clone(), format!("{base}/{}/download", hash_of(&name)));
        let list = move || {
            let files = {
                let _alone = alone(&own.directory).map_err(broken)?;
                own.trees.files(&name).map_err(broken)?
            };
            if files.is_empty() {
                return Err(missing(&name));
            }
            own.write(&base, &name, &files).map_err(broken)
        };
        let list = self.room.work(list).await.map_err(broken)??;
        content(list, "application/json", &Method::GET)
    }

    /// Writes a list of files to a file without a name: it may be long, and whoever asked for it slow.
    fn write(&self, base: &str, name: &str, files: &[String]) -> io::Result<fs::File> {
        let mut list = BufWriter::new(tempfile::tempfile_in(&self.directory)?);
        list.write_all(b"{\"value\":[")?;
        for (number, path) in files.iter().enumerate() {
            let path = format!("{name}/{path}");
            let query: String = form_urlencoded::byte_serialize(path.as_bytes()).collect();
            let place = format!("{base}?itemPath={query}");
            let entry = json!({ "path": path, "itemType": "file", "contentLocation": place });
            let comma = if number == 0 { "" } else { "," };
            write!(list, "{comma}{entry}")?;
        }
        list.write_all(b"]}")?;
        let mut list = list.into_inner()?;
        list.rewind()?;
        Ok(list)
    }
}

/// What stands behind the question mark.
struct Query<'a>(&'a str);

impl Query<'_> {
    /// The first value of this name, or nothing.
    fn find(&self, wanted: &str) -> String {
        let mut all = form_urlencoded::parse(self.0.as_bytes());
        let found = all.find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.into_owned()).unwrap_or_default()
    }

    /// The file that is meant, whose artifact has this hash in the path.
    fn item(&self, hash: &str) -> Result<Item, Refusal> {
        let item = Item::read(&self.find("itemPath"))?;
        check_hash(hash, &item.name)?;
        Ok(item)
    }
}

fn success() -> Response<OutBody> {
    answer::json(StatusCode::OK, &json!({ "message": "success" }))
}

/// The name of an artifact in paths.
fn hash_of(name: &str) -> String {
    hex::encode(Md5::digest(name.as_bytes()))
}

fn check_hash(hash: &str, name: &str) -> Result<(), Refusal> {
    if hash == hash_of(name) {
        return Ok(());
    }
    Err(Refusal::invalid(format!("{hash} is not the hash of the artifact {name}")))
}

/// Whether this may be the name of a file or directory.
fn is_part(part: &str) -> bool {
    !matches!(part, "" | "." | "..") && part.len() <= NAME_BYTES && !part.contains(char::is_control)
}

/// An artifact of this version is a directory of its name.
fn check_tree_name(name: &str) -> Result<(), Refusal> {
    check_name(name)?;
    if is_part(name) {
        return Ok(());
    }
    Err(Refusal::invalid(format!("{name:?} is no name for an artifact")))
}
