//! The events that the host has not acknowledged yet.
//!
//! ```text
//!   forgotten │ segment files on disk        │ memory                        │
//!  ───────────┼──────────────────────────────┼───────────────────────────────┼──▶ sequence numbers
//!         acked│ oldest first                 │ closed chunks │ the open chunk│next
//! ```
//!
//! Events are encoded as frames when they come and lie in *chunks*: runs of frames that are written
//! and sent as they are. New frames go to memory; when memory is over its window, the oldest chunks
//! move to segment files; an acknowledgement forgets chunks at the old end. So memory stays bounded,
//! a host that keeps up costs no disk access, and any event that is not acknowledged can be read
//! again, byte for byte.
//!
//! [`Spool::has_room`] is false at the limit of the whole spool, and also while the disk refuses to
//! take more: then the engine waits, and with it the step that writes.

mod disk;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;

use common::Timestamp;
use common::event::{LogBatch, LogLine, Stream};
use common::frame::{self, FrameError};
use common::guest::{FromGuest, GuestEvent};
use common::limits::{GUEST_SPOOL_BYTES, KIB, MIB};

pub(super) use disk::{Disk, Folder, Segment};

/// The bounds of a spool, in bytes of frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpoolLimits {
    /// A chunk that reached this size takes no more frames.
    pub(super) chunk: usize,
    /// What may lie in memory before chunks move to the disk.
    pub(super) window: usize,
    /// A segment file that reached this size takes no more chunks.
    pub(super) segment: u64,
    /// What may wait in all.
    pub(super) total: u64,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self {
            chunk: 64 * KIB as usize,
            window: 2 * MIB as usize,
            segment: 4 * MIB,
            total: GUEST_SPOOL_BYTES,
        }
    }
}

/// A run of frames in memory.
struct Chunk {
    first: u64,
    last: u64,
    frames: Vec<u8>,
}

/// A run of frames in a segment file.
struct Stored {
    first: u64,
    last: u64,
    /// The number of the segment.
    segment: u64,
    offset: u64,
    bytes: usize,
}

/// A file with chunks.
struct OpenSegment {
    number: u64,
    file: Box<dyn Segment>,
    bytes: u64,
}

/// See the module.
pub(super) struct Spool {
    limits: SpoolLimits,
    disk: Box<dyn Disk>,
    segments: VecDeque<OpenSegment>,
    stored: VecDeque<Stored>,
    memory: VecDeque<Chunk>,
    stored_bytes: u64,
    memory_bytes: usize,
    next: u64,
    acknowledged: u64,
}

impl Spool {
    /// An empty spool that makes its segment files in `disk`.
    pub(super) fn new(limits: SpoolLimits, disk: impl Disk + 'static) -> Self {
        Self {
            limits,
            disk: Box::new(disk),
            segments: VecDeque::new(),
            stored: VecDeque::new(),
            memory: VecDeque::new(),
            stored_bytes: 0,
            memory_bytes: 0,
            next: 1,
            acknowledged: 0,
        }
    }

    /// The first event that is kept, or that will be kept when it comes.
    pub(super) fn first(&self) -> u64 {
        self.acknowledged + 1
    }

