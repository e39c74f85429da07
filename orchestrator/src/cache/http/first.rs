//! The first version of the protocol (forgejo-runner-protocol 8.8).

use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use reqwest::Url;
use serde::Deserialize;
use serde_json::json;

use super::{Answered, JobCache, data_name, number_of, short_json};
use crate::answer::{self, Refusal};
use crate::calls::Body;

pub(super) use common::call::CACHE_PATH as BASE;

/// The keys of one request: a restore has ten at most on GitHub.
const KEYS: usize = 64;

#[derive(Deserialize)]
struct Reserve {
    key: String,
    version: String,
}

#[derive(Deserialize)]
struct Commit {
    size: u64,
}

impl JobCache {
    pub(super) async fn first(&self, path: &str, request: Request<Body>) -> Answered {
        let (parts, body) = request.into_parts();
        let (name, rest) = path.split_once('/').unwrap_or((path, ""));
        match (&parts.method, name, rest) {
            (&Method::GET, "cache", "") => {
                let query = parts.uri.query().unwrap_or_default();
                self.look_up(query, &parts.headers).await
            }
            (&Method::POST, "caches", "") => {
                let Reserve { key, version } = short_json(body).await?;
                let number = self.reserve(&key, version).await?;
                Ok(answer::json(StatusCode::OK, &json!({ "cacheId": number })))
            }
            (&Method::PATCH, "caches", number) => {
                let range = parts.headers.get(header::CONTENT_RANGE);
                let range = range.and_then(|range| range.to_str().ok()).and_then(range_of);
                let wrong = || Refusal::invalid("the part has no Content-Range: bytes A-B/*");
                let (from, count) = range.ok_or_else(wrong)?;
                self.take_part(number_of(number)?, (from, count), body).await
            }
            (&Method::POST, "caches", number) => {
                let Commit { size } = short_json(body).await?;
                self.commit(number_of(number)?, size).await?;
                Ok(answer::json(StatusCode::OK, &json!({})))
            }
            (&(Method::GET | Method::HEAD), "artifacts", data) => {
                self.content(data_name(data)?, &parts.method, &parts.headers).await
            }
            (&Method::POST, "clean", "") => Ok(answer::json(StatusCode::OK, &json!({}))),
            _ => {
                let text = format!("{} {BASE}{path} is not known", parts.method);
                Err(Refusal::new(StatusCode::NOT_FOUND, text))
            }
        }
    }

    async fn look_up(&self, query: &str, headers: &HeaderMap) -> Answered {
        let url = Url::parse(&format!("http://cache/?{query}"));
        let url = url.map_err(|_| Refusal::invalid("the query is none"))?;
        let find = |wanted: &str| {
            let found = url.query_pairs().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        let keys: Vec<String> = find("keys").split(',').map(|key| key.trim().to_owned()).collect();
        let version = find("version");
        let Some(entry) = self.find(keys, version).await? else {
            return Ok(answer::empty(StatusCode::NO_CONTENT));
        };
        let place = format!("{}{BASE}artifacts/{}", answer::address(headers), entry.data);
        let found = json!({ "result": "hit", "archiveLocation": place, "cacheKey": entry.key });
        Ok(answer::json(StatusCode::OK, &found))
    }

    /// The cache that a job restores.
    pub(super) async fn find(
        &self,
        keys: Vec<String>,
        version: String,
    ) -> Result<Option<super::super::store::Entry>, Refusal> {
        let keys: Vec<String> = keys
            .into_iter()
            .filter(|key| !key.is_empty())
            .map(|key| self.scope.key(&key))
            .collect();
        if keys.is_empty() || keys.len() > KEYS {
            return Err(Refusal::invalid(format!("a cache is looked up by 1 to {KEYS} keys")));
        }
        self.blocking(move |store, scope| store.find(scope, &keys, &version)).await
    }

    async fn take_part(&self, number: u64, (from, count): (u64, u64), body: Body) -> Answered {
        let most = self.store.entry_bytes();
        if from.checked_add(count).is_none_or(|end| end > most) {
            let text = format!("a cache has {most} bytes at most");
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        let upload = self.store.upload(&self.scope, self.job, number)?;
        upload.write(from, body, count, &self.room).await?;
        Ok(answer::json(StatusCode::OK, &json!({})))
    }
}

/// The begin and the length of `bytes A-B/*`.
fn range_of(text: &str) -> Option<(u64, u64)> {
    let range = text.strip_prefix("bytes")?.trim_start().split('/').next()?;
    let (from, to) = range.split_once('-')?;
    let (from, to): (u64, u64) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
    Some((from, to.checked_sub(from)?.checked_add(1)?))
}
