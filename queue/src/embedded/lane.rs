//! What is in memory of one lane: the messages that come next, and those that are out.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use common::ids::HostId;
use common::limits::MIB;
use tokio::sync::Notify;

use super::lock;
use crate::Address;

/// The messages of a lane in memory that nobody has taken. Above it they stay on disk until they
/// are next.
pub(super) const AHEAD_BYTES: usize = 4 * MIB as usize;
/// So many of them.
pub(super) const AHEAD_MESSAGES: usize = 256;

/// Whose messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// For all orchestrators.
    Jobs,
    /// For all orchestrators.
    Release,
    /// For one forge runner.
    Events(Address),
    /// For one orchestrator.
    Host(HostId),
}

/// Messages in order, and who takes them.
#[derive(Debug)]
pub(super) struct Lane {
    /// Its row.
    pub(super) id: i64,
    pub(super) kind: Kind,
    /// Something may have become possible for a receiver.
    pub(super) changed: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Messages that can be taken, those that came back among them.
    ready: BTreeMap<i64, Arc<[u8]>>,
    ready_bytes: usize,
    /// Messages that were taken and are not acknowledged.
    out: HashMap<i64, Out>,
    /// How many each receiver has, in the order in which they came.
    receivers: BTreeMap<u64, usize>,
    next_receiver: u64,
    /// Messages up to this one are in memory or gone; those above it are on disk only.
    cursor: i64,
    /// The last message that was written.
    last: i64,
    /// The writer has been asked for more.
    reading: bool,
}

#[derive(Debug)]
struct Out {
    receiver: u64,
    bytes: Arc<[u8]>,
}

/// What a receiver can do now.
#[derive(Debug)]
pub(super) enum Next {
    /// Take this message, which is now out.
    Message(i64, Arc<[u8]>),
    /// Ask the writer for more.
    Read,
    /// Wait for a change.
    Wait,
}

impl Kind {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Jobs => "jobs".to_owned(),
            Self::Release => "release".to_owned(),
            Self::Events(address) => format!("events.{address}"),
            Self::Host(host) => format!("host.{host}"),
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        match name.split_once('.') {
            None if name == "jobs" => Some(Self::Jobs),
            None if name == "release" => Some(Self::Release),
            Some(("events", address)) => address.parse().ok().map(Self::Events),
            Some(("host", host)) => host.parse().ok().map(Self::Host),
            _ => None,
        }
    }

    /// Whether only the receiver that came first takes messages; the others wait until it is gone.
    fn is_exclusive(&self) -> bool {
        matches!(self, Self::Events(_) | Self::Host(_))
    }
}

impl Lane {
    /// A lane whose messages up to `last` are on disk.
    pub(super) fn new(id: i64, kind: Kind, last: i64) -> Arc<Self> {
        let state = State { last, ..State::default() };
        Arc::new(Self { id, kind, changed: Notify::new(), state: Mutex::new(state) })
    }

    /// A number for a new receiver.
    pub(super) fn join(&self) -> u64 {
        let state = &mut *lock(&self.state);
        let receiver = state.next_receiver;
        state.next_receiver += 1;
        state.receivers.insert(receiver, 0);
        receiver
    }

    /// A receiver is gone: what it had comes again.
    pub(super) fn leave(&self, receiver: u64) {
        let state = &mut *lock(&self.state);
        state.receivers.remove(&receiver);
        let lost: Vec<_> = state.out.extract_if(|_, out| out.receiver == receiver).collect();
        for (id, out) in lost {
            state.make_ready(id, out.bytes);
        }
        self.changed.notify_waiters();
    }

    pub(super) fn next(&self, receiver: u64, prefetch: u16) -> Next {
        let state = &mut *lock(&self.state);
        let first = state.receivers.keys().next() == Some(&receiver);
        let Some(taken) = state.receivers.get_mut(&receiver) else { return Next::Wait };
        if *taken >= usize::from(prefetch) || (self.kind.is_exclusive() && !first) {
            return Next::Wait;
        }
        let Some((id, bytes)) = state.ready.pop_first() else {
            let more = state.cursor < state.last && !state.reading;
            return if more { Next::Read } else { Next::Wait };
        };
        *taken += 1;
        state.ready_bytes -= bytes.len();
        state.out.insert(id, Out { receiver, bytes: Arc::clone(&bytes) });
        Next::Message(id, bytes)
    }

    /// Whether the caller shall ask the writer for more; nobody else does until it has answered.
    pub(super) fn start_reading(&self) -> bool {
        let state = &mut *lock(&self.state);
        let needed = state.ready.is_empty() && state.cursor < state.last && !state.reading;
        state.reading |= needed;
        needed
    }

    /// A message is done with: it does not come again. `None` if its receiver is gone.
    pub(super) fn finish(&self, id: i64, receiver: u64) -> Option<Arc<[u8]>> {
        let out = lock(&self.state).withdraw(id, receiver);
        self.changed.notify_waiters();
        out
    }

    /// A message that a receiver has.
    pub(super) fn look(&self, id: i64, receiver: u64) -> Option<Arc<[u8]>> {
        let state = lock(&self.state);
        let out = state.out.get(&id).filter(|out| out.receiver == receiver)?;
        Some(Arc::clone(&out.bytes))
    }

    /// A message comes again, unless its receiver is gone and it does so anyway.
    pub(super) fn give_back(&self, id: i64, receiver: u64) {
        let state = &mut *lock(&self.state);
        if let Some(bytes) = state.withdraw(id, receiver) {
            state.make_ready(id, bytes);
        }
        self.changed.notify_waiters();
    }

    /// A message was written. It is kept in memory if somebody is about to take it.
    pub(super) fn written(&self, id: i64, bytes: &Arc<[u8]>) {
        let state = &mut *lock(&self.state);
        let room = state.ready_bytes < AHEAD_BYTES && state.ready.len() < AHEAD_MESSAGES;
        let caught_up = state.cursor == state.last && !state.reading;
        if caught_up && room && !state.receivers.is_empty() {
            state.make_ready(id, Arc::clone(bytes));
            state.cursor = id;
        }
        state.last = id;
        self.changed.notify_waiters();
    }

    /// Where reading goes on.
    pub(super) fn cursor(&self) -> i64 {
        lock(&self.state).cursor
    }

    /// What was asked for was read. `complete` says that there is nothing more on disk.
    pub(super) fn read(&self, messages: Vec<(i64, Arc<[u8]>)>, complete: bool) {
        let state = &mut *lock(&self.state);
        for (id, bytes) in messages {
            state.cursor = id;
            state.make_ready(id, bytes);
        }
        if complete {
            state.cursor = state.last;
        }
        state.reading = false;
        self.changed.notify_waiters();
    }
}

impl State {
    fn make_ready(&mut self, id: i64, bytes: Arc<[u8]>) {
        self.ready_bytes += bytes.len();
        self.ready.insert(id, bytes);
    }

    /// Takes back what a receiver has.
    fn withdraw(&mut self, id: i64, receiver: u64) -> Option<Arc<[u8]>> {
        self.out.get(&id).filter(|out| out.receiver == receiver)?;
        let out = self.out.remove(&id)?;
        if let Some(taken) = self.receivers.get_mut(&receiver) {
            *taken -= 1;
        }
        Some(out.bytes)
    }
}