    /// The number that the next event gets.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Whether every event so far is acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.first() == self.next
    }

    /// Whether another event may be taken in.
    pub(super) fn has_room(&self) -> bool {
        self.memory_bytes <= self.limits.window
            && self.memory_bytes as u64 + self.stored_bytes < self.limits.total
    }

    /// Takes an event in, also when there is no room: who asks first goes over the bounds by one
    /// event at most.
    ///
    /// A batch of lines that makes a frame over the limit becomes several events. Anything else that
    /// large is replaced by a line that says so: numbers must have no holes.
    pub(super) fn push(&mut self, event: GuestEvent) {
        let message = FromGuest::Event { seq: self.next, event };
        let start_new =
            self.memory.back().is_none_or(|chunk| chunk.frames.len() >= self.limits.chunk);
        if start_new {
            let chunk = Chunk { first: self.next, last: self.next - 1, frames: Vec::new() };
            self.memory.push_back(chunk);
        }
        let open = self.memory.back_mut().expect("one was pushed if there was none");
        let before = open.frames.len();
        match frame::encode_into(&mut open.frames, &message) {
            Ok(()) => {
                open.last = self.next;
                self.memory_bytes += open.frames.len() - before;
                self.next += 1;
                self.relieve();
            }
            Err(error) => {
                if start_new {
                    self.memory.pop_back();
                }
                let FromGuest::Event { event, .. } = message else {
                    unreachable!("the message was built as an event above")
                };
                for part in smaller(event, &error) {
                    self.push(part);
                }
            }
        }
    }

    /// Moves chunks to the disk until memory is within its window, or the disk refuses. Called by
    /// [`Spool::push`]; once more after a time when the disk was full.
    pub(super) fn relieve(&mut self) {
        while self.memory_bytes > self.limits.window {
            let Some(chunk) = self.memory.front() else { return };
            // Kept where it is if the disk is full or broken: it is tried again, and an
            // acknowledgement frees memory without the disk.
            let Ok((segment, offset)) =
                store(&*self.disk, &mut self.segments, self.limits.segment, &chunk.frames)
            else {
                return;
            };
            let bytes = chunk.frames.len();
            let stored = Stored { first: chunk.first, last: chunk.last, segment, offset, bytes };
            self.stored.push_back(stored);
            self.stored_bytes += bytes as u64;
            self.memory_bytes -= bytes;
            self.memory.pop_front();
        }
    }

    /// Forgets every event up to and with `seq`, chunk by chunk.
    pub(super) fn acknowledge(&mut self, seq: u64) {
        self.acknowledged = self.acknowledged.max(seq.min(self.next - 1));
        while let Some(stored) = self.stored.pop_front_if(|stored| stored.last <= self.acknowledged)
        {
            self.stored_bytes -= stored.bytes as u64;
        }
        let needed = self.stored.front().map_or(u64::MAX, |stored| stored.segment);
        while self.segments.pop_front_if(|segment| segment.number < needed).is_some() {}
        while let Some(chunk) = self.memory.pop_front_if(|chunk| chunk.last <= self.acknowledged) {
            self.memory_bytes -= chunk.frames.len();
        }
    }

    /// Appends the frames of the events from `from` on to `out`, whole chunks until `out` has at
    /// least `enough` bytes, and returns the first event that is not in it.
    ///
    /// # Errors
    /// A segment file could not be read. `out` has whole frames all the same.
    pub(super) fn read(&self, from: u64, enough: usize, out: &mut Vec<u8>) -> io::Result<u64> {
        let mut next = from.max(self.first());
        while out.len() < enough && next < self.next {
            let start = out.len();
            let (first, last) = match self.stored.partition_point(|stored| stored.last < next) {
                index if index < self.stored.len() => {
                    let stored = &self.stored[index];
                    if let Err(error) = self.load(stored, out) {
                        out.truncate(start);
                        return Err(error);
                    }
                    (stored.first, stored.last)
                }
                _ => {
                    let index = self.memory.partition_point(|chunk| chunk.last < next);
                    let chunk = self.memory.get(index).expect("what is not on disk is in memory");
                    let skipped = bytes_of(&chunk.frames, next - chunk.first)
                        .expect("chunks in memory are whole");
                    out.extend_from_slice(&chunk.frames[skipped..]);
                    (next, chunk.last)
                }
            };
            if first < next {
                let Some(skipped) = bytes_of(&out[start..], next - first) else {
                    out.truncate(start);
                    return Err(io::Error::other(
                        "a segment file has other bytes than were written",
                    ));
                };
                out.drain(start..start + skipped);
            }
            next = last + 1;
        }
        Ok(next)
    }

    /// Appends the frames of a stored chunk to `out`.
    fn load(&self, stored: &Stored, out: &mut Vec<u8>) -> io::Result<()> {
        let index = self.segments.partition_point(|segment| segment.number < stored.segment);
        let segment = self.segments.get(index).expect("segments live as long as their chunks");
        let start = out.len();
        out.resize(start + stored.bytes, 0);
        segment.file.read_exact_at(&mut out[start..], stored.offset)
    }

    /// The bytes in memory and on disk.
    #[cfg(test)]
    fn bytes(&self) -> (usize, u64) {
        (self.memory_bytes, self.stored_bytes)
    }
}

/// Writes a chunk to the newest segment, or to a new one, and returns where it lies. What a failed
/// write left behind is written over by the next.
fn store(
    disk: &dyn Disk,
    segments: &mut VecDeque<OpenSegment>,
    limit: u64,
    frames: &[u8],
) -> io::Result<(u64, u64)> {
    if segments.back().is_none_or(|segment| segment.bytes >= limit) {
        let number = segments.back().map_or(0, |segment| segment.number + 1);
        segments.push_back(OpenSegment { number, file: disk.create()?, bytes: 0 });
    }
    let segment = segments.back_mut().expect("one was pushed if there was none");
    let offset = segment.bytes;
    segment.file.write_all_at(frames, offset)?;
    segment.bytes += frames.len() as u64;
    Ok((segment.number, offset))
}

/// The bytes that the first `count` frames take; `None` if there are fewer.
fn bytes_of(frames: &[u8], count: u64) -> Option<usize> {
    let mut bytes = 0;
    for _ in 0..count {
        bytes += frame::length(&frames[bytes..])?;
    }
    Some(bytes)
}

/// What takes the place of an event that does not fit in a frame.
fn smaller(event: GuestEvent, error: &FrameError) -> Vec<GuestEvent> {
    match event {
        GuestEvent::Log(LogBatch { step, mut lines }) if lines.len() > 1 => {
            let rest = lines.split_off(lines.len() / 2);
            vec![
                GuestEvent::Log(LogBatch { step, lines }),
                GuestEvent::Log(LogBatch { step, lines: rest }),
            ]
        }
        other => {
            let (kind, step) = match other {
                GuestEvent::Log(batch) => ("a log line", batch.step),
                GuestEvent::StepStarted(step) => ("the start of a step", Some(step.step)),
                GuestEvent::StepFinished(step) => ("the end of a step", Some(step.step)),
                GuestEvent::Summary(summary) => ("a step's summary", Some(summary.step)),
                GuestEvent::Annotation(annotation) => ("an annotation", Some(annotation.step)),
                GuestEvent::Mask(_) => ("a value to mask", None),
                GuestEvent::DiskFull(_) => ("that the disk is full", None),
                GuestEvent::Outputs(_) => ("the outputs of the job", None),
                GuestEvent::Finished(_) => ("the end of the job", None),
            };
            let text = format!("{kind} was dropped: {error}");
            let time = Timestamp::now();
            let line = LogLine { time, stream: Stream::Runner, text: text.into() };
            vec![GuestEvent::Log(LogBatch { step, lines: vec![line] })]
        }
    }
}
