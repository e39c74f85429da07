//! Requests of a guest to the services of its job: the host's own, and those of its forge.

mod remote;

use std::collections::HashMap;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use common::call::{
    ARTIFACT_SERVICE, CACHE_SERVICE, CallAnswer, CallError, CallErrorKind, FORWARD_HEAD_BYTES,
    ForwardWish,
};
use common::request::JobRequest;
use tokio::time::timeout;

use super::{Answer, Body, OutBody};
use crate::artifacts::LocalArtifacts;
use crate::cache::JobCache;
use crate::fetch::Policy;
use remote::Remote;

/// How long a service may take to begin its answer, counted from when it was asked; a large body is on
/// its way meanwhile.
const ANSWER: Duration = Duration::from_secs(30 * 60);

/// What a program may ask a service to do.
const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// What a guest's program and the service say about the connections that they have (RFC 9110 7.6.1), and
/// what the host says itself.
const OF_CONNECTIONS: [HeaderName; 10] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// The services of a job.
#[derive(Debug)]
pub(super) struct Services {
    cache: JobCache,
    /// Where no forge keeps them.
    artifacts: Option<LocalArtifacts>,
    remotes: HashMap<String, Remote>,
}

impl Services {
    pub(super) fn new(
        request: &JobRequest,
        (cache, artifacts): (JobCache, Option<LocalArtifacts>),
        policy: &Policy,
    ) -> Self {
        let remote = |service: &common::request::Service| {
            let token = service.token.as_ref().and_then(|name| request.body.secrets.get(name));
            (service.name.clone(), Remote::new(service, token.cloned(), policy.clone()))
        };
        Self { cache, artifacts, remotes: request.body.services.iter().map(remote).collect() }
    }

    /// The job is over.
    pub(super) async fn end(&self) {
        self.cache.end().await;
        if let Some(artifacts) = &self.artifacts {
            artifacts.end().await;
        }
    }

    /// Asks a service.
    pub(super) async fn answer(&self, wish: ForwardWish, body: Body) -> Result<Answer, CallError> {
        let (service, has_body) = (wish.service.clone(), wish.has_body);
        let request = request(wish, body)?;
        let answered = async {
            if service == CACHE_SERVICE {
                return Ok(self.cache.answer(request).await);
            }
            match (self.remotes.get(&service), &self.artifacts) {
                (Some(remote), _) => remote.answer(request, has_body).await,
                (None, Some(artifacts)) if service == ARTIFACT_SERVICE => {
                    Ok(artifacts.answer(request).await)
                }
                _ => {
                    let text = format!("this job has no service {service:?}");
                    Err(CallError::new(CallErrorKind::Refused, text))
                }
            }
        };
        let answer = timeout(ANSWER, answered).await.unwrap_or_else(|_| {
            let text = format!("the service {service} gave no answer in {ANSWER:?}");
            Err(CallError::new(CallErrorKind::Unavailable, text))
        })?;
        Ok(head(answer))
    }
}

fn request(wish: ForwardWish, body: Body) -> Result<Request<Body>, CallError> {
    let invalid = |text: String| CallError::new(CallErrorKind::Invalid, text);
    let fields = wish.headers.iter().map(|(name, value)| name.len() + value.len());
    if wish.path.len() + fields.sum::<usize>() > FORWARD_HEAD_BYTES {
        let text = format!("the path and headers have more than {FORWARD_HEAD_BYTES} bytes");
        return Err(invalid(text));
    }
    let known = METHODS.into_iter().find(|known| known.as_str() == wish.method);
    let method =
        known.ok_or_else(|| invalid(format!("the method {:?} is not known", wish.method)))?;
    if !wish.path.starts_with('/') {
        return Err(invalid(format!("the path {:?} does not begin with a slash", wish.path)));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &wish.headers {
        let name = HeaderName::try_from(name.as_str());
        let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value.as_str())) else {
            return Err(invalid("a header has characters that none may have".to_owned()));
        };
        if !OF_CONNECTIONS.contains(&name) {
            headers.append(name, value);
        }
    }
    let made = Request::builder().method(method).uri(wish.path).body(body);
    let mut request = made.map_err(|error| invalid(format!("the path is none: {error}")))?;
    *request.headers_mut() = headers;
    Ok(request)
}

fn head(answer: Response<OutBody>) -> Answer {
    let (parts, body) = answer.into_parts();
    let headers = parts.headers.iter().filter(|(name, _)| !OF_CONNECTIONS.contains(name));
    let text = |value: &HeaderValue| value.to_str().map(str::to_owned).ok();
    let headers =
        headers.filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)));
    let head = CallAnswer::Forward { status: parts.status.as_u16(), headers: headers.collect() };
    Answer { head, body, turn: None }
}
