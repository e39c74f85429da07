//! Answers of the services that this host keeps for jobs, and what is common to their questions.

use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json as object};

use crate::calls::{Body, OutBody, text_body};

/// The bytes of a question in JSON.
const TEXT_BYTES: usize = 1024 * 1024;

/// A refusal, as it is answered.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

/// A refusal in JSON, by each of the words that clients look for.
pub(crate) fn plain(refusal: &Refusal) -> Response<OutBody> {
    let message = &refusal.message;
    json(refusal.status, &object!({ "error": message, "message": message }))
}

/// A refusal in Twirp's form.
pub(crate) fn twirp(refusal: &Refusal) -> Response<OutBody> {
    let code = match refusal.status {
        StatusCode::CONFLICT => "already_exists",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::BAD_REQUEST => "invalid_argument",
        StatusCode::PAYLOAD_TOO_LARGE => "resource_exhausted",
        _ => "internal",
    };
    json(refusal.status, &object!({ "code": code, "msg": refusal.message }))
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<OutBody> {
    let mut answer = Response::new(text_body(Vec::new()));
    *answer.status_mut() = status;
    answer
}

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, value: &Json) -> Response<OutBody> {
    let mut answer = empty(status);
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    *answer.body_mut() = text_body(value.to_string().into_bytes());
    answer
}

/// Reads a whole body that must be short.
pub(crate) async fn short(mut body: Body) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    while let Some(part) = body.next().await {
        let part = part.map_err(|error| Refusal::invalid(error.to_string()))?;
        bytes.extend_from_slice(&part);
        if bytes.len() > TEXT_BYTES {
            let text = format!("the request has more than {TEXT_BYTES} bytes");
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
    }
    Ok(bytes)
}

/// Reads a question in JSON.
pub(crate) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, Refusal> {
    let wrong = |error| Refusal::invalid(format!("the request is not what it should be: {error}"));
    serde_json::from_slice(text).map_err(wrong)
}

/// Where programs of the job find the service: the address at which they asked.
pub(crate) fn address(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    format!("http://{}", host.unwrap_or("127.0.0.1"))
}
