//! The calls of the protocol, each with its deadline (forgejo-runner-protocol 1 to 6).

mod error;
mod transport;
mod version;

use std::time::Duration;

use common::request::Secret;
use connectrpc::client::{CallOptions, ClientConfig};
use forgejo_proto::ping::{PingRequest, PingServiceClient};
use forgejo_proto::runner::{
    DeclareRequest, FetchSingleTaskRequest, FetchSingleTaskResponse, FetchTaskRequest,
    FetchTaskResponse, RegisterRequest, RunnerServiceClient, UpdateLogRequest, UpdateTaskRequest,
    UpdateTaskResponse,
};
use http::HeaderValue;
use reqwest::Url;

use crate::settings::{Connection, Trust};
use transport::Transport;

pub(crate) use transport::{chain, client as http_client};

pub use error::{RpcError, RpcErrorKind};
pub use version::{Kind, Version, version};

/// What this program calls itself to servers; their column has 64 characters.
pub const RUNNER_VERSION: &str = concat!("solstice/", env!("CARGO_PKG_VERSION"));

/// How long one call may take, where nothing else is said.
const CALL: Duration = Duration::from_secs(60);
/// How long a call that a person waits for may take.
const QUESTION: Duration = Duration::from_secs(20);
/// The largest answer that is read: a task with its event, which the queue would refuse when larger.
const ANSWER_BYTES: usize = common::limits::JOB_REQUEST_BYTES as usize;

/// What a new runner says of itself to get an identity by a registration token.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The registration token.
    pub token: Secret,
    /// The runner's name for people.
    pub name: String,
    /// The names of its labels.
    pub labels: Vec<String>,
    /// Whether it is for one task only.
    pub ephemeral: bool,
}

/// The identity that a server gave.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The server's number for it.
    pub id: i64,
    /// Its id.
    pub uuid: String,
    /// Its token; no server shows it again.
    pub token: Secret,
    /// Its name.
    pub name: String,
}

/// What a server knows of a runner that declared its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Whether it is for one task only.
    pub ephemeral: bool,
}

/// Whether an instance answers at all.
///
/// # Errors
/// It does not.
pub async fn ping(url: &Url, trust: &Trust) -> Result<(), RpcError> {
    let config = config(url, QUESTION)?;
    let client = PingServiceClient::new(Transport::new(trust)?, config);
    let request = PingRequest { data: "solstice".to_owned(), ..PingRequest::default() };
    client.ping(request).await?;
    Ok(())
}

/// Makes a runner by a registration token.
///
/// # Errors
/// The server does not answer, or refuses the token or the name.
pub async fn register(
    url: &Url,
    trust: &Trust,
    registration: &Registration,
) -> Result<Registered, RpcError> {
    let client = RunnerServiceClient::new(Transport::new(trust)?, config(url, QUESTION)?);
    let request = RegisterRequest {
        name: registration.name.clone(),
        token: registration.token.expose().to_owned(),
        version: RUNNER_VERSION.to_owned(),
        labels: registration.labels.clone(),
        ephemeral: registration.ephemeral,
        ..RegisterRequest::default()
    };
    let response = client.register(request).await?.into_owned();
    let runner = response.runner.as_option().cloned().unwrap_or_default();
    if runner.uuid.is_empty() || runner.token.is_empty() {
        return Err(RpcError::strange("the server registered the runner and gave no identity"));
    }
    let token = Secret::new(runner.token);
    Ok(Registered { id: runner.id, uuid: runner.uuid, token, name: runner.name })
}

/// Declares labels for an identity, which also says whether the server accepts it.
///
/// # Errors
/// The server does not answer, or does not know the identity.
pub async fn declare(connection: &Connection, labels: &[String]) -> Result<Declared, RpcError> {
    Client::new(connection)?.declare(labels).await
}

/// The calls of one runner.
#[derive(Clone)]
pub struct Client {
    rpc: std::sync::Arc<RunnerServiceClient<Transport>>,
    fetch_timeout: Duration,
}

