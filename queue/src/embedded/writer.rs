//! The one task that uses the file.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use common::limits::MIB;
use common::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use super::database::{DEAD_BYTES, Database};
use super::lane::{Kind, Lane};
use super::{Lanes, Limits, Token};
use crate::{DeadLetter, QueueError};

/// Calls that are written in one transaction at most.
const GROUP_OPS: usize = 1024;

/// The bytes of the messages that are written in one transaction; the last of them may go over.
const GROUP_BYTES: usize = 8 * MIB as usize;

/// How long acknowledgements wait for something else to be written with. Nobody waits for them.
const ALONE: Duration = Duration::from_millis(50);

/// How long the writer waits before it tries again what the file did not take.
const RETRY: Duration = Duration::from_secs(1);

type Done<T> = oneshot::Sender<Result<T, QueueError>>;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Op {
    /// Puts a message into each of these lanes.
    Publish { lanes: Vec<Arc<Lane>>, bytes: Arc<[u8]>, done: Done<()> },
    /// Finds a lane, or makes it.
    Declare { kind: Kind, done: Done<Arc<Lane>> },
    /// Removes a message.
    Acknowledge { lane: i64, id: i64 },
    /// Moves a message to the dead letters.
    Reject { token: Token, reason: String, done: Done<()> },
    /// Reads what comes next in a lane.
    Read { lane: Arc<Lane> },
    /// Reads the latest dead letters.
    DeadLetters { most: usize, done: Done<Vec<DeadLetter>> },
    /// Writes what waits and closes the file.
    Close { done: oneshot::Sender<()> },
}

#[derive(Debug)]
pub(super) struct Writer {
    database: Database,
    limits: Limits,
    lanes: Lanes,
    /// What is on disk of each lane, by its row.
    held: HashMap<i64, Held>,
    next_message: i64,
    /// Acknowledged, and still on disk.
    acknowledged: Vec<(i64, i64)>,
}

/// The messages of one lane that are on disk.
#[derive(Debug, Default)]
struct Held {
    /// Their size and time.
    messages: BTreeMap<i64, (u64, Timestamp)>,
    bytes: u64,
}

/// What one transaction does, and who is told.
#[derive(Default)]
struct Group {
    publish: Vec<Publish>,
    /// New ones only.
    declare: Vec<(Kind, Vec<Done<Arc<Lane>>>)>,
    bury: Vec<(Token, DeadLetter, Done<()>)>,
}

struct Publish {
    /// The lanes that have room, with the message's place in each.
    places: Vec<(Arc<Lane>, i64)>,
    bytes: Arc<[u8]>,
    done: Done<()>,
}

impl Writer {
    /// Reads what an earlier process left.
    pub(super) async fn load(
        mut database: Database,
        limits: Limits,
        lanes: Lanes,
    ) -> Result<Self, QueueError> {
        database.shrink().await?;
        let mut held: HashMap<i64, Held> = HashMap::new();
        let mut next_message = 1;
        for message in database.waiting().await? {
            next_message = message.id + 1;
            let held = held.entry(message.lane).or_default();
            held.add(message.id, message.bytes, message.time);
        }
        for (row, name) in database.lanes().await? {
            let unknown = || database.error(&format_args!("there is a lane {name:?}"));
            let kind = Kind::parse(&name).ok_or_else(unknown)?;
            let last = held.entry(row).or_default().last();
            lanes.insert(&Lane::new(row, kind, last));
        }
        Ok(Self { database, limits, lanes, held, next_message, acknowledged: Vec::new() })
    }

    /// Works until it is closed, or nobody is left who could ask.
    pub(super) async fn run(mut self, mut ops: mpsc::Receiver<Op>) {
        let mut closing = None;
        while let Some(waiting) = self.collect(&mut ops).await {
            let mut group = Group::default();
            let mut reads = Vec::new();
            for op in waiting {
                match op {
                    Op::Publish { lanes, bytes, done } => {
                        self.place(&mut group, lanes, bytes, done);
                    }
                    Op::Declare { kind, done } => self.declare(&mut group, kind, done),
                    Op::Acknowledge { lane, id } => self.acknowledged.push((lane, id)),
                    Op::Reject { token, reason, done } => bury(&mut group, token, reason, done),
                    Op::Close { done } => {
                        // Whoever comes from now on is told that it is closed.
                        ops.close();
                        closing = Some(done);
                    }
                    read => reads.push(read),
                }
            }
            self.write(group).await;
            for read in reads {
                self.read(read).await;
            }
        }
        self.database.close().await;
        if let Some(done) = closing {
            // Whoever closed may be gone.
            done.send(()).ok();
        }
    }

