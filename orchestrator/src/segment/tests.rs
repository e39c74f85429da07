use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::event::{
    EventBody, Finished, JobEvent, JobResult, LogBatch, LogLine, Phase, PhaseEvent, Stream,
};
use common::time::Timestamp;
use proptest::prelude::*;
use queue::seal::KeyRing;

use super::record::{BYTES, Header};
use super::*;
use crate::events::LogState;

struct Bench {
    directory: tempfile::TempDir,
    job: JobId,
    keys: KeyRing,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, job: JobId::new(), keys: KeyRing::ephemeral() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("segment")
    }

    fn event(&self, try_number: u32, seq: u64) -> JobEvent {
        let event = EventBody::Phase(PhaseEvent { phase: Phase::Boot, took: None, detail: None });
        self.event_with(try_number, seq, event)
    }

    fn event_with(&self, try_number: u32, seq: u64, event: EventBody) -> JobEvent {
        JobEvent { job: self.job, try_number, seq, time: Timestamp::from_micros(seq), event }
    }

    fn lines(&self, seq: u64, count: usize, bytes: usize) -> JobEvent {
        let time = Timestamp::from_micros(seq);
        let line = LogLine { time, stream: Stream::Stdout, text: "x".repeat(bytes).into() };
        let batch = LogBatch { step: None, lines: vec![line; count] };
        self.event_with(1, seq, EventBody::Log(batch))
    }

    /// A file with these entries, each the numbers of its events, and where each ends.
    fn write(&self, entries: &[&[u64]], synced: impl Fn(u64) -> u64) -> Vec<u64> {
        let mut segment = Segment::create(&self.path(), self.job).unwrap();
        let mut ends = vec![segment.length()];
        let mut last = 0;
        for entry in entries {
            let events: Vec<_> = entry.iter().map(|seq| self.event(1, *seq)).collect();
            last = entry.last().copied().unwrap_or(last);
            let state = state(1, last);
            segment.append(&events, &state, synced(segment.length()), &self.keys).unwrap();
            ends.push(segment.length());
        }
        ends
    }

    fn open(&self) -> Result<Opened, SegmentError> {
        open(&self.path(), self.job, &self.keys).map(|opened| opened.expect("there is a file"))
    }

    fn flip(&self, offset: u64) {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(self.path()).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], offset).unwrap();
    }

    fn seqs(&self, segment: &Segment) -> Vec<u64> {
        let mut seqs = Vec::new();
        let mut at = HEAD_BYTES;
        while at < segment.length() {
            // Less than a record: each is read alone.
            let chunk = read(segment.file(), self.job, at, segment.length(), 1).unwrap();
            assert!(chunk.next > at, "a whole record is there");
            at = chunk.next;
            for part in chunk.parts {
                seqs.extend(part.part.open(&self.keys).unwrap().iter().map(|event| event.seq));
            }
        }
        seqs
    }
}

