//! Masking on the lines of a log, where a value of several lines comes one line at a time.
//!
//! A line that may be the beginning of such a value is held until the next line of its stream, or
//! until [`LineMasker::flush`], which masks what would be the value's part. Lines keep their order
//! over both streams.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use common::event::{LogLine, Stream};
use common::limits::MASK_BYTES;
use serde::{Deserialize, Serialize};

use super::scan::Position;
use super::{Masker, replace};

/// The most lines that are held; then they are given out as [`LineMasker::flush`] does.
const HELD_LINES: usize = 1_000;

/// The most bytes that are held; then they are given out as well. No value reaches over half of it.
const HELD_BYTES: usize = 2 * MASK_BYTES;

/// The lines of one log on their way through the masker.
#[derive(Debug, Default)]
pub struct LineMasker {
    stdout: Flow,
    stderr: Flow,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
}

/// What is held, to go on after a restart. It holds bytes that are not masked yet.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HeldLines {
    pending: Vec<Pending>,
    #[serde(with = "serde_bytes")]
    stdout: Vec<u8>,
    #[serde(with = "serde_bytes")]
    stderr: Vec<u8>,
}

impl HeldLines {
    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.stdout.is_empty() && self.stderr.is_empty()
    }
}

impl fmt::Debug for HeldLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeldLines({})", self.pending.len())
    }
}

/// One stream.
#[derive(Default)]
struct Flow {
    position: Position,
    /// What stands before the position, back to where no value had begun, or as far as the longest
    /// value reaches: the position can be found again from it.
    tail: Vec<u8>,
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flow({} bytes)", self.tail.len())
    }
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Pending {
    line: LogLine,
    covered: Vec<Range<usize>>,
    held: bool,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pending({} bytes)", self.line.text.as_bytes().len())
    }
}

impl LineMasker {
    /// Takes a line and gives out those that are ready, in order.
    pub fn push(&mut self, masker: &mut Masker, line: LogLine, ready: &mut Vec<LogLine>) {
        let nothing_held = self.pending.is_empty();
        let stream = line.stream;
        let Some(flow) = self.flow(stream) else {
            // Our own lines and the console are whole texts and never hold anything.
            let text = masker.mask(line.text.as_bytes()).into_owned();
            let line = LogLine { text: text.into(), ..line };
            self.append(Pending { line, covered: Vec::new(), held: false });
            self.release(ready);
            return;
        };
        if nothing_held && masker.scanner.is_empty() {
            ready.push(line);
            return;
        }
        let (covered, reach, held) = flow.scan(masker, line.text.as_bytes());
        if reach > 0 {
            self.cover_back(stream, reach);
        }
        self.append(Pending { line, covered, held });
        if !held {
            let earlier = self.pending.iter_mut().filter(|pending| pending.line.stream == stream);
            earlier.for_each(|pending| pending.held = false);
        }
        self.release(ready);
        if self.pending.len() > HELD_LINES || self.pending_bytes > HELD_BYTES {
            self.flush(masker, ready);
        }
    }

    /// About the memory that is used.
    #[cfg(test)]
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes + self.stdout.tail.len() + self.stderr.tail.len()
    }

    /// What is held now.
    #[must_use]
    pub fn held(&self) -> HeldLines {
        HeldLines {
            pending: self.pending.iter().cloned().collect(),
            stdout: self.stdout.tail.clone(),
            stderr: self.stderr.tail.clone(),
        }
    }

    /// Goes on with what was held, with a masker that has the same values.
    #[must_use]
    pub fn resume(held: HeldLines) -> Self {
        let flow = |tail| Flow { position: Position::default(), tail };
        let mut lines =
            Self { stdout: flow(held.stdout), stderr: flow(held.stderr), ..Self::default() };
        held.pending.into_iter().for_each(|pending| lines.append(pending));
        lines
    }

    /// Whether lines are held.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Gives out what is held. What may be the beginning of a value is masked as if it were.
    pub fn flush(&mut self, masker: &Masker, ready: &mut Vec<LogLine>) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let held = self.pending.iter_mut().filter(|p| p.held && p.line.stream == stream);
            for (index, pending) in held.enumerate() {
                let text = pending.line.text.as_bytes();
                let suffix = if index == 0 {
                    let firsts = masker.first_lines.iter().filter(|first| text.ends_with(first));
                    firsts.map(Vec::len).max().unwrap_or(text.len())
                } else {
                    text.len()
                };
                cover_suffix(pending, suffix);
                pending.held = false;
            }
        }
        self.release(ready);
    }

    fn append(&mut self, pending: Pending) {
        self.pending_bytes += pending.line.text.as_bytes().len();
        self.pending.push_back(pending);
    }

    fn flow(&mut self, stream: Stream) -> Option<&mut Flow> {
        match stream {
            Stream::Stdout => Some(&mut self.stdout),
            Stream::Stderr => Some(&mut self.stderr),
            Stream::Runner | Stream::Console => None,
        }
    }

    /// Covers the last `reach` bytes of this stream, each line end counting as one.
    fn cover_back(&mut self, stream: Stream, mut reach: usize) {
        for pending in self.pending.iter_mut().rev().filter(|p| p.line.stream == stream) {
            reach = reach.saturating_sub(1);
            let length = pending.line.text.as_bytes().len();
            cover_suffix(pending, reach.min(length));
            reach = reach.saturating_sub(length);
            if reach == 0 {
                break;
            }
        }
    }

    fn release(&mut self, ready: &mut Vec<LogLine>) {
        while self.pending.front().is_some_and(|pending| !pending.held) {
            let Pending { mut line, covered, .. } =
                self.pending.pop_front().expect("the loop saw a front");
            self.pending_bytes -= line.text.as_bytes().len();
            if !covered.is_empty() {
                line.text = replace(line.text.as_bytes(), &covered).into();
            }
            ready.push(line);
        }
    }
}

impl Flow {
    /// Takes a line in: what of it is covered, how far back before it, and whether a value has begun
    /// that may go on in the next line.
    fn scan(&mut self, masker: &mut Masker, text: &[u8]) -> (Vec<Range<usize>>, usize, bool) {
        masker.scanner.refresh(&mut self.position, &self.tail);
        let (covered, reach) = masker.scanner.scan_with_reach(&mut self.position, text);
        masker.scanner.scan(&mut self.position, b"\n");
        let inside = masker.scanner.is_inside(&self.position);
        if inside {
            self.tail.extend_from_slice(text);
            self.tail.push(b'\n');
            // Twice, so that it is not moved for every line.
            if self.tail.len() > 2 * masker.longest {
                self.tail.drain(..self.tail.len() - masker.longest);
            }
        } else {
            self.tail.clear();
        }
        (covered, reach, inside)
    }
}

/// Adds the last `length` bytes of a line to what is covered.
fn cover_suffix(pending: &mut Pending, length: usize) {
    let end = pending.line.text.as_bytes().len();
    if length == 0 {
        return;
    }
    let mut start = end - length;
    while pending.covered.last().is_some_and(|last| last.end >= start) {
        start = start.min(pending.covered.pop().expect("the loop saw a last range").start);
    }
    pending.covered.push(start..end);
}
