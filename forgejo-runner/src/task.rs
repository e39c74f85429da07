//! One task in hand: what came of its job so far. `sending` reports it until its end is on the server
//! (forgejo-runner-protocol 6).

mod pace;
mod sending;

use std::collections::VecDeque;
use std::time::Duration;

use common::event::{Conclusion, JobEvent};
use common::ids::{HostId, JobId};
use common::time::Timestamp;
use queue::message::{JobMessage, Progress};
use queue::{Queue, QueueError, Sequencer};
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use crate::client::Client;
use crate::journal::{Journal, JournalError, Kept, Standing, TaskId};
use crate::report::Row;
use crate::settings::Patience;

pub(crate) use pace::Backoff;
pub(crate) use sending::Over;

/// Bytes of rows that the server does not have, from which on the orchestrator is not told that
/// events were taken: it sends no more then.
const AHEAD_BYTES: usize = 8 * 1024 * 1024;
/// For how long after its start a process waits for events before it ends a job that is late.
const LISTENING: Duration = Duration::from_secs(10 * 60);

/// What all tasks share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) journal: Journal,
    pub(crate) queue: Queue,
    /// How often something is reported while a job runs.
    pub(crate) interval: Duration,
    pub(crate) patience: Patience,
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
    /// Since when this process has it.
    since: Instant,
    state: Mutex<State>,
    changed: Notify,
}

/// What changes. Unless the log is closed, the rows that the server has and those that are pending
/// are together all rows of the report.
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

