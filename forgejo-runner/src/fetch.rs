//! The loop of one connection that asks for tasks, never for more than can start
//! (forgejo-runner-protocol 4).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::ids::{JobId, ReservationId};
use common::time::Timestamp;
use forgejo_proto::runner::{FetchTaskResponse, Task as WireTask};
use queue::message::{JobMessage, Release, Reserve, Reserved};
use queue::seal::KeyRing;
use rand::Rng;
use reqwest::Url;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{Client, Kind, RpcError, RpcErrorKind, Version, version};
use crate::events::Tasks;
use crate::journal::{JournalError, Kept, Standing, TaskId};
use crate::label::Label;
use crate::metrics;
use crate::report::Report;
use crate::settings::Connection;
use crate::task::{Backoff, Over, Shared, Task};
use crate::translate::{Origin, Translated, Work, translate};

/// How often an answer may be unreadable before its key is left.
const UNREADABLE: u32 = 6;
/// Tasks of one answer beyond what was asked for; a server that gives more is wrong.
const UNASKED: usize = 16;
/// How long the answer to a question may take once the daemon ends.
const ANSWER: Duration = Duration::from_secs(5);
/// The pause after the server said that it does not know this runner.
const UNKNOWN: Duration = Duration::from_secs(60);
/// How long after its own limits a job may stay without an end.
const GRACE: Duration = Duration::from_secs(3600);
/// How long a job without limits of its own may stay without an end.
const LATE: Duration = Duration::from_secs(3600);

/// What one connection works with.
pub(crate) struct Fetcher {
    pub(crate) connection: Arc<Connection>,
    pub(crate) client: Client,
    pub(crate) shared: Shared,
    pub(crate) keys: KeyRing,
    pub(crate) tasks: Tasks,
    /// Where the reports run.
    pub(crate) working: TaskTracker,
    /// Where the events of jobs go.
    pub(crate) address: String,
    /// When nothing new is taken any more.
    pub(crate) stop: CancellationToken,
    /// When the daemon is gone.
    pub(crate) dead: CancellationToken,
    /// The one job that is wanted, and no other.
    pub(crate) wish: Option<OneJob>,
}

/// A wish for one job instead of all.
#[derive(Clone, Debug, Default)]
pub struct OneJob {
    /// The attempt of a job that it must be (forgejo-runner-protocol 4.5); absent means any.
    pub handle: Option<String>,
    /// Whether to ask until it is there.
    pub wait: bool,
}

impl OneJob {
    /// What a round says about the wish: whether there was a job, or nothing yet.
    fn answer(&self, round: &Result<u32, FetchError>) -> Option<bool> {
        match round {
            Ok(taken) if *taken > 0 => Some(true),
            Ok(_) => (!self.wait).then_some(false),
            Err(FetchError::Rpc(error)) if error.kind == RpcErrorKind::Unimplemented => Some(false),
            Err(_) => (!self.wait).then_some(false),
        }
    }
}

/// What is known of the server.
#[derive(Default)]
struct Server {
    kind: Option<Kind>,
    /// The labels that were declared.
    declared: Option<BTreeSet<String>>,
    ephemeral: bool,
    tasks_version: i64,
    /// The key under which an answer may wait.
    key: Option<String>,
    /// How often its answer could not be read.
    unreadable: u32,
}

/// What an answer had.
#[derive(Clone, Copy, Default)]
struct Taken {
    tasks: u32,
    /// Those among them that are new and for which a machine starts.
    jobs: u32,
}

