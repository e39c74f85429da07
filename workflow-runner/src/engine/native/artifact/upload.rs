//! `actions/upload-artifact`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::event::Conclusion;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use super::{Artifacts, check_name, number};
use crate::engine::fault::Fault;
use crate::engine::interpreter::Said;
use crate::engine::job::Job;
use crate::engine::native::cache::absolute;
use crate::engine::native::service::{Refusal, quote};
use crate::engine::native::{Unfit, input, lines, stopped, switch};
use crate::engine::step::{Performed, Performing};
use crate::system::{Packing, ZipWish};
use crate::workflow::Native;

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
    id: u64,
    bytes: u64,
    digest: String,
}

impl Wish {
    fn new(with: &[(String, String)], workspace: &str, home: &str) -> Result<Self, Unfit> {
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
        let hidden = switch(with, "include-hidden-files", false)?;
        let patterns = paths.iter().map(|path| absolute(path, workspace, home)).collect();
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
        with: &[(String, String)],
    ) -> Result<Performed, Unfit> {
        let wish = Wish::new(with, &self.directories.workspace, &self.facts.home)?;
        self.announce(Native::UploadArtifact, reference).await;
        let limits = performing.limits.clone();
        let sent = tokio::select! {
            sent = self.send_artifact(&wish) => sent?,
            stop = limits.reached() => return Ok(stopped(stop)),
        };
        let Some(Sent { id, bytes, digest }) = sent else {
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
        let name = &wish.name;
        let text =
            format!("Artifact {name} has been uploaded: ID {id}, {bytes} bytes, SHA256 {digest}");
        self.events.say(self.system.now(), &text).await;
        let context =
            |key: &str| performing.scope.github().get(key).map(crate::expression::Value::to_text);
        let part = |key: &str| context(key).unwrap_or_default();
        let url = format!(
            "{}/{}/actions/runs/{}/artifacts/{id}",
            part("server_url"),
            part("repository"),
            part("run_id")
        );
        let outputs =
            [("artifact-id", id.to_string()), ("artifact-url", url), ("artifact-digest", digest)]
                .map(|(name, value)| (name.to_owned(), value));
        let (outcome, said) = (Conclusion::Success, Said::outputs(outputs.into()));
        Ok(Performed { outcome, said, stop: None, disk_full: None })
    }

    /// Packs and sends an artifact; nothing if there are no files.
    async fn send_artifact(&mut self, wish: &Wish) -> Result<Option<Sent>, Fault> {
        let failed =
            |refusal: Refusal| format!("cannot upload the artifact {}: {refusal}", wish.name);
        let mut packing = self.system.zip(wish.zip.clone());
        let first = next_block(&mut packing, &wish.name).await?;
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
        let place = self.path(&signed_upload_url)?;
        let place = format!("{place}{}", if place.contains('?') { '&' } else { '?' });
        let (mut bytes, mut digest, mut list) = (0, Sha256::new(), String::new());
        while !block.is_empty() {
            // All names must have one length (the Azure service's rule).
            let name = BASE64_STANDARD.encode(format!("block-{:08}", bytes / BLOCK_BYTES as u64));
            let path = format!("{place}comp=block&blockid={}", quote(&name));
            let headers = [("content-type", "application/octet-stream")];
            self.service.ask("PUT", &path, &headers, &block).await?;
            digest.update(&block);
            bytes += block.len() as u64;
            list.extend(["<Latest>", &name, "</Latest>"]);
            block = next_block(&mut packing, &wish.name).await.map_err(Trouble::Machine)?;
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
        Ok(Sent { id: number(&artifact_id), bytes, digest })
    }
}

async fn next_block(packing: &mut Packing, name: &str) -> Result<Vec<u8>, Fault> {
    let mut block = Vec::new();
    let archive = &mut packing.archive;
    let read = archive.take(BLOCK_BYTES as u64).read_to_end(&mut block).await;
    read.map_err(|error| format!("cannot pack the artifact {name}: {error}"))?;
    Ok(block)
}

/// The moment in so many days, as protobuf writes it.
fn expiry(days: u64) -> String {
    let day = 24 * 3600 * 1_000_000;
    let now = common::Timestamp::now().as_micros();
    common::Timestamp::from_micros(now.saturating_add(days.saturating_mul(day))).to_string()
}
