//! The daemon: what an earlier process left, a loop for each connection, and the end of it all.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::Flock;
use queue::seal::KeyRing;
use queue::{Address, Queue, QueueError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{Client, RpcError};
use crate::events::{PREFETCH, Tasks, deliver};
use crate::fetch::{Fetcher, OneJob};
use crate::journal::{Journal, JournalError};
use crate::metrics;
use crate::settings::RunnerSettings;
use crate::state::{self, Refused};
use crate::task::Shared;

/// The journal's file in the directory.
const JOURNAL: &str = "journal.db";
/// The pause before what could not be cancelled is cancelled once more.
const AGAIN: Duration = Duration::from_secs(1);
/// How long jobs that were cancelled because the daemon ends may take to be reported.
const CANCELLED: Duration = Duration::from_secs(120);

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory cannot be used.
    #[error("the directory {path:?} cannot be used: {reason}")]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// Another process has it.
    #[error("another process works with {path:?}; end it, or give this one another `state_dir`")]
    Busy {
        /// Which.
        path: PathBuf,
    },
    /// A task came over a connection that is gone.
    #[error(
        "tasks of the connection {connection:?} are not reported yet, and the settings do not have it \
         any more; add it again, or delete {path:?} to give up every task in hand"
    )]
    Orphan {
        /// Its name.
        connection: String,
        /// The journal.
        path: PathBuf,
    },
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The queue cannot be used.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The settings of a connection cannot be used.
    #[error("the connection {connection:?}: {reason}")]
    Connection {
        /// Its name.
        connection: String,
        /// Why.
        reason: RpcError,
    },
}

/// The runners of all connections. Dropping it is what a crash is: the next start goes on.
#[derive(Debug)]
pub struct Runner {
    tasks: Tasks,
    shared: Shared,
    shutdown: Duration,
    stop: CancellationToken,
    /// Ends everything at once.
    dead: CancellationToken,
    /// The loops that take tasks.
    fetching: TaskTracker,
    /// The reports.
    working: TaskTracker,
    delivering: tokio::task::AbortHandle,
    /// Held as long as this process has the directory.
    _lock: Flock<File>,
}

impl Runner {
    /// Goes on with the tasks of an earlier process and takes new ones.
    ///
    /// # Errors
    /// Something that it needs cannot be used; nothing was taken.
    pub async fn start(
        settings: RunnerSettings,
        queue: Queue,
        keys: KeyRing,
    ) -> Result<Self, StartError> {
        Ok(Self::begin(settings, queue, keys, None).await?.0)
    }

    /// Takes one job of the only connection, and none beside it. Whatever an earlier process left is
    /// reported as well. Gives whether there was one. `stop` ends the wait for it, and `hurry` the job
    /// itself.
    ///
    /// # Errors
    /// As [`Runner::start`].
    pub async fn one_job(
        settings: RunnerSettings,
        queue: Queue,
        keys: KeyRing,
        wish: OneJob,
        (stop, hurry): (CancellationToken, CancellationToken),
    ) -> Result<bool, StartError> {
        let (runner, mut fetches) = Self::begin(settings, queue, keys, Some(wish)).await?;
        let fetched = futures_util::future::join_all(fetches.drain(..));
        tokio::pin!(fetched);
        let fetched = tokio::select! {
            fetched = &mut fetched => fetched,
            () = stop.cancelled() => {
                runner.stop.cancel();
                fetched.await
            }
        };
        let taken = fetched.into_iter().any(|fetched| fetched.unwrap_or(false));
        tokio::select! {
            () = runner.tasks.none() => {}
            () = hurry.cancelled() => runner.cancel_all().await,
        }
        Ok(taken)
    }

