//! Masking on the lines of a log, where a value of several lines comes one line at a time.
//!
//! A line that may be the beginning of such a value is held until the next line of its stream, or
//! until [`LineMasker::flush`], which masks what would be the value's part. Lines keep their order
//! over both streams.

use std::collections::VecDeque;
use std::ops::Range;

use common::event::{LogLine, Stream};

use super::scan::Position;
use super::{Masker, replace};

/// The most lines that are held; then they are given out as [`LineMasker::flush`] does.
const HELD_LINES: usize = 1_000;

/// The lines of one log on their way through the masker.
#[derive(Debug, Default)]
pub struct LineMasker {
    stdout: Position,
    stderr: Position,
    pending: VecDeque<Pending>,
}

#[derive(Debug)]
struct Pending {
    line: LogLine,
    covered: Vec<Range<usize>>,
    held: bool,
}

impl LineMasker {
    /// Takes a line and gives out those that are ready, in order.
    pub fn push(&mut self, masker: &mut Masker, line: LogLine, ready: &mut Vec<LogLine>) {
        let nothing_held = self.pending.is_empty();
        let Some(position) = self.position(line.stream) else {
            // Our own lines and the console are whole texts and never hold anything.
            let text = masker.mask(line.text.as_bytes()).into_owned();
            self.pending.push_back(Pending {
                line: LogLine { text: text.into(), ..line },
                covered: Vec::new(),
                held: false,
            });
            self.release(ready);
            return;
        };
        if nothing_held && masker.scanner.is_empty() {
            ready.push(line);
            return;
        }
        let (covered, reach) = masker.scanner.scan_with_reach(position, line.text.as_bytes());
        masker.scanner.scan(position, b"\n");
        let held = masker.scanner.is_inside(position);
        let stream = line.stream;
        if reach > 0 {
            self.cover_back(stream, reach);
        }
        self.pending.push_back(Pending { line, covered, held });
        if !held {
            let earlier = self.pending.iter_mut().filter(|pending| pending.line.stream == stream);
            earlier.for_each(|pending| pending.held = false);
        }
        self.release(ready);
        if self.pending.len() > HELD_LINES {
            self.flush(masker, ready);
        }
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

    fn position(&mut self, stream: Stream) -> Option<&mut Position> {
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
            if !covered.is_empty() {
                line.text = replace(line.text.as_bytes(), &covered).into();
            }
            ready.push(line);
        }
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
