//! Cutting a stream of bytes into lines, in bounded memory.

use common::limits::{CUT_NOTICE, CUT_NOTICE_BYTES, LOG_LINE_BYTES};

/// One line of a stream, without its line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// At most [`LOG_LINE_BYTES`] bytes, the notice about what was cut included.
    pub(super) bytes: Vec<u8>,
    /// Whether bytes were cut.
    pub(super) cut: bool,
}

/// Cuts a stream into lines however its bytes arrive.
///
/// A line ends with LF or CR LF; what follows the last line end is a line too. Of a line that is
/// too long the beginning is kept, the rest is counted and never stored.
#[derive(Debug, Default)]
pub(super) struct LineSplitter {
    /// The beginning of the line whose end has not come yet, one byte longer than a line at most:
    /// the CR of a line end may be that byte.
    partial: Vec<u8>,
    /// Bytes of that line that were not kept.
    dropped: u64,
}

/// The longest beginning that is kept while a line's end has not come.
const PARTIAL_BYTES: usize = LOG_LINE_BYTES + 1;

impl LineSplitter {
    /// The next whole line of `chunk`, which is shortened by what was used; `None` when all of it
    /// is used.
    pub(super) fn next(&mut self, chunk: &mut &[u8]) -> Option<Line> {
        let Some(end) = chunk.iter().position(|&byte| byte == b'\n') else {
            self.keep(chunk);
            *chunk = &[];
            return None;
        };
        let (line, rest) = chunk.split_at(end);
        *chunk = &rest[1..];
        if self.partial.is_empty() && line.len() <= PARTIAL_BYTES {
            // The common case: the line is copied once, into the memory in which it is sent.
            return Some(finish(strip_return(line).to_vec(), 0));
        }
        self.keep(line);
        self.take()
    }

    /// What follows the last line end.
    pub(super) fn rest(&mut self) -> Option<Line> {
        if self.partial.is_empty() { None } else { self.take() }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = PARTIAL_BYTES - self.partial.len();
        let kept = &bytes[..bytes.len().min(room)];
        self.partial.extend_from_slice(kept);
        self.dropped += (bytes.len() - kept.len()) as u64;
    }

    fn take(&mut self) -> Option<Line> {
        let mut bytes = std::mem::take(&mut self.partial);
        let dropped = std::mem::take(&mut self.dropped);
        if dropped == 0 {
            bytes.truncate(strip_return(&bytes).len());
        }
        Some(finish(bytes, dropped))
    }
}

fn strip_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Makes a line that is too long fit.
fn finish(mut bytes: Vec<u8>, dropped: u64) -> Line {
    if dropped == 0 && bytes.len() <= LOG_LINE_BYTES {
        return Line { bytes, cut: false };
    }
    let kept = character_boundary(&bytes, LOG_LINE_BYTES - CUT_NOTICE_BYTES);
    let missing = (bytes.len() - kept) as u64 + dropped;
    bytes.truncate(kept);
    bytes.extend_from_slice(
        format!("{CUT_NOTICE}{missing} more bytes of this line were cut]").as_bytes(),
    );
    bytes.shrink_to_fit();
    Line { bytes, cut: true }
}

/// The end of the last whole UTF-8 character that ends at or before `at`.
fn character_boundary(bytes: &[u8], at: usize) -> usize {
    // A character has at most three bytes that continue it.
    (at.saturating_sub(3)..=at)
        .rev()
        .find(|&place| bytes.get(place).is_none_or(|byte| byte & 0xC0 != 0x80))
        .unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Line> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            let mut chunk = *chunk;
            while let Some(line) = splitter.next(&mut chunk) {
                lines.push(line);
            }
        }
        lines.extend(splitter.rest());
        lines
    }

    fn text(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect()
    }

    #[test]
    fn lines_end_with_either_line_end_and_with_the_stream() {
        assert_eq!(text(&split(&[b"a\r\nb\n\nc\rd\r\r\ne"])), ["a", "b", "", "c\rd\r", "e"]);
        assert_eq!(text(&split(&[b"a\r", b"\nb"])), ["a", "b"]);
        assert_eq!(split(&[b"a\n"]).len(), 1);
    }

    #[test]
    fn a_line_of_just_the_limit_is_whole() {
        let mut stream = vec![b'x'; LOG_LINE_BYTES];
        stream.extend_from_slice(b"\r\n");
        let lines = split(&[&stream]);
        assert!(!lines[0].cut);
        assert_eq!(lines[0].bytes.len(), LOG_LINE_BYTES);
        // The same when the CR comes alone.
        let (start, end) = stream.split_at(LOG_LINE_BYTES);
        assert_eq!(split(&[start, &end[..1], &end[1..]]), lines);
    }

    #[test]
    fn a_huge_line_is_cut_with_a_notice_and_not_stored() {
        let mut splitter = LineSplitter::default();
        let block = vec![b'x'; 1 << 20];
        for _ in 0..10 {
            assert_eq!(splitter.next(&mut &block[..]), None);
            assert!(splitter.partial.capacity() <= 4 * LOG_LINE_BYTES);
        }
        let line = splitter.next(&mut &b"\nnext"[..]).unwrap();
        assert!(line.cut && line.bytes.len() <= LOG_LINE_BYTES);
        let shown = String::from_utf8(line.bytes).unwrap();
        let kept = LOG_LINE_BYTES - CUT_NOTICE_BYTES;
        assert!(
            shown.ends_with(&format!(
                "x [{} more bytes of this line were cut]",
                10 * (1 << 20) - kept
            ))
        );
    }

    #[test]
    fn a_cut_does_not_split_a_character() {
        let stream = "é".repeat(LOG_LINE_BYTES);
        let odd = format!("x{stream}");
        for stream in [stream, odd] {
            let lines = split(&[stream.as_bytes()]);
            String::from_utf8(lines[0].bytes.clone()).unwrap();
        }
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_lines(
            stream in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b'a'), any::<u8>()], 0..400),
            cuts in proptest::collection::vec(0usize..400, 0..8),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
            prop_assert_eq!(split(&chunks), split(&[&stream]));
        }

        #[test]
        fn long_lines_are_the_same_in_any_chunking(length in LOG_LINE_BYTES - 3..LOG_LINE_BYTES + 9, cut in 0usize..LOG_LINE_BYTES + 9) {
            let mut stream = vec![b'x'; length];
            stream.extend_from_slice(b"\r\ny");
            let cut = cut.min(stream.len());
            prop_assert_eq!(split(&[&stream[..cut], &stream[cut..]]), split(&[&stream]));
        }
    }
}
