//! One task in hand: what came of its job so far, and the loop that reports it until its end is on the
//! server (forgejo-runner-protocol 6).

mod pace;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use common::event::{Conclusion, JobEvent};
use common::ids::{HostId, JobId};
use common::time::Timestamp;
use forgejo_proto::runner::{TaskResult, UpdateLogRequest, UpdateTaskRequest, UpdateTaskResponse};
use queue::message::{JobMessage, Progress};
use queue::{Queue, Sequencer};
use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::Instant;

use crate::client::{Client, RpcError, RpcErrorKind};
use crate::journal::{Journal, JournalError, Kept, Standing, TaskId};
use crate::metrics;
use crate::report::Row;
use pace::Pace;

pub(crate) use pace::Backoff;

/// Rows of one call at most (forgejo-runner-protocol 6.1: proxies cap bodies).
const BATCH_ROWS: usize = 1_000;
/// Bytes of the rows of one call at most.
const BATCH_BYTES: usize = 480 * 1024;
/// Bytes of rows that the server does not have, from which on the orchestrator is not told that
/// events were taken: it sends no more then.
const AHEAD_BYTES: usize = 8 * 1024 * 1024;
/// A row that is cut because a call with it alone was too large has fewer bytes.
const SHORT_BYTES: usize = 2 * 1024;
/// For how long a server may refuse a task before it is given up: it is over there, or somebody
/// else's.
const REFUSED: Duration = Duration::from_secs(5 * 60);
/// For how long an end is offered to a server that does not answer.
const UNREACHABLE: Duration = Duration::from_secs(48 * 3600);
/// How often outputs are sent again that the server does not list.
const OUTPUT_TRIES: u32 = 4;

/// What all tasks share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) journal: Journal,
    pub(crate) queue: Queue,
    /// How often something is reported while a job runs.
    pub(crate) interval: Duration,
}

/// A task in hand.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: TaskId,
    pub(crate) job: JobId,
    client: Client,
    shared: Shared,
    /// Whether the server forgets the runner with the task (forgejo-runner-protocol 3.7).
    ephemeral: bool,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    standing: Standing,
    /// Rows that the server does not have, in order.
    pending: VecDeque<Row>,
    pending_bytes: usize,
    sequencer: Sequencer,
    /// The orchestrator was not told how far the events were taken.
    owes_progress: bool,
    /// The request, until the queue has it.
    request: Option<JobMessage>,
}

/// What is to be sent next.
enum Next {
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

impl Task {
    pub(crate) fn new(kept: Kept, client: Client, shared: Shared, ephemeral: bool) -> Self {
        let Kept { id, job, request, mut standing, rows } = kept;
        // What is pending is what was kept, whatever the server lost meanwhile.
        if !standing.log_closed {
            standing.acknowledged = standing.report.rows() - rows.len() as u64;
        }
        let sequencer = match standing.progress {
            Some(progress) => Sequencer::resume(progress, standing.report.conclusion().is_some()),
            None => Sequencer::new(job),
        };
        let pending_bytes = rows.iter().map(Row::wire_bytes).sum();
        let state = State {
            standing,
            pending: rows.into(),
            pending_bytes,
            sequencer,
            owes_progress: true,
            request,
        };
        let (state, changed) = (Mutex::new(state), Notify::new());
        Self { id, job, client, shared, ephemeral, state, changed }
    }

    /// Takes events of the job. They are on disk when this returns.
    ///
    /// # Errors
    /// The journal cannot be used; nothing was taken.
    pub(crate) async fn take(
        &self,
        host: HostId,
        events: Vec<JobEvent>,
    ) -> Result<(), JournalError> {
        let mut state = self.state.lock().await;
        let mut sequencer = state.sequencer;
        let new = match sequencer.take(events) {
            Ok(new) => new,
            Err(error) => {
                // They come again when the orchestrator is restarted.
                tracing::error!(job.id = %self.job, %error, "events of a job cannot be taken");
                return Ok(());
            }
        };
        let mut standing = state.standing.clone();
        let first = standing.report.rows();
        let rows: Vec<Row> = new.iter().flat_map(|event| standing.report.take(event)).collect();
        standing.progress = sequencer.progress();
        standing.host = Some(host);
        self.shared.journal.save(self.job, &standing, first, &rows).await?;
        state.standing = standing;
        state.sequencer = sequencer;
        state.add(rows);
        state.owes_progress = true;
        self.tell_progress(&mut state).await;
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Asks for the job's end, once.
    pub(crate) async fn cancel(&self) {
        let mut state = self.state.lock().await;
        if state.standing.cancelled || state.standing.report.conclusion().is_some() {
            return;
        }
        if let Err(error) = self.shared.queue.cancel(self.job).await {
            tracing::warn!(job.id = %self.job, %error, "cannot cancel a job; trying again");
            return;
        }
        state.standing.cancelled = true;
        self.save(&state).await;
    }

    /// Reports until the task's end is on the server. Safe to drop: the next process goes on.
    pub(crate) async fn report(&self) -> Over {
        self.publish().await;
        let mut pace = Pace::new(self.shared.interval);
        loop {
            let after = match self.next(&pace).await {
                Next::Wait(until) => {
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = tokio::time::sleep_until(until) => {}
                    }
                    After::Go
                }
                Next::Rows { first, rows, close } => {
                    self.send_rows(&mut pace, first, rows, close).await
                }
                Next::State { is_end } => self.send_state(&mut pace, is_end).await,
            };
            if let After::Over(over) = after {
                self.forget().await;
                return over;
            }
        }
    }

