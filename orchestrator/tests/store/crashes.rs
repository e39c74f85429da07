//! The process or the database dies in the middle.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use common::ids::JobId;
use orchestrator::clock::Clock;
use orchestrator::store::{JobState, Store, StoreError};
use queue::seal::KeyRing;
use simulators::PostgresServer;
use sqlx::{Connection, Row, SqliteConnection};

use crate::harness::*;

/// Names the file to the child process of [`kill_in_the_middle_of_writes`].
const CHILD: &str = "SOLSTICE_TEST_STORE_CHILD";

/// Says what it has done, one line for each answer of the store, until it is killed.
async fn write_for_ever(path: PathBuf) {
    let store = Store::sqlite(&path, Clock::system()).await.unwrap();
    let keys = KeyRing::ephemeral();
    let host = Host::new(1000);
    store.announce(&host.report, host.boot).await.unwrap();
    loop {
        let mut request = simulators::jobs::job(LABEL, &["echo hello"]);
        request.envelope.reply_to = "x".repeat(100);
        let message = queue::message::JobMessage::seal(&request, &keys).unwrap();
        let new = orchestrator::store::NewJob { message, size: None, only: None };
        let job = id(&new);
        // Two at once, so that transactions are shared.
        let (accepted, announced) = tokio::join!(
            store.accept(std::slice::from_ref(&new)),
            store.announce(&host.report, host.boot)
        );
        accepted.unwrap();
        announced.unwrap();
        println!("accepted {job}");
        let labels = &host.report.labels;
        for claimed in store.claim(host.id, host.room(), labels, 1).await.unwrap() {
            let job = claimed.message.envelope().job;
            println!("claimed {job}");
            let running = JobState::Running;
            store.advance(job, claimed.lease, running, seconds(60)).await.unwrap();
            assert!(store.finish(job, Some(claimed.lease), &passed()).await.unwrap());
            println!("finished {job}");
        }
    }
}

/// Not a test of its own: [`kill_in_the_middle_of_writes`] runs it in another process.
#[tokio::test]
async fn child() {
    if let Some(path) = std::env::var_os(CHILD) {
        write_for_ever(path.into()).await;
    }
}

#[tokio::test]
async fn kill_in_the_middle_of_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jobs.db");
    for round in 1..=4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crashes::child", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut said: Vec<(String, JobId)> = Vec::new();
        let mut lines = output.lines().map_while(Result::ok);
        for line in lines.by_ref() {
            said.extend(answer(&line));
            // Further answers may be on their way.
            if said.len() >= round * 17 {
                child.kill().unwrap();
                break;
            }
        }
        // The last line may be cut, as the process was.
        said.extend(lines.filter_map(|line| answer(&line)));
        child.wait().unwrap();
        assert!(said.len() >= round * 17, "the child ended early");
        check_file(&path, &said).await;
    }
}

fn answer(line: &str) -> Option<(String, JobId)> {
    // The test harness's own words may stand before the first.
    let (before, job) = line.rsplit_once(' ')?;
    let what = before.rsplit(' ').next()?;
    Some((what.to_owned(), job.parse().ok()?))
}

