//! What clients may not do, though the server bears it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forgejo_proto::runner::{StepState, TaskResult, UpdateLogRequest, UpdateTaskRequest};

use super::calls::Rpc;
use super::log::Row;
use super::state::{State, Task};

/// Rows of a batch (forgejo-runner-protocol 6.1).
const ROWS: usize = 1000;

/// Bytes of a batch's rows.
const BATCH: usize = 512 * 1024;

/// Bytes of any call: more is a message that no proxy lets through.
const MESSAGE: usize = 8 * 1024 * 1024;

impl State {
    /// Writes down that a call broke a rule.
    pub(super) fn violation(&mut self, call: usize, what: impl AsRef<str>) {
        let rpc = self.calls.get(call).map(|call| call.rpc);
        let task = self.calls.get(call).and_then(|call| call.task);
        let task = task.map(|task| format!(" of task {task}")).unwrap_or_default();
        let what = what.as_ref();
        let rpc = rpc.map_or_else(String::new, |rpc| format!("{rpc:?}"));
        self.violations.push(format!("call {call}, {rpc}{task}: {what}"));
    }

    /// Looks at a call that begins.
    pub(super) fn judge_size(&mut self, call: usize, size: usize) {
        if size > MESSAGE {
            self.violation(call, format!("a message of {size} bytes"));
        }
    }

    /// Looks at a fetch of a runner.
    pub(super) fn judge_fetch(
        &mut self,
        call: usize,
        runner: i64,
        capacity: Option<i64>,
        key: Option<&str>,
    ) {
        let mut found = Vec::new();
        if capacity.is_some_and(|capacity| capacity < 1) {
            found.push("a fetch without a free slot".to_owned());
        }
        if let Some(key) = key
            && uuid::Uuid::parse_str(key).is_err()
        {
            found.push(format!("the request key {key:?} is no UUID"));
        }
        let minimum = self.fetch_minimum.unwrap_or(Duration::ZERO);
        if let Some(runner) = self.runners.get_mut(&runner) {
            if key.is_some_and(|key| runner.answered_keys.contains(key)) {
                found.push("a request key is used after it got an answer".to_owned());
            }
            let now = std::time::Instant::now();
            if let Some(last) = runner.last_fetch.replace(now)
                && now.duration_since(last) < minimum
            {
                found.push(format!("a fetch {:?} after the last", now.duration_since(last)));
            }
        }
        for what in found {
            self.violation(call, what);
        }
    }

    /// Looks at labels: names only (forgejo-runner-protocol 3.3).
    pub(super) fn judge_labels(&mut self, call: usize, labels: &[String]) {
        for label in labels.iter().filter(|label| label.contains(':')) {
            self.violation(call, format!("the label {label:?} is more than a name"));
        }
    }

    /// Remembers that a log call goes on, and which others do.
    pub(super) fn judge_overlap(&mut self, call: usize, task: i64) {
        let Some(task) = self.tasks.get_mut(&task) else { return };
        let others: Vec<_> = task.conduct.in_flight.iter().copied().collect();
        task.conduct.in_flight.insert(call);
        self.overlaps.extend(others.into_iter().map(|other| (other, call)));
    }

    /// A call ended. If its answer was delivered, its connection was alive while others went on.
    pub(super) fn end_of_call(&mut self, call: usize, delivered: bool) {
        let Some(ended) = self.calls.get_mut(call) else { return };
        ended.delivered = delivered;
        let ended = ended.clone();
        if ended.rpc == Rpc::UpdateLog
            && let Some(task) = ended.task.and_then(|task| self.tasks.get_mut(&task))
        {
            task.conduct.in_flight.remove(&call);
            task.conduct.untold_loss &= !delivered;
        }
        let (of_this, others): (Vec<_>, Vec<_>) =
            self.overlaps.drain(..).partition(|(earlier, _)| *earlier == call);
        self.overlaps = others;
        if delivered {
            for (earlier, later) in of_this {
                self.violation(later, format!("two log calls at once; the other is {earlier}"));
            }
            if ended.rpc.is_fetch()
                && ended.answer == super::calls::Answer::Ok
                && let Some(key) = ended.request_key
                && let Some(runner) = self
                    .runners
                    .values_mut()
                    .find(|runner| Some(&runner.uuid) == ended.runner.as_ref())
            {
                runner.answered_keys.insert(key);
            }
        }
    }
}

