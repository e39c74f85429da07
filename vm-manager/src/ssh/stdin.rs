//! The input of a command.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::connection::Lease;

/// The standard input of a command, as a byte stream.
///
/// `shutdown` sends the end of the input, and so does dropping it. Writing waits while the guest
/// takes nothing, and fails with `BrokenPipe` once the command has ended or the connection is gone.
/// A write that was cancelled half-way may have been sent: do not repeat it.
pub struct Stdin {
    write: Pin<Box<dyn AsyncWrite + Send>>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    lease: Arc<Lease>,
    finished: bool,
}

impl Stdin {
    pub(super) fn new(lease: Arc<Lease>) -> Self {
        Self {
            write: Box::pin(lease.write.make_writer()),
            closed: Box::pin(lease.closed.clone().cancelled_owned()),
            lease,
            finished: false,
        }
    }

    /// Unless the other side takes it first, the end of the channel ends a write: the library would
    /// wait for room in the guest's window forever.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.closed.as_mut().poll(cx).map(|()| {
            io::Error::new(io::ErrorKind::BrokenPipe, "the command in the guest takes no input")
        })
    }
}

impl AsyncWrite for Stdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if let Poll::Ready(error) = self.poll_broken(cx) {
            return Poll::Ready(Err(error));
        }
        self.write.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.finished || self.poll_broken(cx).is_ready() {
            self.finished = true;
            return Poll::Ready(Ok(()));
        }
        let shutdown = self.write.as_mut().poll_shutdown(cx);
        self.finished |= shutdown.is_ready();
        shutdown
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        if self.finished || self.lease.closed.is_cancelled() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let lease = Arc::clone(&self.lease);
        // A drop cannot wait for room in the queue. Where the message cannot be sent the connection
        // is gone, and the command's input with it.
        runtime.spawn(async move { drop(lease.write.eof().await) });
    }
}

impl fmt::Debug for Stdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdin").field("finished", &self.finished).finish_non_exhaustive()
    }
}
