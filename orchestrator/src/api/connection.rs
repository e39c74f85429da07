//! Serving connections so that none of them outlives the service, and none can hold it up.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How long requests that run may go on when the service stops.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// Bounds for connections of strangers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// How many at a time.
    pub(super) connections: usize,
    /// How long each may last.
    pub(super) lifetime: Duration,
}

/// Answers until `stop`, and for at most [`GRACE`] after it.
pub(super) async fn serve<L>(
    listener: L,
    router: Router,
    bounds: Option<Bounds>,
    stop: CancellationToken,
) where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let guard = Guard {
        listener,
        permits: bounds.map(|bounds| Arc::new(Semaphore::new(bounds.connections))),
        lifetime: bounds.map(|bounds| bounds.lifetime),
        stop: stop.clone(),
    };
    let served = axum::serve(guard, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the operators' API ended");
    }
}

/// A listener whose connections are cut.
struct Guard<L> {
    listener: L,
    permits: Option<Arc<Semaphore>>,
    lifetime: Option<Duration>,
    stop: CancellationToken,
}

impl<L: Listener> Listener for Guard<L> {
    type Io = Guarded<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let permit = match &self.permits {
            // Nobody closes it.
            Some(permits) => Arc::clone(permits).acquire_owned().await.ok(),
            None => None,
        };
        let (stream, address) = self.listener.accept().await;
        let (stop, lifetime) = (self.stop.clone(), self.lifetime);
        let end = async move {
            let stopped = async {
                stop.cancelled().await;
                tokio::time::sleep(GRACE).await;
            };
            match lifetime {
                Some(lifetime) => drop(tokio::time::timeout(lifetime, stopped).await),
                None => stopped.await,
            }
        };
        (Guarded { stream, end: Some(Box::pin(end)), _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when its time is over, also while its peer neither reads nor writes.
struct Guarded<T> {
    stream: T,
    /// Absent once it has come.
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<T> Guarded<T> {
    /// Fails when the time is over, else sees to it that the task is woken then.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(end) = &mut self.end {
            match end.as_mut().poll(context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(()) => self.end = None,
            }
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
