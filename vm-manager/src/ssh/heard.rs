//! When the other side of a connection was last heard, below everything that the library does.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// The moment at which the last bytes came.
#[derive(Debug)]
pub(super) struct LastHeard {
    begun: Instant,
    /// Milliseconds since then.
    millis: AtomicU64,
}

impl LastHeard {
    pub(super) fn now() -> Self {
        Self { begun: Instant::now(), millis: AtomicU64::new(0) }
    }

    pub(super) fn when(&self) -> Instant {
        self.begun + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }

    fn hear(&self) {
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }
}

/// A stream that notes when it was last heard.
pub(super) struct Heard<S> {
    stream: S,
    last: Arc<LastHeard>,
}

impl<S> Heard<S> {
    pub(super) fn new(stream: S, last: Arc<LastHeard>) -> Self {
        Self { stream, last }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        if result.is_ok() {
            self.last.hear();
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_comes_in_counts() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let last = Arc::new(LastHeard::now());
        let begun = last.when();
        let mut ours = Heard::new(ours, Arc::clone(&last));
        tokio::time::advance(Duration::from_secs(5)).await;
        ours.write_all(b"hello").await.unwrap();
        assert_eq!(last.when(), begun);
        theirs.write_all(b"x").await.unwrap();
        ours.read_u8().await.unwrap();
        assert_eq!(last.when(), begun + Duration::from_secs(5));
    }
}
