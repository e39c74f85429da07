//! Pieces of a file that say where they belong.

use std::path::PathBuf;

/// A piece: the places of its first and its last byte. An empty one ends before it begins.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) path: PathBuf,
}

/// The pieces of a file of so many bytes, in order and without those that came twice; nothing if one
/// is missing.
pub(super) fn in_order(chunks: &[Chunk], total: i64) -> Option<Vec<PathBuf>> {
    let mut sorted: Vec<_> = chunks.iter().collect();
    sorted.sort_by_key(|chunk| chunk.first);
    let (mut taken, mut next) = (Vec::new(), 0);
    for chunk in sorted {
        if chunk.first == next && (chunk.last >= chunk.first || taken.is_empty()) {
            taken.push(chunk.path.clone());
            next = chunk.last + 1;
        }
    }
    (!taken.is_empty() && next == total).then_some(taken)
}

/// A header such as `bytes 0-1023/4096`: the first, the last and how many there are. An empty file has
/// `bytes 0--1/0`.
pub(super) fn range(header: &str) -> Option<(i64, i64, i64)> {
    let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total) = (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (0 <= first && first - 1 <= last && last < total).then_some((first, last, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        let cases = [
            ("bytes 0-1023/4096", Some((0, 1023, 4096))),
            ("bytes 4095-4095/4096", Some((4095, 4095, 4096))),
            ("bytes 0--1/0", Some((0, -1, 0))),
            ("bytes 0-4096/4096", None),
            ("bytes 5-3/10", None),
            ("bytes 0-1023/*", None),
            ("bytes=0-1", None),
            ("", None),
        ];
        for (header, expected) in cases {
            assert_eq!(range(header), expected, "{header:?}");
        }
    }

    #[test]
    fn chunks_are_put_in_order() {
        let chunk = |(first, last): (i64, i64)| Chunk {
            first,
            last,
            path: PathBuf::from(format!("{first}-{last}")),
        };
        type Case = (&'static [(i64, i64)], i64, Option<&'static [&'static str]>);
        let cases: &[Case] = &[
            (&[(0, 3)], 4, Some(&["0-3"])),
            (&[(4, 7), (0, 3)], 8, Some(&["0-3", "4-7"])),
            (&[(0, 3), (0, 3), (4, 4)], 5, Some(&["0-3", "4-4"])),
            (&[(0, 3), (5, 7)], 8, None),
            (&[(0, 3)], 8, None),
            (&[(4, 7)], 8, None),
            (&[(0, -1)], 0, Some(&["0--1"])),
            (&[], 0, None),
        ];
        for (chunks, total, expected) in cases {
            let chunks: Vec<_> = chunks.iter().copied().map(chunk).collect();
            let expected = expected.map(|paths| paths.iter().map(PathBuf::from).collect());
            assert_eq!(in_order(&chunks, *total), expected, "{chunks:?} of {total}");
        }
    }
}
