//! The loop that reports a task: rows first, its end last, and a sign of life in between.

use std::collections::{BTreeMap, HashSet};

use common::event::Conclusion;
use forgejo_proto::runner::{TaskResult, UpdateLogRequest, UpdateTaskRequest, UpdateTaskResponse};
use queue::message::JobMessage;
use tokio::time::Instant;

use super::Task;
use super::pace::{Backoff, Pace};
use crate::client::{RpcError, RpcErrorKind};
use crate::metrics;
use crate::report::Row;

/// Rows of one call at most (forgejo-runner-protocol 6.1: proxies cap bodies).
const BATCH_ROWS: usize = 1_000;
/// Bytes of the rows of one call at most.
const BATCH_BYTES: usize = 480 * 1024;
/// A row that is cut because a call with it alone was too large has fewer bytes.
const SHORT_BYTES: usize = 2 * 1024;
/// How often outputs are sent again that the server does not list.
const OUTPUT_TRIES: u32 = 4;
/// How often something is tried at the end of a task before it is left.
const LAST_TRIES: usize = 5;

/// What is to be done next.
enum Next {
    /// The queue gets the job.
    Publish(Box<JobMessage>),
    /// Rows from a number on; with the last of them the log is closed.
    Rows { first: u64, rows: Vec<Row>, close: bool },
    /// The state of a running task, or its end.
    State { is_end: bool },
    /// Nothing before this moment.
    Wait(Instant),
}

/// How it goes on after a call.
enum After {
    Go,
    /// Nothing is to be reported any more.
    Over(Over),
}

/// Why a task is no longer in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// Its end is on the server.
    Reported(Conclusion),
    /// The server does not want it any more.
    GivenUp,
}

/// What a call that failed had to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Rows,
    State,
    End,
}

