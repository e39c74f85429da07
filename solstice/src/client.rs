//! The operators' API from the other side: the service of this host, over its unix socket.
//!
//! [`Client`] asks one thing at a time, [`Follow`] takes a job's events and outlasts lost connections
//! and a restart of the service.

mod error;
mod follow;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::ids::{HostId, JobId};
use common::limits::{JOB_REQUEST_BYTES, MIB};
use common::request::{JobRequest, PROTOCOL_VERSION};
use common::size::ByteSize;
use orchestrator::api::wire::{
    Cancelled, Drain, ErrorBody, PROTOCOL_HEADER, Place, REQUEST_TYPE, Submitted, VERSION_HEADER,
};
use orchestrator::api::{Extent, Health};
use orchestrator::store::{HostRow, Job, JobDetail, JobFilter, LabelOffer};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use error::ClientError;
pub(crate) use follow::{AWAY, EventStream, Follow, PAUSE};

/// How long the service may take for an answer that is no stream.
const ANSWER: Duration = Duration::from_secs(30);

/// How long the service may take to say how it is.
const HEALTH: Duration = Duration::from_secs(5);

/// An answer that is no stream. A larger one is refused.
const ANSWER_BYTES: u64 = 64 * MIB;

/// The service of this host. Clones share connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    socket: PathBuf,
}

