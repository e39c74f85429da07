use std::fmt::Debug;

use proptest::prelude::*;

use super::*;
use crate::message::samples::{controls, reserve, reserved};
use crate::message::wire::HEADER_BYTES;

fn returns<T: Message + PartialEq + Debug>(message: &T) {
    let bytes = message.encode().unwrap();
    assert_eq!(T::decode(&bytes).as_ref(), Ok(message));
    for cut in 0..bytes.len() {
        assert!(T::decode(&bytes[..cut]).is_err(), "{cut} of {} bytes", bytes.len());
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(T::decode(&longer).is_err());
    let mut newer = bytes;
    newer[HEADER_BYTES - 1] += 1;
    assert!(matches!(T::decode(&newer), Err(MessageError::Newer { found: 2, known: 1 })));
}

#[test]
fn messages_come_out_as_they_went_in_and_nothing_else_does() {
    for (_, control) in controls() {
        returns(&control);
    }
    returns(&reserve());
    returns(&reserved());
}

#[test]
fn fields_and_sizes_are_checked_on_both_sides() {
    type Change = fn(&mut Reserve);
    let changes: [Change; 5] = [
        |question| question.runner.clear(),
        |question| question.runner = "a\nb".to_owned(),
        |question| question.runner = "x".repeat(101),
        |question| question.labels.push("../x".to_owned()),
        |question| question.labels = vec!["x".to_owned(); 257],
    ];
    for change in changes {
        let mut question = reserve();
        change(&mut question);
        assert!(matches!(question.encode(), Err(MessageError::Field { .. })));
        let bytes = wire::encode(Reserve::KIND, usize::MAX, &question).unwrap();
        assert!(matches!(Reserve::decode(&bytes), Err(MessageError::Field { .. })));
    }
    let mut most = reserve();
    most.labels = vec!["x".repeat(100); 256];
    returns(&most);

    let [(_, cancel), ..] = controls();
    let mut bytes = cancel.encode().unwrap();
    bytes.resize(CONTROL_BYTES + 1, 0);
    assert!(matches!(Control::decode(&bytes), Err(MessageError::TooLarge { .. })));
    assert!(matches!(Reserve::decode(&bytes), Err(MessageError::Kind { .. })));
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let header = |kind| [b'S', b'O', b'L', kind, 0, 1];
        prop_assert!(Control::decode(&[&header(b'C'), bytes.as_slice()].concat()).is_err());
        drop(Reserve::decode(&[&header(b'R'), bytes.as_slice()].concat()));
        drop(Reserved::decode(&[&header(b'A'), bytes.as_slice()].concat()));
    }

    #[test]
    fn a_changed_bit_never_panics(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bytes = reserve().encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Reserve::decode(&bytes).is_err() || at >= HEADER_BYTES);
    }
}