    /// What is to be done next; `None` when there is nobody left and nothing to write.
    async fn collect(&self, ops: &mut mpsc::Receiver<Op>) -> Option<Vec<Op>> {
        let mut group = Vec::new();
        if self.acknowledged.is_empty() {
            group.push(ops.recv().await?);
        } else if let Ok(op) = timeout_at(Instant::now() + RETRY, ops.recv()).await {
            group.push(op?);
        }
        let alone = Instant::now() + ALONE;
        let mut bytes = 0;
        let mut urgent = false;
        loop {
            if let Some(op) = group.last() {
                urgent |= !matches!(op, Op::Acknowledge { .. });
                bytes += op.bytes();
            }
            if group.len() >= GROUP_OPS || bytes >= GROUP_BYTES {
                return Some(group);
            }
            let next = if urgent {
                ops.try_recv().ok()
            } else {
                timeout_at(alone, ops.recv()).await.ok().flatten()
            };
            match next {
                Some(op) => group.push(op),
                None => return Some(group),
            }
        }
    }

    /// Gives a message its places, or tells its sender that there is none.
    fn place(
        &mut self,
        group: &mut Group,
        lanes: Vec<Arc<Lane>>,
        bytes: Arc<[u8]>,
        done: Done<()>,
    ) {
        let now = Timestamp::now();
        let size = bytes.len() as u64;
        let mut places = Vec::with_capacity(lanes.len());
        let mut full = None;
        for lane in lanes {
            let held = self.held.entry(lane.id).or_default();
            match held.check(&lane.kind, size, now, &self.limits) {
                Ok(()) => {
                    held.add(self.next_message, size, now);
                    places.push((lane, self.next_message));
                    self.next_message += 1;
                }
                Err(reason) => full = Some(reason),
            }
        }
        match full {
            // Where several hosts are told something, one that is away must not keep it from the
            // others.
            Some(reason) if places.is_empty() => {
                drop(done.send(Err(QueueError::Unavailable { reason })));
            }
            _ => group.publish.push(Publish { places, bytes, done }),
        }
    }

    fn declare(&self, group: &mut Group, kind: Kind, done: Done<Arc<Lane>>) {
        if let Some(lane) = self.lanes.get(&kind.name()) {
            drop(done.send(Ok(lane)));
        } else if let Some((_, waiting)) = group.declare.iter_mut().find(|(new, _)| *new == kind) {
            waiting.push(done);
        } else {
            group.declare.push((kind, vec![done]));
        }
    }

    /// Writes a group, and tells everybody.
    async fn write(&mut self, group: Group) {
        if group.is_empty() && self.acknowledged.is_empty() {
            return;
        }
        let written = match self.transaction(&group).await {
            Ok(lanes) => self.database.commit().await.map(|()| lanes),
            Err(error) => Err(error),
        };
        match written {
            Ok(rows) => self.written(group, &rows),
            Err(error) => {
                self.database.roll_back().await;
                self.failed(group, &error);
            }
        }
    }

    /// Everything but the commit. Gives the rows of the new lanes.
    async fn transaction(&mut self, group: &Group) -> Result<Vec<i64>, QueueError> {
        let now = Timestamp::now();
        self.database.begin().await?;
        let mut rows = Vec::with_capacity(group.declare.len());
        for (kind, _) in &group.declare {
            rows.push(self.database.add_lane(&kind.name()).await?);
        }
        for Publish { places, bytes, .. } in &group.publish {
            for (lane, id) in places {
                self.database.insert(lane.id, *id, now, bytes).await?;
            }
        }
        for (_, letter, _) in &group.bury {
            self.database.bury(letter).await?;
        }
        let buried = group.bury.iter().map(|(token, ..)| token.id());
        let acknowledged = self.acknowledged.iter().map(|(_, id)| *id);
        self.database.remove(acknowledged.chain(buried)).await?;
        Ok(rows)
    }

