//! Databases of other versions: empty, filled by an older program, or by a newer one.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::event::Phase;
use common::ids::{HostId, JobId, ReservationId, VmId};
use common::infrastructure::Cause;
use orchestrator::clock::Clock;
use orchestrator::store::{Accepted, CancelOutcome, JobFilter, JobState, Store, StoreError};
use queue::message::Reserve;
use simulators::PostgresServer;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};

use crate::harness::*;

/// A filled database of each version, for each database. They were written by a program of that
/// version and are never changed.
const SQLITE: &[&str] = &[include_str!("../data/store/sqlite-0001.sql")];
const POSTGRES: &[&str] = &[include_str!("../data/store/postgres-0001.sql")];

/// In the filled databases: one job in each state that matters.
const HOST: &str = "019d0000-0000-7000-8000-000000000001";
const WAITING: &str = "019d0000-0000-7000-8000-000000000011";
const RUNNING: &str = "019d0000-0000-7000-8000-000000000012";
const OVER: &str = "019d0000-0000-7000-8000-000000000013";
const CANCELLED: &str = "019d0000-0000-7000-8000-000000000014";

async fn fill_sqlite(path: &Path, text: &'static str) {
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn fill_postgres(url: &str, text: &'static str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(text).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// Everything that was in the filled database is there, and the store works on with it.
async fn check_filled(store: &Store) {
    let id = |text: &str| -> JobId { text.parse().unwrap() };
    let host: HostId = HOST.parse().unwrap();
    let jobs = store.jobs(&JobFilter::default()).await.unwrap();
    let states: Vec<_> = jobs.iter().rev().map(|job| (job.id, job.state)).collect();
    assert_eq!(
        states,
        [
            (id(WAITING), JobState::Queued),
            (id(RUNNING), JobState::Running),
            (id(OVER), JobState::Done),
        ]
    );
    let rows = store.hosts().await.unwrap();
    assert_eq!((rows.len(), rows[0].report.host, rows[0].jobs), (1, host, 1));
    assert!(rows[0].report.draining && rows[0].report.labels.len() == 2);

    let active = store.active(host).await.unwrap();
    assert_eq!((active.len(), active[0].job.id, active[0].failures), (1, id(RUNNING), 1));
    let detail = store.job(id(RUNNING)).await.unwrap().unwrap();
    assert_eq!(detail.tries.len(), 2);
    assert_eq!(detail.tries[0].cause.as_deref(), Some("SOL-BOOT-TIMEOUT"));
    assert_eq!(detail.tries[1].vm, active[0].vm);
    assert!(detail.tries[1].phases.contains(&(Phase::Boot, seconds(7))));
    assert!(detail.job.user_step_started);
    let lease = detail.job.lease.unwrap();
    assert!(store.finish(id(RUNNING), Some(lease), &passed()).await.unwrap());

    let over = store.job(id(OVER)).await.unwrap().unwrap();
    assert_eq!(over.job.finished.unwrap().infrastructure.unwrap().cause.code(), "SOL-QEMU-KILLED");
    let owed: Vec<_> = store.undelivered(host).await.unwrap().iter().map(|job| job.id).collect();
    assert_eq!(owed, [id(OVER), id(RUNNING)]);
    let times = store.boot_times("sha256:a", size(1), "tcg").await.unwrap().unwrap();
    assert_eq!((times.count, times.longest), (2, seconds(9)));

    // The store goes on: a new host runs the job that waited.
    let new = Host::new(8);
    store.announce(&new.report, new.boot).await.unwrap();
    let claimed = store.claim(new.id, new.room(), &new.report.labels, 10).await.unwrap();
    assert_eq!(ids(&claimed), [id(WAITING)]);
    assert_eq!(store.cancel(id(CANCELLED)).await.unwrap(), CancelOutcome::Remembered);
    store.close().await;
}

#[tokio::test]
async fn filled_sqlite_files_of_every_version() {
    for text in SQLITE {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jobs.db");
        fill_sqlite(&path, text).await;
        let store = Store::sqlite(&path, Clock::system()).await.unwrap();
        check_filled(&store).await;
    }
}

#[tokio::test]
async fn filled_postgres_databases_of_every_version() {
    for text in POSTGRES {
        let url = PostgresServer::shared().await.unwrap().database().await.unwrap();
        fill_postgres(&url, text).await;
        let store = Store::postgres(&url).await.unwrap();
        check_filled(&store).await;
    }
}

/// Whoever adds a version adds a filled database of the one before it.
#[tokio::test]
async fn every_version_has_its_data() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    Store::sqlite(&path, Clock::system()).await.unwrap().close().await;
    let url = format!("sqlite://{}", path.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let row = sqlx::query("PRAGMA user_version").fetch_one(&mut connection).await.unwrap();
    let version = usize::try_from(row.get::<i64, _>(0)).unwrap();
    connection.close().await.unwrap();
    assert_eq!((SQLITE.len(), POSTGRES.len()), (version, version));
}

#[tokio::test]
async fn a_newer_file_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    fill_sqlite(
        &path,
        "PRAGMA user_version = 9000; CREATE TABLE jobs (x); INSERT INTO jobs VALUES (1)",
    )
    .await;
    let before = std::fs::read(&path).unwrap();
    let refused = Store::sqlite(&path, Clock::system()).await.map(drop);
    assert!(matches!(refused, Err(StoreError::Newer { found: 9000, .. })), "{refused:?}");
    let looked = Store::look_at_sqlite(&path).await;
    assert!(matches!(looked, Err(StoreError::Newer { found: 9000, .. })), "{looked:?}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// Its newest changes are still in the log beside the file.
#[tokio::test]
async fn a_newer_file_that_was_killed_is_refused_as_well() {
    let world = World::sqlite().await;
    let copy = tempfile::tempdir().unwrap();
    world.sql("PRAGMA user_version = 9000").await;
    for entry in std::fs::read_dir(world.path().parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let path = copy.path().join("jobs.db");
    let looked = Store::look_at_sqlite(&path).await;
    assert!(matches!(looked, Err(StoreError::Newer { found: 9000, .. })), "{looked:?}");
    let refused = Store::sqlite(&path, Clock::system()).await.map(drop);
    assert!(matches!(refused, Err(StoreError::Newer { found: 9000, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_newer_database_is_refused_and_left_alone() {
    let url = PostgresServer::shared().await.unwrap().database().await.unwrap();
    fill_postgres(
        &url,
        "CREATE TABLE solstice_schema (version BIGINT NOT NULL); \
         INSERT INTO solstice_schema VALUES (9000)",
    )
    .await;
    let refused = Store::postgres(&url).await.map(drop);
    assert!(matches!(refused, Err(StoreError::Newer { found: 9000, .. })), "{refused:?}");
    let looked = Store::look_at_postgres(&url).await;
    assert!(matches!(looked, Err(StoreError::Newer { found: 9000, .. })), "{looked:?}");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    let row = sqlx::query(AssertSqlSafe(tables.to_owned())).fetch_one(&mut connection).await;
    assert_eq!(row.unwrap().get::<i64, _>(0), 1);
}

#[tokio::test]
async fn eight_hosts_start_on_one_empty_database() {
    let url = PostgresServer::shared().await.unwrap().database().await.unwrap();
    let starts = (0..8).map(|_| Store::postgres(&url));
    for store in futures_util::future::join_all(starts).await {
        let store = store.unwrap();
        assert!(store.hosts().await.unwrap().is_empty());
        store.close().await;
    }
}

#[tokio::test]
async fn a_file_that_is_no_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    std::fs::write(
        &path,
        "this is a text file, and a long one, so that it has a header\n".repeat(99),
    )
    .unwrap();
    assert!(Store::sqlite(&path, Clock::system()).await.is_err());
    let nowhere = directory.path().join("nowhere/jobs.db");
    let Err(StoreError::Unavailable { reason }) = Store::sqlite(&nowhere, Clock::system()).await
    else {
        panic!("there is no such directory")
    };
    assert!(reason.contains("nowhere/jobs.db"), "{reason}");
}

#[tokio::test]
async fn a_password_is_not_in_the_error() {
    for url in ["postgres://user:hunter2@[bad", "postgres://user:hunter2@127.0.0.1:1/x"] {
        let error = Store::postgres(url).await.map(drop).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

/// The sealed bodies need no more protection, but names of repositories are nobody else's business.
#[tokio::test]
async fn only_the_owner_reads_the_file() {
    let world = World::sqlite().await;
    let accepted = world.store.accept(&[world.message(|_| {})]).await.unwrap();
    assert_eq!(accepted, [Accepted::WithoutReservation]);
    for entry in std::fs::read_dir(world.path().parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
    }
}

/// Makes the data of these tests for the newest version: files in the directory that
/// `STORE_DATA` names. Only for a version that has none yet.
#[tokio::test]
#[ignore = "makes the data of these tests for a new version"]
async fn make_the_data() {
    let directory = std::env::var("STORE_DATA").expect("STORE_DATA names a directory");
    for (world, name) in [(World::sqlite().await, "sqlite"), (World::postgres().await, "postgres")]
    {
        fill(&world).await;
        world.store.close().await;
        let (version, text) = world.dump().await;
        let path = Path::new(&directory).join(format!("{name}-{version:04}.sql"));
        std::fs::write(path, text).unwrap();
    }
}

async fn fill(world: &World) {
    let store = &world.store;
    let mut host = Host::new(8);
    host.id = HOST.parse().unwrap();
    host.report.host = host.id;
    host.report.name = "host-1".to_owned();
    world.announce(&host).await;
    for (id, priority) in [(WAITING, 0), (RUNNING, 2), (OVER, 1)] {
        world
            .accept(|envelope| {
                envelope.job = id.parse().unwrap();
                envelope.priority = priority;
            })
            .await;
    }
    let claimed = world.claim_many(&host, host.room(), 2).await;
    let [running, over] = &claimed[..] else { panic!("two jobs are claimed") };
    let (job, lease) = (running.message.envelope().job, running.lease);
    store.end_try(job, lease, Some("SOL-BOOT-TIMEOUT")).await.unwrap();
    store.begin_try(job, lease).await.unwrap();
    store.attach_vm(job, lease, VmId::new()).await.unwrap();
    store.phase(job, lease, Phase::Queue, seconds(2)).await.unwrap();
    store.phase(job, lease, Phase::Boot, seconds(7)).await.unwrap();
    store.step_started(job, lease).await.unwrap();
    store.advance(job, lease, JobState::Running, seconds(3600)).await.unwrap();
    let finished = failed(Cause::QemuKilled);
    let job = over.message.envelope().job;
    assert!(store.finish(job, Some(over.lease), &finished).await.unwrap());
    store.cancel(CANCELLED.parse().unwrap()).await.unwrap();
    for time in [3, 9] {
        store.booted("sha256:a", size(1), "tcg", seconds(time)).await.unwrap();
    }
    let question = Reserve {
        id: ReservationId::new(),
        runner: "forgejo-1".to_owned(),
        labels: vec![LABEL.to_owned()],
        want: 3,
    };
    assert_eq!(store.reserve(&question).await.unwrap().count, 3);
    store.set_draining(host.id, true).await.unwrap();
}
