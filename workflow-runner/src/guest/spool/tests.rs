use std::cell::RefCell;
use std::rc::Rc;

use common::event::{JobResult, Summary};
use common::frame::Decoder;
use common::limits::FRAME_BYTES;
use proptest::prelude::*;

use super::*;

/// Segments in memory that can be told to refuse writes after part of the bytes went in.
#[derive(Clone, Default)]
struct Fake(Rc<RefCell<FakeState>>);

#[derive(Default)]
struct FakeState {
    full: bool,
    unreadable: bool,
    live: usize,
}

struct FakeSegment {
    fake: Fake,
    bytes: RefCell<Vec<u8>>,
}

impl Disk for Fake {
    fn create(&self) -> io::Result<Box<dyn Segment>> {
        if self.0.borrow().full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.borrow_mut().live += 1;
        Ok(Box::new(FakeSegment { fake: self.clone(), bytes: RefCell::default() }))
    }
}

impl Drop for FakeSegment {
    fn drop(&mut self) {
        self.fake.0.borrow_mut().live -= 1;
    }
}

impl Segment for FakeSegment {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let full = self.fake.0.borrow().full;
        let taken = if full { bytes.len() / 2 } else { bytes.len() };
        let mut file = self.bytes.borrow_mut();
        let offset = usize::try_from(offset).unwrap();
        let end = (offset + taken).max(file.len());
        file.resize(end, 0);
        file[offset..offset + taken].copy_from_slice(&bytes[..taken]);
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if self.fake.0.borrow().unreadable {
            return Err(io::Error::other("the medium is broken"));
        }
        let file = self.bytes.borrow();
        let offset = usize::try_from(offset).unwrap();
        bytes.copy_from_slice(&file[offset..offset + bytes.len()]);
        Ok(())
    }
}

const SMALL: SpoolLimits = SpoolLimits { chunk: 300, window: 1_000, segment: 1_500, total: 6_000 };

/// One event of these tests is never larger than this, framed.
const EVENT_BYTES: usize = 400;

fn event(number: u64, padding: usize) -> GuestEvent {
    let text = format!("{number} {}", "x".repeat(padding));
    let line =
        LogLine { time: Timestamp::from_micros(number), stream: Stream::Stdout, text: text.into() };
    GuestEvent::Log(LogBatch { step: Some(0), lines: vec![line] })
}

/// Reads from `from` to the end in portions, as a connection does.
fn read_all(spool: &Spool, from: u64, enough: usize) -> Vec<(u64, GuestEvent)> {
    let mut events = Vec::new();
    let mut decoder = Decoder::default();
    let mut next = from;
    while next < spool.next() {
        let mut out = Vec::new();
        next = spool.read(next, enough, &mut out).unwrap();
        decoder.push(&out);
        while let Some(frame) = decoder.next_frame().unwrap() {
            let FromGuest::Event { seq, event } = frame else { panic!("{frame:?}") };
            events.push((seq, event));
        }
        assert_eq!(events.last().map(|(seq, _)| seq + 1), Some(next), "only whole frames are read");
    }
    events
}

#[derive(Clone, Debug)]
enum Action {
    Push(usize),
    Acknowledge(f64),
    Attach(f64, usize),
    DiskFull(bool),
    Relieve,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (0..300_usize).prop_map(Action::Push),
        2 => (0.0..1.1_f64).prop_map(Action::Acknowledge),
        2 => (0.0..1.0_f64, 1..2_000_usize).prop_map(|(place, enough)| Action::Attach(place, enough)),
        1 => any::<bool>().prop_map(Action::DiskFull),
        1 => Just(Action::Relieve),
    ]
}

