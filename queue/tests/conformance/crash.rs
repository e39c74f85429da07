//! No job is lost, and none done twice, when the queue's process is killed in the middle of a
//! thousand. A consumer acknowledges what it has stored and knows a job that it has stored already:
//! so does the ledger here.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use common::ids::JobId;
use queue::embedded::Embedded;
use queue::{Queue, QueueError};
use simulators::RabbitServer;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::samples::job;
use crate::world::{World, patient, silent, within};

/// The jobs of one test.
const JOBS: usize = 1000;

/// After so many jobs the broker, or the process, is killed.
const KILLS: [usize; 2] = [300, 650];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbit_killed_in_the_middle_of_a_thousand_jobs() {
    const PUBLISHERS: usize = 8;
    let server = RabbitServer::start().await.unwrap();
    let world = World::on(&server);
    let (runner, host) = (world.process().await, world.process().await);

    within(server.settle()).await;

    let published = Arc::new(Mutex::new(BTreeSet::new()));
    let mut publishers = JoinSet::new();
    for _ in 0..PUBLISHERS {
        let (runner, published) = (runner.clone(), Arc::clone(&published));
        publishers.spawn(async move {
            for _ in 0..JOBS / PUBLISHERS {
                let job = job();
                published.lock().unwrap().insert(job.envelope().job);
                // As a forge runner does: the same job again, until it is taken.
                while let Err(error) = runner.publish_job(&job).await {
                    assert!(matches!(error, QueueError::Unavailable { .. }), "{error:?}");
                }
            }
        });
    }
    let (stored, mut progress) = watch::channel(BTreeSet::new());
    let mut receiver = within(host.jobs(50)).await;
    let consumer = tokio::spawn(async move {
        while stored.borrow().len() < JOBS {
            let delivery = receiver.next().await.unwrap();
            let job = delivery.message.as_ref().unwrap().envelope().job;
            stored.send_if_modified(|stored| stored.insert(job));
            // The broker may be away: then it comes again.
            drop(delivery.acknowledge().await);
        }
        receiver
    });
    for kill in KILLS {
        within(progress.wait_for(|stored| stored.len() >= kill)).await;
        within(server.kill()).await;
        within(server.restart()).await;
    }
    while let Some(result) = patient(publishers.join_next()).await {
        result.unwrap();
    }
    let mut receiver = patient(consumer).await.unwrap();
    assert_eq!(*progress.borrow(), *published.lock().unwrap());

    // What is left was published or delivered twice, and is known.
    while let Ok(delivery) = tokio::time::timeout(crate::world::WATCH, receiver.next()).await {
        let delivery = delivery.unwrap();
        let job = delivery.message.as_ref().unwrap().envelope().job;
        assert!(progress.borrow().contains(&job), "a job out of nowhere");
        drop(delivery.acknowledge().await);
    }
    drop(receiver);
    let mut receiver = within(world.process().await.jobs(50)).await;
    silent(receiver.next()).await;
}

/// Names the queue's file for a child of this test.
const CHILD: &str = "SOLSTICE_TEST_QUEUE_FILE";

/// How many jobs it is to publish.
const CHILD_JOBS: &str = "SOLSTICE_TEST_QUEUE_JOBS";

/// What a child tells, a line each: `published`, `took` and `acknowledged`, and a job.
#[derive(Default)]
struct Told {
    published: BTreeSet<JobId>,
    took: BTreeSet<JobId>,
    /// In this order, and not taken again since.
    acknowledged: Vec<JobId>,
}

#[test]
fn embedded_killed_in_the_middle_of_a_thousand_jobs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    let mut told = Told::default();
    for kill in KILLS {
        live(&path, &mut told, |told| told.took.len() >= kill);
    }
    // Taken, not acknowledged: a child may be killed before it has told of an acknowledgement.
    live(&path, &mut told, |told| {
        told.published.len() >= JOBS && told.published.is_subset(&told.took)
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let queue = Queue::Embedded(within(Embedded::open(&path)).await);
        let mut receiver = within(queue.jobs(1000)).await;
        let mut again = Vec::new();
        while let Ok(delivery) = tokio::time::timeout(crate::world::WATCH, receiver.next()).await {
            let delivery = delivery.unwrap();
            again.push(delivery.message.as_ref().unwrap().envelope().job);
            within(delivery.acknowledge()).await;
        }
        assert_latest(&told.acknowledged, &again);
        // What was acknowledged before an end in order is gone.
        queue.close().await;
        let queue = Queue::Embedded(within(Embedded::open(&path)).await);
        silent(within(queue.jobs(1000)).await.next()).await;
        queue.close().await;
    });
}

/// An acknowledgement may be lost with its process. They are written in their order: what comes
/// again was acknowledged last.
fn assert_latest(acknowledged: &[JobId], came: &[JobId]) {
    let again: BTreeSet<_> = acknowledged.iter().filter(|job| came.contains(job)).collect();
    let latest = acknowledged.len() - again.len();
    for job in &acknowledged[latest..] {
        assert!(again.contains(job), "{job} was acknowledged late, and an earlier one came again");
    }
}

/// Runs a child until it has told enough, and kills it.
fn live(path: &Path, told: &mut Told, enough: impl Fn(&Told) -> bool) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::embedded_child", "--nocapture"])
        .env(CHILD, path)
        .env(CHILD_JOBS, (JOBS - told.published.len()).to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let before = told.acknowledged.clone();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut killed = false;
    let mut came = Vec::new();
    for line in lines {
        let line = line.unwrap();
        let Some((verb, job)) = line.split_once(' ') else { continue };
        let Ok(job) = job.parse() else { continue };
        match verb {
            "published" => drop(told.published.insert(job)),
            "took" => {
                came.push(job);
                told.took.insert(job);
                told.acknowledged.retain(|earlier| *earlier != job);
            }
            "acknowledged" => told.acknowledged.push(job),
            _ => {}
        }
        if !killed && enough(told) {
            // What it has told until then is still read.
            child.kill().unwrap();
            killed = true;
        }
    }
    let status = child.wait().unwrap();
    assert!(killed, "the child ended by itself: {status}");
    assert_latest(&before, &came);
}

/// Not a test: the process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_child() {
    let Some(path) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let queue = Queue::Embedded(Embedded::open(&path).await.unwrap());
    let tell = |verb: &str, job: JobId| {
        let mut output = std::io::stdout().lock();
        writeln!(output, "{verb} {job}").unwrap();
        output.flush().unwrap();
    };
    let jobs: usize = std::env::var(CHILD_JOBS).unwrap().parse().unwrap();
    let publishing = queue.clone();
    tokio::spawn(async move {
        for _ in 0..jobs {
            let job = job();
            publishing.publish_job(&job).await.unwrap();
            tell("published", job.envelope().job);
        }
    });
    let mut receiver = queue.jobs(10).await.unwrap();
    loop {
        // Without its parent nobody kills it.
        let delivery = within(receiver.next()).await;
        let job = delivery.message.as_ref().unwrap().envelope().job;
        tell("took", job);
        delivery.acknowledge().await.unwrap();
        tell("acknowledged", job);
    }
}
