use common::event::{LogBatch, LogLine, Stream};
use common::ids::{HostId, JobId};
use proptest::prelude::*;

use super::*;
use crate::message::samples::{HOST, JOB, events, id, numbered, time};
use crate::seal::SealError;

fn log(bytes: usize) -> EventBody {
    let text = vec![b'x'; bytes].into();
    let line = LogLine { time: time(0), stream: Stream::Stdout, text };
    EventBody::Log(LogBatch { step: None, lines: vec![line] })
}

/// Parts of two events each, over two tries.
fn batch(keys: &KeyRing) -> EventBatch {
    let part = |try_number, first, bodies: [EventBody; 2]| {
        EventPart::seal(&numbered(id(JOB), try_number, first, bodies), keys).unwrap()
    };
    let end = || events().pop().unwrap().event;
    let parts = vec![
        part(1, 5, [log(3), log(3)]),
        part(1, 7, [log(3), log(3)]),
        part(2, 1, [log(3), end()]),
    ];
    EventBatch { host: id(HOST), parts }
}

proptest! {
    #[test]
    fn a_batch_that_was_cut_or_changed_does_not_open(
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let keys = KeyRing::ephemeral();
        let batch = batch(&keys);
        let mut bytes = batch.encode().unwrap();
        let at = at.index(bytes.len());
        prop_assert!(EventBatch::decode(&bytes[..at]).is_err());
        bytes[at] ^= 1 << bit;
        if let Ok(changed) = EventBatch::decode(&bytes) {
            // The host is not sealed: a wrong one makes an answer go astray, nothing else.
            let opened = changed.parts.iter().try_for_each(|part| part.open(&keys).map(drop));
            prop_assert!(opened.is_err() || changed.host != batch.host);
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let header = &batch(&KeyRing::ephemeral()).encode().unwrap()[..wire::HEADER_BYTES];
        prop_assert!(EventBatch::decode(&[header, &bytes].concat()).is_err());
    }
}

#[test]
fn events_come_out_as_they_went_in() {
    let keys = KeyRing::ephemeral();
    let part = EventPart::seal(&events(), &keys).unwrap();
    assert_eq!((part.first, part.count, part.last), (1, 7, true));
    assert_eq!(part.open(&keys), Ok(events()));
    let batch = batch(&keys);
    assert_eq!(EventBatch::decode(&batch.encode().unwrap()), Ok(batch));
}

#[test]
fn a_part_with_another_header_does_not_open() {
    let keys = KeyRing::ephemeral();
    let part = EventPart::seal(&events(), &keys).unwrap();
    type Change = fn(&mut EventPart);
    let changes: [Change; 5] = [
        |part| part.job = JobId::new(),
        |part| part.try_number += 1,
        |part| part.first += 1,
        |part| part.count += 1,
        |part| part.last = false,
    ];
    for change in changes {
        let mut other = part.clone();
        change(&mut other);
        let broken = SealError::Broken { context: "events" };
        assert_eq!(other.open(&keys), Err(MessageError::Seal(broken)));
    }
    let refused = part.open(&KeyRing::ephemeral());
    assert!(
        matches!(refused, Err(MessageError::Seal(SealError::UnknownKey { .. }))),
        "{refused:?}"
    );
}

/// Whoever has the key may still make mistakes: nothing that does not belong together is opened.
#[test]
fn events_that_do_not_belong_together_are_neither_sealed_nor_opened() {
    let keys = KeyRing::ephemeral();
    type Change = fn(&mut Vec<JobEvent>);
    let changes: [(Change, bool); 7] = [
        (|events| events[1].seq = 3, true),
        (|events| drop(events.remove(2)), true),
        (|events| events.swap(0, 1), true),
        (|events| events[2].try_number = 1, true),
        (|events| events[2].job = JobId::new(), true),
        (|events| events.swap(5, 6), true),
        (
            |events| {
                events.swap(5, 6);
                events[5].seq = 6;
                events[6].seq = 7;
            },
            false,
        ),
    ];
    for (change, last) in changes {
        let mut events = events();
        change(&mut events);
        let refused = EventPart::seal(&events, &keys).unwrap_err();
        assert!(matches!(refused, MessageError::Events { .. }), "{refused}");

        let header = Header { job: id(JOB), try_number: 2, first: 1, count: 7, last };
        let part = forged(header, &events, PROTOCOL_VERSION, &keys);
        assert!(matches!(part.open(&keys), Err(MessageError::Events { .. })));
    }
    assert!(matches!(EventPart::seal(&[], &keys), Err(MessageError::Events { .. })));
    for (try_number, first) in [(0, 1), (1, 0), (1, u64::MAX)] {
        let events = numbered(id(JOB), try_number, first.min(9), [log(1)]);
        let events: Vec<_> = events.into_iter().map(|e| JobEvent { seq: first, ..e }).collect();
        let refused = EventPart::seal(&events, &keys).unwrap_err();
        assert!(matches!(refused, MessageError::Field { .. }), "{refused}");
    }
}

#[test]
fn a_part_of_a_newer_version_is_refused_with_its_version() {
    let keys = KeyRing::ephemeral();
    let header = Header::of(&events()).unwrap();
    let part = forged(header, &events(), PROTOCOL_VERSION + 1, &keys);
    assert!(matches!(part.open(&keys), Err(MessageError::Newer { .. })));
}

/// A part as a program would seal it that does not check.
fn forged(header: Header, events: &[JobEvent], version: u16, keys: &KeyRing) -> EventPart {
    let mut plain = version.to_be_bytes().to_vec();
    wire::write(&mut plain, &events).unwrap();
    let sealed = keys.seal(PURPOSE, &owner(header.job), &header.bound(), &plain);
    let Header { job, try_number, first, count, last } = header;
    EventPart { job, try_number, first, count, last, events: sealed }
}

#[test]
fn the_parts_of_a_batch_follow_each_other() {
    let keys = KeyRing::ephemeral();
    type Change = fn(&mut EventBatch);
    let changes: [Change; 7] = [
        |batch| batch.parts.clear(),
        |batch| batch.parts.swap(0, 1),
        |batch| batch.parts.swap(1, 2),
        |batch| drop(batch.parts.remove(1).job.short() + &batch.parts.remove(0).job.short()),
        |batch| batch.parts[1].job = JobId::new(),
        |batch| batch.parts[0].last = true,
        |batch| batch.parts[2].first = 2,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut batch = batch(&keys);
        change(&mut batch);
        // Without the first two parts the third is a batch of its own.
        let alone = number == 3;
        assert_eq!(batch.encode().is_ok(), alone, "{batch:?}");
        let bytes = wire::encode(EventBatch::KIND, LIMIT, &batch).unwrap();
        assert_eq!(EventBatch::decode(&bytes).is_ok(), alone, "{batch:?}");
    }
}

#[test]
fn a_batch_is_small_and_one_large_part_travels_alone() {
    let keys = KeyRing::ephemeral();
    let host: HostId = id(HOST);
    let part = |first, bytes| EventPart::seal(&numbered(id(JOB), 1, first, [log(bytes)]), &keys);
    let largest = part(1, EVENT_PART_BYTES - 200).unwrap();
    let alone = EventBatch { host, parts: vec![largest.clone()] };
    let bytes = alone.encode().unwrap();
    assert!(bytes.len() <= largest.message_bytes() + PART_HEADER_BYTES);
    assert_eq!(EventBatch::decode(&bytes), Ok(alone));
    assert!(matches!(part(1, EVENT_PART_BYTES), Err(MessageError::TooLarge { .. })));

    let parts = vec![part(1, EVENT_BATCH_BYTES).unwrap(), part(2, 1).unwrap()];
    let two = EventBatch { host, parts };
    assert!(matches!(two.encode(), Err(MessageError::TooLarge { limit: EVENT_BATCH_BYTES, .. })));
    let bytes = wire::encode(EventBatch::KIND, LIMIT, &two).unwrap();
    assert!(matches!(EventBatch::decode(&bytes), Err(MessageError::TooLarge { .. })));

    let parts: Vec<_> = (1..=100).map(|first| part(first, 1).unwrap()).collect();
    let most: usize = parts.iter().map(EventPart::message_bytes).sum();
    let many = EventBatch { host, parts };
    assert!(many.encode().unwrap().len() <= most, "the estimate is an upper bound");
}
