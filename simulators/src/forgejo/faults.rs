//! What goes wrong on purpose (forgejo-runner-protocol 11.3).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use connectrpc::ErrorCode;
use tokio::sync::watch;

use super::calls::Rpc;
use super::server::Shared;
use super::state::State;

/// What goes wrong with a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection ends before the server has read what the call says.
    DropRequest,
    /// The server does what the call says; then the connection ends without an answer.
    DropResponse,
    /// The connection ends in the middle of the answer.
    ResetInBody,
    /// The answer is compressed, if the client offered that, and cut in the middle. Its length fits.
    TruncateBody,
    /// It takes this long until the server sees the call.
    Delay(Duration),
    /// The server does what the call says, and answers after this time.
    SlowAnswer(Duration),
    /// The server does what the call says, and answers when the test says so.
    Hold(Hold),
    /// A proxy answers with this status and a page.
    Page(u16),
    /// The server does nothing and answers this error of the protocol: JSON, whatever the request was.
    Error(ErrorCode),
    /// `UpdateLog`: the server keeps this many of the new rows.
    AckFewer(usize),
    /// `UpdateLog`: the server says that it has this many rows less than it has.
    AckBack(i64),
    /// `UpdateLog`: before it sees the call the server loses the log of a task that is not closed.
    LoseLog,
    /// `UpdateTask`: where the answer would be CANCELLED it is FAILURE, as after the reaper. Answers
    /// before that one do not use it up.
    FailureForCancelled,
    /// The server no longer knows the runner.
    ForgetRunner,
}

/// Holds an answer back until a test lets it go. Its clones are one.
#[derive(Clone, Debug)]
pub struct Hold {
    reached: Arc<watch::Sender<bool>>,
    released: Arc<watch::Sender<bool>>,
}

impl Default for Hold {
    fn default() -> Self {
        Self::new()
    }
}

impl Hold {
    /// A hold that nobody has reached.
    #[must_use]
    pub fn new() -> Self {
        Self {
            reached: Arc::new(watch::Sender::new(false)),
            released: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Waits until a call has been processed and its answer is held back.
    pub async fn reached(&self) {
        let mut reached = self.reached.subscribe();
        reached.wait_for(|reached| *reached).await.map(drop).expect("its sender is here");
    }

    /// Lets the answer go, also if it comes later.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    pub(super) async fn pass(&self) {
        self.reached.send_replace(true);
        let mut released = self.released.subscribe();
        released.wait_for(|released| *released).await.map(drop).expect("its sender is here");
    }
}

/// The faults that are still to come.
#[derive(Debug, Default)]
pub(super) struct Faults {
    next: HashMap<Rpc, VecDeque<Fault>>,
    always: HashMap<Rpc, Fault>,
    played: HashMap<Rpc, usize>,
}

/// A fault for the call at hand.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) fault: Fault,
    /// It came from the queue, where it goes back to if it did not apply.
    queued: bool,
}

impl Faults {
    /// The fault of a call that begins.
    pub(super) fn take(&mut self, rpc: Rpc) -> Option<Taken> {
        let queued = self.next.get_mut(&rpc).and_then(VecDeque::pop_front);
        let taken = match queued {
            Some(fault) => Taken { fault, queued: true },
            None => Taken { fault: self.always.get(&rpc)?.clone(), queued: false },
        };
        *self.played.entry(rpc).or_default() += 1;
        Some(taken)
    }

    /// A fault that did not apply waits for the next call.
    pub(super) fn put_back(&mut self, rpc: Rpc, taken: Taken) {
        if let Some(played) = self.played.get_mut(&rpc) {
            *played = played.saturating_sub(1);
        }
        if taken.queued {
            self.next.entry(rpc).or_default().push_front(taken.fault);
        }
    }
}

/// The faults of a server, to be set by a test: [`Forge::faults`](super::Forge::faults).
#[derive(Debug)]
pub struct FaultSwitch<'a> {
    shared: &'a Shared,
}

impl<'a> FaultSwitch<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self { shared }
    }

    /// The next call of this kind has a fault; after those that were asked for before.
    pub fn next(&self, rpc: Rpc, fault: Fault) -> &Self {
        self.times(rpc, fault, 1)
    }

    /// The next calls of this kind have a fault.
    pub fn times(&self, rpc: Rpc, fault: Fault, times: usize) -> &Self {
        let faults = std::iter::repeat_n(fault, times);
        self.state().faults.next.entry(rpc).or_default().extend(faults);
        self
    }

    /// Every call of this kind has a fault, when no other was asked for.
    pub fn always(&self, rpc: Rpc, fault: Fault) -> &Self {
        self.state().faults.always.insert(rpc, fault);
        self
    }

    /// No fault any more.
    pub fn clear(&self) {
        let faults = &mut self.state().faults;
        faults.next.clear();
        faults.always.clear();
    }

    /// How many calls of this kind had a fault.
    #[must_use]
    pub fn played(&self, rpc: Rpc) -> usize {
        self.state().faults.played.get(&rpc).copied().unwrap_or(0)
    }

    /// How many faults of this kind were asked for by [`FaultSwitch::next`] and
    /// [`FaultSwitch::times`] and are still to come.
    #[must_use]
    pub fn left(&self, rpc: Rpc) -> usize {
        self.state().faults.next.get(&rpc).map_or(0, VecDeque::len)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }
}
