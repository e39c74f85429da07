//! HTTP below the calls: proxies by the usual variables, certificates as the settings say, and no
//! web pages of whoever stands in between.

use std::time::Duration;

use connectrpc::client::{BoxFuture, ClientBody, ClientTransport};
use futures_util::TryStreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use reqwest::{Body, Certificate, redirect};

use super::RpcError;
use crate::settings::Trust;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(15);
/// How long a connection is kept for the next call.
const IDLE: Duration = Duration::from_secs(90);
/// A file with certificates has no more.
const CERTIFICATES_BYTES: u64 = common::limits::MIB;
/// So much of a web page is looked at for its title.
const PAGE_BYTES: usize = 8 * 1024;

/// Marks the head of an answer whose status is a success: what is wrong with it is found by this side.
const SUCCESS: HeaderName = HeaderName::from_static("x-solstice-success");

/// The HTTP client of one connection.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    http: reqwest::Client,
}

/// A call that brought no answer of the protocol.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    /// There is no connection, or it broke.
    #[error("{}", chain(.0))]
    Http(#[from] reqwest::Error),
    /// Somebody answered who does not speak the protocol.
    #[error("a web page came instead of an answer ({status}{title})")]
    Page {
        /// Its status.
        status: u16,
        /// Its title, behind a comma and a blank.
        title: String,
    },
}

impl Transport {
    /// # Errors
    /// The file of certificates cannot be used.
    pub(super) fn new(trust: &Trust) -> Result<Self, RpcError> {
        let builder = client(trust)?.pool_idle_timeout(IDLE);
        let http = builder.build().map_err(|error| RpcError::strange(chain(&error)))?;
        Ok(Self { http })
    }
}

/// An HTTP client by the settings: no call is sent on to another place.
pub(crate) fn client(trust: &Trust) -> Result<reqwest::ClientBuilder, RpcError> {
    let builder = reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .redirect(redirect::Policy::none())
        .user_agent(super::RUNNER_VERSION);
    match trust {
        Trust::Host => Ok(builder),
        Trust::Any => Ok(builder.tls_danger_accept_invalid_certs(true)),
        Trust::Also(path) => {
            let cannot = |what: &dyn std::fmt::Display| {
                let path = path.display();
                RpcError::strange(format!("the certificates of {path} cannot be used: {what}"))
            };
            let size = std::fs::metadata(path).map_err(|error| cannot(&error))?.len();
            if size > CERTIFICATES_BYTES {
                return Err(cannot(&"the file is too large"));
            }
            let bytes = std::fs::read(path).map_err(|error| cannot(&error))?;
            let certificates =
                Certificate::from_pem_bundle(&bytes).map_err(|error| cannot(&error))?;
            if certificates.is_empty() {
                return Err(cannot(&"there is no PEM certificate in it"));
            }
            Ok(builder.tls_certs_merge(certificates))
        }
    }
}

impl ClientTransport for Transport {
    type ResponseBody = Body;
    type Error = TransportError;

    fn send(
        &self,
        request: Request<ClientBody>,
    ) -> BoxFuture<'static, Result<Response<Body>, TransportError>> {
        let http = self.http.clone();
        Box::pin(async move {
            let request = reqwest::Request::try_from(request.map(Body::wrap))?;
            let response = http.execute(request).await?;
            let status = response.status();
            let speaks = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| {
                let kind = kind.as_bytes();
                kind.starts_with(b"application/proto") || kind.starts_with(b"application/json")
            });
            // A bare 404 is how older routers say that they do not know a method.
            if speaks || status == reqwest::StatusCode::NOT_FOUND {
                let mut response = Response::from(response);
                response.headers_mut().remove(SUCCESS);
                if status.is_success() {
                    response.headers_mut().insert(SUCCESS, HeaderValue::from_static("1"));
                }
                return Ok(response);
            }
            let title = title(response).await;
            Err(TransportError::Page { status: status.as_u16(), title })
        })
    }
}

/// Whether this is the head of an answer of a server that did what it was asked for.
pub(super) fn has_succeeded(headers: &HeaderMap) -> bool {
    headers.contains_key(SUCCESS)
}

/// The title of a web page, behind a comma; empty where it has none.
async fn title(response: reqwest::Response) -> String {
    let mut text = Vec::new();
    let mut body = response.bytes_stream();
    while let Ok(Some(chunk)) = body.try_next().await {
        text.extend_from_slice(&chunk);
        if text.len() >= PAGE_BYTES {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text);
    let title = text.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
    let title = title.map_or("", |(title, _)| title.trim());
    let plain: String = title.chars().filter(|c| !c.is_control()).take(100).collect();
    if plain.is_empty() { plain } else { format!(", {plain:?}") }
}

/// An error with its causes: the outermost alone names no reason.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
