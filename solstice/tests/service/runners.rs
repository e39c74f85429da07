//! Forge runners that are killed, and hosts that leave them: what a forge runner makes of its jobs'
//! events all the same.
//!
//! Who is killed here is a process of its own, this program once more. It has a ledger on disk, as a
//! real one has its database, with which its successor goes on.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::JobId;
use common::event::{EventBody, JobEvent, JobResult};
use common::ids::ReservationId;
use queue::message::{EventBatch, JobMessage, Reserve};
use queue::seal::KeyRing;
use queue::{Delivery, EventReceiver, Queue, Sequencer, rabbit};
use rand::Rng;
use serde::{Deserialize, Serialize};
use simulators::jobs::{Received, job};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::harness::{LOOK, PATIENCE, numbered};
use crate::shared::{Runner, Shared};

/// The jobs of a forge runner that is killed.
const JOBS: usize = 8;
/// The lines of each of them.
const LINES: usize = 40;
/// More events than this are taken before they are all over.
const EVENTS: usize = 60;
/// Deliveries that a consumer may hold: more than one job has.
const PREFETCH: u16 = 1000;
/// How long what a dead forge runner has reserved may be held.
const FREE_AGAIN: Duration = Duration::from_secs(20);

/// Tells a process what it is, in JSON.
const TASK: &str = "SOLSTICE_TEST_RUNNER";

/// A forge runner that is a process.
#[derive(Serialize, Deserialize)]
struct Task {
    broker: String,
    prefix: String,
    keys: PathBuf,
    address: String,
    ledger: PathBuf,
}

impl Task {
    fn new(shared: &Shared, address: &str, ledger: &Path) -> Self {
        let rabbit::Settings { url, prefix, .. } = shared.transport();
        let (keys, address) = (shared.key_file(), address.to_owned());
        Self { broker: url, prefix, keys, address, ledger: ledger.to_owned() }
    }

    /// That of this process, if it is one.
    fn of_this_process() -> Option<Self> {
        let text = std::env::var(TASK).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    }

    async fn runner(&self) -> Runner {
        let settings = rabbit::Settings::new(&self.broker, &self.prefix);
        Runner {
            queue: Queue::Rabbit(rabbit::Rabbit::connect(&settings).await.unwrap()),
            keys: KeyRing::load(std::slice::from_ref(&self.keys)).unwrap(),
            address: self.address.parse().unwrap(),
        }
    }

    /// Starts it as this function of this file says.
    fn start(&self, function: &str) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("runners::{function}"), "--nocapture"])
            .env(TASK, serde_json::to_string(self).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Process { child, said }
    }
}

struct Process {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Waits until it has said this so many times, and gives what it said with it last.
    async fn hear(&mut self, word: &str, times: usize) -> String {
        let mut heard = 0;
        while let Some(line) = self.said.next_line().await.unwrap() {
            let Some((_, rest)) = line.split_once(word) else { continue };
            heard += 1;
            if heard == times {
                return rest.trim().to_owned();
            }
        }
        panic!("it ended and has said {word:?} {heard} of {times} times");
    }

    /// Ends it by SIGKILL.
    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits until it ends by itself.
    async fn ends(mut self) {
        while self.said.next_line().await.unwrap().is_some() {}
        let status = self.child.wait().await.unwrap();
        assert!(status.success(), "{status}");
    }
}

/// Says something to the test that started this process.
fn say(word: &str, of: impl std::fmt::Display) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{word} {of}").unwrap();
    output.flush().unwrap();
}

/// What a forge runner remembers: its jobs as it publishes them, and the events that it has taken.
/// Each file is there as a whole or not at all, whenever the process is killed.
struct Ledger<'a> {
    directory: &'a Path,
    files: usize,
    taken: HashMap<JobId, Sequencer>,
}

impl<'a> Ledger<'a> {
    fn open(directory: &'a Path) -> Self {
        let mut ledger = Self { directory, files: 0, taken: HashMap::new() };
        for events in written(directory) {
            let count = events.len();
            assert_eq!(ledger.admit(events[0].job, events).len(), count, "written twice");
            ledger.files += 1;
        }
        ledger
    }

    /// The events that are new.
    fn admit(&mut self, job: JobId, events: Vec<JobEvent>) -> Vec<JobEvent> {
        self.taken.entry(job).or_insert_with(|| Sequencer::new(job)).take(events).unwrap()
    }

