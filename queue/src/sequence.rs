//! The consumer's side of the promise that a job's events have no holes: what comes again is
//! dropped, what is missing is noticed.

use common::JobId;
use common::event::{EventBody, JobEvent};

use crate::message::Progress;

/// Why events cannot be taken. None of those that came with the offending one is taken either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// An event is of another job.
    #[error("an event of job {found} came among those of job {job}")]
    OtherJob {
        /// The job whose events are taken.
        job: JobId,
        /// The job of the event.
        found: JobId,
    },
    /// Events are missing in front of this one. They come again when the orchestrator is restarted;
    /// until then the job's log cannot go on.
    #[error(
        "event {seq} of try {try_number} of job {job} came, but event {expected} was due: some are \
         missing"
    )]
    Hole {
        /// The job.
        job: JobId,
        /// The try of the event that came.
        try_number: u32,
        /// Its number.
        seq: u64,
        /// The number that was due.
        expected: u64,
    },
}

/// How far the events of one job were taken.
///
/// Orchestrators deliver an event at least once, in order. After a restart they begin again, with
/// the same numbers and the same content; a try that was lost is followed by one with a larger
/// number, which begins at event 1. When a host is gone for good, another one may not know that the
/// end was taken, and tells it again in a further try: whatever comes after the final event counts as
/// taken and is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequencer {
    job: JobId,
    try_number: u32,
    seq: u64,
    /// Whether the final event was taken.
    is_finished: bool,
}

impl Sequencer {
    /// Of a job of which nothing was taken.
    #[must_use]
    pub fn new(job: JobId) -> Self {
        Self { job, try_number: 0, seq: 0, is_finished: false }
    }

    /// Of a job of which an earlier process took events up to and with these; `is_finished` says
    /// whether the last of them was the final one.
    #[must_use]
    pub fn resume(taken: Progress, is_finished: bool) -> Self {
        let Progress { job, try_number, seq } = taken;
        Self { job, try_number, seq, is_finished }
    }

    /// Takes events in the order in which they came, and gives those that are new.
    ///
    /// Also when none is new the orchestrator must be told [`Sequencer::progress`]: it has forgotten.
    ///
    /// # Errors
    /// See [`SequenceError`]; nothing has changed then.
    pub fn take(&mut self, events: Vec<JobEvent>) -> Result<Vec<JobEvent>, SequenceError> {
        let mut ahead = *self;
        let mut new = events;
        let mut error = None;
        new.retain(|event| match ahead.admit(event) {
            Ok(is_new) => is_new,
            Err(found) => {
                error.get_or_insert(found);
                false
            }
        });
        match error {
            Some(error) => Err(error),
            None => {
                *self = ahead;
                Ok(new)
            }
        }
    }

    /// Whether the event is new; then it is counted as taken.
    fn admit(&mut self, event: &JobEvent) -> Result<bool, SequenceError> {
        let job = self.job;
        let JobEvent { try_number, seq, .. } = *event;
        if event.job != job {
            return Err(SequenceError::OtherJob { job, found: event.job });
        }
        if (try_number, seq) <= (self.try_number, self.seq) {
            return Ok(false);
        }
        if self.is_finished {
            (self.try_number, self.seq) = (try_number, seq);
            return Ok(false);
        }
        let expected = if try_number == self.try_number { self.seq + 1 } else { 1 };
        if seq != expected {
            return Err(SequenceError::Hole { job, try_number, seq, expected });
        }
        (self.try_number, self.seq) = (try_number, seq);
        self.is_finished = matches!(event.event, EventBody::Finished(_));
        Ok(true)
    }

    /// How far the events were taken, for the orchestrator; `None` before the first.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        let Self { job, try_number, seq, .. } = *self;
        (try_number > 0).then_some(Progress { job, try_number, seq })
    }

    /// Whether the final event was taken.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }
}

#[cfg(test)]
mod tests {
    use common::event::{Finished, JobResult, Phase, PhaseEvent};
    use common::time::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn event(job: JobId, try_number: u32, seq: u64, is_last: bool) -> JobEvent {
        let event = if is_last {
            EventBody::Finished(Finished { result: JobResult::Success, infrastructure: None })
        } else {
            EventBody::Phase(PhaseEvent { phase: Phase::Queue, took: None, detail: None })
        };
        JobEvent { job, try_number, seq, time: Timestamp::from_micros(1), event }
    }

