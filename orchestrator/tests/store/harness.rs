//! An installation's store on either database, with hosts and jobs to put into it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::event::{Finished, JobResult};
use common::ids::{HostId, JobId, LeaseId};
use common::infrastructure::{Cause, Infrastructure};
use common::request::{Envelope, Forge, MachineSize};
use common::size::ByteSize;
use orchestrator::clock::Clock;
use orchestrator::store::{
    Accepted, Claimed, HostReport, Job, JobState, LabelOffer, NewJob, Room, Size, Store,
};
use queue::message::JobMessage;
use queue::seal::KeyRing;
use simulators::PostgresServer;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use uuid::Uuid;

use crate::dump;

/// How long anything may take that happens by itself, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The label that most jobs have.
pub(crate) const LABEL: &str = "debian-12";
/// The label whose machines are as large as four of the others.
pub(crate) const LARGE: &str = "large";

/// Makes a test for each database of one function that takes a [`World`].
macro_rules! on_both {
    ($($(#[$doc:meta])* async fn $name:ident($world:pat_param) $body:block)*) => { $(
        $(#[$doc])*
        async fn $name($world: $crate::harness::World) $body

        mod $name {
            #[tokio::test]
            async fn sqlite() {
                super::$name($crate::harness::World::sqlite().await).await;
            }

            #[tokio::test]
            async fn postgres() {
                super::$name($crate::harness::World::postgres().await).await;
            }
        }
    )* };
}
pub(crate) use on_both;

/// A store, and what tests need beside it.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) keys: KeyRing,
    place: Place,
    clock: Clock,
}

enum Place {
    Sqlite { path: PathBuf, _directory: tempfile::TempDir },
    Postgres(String),
}

impl World {
    pub(crate) async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jobs.db");
        let clock = Clock::system();
        let store = Store::sqlite(&path, clock.clone()).await.unwrap();
        let place = Place::Sqlite { path, _directory: directory };
        Self { store, keys: KeyRing::ephemeral(), place, clock }
    }

    pub(crate) async fn postgres() -> Self {
        let url = PostgresServer::shared().await.unwrap().database().await.unwrap();
        let store = Store::postgres(&url).await.unwrap();
        let (keys, clock) = (KeyRing::ephemeral(), Clock::system());
        Self { store, keys, place: Place::Postgres(url), clock }
    }

    /// Another host's store of the same installation. With SQLite, which is for one host, this
    /// one's.
    pub(crate) async fn other(&self) -> Store {
        match &self.place {
            Place::Sqlite { .. } => self.store.clone(),
            Place::Postgres(_) => self.again().await,
        }
    }

    /// What another process opens.
    pub(crate) async fn again(&self) -> Store {
        match &self.place {
            Place::Sqlite { path, .. } => Store::sqlite(path, self.clock.clone()).await.unwrap(),
            Place::Postgres(url) => Store::postgres(url).await.unwrap(),
        }
    }

    /// Closes the store and opens it again.
    pub(crate) async fn reopen(&mut self) {
        self.store.close().await;
        self.store = self.again().await;
    }

    /// The file of a world on SQLite.
    pub(crate) fn path(&self) -> &Path {
        match &self.place {
            Place::Sqlite { path, .. } => path,
            Place::Postgres(_) => panic!("this world has no file"),
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Lets time pass for everything in the store: SQLite's clock is ours; in PostgreSQL, whose
    /// clock nobody can set, everything becomes older.
    pub(crate) async fn pass(&self, time: Duration) {
        let micros = i64::try_from(time.as_micros()).unwrap();
        if let Place::Sqlite { .. } = &self.place {
            return self.clock.jump(micros);
        }
        for (table, columns) in [
            ("hosts", &["heartbeat"] as &[&str]),
            ("jobs", &["since", "deadline", "queued_until", "created", "claimed", "ended"]),
            ("tries", &["began", "ended"]),
            ("cancels", &["time"]),
            ("reservations", &["created", "expires"]),
            ("boots", &["time"]),
        ] {
            let set: Vec<_> =
                columns.iter().map(|column| format!("{column} = {column} - {micros}")).collect();
            self.sql(&format!("UPDATE {table} SET {}", set.join(", "))).await;
        }
        // A heartbeat of 0 means none.
        self.sql("UPDATE hosts SET heartbeat = 0 WHERE heartbeat < 0").await;
    }

    /// Does something behind the store's back.
    pub(crate) async fn sql(&self, text: &str) {
        let text = AssertSqlSafe(text.to_owned());
        match &self.place {
            Place::Sqlite { path, .. } => {
                let url = format!("sqlite://{}", path.display());
                let mut connection = SqliteConnection::connect(&url).await.unwrap();
                sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            Place::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await.unwrap();
                sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// The version of the database, and its tables with everything in them as one text.
    pub(crate) async fn dump(&self) -> (i64, String) {
        match &self.place {
            Place::Sqlite { path, .. } => dump::sqlite(path).await,
            Place::Postgres(url) => dump::postgres(url).await,
        }
    }

    /// A host with so many processors that announces itself.
    pub(crate) async fn host(&self, cpus: u32) -> Host {
        let host = Host::new(cpus);
        self.announce(&host).await;
        host
    }

    pub(crate) async fn announce(&self, host: &Host) {
        self.store.announce(&host.report, host.boot).await.unwrap();
    }

    /// A message that is nowhere yet.
    pub(crate) fn message(&self, change: impl FnOnce(&mut Envelope)) -> NewJob {
        let mut request = simulators::jobs::job(LABEL, &["echo hello"]);
        request.envelope.forge = Forge::Forgejo;
        request.envelope.reply_to = "forgejo-1".to_owned();
        change(&mut request.envelope);
        let message = JobMessage::seal(&request, &self.keys).unwrap();
        NewJob { message, size: Some(size(1)), only: None }
    }

    /// Accepts a job; its id.
    pub(crate) async fn accept(&self, change: impl FnOnce(&mut Envelope)) -> JobId {
        let job = self.message(change);
        let answers = self.store.accept(std::slice::from_ref(&job)).await.unwrap();
        assert!(matches!(answers[..], [Accepted::New | Accepted::WithoutReservation]));
        id(&job)
    }

    /// Accepts so many jobs.
    pub(crate) async fn accept_many(&self, count: usize) -> Vec<JobId> {
        let jobs: Vec<_> = (0..count).map(|_| self.message(|_| {})).collect();
        self.store.accept(&jobs).await.unwrap();
        jobs.iter().map(id).collect()
    }

    /// Claims one job for a host that has all its room.
    pub(crate) async fn claim(&self, host: &Host) -> Claimed {
        let mut claimed = self.claim_many(host, host.room(), 1).await;
        claimed.pop().expect("a job to claim")
    }

    pub(crate) async fn claim_many(&self, host: &Host, room: Room, most: u32) -> Vec<Claimed> {
        self.store.claim(host.id, room, &host.report.labels, most).await.unwrap()
    }

    /// A job that a new host has just claimed.
    pub(crate) async fn claimed(&self) -> (Host, JobId, LeaseId) {
        let host = self.host(8).await;
        let job = self.accept(|_| {}).await;
        let claimed = self.claim(&host).await;
        assert_eq!(claimed.message.envelope().job, job);
        (host, job, claimed.lease)
    }

    pub(crate) async fn job(&self, job: JobId) -> Job {
        self.store.job(job).await.unwrap().expect("the job is known").job
    }

    pub(crate) async fn state(&self, job: JobId) -> JobState {
        self.job(job).await.state
    }
}

/// A host of the installation.
pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) boot: Uuid,
    pub(crate) report: HostReport,
}

impl Host {
    pub(crate) fn new(cpus: u32) -> Self {
        let id = HostId::new();
        let offer = |label: &str, cpus| LabelOffer { label: label.to_owned(), size: size(cpus) };
        let report = HostReport {
            host: id,
            name: format!("host-{}", id.short()),
            labels: vec![offer(LABEL, 1), offer(LARGE, 4)],
            capacity: size(cpus),
            usable: size(cpus),
            acceleration: "tcg".to_owned(),
            load: 25,
            draining: false,
            version: "0.1.0".to_owned(),
        };
        Self { id, boot: Uuid::now_v7(), report }
    }

    /// All its room.
    pub(crate) fn room(&self) -> Room {
        self.room_without(0)
    }

    /// Its room when so many processors are in use.
    pub(crate) fn room_without(&self, used: u32) -> Room {
        let capacity = self.report.capacity;
        Room { free: size(capacity.cpus - used), capacity }
    }
}

/// Machines have a gibibyte for each processor.
pub(crate) fn size(cpus: u32) -> Size {
    Size { cpus, memory: ByteSize(u64::from(cpus) << 30) }
}

pub(crate) fn asked(cpus: u32) -> MachineSize {
    MachineSize { cpus: Some(cpus), memory: Some(size(cpus).memory) }
}

pub(crate) fn id(job: &NewJob) -> JobId {
    job.message.envelope().job
}

pub(crate) fn ids(claimed: &[Claimed]) -> Vec<JobId> {
    claimed.iter().map(|one| one.message.envelope().job).collect()
}

pub(crate) fn passed() -> Finished {
    Finished { result: JobResult::Success, infrastructure: None }
}

pub(crate) fn failed(cause: Cause) -> Finished {
    let infrastructure = Some(Infrastructure::new(cause, "the test says so"));
    Finished { result: JobResult::Failure, infrastructure }
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