    async fn begin(
        settings: RunnerSettings,
        queue: Queue,
        keys: KeyRing,
        wish: Option<OneJob>,
    ) -> Result<(Self, Vec<JoinHandle<bool>>), StartError> {
        let state = &settings.state;
        let lock = state::open(state).map_err(|reason| match reason {
            Refused::Busy => StartError::Busy { path: state.clone() },
            Refused::Io(reason) => StartError::State { path: state.clone(), reason },
        })?;
        metrics::describe();
        let journal = Journal::open(&state.join(JOURNAL), keys.clone()).await?;
        let address = journal.address().await?;
        let known: Address = address.parse().expect("the journal makes plain addresses");
        let events = queue.events(&known, PREFETCH).await?;
        let shared = Shared {
            journal,
            queue: queue.clone(),
            interval: settings.report_interval,
            patience: settings.patience,
        };
        let tasks = Tasks::default();
        let (stop, dead) = (CancellationToken::new(), CancellationToken::new());
        let (fetching, working) = (TaskTracker::new(), TaskTracker::new());
        let mut fetchers = Vec::new();
        for connection in settings.connections {
            let client = Client::new(&connection).map_err(|reason| {
                let connection = connection.name.clone();
                StartError::Connection { connection, reason }
            })?;
            fetchers.push(Fetcher {
                connection: Arc::new(connection),
                client,
                shared: shared.clone(),
                keys: keys.clone(),
                tasks: tasks.clone(),
                working: working.clone(),
                address: address.clone(),
                stop: stop.clone(),
                dead: dead.clone(),
                wish: wish.clone(),
            });
        }
        let of = |name: &str| fetchers.iter().find(|fetcher| fetcher.connection.name == name);
        let kept = shared.journal.tasks().await?;
        if let Some(orphan) = kept.iter().find(|kept| of(&kept.id.connection).is_none()) {
            let (connection, path) = (orphan.id.connection.clone(), settings.state.join(JOURNAL));
            return Err(StartError::Orphan { connection, path });
        }
        // Events must find their tasks.
        for kept in kept {
            if let Some(fetcher) = of(&kept.id.connection) {
                fetcher.spawn(kept, false);
            }
        }
        let delivering = tokio::spawn(deliver(events, queue, keys, tasks.clone())).abort_handle();
        let fetches = fetchers.into_iter().map(|fetcher| fetching.spawn(fetcher.run())).collect();
        let shutdown = settings.shutdown;
        let runner = Self {
            tasks,
            shared,
            shutdown,
            stop,
            dead,
            fetching,
            working,
            delivering,
            _lock: lock,
        };
        Ok((runner, fetches))
    }

    /// Takes no new task, and waits for those in hand up to the limit of the settings; then, or when
    /// `hurry` is cancelled, cancels them and still reports. What is not reported then is left to the
    /// next start.
    pub async fn stop(self, hurry: CancellationToken) {
        self.stop.cancel();
        self.fetching.close();
        self.fetching.wait().await;
        let waiting = self.tasks.all().len();
        if waiting > 0 {
            tracing::info!(tasks = waiting, "no new tasks; waiting for those in hand");
        }
        tokio::select! {
            () = self.tasks.none() => {}
            () = hurry.cancelled() => self.cancel_all().await,
            () = tokio::time::sleep(self.shutdown) => self.cancel_all().await,
        }
        self.working.close();
    }

    async fn cancel_all(&self) {
        tracing::warn!(tasks = self.tasks.all().len(), "cancelling the jobs in hand");
        let cancel = async {
            loop {
                for task in self.tasks.all() {
                    if let Err(error) = task.cancel().await {
                        tracing::warn!(job.id = %task.job, %error, "cannot cancel a job");
                    }
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        let all_over = async {
            tokio::select! {
                () = self.tasks.none() => {}
                () = cancel => {}
            }
        };
        if tokio::time::timeout(CANCELLED, all_over).await.is_err() {
            tracing::warn!(
                "tasks are left that were not reported; the next start goes on with them"
            );
        }
    }

    /// The queue that it works with.
    #[must_use]
    pub fn queue(&self) -> Queue {
        self.shared.queue.clone()
    }

    /// How many tasks are in hand.
    #[must_use]
    pub fn tasks_in_hand(&self) -> usize {
        self.tasks.all().len()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.stop.cancel();
        self.dead.cancel();
        self.delivering.abort();
    }
}
