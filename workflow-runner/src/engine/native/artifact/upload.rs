//! `actions/upload-artifact`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::event::Conclusion;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};
use uuid::Uuid;

use super::older::Part;
use super::{Artifacts, Interface, check_name, number, path_of};
use crate::engine::fault::Fault;
use crate::engine::interpreter::Said;
use crate::engine::job::Job;
use crate::engine::native::places::Places;
use crate::engine::native::service::{Refusal, quote};
use crate::engine::native::{Unfit, input, lines, stopped, switch};
use crate::engine::step::{Performed, Performing};
use crate::system::{Opened, Packing, ZipWish};
use crate::workflow::{Native, Version};

/// How much of an artifact is sent at once: it is kept until the service has it.
const BLOCK_BYTES: usize = 4 * 1024 * 1024;

/// What becomes of a step whose patterns name nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nothing {
    Warn,
    Error,
    Ignore,
}

/// What a step says of an artifact.
struct Wish {
    name: String,
    paths: String,
    zip: ZipWish,
    nothing: Nothing,
    overwrite: bool,
    retention_days: Option<u64>,
}

#[derive(Deserialize)]
struct Created {
    #[serde(alias = "signedUploadUrl")]
    signed_upload_url: String,
}

#[derive(Deserialize)]
struct Finalized {
    #[serde(alias = "artifactId")]
    artifact_id: Json,
}

/// What was sent.
struct Sent {
    /// What the log says of it.
    text: String,
    /// By which it can be told from others; absent in the older interface.
    known: Option<Known>,
}

struct Known {
    id: u64,
    digest: String,
}

impl Wish {
    fn new(
        version: Version,
        with: &[(String, String)],
        places: &Places<'_>,
    ) -> Result<Self, Unfit> {
        let name = match input(with, "name") {
            "" => "artifact".to_owned(),
            name => name.to_owned(),
        };
        check_name(&name)?;
        let paths = lines(input(with, "path"));
        if paths.is_empty() {
            return Err("Input required and not supplied: path".to_owned().into());
        }
        let nothing = match input(with, "if-no-files-found") {
            "" | "warn" => Nothing::Warn,
            "error" => Nothing::Error,
            "ignore" => Nothing::Ignore,
            other => {
                return Err(format!(
                    "the input if-no-files-found is {other}, and must be warn, error or ignore"
                )
                .into());
            }
        };
        let level = match input(with, "compression-level") {
            "" => 6,
            text => text.parse().ok().filter(|level| *level <= 9).ok_or_else(|| {
                format!("the input compression-level is {text}, and must be from 0 to 9")
            })?,
        };
        let retention_days = match input(with, "retention-days") {
            "" | "0" => None,
            days => Some(days.parse().map_err(|_| {
                format!("the input retention-days is {days}, and must be a number")
            })?),
        };
        if !switch(with, "archive", true)? {
            let text = "the input archive of upload-artifact is not supported";
            return Err(Unfit::Original(text.to_owned()));
        }
        // The second version had no such input, and included them.
        let hidden = switch(with, "include-hidden-files", version == Version::Listed(2))?;
        let patterns = paths.iter().map(|path| places.absolute(path)).collect::<Result<_, _>>()?;
        Ok(Self {
            name,
            paths: paths.join("\n"),
            zip: ZipWish { patterns, hidden, level },
            nothing,
            overwrite: switch(with, "overwrite", false)?,
            retention_days,
        })
    }
}

