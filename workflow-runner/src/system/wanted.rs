//! Input of work that blocks: it ends when nobody waits for the work any more, and so does the work.

use std::io::{self, Read, Seek, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

/// Input that fails once its guard is dropped.
pub(crate) struct Wanted<R> {
    input: R,
    over: CancellationToken,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Such input, and its guard, which whoever waits for the work holds.
pub(crate) fn while_wanted<R>(input: R) -> (Wanted<R>, DropGuard) {
    let over = CancellationToken::new();
    let ended = Box::pin(over.clone().cancelled_owned());
    (Wanted { input, over: over.clone(), ended }, over.drop_guard())
}

fn unwanted() -> io::Error {
    io::Error::other("nobody waits for it any more")
}

impl<R: AsyncRead + Unpin> AsyncRead for Wanted<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(unwanted()));
        }
        Pin::new(&mut this.input).poll_read(context, buffer)
    }
}

impl<R: Read> Read for Wanted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.over.is_cancelled() {
            return Err(unwanted());
        }
        self.input.read(buffer)
    }
}

impl<R: Seek> Seek for Wanted<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.input.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn work_ends_when_nobody_waits_for_it() {
        // Nobody ever writes to it.
        let (_outside, inside) = tokio::io::duplex(1);
        let (mut input, guard) = while_wanted(inside);
        let work = tokio::spawn(async move { input.read_u8().await });
        drop(guard);
        assert_eq!(work.await.unwrap().unwrap_err().to_string(), unwanted().to_string());

        let (mut input, guard) = while_wanted(&b"ab"[..]);
        let mut byte = [0];
        Read::read_exact(&mut input, &mut byte).unwrap();
        drop(guard);
        assert!(Read::read_exact(&mut input, &mut byte).is_err());
    }
}
