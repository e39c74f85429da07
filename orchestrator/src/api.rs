//! The operators' API: HTTP over a unix socket that only the service's own user can open.
//!
//! [`Backend`] is what the API asks; the service implements it. [`UnixServer`] answers everything on
//! the socket, [`Observability`] answers `/metrics` and `/health` on an address of their own. [`wire`]
//! is what crosses: JSON, except for a JobRequest and a job's events, which are MessagePack so that
//! nothing of them is lost.
//!
//! ```text
//!  GET  /v1/jobs?state=queued,running&repository=R&label=L&most=N      [Job]
//!  POST /v1/jobs                     JobRequest as MessagePack         Submitted
//!  GET  /v1/jobs/ID                                                    JobDetail
//!  POST /v1/jobs/ID/cancel?now=true                                    Cancelled
//!  POST /v1/jobs/ID/retry                                              Submitted
//!  GET  /v1/jobs/ID/events?until=written|final&after=TRY.SEQ           frames of StreamPart
//!  GET  /v1/hosts                                                      [HostRow]
//!  POST /v1/drain                    Drain                             {}
//!  GET  /v1/labels                                                     [LabelOffer]
//!  GET  /health                                                        Health
//!  GET  /metrics                                                       text for Prometheus
//! ```
//!
//! An error is `{"error": sentence, "hint": sentence}` with a fitting status. Nothing here knows how
//! a job is run or stored.

mod backend;
mod connection;
mod error;
mod observability;
mod request;
mod routes;
mod socket;
mod stream;
pub mod wire;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use backend::{Backend, Events, Extent, Health};
pub use error::{ApiError, ApiErrorKind};
pub use observability::Observability;
pub use socket::UnixServer;

/// Makes the socket of a service; see [`UnixServer::bind`].
///
/// # Errors
/// The socket cannot be made, or another service has it.
pub fn bind_unix(path: &Path) -> io::Result<UnixServer> {
    UnixServer::bind(path)
}

/// Answers on a socket until `stop`, then removes it.
pub async fn serve_unix<B: Backend>(socket: UnixServer, backend: Arc<B>, stop: CancellationToken) {
    socket.serve(backend, stop).await;
}

/// Answers `/metrics` and `/health` on this address until `stop`, in a task of its own; see
/// [`Observability`] for the two steps of it. Returns the address with the port that the system chose
/// where it was 0.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve_observability<B: Backend>(
    backend: Arc<B>,
    address: SocketAddr,
    stop: CancellationToken,
) -> io::Result<SocketAddr> {
    let observability = Observability::bind(address).await?;
    let address = observability.address();
    tokio::spawn(observability.serve(backend, stop));
    Ok(address)
}

#[cfg(test)]
mod tests;