    fn take(&mut self, job: JobId, events: Vec<JobEvent>) {
        let new = self.admit(job, events);
        if new.is_empty() {
            return;
        }
        let bytes = rmp_serde::to_vec_named(&new).unwrap();
        write_whole(&events_file(self.directory, self.files), &bytes);
        self.files += 1;
        new.iter().for_each(|event| say("took", event.seq));
    }

    fn is_finished(&self) -> bool {
        self.taken.values().filter(|taken| taken.is_finished()).count() == JOBS
    }
}

fn events_file(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("events-{number}"))
}

fn write_whole(path: &Path, bytes: &[u8]) {
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, bytes).unwrap();
    fs::rename(unfinished, path).unwrap();
}

/// The events of a ledger in the order in which they were taken.
fn written(directory: &Path) -> impl Iterator<Item = Vec<JobEvent>> + use<> {
    let directory = directory.to_owned();
    (0..)
        .map_while(move |number| fs::read(events_file(&directory, number)).ok())
        .map(|bytes| rmp_serde::from_slice(&bytes).unwrap())
}

/// Not a test: the forge runner that is killed. It ends when its jobs have.
#[tokio::test(flavor = "multi_thread")]
async fn runner_process() {
    let Some(task) = Task::of_this_process() else { return };
    let runner = task.runner().await;
    let events = runner.events().await;
    let work = async {
        tokio::join!(publish_all(&runner, &task.ledger), take_all(&runner, &task.ledger, events));
    };
    // Without its parent nobody kills it.
    tokio::time::timeout(PATIENCE, work).await.expect("its jobs do not end");
}

/// Publishes its jobs. An earlier process may have done so, and was killed before it could note that:
/// they are handed in again as they were.
async fn publish_all(runner: &Runner, ledger: &Path) {
    for number in 0..JOBS {
        let path = ledger.join(format!("job-{number}"));
        let message = match fs::read(&path) {
            Ok(bytes) => JobMessage::decode(&bytes).unwrap(),
            Err(_) => {
                let message = runner.seal(job("scripted", &[&format!("lines {LINES} 10")]));
                write_whole(&path, &message.encode());
                message
            }
        };
        runner.hand_in(&message).await;
        say("published", message.envelope().job);
    }
}

/// Takes events as a forge runner does: what is new goes to the ledger, then the host is told, then
/// the broker.
async fn take_all(runner: &Runner, ledger: &Path, mut events: EventReceiver) {
    let mut ledger = Ledger::open(ledger);
    while !ledger.is_finished() {
        let delivery = events.next().await.unwrap();
        let batch = delivery.message.as_ref().unwrap();
        for part in &batch.parts {
            ledger.take(part.job, part.open(&runner.keys).unwrap());
            let progress = ledger.taken[&part.job].progress().unwrap();
            // It is said again with the next batch, or not needed any more.
            drop(runner.queue.progress(batch.host, progress).await);
        }
        drop(delivery.acknowledge().await);
    }
}

/// The three lives of a forge runner: the first ends after it has published so many jobs, the second
/// after it has taken so many events.
async fn is_killed_twice(shared: &Shared, name: &str, published: usize, taken: usize) -> TempDir {
    let ledger = tempfile::tempdir().unwrap();
    let task = Task::new(shared, name, ledger.path());
    let mut waits = task.start("runner_process");
    waits.hear("published", published).await;
    waits.kill().await;
    let mut takes = task.start("runner_process");
    takes.hear("took", taken).await;
    takes.kill().await;
    task.start("runner_process").ends().await;
    ledger
}