fn state(try_number: u32, seq: u64) -> LogState {
    let mut state = LogState::default();
    state.try_number = try_number;
    state.seq = seq;
    state.guest_seq = seq;
    state
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[test]
fn what_was_appended_is_read_back_and_nobody_else_may_read_it() {
    let bench = Bench::new();
    bench.write(&[&[1, 2], &[], &[3]], |length| length);
    let mode = std::fs::metadata(bench.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let opened = bench.open().unwrap();
    assert_eq!(bench.seqs(&opened.segment), [1, 2, 3]);
    assert_eq!(opened.state, Some(state(1, 3)));
    assert_eq!(opened.last, (1, 3));
    assert!(Segment::create(&bench.path(), bench.job).is_err(), "it is never overwritten");
}

#[test]
fn a_file_that_is_cut_anywhere_keeps_its_whole_entries() {
    let bench = Bench::new();
    let ends = bench.write(&[&[1], &[2, 3], &[], &[4]], |_| 0);
    let whole = std::fs::read(bench.path()).unwrap();
    for cut in 0..=whole.len() {
        std::fs::write(bench.path(), &whole[..cut]).unwrap();
        let opened = open(&bench.path(), bench.job, &bench.keys).unwrap();
        let Some(opened) = opened else {
            assert!((cut as u64) < HEAD_BYTES);
            assert!(!bench.path().exists(), "a new one can be made");
            continue;
        };
        let entries = ends.iter().filter(|end| **end <= cut as u64).count() - 1;
        assert_eq!(opened.segment.length(), ends[entries], "cut at {cut}");
        assert_eq!(length(&bench.path()), ends[entries]);
        let expected = [0, 1, 3, 3, 4][entries];
        assert_eq!(opened.last.1, expected);
        assert_eq!(opened.state.map_or(0, |state| state.seq), expected);
    }
}

#[test]
fn an_entry_of_several_records_is_there_as_a_whole_or_not_at_all() {
    let bench = Bench::new();
    let mut segment = Segment::create(&bench.path(), bench.job).unwrap();
    segment.append(&[bench.event(1, 1)], &state(1, 1), 0, &bench.keys).unwrap();
    let first = segment.length();
    let mut events: Vec<_> = (2..6).map(|seq| bench.lines(seq, 100, 500)).collect();
    events.push(bench.event(2, 1));
    segment.append(&events, &state(2, 1), 0, &bench.keys).unwrap();
    let chunk = read(segment.file(), bench.job, HEAD_BYTES, segment.length(), 1 << 20).unwrap();
    assert_eq!(chunk.parts.len(), 6, "each of the large events is a part, and so is each try");
    assert_eq!(bench.seqs(&bench.open().unwrap().segment), [1, 2, 3, 4, 5, 1]);
    let whole = std::fs::read(bench.path()).unwrap();
    for part in &chunk.parts[1..5] {
        std::fs::write(bench.path(), &whole[..usize::try_from(part.end).unwrap()]).unwrap();
        let opened = bench.open().unwrap();
        assert_eq!((opened.segment.length(), opened.last), (first, (1, 1)));
    }
}

#[test]
fn damage_is_named_and_a_torn_tail_is_cut() {
    let bench = Bench::new();
    let ends = bench.write(&[&[1], &[2], &[3], &[4]], |length| length);
    let whole = std::fs::read(bench.path()).unwrap();
    for offset in ends[1]..ends[2] {
        std::fs::write(bench.path(), &whole).unwrap();
        bench.flip(offset);
        match bench.open() {
            Err(SegmentError::Damaged { offset, .. } | SegmentError::Key { offset, .. }) => {
                assert_eq!(offset, ends[1]);
            }
            other => panic!("a change at {offset} gives {other:?}"),
        }
        assert_eq!(length(&bench.path()), whole.len() as u64, "nothing of it is touched");
    }
    // Nothing says that the last record was on disk.
    std::fs::write(bench.path(), &whole).unwrap();
    bench.flip(ends[3] + 50);
    let opened = bench.open().unwrap();
    assert_eq!((opened.segment.length(), opened.last), (ends[3], (1, 3)));
}

#[test]
fn pages_that_came_on_disk_in_another_order_are_a_torn_tail() {
    let bench = Bench::new();
    // When the last two were written, only the first was on disk.
    let first = Segment::create(&bench.path(), bench.job).unwrap().length();
    std::fs::remove_file(bench.path()).unwrap();
    let ends = bench.write(&[&[1], &[2], &[3]], |length| length.min(first));
    bench.flip(ends[1] + 20);
    let opened = bench.open().unwrap();
    assert_eq!((opened.segment.length(), opened.last), (ends[1], (1, 1)));
}

#[test]
fn other_files_are_refused() {
    let bench = Bench::new();
    bench.write(&[&[1]], |_| 0);
    let foreign = open(&bench.path(), JobId::new(), &bench.keys).unwrap_err();
    assert!(matches!(foreign, SegmentError::Foreign(_)), "{foreign}");
    let key = open(&bench.path(), bench.job, &KeyRing::ephemeral()).unwrap_err();
    assert!(matches!(key, SegmentError::Key { offset: HEAD_BYTES, .. }), "{key}");
    let mut bytes = std::fs::read(bench.path()).unwrap();
    bytes[7] += 1;
    std::fs::write(bench.path(), &bytes).unwrap();
    assert!(matches!(bench.open(), Err(SegmentError::Newer { found: 2 })));
    std::fs::write(bench.path(), vec![7; 200]).unwrap();
    assert!(matches!(bench.open(), Err(SegmentError::Foreign(_))));
}

#[test]
fn a_write_that_fails_leaves_no_trace() {
    let bench = Bench::new();
    let mut segment = Segment::create(&bench.path(), bench.job).unwrap();
    let good = segment.swap_file(full_disk());
    let before = segment.length();
    let failed = segment.append(&[bench.event(1, 1)], &state(1, 1), 0, &bench.keys);
    assert!(matches!(failed, Err(SegmentError::Io(_))));
    assert_eq!(segment.length(), before);
    segment.swap_file(good);
    segment.append(&[bench.event(1, 1)], &state(1, 1), 0, &bench.keys).unwrap();
    assert_eq!(bench.seqs(&bench.open().unwrap().segment), [1]);
}

/// A file that cannot be written for want of room.
pub(crate) fn full_disk() -> std::sync::Arc<std::fs::File> {
    std::sync::Arc::new(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap())
}

#[test]
fn nothing_follows_the_final_event() {
    let bench = Bench::new();
    let mut segment = Segment::create(&bench.path(), bench.job).unwrap();
    let finished = Finished { result: JobResult::Success, infrastructure: None };
    let mut over = state(1, 1);
    over.finished = Some(finished.clone());
    let last = bench.event_with(1, 1, EventBody::Finished(finished.clone()));
    segment.append(&[last], &over, 0, &bench.keys).unwrap();
    assert_eq!(bench.open().unwrap().state.unwrap().finished, Some(finished));
    let end = segment.length();
    let mut state = state(1, 2);
    state.finished.clone_from(&over.finished);
    segment.append(&[bench.event(1, 2)], &state, end, &bench.keys).unwrap();
    let opened = bench.open().unwrap();
    assert_eq!(opened.segment.length(), end, "what comes behind it is cut");
}

proptest! {
    #[test]
    fn no_bytes_make_reading_panic_or_take_more_than_the_file_has(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        magic in any::<bool>(),
    ) {
        let bench = Bench::new();
        let ends = bench.write(&[&[1]], |_| 0);
        let file = std::fs::OpenOptions::new().write(true).open(bench.path()).unwrap();
        let mut tail = if magic { record::MAGIC.to_vec() } else { Vec::new() };
        tail.extend_from_slice(&bytes);
        file.write_all_at(&tail, ends[1]).unwrap();
        let file = std::fs::File::open(bench.path()).unwrap();
        let end = ends[1] + tail.len() as u64;
        if let Ok(chunk) = read(&file, bench.job, ends[1], end, 64) {
            prop_assert!(chunk.next <= end);
        }
        let opened = bench.open().unwrap();
        prop_assert_eq!(opened.segment.length(), ends[1]);
        prop_assert_eq!(opened.last, (1, 1));
    }

    #[test]
    fn a_header_is_read_as_it_was_written(bytes in any::<[u8; BYTES - 8]>()) {
        let mut all = [0; BYTES];
        all[..4].copy_from_slice(&record::MAGIC);
        all[4] = bytes[0] & 3;
        all[8..].copy_from_slice(&bytes);
        // Small enough to pass the bounds now and then.
        for index in [8, 12, 32, 36] {
            all[index] = 0;
            all[index + 1] = 0;
        }
        if let Ok(header) = Header::decode(&all) {
            prop_assert_eq!(header.encode(), all);
        }
    }
}