impl Task {
    /// Looks at rows before the server takes them.
    pub(super) fn judge_log(&mut self, request: &UpdateLogRequest) -> Vec<String> {
        let mut found = Vec::new();
        let held = self.log.length();
        let count = i64::try_from(request.rows.len()).unwrap_or(i64::MAX);
        let end = request.index.saturating_add(count);
        let bytes: usize = request.rows.iter().map(|row| row.content.len()).sum();
        if request.rows.len() > ROWS || bytes > BATCH {
            found.push(format!("a batch of {} rows and {bytes} bytes", request.rows.len()));
        }
        if count == 0 && request.no_more {
            found.push("no_more without a row".to_owned());
        }
        if request.index > held && !self.conduct.untold_loss {
            found.push(format!("rows from {} where {held} are held", request.index));
        }
        if request.index < 0 {
            found.push(format!("rows from {}", request.index));
        }
        let news = end > held;
        if news && self.conduct.closed {
            found.push("rows after no_more".to_owned());
        }
        if self.conduct.result.is_some() && count > 0 && news {
            found.push("rows after the final state".to_owned());
        }
        if request.rows.iter().any(|row| row.time.is_unset()) {
            found.push("a row without a time".to_owned());
        }
        let overlap = self.log.slice(request.index, count);
        let mut pairs = (request.index..).zip(overlap.iter().zip(&request.rows));
        let changed = pairs.find(|(_, (held, sent))| held.text != Row::stored(sent).text);
        if let Some((at, _)) = changed.filter(|_| request.index >= 0) {
            found.push(format!("row {at} is another than the one before"));
        }
        self.conduct.closed |= request.no_more && end >= held && count > 0 && request.index <= held;
        let known = self.log.slice(0, request.index).iter().map(|row| row.text.as_str());
        let sent = request.rows.iter().map(|row| row.content.as_str());
        found.extend(self.leak(&known.chain(sent).collect::<Vec<_>>(), request.rows.len()));
        found
    }

    /// A secret in the last rows, on one or over several of them.
    fn leak(&self, rows: &[&str], new: usize) -> Option<String> {
        let longest = self.hidden.iter().map(|secret| secret.lines().count()).max().unwrap_or(1);
        let from = rows.len().saturating_sub(new + longest);
        let text = rows.get(from..).unwrap_or_default().join("\n");
        self.leaks(&text).then(|| "a secret is in the rows".to_owned())
    }

    /// Whether text has a secret in it, in a form that a runner has to mask
    /// (forgejo-runner-protocol 6.7).
    fn leaks(&self, text: &str) -> bool {
        self.hidden.iter().any(|secret| {
            let secret = secret.trim_end_matches(['\n', '\r']);
            let mut forms = vec![secret.to_owned()];
            if secret.contains('\n') {
                forms.push(secret.replace("\r\n", "\n"));
                forms.push(secret.replace('\n', "\\n"));
            }
            forms.iter().any(|form| !form.is_empty() && text.contains(form.as_str()))
        }) || text.contains(&STANDARD.encode(format!("x-access-token:{}", self.token)))
    }