impl Task {
    /// Reports until the task's end is on the server. Safe to drop: the next process goes on.
    pub(crate) async fn report(&self) -> Over {
        let mut pace = Pace::new(self.shared.interval);
        loop {
            let after = match self.next(&pace).await {
                Next::Wait(until) => {
                    self.tell_progress().await;
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = tokio::time::sleep_until(until) => {}
                    }
                    After::Go
                }
                Next::Publish(request) => self.publish(&mut pace, &request).await,
                Next::Rows { first, rows, close } => {
                    self.send_rows(&mut pace, first, rows, close).await
                }
                Next::State { is_end } => self.send_state(&mut pace, is_end).await,
            };
            if let After::Over(over) = after {
                self.leave(over).await;
                return over;
            }
        }
    }

    /// What is to be done now.
    async fn next(&self, pace: &Pace) -> Next {
        let mut state = self.state.lock().await;
        self.end_when_late(&mut state).await;
        let now = Instant::now();
        if let Some(request) = state.request.clone().filter(|_| pace.publishing_is_due(now)) {
            return Next::Publish(Box::new(request));
        }
        if let Some(until) = pace.held_until(now) {
            return Next::Wait(until);
        }
        let (is_over, has_rows) = (state.is_over(), !state.pending.is_empty());
        if is_over && !has_rows {
            return Next::State { is_end: true };
        }
        // The sign of life, which also brings a cancel, waits for no amount of rows.
        if pace.state_is_due(now) {
            return Next::State { is_end: false };
        }
        if has_rows {
            let most = pace.batch_rows(BATCH_ROWS);
            let (count, bytes) = state.batch((most, BATCH_BYTES));
            let is_full = bytes >= BATCH_BYTES / 2 || count >= most;
            if is_full || is_over || pace.rows_are_due(now) {
                let rows: Vec<Row> = state.pending.iter().take(count).cloned().collect();
                let close = is_over && count == state.pending.len();
                return Next::Rows { first: state.standing.acknowledged, rows, close };
            }
        }
        Next::Wait(pace.next_due(has_rows, state.request.is_some()))
    }

    /// Hands the job to the queue.
    async fn publish(&self, pace: &mut Pace, request: &JobMessage) -> After {
        if let Err(error) = self.shared.queue.publish_job(request).await {
            tracing::warn!(job.id = %self.job, %error, "cannot hand a job to the queue");
            pace.publishing_failed();
            return After::Go;
        }
        self.state.lock().await.request = None;
        if let Err(error) = self.shared.journal.published(self.job).await {
            // It is handed over once more by the next process, which changes nothing.
            tracing::warn!(job.id = %self.job, %error, "cannot note that a job was handed over");
        }
        After::Go
    }

    async fn send_rows(&self, pace: &mut Pace, first: u64, rows: Vec<Row>, close: bool) -> After {
        let count = rows.len() as u64;
        let request = UpdateLogRequest {
            task_id: self.id.number,
            index: signed(first),
            rows: rows.iter().map(Row::wire).collect(),
            no_more: close,
            ..UpdateLogRequest::default()
        };
        match self.client.update_log(request).await {
            Ok(held) => {
                pace.sent_rows(Instant::now());
                let mut state = self.state.lock().await;
                let has_grown = state.acknowledge(u64::try_from(held).unwrap_or(0), self.job);
                if has_grown {
                    metrics::rows(count);
                    pace.answered();
                } else {
                    // A server that takes nothing is asked again, and not at once.
                    pace.failed(false);
                }
                if close && state.pending.is_empty() {
                    state.close_log();
                }
                self.save(&state).await;
            }
            Err(error) if error.kind == RpcErrorKind::AlreadyExists => {
                tracing::info!(job.id = %self.job, "the server closed the log of a task");
                let mut state = self.state.lock().await;
                state.close_log();
                self.save(&state).await;
            }
            Err(error) => return self.failed(pace, &error, Said::Rows).await,
        }
        self.tell_progress().await;
        After::Go
    }

    async fn send_state(&self, pace: &mut Pace, is_end: bool) -> After {
        let request = self.state_request(is_end, pace.output_tries()).await;
        match self.client.update_task(request).await {
            Ok(answer) => {
                pace.sent_state(Instant::now());
                self.tell_progress().await;
                self.heard(pace, &answer, is_end).await
            }
            Err(error) => {
                let said = if is_end { Said::End } else { Said::State };
                self.failed(pace, &error, said).await
            }
        }
    }

    async fn state_request(&self, is_end: bool, tries: u32) -> UpdateTaskRequest {
        let state = self.state.lock().await;
        let standing = &state.standing;
        let mut task =
            standing.report.state(self.id.number, standing.acknowledged, standing.log_closed);
        if !is_end {
            task.result = TaskResult::RESULT_UNSPECIFIED.into();
            task.stopped_at = None.into();
        }
        let sends_outputs = is_end
            && tries < OUTPUT_TRIES
            && standing.report.conclusion() == Some(Conclusion::Success);
        let outputs =
            if sends_outputs { standing.report.sent_outputs().clone() } else { BTreeMap::new() };
        UpdateTaskRequest {
            state: Some(task).into(),
            outputs: outputs.into_iter().collect(),
            ..UpdateTaskRequest::default()
        }
    }

    /// What the server thinks of the task (forgejo-runner-protocol 6.3).
    async fn heard(&self, pace: &mut Pace, answer: &UpdateTaskResponse, is_end: bool) -> After {
        let view = answer.state.as_option().and_then(|state| state.result.as_known());
        let is_final = !matches!(view, None | Some(TaskResult::RESULT_UNSPECIFIED));
        if !is_end {
            pace.answered();
            if is_final && let Err(error) = self.cancel().await {
                tracing::warn!(job.id = %self.job, %error, "cannot cancel a job; trying again");
            }
            return After::Go;
        }
        let (conclusion, missing) = {
            let state = self.state.lock().await;
            let report = &state.standing.report;
            let conclusion = report.conclusion().unwrap_or(Conclusion::Failure);
            let there: HashSet<&str> = answer.sent_outputs.iter().map(String::as_str).collect();
            let names = report.sent_outputs().keys();
            let missing = names.filter(|name| !there.contains(name.as_str())).count();
            (conclusion, if conclusion == Conclusion::Success { missing } else { 0 })
        };
        if is_final && missing > 0 && pace.output_tries() < OUTPUT_TRIES {
            pace.outputs_missing();
            return After::Go;
        }
        if missing > 0 {
            tracing::warn!(job.id = %self.job, missing, "the server does not keep outputs of a job");
        }
        if is_final {
            return After::Over(Over::Reported(conclusion));
        }
        // It answered and did not take the end.
        if pace.failing_for() > self.shared.patience.unreachable {
            return After::Over(Over::GivenUp);
        }
        pace.failed(false);
        After::Go
    }

    /// What becomes of a task after a call that brought nothing.
    async fn failed(&self, pace: &mut Pace, error: &RpcError, said: Said) -> After {
        use RpcErrorKind as Kind;
        metrics::failed_call();
        let (job, connection) = (self.job, &self.id.connection);
        if error.kind == Kind::TooLarge && said == Said::Rows && self.send_less(pace).await {
            return After::Go;
        }
        let refuses_content = matches!(error.kind, Kind::TooLarge | Kind::Refused);
        if refuses_content && said == Said::End && pace.output_tries() < OUTPUT_TRIES {
            // An end without outputs is better than none.
            tracing::error!(job.id = %job, connection, %error, "the outputs of a job are dropped");
            pace.drop_outputs(OUTPUT_TRIES);
            return After::Go;
        }
        if error.kind == Kind::Unauthenticated && self.ephemeral {
            tracing::info!(job.id = %job, connection, "the server ended a task and its runner");
            return After::Over(Over::GivenUp);
        }
        let patience = match error.kind {
            Kind::Unauthenticated => self.shared.patience.unknown,
            Kind::Internal | Kind::Refused => self.shared.patience.refused,
            _ => self.shared.patience.unreachable,
        };
        let is_refusal =
            matches!(error.kind, Kind::Unauthenticated | Kind::Internal | Kind::Refused);
        let waited = if is_refusal { pace.refused_for() } else { pace.failing_for() };
        if waited > patience {
            tracing::error!(job.id = %job, connection, %error, "a task is given up");
            return After::Over(Over::GivenUp);
        }
        if pace.is_first_failure() {
            tracing::warn!(job.id = %job, connection, %error, "cannot report a task; trying again");
        }
        pace.failed(is_refusal);
        After::Go
    }

    /// Makes the next rows fewer or smaller; false when they are as small as they get.
    async fn send_less(&self, pace: &mut Pace) -> bool {
        if pace.batch_rows(BATCH_ROWS) > 1 {
            pace.shrink();
            return true;
        }
        let mut state = self.state.lock().await;
        let Some(row) = state.pending.front_mut().filter(|row| row.text.len() > SHORT_BYTES) else {
            return false;
        };
        let before = row.wire_bytes();
        row.text.truncate(row.text.floor_char_boundary(SHORT_BYTES / 2));
        row.text.push_str(" [cut: something before the server takes no longer line]");
        let after = row.wire_bytes();
        state.pending_bytes = state.pending_bytes + after - before;
        true
    }

    /// The last words: a job that goes on is told to end, the orchestrator that all was taken.
    async fn leave(&self, over: Over) {
        let mut backoff = Backoff::default();
        for _ in 0..LAST_TRIES {
            self.tell_progress().await;
            let told = match over {
                Over::Reported(_) => Ok(()),
                Over::GivenUp => self.cancel().await,
            };
            let owes = {
                let state = self.state.lock().await;
                state.owes_progress && state.standing.host.is_some()
            };
            match told {
                Ok(()) if !owes => break,
                Ok(()) => {}
                Err(error) => tracing::warn!(job.id = %self.job, %error, "cannot cancel a job"),
            }
            tokio::time::sleep(backoff.next()).await;
        }
        if let Err(error) = self.shared.journal.remove(self.job).await {
            tracing::warn!(job.id = %self.job, %error, "cannot forget a task that is over");
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