/// Each job has one end, a whole log, and no event twice.
fn assert_all_ended(ledger: &Path) {
    let mut all: HashMap<JobId, Received> = HashMap::new();
    let mut count = 0;
    for event in written(ledger).flatten() {
        count += 1;
        all.entry(event.job).or_default().take(event);
    }
    assert_eq!(all.len(), JOBS);
    for received in all.values() {
        received.assert_whole();
        assert_eq!(received.finished().unwrap().result, JobResult::Success);
        assert_eq!(received.lines(), numbered(LINES));
        assert_eq!(received.tries(), 1);
    }
    let different: usize = all.values().map(|received| received.events().count()).sum();
    assert_eq!(count, different, "events were taken twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_runners_go_on_and_get_every_event_once() {
    let mut dice = simulators::dice();
    let shared = Shared::of_all().await;
    let host = shared.host().env("SOLSTICE_MAX_CPUS", "2");
    let service = host.serve().await;
    let mut moments = || (dice.random_range(1..=JOBS), dice.random_range(1..=EVENTS));
    let (one, two) = (moments(), moments());
    let (one, two) = tokio::join!(
        is_killed_twice(&shared, "runner-1", one.0, one.1),
        is_killed_twice(&shared, "runner-2", two.0, two.1),
    );
    assert_all_ended(one.path());
    assert_all_ended(two.path());
    shared.runner("nobody").await.letters(0).await;
    host.wait_until_empty().await;
    service.stop().await;
}

fn everything(runner: &Runner) -> Reserve {
    Reserve {
        id: ReservationId::new(),
        runner: runner.address.to_string(),
        labels: vec!["scripted".to_owned()],
        want: 1000,
    }
}

/// Not a test: a forge runner that reserves all there is, and is killed.
#[tokio::test(flavor = "multi_thread")]
async fn reserving_process() {
    let Some(task) = Task::of_this_process() else { return };
    let runner = task.runner().await;
    let granted = runner.queue.reserve(&everything(&runner)).await.unwrap();
    say("reserved", granted.count);
    // Without its parent nobody kills it.
    tokio::time::sleep(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_runners_reservation_is_free_again() {
    let shared = Shared::of_all().await;
    let host = shared.host();
    let service = host.serve().await;
    let alive = shared.runner("alive").await;
    let ledger = tempfile::tempdir().unwrap();
    let mut dead = Task::new(&shared, "dead", ledger.path()).start("reserving_process");
    let all: u32 = dead.hear("reserved", 1).await.parse().unwrap();
    assert!(all > 0);
    assert_eq!(alive.queue.reserve(&everything(&alive)).await.unwrap().count, 0);
    dead.kill().await;
    let deadline = Instant::now() + FREE_AGAIN;
    loop {
        let granted = alive.queue.reserve(&everything(&alive)).await.unwrap();
        if granted.count == all {
            break;
        }
        assert!(Instant::now() < deadline, "{} of {all} after {FREE_AGAIN:?}", granted.count);
        tokio::time::sleep(LOOK).await;
    }
    service.stop().await;
}

/// Runs a job whose end is on the broker at last, and of which its host hears no more.
pub(crate) async fn leaves_an_end_on_the_broker(runner: &Runner) -> JobId {
    let mut events = runner.queue.events(&runner.address, PREFETCH).await.unwrap();
    let id = runner.publish(job("scripted", &["lines 20 1\nexit 3"])).await;
    // Looked at and not taken: they come again.
    let mut seen = Vec::new();
    let is_last = |delivery: &Delivery<EventBatch>| {
        delivery.message.as_ref().unwrap().parts.iter().any(|part| part.last)
    };
    while !seen.last().is_some_and(is_last) {
        seen.push(tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap());
    }
    id
}

/// Takes the end that such a job's host has told, and the one that its heir tells, who cannot know of
/// the first: that one counts, and nothing of the other is taken.
pub(crate) async fn takes_the_first_of_two_ends(runner: &Runner, id: JobId) {
    let mut events = runner.events().await;
    let mut taken = Sequencer::new(id);
    let (mut ends, mut new) = (Vec::new(), Vec::new());
    while ends.len() < 2 {
        let delivery = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        let batch = delivery.message.as_ref().unwrap();
        for part in &batch.parts {
            let came = part.open(&runner.keys).unwrap();
            ends.extend(came.iter().filter_map(|event| Some((batch.host, end(event)?))));
            new.extend(taken.take(came).unwrap());
            // That to the dead host is heard by nobody.
            drop(runner.queue.progress(batch.host, taken.progress().unwrap()).await);
        }
        delivery.acknowledge().await.unwrap();
    }
    let [(host, first), (heir, second)] = ends[..] else { panic!("{ends:?}") };
    assert_ne!(host, heir);
    assert_eq!((first, second), ((1, JobResult::Failure), (2, JobResult::Failure)));
    assert!(new.iter().all(|event| event.try_number == 1), "{new:#?}");
    let mut received = Received::default();
    new.into_iter().for_each(|event| received.take(event));
    received.assert_whole();
    assert_eq!(received.lines(), numbered(20));
}

/// The try that an event ends, and its result.
fn end(event: &JobEvent) -> Option<(u32, JobResult)> {
    match &event.event {
        EventBody::Finished(finished) => Some((event.try_number, finished.result)),
        _ => None,
    }
}