impl Client {
    /// # Errors
    /// The settings of TLS, or the identity, cannot be used.
    pub fn new(connection: &Connection) -> Result<Self, RpcError> {
        let header = |what: &str, text: &str| {
            let mut value = HeaderValue::from_str(text)
                .map_err(|_| RpcError::strange(format!("the runner's {what} is not plain text")))?;
            value.set_sensitive(true);
            Ok::<_, RpcError>(value)
        };
        let mut headers = http::HeaderMap::new();
        headers.insert("x-runner-uuid", header("uuid", &connection.uuid)?);
        headers.insert("x-runner-token", header("token", connection.token.expose())?);
        let config = config(&connection.url, CALL)?.with_default_headers(headers);
        let transport = Transport::new(&connection.trust)?;
        let rpc = std::sync::Arc::new(RunnerServiceClient::new(transport, config));
        Ok(Self { rpc, fetch_timeout: connection.fetch_timeout })
    }

    /// Replaces the labels and the version that the server has of this runner
    /// (forgejo-runner-protocol 3.6).
    ///
    /// # Errors
    /// As every call: see [`RpcError`].
    pub async fn declare(&self, labels: &[String]) -> Result<Declared, RpcError> {
        let request = DeclareRequest {
            version: RUNNER_VERSION.to_owned(),
            labels: labels.to_vec(),
            ..DeclareRequest::default()
        };
        let response = self.rpc.declare(request).await?.into_owned();
        let runner = response.runner.as_option().cloned().unwrap_or_default();
        Ok(Declared { name: runner.name, ephemeral: runner.ephemeral })
    }

    /// Asks for tasks (forgejo-runner-protocol 4).
    ///
    /// # Errors
    /// See [`RpcError`]; the server may have assigned tasks all the same, which the same key brings.
    pub async fn fetch(
        &self,
        tasks_version: i64,
        capacity: u32,
        key: &str,
    ) -> Result<FetchTaskResponse, RpcError> {
        let request = FetchTaskRequest {
            tasks_version,
            task_capacity: Some(i64::from(capacity)),
            ..FetchTaskRequest::default()
        };
        let call = self.rpc.fetch_task_with_options(request, self.fetch_options(key)?);
        Ok(call.await?.into_owned())
    }

    /// Asks for the job attempt of a handle (forgejo-runner-protocol 4.5).
    ///
    /// # Errors
    /// See [`Client::fetch`]; [`RpcErrorKind::Unimplemented`] by servers before Forgejo 15.
    pub async fn fetch_single(
        &self,
        handle: &str,
        key: &str,
    ) -> Result<FetchSingleTaskResponse, RpcError> {
        let request = FetchSingleTaskRequest {
            handle: Some(handle.to_owned()),
            ..FetchSingleTaskRequest::default()
        };
        let call = self.rpc.fetch_single_task_with_options(request, self.fetch_options(key)?);
        Ok(call.await?.into_owned())
    }

    fn fetch_options(&self, key: &str) -> Result<CallOptions, RpcError> {
        let options = CallOptions::default().with_timeout(self.fetch_timeout);
        options
            .try_with_header("x-runner-request-key", key)
            .map_err(|_| RpcError::strange("a request key is not plain text"))
    }

    /// Reports a task's state; gives the server's view and the outputs that it has.
    ///
    /// # Errors
    /// See [`RpcError`].
    pub async fn update_task(
        &self,
        request: UpdateTaskRequest,
    ) -> Result<UpdateTaskResponse, RpcError> {
        Ok(self.rpc.update_task(request).await?.into_owned())
    }

    /// Sends rows of a task's log; gives how many the server has now.
    ///
    /// # Errors
    /// See [`RpcError`]; [`RpcErrorKind::AlreadyExists`] when the log was closed.
    pub async fn update_log(&self, request: UpdateLogRequest) -> Result<i64, RpcError> {
        Ok(self.rpc.update_log(request).await?.into_owned().ack_index)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("fetch_timeout", &self.fetch_timeout).finish_non_exhaustive()
    }
}

/// What all calls to an instance share: the base, and limits on what is read.
fn config(url: &Url, timeout: Duration) -> Result<ClientConfig, RpcError> {
    let base = format!("{}/api/actions", url.as_str().trim_end_matches('/'));
    let base = base.parse().map_err(|_| RpcError::strange(format!("{base} is not an URL")))?;
    Ok(ClientConfig::new(base)
        .proto()
        .with_default_timeout(timeout)
        .with_default_max_message_size(ANSWER_BYTES))
}
