//! The events that the host has not acknowledged yet, as frames in memory.

use std::collections::VecDeque;

use common::Timestamp;
use common::event::{LogBatch, LogLine, Stream};
use common::frame;
use common::guest::{FromGuest, GuestEvent};
use common::limits::GUEST_SPOOL_BYTES;

/// The events that wait.
#[derive(Debug)]
pub(crate) struct Spool {
    limit: u64,
    frames: VecDeque<Vec<u8>>,
    bytes: u64,
    /// The number of the first frame that is kept, or that will be kept when it comes.
    first: u64,
}

impl Default for Spool {
    fn default() -> Self {
        Self { limit: GUEST_SPOOL_BYTES, frames: VecDeque::new(), bytes: 0, first: 1 }
    }
}

impl Spool {
    /// The number of the first event that is kept.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The number that the next event gets.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// Whether every event so far is acknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether another event may be taken in.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < self.limit
    }

    /// Takes an event in. One that fits in no frame is replaced by a line: numbers have no holes.
    pub(crate) fn push(&mut self, event: GuestEvent) {
        let seq = self.next();
        let frame = frame::encode(&FromGuest::Event { seq, event }).unwrap_or_else(|error| {
            let text = format!("an event was dropped: {error}").into();
            let line = LogLine { time: Timestamp::now(), stream: Stream::Runner, text };
            let event = GuestEvent::Log(LogBatch { step: None, lines: vec![line] });
            frame::encode(&FromGuest::Event { seq, event }).expect("a short line fits in a frame")
        });
        self.bytes += frame.len() as u64;
        self.frames.push_back(frame);
    }

    /// Forgets every event up to and with `seq`.
    pub(crate) fn acknowledge(&mut self, seq: u64) {
        while self.first <= seq {
            let Some(frame) = self.frames.pop_front() else { return };
            self.bytes -= frame.len() as u64;
            self.first += 1;
        }
        if self.frames.is_empty() {
            self.frames.shrink_to(16);
        }
    }

    /// Frames from an event on, until there are `enough` bytes, and the first event that is not in
    /// them.
    pub(crate) fn read(&self, from: u64, enough: usize) -> (Vec<u8>, u64) {
        let mut next = from.max(self.first);
        let mut bytes = Vec::new();
        while bytes.len() < enough
            && let Some(frame) = self.frames.get((next - self.first) as usize)
        {
            bytes.extend_from_slice(frame);
            next += 1;
        }
        (bytes, next)
    }
}

#[cfg(test)]
mod tests {
    use common::event::JobResult;
    use common::limits::FRAME_BYTES;
    use common::request::Secret;

    use super::*;

    fn spool(limit: u64, events: usize) -> Spool {
        let mut spool = Spool { limit, ..Spool::default() };
        for _ in 0..events {
            spool.push(GuestEvent::Finished(JobResult::Success));
        }
        spool
    }

    fn numbers(mut bytes: &[u8]) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some(length) = frame::length(bytes) {
            let (one, rest) = bytes.split_at(length);
            let FromGuest::Event { seq, .. } = frame::decode(&one[4..]).unwrap() else {
                panic!("no event")
            };
            numbers.push(seq);
            bytes = rest;
        }
        numbers
    }

    #[test]
    fn what_is_acknowledged_is_gone() {
        let mut spool = spool(u64::MAX, 5);
        spool.acknowledge(2);
        assert_eq!((spool.first(), spool.next()), (3, 6));
        let (bytes, next) = spool.read(1, usize::MAX);
        assert_eq!((numbers(&bytes), next), (vec![3, 4, 5], 6));
        let (bytes, next) = spool.read(4, 1);
        assert_eq!((numbers(&bytes), next), (vec![4], 5));
        assert_eq!(spool.read(6, 1), (vec![], 6));
        spool.acknowledge(u64::MAX - 1);
        assert!(spool.is_empty());
        assert_eq!((spool.first(), spool.next(), spool.bytes), (6, 6, 0));
    }

    #[test]
    fn at_the_limit_there_is_no_room_until_something_is_acknowledged() {
        let mut spool = spool(100, 1);
        for _ in 0..10 {
            if spool.has_room() {
                spool.push(GuestEvent::Finished(JobResult::Success));
            }
        }
        assert!(spool.bytes >= 100 && spool.bytes < 200, "{}", spool.bytes);
        spool.acknowledge(1);
        assert!(spool.has_room());
    }

    #[test]
    fn an_event_that_is_too_large_leaves_no_hole() {
        let mut spool = spool(u64::MAX, 0);
        spool.push(GuestEvent::Mask(Secret::new("x".repeat(FRAME_BYTES))));
        spool.push(GuestEvent::Finished(JobResult::Success));
        assert_eq!(numbers(&spool.read(1, usize::MAX).0), [1, 2]);
    }
}