impl Job<'_> {
    /// Does what a step of the action says.
    pub(in crate::engine) async fn upload_artifact(
        &mut self,
        performing: &mut Performing<'_>,
        reference: &str,
        version: Version,
        with: &[(String, String)],
    ) -> Result<Performed, Unfit> {
        let wish = Wish::new(version, with, &self.places())?;
        self.announce(Native::UploadArtifact, reference).await;
        let limits = performing.limits.clone();
        let run = performing.context("run_id");
        let sending = async {
            match Interface::of(version) {
                Interface::Older => self.send_files(&wish, &run).await,
                Interface::Newer => self.send_artifact(&wish).await,
            }
        };
        let sent = tokio::select! {
            sent = sending => sent?,
            stop = limits.reached() => return Ok(stopped(stop)),
        };
        let Some(Sent { text, known }) = sent else {
            let text = format!(
                "No files were found with the provided path: {}. No artifacts will be uploaded.",
                wish.paths.replace('\n', ", ")
            );
            match wish.nothing {
                Nothing::Error => return Err(text.into()),
                Nothing::Warn => self.events.warning(self.system.now(), &text).await,
                Nothing::Ignore => self.events.say(self.system.now(), &text).await,
            }
            let (outcome, said) = (Conclusion::Success, Said::default());
            return Ok(Performed { outcome, said, stop: None, disk_full: None });
        };
        let text = format!("Artifact {} has been uploaded: {text}", wish.name);
        self.events.say(self.system.now(), &text).await;
        let outputs = known.map(|known| known.outputs(performing)).unwrap_or_default();
        let (outcome, said) = (Conclusion::Success, Said::outputs(outputs));
        Ok(Performed { outcome, said, stop: None, disk_full: None })
    }

    /// Sends the files of an artifact; nothing if there are none.
    async fn send_files(&mut self, wish: &Wish, run: &str) -> Result<Option<Sent>, Fault> {
        let name = &wish.name;
        let failed = |refusal: Refusal| format!("cannot upload the artifact {name}: {refusal}");
        let found = self.system.find(wish.zip.clone()).await?;
        if found.is_empty() {
            return Ok(None);
        }
        if let Some(odd) = found.iter().find(|file| file.name.contains('\\')) {
            let text = "the path contains a backslash, which the service takes for a slash";
            return Err(format!("cannot upload {}: {text}", odd.path.display()).into());
        }
        let artifacts = self.older_artifacts(run)?;
        let place = artifacts.begin(name, wish.retention_days).await.map_err(failed)?;
        let mut bytes = 0;
        for file in &found {
            let Opened { contents, bytes: total } = self.system.open(&file.path).await?;
            // What is written to it meanwhile does not count.
            let mut contents = contents.take(total);
            let mut first = 0;
            loop {
                let block = next_block(&mut contents, name).await?;
                let next = first + block.len() as u64;
                let is_last = block.len() < BLOCK_BYTES;
                if is_last && next < total {
                    let path = file.path.display();
                    return Err(format!("{path} became shorter while it was uploaded").into());
                }
                if first == 0 || !block.is_empty() {
                    let (path, bytes) = (&*file.name, &*block);
                    let part = Part { artifact: name, path, first, total, bytes };
                    artifacts.send(&place, &part).await.map_err(failed)?;
                }
                first = next;
                if is_last {
                    break;
                }
            }
            bytes += total;
        }
        artifacts.confirm(name, bytes).await.map_err(failed)?;
        let text = format!("{} files, {bytes} bytes", found.len());
        Ok(Some(Sent { text, known: None }))
    }

    /// Packs and sends an artifact; nothing if there are no files.
    async fn send_artifact(&mut self, wish: &Wish) -> Result<Option<Sent>, Fault> {
        let failed =
            |refusal: Refusal| format!("cannot upload the artifact {}: {refusal}", wish.name);
        let mut packing = self.system.zip(wish.zip.clone());
        let first = next_block(&mut packing.archive, &wish.name).await?;
        if first.len() < BLOCK_BYTES {
            // A short archive is complete now, and may be of nothing.
            let packed = packing.result.await?;
            if packed.files == 0 {
                return Ok(None);
            }
            packing.result = Box::pin(async move { Ok(packed) });
        }
        let artifacts = self.artifacts()?;
        if wish.overwrite {
            let name = [("name", json!(wish.name))];
            match artifacts.call::<Json>("DeleteArtifact", &name).await {
                Err(refusal) if refusal.status() != Some(404) => return Err(failed(refusal).into()),
                _ => {}
            }
        }
        let sent = artifacts.send(wish, first, packing).await;
        sent.map(Some).map_err(|trouble| match trouble {
            Trouble::Service(refusal) => failed(refusal).into(),
            Trouble::Machine(fault) => fault,
        })
    }
}

