//! The job of the guest program: its events, and who gets them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::JobId;
use common::guest::GuestEvent;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::calls::Calls;
use crate::spool::Spool;

/// A job while the guest program has it.
#[derive(Debug)]
pub(crate) struct Job {
    /// Its id.
    pub(crate) id: JobId,
    /// Cancelled when the host wants the job to end.
    pub(crate) cancel: CancellationToken,
    /// Cancelled when the guest program was killed.
    pub(crate) killed: CancellationToken,
    /// Its calls to the host.
    pub(crate) calls: Calls,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    spool: Spool,
    /// How many hosts have attached: the last one holds the conversation.
    holder: u64,
    finished: bool,
}

/// The place of a host in the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    /// Which host.
    holder: u64,
    /// The first event that it gets.
    pub(crate) next: u64,
}

impl Job {
    pub(crate) fn new(id: JobId) -> Arc<Self> {
        Arc::new(Self {
            id,
            cancel: CancellationToken::new(),
            killed: CancellationToken::new(),
            calls: Calls::default(),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        })
    }

    /// Waits until the spool takes another event.
    pub(crate) async fn room(&self) {
        self.until(|state| state.spool.has_room()).await;
    }

    /// Takes an event in. Whoever wants to wait for room asks for it before.
    pub(crate) fn push(&self, event: GuestEvent) {
        self.change(|state| {
            state.finished |= matches!(event, GuestEvent::Finished(_));
            state.spool.push(event);
        });
    }

    /// Kills the guest program: nothing happens in the job any more.
    pub(crate) fn kill(&self) {
        self.killed.cancel();
        self.changed.send_replace(());
    }

    /// Whether there is nobody to attach to any more.
    pub(crate) fn is_over(&self) -> bool {
        self.killed.is_cancelled() || self.state().is_done()
    }

    /// Gives the conversation to a new host, or says why it does not get it.
    pub(crate) fn attach(&self, from: u64) -> Result<Hold, String> {
        let mut state = self.state();
        let next = from.max(state.spool.first());
        if next > state.spool.next() {
            let made = state.spool.next() - 1;
            return Err(format!("event {from} is wanted, but only {made} were made"));
        }
        state.holder += 1;
        let hold = Hold { holder: state.holder, next };
        drop(state);
        self.changed.send_replace(());
        Ok(hold)
    }

    /// Waits until a host has nothing more to do here.
    pub(crate) async fn until_let_go(&self, hold: Hold) {
        let over = |state: &State| state.holder != hold.holder || state.is_done();
        tokio::select! {
            () = self.killed.cancelled() => {}
            () = self.until(over) => {}
        }
    }

    /// Forgets what the host has.
    pub(crate) fn acknowledge(&self, seq: u64) {
        self.change(|state| state.spool.acknowledge(seq));
    }

    /// Waits until the host has every event so far, as the real guest program does before the first
    /// process of a job.
    pub(crate) async fn until_heard(&self) {
        self.until(|state| state.spool.is_empty()).await;
    }

    /// Waits for an event from `from` on, and gives the frames from there.
    pub(crate) async fn frames(&self, from: u64, enough: usize) -> (Vec<u8>, u64) {
        self.until(|state| state.spool.next() > from).await;
        self.state().spool.read(from, enough)
    }

    async fn until(&self, holds: impl Fn(&State) -> bool) {
        let mut changed = self.changed.subscribe();
        while !holds(&self.state()) {
            // The sender lives as long as this value.
            drop(changed.changed().await);
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.send_replace(());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the host has the last event.
    fn is_done(&self) -> bool {
        self.finished && self.spool.is_empty()
    }
}
