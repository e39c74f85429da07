//! `UpdateTask`: what the server takes over (forgejo-runner-protocol 6.2).

use std::time::SystemTime;

use forgejo_proto::runner::{StepState, TaskResult, TaskState, UpdateTaskResponse};

use super::clock::moment;
use super::state::{Step, Task};
use super::status::Status;

/// Bytes of an output's key.
const KEY: usize = 255;

/// Bytes of an output's value.
const VALUE: usize = 1_048_576;

impl Task {
    /// Takes a report over. The answer says whether the task ended by it.
    pub(super) fn update<'a>(
        &mut self,
        state: &TaskState,
        outputs: impl IntoIterator<Item = (&'a String, &'a String)>,
        now: SystemTime,
    ) -> bool {
        let open = !self.status.is_done();
        let result = state.result.as_known().unwrap_or_default();
        let mut ended = false;
        if open {
            self.updated = now;
            if let Some(status) = Status::of(result) {
                self.status = status;
                // A moment that is missing is 1970.
                self.stopped = Some(moment(state.stopped_at.as_option()));
                ended = true;
            }
            for reported in &state.steps {
                let step = usize::try_from(reported.id).ok().and_then(|id| self.steps.get_mut(id));
                if let Some(step) = step {
                    step.update(reported);
                }
            }
        }
        for (key, value) in outputs {
            if key.len() <= KEY && value.len() <= VALUE {
                self.outputs.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        ended
    }

    /// What the server says of it.
    pub(super) fn answer(&self) -> UpdateTaskResponse {
        UpdateTaskResponse {
            state: TaskState {
                id: self.id,
                result: self.status.result().into(),
                ..TaskState::default()
            }
            .into(),
            sent_outputs: self.outputs.keys().cloned().collect(),
            ..UpdateTaskResponse::default()
        }
    }
}

impl Step {
    fn update(&mut self, reported: &StepState) {
        self.index = reported.log_index;
        self.length = reported.log_length;
        self.started = reported.started_at.as_option().map(|at| moment(Some(at)));
        self.stopped = reported.stopped_at.as_option().map(|at| moment(Some(at)));
        let result = reported.result.as_known().unwrap_or(TaskResult::RESULT_UNSPECIFIED);
        match Status::of(result) {
            Some(status) => self.status = status,
            None if self.started.is_some() => self.status = Status::Running,
            None => {}
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::time::{Duration, UNIX_EPOCH};

    use forgejo_proto::protobuf::Timestamp;

    use super::*;
    use crate::forgejo::calls::Conduct;
    use crate::forgejo::log::Log;

    pub(in crate::forgejo) fn task(steps: usize) -> Task {
        Task {
            id: 7,
            job: 2,
            run: 1,
            attempt: 1,
            runner: 3,
            runner_uuid: String::new(),
            status: Status::Running,
            started: UNIX_EPOCH,
            stopped: None,
            updated: UNIX_EPOCH,
            steps: (0..steps).map(|index| Step::new(format!("step {index}"))).collect(),
            log: Log::default(),
            outputs: BTreeMap::new(),
            token: "token".to_owned(),
            runtime_token: String::new(),
            hidden: vec!["token".to_owned()],
            request_key: None,
            conduct: Conduct { steps: vec![None; steps], ..Conduct::default() },
        }
    }

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp::from_unix_secs(seconds))
    }

    fn second(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn report(result: TaskResult, steps: Vec<StepState>) -> TaskState {
        TaskState { id: 7, result: result.into(), steps, ..TaskState::default() }
    }

    fn outputs(entries: &[(&str, &str)]) -> HashMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_heartbeat_moves_the_stamp_and_the_steps_that_it_names() {
        let mut task = task(3);
        let running =
            StepState { id: 1, started_at: at(5).into(), log_index: 2, ..StepState::default() };
        let unknown = StepState { id: 9, ..StepState::default() };
        let state = report(TaskResult::RESULT_UNSPECIFIED, vec![running, unknown]);
        assert!(!task.update(&state, &HashMap::new(), second(9)));
        assert_eq!(task.updated, second(9));
        assert_eq!(task.status, Status::Running);
        let states: Vec<_> = task.steps.iter().map(|step| (step.status, step.index)).collect();
        assert_eq!(states, [(Status::Waiting, 0), (Status::Running, 2), (Status::Waiting, 0)]);
    }

    #[test]
    fn a_final_state_is_frozen() {
        let mut task = task(1);
        let done = StepState {
            result: TaskResult::RESULT_SUCCESS.into(),
            started_at: at(1).into(),
            stopped_at: at(2).into(),
            log_length: 4,
            ..StepState::default()
        };
        let state = TaskState {
            stopped_at: at(3).into(),
            ..report(TaskResult::RESULT_SUCCESS, vec![done])
        };
        assert!(task.update(&state, &HashMap::new(), second(9)));
        assert_eq!((task.status, task.stopped), (Status::Success, Some(second(3))));
        assert_eq!(task.steps[0].length, 4);

        let other = StepState { log_length: 40, ..StepState::default() };
        let again = report(TaskResult::RESULT_FAILURE, vec![other]);
        assert!(!task.update(&again, &outputs(&[("late", "1")]), second(10)));
        assert_eq!((task.status, task.updated), (Status::Success, second(9)));
        assert_eq!(task.steps[0].length, 4, "not even offsets change");
        assert_eq!(task.outputs.keys().collect::<Vec<_>>(), ["late"], "outputs are still taken");
        let answer = task.answer();
        assert_eq!(answer.state.result, TaskResult::RESULT_SUCCESS, "the server's view");
    }

    #[test]
    fn who_does_not_say_when_it_ended_ends_in_1970() {
        let mut task = task(0);
        assert!(task.update(
            &report(TaskResult::RESULT_FAILURE, Vec::new()),
            &HashMap::new(),
            second(9)
        ));
        assert_eq!(task.stopped, Some(UNIX_EPOCH));
    }

    #[test]
    fn the_first_output_wins_and_large_ones_are_dropped() {
        let mut task = task(0);
        let beat = report(TaskResult::RESULT_UNSPECIFIED, Vec::new());
        task.update(&beat, &outputs(&[("a", "1")]), UNIX_EPOCH);
        let (key, value) = ("k".repeat(KEY + 1), "v".repeat(VALUE + 1));
        task.update(
            &beat,
            &outputs(&[("a", "2"), (&key, "x"), ("large", &value), ("b", "3")]),
            UNIX_EPOCH,
        );
        task.update(&beat, &outputs(&[(&key[1..], &value[1..])]), UNIX_EPOCH);
        assert_eq!(task.outputs.get("a").map(String::as_str), Some("1"));
        assert_eq!(task.answer().sent_outputs, ["a", "b", &key[1..]], "all keys so far");
    }
}