proptest! {
    #[test]
    fn every_event_is_delivered_in_order_and_once_per_attach(
        actions in prop::collection::vec(action(), 1..200),
    ) {
        let fake = Fake::default();
        let mut spool = Spool::new(SMALL, fake.clone());
        let mut pushed = Vec::new();
        let mut acknowledged = 0;
        for action in actions {
            match action {
                Action::Push(padding) => {
                    if spool.has_room() {
                        let seq = spool.next();
                        pushed.push((seq, event(seq, padding)));
                        spool.push(event(seq, padding));
                    }
                }
                Action::Acknowledge(place) => {
                    let last = (place * pushed.len() as f64) as u64;
                    spool.acknowledge(last);
                    acknowledged = acknowledged.max(last.min(pushed.len() as u64));
                }
                Action::Attach(place, enough) => {
                    let kept = pushed.len() as u64 - acknowledged;
                    let from = acknowledged + 1 + (place * kept as f64) as u64;
                    let got = read_all(&spool, from, enough);
                    prop_assert_eq!(&got, &pushed[from as usize - 1..]);
                }
                Action::DiskFull(full) => fake.0.borrow_mut().full = full,
                Action::Relieve => spool.relieve(),
            }
            prop_assert_eq!(spool.first(), acknowledged + 1);
            prop_assert_eq!(spool.next(), pushed.len() as u64 + 1);
            let (memory, stored) = spool.bytes();
            prop_assert!(memory <= SMALL.window + EVENT_BYTES);
            prop_assert!(memory as u64 + stored < SMALL.total + EVENT_BYTES as u64);
            let most = SMALL.total / SMALL.segment + 3;
            prop_assert!(fake.0.borrow().live as u64 <= most, "segments are dropped");
        }
        // Whatever happened before, acknowledgements alone make room again.
        spool.acknowledge(u64::MAX);
        prop_assert!(spool.is_empty() && spool.has_room());
        prop_assert_eq!(spool.bytes(), (0, 0));
        prop_assert_eq!(fake.0.borrow().live, 0);
    }
}

fn fill(spool: &mut Spool) -> u64 {
    while spool.has_room() {
        spool.push(event(spool.next(), 100));
    }
    spool.next() - 1
}

#[test]
fn a_full_disk_stops_at_the_window_and_loses_nothing() {
    let fake = Fake::default();
    fake.0.borrow_mut().full = true;
    let mut spool = Spool::new(SMALL, fake.clone());
    let last = fill(&mut spool);
    assert!(spool.bytes().0 > SMALL.window && spool.bytes().1 == 0);

    spool.acknowledge(last / 2);
    assert!(spool.has_room(), "an acknowledgement is enough");
    let last = fill(&mut spool);

    fake.0.borrow_mut().full = false;
    spool.relieve();
    assert!(spool.has_room(), "so is room on the disk");
    let first = spool.first();
    let got: Vec<u64> = read_all(&spool, first, 64).into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(got, (first..=last).collect::<Vec<_>>());
}

#[test]
fn the_limit_counts_memory_and_disk() {
    let mut spool = Spool::new(SMALL, Fake::default());
    fill(&mut spool);
    let (memory, stored) = spool.bytes();
    assert!(memory <= SMALL.window);
    assert!((SMALL.total..SMALL.total + 400).contains(&(memory as u64 + stored)));
}

#[test]
fn a_segment_that_cannot_be_read_is_an_error_and_not_a_hole() {
    let fake = Fake::default();
    let mut spool = Spool::new(SMALL, fake.clone());
    fill(&mut spool);
    fake.0.borrow_mut().unreadable = true;
    let mut out = b"before".to_vec();
    assert!(spool.read(1, 64, &mut out).is_err());
    assert_eq!(out, b"before");
}

#[test]
fn what_does_not_fit_in_a_frame_is_split_or_named() {
    let mut spool = Spool::new(SpoolLimits::default(), Fake::default());
    let GuestEvent::Log(batch) = event(1, 1024) else { unreachable!() };
    let lines = vec![batch.lines[0].clone(); 10_000];
    spool.push(GuestEvent::Log(LogBatch { step: Some(2), lines }));
    spool.push(GuestEvent::Summary(Summary { step: 4, markdown: "x".repeat(FRAME_BYTES) }));
    spool.push(GuestEvent::Finished(JobResult::Success));

    let events = read_all(&spool, 1, 1);
    assert!(events.iter().map(|(seq, _)| *seq).eq(1..=events.len() as u64));
    let mut lines = 0;
    let mut notices = Vec::new();
    for (_, event) in &events {
        if let GuestEvent::Log(batch) = event {
            match batch.step {
                Some(2) => lines += batch.lines.len(),
                _ => notices.push(batch.lines[0].text.to_text()),
            }
        }
    }
    assert_eq!(lines, 10_000);
    assert_eq!(notices.len(), 1);
    assert!(notices[0].starts_with("a step's summary was dropped: "), "{}", notices[0]);
    assert_eq!(events.last().unwrap().1, GuestEvent::Finished(JobResult::Success));
}

#[test]
fn segment_files_have_no_name() {
    let place = tempfile::tempdir().unwrap();
    let mut spool = Spool::new(SMALL, Folder(place.path().to_owned()));
    let last = fill(&mut spool);
    assert!(spool.bytes().1 > 0);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    assert_eq!(read_all(&spool, 1, 500).len() as u64, last);
}