    /// Hands the job to the queue.
    async fn publish(&self) {
        let Some(request) = self.state.lock().await.request.clone() else { return };
        let mut backoff = Backoff::default();
        loop {
            match self.shared.queue.publish_job(&request).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(job.id = %self.job, %error, "cannot hand a job to the queue");
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
        self.state.lock().await.request = None;
        if let Err(error) = self.shared.journal.published(self.job).await {
            // It is handed over once more by the next process, which changes nothing.
            tracing::warn!(job.id = %self.job, %error, "cannot note that a job was handed over");
        }
    }

    /// What is to be sent now.
    async fn next(&self, pace: &Pace) -> Next {
        let mut state = self.state.lock().await;
        self.end_when_late(&mut state).await;
        let now = Instant::now();
        if let Some(until) = pace.held_until(now) {
            return Next::Wait(until);
        }
        let is_over = state.standing.report.conclusion().is_some();
        if !state.pending.is_empty() && !state.standing.log_closed {
            let limits = (pace.batch_rows(BATCH_ROWS), BATCH_BYTES);
            let (count, bytes) = state.batch(limits);
            let is_full = bytes >= BATCH_BYTES / 2 || count >= pace.batch_rows(BATCH_ROWS);
            if is_full || is_over || pace.rows_are_due(now) {
                let rows: Vec<Row> = state.pending.iter().take(count).cloned().collect();
                let close = is_over && count == state.pending.len();
                return Next::Rows { first: state.standing.acknowledged, rows, close };
            }
        }
        if is_over && (state.pending.is_empty() || state.standing.log_closed) {
            return Next::State { is_end: true };
        }
        if pace.state_is_due(now) {
            return Next::State { is_end: false };
        }
        Next::Wait(pace.next_due(!state.pending.is_empty()))
    }

    /// A job of which nothing is heard by its deadline is ended here.
    async fn end_when_late(&self, state: &mut State) {
        let now = Timestamp::now();
        if now < state.standing.deadline || state.standing.report.conclusion().is_some() {
            return;
        }
        let line = "SOL-SERVICE-LOST: the orchestrators did not say how the job ended; look at \
                    `solstice jobs` and at their logs";
        let first = state.standing.report.rows();
        let rows =
            state.standing.report.end_without_job(now, Conclusion::Failure, &[line.to_owned()]);
        if let Err(error) = self.shared.journal.save(self.job, &state.standing, first, &rows).await
        {
            tracing::warn!(job.id = %self.job, %error, "cannot keep the end of a job");
        }
        state.add(rows);
        // Whatever still runs is of no use.
        drop(self.shared.queue.cancel(self.job).await);
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
                pace.answered();
                pace.sent_rows(Instant::now());
                metrics::rows(count);
                let mut state = self.state.lock().await;
                self.acknowledge(&mut state, u64::try_from(held).unwrap_or(0)).await;
                if close && state.pending.is_empty() {
                    state.standing.log_closed = true;
                }
                self.save(&state).await;
                self.tell_progress(&mut state).await;
                After::Go
            }
            Err(error) if error.kind == RpcErrorKind::AlreadyExists => {
                tracing::info!(job.id = %self.job, "the server closed the log of a task");
                let mut state = self.state.lock().await;
                state.standing.log_closed = true;
                state.drop_pending();
                self.save(&state).await;
                self.tell_progress(&mut state).await;
                After::Go
            }
            Err(error) => self.failed(pace, &error).await,
        }
    }

    /// Forgets the rows that the server has. Where it lost some, others stand in their place, so that
    /// every row keeps its number.
    async fn acknowledge(&self, state: &mut State, held: u64) {
        let before = state.standing.acknowledged;
        if held >= before {
            let known = usize::try_from(held - before).unwrap_or(usize::MAX);
            for row in state.pending.drain(..known.min(state.pending.len())) {
                state.pending_bytes -= row.wire_bytes();
            }
            state.standing.acknowledged = state.standing.report.rows() - state.pending.len() as u64;
            return;
        }
        let lost = before - held;
        tracing::error!(job.id = %self.job, rows = lost, "the server lost a part of a log");
        let line = format!("The server lost {lost} lines of the log that it had taken");
        let now = Timestamp::now();
        let fill = (0..lost).map(|number| Row::new(now, if number == 0 { &line } else { "" }));
        let fill: Vec<Row> = fill.collect();
        state.pending_bytes += fill.iter().map(Row::wire_bytes).sum::<usize>();
        for row in fill.iter().rev() {
            state.pending.push_front(row.clone());
        }
        state.standing.acknowledged = held;
        // The journal has none of them: a next process hears of the loss from the server once more.
    }