async fn check_file(path: &std::path::Path, said: &[(String, JobId)]) {
    let url = format!("sqlite://{}", path.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let row = sqlx::query("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap();
    assert_eq!(row.get::<String, _>(0), "ok");
    connection.close().await.unwrap();

    let store = Store::sqlite(path, Clock::system()).await.unwrap();
    for (what, job) in said {
        let detail = store.job(*job).await.unwrap().expect("what was answered is there");
        let state = detail.job.state;
        match what.as_str() {
            "accepted" => {}
            "claimed" => assert_ne!(state, JobState::Queued),
            "finished" => assert_eq!(state, JobState::Done),
            other => panic!("{other:?}"),
        }
    }
    store.close().await;
}

/// Tries until the store answers again.
async fn until_available<T, F>(mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(value) => return value,
            Err(StoreError::Unavailable { .. }) if begun.elapsed() < PATIENCE => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn postgres_restarts_in_the_middle() {
    let server = PostgresServer::start().await.unwrap();
    let store = Store::postgres(&server.database().await.unwrap()).await.unwrap();
    let keys = KeyRing::ephemeral();
    let host = Host::new(100);
    store.announce(&host.report, host.boot).await.unwrap();
    let new = |count: usize| -> Vec<_> {
        let one = || {
            let request = simulators::jobs::job(LABEL, &["echo hello"]);
            let message = queue::message::JobMessage::seal(&request, &keys).unwrap();
            orchestrator::store::NewJob { message, size: None, only: None }
        };
        (0..count).map(|_| one()).collect()
    };
    let before = new(20);
    store.accept(&before).await.unwrap();
    let claimed = store.claim(host.id, host.room(), &host.report.labels, 1).await.unwrap();
    let (job, lease) = (claimed[0].message.envelope().job, claimed[0].lease);

    // Calls go on the whole time: none is lost, none has an effect twice, none waits for ever.
    let writer = {
        let (store, jobs) = (store.clone(), new(200));
        tokio::spawn(async move {
            for job in &jobs {
                until_available(|| store.accept(std::slice::from_ref(job))).await;
            }
            jobs.len()
        })
    };
    server.kill().await.unwrap();
    let failed = store.hosts().await;
    assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
    let failed = store.finish(job, Some(lease), &passed()).await;
    assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
    server.restart().await.unwrap();

    until_available(|| store.announce(&host.report, host.boot)).await;
    let running = JobState::Running;
    until_available(|| store.advance(job, lease, running, seconds(60))).await;
    let accepted = writer.await.unwrap();
    let waiting = store.counts().await.unwrap();
    let queued: u64 = waiting.iter().filter(|one| one.0 == JobState::Queued).map(|one| one.2).sum();
    assert_eq!(usize::try_from(queued).unwrap(), before.len() - 1 + accepted);

    // Whoever waits for a change hears of it over the new connection.
    let heard = {
        let store = store.clone();
        tokio::spawn(async move {
            while store.counts().await.unwrap().iter().all(|one| one.0 != JobState::Finishing) {
                store.changed().await;
                // The hint belongs to the job that goes back below.
                if !store.active(host.id).await.unwrap().iter().any(|one| one.job.id == job) {
                    return;
                }
            }
        })
    };
    store.requeue(job, lease).await.unwrap();
    tokio::time::timeout(PATIENCE, heard).await.expect("it hears of it").unwrap();
    store.close().await;
}

#[tokio::test]
async fn a_closed_store_says_so() {
    for world in [World::sqlite().await, World::postgres().await] {
        world.accept_many(2).await;
        world.store.close().await;
        world.store.close().await;
        let failed = world.store.counts().await;
        assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
        let failed = world.store.cancel(JobId::new()).await;
        assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
    }
}

/// A full disk: nothing that was not written is answered with success, and later it works again.
#[tokio::test]
async fn a_file_that_cannot_grow() {
    let world = World::sqlite().await;
    let kept = world.accept_many(3).await;
    // RAISE(ROLLBACK) gives up the whole transaction, as SQLite does on a full disk.
    let full = "CREATE TRIGGER full BEFORE INSERT ON messages \
                BEGIN SELECT RAISE(ROLLBACK, 'full'); END";
    world.sql(full).await;
    let (jobs, host) = (world.message(|_| {}), Host::new(8));
    let (accepted, _announced, cancelled) = tokio::join!(
        world.store.accept(std::slice::from_ref(&jobs)),
        world.store.announce(&host.report, host.boot),
        world.store.cancel(kept[0]),
    );
    assert!(accepted.is_err(), "{accepted:?}");
    assert_eq!(cancelled.is_ok(), world.job(kept[0]).await.cancel_requested);
    world.sql("DROP TRIGGER full").await;
    world.store.accept(std::slice::from_ref(&jobs)).await.unwrap();
    assert_eq!(world.state(id(&jobs)).await, JobState::Queued);
}
