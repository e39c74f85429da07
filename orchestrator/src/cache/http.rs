//! The protocols of the forges' cache services, for one job.

mod blob;
mod first;
mod second;

use std::io;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use common::ids::JobId;
use serde::de::DeserializeOwned;

use super::store::SaveError;
use super::{CacheStore, Scope};
use crate::answer::{self, Refusal};
use crate::blob::Room;
use crate::calls::{Body, OutBody, text_body};

/// The uploads of one job that are not complete may have so many entries' largest size together.
const UPLOADS: u64 = 2;

/// The caches of one job.
#[derive(Debug)]
pub(crate) struct JobCache {
    store: Arc<CacheStore>,
    scope: Scope,
    job: JobId,
    /// What may come that is no entry yet, as far as this process knows.
    room: Room,
}

fn broken(error: &io::Error) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

impl From<SaveError> for Refusal {
    fn from(error: SaveError) -> Self {
        let status = match &error {
            SaveError::Taken(_) => StatusCode::CONFLICT,
            SaveError::Invalid(_) => StatusCode::BAD_REQUEST,
            SaveError::Unknown => StatusCode::NOT_FOUND,
            SaveError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            SaveError::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

type Answered = Result<Response<OutBody>, Refusal>;

impl JobCache {
    pub(crate) fn new(store: Arc<CacheStore>, scope: Scope, job: JobId) -> Self {
        let room = Room::new(UPLOADS * store.entry_bytes());
        Self { store, scope, job, room }
    }

    /// Answers a request of the job.
    pub(crate) async fn answer(&self, request: Request<Body>) -> Response<OutBody> {
        let path = request.uri().path().to_owned();
        let of = |base: &str| path.strip_prefix(base).map(str::to_owned);
        let answered = if let Some(name) = of(second::BASE) {
            return match self.second(&name, request).await {
                Ok(answer) => answer,
                Err(refusal) => answer::twirp(&refusal),
            };
        } else if let Some(blob) = of(blob::BASE) {
            self.blob(&blob, request).await
        } else if let Some(rest) = of(first::BASE) {
            self.first(&rest, request).await
        } else {
            Err(Refusal::new(StatusCode::NOT_FOUND, format!("{path} is no path of the cache")))
        };
        answered.unwrap_or_else(|refusal| answer::plain(&refusal))
    }

    #[cfg(test)]
    pub(super) fn scope(&self) -> Scope {
        self.scope.clone()
    }

    #[cfg(test)]
    pub(super) fn job(&self) -> JobId {
        self.job
    }

    /// The job is over: what it did not complete goes, so that another may save it.
    pub(crate) async fn end(&self) {
        let job = self.job;
        // What cannot be removed is stale some time.
        drop(self.alone(move |store, scope| store.forget(scope, job)).await);
    }

    /// Does what reads and writes files.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CacheStore, &Scope) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (store, scope) = (Arc::clone(&self.store), self.scope.clone());
        self.room.work(move || work(&store, &scope)).await.map_err(|error| broken(&error))
    }

    /// Does what ends an upload, which may be asked for again before it is done.
    async fn alone<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CacheStore, &Scope) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (store, scope) = (Arc::clone(&self.store), self.scope.clone());
        self.room.work_alone(move || work(&store, &scope)).await.map_err(|error| broken(&error))
    }

    /// Begins to save a cache; gives the number of the upload.
    async fn reserve(&self, key: &str, version: String) -> Result<u64, Refusal> {
        let (key, job) = (self.scope.key(key), self.job);
        let work =
            move |store: &CacheStore, scope: &Scope| store.reserve(scope, job, &key, &version);
        Ok(self.blocking(work).await??)
    }

    /// Makes an entry of an upload; done twice, it is done once.
    async fn commit(&self, number: u64, size: u64) -> Result<(), Refusal> {
        let (job, room) = (self.job, self.room.clone());
        let work = move |store: &CacheStore, scope: &Scope| {
            if store.commit(scope, job, number, size)? {
                room.give(size);
            }
            Ok::<(), SaveError>(())
        };
        Ok(self.alone(work).await??)
    }

    /// Answers with the content of a cache, or of a part of it.
    async fn content(&self, data: String, method: &Method, headers: &HeaderMap) -> Answered {
        let opened = self.blocking(move |store, scope| store.open(scope, &data)).await?;
        let missing = || Refusal::new(StatusCode::NOT_FOUND, "there is no such cache");
        let (file, size) = opened.ok_or_else(missing)?;
        let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
        let range = range.and_then(|range| part(range, size));
        let (from, count) = range.unwrap_or((0, size));
        let mut answer = Response::new(text_body(Vec::new()));
        let fields = answer.headers_mut();
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(count));
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if range.is_some() {
            let text = format!("bytes {from}-{}/{size}", from + count - 1);
            if let Ok(value) = HeaderValue::try_from(text) {
                fields.insert(header::CONTENT_RANGE, value);
            }
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        if method != Method::HEAD {
            use tokio::io::{AsyncReadExt, AsyncSeekExt};
            let failed = |error: std::io::Error| {
                Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            };
            let mut file = tokio::fs::File::from_std(file);
            file.seek(std::io::SeekFrom::Start(from)).await.map_err(failed)?;
            *answer.body_mut() = Box::new(file.take(count));
        }
        Ok(answer)
    }
}

/// The begin and the length of one range of bytes (RFC 9110 14.1.2); others are not heeded.
fn part(range: &str, size: u64) -> Option<(u64, u64)> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let from: u64 = from.parse().ok()?;
    let to: u64 = if to.is_empty() { u64::MAX } else { to.parse().ok()? };
    let to = to.min(size.checked_sub(1)?);
    (from <= to).then(|| (from, to - from + 1))
}

async fn short_json<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    answer::read(&answer::short(body).await?)
}

/// The file of a cache by the name in an address.
fn data_name(name: &str) -> Result<String, Refusal> {
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let missing = || Refusal::new(StatusCode::NOT_FOUND, "there is no such cache");
    if is_name { Ok(name.to_owned()) } else { Err(missing()) }
}

fn number_of(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| Refusal::invalid(format!("{text} is no number of a cache")))
}
