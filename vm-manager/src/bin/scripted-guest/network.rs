//! The way between the host's end of the forwarding and the guest's SSH server, which can be shut
//! for a time and cut.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// All connections of the guest.
#[derive(Debug)]
pub(crate) struct Network {
    /// For how many reasons nothing passes.
    shut: watch::Sender<u32>,
    lines: Mutex<Vec<Weak<Line>>>,
    /// Whether every further connection breaks as well.
    unplugged: AtomicBool,
}

impl Network {
    pub(crate) fn new() -> Self {
        Self {
            shut: watch::Sender::new(0),
            lines: Mutex::default(),
            unplugged: AtomicBool::new(false),
        }
    }

    /// From now on nothing passes.
    pub(crate) fn shut(&self) {
        self.shut.send_modify(|reasons| *reasons += 1);
    }

    /// Takes one [`Network::shut`] back.
    pub(crate) fn open(&self) {
        self.shut.send_modify(|reasons| *reasons = reasons.saturating_sub(1));
        self.wake(|_| {});
    }

    /// Waits until something can pass.
    pub(crate) async fn opened(&self) {
        // The sender lives as long as this value.
        drop(self.shut.subscribe().wait_for(|reasons| *reasons == 0).await);
    }

    /// Breaks every connection.
    pub(crate) fn cut(&self) {
        self.wake(|state| state.cut = true);
    }

    /// Breaks every connection, those that are still to come as well.
    pub(crate) fn unplug(&self) {
        self.unplugged.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// Puts a new connection on the network.
    pub(crate) fn connect<S>(self: &Arc<Self>, stream: S) -> Cable<S> {
        let line = Arc::new(Line::default());
        lock(&line.0).cut = self.unplugged.load(Ordering::SeqCst);
        let mut lines = lock(&self.lines);
        lines.retain(|line| line.strong_count() > 0);
        lines.push(Arc::downgrade(&line));
        Cable { stream, line, network: Arc::clone(self) }
    }

    fn wake(&self, change: impl Fn(&mut LineState)) {
        for line in lock(&self.lines).iter().filter_map(Weak::upgrade) {
            let mut state = lock(&line.0);
            change(&mut state);
            state.wakers.iter_mut().filter_map(Option::take).for_each(Waker::wake);
        }
    }
}

#[derive(Debug, Default)]
struct Line(Mutex<LineState>);

#[derive(Debug, Default)]
struct LineState {
    cut: bool,
    /// Who waits to read and who waits to write.
    wakers: [Option<Waker>; 2],
}

/// One connection.
pub(crate) struct Cable<S> {
    stream: S,
    line: Arc<Line>,
    network: Arc<Network>,
}

#[derive(Clone, Copy)]
enum Direction {
    In,
    Out,
}

impl<S> Cable<S> {
    /// Whether bytes may pass now. Whoever asks is woken when that changes.
    fn pass(&self, direction: Direction, context: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.line.0);
        if state.cut {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let waker = &mut state.wakers[direction as usize];
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        if *self.network.shut.borrow() == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.pass(Direction::In, context))?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cable<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.pass(Direction::Out, context))?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.pass(Direction::Out, context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.pass(Direction::Out, context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn nothing_passes_while_it_is_shut() {
        let network = Arc::new(Network::new());
        let (mut host, guest) = tokio::io::duplex(100);
        let mut guest = network.connect(guest);
        host.write_all(b"a").await.unwrap();
        network.shut();
        network.shut();
        let mut byte = [0];
        let mut reading = by_hand(guest.read_exact(&mut byte));
        assert!(reading.poll().is_pending());
        network.open();
        assert!(reading.poll().is_pending());
        network.open();
        assert!(reading.woken() && reading.poll().is_ready());
        drop(reading);
        network.opened().await;

        let mut reading = by_hand(guest.read_exact(&mut byte));
        assert!(reading.poll().is_pending());
        network.cut();
        let Poll::Ready(Err(error)) = reading.poll() else { panic!("it was not cut") };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        drop(reading);
        let mut next = network.connect(host);
        next.write_all(b"new").await.unwrap();
    }

    /// A future that is polled by hand.
    fn by_hand<F: Future>(future: F) -> ByHand<F> {
        let flag = Arc::new(Flag::default());
        ByHand { future: Box::pin(future), flag }
    }

    #[derive(Default)]
    struct Flag(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }

    struct ByHand<F> {
        future: Pin<Box<F>>,
        flag: Arc<Flag>,
    }

    impl<F: Future> ByHand<F> {
        fn poll(&mut self) -> Poll<F::Output> {
            let waker = Waker::from(Arc::clone(&self.flag));
            self.future.as_mut().poll(&mut Context::from_waker(&waker))
        }

        fn woken(&self) -> bool {
            self.flag.0.load(std::sync::atomic::Ordering::SeqCst)
        }
    }
}