    /// The events of tries of these lengths, the last of them final.
    fn story(job: JobId, tries: &[u64]) -> Vec<JobEvent> {
        let mut all = Vec::new();
        for (index, length) in tries.iter().enumerate() {
            let last = index + 1 == tries.len();
            let number = u32::try_from(index).unwrap() + 1;
            all.extend((1..=*length).map(|seq| event(job, number, seq, last && seq == *length)));
        }
        all
    }

    #[test]
    fn what_does_not_belong_is_refused_and_changes_nothing() {
        let job = JobId::new();
        let mut taken = Sequencer::new(job);
        assert_eq!(taken.progress(), None);
        let hole = SequenceError::Hole { job, try_number: 1, seq: 2, expected: 1 };
        assert_eq!(taken.take(vec![event(job, 1, 2, false)]), Err(hole));
        let other = JobId::new();
        let mixed = vec![event(job, 1, 1, false), event(other, 1, 2, false)];
        assert_eq!(taken.take(mixed), Err(SequenceError::OtherJob { job, found: other }));
        assert_eq!(taken.progress(), None, "the good one of a refused message is not taken");
        assert_eq!(taken.take(vec![event(job, 3, 1, true)]).unwrap().len(), 1);
        assert!(taken.is_finished());
        assert_eq!(taken.take(vec![event(job, 3, 1, true)]), Ok(vec![]));
        let again = Sequencer::resume(taken.progress().unwrap(), true);
        assert_eq!(again, taken);
        // Another host tells the end once more, while its consumer is started again.
        assert_eq!(taken.take(vec![event(job, 4, 1, false)]), Ok(vec![]));
        let mut taken = Sequencer::resume(taken.progress().unwrap(), true);
        assert_eq!(taken.take(vec![event(job, 4, 2, true)]), Ok(vec![]));
        assert_eq!(taken.progress(), Some(Progress { job, try_number: 4, seq: 2 }));
        assert!(taken.is_finished());
    }

    proptest! {
        #[test]
        fn every_event_is_taken_once_however_often_it_comes(
            tries in prop::collection::vec(1..8_u64, 1..4),
            restarts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..6),
            chunk in 1..5_usize,
        ) {
            let job = JobId::new();
            let story = story(job, &tries);
            // Every restart begins again at or before where the one before it ended.
            let mut sent = Vec::new();
            let mut reached = 0;
            for (from, to) in restarts {
                let from = from.index(reached + 1);
                let to = from + to.index(story.len() - from + 1);
                sent.extend_from_slice(&story[from..to]);
                reached = reached.max(to);
            }
            sent.extend_from_slice(&story[reached..]);
            let mut taken = Sequencer::new(job);
            let mut seen = Vec::new();
            for events in sent.chunks(chunk) {
                seen.extend(taken.take(events.to_vec()).unwrap());
            }
            prop_assert_eq!(seen, story);
            prop_assert!(taken.is_finished());
        }

        #[test]
        fn a_missing_event_is_noticed_before_anything_behind_it_is_taken(
            tries in prop::collection::vec(2..8_u64, 1..4),
            missing in any::<prop::sample::Index>(),
        ) {
            let job = JobId::new();
            let mut story = story(job, &tries);
            // Whether the last event of a try is missing cannot be known when the next one begins.
            let within: Vec<usize> =
                (0..story.len() - 1).filter(|index| story[index + 1].seq > 1).collect();
            let missing = within[missing.index(within.len())];
            let removed = story.remove(missing);
            let mut taken = Sequencer::new(job);
            for (index, event) in story.into_iter().enumerate() {
                let result = taken.take(vec![event]);
                if index < missing {
                    prop_assert!(result.is_ok());
                } else if index == missing {
                    let hole = matches!(result, Err(SequenceError::Hole { expected, .. }) if expected == removed.seq);
                    prop_assert!(hole, "{:?}", result);
                }
            }
        }
    }
}