    fn written(&mut self, group: Group, rows: &[i64]) {
        for (lane, id) in self.acknowledged.drain(..) {
            self.held.entry(lane).or_default().remove(id);
        }
        for (token, _, done) in group.bury {
            self.held.entry(token.lane().id).or_default().remove(token.id());
            token.finish();
            drop(done.send(Ok(())));
        }
        for ((kind, waiting), row) in group.declare.into_iter().zip(rows) {
            let lane = Lane::new(*row, kind, 0);
            self.lanes.insert(&lane);
            for done in waiting {
                drop(done.send(Ok(Arc::clone(&lane))));
            }
        }
        for Publish { places, bytes, done } in group.publish {
            for (lane, id) in places {
                lane.written(id, &bytes);
            }
            drop(done.send(Ok(())));
        }
    }

    /// Nothing was written. Acknowledgements stay and are written with the next group; what was
    /// rejected comes again.
    fn failed(&mut self, group: Group, error: &QueueError) {
        tracing::warn!(%error, "nothing could be written to the queue");
        let reason = error.to_string();
        let again = || QueueError::Unavailable { reason: reason.clone() };
        for Publish { places, done, .. } in group.publish {
            for (lane, id) in places {
                self.held.entry(lane.id).or_default().remove(id);
            }
            drop(done.send(Err(again())));
        }
        for done in group.declare.into_iter().flat_map(|(_, waiting)| waiting) {
            drop(done.send(Err(again())));
        }
        for (token, _, done) in group.bury {
            drop(token);
            drop(done.send(Err(again())));
        }
    }

    async fn read(&mut self, op: Op) {
        match op {
            Op::Read { lane } => match self.database.read(lane.id, lane.cursor()).await {
                Ok((messages, complete)) => lane.read(messages, complete),
                Err(error) => {
                    tracing::warn!(%error, "the queue's messages could not be read");
                    tokio::spawn(async move {
                        sleep(RETRY).await;
                        lane.read(Vec::new(), false);
                    });
                }
            },
            Op::DeadLetters { most, done } => {
                drop(done.send(self.database.dead_letters(most).await));
            }
            written => unreachable!("{written:?} is part of a group"),
        }
    }
}

impl Op {
    fn bytes(&self) -> usize {
        match self {
            Self::Publish { lanes, bytes, .. } => lanes.len() * bytes.len(),
            _ => 0,
        }
    }
}

impl Group {
    fn is_empty(&self) -> bool {
        self.publish.is_empty() && self.declare.is_empty() && self.bury.is_empty()
    }
}

impl Held {
    fn add(&mut self, id: i64, bytes: u64, time: Timestamp) {
        self.messages.insert(id, (bytes, time));
        self.bytes += bytes;
    }

    fn remove(&mut self, id: i64) {
        if let Some((bytes, _)) = self.messages.remove(&id) {
            self.bytes -= bytes;
        }
    }

    fn last(&self) -> i64 {
        self.messages.last_key_value().map_or(0, |(id, _)| *id)
    }

    /// Whether one more message may wait. Jobs are never refused: whoever sends one could only keep
    /// it, and orchestrators take them at once.
    fn check(&self, kind: &Kind, more: u64, now: Timestamp, limits: &Limits) -> Result<(), String> {
        if *kind == Kind::Jobs {
            return Ok(());
        }
        let oldest = self.messages.first_key_value().map(|(_, (_, time))| now.since(*time));
        let age = oldest.unwrap_or_default();
        let many = self.messages.len() >= limits.messages;
        if !many && self.bytes + more <= limits.bytes && age <= limits.age {
            return Ok(());
        }
        Err(format!(
            "the queue {:?} is full: {} messages of {} bytes wait, the oldest for {} s",
            kind.name(),
            self.messages.len(),
            self.bytes,
            age.as_secs()
        ))
    }
}

fn bury(group: &mut Group, token: Token, reason: String, done: Done<()>) {
    match token.bytes() {
        Ok(bytes) => {
            let letter = DeadLetter {
                reason,
                time: Timestamp::now(),
                queue: token.lane().kind.name(),
                bytes: bytes[..bytes.len().min(DEAD_BYTES)].to_vec(),
            };
            group.bury.push((token, letter, done));
        }
        Err(error) => drop(done.send(Err(error))),
    }
}
