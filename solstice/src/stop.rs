//! Ctrl-C and its relatives.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How far the user wants to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    /// The first signal: end what runs in an orderly way, start nothing more.
    pub(crate) cancel: CancellationToken,
    /// The second: end it at once.
    pub(crate) destroy: CancellationToken,
    /// The third, for who has something to put in order after the second.
    pub(crate) abandon: CancellationToken,
}

impl Stop {
    /// Listens to the signals by which a user, a service manager or a closed terminal ends a
    /// program.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub(crate) fn on_signals() -> io::Result<Self> {
        let stop = Self::default();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let tokens = stop.clone();
        tokio::spawn(async move {
            next(&mut interrupt, &mut terminate, &mut hang_up).await;
            tokens.cancel.cancel();
            next(&mut interrupt, &mut terminate, &mut hang_up).await;
            tokens.destroy.cancel();
            next(&mut interrupt, &mut terminate, &mut hang_up).await;
            tokens.abandon.cancel();
        });
        Ok(stop)
    }
}

async fn next(a: &mut Signal, b: &mut Signal, c: &mut Signal) {
    tokio::select! {
        _ = a.recv() => {}
        _ = b.recv() => {}
        _ = c.recv() => {}
    }
}