impl Known {
    /// What a step of the action says of the artifact.
    fn outputs(self, performing: &Performing<'_>) -> Vec<(String, String)> {
        let Self { id, digest } = self;
        let part = |key: &str| performing.context(key);
        let (server, repository, run) = (part("server_url"), part("repository"), part("run_id"));
        let url = format!("{server}/{repository}/actions/runs/{run}/artifacts/{id}");
        [("artifact-id", id.to_string()), ("artifact-url", url), ("artifact-digest", digest)]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }
}

/// Why an artifact was not sent.
enum Trouble {
    Service(Refusal),
    Machine(Fault),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Service(refusal)
    }
}

impl Artifacts<'_> {
    async fn send(
        &self,
        wish: &Wish,
        mut block: Vec<u8>,
        mut packing: Packing,
    ) -> Result<Sent, Trouble> {
        let mut members = vec![("name", json!(wish.name)), ("version", json!(4))];
        if let Some(days) = wish.retention_days {
            members.push(("expires_at", json!(expiry(days))));
        }
        let Created { signed_upload_url } = self.call("CreateArtifact", &members).await?;
        let place = path_of(self.known, &signed_upload_url)?;
        let place = format!("{place}{}", if place.contains('?') { '&' } else { '?' });
        let (mut bytes, mut digest, mut list) = (0, Sha256::new(), String::new());
        let upload = Uuid::now_v7();
        while !block.is_empty() {
            let name = block_name(upload, bytes / BLOCK_BYTES as u64);
            let path = format!("{place}comp=block&blockid={}", quote(&name));
            let headers = [("content-type", "application/octet-stream")];
            self.service.ask("PUT", &path, &headers, &block).await?;
            digest.update(&block);
            bytes += block.len() as u64;
            list.extend(["<Latest>", &name, "</Latest>"]);
            block = next_block(&mut packing.archive, &wish.name).await.map_err(Trouble::Machine)?;
        }
        packing.result.await.map_err(|error| Trouble::Machine(error.into()))?;
        let list =
            format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{list}</BlockList>");
        let headers = [("content-type", "application/xml"), ("x-ms-blob-content-type", "zip")];
        let path = format!("{place}comp=blocklist");
        self.service.ask("PUT", &path, &headers, list.as_bytes()).await?;
        let digest = hex::encode(digest.finalize());
        let members = [
            ("name", json!(wish.name)),
            ("size", json!(bytes.to_string())),
            ("hash", json!(format!("sha256:{digest}"))),
        ];
        let Finalized { artifact_id } = self.call("FinalizeArtifact", &members).await?;
        let id = number(&artifact_id);
        let text = format!("ID {id}, {bytes} bytes, SHA256 {digest}");
        Ok(Sent { text, known: Some(Known { id, digest }) })
    }
}

/// The name of a block. It is of one upload alone, for a Forgejo keeps the blocks of all uploads of a run
/// in one place; and all have one length (the Azure service's rule).
fn block_name(upload: Uuid, number: u64) -> String {
    BASE64_STANDARD.encode(format!("{}-{number:08}", upload.simple()))
}

/// What is sent next; short only at the end.
async fn next_block(
    source: &mut (dyn AsyncRead + Send + Unpin),
    name: &str,
) -> Result<Vec<u8>, Fault> {
    let mut block = Vec::new();
    let read = source.take(BLOCK_BYTES as u64).read_to_end(&mut block).await;
    read.map_err(|error| format!("cannot read what is in the artifact {name}: {error}"))?;
    Ok(block)
}

/// The moment in so many days, as protobuf writes it.
fn expiry(days: u64) -> String {
    let day = 24 * 3600 * 1_000_000;
    let now = common::Timestamp::now().as_micros();
    common::Timestamp::from_micros(now.saturating_add(days.saturating_mul(day))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_blocks_of_a_run_have_one_name() {
        let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
        let names = [(one, 0), (one, 1), (one, 12_345_678), (other, 0)];
        let names = names.map(|(upload, number)| block_name(upload, number));
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert!(names.iter().all(|name| name.len() == names[0].len()));
    }
}