impl Client {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// There can be no client.
    pub(crate) fn open(socket: &Path) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            .no_proxy()
            // Nothing is encrypted here: a host without certificates must do as well.
            .tls_certs_only([])
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let socket = socket.to_path_buf();
        match http {
            Ok(http) => Ok(Self { http, socket }),
            Err(error) => Err(ClientError::from_transport(&socket, &error)),
        }
    }

    /// Where the service answers.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// How the service is, well or not.
    pub(crate) async fn health(&self) -> Result<Health, ClientError> {
        let request = self.request(Method::GET, &["health"], &[]).timeout(HEALTH);
        let response = self.send(request).await?;
        match response.status() {
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => self.read(response).await,
            _ => Err(self.refusal(response).await),
        }
    }

    /// The jobs of a filter, newest first.
    pub(crate) async fn jobs(&self, filter: &JobFilter) -> Result<Vec<Job>, ClientError> {
        let states: Vec<&str> = filter.states.iter().map(|state| state.name()).collect();
        let (states, most) = (states.join(","), filter.most.to_string());
        let mut query = vec![("state", states.as_str()), ("most", most.as_str())];
        query.extend(filter.repository.as_deref().map(|repository| ("repository", repository)));
        query.extend(filter.label.as_deref().map(|label| ("label", label)));
        self.get(&["v1", "jobs"], &query).await
    }

    /// Everything that is known about a job.
    pub(crate) async fn job(&self, job: JobId) -> Result<JobDetail, ClientError> {
        self.get(&["v1", "jobs", &job.to_string()], &[]).await
    }

    /// Ends a job; `now` destroys its machine at once.
    pub(crate) async fn cancel(&self, job: JobId, now: bool) -> Result<Cancelled, ClientError> {
        let now = now.to_string();
        let path = ["v1", "jobs", &job.to_string(), "cancel"];
        self.answer(self.request(Method::POST, &path, &[("now", &now)])).await
    }

    /// Runs a job that is over once more; the new one.
    pub(crate) async fn retry(&self, job: JobId) -> Result<JobId, ClientError> {
        let path = ["v1", "jobs", &job.to_string(), "retry"];
        let submitted: Submitted = self.answer(self.request(Method::POST, &path, &[])).await?;
        Ok(submitted.job)
    }

    /// Every host of the installation.
    pub(crate) async fn hosts(&self) -> Result<Vec<HostRow>, ClientError> {
        self.get(&["v1", "hosts"], &[]).await
    }

    /// Lets a host take nothing new, or takes that back.
    pub(crate) async fn drain(&self, host: HostId, on: bool) -> Result<(), ClientError> {
        let body = to_json(&Drain { host: Some(host), on });
        let request = self.request(Method::POST, &["v1", "drain"], &[]);
        let request = request.header("content-type", "application/json").body(body);
        self.answer::<serde_json::Value>(request).await.map(drop)
    }

    /// The labels that a job given to the service can have.
    pub(crate) async fn labels(&self) -> Result<Vec<LabelOffer>, ClientError> {
        self.get(&["v1", "labels"], &[]).await
    }

    /// Hands a job in. It may be handed in again after a lost connection.
    pub(crate) async fn submit(&self, request: &JobRequest) -> Result<JobId, ClientError> {
        let mut body = Vec::new();
        rmp_serde::encode::write_named(&mut body, request)
            .map_err(|error| refused(format!("the job cannot be encoded: {error}")))?;
        let (bytes, limit) = (ByteSize(body.len() as u64), ByteSize(JOB_REQUEST_BYTES));
        if bytes > limit {
            return Err(refused(format!("the job has {bytes}, over the limit of {limit}")));
        }
        let request = self.request(Method::POST, &["v1", "jobs"], &[]);
        let request = request.header("content-type", REQUEST_TYPE).body(body);
        let submitted: Submitted = self.answer(request).await?;
        Ok(submitted.job)
    }

    /// A job's events behind a place, in one stream that can break.
    pub(crate) async fn events(
        &self,
        job: JobId,
        extent: Extent,
        after: Place,
    ) -> Result<EventStream, ClientError> {
        let until = match extent {
            Extent::Written => "written",
            Extent::Final => "final",
        };
        let (path, after) = (["v1", "jobs", &job.to_string(), "events"], after.to_string());
        let request = self.request(Method::GET, &path, &[("until", until), ("after", &after)]);
        // Only the answer has a deadline: the stream lives as long as the job.
        let response = tokio::time::timeout(ANSWER, self.send(request)).await;
        let response = response.unwrap_or_else(|_| Err(self.silent(ANSWER)))?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response).await);
        }
        Ok(EventStream::new(self.socket.clone(), response))
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, ClientError> {
        self.answer(self.request(Method::GET, path, query)).await
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        // The name of the host is for the protocol's sake only.
        let mut url = Url::parse("http://solstice").expect("the address is constant");
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.http.request(method, url).header(PROTOCOL_HEADER, PROTOCOL_VERSION)
    }

    /// The answer to a request that is carried out or refused.
    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let response = self.send(request.timeout(ANSWER)).await?;
        if response.status().is_success() {
            self.read(response).await
        } else {
            Err(self.refusal(response).await)
        }
    }

    /// Sends a request, and looks at who answers before at what.
    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await;
        let response =
            response.map_err(|error| ClientError::from_transport(&self.socket, &error))?;
        let header = |name| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let socket = || self.socket.clone();
        let Some((protocol, version)) = header(PROTOCOL_HEADER).zip(header(VERSION_HEADER)) else {
            return Err(ClientError::Foreign { socket: socket() });
        };
        if protocol != PROTOCOL_VERSION.to_string() {
            return Err(ClientError::Version { socket: socket(), version, protocol });
        }
        Ok(response)
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let bytes = self.bytes(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Answer {
            socket: self.socket.clone(),
            reason: error.to_string(),
        })
    }

    async fn bytes(&self, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        loop {
            let chunk = response.chunk().await;
            let chunk = chunk.map_err(|error| ClientError::from_transport(&self.socket, &error))?;
            let Some(chunk) = chunk else { return Ok(bytes) };
            if (bytes.len() + chunk.len()) as u64 > ANSWER_BYTES {
                let reason = format!("it has over {}", ByteSize(ANSWER_BYTES));
                return Err(ClientError::Answer { socket: self.socket.clone(), reason });
            }
            bytes.extend_from_slice(&chunk);
        }
    }

    /// Why a request was not carried out.
    async fn refusal(&self, response: Response) -> ClientError {
        let status = response.status().as_u16();
        match self.bytes(response).await {
            Err(error) => error,
            Ok(bytes) => ClientError::Refused {
                status,
                error: serde_json::from_slice(&bytes).unwrap_or_else(|_| ErrorBody {
                    error: format!("the service answered with status {status}"),
                    hint: None,
                }),
            },
        }
    }

    fn silent(&self, deadline: Duration) -> ClientError {
        ClientError::Lost {
            socket: self.socket.clone(),
            reason: format!("no answer within {} s", deadline.as_secs()),
        }
    }
}

/// A refusal of our own, before anything is sent.
fn refused(error: String) -> ClientError {
    let status = StatusCode::PAYLOAD_TOO_LARGE.as_u16();
    ClientError::Refused { status, error: ErrorBody { error, hint: None } }
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own types become JSON")
}
