//! Errors as the API gives them out.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use queue::QueueError;
use queue::message::MessageError;

use super::wire::ErrorBody;
use crate::metrics;
use crate::store::StoreError;

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    kind: ApiErrorKind,
    message: String,
    hint: Option<String>,
}

/// What kind of error, which decides the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiErrorKind {
    /// The request is wrong: 400.
    Invalid,
    /// What it names does not exist: 404.
    NotFound,
    /// The path does not know this method: 405.
    Method,
    /// The request did not come in time: 408.
    Slow,
    /// It does not fit the state of what it names: 409.
    Conflict,
    /// It existed and is not kept any more: 410.
    Gone,
    /// The request is over its limit: 413.
    TooLarge,
    /// It belongs to another host of the installation: 421.
    Elsewhere,
    /// The service failed in a way that should not happen: 500.
    Internal,
    /// It cannot be done now; trying again may help: 503.
    Unavailable,
}

impl ApiErrorKind {
    /// The status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Gone => StatusCode::GONE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Elsewhere => StatusCode::MISDIRECTED_REQUEST,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl ApiError {
    /// An error of a kind, with a sentence in lower case and without a full stop.
    pub fn new(kind: ApiErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// Adds what to do, one sentence.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> ApiErrorKind {
        self.kind
    }

    /// As it crosses; what should not happen is counted and logged on the way.
    pub(super) fn into_body(self) -> ErrorBody {
        if self.kind == ApiErrorKind::Internal {
            metrics::error("operators' API");
            tracing::error!(error = self.message, "a request of the operators' API failed");
        }
        ErrorBody { error: self.message, hint: self.hint }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.kind.status(), Json(self.into_body())).into_response()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Unavailable { .. } => ApiErrorKind::Unavailable,
            StoreError::LeaseLost { .. } => ApiErrorKind::Conflict,
            _ => ApiErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<MessageError> for ApiError {
    fn from(error: MessageError) -> Self {
        let kind = match &error {
            MessageError::TooLarge { .. } => ApiErrorKind::TooLarge,
            _ => ApiErrorKind::Invalid,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Message(error) => error.into(),
            QueueError::Newer { .. } => Self::new(ApiErrorKind::Internal, error.to_string()),
            _ => Self::new(ApiErrorKind::Unavailable, error.to_string()),
        }
    }
}