/// Why a round brought nothing.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Rpc(#[from] RpcError),
    #[error("no reservation: {0}")]
    Queue(#[from] queue::QueueError),
    #[error("{0}")]
    Journal(#[from] JournalError),
}

impl Fetcher {
    /// Asks for tasks until it is stopped; of a runner for one job it gives whether there was one.
    pub(crate) async fn run(self) -> bool {
        let mut server = Server::default();
        let mut backoff = Backoff::default();
        let mut told = false;
        let name = self.connection.name.clone();
        loop {
            let round = tokio::select! {
                round = self.round(&mut server) => round,
                // The key brings the answer to whoever starts next.
                () = self.stopped_for(ANSWER) => return false,
                () = self.dead.cancelled() => return false,
            };
            if let Some(has_one) = self.wish.as_ref().and_then(|wish| wish.answer(&round)) {
                if let Err(error) = round {
                    tracing::error!(connection = name, %error, "no job can be taken");
                }
                return has_one;
            }
            let pause = match round {
                Ok(_) => {
                    if std::mem::take(&mut told) {
                        tracing::info!(connection = name, "the instance answers again");
                    }
                    backoff = Backoff::default();
                    self.interval()
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(connection = name, %error, "cannot fetch tasks; trying again");
                    }
                    self.after(&error, &mut server)
                        .await
                        .unwrap_or_else(|| backoff.next().max(self.interval()))
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = tokio::time::sleep(pause) => {}
            }
            loop {
                let one_less = self.tasks.one_less();
                if self.free() > 0 {
                    break;
                }
                tokio::select! {
                    () = self.stop.cancelled() => return false,
                    () = one_less => {}
                }
            }
        }
    }

    /// What else follows from a round that failed; a pause of its own, where it has one.
    async fn after(&self, error: &FetchError, server: &mut Server) -> Option<Duration> {
        let FetchError::Rpc(error) = error else { return None };
        match error.kind {
            RpcErrorKind::Unauthenticated => {
                // The labels may be gone with the runner.
                server.declared = None;
                Some(UNKNOWN)
            }
            RpcErrorKind::Unreadable => {
                server.unreadable += 1;
                if server.unreadable >= UNREADABLE {
                    // The same key would bring the same answer for ever.
                    tracing::error!(
                        connection = self.connection.name,
                        "an answer that cannot be read is left; the server ends its tasks in time"
                    );
                    (server.key, server.unreadable) = (None, 0);
                    drop(self.shared.journal.take(&self.connection.name, Vec::new()).await);
                }
                None
            }
            _ => None,
        }
    }

    /// When the daemon was told to end so long ago.
    async fn stopped_for(&self, time: Duration) {
        self.stop.cancelled().await;
        tokio::time::sleep(time).await;
    }

    /// The interval, with a random part so that runners spread.
    fn interval(&self) -> Duration {
        self.connection.fetch_interval.mul_f64(rand::rng().random_range(0.9..1.1))
    }

    fn free(&self) -> u32 {
        let used = u32::try_from(self.tasks.of(&self.connection.name)).unwrap_or(u32::MAX);
        self.connection.capacity.saturating_sub(used)
    }

    /// One question, as far as there is room for what it may bring.
    async fn round(&self, server: &mut Server) -> Result<u32, FetchError> {
        if server.kind.is_none() {
            server.kind = self.kind().await;
        }
        let images: BTreeSet<&str> =
            self.connection.labels.iter().map(|label| label.image.as_str()).collect();
        let question = Reserve {
            id: ReservationId::new(),
            runner: self.connection.name.clone(),
            labels: images.into_iter().map(str::to_owned).collect(),
            want: if self.wish.is_some() { 1 } else { self.free() },
        };
        let reserved = tokio::select! {
            () = self.stop.cancelled() => return Ok(0),
            reserved = self.shared.queue.reserve(&question) => reserved?,
        };
        let taken = self.with(server, &reserved).await;
        let used = taken.as_ref().map_or(0, |taken| taken.jobs.min(reserved.count));
        let rest = reserved.count - used;
        if rest > 0 {
            let release = Release { id: reserved.id, count: rest };
            // What is not given back lapses.
            drop(self.shared.queue.release(release).await);
        }
        taken.map(|taken| taken.tasks)
    }

    /// Asks with a reservation.
    async fn with(&self, server: &mut Server, reserved: &Reserved) -> Result<Taken, FetchError> {
        let name = &self.connection.name;
        if server.key.is_none() {
            server.key = self.shared.journal.request_key(name).await?;
        }
        // An answer that was lost is fetched first, whether there is room or not.
        let is_lost = server.key.is_some();
        if reserved.count == 0 && !is_lost {
            return Ok(Taken::default());
        }
        if !is_lost || reserved.count > 0 {
            self.declare(server, reserved).await?;
            if server.declared.as_ref().is_none_or(BTreeSet::is_empty) {
                return Ok(Taken::default());
            }
        }
        let key = match &server.key {
            Some(key) => key.clone(),
            None => {
                let key = uuid::Uuid::new_v4().to_string();
                self.shared.journal.keep_key(name, &key).await?;
                server.key = Some(key.clone());
                key
            }
        };
        let count = reserved.count.max(1);
        // What a lost answer had comes by the call that it was the answer to.
        let handle =
            self.wish.as_ref().and_then(|wish| wish.handle.as_deref()).filter(|_| !is_lost);
        let version = server.tasks_version;
        let (mut tasks, tasks_version) = self.ask(version, (count, handle), &key).await?;
        server.unreadable = 0;
        let most = count as usize + UNASKED;
        if tasks.len() > most {
            tracing::error!(
                connection = name,
                given = tasks.len(),
                asked = count,
                "too many tasks"
            );
            tasks.truncate(most);
        }
        let id = (reserved.count > 0).then_some(reserved.id);
        let taken = self.accept(server, tasks, id).await?;
        server.key = None;
        // More may wait under the same number (forgejo-runner-protocol 4.1).
        server.tasks_version =
            if taken.tasks > 0 { 0 } else { server.tasks_version.max(tasks_version) };
        Ok(taken)
    }

    /// The call itself: tasks, and the number of the queue.
    async fn ask(
        &self,
        tasks_version: i64,
        (count, handle): (u32, Option<&str>),
        key: &str,
    ) -> Result<(Vec<WireTask>, i64), FetchError> {
        if let Some(handle) = handle {
            let answer = self.client.fetch_single(handle, key).await?;
            return Ok((answer.task.into_option().into_iter().collect(), answer.tasks_version));
        }
        let answer = self.client.fetch(tasks_version, count, key).await?;
        let FetchTaskResponse { task, additional_tasks, tasks_version, .. } = answer;
        // Some servers give further tasks without a first one (forgejo-runner-protocol 4.3).
        let tasks = task.into_option().into_iter().chain(additional_tasks);
        Ok((tasks.collect(), tasks_version))
    }

    async fn kind(&self) -> Option<Kind> {
        let Connection { url, trust, name, .. } = &*self.connection;
        match version(url, trust).await {
            Ok(Some(Version { kind, text })) => {
                tracing::info!(connection = name, version = text, ?kind, "server");
                Some(kind)
            }
            Ok(None) => Some(Kind::Forgejo),
            Err(_) => None,
        }
    }

    /// Declares what hosts can run, when that has changed.
    async fn declare(&self, server: &mut Server, reserved: &Reserved) -> Result<(), FetchError> {
        let live = |label: &&Label| reserved.labels.contains(&label.image);
        let names: BTreeSet<String> =
            self.connection.labels.iter().filter(live).map(|label| label.name.clone()).collect();
        if server.declared.as_ref() == Some(&names) || names.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = names.iter().cloned().collect();
        match self.client.declare(&list).await {
            Ok(declared) => server.ephemeral = declared.ephemeral,
            Err(error) if error.kind == RpcErrorKind::Unimplemented => {
                tracing::warn!(
                    connection = self.connection.name,
                    "the server is too old to be told labels; it has those of the registration"
                );
            }
            Err(error) => return Err(error.into()),
        }
        tracing::info!(connection = self.connection.name, labels = list.join(","), "declared");
        server.declared = Some(names);
        // A number of before says nothing about jobs for other labels.
        server.tasks_version = 0;
        Ok(())
    }

    /// Takes tasks into hand: on disk first.
    async fn accept(
        &self,
        server: &Server,
        tasks: Vec<WireTask>,
        reservation: Option<ReservationId>,
    ) -> Result<Taken, FetchError> {
        let url = base(&self.connection.url);
        let origin = Origin {
            url: &url,
            kind: server.kind,
            labels: &self.connection.labels,
            reply_to: &self.address,
        };
        let kept = tasks.iter().map(|task| self.kept(task, translate(task, &origin, reservation)));
        let taken = self.shared.journal.take(&self.connection.name, kept.collect()).await?;
        let count = |tasks: usize| u32::try_from(tasks).unwrap_or(u32::MAX);
        let jobs = taken.iter().filter(|kept| kept.request.is_some()).count();
        let counts = Taken { tasks: count(tasks.len()), jobs: count(jobs) };
        for kept in taken {
            tracing::info!(
                connection = kept.id.connection, task = kept.id.number, job.id = %kept.job, "taken"
            );
            metrics::taken();
            self.spawn(kept, server.ephemeral);
        }
        Ok(counts)
    }

    /// A task as it is kept from now on.
    fn kept(&self, task: &WireTask, translated: Translated) -> Kept {
        let now = Timestamp::now();
        let Translated { steps, opening, work } = translated;
        let mut report = Report::new(steps);
        let mut rows = report.open(now, &opening);
        let standing = |report: &Report, limit: Duration| Standing {
            report: report.clone(),
            progress: None,
            host: None,
            acknowledged: 0,
            log_closed: false,
            cancelled: false,
            deadline: later(now, limit),
        };
        let id = TaskId { connection: self.connection.name.clone(), number: task.id };
        let (job, request, standing) = match work {
            Work::Run(request) => {
                let job = request.envelope.job;
                let limits = request.envelope.deadlines;
                match JobMessage::seal(&request, &self.keys) {
                    Ok(message) => {
                        let limit = limits.queued + limits.running + GRACE;
                        (job, Some(message), standing(&report, limit))
                    }
                    Err(error) => {
                        let line = format!("The job cannot be handed over: {error}");
                        let failure = common::event::Conclusion::Failure;
                        rows.extend(report.end_without_job(now, failure, &[line]));
                        (job, None, standing(&report, LATE))
                    }
                }
            }
            Work::End(conclusion, lines) => {
                rows.extend(report.end_without_job(now, conclusion, &lines));
                (JobId::new(), None, standing(&report, LATE))
            }
        };
        Kept { id, job, request, standing, rows }
    }

    /// Starts the report of a task.
    pub(crate) fn spawn(&self, kept: Kept, ephemeral: bool) {
        let task = Task::new(kept, self.client.clone(), self.shared.clone(), ephemeral);
        let task = Arc::new(task);
        self.tasks.add(Arc::clone(&task));
        let tasks = self.tasks.clone();
        let dead = self.dead.clone();
        self.working.spawn(async move {
            let over = tokio::select! {
                over = task.report() => over,
                () = dead.cancelled() => return,
            };
            tasks.remove(task.job);
            let result = match over {
                Over::Reported(conclusion) => Some(conclusion),
                Over::GivenUp => None,
            };
            metrics::over(result);
            tracing::info!(task = task.id.number, job.id = %task.job, ?result, "over");
        });
    }
}

/// The instance's address without a final slash.
fn base(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    let by = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
    Timestamp::from_micros(time.as_micros().saturating_add(by))
}
