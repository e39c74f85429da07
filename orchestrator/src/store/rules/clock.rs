//! What is over and what is not, by a clock that may have been set in between.

use std::time::Duration;

use common::time::Timestamp;

use crate::store::{LEASE, RESERVATION, SILENT};

/// Differences between two readings of the clock that are no jump.
pub(in crate::store) const SLACK: Duration = Duration::from_secs(5);

/// A moment later than another.
pub(in crate::store) fn after(time: Timestamp, wait: Duration) -> Timestamp {
    let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
    Timestamp::from_micros(time.as_micros().saturating_add(micros))
}

/// A moment earlier than another.
pub(in crate::store) fn before(time: Timestamp, wait: Duration) -> Timestamp {
    let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
    Timestamp::from_micros(time.as_micros().saturating_sub(micros))
}

/// Whether a host that was heard at `heartbeat` still has its jobs. A heartbeat of the future,
/// after the clock was set back, counts as one of now; [`crate::store::Store::announce`] corrects
/// it.
pub(in crate::store) fn is_alive(heartbeat: Timestamp, now: Timestamp) -> bool {
    now.since(heartbeat) <= LEASE
}

/// Whether a process that was heard at `heartbeat` must be taken for a running one. A heartbeat of
/// the future is of a process that has not spoken since the clock was set back.
pub(in crate::store) fn is_heard(heartbeat: Timestamp, now: Timestamp) -> bool {
    now.since(heartbeat) <= SILENT && heartbeat <= after(now, SLACK)
}

/// Whether what is unused of a reservation is still held. One that would last longer than any
/// reservation does was made before the clock was set back: it has lapsed.
pub(in crate::store) fn is_held(expires: Timestamp, now: Timestamp) -> bool {
    expires > now && expires.since(now) <= RESERVATION + SLACK
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MOMENT: Duration = Duration::from_micros(1);

    fn noon() -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000)
    }

    #[test]
    fn a_host_is_alive_for_the_length_of_a_lease() {
        let now = noon();
        for (heartbeat, alive) in [
            (now, true),
            (before(now, LEASE), true),
            (before(now, LEASE + MOMENT), false),
            (after(now, HOUR), true),
            (Timestamp::from_micros(0), false),
        ] {
            assert_eq!(is_alive(heartbeat, now), alive, "{heartbeat}");
        }
    }

    #[test]
    fn a_process_is_taken_for_running_while_it_speaks() {
        let now = noon();
        for (heartbeat, heard) in [
            (now, true),
            (before(now, SILENT), true),
            (before(now, SILENT + MOMENT), false),
            (after(now, HOUR), false),
        ] {
            assert_eq!(is_heard(heartbeat, now), heard, "{heartbeat}");
        }
    }

    #[test]
    fn a_reservation_lapses_also_when_the_clock_jumps() {
        let made = noon();
        let expires = after(made, RESERVATION);
        for (now, held) in [
            (made, true),
            (before(expires, MOMENT), true),
            (expires, false),
            (after(made, HOUR), false),
            (before(made, Duration::from_secs(1)), true),
            (before(made, HOUR), false),
        ] {
            assert_eq!(is_held(expires, now), held, "{now}");
        }
    }

    #[test]
    fn times_stay_in_their_range() {
        assert_eq!(before(Timestamp::from_micros(5), HOUR).as_micros(), 0);
        assert_eq!(after(noon(), Duration::MAX), after(noon(), Duration::MAX));
        assert!(after(noon(), Duration::MAX) > noon());
    }
}
