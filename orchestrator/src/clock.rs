//! The clocks that deadlines are measured by, which tests can move.
//!
//! Within one boot of the host a deadline is measured by the boot-time clock, which neither jumps
//! nor stops while the host sleeps. Wall clock time stands in records, for people and for a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use common::time::Timestamp;

/// Two clocks: the wall clock, which can jump, and the time since the host's boot, which cannot.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Microseconds by which tests moved the wall clock.
    shift: Arc<AtomicI64>,
}

impl Clock {
    /// The host's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// The wall clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let shift = self.shift.load(Ordering::Relaxed);
        let micros = Timestamp::now().as_micros().saturating_add_signed(shift);
        Timestamp::from_micros(micros)
    }

    /// The time since the host's boot, also while it slept.
    #[must_use]
    pub fn since_boot(&self) -> Duration {
        let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
            .expect("every Linux has a boot-time clock");
        Duration::from(time)
    }

    /// Makes the wall clock jump, for tests.
    pub fn jump(&self, micros: i64) {
        self.shift.fetch_add(micros, Ordering::Relaxed);
    }
}
