use std::time::Duration;

use common::limits::{MACHINE_CPUS, STEPS, YAML_DEPTH};
use common::plan::Value;
use common::request::PROTOCOL_VERSION;
use common::size::ByteSize;
use proptest::prelude::*;

use super::*;
use crate::message::samples::request;
use crate::message::wire::HEADER_BYTES;
use crate::seal::SealError;

fn sealed() -> (KeyRing, JobMessage) {
    let keys = KeyRing::ephemeral();
    let message = JobMessage::seal(&request(), &keys).unwrap();
    (keys, message)
}

fn with_version(version: u16) -> Vec<u8> {
    let mut bytes = sealed().1.encode();
    bytes[HEADER_BYTES - 2..HEADER_BYTES].copy_from_slice(&version.to_be_bytes());
    bytes
}

proptest! {
    #[test]
    fn a_cut_message_is_refused(at in any::<prop::sample::Index>()) {
        let (_, message) = sealed();
        let bytes = message.encode();
        prop_assert!(JobMessage::decode(&bytes[..at.index(bytes.len())]).is_err());
    }

    #[test]
    fn a_changed_bit_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let (keys, message) = sealed();
        let mut bytes = message.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(JobMessage::decode(&bytes).and_then(|message| message.open(&keys)).is_err());
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(JobMessage::decode(&bytes), Err(MessageError::Foreign));
        let message = [&with_version(PROTOCOL_VERSION)[..HEADER_BYTES], &bytes].concat();
        prop_assert!(JobMessage::decode(&message).is_err());
        prop_assert!(JobMessage::from_stored(&bytes, &bytes).is_err());
        let envelope = sealed().1.envelope_bytes;
        prop_assert!(JobMessage::from_stored(&bytes, &sealed().1.body_bytes()).is_err());
        if let Ok(message) = JobMessage::from_stored(&envelope, &bytes) {
            prop_assert!(message.open(&KeyRing::ephemeral()).is_err());
        }
    }
}

