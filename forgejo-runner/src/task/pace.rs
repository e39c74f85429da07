//! When a task's next call is due.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

/// The first pause after a failed call.
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// Pauses grow by this factor.
const GROWTH: u32 = 2;
/// Rows are sent so many times as often as the state, so that a line is on the page within a second.
const ROWS_PER_STATE: u32 = 4;

/// Growing pauses, each with a random part so that those who failed together do not come together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * GROWTH).min(LONGEST);
        pause.mul_f64(rand::rng().random_range(0.8..1.2))
    }
}

/// The rhythm of one task's calls.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    rows: Option<Instant>,
    state: Option<Instant>,
    held_until: Option<Instant>,
    backoff: Backoff,
    /// Since when every call failed.
    failing: Option<Instant>,
    /// Since when the server answered every call by refusing it.
    refused: Option<Instant>,
    /// Calls carry so many times fewer rows.
    divisor: usize,
    output_tries: u32,
    publishing: Backoff,
    publishing_held_until: Option<Instant>,
}

impl Pace {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            rows: None,
            state: None,
            held_until: None,
            backoff: Backoff::default(),
            failing: None,
            refused: None,
            divisor: 1,
            output_tries: 0,
            publishing: Backoff::default(),
            publishing_held_until: None,
        }
    }

    pub(super) fn rows_are_due(&self, now: Instant) -> bool {
        self.rows.is_none_or(|sent| sent + self.interval / ROWS_PER_STATE <= now)
    }

    pub(super) fn state_is_due(&self, now: Instant) -> bool {
        self.state.is_none_or(|sent| sent + self.interval <= now)
    }

    /// When the next call is due, if nothing happens before.
    pub(super) fn next_due(&self, has_rows: bool, has_request: bool) -> Instant {
        let state = self.state.map(|sent| sent + self.interval);
        let rows = self.rows.filter(|_| has_rows).map(|sent| sent + self.interval / ROWS_PER_STATE);
        let request = self.publishing_held_until.filter(|_| has_request);
        state.into_iter().chain(rows).chain(request).min().unwrap_or_else(Instant::now)
    }

    /// Whether the job may be handed to the queue now.
    pub(super) fn publishing_is_due(&self, now: Instant) -> bool {
        self.publishing_held_until.is_none_or(|until| until <= now)
    }

    /// The queue did not take the job.
    pub(super) fn publishing_failed(&mut self) {
        self.publishing_held_until = Some(Instant::now() + self.publishing.next());
    }

    /// Until when no call is made.
    pub(super) fn held_until(&self, now: Instant) -> Option<Instant> {
        self.held_until.filter(|until| *until > now)
    }

    pub(super) fn sent_rows(&mut self, now: Instant) {
        self.rows = Some(now);
    }

    pub(super) fn sent_state(&mut self, now: Instant) {
        self.state = Some(now);
    }

    /// A call was answered.
    pub(super) fn answered(&mut self) {
        self.failing = None;
        self.refused = None;
        self.held_until = None;
        self.backoff = Backoff::default();
    }

    /// A call failed; `refused` by the server itself.
    pub(super) fn failed(&mut self, refused: bool) {
        self.failing.get_or_insert_with(Instant::now);
        if refused {
            self.refused.get_or_insert_with(Instant::now);
        } else {
            self.refused = None;
        }
        self.held_until = Some(Instant::now() + self.backoff.next());
    }

    pub(super) fn is_first_failure(&self) -> bool {
        self.failing.is_none()
    }

    pub(super) fn failing_for(&self) -> Duration {
        self.failing.map(|since| since.elapsed()).unwrap_or_default()
    }

    pub(super) fn refused_for(&self) -> Duration {
        self.refused.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// A body was too large for somebody in between.
    pub(super) fn shrink(&mut self) {
        self.divisor = self.divisor.saturating_mul(2);
    }

    pub(super) fn batch_rows(&self, most: usize) -> usize {
        (most / self.divisor).max(1)
    }

    pub(super) fn output_tries(&self) -> u32 {
        self.output_tries
    }

    /// Outputs are not sent any more; so many tries are the limit.
    pub(super) fn drop_outputs(&mut self, limit: u32) {
        self.output_tries = limit;
    }

    pub(super) fn outputs_missing(&mut self) {
        self.output_tries += 1;
    }
}
