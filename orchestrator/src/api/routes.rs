//! The paths of the API and what answers them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use common::limits::JOB_REQUEST_BYTES;
use common::request::PROTOCOL_VERSION;
use tokio_util::sync::CancellationToken;

use super::request::{self, CancelQuery, EventsQuery, JobsQuery, invalid};
use super::stream;
use super::wire::{
    Cancelled, Drain, EVENTS_TYPE, JSON_BYTES, PROTOCOL_HEADER, Submitted, VERSION_HEADER,
};
use super::{ApiError, ApiErrorKind, Backend};

/// How Prometheus knows the text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4";

/// What every request has at hand.
#[derive(Debug)]
pub(super) struct Api<B> {
    pub(super) backend: Arc<B>,
    /// Cancelled when the service stops: streams end then.
    pub(super) stop: CancellationToken,
}

impl<B> Clone for Api<B> {
    fn clone(&self) -> Self {
        Self { backend: Arc::clone(&self.backend), stop: self.stop.clone() }
    }
}

type Answer<T> = Result<T, ApiError>;

/// Everything, for the service's own user.
pub(super) fn all<B: Backend>(api: Api<B>) -> Router {
    let routes = Router::new()
        .route("/v1/jobs", get(jobs::<B>).post(submit::<B>))
        .route("/v1/jobs/{id}", get(job::<B>))
        .route("/v1/jobs/{id}/cancel", post(cancel::<B>))
        .route("/v1/jobs/{id}/retry", post(retry::<B>))
        .route("/v1/jobs/{id}/events", get(events::<B>))
        .route("/v1/hosts", get(hosts::<B>))
        .route("/v1/drain", post(drain::<B>))
        .route("/v1/labels", get(labels::<B>));
    finish(observable(routes), api)
}

/// What may be seen by whoever reaches the address.
pub(super) fn observability<B: Backend>(api: Api<B>) -> Router {
    finish(observable(Router::new()), api)
}

fn observable<B: Backend>(routes: Router<Api<B>>) -> Router<Api<B>> {
    routes.route("/health", get(health::<B>)).route("/metrics", get(metrics::<B>))
}

fn finish<B: Backend>(routes: Router<Api<B>>, api: Api<B>) -> Router {
    routes
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(versions))
        .with_state(api)
}

/// Refuses clients of another protocol version, and names ours in every response.
async fn versions(request: Request, next: Next) -> Response {
    let mut response = match client_protocol(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(VERSION_HEADER, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    headers.insert(PROTOCOL_HEADER, HeaderValue::from(PROTOCOL_VERSION));
    response
}

/// A client that names no version, such as curl, is taken at its word.
fn client_protocol(request: &Request) -> Answer<()> {
    let Some(value) = request.headers().get(PROTOCOL_HEADER) else { return Ok(()) };
    let version = value.to_str().ok().and_then(|text| text.parse().ok());
    let version = version.ok_or_else(|| invalid(format!("{PROTOCOL_HEADER} is not a number")))?;
    request::check_protocol(version)
}

async fn unknown_path(request: Request) -> ApiError {
    ApiError::new(ApiErrorKind::NotFound, format!("there is no {}", request.uri().path()))
        .hint("a newer client may know paths that this service does not; compare their versions")
}

async fn wrong_method(request: Request) -> ApiError {
    let text = format!("{} does not know {}", request.uri().path(), request.method());
    ApiError::new(ApiErrorKind::Method, text)
}

async fn jobs<B: Backend>(
    State(api): State<Api<B>>,
    query: Result<Query<JobsQuery>, QueryRejection>,
) -> Answer<Response> {
    let filter = parameters(query)?.filter()?;
    Ok(Json(api.backend.jobs(filter).await?).into_response())
}

async fn job<B: Backend>(State(api): State<Api<B>>, Path(id): Path<String>) -> Answer<Response> {
    let id = request::job_id(&id)?;
    let detail = api.backend.job(id).await?.ok_or_else(|| stream::unknown_job(id))?;
    Ok(Json(detail).into_response())
}

async fn submit<B: Backend>(State(api): State<Api<B>>, body: Body) -> Answer<Response> {
    let bytes = request::body(body, JOB_REQUEST_BYTES).await?;
    let request = request::job_request(&bytes)?;
    drop(bytes);
    let job = api.backend.submit(request).await?;
    Ok((StatusCode::CREATED, Json(Submitted { job })).into_response())
}

async fn cancel<B: Backend>(
    State(api): State<Api<B>>,
    Path(id): Path<String>,
    query: Result<Query<CancelQuery>, QueryRejection>,
) -> Answer<Json<Cancelled>> {
    let id = request::job_id(&id)?;
    let outcome = match parameters(query)?.now {
        true => api.backend.destroy(id).await?,
        false => api.backend.cancel(id).await?,
    };
    Ok(Json(outcome.into()))
}

async fn retry<B: Backend>(State(api): State<Api<B>>, Path(id): Path<String>) -> Answer<Response> {
    let job = api.backend.retry(request::job_id(&id)?).await?;
    Ok((StatusCode::CREATED, Json(Submitted { job })).into_response())
}

async fn events<B: Backend>(
    State(api): State<Api<B>>,
    Path(id): Path<String>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Answer<Response> {
    let id = request::job_id(&id)?;
    let query = parameters(query)?;
    let after = query.after()?;
    let frames = stream::frames(api, id, query.until, after).await?;
    let kind = [(header::CONTENT_TYPE, EVENTS_TYPE)];
    Ok((kind, Body::from_stream(frames)).into_response())
}

async fn hosts<B: Backend>(State(api): State<Api<B>>) -> Answer<Response> {
    Ok(Json(api.backend.hosts().await?).into_response())
}

async fn drain<B: Backend>(State(api): State<Api<B>>, body: Body) -> Answer<Response> {
    let Drain { host, on } = request::json(&request::body(body, JSON_BYTES).await?)?;
    api.backend.drain(host, on).await?;
    Ok(Json(serde_json::json!({})).into_response())
}

async fn labels<B: Backend>(State(api): State<Api<B>>) -> Answer<Response> {
    Ok(Json(api.backend.labels().await?).into_response())
}

async fn health<B: Backend>(State(api): State<Api<B>>) -> Response {
    let health = api.backend.health().await;
    let status = match health.problems.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(health)).into_response()
}

async fn metrics<B: Backend>(State(api): State<Api<B>>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], api.backend.metrics()).into_response()
}

fn parameters<T>(query: Result<Query<T>, QueryRejection>) -> Answer<T> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => Err(invalid(rejection.body_text())),
    }
}
