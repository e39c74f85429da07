//! Downloads one file, making its digest on the way.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use common::limits::MIB;
use reqwest::{Client, Response, StatusCode, redirect};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::digest::{Digest, DigestAlgorithm, Hasher};
use super::error::ImageError;
use super::progress::Progress;
use super::space::Room;

/// The longest time to reach a server, its name and TLS included.
const CONNECT_DEADLINE: Duration = Duration::from_secs(20);
/// The longest silence of a server that should be sending.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);
/// The longest download.
const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(60 * 60);
/// Redirects that are followed. More are a loop.
const REDIRECTS: usize = 5;
/// Bytes between two reports of progress.
const PROGRESS_BYTES: u64 = MIB;

/// One download.
pub(super) struct Fetch<'a> {
    pub(super) label: &'a str,
    pub(super) url: &'a str,
    pub(super) algorithm: DigestAlgorithm,
    pub(super) room: &'a Room,
    pub(super) progress: &'a (dyn Fn(Progress) + Sync),
}

/// What came.
pub(super) struct Fetched {
    pub(super) digest: Digest,
    pub(super) bytes: u64,
}

impl Fetch<'_> {
    /// Writes the file to `path`, to the disk itself.
    pub(super) async fn run(&self, path: &Path) -> Result<Fetched, ImageError> {
        match tokio::time::timeout(DOWNLOAD_DEADLINE, self.transfer(path)).await {
            Ok(result) => result,
            Err(_) => Err(ImageError::Deadline {
                label: self.label.to_owned(),
                what: "the download",
                limit: DOWNLOAD_DEADLINE,
            }),
        }
    }

    async fn transfer(&self, path: &Path) -> Result<Fetched, ImageError> {
        let mut response = self.request().await?;
        let total = response.content_length();
        self.room.check(total.unwrap_or(0))?;
        let mut file = File::create(path).await.map_err(ImageError::store("create", path))?;
        let mut meter = self.room.meter();
        let mut hasher = Hasher::new(self.algorithm);
        let (mut done, mut reported) = (0, 0);
        (self.progress)(Progress::Downloading { done, total });
        while let Some(bytes) = response.chunk().await.map_err(|error| self.failed(&error))? {
            meter.add(bytes.len())?;
            hasher.update(&bytes);
            file.write_all(&bytes).await.map_err(ImageError::store("write", path))?;
            done += bytes.len() as u64;
            if done - reported >= PROGRESS_BYTES {
                reported = done;
                (self.progress)(Progress::Downloading { done, total });
            }
        }
        file.sync_all().await.map_err(ImageError::store("write", path))?;
        if let Some(total) = total.filter(|total| *total != done) {
            return Err(self.error(format!("{done} of {total} bytes came")));
        }
        (self.progress)(Progress::Downloading { done, total });
        Ok(Fetched { digest: hasher.finish(), bytes: done })
    }

    async fn request(&self) -> Result<Response, ImageError> {
        let client = Client::builder()
            .user_agent(concat!("solstice/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_DEADLINE)
            .read_timeout(IDLE_DEADLINE)
            .redirect(redirect::Policy::custom(follow))
            .build()
            .map_err(|error| self.failed(&error))?;
        let response = client.get(self.url).send().await.map_err(|error| self.failed(&error))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(self.error(format!("the server answered {status}"))),
        }
    }

    fn failed(&self, error: &reqwest::Error) -> ImageError {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !reason.contains(&text) {
                reason.push_str(": ");
                reason.push_str(&text);
            }
            cause = error.source();
        }
        self.error(reason)
    }

    fn error(&self, reason: String) -> ImageError {
        ImageError::Download { label: self.label.to_owned(), url: self.url.to_owned(), reason }
    }
}

/// Follows a redirect, but in no loop and from no secured address to an open one.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    if attempt.previous().len() > REDIRECTS {
        return attempt.error("too many redirects");
    }
    let secured = attempt.previous().iter().any(|url| url.scheme() == "https");
    if secured && attempt.url().scheme() != "https" {
        return attempt.error("a redirect from https to http is not followed");
    }
    attempt.follow()
}