    /// Looks at a report before the server takes it over.
    pub(super) fn judge_update(&mut self, request: &UpdateTaskRequest) -> Vec<String> {
        let mut found = Vec::new();
        let result = request.state.result.as_known().unwrap_or_default();
        for step in &request.state.steps {
            self.judge_step(step, &mut found);
        }
        for (key, value) in &request.outputs {
            if self.leaks(key) || self.leaks(value) {
                found.push(format!("a secret is in the output {key:?}"));
            }
        }
        match (self.conduct.result, result) {
            (Some(_), TaskResult::RESULT_UNSPECIFIED) => {
                found.push("a report that it runs after the final state".to_owned());
            }
            (Some(before), now) if before != now => {
                found.push(format!("{now:?} after the final state {before:?}"));
            }
            _ => {}
        }
        if result != TaskResult::RESULT_UNSPECIFIED {
            self.conduct.result.get_or_insert(result);
            if !self.log.archived {
                found.push("a final state before the log was closed".to_owned());
            }
            if request.state.stopped_at.is_unset() {
                found.push("a final state without stopped_at".to_owned());
            }
            self.judge_ranges(&mut found);
        }
        found
    }

    fn judge_step(&mut self, step: &StepState, found: &mut Vec<String>) {
        let id = step.id;
        let Some(before) = usize::try_from(id).ok().and_then(|id| self.conduct.steps.get_mut(id))
        else {
            found.push(format!("there is no step {id}"));
            return;
        };
        let result = step.result.as_known().unwrap_or_default();
        if let Some(before) = before.as_ref().filter(|before| before.started_at.is_set()) {
            if step.log_index != before.log_index {
                found.push(format!(
                    "step {id} began at {}, now at {}",
                    before.log_index, step.log_index
                ));
            }
            if step.log_length < before.log_length {
                found.push(format!("step {id} has fewer rows than before"));
            }
            if before.result != TaskResult::RESULT_UNSPECIFIED && before.result != result {
                found.push(format!("step {id} ended before, with another result"));
            }
        }
        let ran = !matches!(result, TaskResult::RESULT_UNSPECIFIED | TaskResult::RESULT_CANCELLED);
        if ran && (step.started_at.is_unset() || step.stopped_at.is_unset()) {
            found.push(format!("step {id} ended without both times"));
        }
        if step.started_at.is_unset() && (step.log_index != 0 || step.log_length != 0) {
            found.push(format!("step {id} has rows and has not begun"));
        }
        *before = Some(step.clone());
    }

