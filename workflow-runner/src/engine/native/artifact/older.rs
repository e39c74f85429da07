//! The interface of the first three versions: an artifact has files, each of which is sent and fetched
//! by itself (forgejo-runner-protocol 8.9).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::call::{ARTIFACT_SERVICE, OLDER_ARTIFACT_CALLS};
use common::guest::GuestService;
use md5::{Digest as _, Md5};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::path_of;
use crate::engine::fault::Fault;
use crate::engine::job::Job;
use crate::engine::native::service::{JSON, Refusal, Service, quote};
use crate::host::Answered;

/// Where the artifacts of a run are, below the interface's path.
const RUNS: &str = "_apis/pipelines/workflows";

/// The artifacts of the job's run, as files.
pub(super) struct OlderArtifacts<'a> {
    service: Service<'a>,
    known: &'a GuestService,
    run: &'a str,
}

/// A list in an answer.
#[derive(Deserialize)]
struct List<T> {
    #[serde(default = "Vec::new")]
    value: Vec<T>,
}

/// An artifact, or the place where one is sent to.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Place {
    /// Absent where one is sent to.
    #[serde(default)]
    pub(super) name: String,
    file_container_resource_url: String,
}

/// A file of an artifact.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    /// The name of the artifact, and the path in it.
    path: String,
    #[serde(default)]
    item_type: String,
    #[serde(default)]
    content_location: String,
}

impl Item {
    /// The path in the artifact of this name, where this is a file.
    pub(super) fn path_in(&self, artifact: &str) -> Option<&str> {
        let is_file = self.item_type.is_empty() || self.item_type.eq_ignore_ascii_case("file");
        let path = self.path.strip_prefix(artifact).and_then(|rest| rest.strip_prefix('/'));
        path.filter(|_| is_file)
    }
}

/// A part of a file, and where it belongs.
pub(super) struct Part<'a> {
    /// The artifact's name.
    pub(super) artifact: &'a str,
    /// The path in the artifact.
    pub(super) path: &'a str,
    /// The place of its first byte.
    pub(super) first: u64,
    /// The bytes of the whole file.
    pub(super) total: u64,
    pub(super) bytes: &'a [u8],
}

impl Job<'_> {
    /// The artifacts of this run.
    pub(super) fn older_artifacts<'a>(&'a self, run: &'a str) -> Result<OlderArtifacts<'a>, Fault> {
        let known = self.artifact_service()?;
        if !known.paths.iter().any(|path| path == OLDER_ARTIFACT_CALLS) {
            let text = "the forge of this job keeps no artifacts of version 3 of the actions; write \
                        version 4";
            return Err(text.to_owned().into());
        }
        let service = Service { host: self.host, name: ARTIFACT_SERVICE };
        Ok(OlderArtifacts { service, known, run })
    }
}

impl OlderArtifacts<'_> {
    fn path(&self) -> String {
        format!("{OLDER_ARTIFACT_CALLS}{RUNS}/{}/artifacts", self.run)
    }

    /// Asks where the files of an artifact go.
    pub(super) async fn begin(
        &self,
        name: &str,
        retention_days: Option<u64>,
    ) -> Result<Place, Refusal> {
        let mut body = json!({ "Type": "actions_storage", "Name": name });
        if let (Some(days), Some(members)) = (retention_days, body.as_object_mut()) {
            members.insert("RetentionDays".to_owned(), days.into());
        }
        self.service.call(&self.path(), &body).await
    }

    /// Sends a part of a file.
    pub(super) async fn send(&self, place: &Place, part: &Part<'_>) -> Result<(), Refusal> {
        let name = format!("{}/{}", part.artifact, part.path);
        let path = self.place_of(place, &name)?;
        // Of an empty file the last byte stands before the first.
        let end = part.first + part.bytes.len() as u64;
        let last = end.checked_sub(1).map_or_else(|| "-1".to_owned(), |last| last.to_string());
        let range = format!("bytes {}-{last}/{}", part.first, part.total);
        let digest = BASE64_STANDARD.encode(Md5::digest(part.bytes));
        let total = part.total.to_string();
        let headers = [
            ("content-type", "application/octet-stream"),
            ("content-range", &*range),
            ("x-tfs-filelength", &*total),
            ("x-actions-results-md5", &*digest),
        ];
        self.service.ask("PUT", &path, &headers, part.bytes).await.map(drop)
    }

    /// Says that all files of an artifact are there.
    pub(super) async fn confirm(&self, name: &str, bytes: u64) -> Result<(), Refusal> {
        let path = format!("{}?artifactName={}", self.path(), quote(name));
        let body = json!({ "Size": bytes }).to_string();
        self.service.ask("PATCH", &path, JSON, body.as_bytes()).await.map(drop)
    }

    /// The artifacts of the run.
    pub(super) async fn list(&self) -> Result<Vec<Place>, Refusal> {
        self.values(&self.path()).await
    }

    /// What is in an artifact.
    pub(super) async fn items(&self, artifact: &Place) -> Result<Vec<Item>, Refusal> {
        self.values(&self.place_of(artifact, &artifact.name)?).await
    }

    /// The bytes of a file.
    pub(super) async fn content(&self, item: &Item) -> Result<Answered, Refusal> {
        let path = path_of(self.known, &item.content_location)?;
        let headers = [("accept", "application/octet-stream"), ("accept-encoding", "gzip")];
        self.service.ask("GET", &path, &headers, &[]).await
    }

    /// What a service lists; nothing where it has none.
    async fn values<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Refusal> {
        let answered = match self.service.ask("GET", path, &[("accept", JSON[0].1)], &[]).await {
            Err(refusal) if refusal.status() == Some(404) => return Ok(Vec::new()),
            answered => answered?,
        };
        let list: List<T> = self.service.json(answered).await?;
        Ok(list.value)
    }

    /// The address of something in an artifact.
    fn place_of(&self, place: &Place, item: &str) -> Result<String, Refusal> {
        let path = path_of(self.known, &place.file_container_resource_url)?;
        let mark = if path.contains('?') { '&' } else { '?' };
        Ok(format!("{path}{mark}itemPath={}", quote(item)))
    }
}

/// Whether an answer is packed.
pub(super) fn is_gzip(answered: &Answered) -> bool {
    let named = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("content-encoding");
    let found = answered.headers.iter().find(named);
    found.is_some_and(|(_, value)| value.trim().eq_ignore_ascii_case("gzip"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;

    #[test]
    fn files_are_told_by_their_artifact() {
        let item = |text: Json| -> Item { serde_json::from_value(text).unwrap() };
        let file = item(json!({ "path": "a/b/c", "itemType": "file", "contentLocation": "x" }));
        assert_eq!(file.path_in("a"), Some("b/c"));
        assert_eq!(file.path_in("b"), None);
        let directory = item(json!({ "path": "a/b", "itemType": "folder" }));
        assert_eq!(directory.path_in("a"), None);
    }

    #[test]
    fn packed_answers_are_known() {
        let answered = |value: &str| Answered {
            status: 200,
            headers: vec![("Content-Encoding".to_owned(), value.to_owned())],
            body: Box::new(tokio::io::empty()),
        };
        assert!(is_gzip(&answered("gzip")) && is_gzip(&answered(" GZIP ")));
        assert!(!is_gzip(&answered("identity")));
    }
}