impl Task {
    pub(crate) fn new(kept: Kept, client: Client, shared: Shared, ephemeral: bool) -> Self {
        let Kept { id, job, request, mut standing, mut rows } = kept;
        if standing.log_closed {
            rows.clear();
        } else {
            // What is pending is what was kept, whatever the server lost meanwhile.
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
        let (state, changed, since) = (Mutex::new(state), Notify::new(), Instant::now());
        Self { id, job, client, shared, ephemeral, since, state, changed }
    }

    /// Takes events of the job. They are on disk when this returns.
    ///
    /// # Errors
    /// The journal cannot be used; nothing was taken.
    pub(crate) async fn take(&self, host: HostId, events: &[JobEvent]) -> Result<(), JournalError> {
        let mut state = self.state.lock().await;
        let mut sequencer = state.sequencer;
        let new = match sequencer.take(events.to_vec()) {
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
        self.keep(&mut state, standing, (first, rows)).await?;
        state.sequencer = sequencer;
        state.owes_progress = true;
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Ends the task, because its job cannot be followed any more.
    ///
    /// # Errors
    /// The journal cannot be used; nothing has changed.
    pub(crate) async fn fail(&self, line: &str) -> Result<(), JournalError> {
        let mut state = self.state.lock().await;
        if state.standing.report.conclusion().is_none() {
            self.end(&mut state, Conclusion::Failure, line).await?;
        }
        drop(state);
        self.changed.notify_one();
        self.cancel_beside();
        Ok(())
    }

    /// Asks for the job's end. What fails is tried again by whoever still wants it; asking twice does
    /// nothing more.
    ///
    /// # Errors
    /// The queue cannot be used.
    pub(crate) async fn cancel(&self) -> Result<(), QueueError> {
        let mut state = self.state.lock().await;
        if state.standing.cancelled || state.standing.report.conclusion().is_some() {
            return Ok(());
        }
        if state.request.is_some() {
            // No host has it, and none shall get it.
            let ended = self.end(&mut state, Conclusion::Cancelled, NOT_BEGUN).await;
            if let Err(error) = ended {
                tracing::warn!(job.id = %self.job, %error, "cannot keep the end of a job");
            } else {
                state.request = None;
                self.changed.notify_one();
            }
        }
        // Events are taken meanwhile.
        drop(state);
        self.shared.queue.cancel(self.job).await?;
        let mut state = self.state.lock().await;
        state.standing.cancelled = true;
        self.save(&state).await;
        Ok(())
    }

    /// Ends the task here, with a line in its log.
    async fn end(
        &self,
        state: &mut State,
        conclusion: Conclusion,
        line: &str,
    ) -> Result<(), JournalError> {
        let mut standing = state.standing.clone();
        let first = standing.report.rows();
        let lines = [line.to_owned()];
        let rows = standing.report.end_without_job(Timestamp::now(), conclusion, &lines);
        self.keep(state, standing, (first, rows)).await
    }

    /// Keeps a new standing with rows that are new from a number on, on disk first.
    async fn keep(
        &self,
        state: &mut State,
        standing: Standing,
        (first, rows): (u64, Vec<Row>),
    ) -> Result<(), JournalError> {
        // Of a log that is closed nobody wants more.
        let rows = if standing.log_closed { Vec::new() } else { rows };
        self.shared.journal.save(self.job, &standing, first, &rows).await?;
        state.standing = standing;
        state.pending_bytes += rows.iter().map(Row::wire_bytes).sum::<usize>();
        state.pending.extend(rows);
        Ok(())
    }

    /// Keeps what is known of the server, without new rows.
    async fn save(&self, state: &State) {
        let first = state.standing.report.rows();
        if let Err(error) = self.shared.journal.save(self.job, &state.standing, first, &[]).await {
            // The server tells a next process what it has.
            tracing::warn!(job.id = %self.job, %error, "cannot note what a server has of a task");
        }
    }

    /// A job of which nothing is heard by its deadline is ended here, unless it is this side that
    /// does not listen.
    async fn end_when_late(&self, state: &mut State) {
        let is_late = Timestamp::now() >= state.standing.deadline
            && self.since.elapsed() >= LISTENING
            && state.pending_bytes < AHEAD_BYTES;
        if !is_late || state.standing.report.conclusion().is_some() {
            return;
        }
        if let Err(error) = self.end(state, Conclusion::Failure, SILENT).await {
            tracing::warn!(job.id = %self.job, %error, "cannot keep the end of a job");
            return;
        }
        self.cancel_beside();
    }

    /// Asks for the end of a job whose task is over here, beside everything else: whatever still runs
    /// is of no use.
    fn cancel_beside(&self) {
        let (queue, job) = (self.shared.queue.clone(), self.job);
        tokio::spawn(async move {
            if let Err(error) = queue.cancel(job).await {
                tracing::warn!(job.id = %job, %error, "cannot cancel a job");
            }
        });
    }

    /// Tells the orchestrator how far the events were taken, unless the server is far behind. What
    /// fails is owed until the next time.
    async fn tell_progress(&self) {
        let (host, progress) = {
            let state = self.state.lock().await;
            let is_over = state.standing.report.conclusion().is_some();
            let is_due = state.owes_progress && (is_over || state.pending_bytes < AHEAD_BYTES);
            let known = state.standing.host.zip(state.standing.progress);
            let Some(told) = known.filter(|_| is_due) else { return };
            told
        };
        match self.shared.queue.progress(host, progress).await {
            Ok(()) => {
                let mut state = self.state.lock().await;
                if state.standing.progress == Some(progress) {
                    state.owes_progress = false;
                }
            }
            Err(error) => {
                tracing::debug!(job.id = %self.job, %error, "cannot tell how far events were taken");
            }
        }
    }
}

/// What the log of a job says that was cancelled before a host had it.
const NOT_BEGUN: &str = "Cancelled before a host had the job";
/// What the log of a job says that nobody ends.
const SILENT: &str = "SOL-SERVICE-LOST: the orchestrators did not say how the job ended; look at \
                      `solstice jobs` and at their logs";

/// Tells an orchestrator, beside everything else, that events of a job were taken.
pub(crate) fn tell(queue: &Queue, host: HostId, progress: Progress) {
    let queue = queue.clone();
    tokio::spawn(async move {
        if let Err(error) = queue.progress(host, progress).await {
            tracing::debug!(job.id = %progress.job, %error, "cannot tell how far events were taken");
        }
    });
}

impl State {
    fn is_over(&self) -> bool {
        self.standing.report.conclusion().is_some()
    }

    /// The server takes no more rows.
    fn close_log(&mut self) {
        self.standing.log_closed = true;
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

    /// Forgets the rows that the server has, and gives whether there were any. Where it lost some,
    /// others stand in their place, so that every row keeps its number; the journal has none of them,
    /// since the server tells a next process of the loss once more.
    fn acknowledge(&mut self, held: u64, job: JobId) -> bool {
        let before = self.standing.acknowledged;
        if held >= before {
            let known = usize::try_from(held - before).unwrap_or(usize::MAX);
            for row in self.pending.drain(..known.min(self.pending.len())) {
                self.pending_bytes -= row.wire_bytes();
            }
            self.standing.acknowledged = self.standing.report.rows() - self.pending.len() as u64;
            return self.standing.acknowledged > before;
        }
        let lost = before - held;
        tracing::error!(job.id = %job, rows = lost, "the server lost a part of a log");
        let (now, empty) = (Timestamp::now(), Row::new(Timestamp::now(), ""));
        for _ in 1..lost {
            self.pending_bytes += empty.wire_bytes();
            self.pending.push_front(empty.clone());
        }
        let line = format!("The server lost {lost} lines of the log that it had taken");
        let first = Row::new(now, line);
        self.pending_bytes += first.wire_bytes();
        self.pending.push_front(first);
        self.standing.acknowledged = held;
        false
    }
}