#[test]
fn a_job_with_too_many_steps_is_refused_on_both_sides() {
    let keys = KeyRing::ephemeral();
    let mut request = request();
    let step = request.body.plan.steps[0].clone();
    request.body.plan.steps = vec![step.clone(); STEPS];
    assert!(JobMessage::seal(&request, &keys).unwrap().open(&keys).is_ok());
    request.body.plan.steps.push(step);
    let refused = JobMessage::seal(&request, &keys).unwrap_err().to_string();
    assert_eq!(refused, r#"plan.steps is "1001": 1000 steps at most"#);
    // Another program may not have looked.
    let mut plain = Vec::new();
    wire::write(&mut plain, &request.body).unwrap();
    let mut envelope_bytes = Vec::new();
    wire::write(&mut envelope_bytes, &request.envelope).unwrap();
    let envelope = request.envelope;
    let body = keys.seal(PURPOSE, &owner(&envelope), &bound(&envelope, &envelope_bytes), &plain);
    let message = JobMessage { envelope, envelope_bytes, body };
    assert_eq!(message.open(&keys).unwrap_err().to_string(), refused);
}

#[test]
fn a_request_comes_out_as_it_went_in() {
    let (keys, message) = sealed();
    let received = JobMessage::decode(&message.encode()).unwrap();
    assert_eq!(received, message);
    assert_eq!(received.open(&keys), Ok(request()));
    let stored = JobMessage::from_stored(message.envelope_bytes(), &message.body_bytes()).unwrap();
    assert_eq!(stored, message);
}

#[test]
fn nothing_of_the_body_can_be_read_without_the_key() {
    let (_, message) = sealed();
    let bytes = message.encode();
    let shows = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(shows("debian-12"), "the envelope is in plain text");
    for secret in ["hunter2", "hunter3", "TOKEN", "build", "github"] {
        assert!(!shows(secret), "{secret}");
        assert!(!format!("{message:?}").contains(secret), "{secret}");
    }
    let refused = message.open(&KeyRing::ephemeral());
    assert!(
        matches!(refused, Err(MessageError::Seal(SealError::UnknownKey { .. }))),
        "{refused:?}"
    );
}

#[test]
fn a_body_that_was_moved_to_another_envelope_does_not_open() {
    let (keys, message) = sealed();
    let change: [fn(&mut Envelope); 3] = [
        |envelope| envelope.job = common::ids::JobId::new(),
        |envelope| envelope.label.push('x'),
        |envelope| envelope.priority += 1,
    ];
    for change in change {
        let mut other = request();
        change(&mut other.envelope);
        let other = JobMessage::seal(&other, &keys).unwrap();
        let moved = JobMessage::from_stored(other.envelope_bytes(), &message.body_bytes()).unwrap();
        let moved = JobMessage::decode(&moved.encode()).unwrap();
        let broken = SealError::Broken { context: "job" };
        assert_eq!(moved.open(&keys), Err(MessageError::Seal(broken)));
    }
}

/// The bytes of a message with this envelope, whatever stands in it.
fn with_envelope(change: impl FnOnce(&mut Envelope)) -> Vec<u8> {
    let (_, mut message) = sealed();
    change(&mut message.envelope);
    message.envelope_bytes.clear();
    wire::write(&mut message.envelope_bytes, &message.envelope).unwrap();
    message.encode()
}

#[test]
fn a_refused_envelope_can_be_answered_and_never_runs() {
    let bytes = with_envelope(|envelope| {
        envelope.label = "../x".to_owned();
        envelope.repository = "a\nb".to_owned();
        envelope.size.cpus = Some(0);
        envelope.priority = i32::MAX;
    });
    assert!(matches!(JobMessage::decode(&bytes), Err(MessageError::Field { .. })));
    let answerable = JobMessage::answerable(&bytes).unwrap();
    assert_eq!(JobMessage::decode(&answerable.encode()).as_ref(), Ok(&answerable));
    let (sent, kept) = (request().envelope, answerable.envelope());
    assert_eq!((kept.job, kept.forge, &kept.reply_to), (sent.job, sent.forge, &sent.reply_to));
    assert_eq!((kept.label.as_str(), kept.repository.as_str()), ("refused", ""));
    assert_eq!(kept.priority, 0);
}

#[test]
fn no_more_processors_are_asked_for_than_a_machine_can_have() {
    let decoded = |cpus| {
        let bytes = with_envelope(|envelope| envelope.size.cpus = Some(cpus));
        JobMessage::decode(&bytes).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(decoded(MACHINE_CPUS), Ok(()));
    let error = decoded(MACHINE_CPUS + 1).unwrap_err();
    assert!(error.contains(&format!("a number from 1 to {MACHINE_CPUS}")), "{error}");
}

#[test]
fn the_body_of_a_refused_envelope_does_not_open() {
    let (keys, message) = sealed();
    let answerable = JobMessage::answerable(&message.encode()).unwrap();
    assert!(answerable.open(&keys).is_err());
}

#[test]
fn nobody_is_told_where_no_address_can_be_read() {
    for address in ["", "../x", "a b"] {
        let bytes = with_envelope(|envelope| {
            envelope.reply_to = address.to_owned();
            envelope.label.clear();
        });
        assert_eq!(JobMessage::answerable(&bytes), None, "{address:?}");
    }
    let bytes = sealed().1.encode();
    assert_eq!(JobMessage::answerable(&bytes[..bytes.len() - 1]), None);
    assert_eq!(JobMessage::answerable(&with_version(2)), None);
}

#[test]
fn another_version_is_refused_before_anything_else_is_read() {
    let newer = MessageError::Newer { found: 2, known: 1 };
    assert_eq!(JobMessage::decode(&with_version(2)).unwrap_err(), newer);
    let mut garbage = with_version(2)[..HEADER_BYTES].to_vec();
    garbage[3] = b'?';
    garbage.resize(LIMIT + 1, 0xff);
    assert_eq!(JobMessage::decode(&garbage).unwrap_err(), newer);
    assert!(matches!(JobMessage::decode(&with_version(0)), Err(MessageError::Malformed { .. })));

    #[derive(Serialize)]
    struct FromTheFuture {
        version: u16,
        surprise: bool,
    }
    let mut envelope = Vec::new();
    wire::write(&mut envelope, &FromTheFuture { version: 2, surprise: true }).unwrap();
    let stored = JobMessage::from_stored(&envelope, &sealed().1.body_bytes());
    assert_eq!(stored.unwrap_err(), newer);
}

#[test]
fn another_kind_bytes_left_over_and_unknown_fields_are_refused() {
    let (_, message) = sealed();
    let mut bytes = message.encode();
    bytes.push(0);
    assert!(matches!(JobMessage::decode(&bytes), Err(MessageError::Malformed { .. })));
    bytes.pop();
    bytes[3] = b'E';
    let expected = MessageError::Kind { found: b'E', expected: b'J' };
    assert_eq!(JobMessage::decode(&bytes).unwrap_err(), expected);

    let mut envelope = message.envelope_bytes.clone();
    envelope.push(0);
    assert!(JobMessage::from_stored(&envelope, &message.body_bytes()).is_err());
    envelope.pop();
    envelope[0] += 1;
    envelope.extend_from_slice(b"\xa4more\xc0");
    let refused = JobMessage::from_stored(&envelope, &message.body_bytes()).unwrap_err();
    assert!(refused.to_string().contains("more"), "{refused}");
}

#[test]
fn every_field_of_the_envelope_is_checked() {
    type Change = fn(&mut Envelope);
    let changes: &[(&str, Change)] = &[
        ("version", |envelope| envelope.version = 2),
        ("label", |envelope| envelope.label.clear()),
        ("label", |envelope| envelope.label = "-x".to_owned()),
        ("label", |envelope| envelope.label = "..".to_owned()),
        ("label", |envelope| envelope.label = "a/b".to_owned()),
        ("label", |envelope| envelope.label = "$(id)".to_owned()),
        ("label", |envelope| envelope.label = "a\nb".to_owned()),
        ("label", |envelope| envelope.label = "ä".to_owned()),
        ("label", |envelope| envelope.label = "x".repeat(101)),
        ("repository", |envelope| envelope.repository = "x".repeat(301)),
        ("repository", |envelope| envelope.repository = "a\u{1b}[2J/b".to_owned()),
        ("size.cpus", |envelope| envelope.size.cpus = Some(0)),
        ("size.cpus", |envelope| envelope.size.cpus = Some(u32::MAX)),
        ("size.memory", |envelope| envelope.size.memory = Some(ByteSize(0))),
        ("size.memory", |envelope| envelope.size.memory = Some(ByteSize(u64::MAX))),
        ("deadlines.queued", |envelope| envelope.deadlines.queued = Duration::ZERO),
        ("deadlines.running", |envelope| envelope.deadlines.running = Duration::MAX),
        ("reply_to", |envelope| envelope.reply_to = "../x".to_owned()),
    ];
    for (expected, change) in changes {
        let mut request = request();
        change(&mut request.envelope);
        let keys = KeyRing::ephemeral();
        let refused = JobMessage::seal(&request, &keys).unwrap_err();
        assert!(matches!(refused, MessageError::Field { field, .. } if field == *expected));

        // The same from someone who does not check.
        let mut envelope = Vec::new();
        wire::write(&mut envelope, &request.envelope).unwrap();
        let body = keys.seal(PURPOSE, b"", b"", b"");
        let outgoing = Outgoing { envelope: &envelope, body: &body };
        let bytes = wire::encode(JobMessage::KIND, LIMIT, &outgoing).unwrap();
        let received = JobMessage::decode(&bytes).unwrap_err();
        if *expected == "version" {
            assert!(matches!(received, MessageError::Newer { found: 2, .. }), "{received}");
        } else {
            assert_eq!(received, refused);
        }
    }
    let mut least = request();
    least.envelope.reply_to.clear();
    least.envelope.repository.clear();
    least.envelope.size = common::request::MachineSize::default();
    least.envelope.priority = i32::MIN;
    JobMessage::seal(&least, &KeyRing::ephemeral()).unwrap();
}

#[test]
fn the_limit_counts_for_the_whole_message() {
    let keys = KeyRing::ephemeral();
    let mut large = request();
    large.body.plan.name = "x".repeat(LIMIT - 2048);
    let bytes = JobMessage::seal(&large, &keys).unwrap().encode();
    JobMessage::decode(&bytes).unwrap().open(&keys).unwrap();
    large.body.plan.name = "x".repeat(LIMIT);
    let refused = JobMessage::seal(&large, &keys).unwrap_err();
    assert!(matches!(refused, MessageError::TooLarge { limit: LIMIT, .. }), "{refused}");
    let mut bytes = bytes;
    bytes.resize(LIMIT + 1, 0);
    let refused = JobMessage::decode(&bytes).unwrap_err();
    assert_eq!(refused, MessageError::TooLarge { bytes: LIMIT + 1, limit: LIMIT });
}

#[test]
fn the_deepest_workflow_fits_and_what_is_deeper_is_refused_when_it_is_sealed() {
    let nested = |depth: usize| {
        let mut request = request();
        request.body.plan.outputs = (0..depth).fold(Value::literal("x"), |inner, _| {
            Value::Mapping(vec![(Value::literal("key"), inner)])
        });
        request
    };
    let keys = KeyRing::ephemeral();
    let deepest = nested(YAML_DEPTH);
    assert_eq!(JobMessage::seal(&deepest, &keys).unwrap().open(&keys), Ok(deepest));
    let refused = JobMessage::seal(&nested(2 * YAML_DEPTH), &keys);
    assert!(matches!(refused, Err(MessageError::Malformed { .. })), "{refused:?}");
}
