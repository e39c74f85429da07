//! `/metrics` and `/health` on an address of their own, for whoever watches the service.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Backend;
use super::connection::{Bounds, serve};
use super::routes::{self, Api};

/// Every user of the host can reach a loopback address, so connections have bounds.
const BOUNDS: Bounds = Bounds { connections: 32, lifetime: Duration::from_secs(10) };

/// An address that is bound.
#[derive(Debug)]
pub struct Observability {
    listener: TcpListener,
    address: SocketAddr,
}

impl Observability {
    /// Binds an address; with port 0 the system chooses one.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        })?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address with its port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`.
    pub async fn serve<B: Backend>(self, backend: Arc<B>, stop: CancellationToken) {
        let router = routes::observability(Api { backend, stop: stop.clone() });
        serve(self.listener, router, Some(BOUNDS), stop).await;
    }
}
