//! The second version of the protocol: Twirp in JSON for what is small (github-runner-protocol 8.5), and
//! blobs for what is large.

use axum::http::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{Answered, JobCache, blob, first, short_json};
use crate::answer::{self, Refusal};
use crate::cache::upload::number;
use crate::calls::Body;

pub(super) use common::call::CACHE_CALLS as BASE;

#[derive(Deserialize)]
struct Create {
    key: String,
    #[serde(default)]
    version: String,
}

#[derive(Deserialize)]
struct Finalize {
    key: String,
    #[serde(default)]
    version: String,
    /// A 64 bit number, which is text in protobuf's JSON; what this reads may also be a number.
    #[serde(default, alias = "sizeBytes")]
    size_bytes: Json,
}

#[derive(Deserialize)]
struct Find {
    key: String,
    #[serde(default, alias = "restoreKeys")]
    restore_keys: Vec<String>,
    #[serde(default)]
    version: String,
}

impl JobCache {
    pub(super) async fn second(&self, name: &str, request: Request<Body>) -> Answered {
        let (parts, body) = request.into_parts();
        if parts.method != Method::POST {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "calls are made by POST"));
        }
        let address = answer::address(&parts.headers);
        match name {
            "CreateCacheEntry" => {
                let Create { key, version } = short_json(body).await?;
                let number = self.reserve(&key, version).await?;
                let url = format!("{address}{}uploads/{number}", blob::BASE);
                Ok(answer::json(StatusCode::OK, &json!({ "ok": true, "signed_upload_url": url })))
            }
            "FinalizeCacheEntryUpload" => {
                let Finalize { key, version, size_bytes } = short_json(body).await?;
                let size = match &size_bytes {
                    Json::String(text) => text.parse().ok(),
                    other => other.as_u64(),
                };
                let size = size.ok_or_else(|| Refusal::invalid("size_bytes is no number"))?;
                let number = number(&self.scope, self.job, &self.scope.key(&key), &version);
                self.commit(number, size).await?;
                let id = number.to_string();
                Ok(answer::json(StatusCode::OK, &json!({ "ok": true, "entry_id": id })))
            }
            "GetCacheEntryDownloadURL" => {
                let Find { key, restore_keys, version } = short_json(body).await?;
                let keys = std::iter::once(key).chain(restore_keys).collect();
                let found = self.find(keys, version).await?.map_or_else(
                    || json!({ "ok": false, "signed_download_url": "", "matched_key": "" }),
                    |entry| {
                        let url = format!("{address}{}artifacts/{}", first::BASE, entry.data);
                        json!({ "ok": true, "signed_download_url": url, "matched_key": entry.key })
                    },
                );
                Ok(answer::json(StatusCode::OK, &found))
            }
            _ => Err(Refusal::new(StatusCode::NOT_FOUND, format!("the call {name} is not known"))),
        }
    }
}
