//! Which waiting jobs a host takes.

use std::cmp::Ordering;

use common::ids::JobId;
use common::time::Timestamp;

use super::room::{fits, less};
use crate::store::{Room, STARVING, Size};

/// A waiting job that a host could run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Candidate {
    pub(in crate::store) job: JobId,
    pub(in crate::store) priority: i64,
    pub(in crate::store) created: Timestamp,
    /// The size that its machine has on this host.
    pub(in crate::store) size: Size,
}

/// What a host takes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Choice {
    pub(in crate::store) take: Vec<Candidate>,
    /// A job has waited too long for room: nothing behind it starts before it.
    pub(in crate::store) blocked: bool,
}

/// The order in which jobs start: priority, then age, then the order of their ids.
pub(in crate::store) fn in_order(one: &Candidate, other: &Candidate) -> Ordering {
    let by_priority = other.priority.cmp(&one.priority);
    by_priority.then(one.created.cmp(&other.created)).then(one.job.cmp(&other.job))
}

/// Chooses at most `most` of the candidates, which are in order. A job that fits starts before an
/// older one that does not, unless that one is starving and this host could ever have room for it.
pub(in crate::store) fn choose(
    candidates: &[Candidate],
    room: Room,
    now: Timestamp,
    most: usize,
) -> Choice {
    let mut choice = Choice::default();
    let mut free = room.free;
    for candidate in candidates {
        if choice.take.len() == most {
            break;
        }
        if fits(candidate.size, free) {
            free = less(free, candidate.size);
            choice.take.push(*candidate);
        } else if is_starving(candidate.created, now) && fits(candidate.size, room.capacity) {
            choice.blocked = true;
            break;
        }
    }
    choice
}

/// Whether a job has waited so long that others must wait for it.
pub(in crate::store) fn is_starving(created: Timestamp, now: Timestamp) -> bool {
    now.since(created) > STARVING
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::size::ByteSize;
    use proptest::prelude::*;

    use super::*;
    use crate::store::rules::clock::before;
    use crate::store::rules::room::plus;

    fn now() -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000)
    }

    fn size(cpus: u32) -> Size {
        Size { cpus, memory: ByteSize(u64::from(cpus) << 30) }
    }

    fn candidate(priority: i64, waited: u64, cpus: u32) -> Candidate {
        let created = before(now(), Duration::from_secs(waited));
        Candidate { job: JobId::new(), priority, created, size: size(cpus) }
    }

    /// The sizes that are taken from candidates of (priority, seconds waited, processors).
    fn check(free: u32, capacity: u32, waiting: &[(i64, u64, u32)], taken: &[u32], blocked: bool) {
        let mut candidates: Vec<_> = waiting.iter().map(|w| candidate(w.0, w.1, w.2)).collect();
        candidates.sort_by(in_order);
        let room = Room { free: size(free), capacity: size(capacity) };
        let choice = choose(&candidates, room, now(), 100);
        let sizes: Vec<u32> = choice.take.iter().map(|one| one.size.cpus).collect();
        assert_eq!((sizes.as_slice(), choice.blocked), (taken, blocked), "{waiting:?}");
    }

    #[test]
    fn by_priority_then_age() {
        check(6, 8, &[(0, 9, 1), (5, 1, 2), (0, 8, 3), (5, 2, 4)], &[4, 2], false);
    }

    #[test]
    fn what_fits_goes_before_an_older_one_that_does_not() {
        check(2, 8, &[(0, 500, 4), (0, 400, 2), (0, 300, 1)], &[2], false);
    }

    #[test]
    fn a_starving_job_stops_those_behind_it() {
        check(2, 8, &[(0, 601, 4), (0, 400, 2)], &[], true);
        check(2, 8, &[(1, 10, 1), (0, 601, 4), (0, 400, 1)], &[1], true);
        // It fits at first, and not after the one before it.
        check(4, 8, &[(0, 700, 2), (0, 650, 3), (0, 400, 1)], &[2], true);
        // This host can never run it.
        check(2, 8, &[(0, 9999, 16), (0, 400, 2)], &[2], false);
    }

    proptest! {
        /// Whatever waits: what is taken fits together, is in order, and leaves nothing that would
        /// still fit unless a starving job stands before it.
        #[test]
        fn takes_what_it_can(
            waiting in prop::collection::vec((0i64..3, 0u64..1200, 1u32..9), 0..40),
            free in 0u32..9,
            most in 0usize..20,
        ) {
            let mut candidates: Vec<_> =
                waiting.iter().map(|w| candidate(w.0, w.1, w.2)).collect();
            candidates.sort_by(in_order);
            let room = Room { free: size(free), capacity: size(8) };
            let choice = choose(&candidates, room, now(), most);

            prop_assert!(choice.take.len() <= most);
            prop_assert!(choice.take.is_sorted_by(|a, b| in_order(a, b).is_lt()));
            let used = choice.take.iter().fold(size(0), |sum, one| plus(sum, one.size));
            prop_assert!(fits(used, room.free));
            let left = less(room.free, used);
            for other in candidates.iter().filter(|other| !choice.take.contains(other)) {
                prop_assert!(
                    !fits(other.size, left) || choice.blocked || choice.take.len() == most
                );
            }
        }
    }
}