    async fn send_state(&self, pace: &mut Pace, is_end: bool) -> After {
        let request = self.state_request(is_end, pace.output_tries()).await;
        match self.client.update_task(request).await {
            Ok(answer) => {
                pace.answered();
                pace.sent_state(Instant::now());
                self.heard(pace, &answer, is_end).await
            }
            Err(error) => self.failed(pace, &error).await,
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
            if is_final {
                self.cancel().await;
            }
            return After::Go;
        }
        let (conclusion, missing) = {
            let state = self.state.lock().await;
            let report = &state.standing.report;
            let conclusion = report.conclusion().unwrap_or(Conclusion::Failure);
            let all = report.sent_outputs().keys();
            let missing = all.filter(|name| !answer.sent_outputs.contains(name)).count();
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
        pace.hold();
        After::Go
    }

    /// What becomes of a task after a call that brought nothing.
    async fn failed(&self, pace: &mut Pace, error: &RpcError) -> After {
        use RpcErrorKind as Kind;
        metrics::failed_call();
        let (job, connection) = (self.job, &self.id.connection);
        if error.kind == Kind::TooLarge && self.send_less(pace).await {
            return After::Go;
        }
        if error.kind == Kind::Unauthenticated && self.ephemeral {
            tracing::info!(job.id = %job, connection, "the server ended a task and its runner");
            self.cancel().await;
            return After::Over(Over::GivenUp);
        }
        let is_refusal =
            matches!(error.kind, Kind::Unauthenticated | Kind::Internal | Kind::Refused);
        let is_too_long =
            pace.failing_for() > UNREACHABLE || (is_refusal && pace.refused_for() > REFUSED);
        if is_too_long {
            tracing::error!(job.id = %job, connection, %error, "a task is given up");
            self.cancel().await;
            return After::Over(Over::GivenUp);
        }
        if pace.is_first_failure() {
            tracing::warn!(job.id = %job, connection, %error, "cannot report a task; trying again");
        }
        pace.failed(is_refusal);
        After::Go
    }

    /// Makes the next call smaller; false when it is as small as it gets.
    async fn send_less(&self, pace: &mut Pace) -> bool {
        if pace.batch_rows(BATCH_ROWS) > 1 {
            pace.shrink();
            return true;
        }
        self.shorten_row().await
    }

    /// Cuts a row that is too large even alone; false when it is short already.
    async fn shorten_row(&self) -> bool {
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

    async fn save(&self, state: &MutexGuard<'_, State>) {
        let rows = state.standing.report.rows();
        if let Err(error) = self.shared.journal.save(self.job, &state.standing, rows, &[]).await {
            // The server tells a next process what it has.
            tracing::warn!(job.id = %self.job, %error, "cannot note what a server has of a task");
        }
    }

    /// Tells the orchestrator how far the events were taken, unless the server is far behind.
    async fn tell_progress(&self, state: &mut MutexGuard<'_, State>) {
        let is_over = state.standing.report.conclusion().is_some();
        let Some((host, progress)) = state.standing.host.zip(state.standing.progress) else {
            return;
        };
        if state.owes_progress && (is_over || state.pending_bytes < AHEAD_BYTES) {
            state.owes_progress = false;
            tell(&self.shared.queue, host, progress).await;
        }
    }

    async fn forget(&self) {
        if let Err(error) = self.shared.journal.remove(self.job).await {
            tracing::warn!(job.id = %self.job, %error, "cannot forget a task that is over");
        }
    }
}

/// Tells an orchestrator how far a job's events were taken.
pub(crate) async fn tell(queue: &Queue, host: HostId, progress: Progress) {
    if let Err(error) = queue.progress(host, progress).await {
        // It comes with the next events, or the orchestrator asks by sending them again.
        tracing::debug!(job.id = %progress.job, %error, "cannot tell how far events were taken");
    }
}

impl State {
    fn add(&mut self, rows: Vec<Row>) {
        if self.standing.log_closed {
            return;
        }
        self.pending_bytes += rows.iter().map(Row::wire_bytes).sum::<usize>();
        self.pending.extend(rows);
    }

    fn drop_pending(&mut self) {
        self.pending.clear();
        self.pending_bytes = 0;
    }

    /// How many of the first rows fit into a call, and their bytes.
    fn batch(&self, (rows, bytes): (usize, usize)) -> (usize, usize) {
        let (mut count, mut sum) = (0, 0);
        for row in self.pending.iter().take(rows) {
            if count > 0 && sum + row.wire_bytes() > bytes {
                break;
            }
            count += 1;
            sum += row.wire_bytes();
        }
        (count, sum)
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The task's state, shared with whoever hands it events.
pub(crate) type InHand = Arc<Task>;
