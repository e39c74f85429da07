//! The API over a real unix socket, with a backend that remembers what it was asked.

mod backend;
mod events;
mod http;
mod observability;
mod requests;
mod socket;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{UnixServer, bind_unix};
// What the backend of the tests needs, under the names that it has in the other crate's tests.
use crate::{api, store};
use backend::TestBackend;

/// How long anything in a test may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A service that answers in a directory of its own.
struct Service {
    directory: tempfile::TempDir,
    backend: Arc<TestBackend>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

fn service() -> Service {
    let directory = tempfile::tempdir().unwrap();
    let socket = bind_unix(&directory.path().join("api.sock")).unwrap();
    serve(directory, socket, TestBackend::new())
}

fn serve(directory: tempfile::TempDir, socket: UnixServer, backend: TestBackend) -> Service {
    let backend = Arc::new(backend);
    let stop = CancellationToken::new();
    let serving = tokio::spawn(socket.serve(Arc::clone(&backend), stop.clone()));
    Service { directory, backend, stop, serving }
}

impl Service {
    fn socket(&self) -> PathBuf {
        self.directory.path().join("api.sock")
    }

    /// Stops it and waits until it has ended.
    async fn stop(self) {
        self.stop.cancel();
        within(self.serving).await.unwrap();
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}
