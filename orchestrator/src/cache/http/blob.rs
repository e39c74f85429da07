//! Uploads of the second version.

use axum::http::{Method, Request, StatusCode};

use super::{Answered, JobCache, number_of};
use crate::answer::{self, Refusal};
use crate::calls::Body;

/// What stands before each path: clients take the first two names for an account and a container.
pub(super) const BASE: &str = "/_apis/artifactcache/blobs/";

impl JobCache {
    pub(super) async fn blob(&self, path: &str, request: Request<Body>) -> Answered {
        let (parts, body) = request.into_parts();
        let number = path.strip_prefix("uploads/").map(number_of).transpose()?;
        let (&Method::PUT, Some(number)) = (&parts.method, number) else {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "there is no such blob"));
        };
        let upload = self.store.upload(&self.scope, self.job, number)?;
        let query = parts.uri.query().unwrap_or_default();
        upload.put(query, body, &self.room).await?;
        Ok(answer::empty(StatusCode::CREATED))
    }
}
