//! The hint that there may be something to claim.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// A signal that is not lost while nobody waits: it ends every wait that goes on, and if there is
/// none, the next one.
#[derive(Debug)]
pub(super) struct Signal {
    raised: watch::Sender<u64>,
    seen: AtomicU64,
}

impl Signal {
    pub(super) fn new() -> Self {
        Self { raised: watch::Sender::new(0), seen: AtomicU64::new(0) }
    }

    pub(super) fn raise(&self) {
        self.raised.send_modify(|count| *count += 1);
    }

    pub(super) async fn wait(&self) {
        let seen = self.seen.load(Ordering::Acquire);
        let mut receiver = self.raised.subscribe();
        // The sender lives as long as `self`, so that the wait ends by a signal and nothing else.
        if let Ok(count) = receiver.wait_for(|count| *count != seen).await {
            self.seen.fetch_max(*count, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    /// Far longer than a signal takes.
    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_signal_ends_the_waits_of_all_or_the_next_one() {
        let signal = Signal::new();
        assert!(signal.wait().now_or_never().is_none(), "nothing was raised");

        signal.raise();
        signal.raise();
        assert!(signal.wait().now_or_never().is_some());
        assert!(signal.wait().now_or_never().is_none(), "two signals are one hint");

        let both = async { tokio::join!(signal.wait(), signal.wait(), async { signal.raise() }) };
        tokio::time::timeout(PATIENCE, both).await.unwrap();
        assert!(signal.wait().now_or_never().is_none());
    }
}
