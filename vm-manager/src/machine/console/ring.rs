//! The last part of a byte stream, cut into lines.

use std::collections::VecDeque;

use super::clean;

/// A line that is longer is told in parts of this size.
const LINE_BYTES: usize = 4096;

/// The last bytes of a stream, and the line that is being written.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    limit: usize,
    /// Bytes at the end of the ring that belong to a line without its end.
    open: usize,
    /// Whether the first line in the ring lost its beginning.
    cut: bool,
}

impl Ring {
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: VecDeque::new(), limit, open: 0, cut: false }
    }

    /// Takes bytes in and tells each line that they complete.
    pub(super) fn push(&mut self, bytes: &[u8], mut complete: impl FnMut(&[u8])) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in part.chunks(LINE_BYTES) {
                self.bytes.extend(part);
                self.open += part.len();
                if part.ends_with(b"\n") || self.open >= LINE_BYTES {
                    let line: Vec<u8> =
                        self.bytes.range(self.bytes.len() - self.open..).copied().collect();
                    complete(&line);
                    self.open = 0;
                }
                self.shrink();
            }
        }
    }

    fn shrink(&mut self) {
        let excess = self.bytes.len().saturating_sub(self.limit);
        if excess > 0 {
            self.cut = self.bytes.get(excess - 1) != Some(&b'\n');
            self.bytes.drain(..excess);
            self.open = self.open.min(self.bytes.len());
        }
    }

    /// The last lines that are not empty, oldest first, with the one that is being written.
    pub(super) fn tail(&self, lines: usize) -> Vec<String> {
        let mut tail = self.clean_lines(self.bytes.len());
        tail.drain(..tail.len().saturating_sub(lines));
        tail
    }

    /// All lines that are complete and not empty, oldest first.
    pub(super) fn complete(&self) -> Vec<String> {
        self.clean_lines(self.bytes.len() - self.open)
    }

    fn clean_lines(&self, end: usize) -> Vec<String> {
        let bytes: Vec<u8> = self.bytes.range(..end).copied().collect();
        let lines = bytes.split(|byte| *byte == b'\n').skip(usize::from(self.cut));
        lines.map(clean::line).filter(|line| !line.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(ring: &mut Ring, parts: &[&str]) -> Vec<String> {
        let mut lines = Vec::new();
        for part in parts {
            ring.push(part.as_bytes(), |line| {
                lines.push(String::from_utf8_lossy(line).into_owned());
            });
        }
        lines
    }

    #[test]
    fn lines_are_told_when_they_are_complete() {
        let mut ring = Ring::new(1000);
        assert_eq!(collect(&mut ring, &["a", "b\nc\n", "d"]), ["ab\n", "c\n"]);
        assert_eq!(ring.tail(10), ["ab", "c", "d"]);
        assert_eq!(ring.tail(2), ["c", "d"]);
        assert_eq!(ring.complete(), ["ab", "c"]);
        assert_eq!(collect(&mut ring, &["e\n"]), ["de\n"]);
    }

    #[test]
    fn old_lines_go_and_a_cut_one_is_not_shown() {
        let mut ring = Ring::new(8);
        collect(&mut ring, &["first\n", "second\n", "3\n"]);
        assert_eq!(ring.tail(10), ["3"]);
        collect(&mut ring, &["4\n", "5\n", "6\n", "7\n"]);
        assert_eq!(ring.tail(10), ["4", "5", "6", "7"]);
    }

    #[test]
    fn a_line_without_end_is_told_in_parts() {
        let mut ring = Ring::new(100_000);
        let lines = collect(&mut ring, &[&"x".repeat(3 * LINE_BYTES + 1), "\n"]);
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| line.len() <= LINE_BYTES));
    }
}