    /// At the end the steps have ended and their rows follow on each other (forgejo-runner-protocol 8.1).
    fn judge_ranges(&self, found: &mut Vec<String>) {
        let mut next = None;
        for (id, step) in self.conduct.steps.iter().enumerate() {
            let result = step.as_ref().and_then(|step| step.result.as_known()).unwrap_or_default();
            if result == TaskResult::RESULT_UNSPECIFIED {
                found.push(format!("step {id} is left open"));
            }
            let Some(step) = step.as_ref().filter(|step| step.started_at.is_set()) else {
                continue;
            };
            if let Some(next) = next.filter(|next| *next != step.log_index) {
                found.push(format!(
                    "step {id} begins at {}, the one before ended at {next}",
                    step.log_index
                ));
            }
            next = Some(step.log_index + step.log_length);
        }
        let held = self.log.length();
        // A server that lost rows or closed the log itself has fewer of them.
        let complete = !self.conduct.loss && self.conduct.closed;
        if let Some(next) = next.filter(|next| complete && *next > held) {
            found.push(format!("the steps have rows up to {next} of {held}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use forgejo_proto::protobuf::Timestamp;
    use forgejo_proto::runner::{LogRow, TaskState};

    use super::*;
    use crate::forgejo::log::Manners;
    use crate::forgejo::task::tests::task;

    fn rows(texts: &[&str]) -> Vec<LogRow> {
        let row = |text: &&str| LogRow {
            time: Timestamp::from_unix_secs(1).into(),
            content: (*text).to_owned(),
            ..LogRow::default()
        };
        texts.iter().map(row).collect()
    }

    fn send(task: &mut Task, index: i64, texts: &[&str], no_more: bool) -> Vec<String> {
        let request = UpdateLogRequest {
            task_id: 7,
            index,
            rows: rows(texts),
            no_more,
            ..Default::default()
        };
        let found = task.judge_log(&request);
        let answer = task.log.append(index, &request.rows, no_more, Manners::default());
        assert!(answer.is_ok() || !found.is_empty(), "a refusal has a reason");
        found
    }

    fn step(id: i64, result: TaskResult, index: i64, length: i64) -> StepState {
        let at = |set: bool| set.then(|| Timestamp::from_unix_secs(1)).into();
        StepState {
            id,
            result: result.into(),
            started_at: at(true),
            stopped_at: at(result != TaskResult::RESULT_UNSPECIFIED),
            log_index: index,
            log_length: length,
            ..StepState::default()
        }
    }

    fn update(task: &mut Task, result: TaskResult, steps: Vec<StepState>) -> Vec<String> {
        let stopped =
            (result != TaskResult::RESULT_UNSPECIFIED).then(|| Timestamp::from_unix_secs(2));
        let state = TaskState {
            id: 7,
            result: result.into(),
            stopped_at: stopped.into(),
            steps,
            ..TaskState::default()
        };
        let request = UpdateTaskRequest { state: state.into(), ..UpdateTaskRequest::default() };
        task.judge_update(&request)
    }

    #[test]
    fn a_client_that_does_all_right_is_not_blamed() {
        use TaskResult::{RESULT_FAILURE, RESULT_SKIPPED, RESULT_SUCCESS, RESULT_UNSPECIFIED};
        let mut task = task(3);
        assert_eq!(send(&mut task, 0, &["boot", "a"], false), [""; 0]);
        assert_eq!(send(&mut task, 0, &["boot", "a", "b"], false), [""; 0], "known rows again");
        assert_eq!(
            update(&mut task, RESULT_UNSPECIFIED, vec![step(0, RESULT_UNSPECIFIED, 1, 1)]),
            [""; 0]
        );
        assert_eq!(send(&mut task, 3, &["*** done"], true), [""; 0]);
        let steps = vec![
            step(0, RESULT_SUCCESS, 1, 2),
            step(1, RESULT_SKIPPED, 3, 0),
            step(2, RESULT_FAILURE, 3, 0),
        ];
        assert_eq!(update(&mut task, RESULT_FAILURE, steps.clone()), [""; 0]);
        assert_eq!(send(&mut task, 3, &["*** done"], true), [""; 0], "a retry");
        assert_eq!(update(&mut task, RESULT_FAILURE, steps), [""; 0], "a retry");
    }

    #[test]
    fn every_fault_of_a_log_call_is_found() {
        let mut fresh = task(0);
        send(&mut fresh, 0, &["a", "b"], false);
        let many = vec!["x"; ROWS + 1];
        let long = "x".repeat(BATCH + 1);
        let cases: &[(i64, &[&str], bool, &str)] = &[
            (3, &["d"], false, "rows from 3 where 2 are held"),
            (2, &[], true, "no_more without a row"),
            (2, &many, false, "a batch of 1001 rows"),
            (2, &[&long], false, "a batch of 1 rows"),
            (1, &["other", "c"], false, "row 1 is another"),
            (2, &["my token"], false, "a secret"),
            (2, &["eC1hY2Nlc3MtdG9rZW46dG9rZW4="], false, "a secret"),
        ];
        for (index, texts, no_more, expected) in cases {
            let found = send(&mut fresh.clone(), *index, texts, *no_more);
            assert!(found.iter().any(|what| what.starts_with(expected)), "{expected}: {found:?}");
        }
        let mut closed = fresh.clone();
        send(&mut closed, 2, &["c"], true);
        assert_eq!(send(&mut closed.clone(), 3, &["d"], false), ["rows after no_more"]);
        closed.conduct.result = Some(TaskResult::RESULT_SUCCESS);
        let found = send(&mut closed, 3, &["d"], false);
        assert_eq!(found, ["rows after no_more", "rows after the final state"]);
    }

    #[test]
    fn secrets_of_several_lines_are_found_over_rows() {
        let mut task = task(0);
        task.hidden.push("first\nsecond\n".to_owned());
        assert_eq!(send(&mut task, 0, &["a first"], false), [""; 0]);
        assert_eq!(send(&mut task.clone(), 1, &["second one"], false), ["a secret is in the rows"]);
        assert_eq!(
            send(&mut task.clone(), 1, &["x first\\nsecond"], false),
            ["a secret is in the rows"]
        );
        assert_eq!(send(&mut task, 1, &["seconds are not, second is"], false).len(), 1);
    }

    #[test]
    fn every_fault_of_a_report_is_found() {
        use TaskResult::{RESULT_CANCELLED, RESULT_FAILURE, RESULT_SUCCESS, RESULT_UNSPECIFIED};
        let mut fresh = task(2);
        send(&mut fresh, 0, &["a", "b", "c"], true);
        assert_eq!(
            update(&mut fresh, RESULT_UNSPECIFIED, vec![step(0, RESULT_UNSPECIFIED, 1, 1)]),
            [""; 0]
        );
        let check = |result, steps: Vec<StepState>, expected: &[&str]| {
            assert_eq!(update(&mut fresh.clone(), result, steps), expected);
        };
        let done = |id, index, length| step(id, RESULT_SUCCESS, index, length);
        check(RESULT_SUCCESS, vec![done(0, 1, 1), done(1, 2, 1)], &[]);
        check(RESULT_SUCCESS, vec![done(0, 1, 1)], &["step 1 is left open"]);
        check(
            RESULT_SUCCESS,
            vec![done(0, 1, 1), done(1, 1, 1)],
            &["step 1 begins at 1, the one before ended at 2"],
        );
        check(
            RESULT_SUCCESS,
            vec![done(0, 1, 1), done(1, 2, 3)],
            &["the steps have rows up to 5 of 3"],
        );
        check(
            RESULT_UNSPECIFIED,
            vec![step(0, RESULT_UNSPECIFIED, 2, 1)],
            &["step 0 began at 1, now at 2"],
        );
        check(
            RESULT_UNSPECIFIED,
            vec![step(0, RESULT_UNSPECIFIED, 1, 0)],
            &["step 0 has fewer rows than before"],
        );
        check(RESULT_UNSPECIFIED, vec![done(2, 0, 0)], &["there is no step 2"]);
        let timeless = StepState { stopped_at: None.into(), ..done(0, 1, 1) };
        check(RESULT_UNSPECIFIED, vec![timeless], &["step 0 ended without both times"]);
        let early = StepState { id: 1, log_index: 2, ..StepState::default() };
        check(RESULT_UNSPECIFIED, vec![early], &["step 1 has rows and has not begun"]);

        let mut again = fresh.clone();
        update(&mut again, RESULT_SUCCESS, vec![done(0, 1, 1), done(1, 2, 1)]);
        assert_eq!(
            update(&mut again.clone(), RESULT_FAILURE, Vec::new()),
            ["RESULT_FAILURE after the final state RESULT_SUCCESS"]
        );
        assert_eq!(
            update(&mut again, RESULT_UNSPECIFIED, Vec::new()),
            ["a report that it runs after the final state"]
        );
        let mut open = task(0);
        let request = UpdateTaskRequest {
            state: TaskState { result: RESULT_CANCELLED.into(), ..TaskState::default() }.into(),
            outputs: [("x".to_owned(), "a token".to_owned())].into_iter().collect(),
            ..UpdateTaskRequest::default()
        };
        assert_eq!(
            open.judge_update(&request),
            [
                "a secret is in the output \"x\"",
                "a final state before the log was closed",
                "a final state without stopped_at",
            ]
        );
    }
}
