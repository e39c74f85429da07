//! Hosts that share a broker and a database: forge runners, and what is killed under them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::JobId;
use common::event::{EventBody, JobEvent, JobResult, Phase};
use common::ids::{HostId, ReservationId};
use common::request::{Forge, JobRequest};
use common::time::Timestamp;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueuePurgeOptions};
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use queue::message::{JobMessage, Progress, Release, Reserve};
use queue::seal::KeyRing;
use queue::{Address, DeadLetter, EventReceiver, Queue, QueueError, rabbit};
use simulators::jobs::{Received, job};
use simulators::{BootEnd, Installation};

use crate::harness::{Host, LOOK, PATIENCE, numbered};
use crate::runners;

/// What the hosts of one installation share.
pub(crate) struct Shared(Installation);

impl Deref for Shared {
    type Target = Installation;

    fn deref(&self) -> &Installation {
        &self.0
    }
}

impl Shared {
    /// An installation with servers of its own, to be killed.
    pub(crate) async fn start() -> Self {
        Self::on(Installation::start().await.unwrap())
    }

    /// An installation of its own on the servers of all stories.
    pub(crate) async fn of_all() -> Self {
        Self::on(Installation::of_all().await.unwrap())
    }

    fn on(installation: Installation) -> Self {
        KeyRing::load_or_create(&installation.key_file()).unwrap();
        Self(installation)
    }

    /// A host of this installation.
    pub(crate) fn host(&self) -> Host {
        let settings = self.environment();
        settings.iter().fold(Host::new().part(), |host, (name, value)| host.env(name, value))
    }

    /// The name that a queue of the installation has on the broker.
    pub(crate) fn queue(&self, queue: &str) -> String {
        format!("{}.{queue}", self.prefix)
    }

    /// Removes everything from a queue of the broker.
    pub(crate) async fn purge(&self, queue: &str) {
        let properties = ConnectionProperties::default();
        let connection = Connection::connect(&self.broker.url(), properties).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.queue_purge(self.queue(queue).into(), QueuePurgeOptions::default()).await.unwrap();
        connection.close(200, "done".into()).await.unwrap();
    }

    /// Runs a statement on the database that the hosts share.
    pub(crate) async fn query(&self, statement: &str) -> String {
        self.database.query(&self.url, statement).await.unwrap()
    }

    /// Puts bytes on a queue of the broker, past everything of ours.
    pub(crate) async fn put(&self, queue: &str, messages: &[Vec<u8>]) {
        let properties = ConnectionProperties::default();
        let connection = Connection::connect(&self.broker.url(), properties).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let key = self.queue(queue);
        for bytes in messages {
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            let properties = BasicProperties::default();
            let deadline = Instant::now() + PATIENCE;
            loop {
                let sent = channel
                    .basic_publish(
                        "".into(),
                        key.clone().into(),
                        options,
                        bytes,
                        properties.clone(),
                    )
                    .await;
                match sent.unwrap().await.unwrap() {
                    Confirmation::Ack(None) => break,
                    // A queue that is full for a moment, or that its host has not made yet.
                    Confirmation::Nack(None) | Confirmation::Ack(Some(_))
                        if Instant::now() < deadline => {}
                    confirmation => panic!("{confirmation:?}"),
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        connection.close(200, "done".into()).await.unwrap();
    }

    /// How the installation's broker is reached.
    pub(crate) fn transport(&self) -> rabbit::Settings {
        rabbit::Settings::new(self.broker.url(), &self.prefix)
    }

    pub(crate) async fn runner(&self, name: &str) -> Runner {
        let queue = Queue::Rabbit(rabbit::Rabbit::connect(&self.transport()).await.unwrap());
        Runner {
            queue,
            keys: KeyRing::load(&[self.key_file()]).unwrap(),
            address: name.parse().unwrap(),
        }
    }
}

/// A forge runner without a forge.
pub(crate) struct Runner {
    pub(crate) queue: Queue,
    pub(crate) keys: KeyRing,
    pub(crate) address: Address,
}

impl Runner {
    pub(crate) async fn publish(&self, request: JobRequest) -> JobId {
        let message = self.seal(request);
        self.hand_in(&message).await;
        message.envelope().job
    }

    /// A job whose events come to it.
    pub(crate) fn seal(&self, mut request: JobRequest) -> JobMessage {
        request.envelope.reply_to = self.address.to_string();
        JobMessage::seal(&request, &self.keys).unwrap()
    }

    /// Hands a job in, as soon as the broker is there.
    pub(crate) async fn hand_in(&self, message: &JobMessage) {
        let publish = async {
            loop {
                match self.queue.publish_job(message).await {
                    Ok(()) => return,
                    Err(QueueError::Unavailable { .. }) => tokio::time::sleep(LOOK).await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, publish).await.unwrap();
    }

    /// Waits until so many messages are in the dead letters; the oldest first.
    pub(crate) async fn letters(&self, count: usize) -> Vec<DeadLetter> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut letters = self.queue.dead_letters(100).await.unwrap();
            if letters.len() >= count {
                letters.reverse();
                assert_eq!(letters.len(), count, "{letters:#?}");
                return letters;
            }
            assert!(Instant::now() < deadline, "{} of {count} letters", letters.len());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Takes its events, as soon as the broker is there.
    pub(crate) async fn events(&self) -> EventReceiver {
        loop {
            match self.queue.events(&self.address, 16).await {
                Ok(events) => return events,
                Err(QueueError::Unavailable { .. }) => tokio::time::sleep(LOOK).await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Takes events until these jobs are over.
    pub(crate) async fn finish(&self, jobs: &[JobId]) -> HashMap<JobId, Received> {
        self.finish_within(jobs, PATIENCE).await
    }

    /// The same for what takes longer than others may take.
    async fn finish_within(&self, jobs: &[JobId], patience: Duration) -> HashMap<JobId, Received> {
        let mut open: HashSet<JobId> = jobs.iter().copied().collect();
        let mut all: HashMap<JobId, Received> = HashMap::new();
        let collect = async {
            let mut events = self.events().await;
            while !open.is_empty() {
                let delivery = events.next().await.unwrap();
                let batch = delivery.message.as_ref().unwrap().clone();
                for part in &batch.parts {
                    let received = all.entry(part.job).or_default();
                    for event in part.open(&self.keys).unwrap() {
                        received.take(event);
                    }
                    if received.finished().is_some() {
                        open.remove(&part.job);
                    }
                    let seq = part.first + u64::from(part.count) - 1;
                    let progress = Progress { job: part.job, try_number: part.try_number, seq };
                    // It is said again with the next batch, or not needed any more.
                    drop(self.queue.progress(batch.host, progress).await);
                }
                drop(delivery.acknowledge().await);
            }
        };
        let done = tokio::time::timeout(patience, collect).await.is_ok();
        assert!(done, "{} jobs have no end", open.len());
        for received in all.values() {
            received.assert_whole();
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forge_runners_job_goes_there_and_back() {
    let shared = Shared::of_all().await;
    let host = shared.host();
    let service = host.serve().await;
    let runner = shared.runner("runner-1").await;
    let events = runner.queue.events(&runner.address, 1).await.unwrap();
    drop(events);
    let mut request = job("scripted", &["lines 100 1"]);
    request.envelope.forge = Forge::Forgejo;
    let id = runner.publish(request).await;
    let received = runner.finish(&[id]).await;
    assert_eq!(received[&id].lines(), numbered(100));
    let log = received[&id].log();
    assert!(log.iter().any(|line| line.contains("No room was reserved")), "{log:#?}");
    assert_eq!(received[&id].finished().unwrap().result, JobResult::Success);
    service.wait_state(id, &["done"]).await;
    host.wait_until_empty().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_the_host_that_has_the_job_and_one_that_comes_later() {
    let shared = Shared::of_all().await;
    let (one, two) = (shared.host(), shared.host());
    let (first, second) = (one.serve().await, two.serve().await);
    let runner = shared.runner("runner-1").await;
    drop(runner.queue.events(&runner.address, 1).await.unwrap());
    let early = JobId::new();
    runner.queue.cancel(early).await.unwrap();
    let id = runner.publish(job("scripted", &["echo begun", "sleep 600000"])).await;
    first.wait_state(id, &["running"]).await;
    runner.queue.cancel(id).await.unwrap();
    let mut request = job("scripted", &["echo never"]);
    request.envelope.job = early;
    runner.publish(request).await;
    let received = runner.finish(&[id, early]).await;
    for received in received.values() {
        assert_eq!(received.finished().unwrap().result, JobResult::Cancelled);
    }
    assert!(received[&early].lines().is_empty());
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_and_database_are_killed_under_running_jobs() {
    let shared = Shared::start().await;
    let host = shared.host();
    let service = host.serve().await;
    let runner = shared.runner("runner-1").await;
    drop(runner.queue.events(&runner.address, 1).await.unwrap());
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(runner.publish(job("scripted", &["lines 400 10"])).await);
    }
    for id in &jobs {
        service.wait_for(*id, "line 10").await;
    }
    shared.broker.settle().await.unwrap();
    shared.broker.kill().await.unwrap();
    shared.database.kill().await.unwrap();
    shared.database.restart().await.unwrap();
    shared.broker.restart().await.unwrap();
    let received = runner.finish(&jobs).await;
    for id in &jobs {
        assert_eq!(received[id].lines(), numbered(400));
        assert_eq!(received[id].tries(), 1);
    }
    host.wait_until_empty().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_orchestrator_goes_on_and_its_runner_gets_every_line_once() {
    let shared = Shared::of_all().await;
    let host = shared.host();
    let service = host.serve().await;
    let runner = shared.runner("runner-1").await;
    drop(runner.queue.events(&runner.address, 1).await.unwrap());
    let id = runner.publish(job("scripted", &["lines 300 10"])).await;
    service.wait_for(id, "line 20").await;
    service.kill();
    let service = host.serve().await;
    let received = runner.finish(&[id]).await;
    assert_eq!(received[&id].lines(), numbered(300));
    service.stop().await;
}

/// How many jobs each of two runners has waiting.
const WAITING: usize = 200;
/// Slots of two hosts together.
const SLOTS: usize = 8;
/// How long a slot may be idle while jobs wait, from the end of a job to the begin of the next
/// machine. Other tests take processors away, so every other time it may be longer.
const IDLE: Duration = Duration::from_secs(1);
/// How long then. A host that nobody wakes looks for jobs after 5 s only.
const STALLED: Duration = Duration::from_millis(4500);

/// What became of the jobs, by the clock of this machine.
#[derive(Default)]
struct Spans {
    /// When each was claimed on its forge.
    claimed: HashMap<JobId, Timestamp>,
    /// When its machine was begun, and on which host.
    booted: HashMap<JobId, (HostId, Timestamp)>,
    /// When it ended.
    ended: HashMap<JobId, Timestamp>,
}

impl Spans {
    /// The most jobs that were claimed at a time.
    fn most_claimed(&self) -> usize {
        let mut turns: Vec<_> = self.claimed.values().map(|at| (*at, true)).collect();
        turns.extend(self.ended.values().map(|at| (*at, false)));
        // An end makes room for the claim of the same moment.
        turns.sort();
        let (mut claimed, mut most) = (0_usize, 0);
        for (_, begins) in turns {
            claimed = if begins { claimed + 1 } else { claimed - 1 };
            most = most.max(claimed);
        }
        most
    }

    /// The times from the end of a job to the begin of the next machine in its slot, shortest first.
    /// A host fills its slots in the order in which they become free: were another order taken, one
    /// of them would be idle for longer.
    fn idle(&self) -> Vec<Duration> {
        let mut hosts: HashMap<HostId, (Vec<Timestamp>, Vec<Timestamp>)> = HashMap::new();
        for (job, (host, booted)) in &self.booted {
            let (begins, ends) = hosts.entry(*host).or_default();
            begins.push(*booted);
            ends.push(self.ended[job]);
        }
        assert_eq!(hosts.len(), 2, "both hosts have jobs");
        let mut idle = Vec::new();
        for (begins, ends) in hosts.values_mut() {
            begins.sort();
            ends.sort();
            for (end, next) in ends.iter().zip(begins.iter().skip(SLOTS / 2)) {
                assert!(end <= next, "more machines than slots");
                idle.push(next.since(*end));
            }
        }
        idle.sort();
        idle
    }
}

/// A runner with jobs on its forge that claims them only against reservations.
async fn claim_all(runner: Arc<Runner>, spans: Arc<std::sync::Mutex<Spans>>) {
    let mut forge: VecDeque<JobRequest> =
        (0..WAITING).map(|_| job("scripted", &["sleep 100"])).collect();
    while !forge.is_empty() {
        let question = Reserve {
            id: ReservationId::new(),
            runner: runner.address.to_string(),
            labels: vec!["scripted".to_owned()],
            want: 8,
        };
        let Ok(granted) = runner.queue.reserve(&question).await else { continue };
        let take = forge.len().min(granted.count as usize);
        for mut request in forge.drain(..take) {
            request.envelope.reservation = Some(granted.id);
            spans.lock().unwrap().claimed.insert(request.envelope.job, Timestamp::now());
            runner.publish(request).await;
        }
        let rest = granted.count - u32::try_from(take).unwrap();
        if rest > 0 {
            runner.queue.release(Release { id: granted.id, count: rest }).await.unwrap();
        }
        if take == 0 {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Notes the machines and the ends of a runner's jobs.
async fn note_events(runner: Arc<Runner>, spans: Arc<std::sync::Mutex<Spans>>) {
    let mut events = runner.queue.events(&runner.address, 16).await.unwrap();
    loop {
        let delivery = events.next().await.unwrap();
        let batch = delivery.message.as_ref().unwrap().clone();
        for part in &batch.parts {
            let seq = part.first + u64::from(part.count) - 1;
            let progress = Progress { job: part.job, try_number: part.try_number, seq };
            drop(runner.queue.progress(batch.host, progress).await);
            let events = part.open(&runner.keys).unwrap();
            let mut spans = spans.lock().unwrap();
            if let Some(boot) = events.iter().find(|event| begins_machine(event)) {
                // A machine that failed is followed by another one in the same slot.
                spans.booted.entry(part.job).or_insert((batch.host, boot.time));
            }
            if part.last {
                spans.ended.insert(part.job, events.last().unwrap().time);
            }
        }
        drop(delivery.acknowledge().await);
        if spans.lock().unwrap().ended.len() == 2 * WAITING {
            return;
        }
    }
}

fn begins_machine(event: &JobEvent) -> bool {
    matches!(&event.event, EventBody::Phase(begun) if begun.phase == Phase::Boot && begun.took.is_none())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runners_with_many_jobs_share_eight_slots() {
    let shared = Shared::of_all().await;
    let slots = (SLOTS / 2).to_string();
    let (one, two) = (
        shared.host().env("SOLSTICE_MAX_CPUS", &slots),
        shared.host().env("SOLSTICE_MAX_CPUS", &slots),
    );
    let (first, second) = (one.serve().await, two.serve().await);
    let spans = Arc::new(std::sync::Mutex::new(Spans::default()));
    let mut tasks = tokio::task::JoinSet::new();
    for name in ["runner-1", "runner-2"] {
        let runner = Arc::new(shared.runner(name).await);
        drop(runner.queue.events(&runner.address, 1).await.unwrap());
        tasks.spawn(claim_all(Arc::clone(&runner), Arc::clone(&spans)));
        tasks.spawn(note_events(runner, Arc::clone(&spans)));
    }
    let all = async {
        while spans.lock().unwrap().ended.len() < 2 * WAITING {
            tokio::time::sleep(LOOK).await;
        }
    };
    let done = tokio::time::timeout(3 * PATIENCE, all).await.is_ok();
    {
        let spans = spans.lock().unwrap();
        assert!(done, "{} of {} jobs are done", spans.ended.len(), 2 * WAITING);
        assert_eq!(spans.most_claimed(), SLOTS, "claimed at once");
        let idle = spans.idle();
        let (most, longest) = (idle[idle.len() / 2], idle[idle.len() - 1]);
        assert!(most <= IDLE && longest <= STALLED, "idle for {most:?}, once for {longest:?}");
    }
    first.stop().await;
    second.stop().await;
}

/// Its lease must be over, so this takes its time.
#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_dead_host_are_taken_over() {
    let shared = Shared::of_all().await;
    let (dead, heir) = (shared.host(), shared.host());
    let first = dead.serve().await;
    let runner = shared.runner("runner-1").await;
    drop(runner.queue.events(&runner.address, 1).await.unwrap());
    let begun = runner.publish(job("scripted", &["echo begun", "sleep 600000"])).await;
    first.wait_state(begun, &["running"]).await;
    first.wait_for(begun, "begun").await;
    // Its runner is away: nobody has taken its end.
    let away = shared.runner("runner-2").await;
    drop(away.queue.events(&away.address, 1).await.unwrap());
    let over = away.publish(job("scripted", &["exit 3"])).await;
    first.wait_state(over, &["done"]).await;
    // The end of this one reaches its runner, and the host does not hear of it.
    let reached = shared.runner("runner-3").await;
    let twice = runners::leaves_an_end_on_the_broker(&reached).await;
    first.wait_state(twice, &["done"]).await;
    dead.boots(2 * PATIENCE, BootEnd::Ready);
    let booting = runner.publish(job("scripted", &["lines 20 1"])).await;
    first.wait_state(booting, &["booting"]).await;
    let second = heir.serve().await;
    first.kill();
    // What the runner that is away had on the broker is lost, and the host is gone for longer than
    // this story takes.
    shared.purge("events.runner-2").await;
    shared.query("UPDATE jobs SET ended = ended - 3600000000 WHERE state = 'done'").await;
    shared.query("UPDATE hosts SET heartbeat = 1 WHERE id IN (SELECT host FROM jobs)").await;
    let all = runner.finish_within(&[begun, booting], 3 * PATIENCE).await;
    // Nobody knows how far its steps got.
    let end = all[&begun].finished().unwrap();
    let cause = end.infrastructure.clone().unwrap();
    assert_eq!(cause.cause.code(), "SOL-HOST-RESTARTED", "{cause}");
    assert_eq!(all[&begun].lines(), ["begun"]);
    // Only its boot was lost.
    assert_eq!(all[&booting].finished().unwrap().result, JobResult::Success);
    assert_eq!(all[&booting].lines(), numbered(20));
    second.wait_state(booting, &["done"]).await;
    // Its result was known, and its log is lost.
    let told = away.finish(&[over]).await;
    assert_eq!(told[&over].finished().unwrap().result, JobResult::Failure);
    assert!(told[&over].finished().unwrap().infrastructure.is_none());
    let log = told[&over].log();
    assert!(log.iter().any(|line| line.contains("is lost with the host")), "{log:#?}");
    // Both ends came, and the heir hears that the job's end was taken.
    runners::takes_the_first_of_two_ends(&reached, twice).await;
    let delivered = format!("SELECT delivered FROM jobs WHERE id = '{twice}'");
    let deadline = Instant::now() + PATIENCE;
    while shared.query(&delivered).await != "t" {
        assert!(Instant::now() < deadline, "the heir still owes the end");
        tokio::time::sleep(LOOK).await;
    }
    heir.wait_until_empty().await;
    second.stop().await;
    // When it comes back it has nothing to say, and removes what it left.
    let first = dead.serve().await;
    dead.wait_until_empty().await;
    first.stop().await;
}

/// A host on which something else runs takes only what it has room for beside that.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_used_by_others_leaves_jobs_to_the_next() {
    let shared = Shared::of_all().await;
    let (used, free) =
        (shared.host().env("SOLSTICE_MAX_CPUS", "1"), shared.host().env("SOLSTICE_MAX_CPUS", "1"));
    let (mut run, _said) = used.run_alone("sleep 600000", "Run sleep");
    let first = used.serve().await;
    let second = free.serve().await;
    let runner = shared.runner("runner-1").await;
    // What `solstice run` gives to a service waits for its host, whoever else has room.
    let own = first.submit(&job("scripted", &["echo own"])).await;
    for _ in 0..3 {
        let id = runner.publish(job("scripted", &["echo fine"])).await;
        second.wait_state(id, &["done"]).await;
        let detail = second.get(&format!("/v1/jobs/{id}")).await;
        assert_eq!(detail["tries"][0]["host"], second.host_id(), "{detail}");
    }
    let (_, hosts, _) = used.solstice(&["hosts"]);
    assert!(hosts.contains("0/0 of 1"), "{hosts}");
    // Once it is free it takes jobs again.
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(run.id().cast_signed()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    run.wait().unwrap();
    assert_eq!(first.finish(own).await.lines(), ["own"]);
    second.stop().await;
    let id = runner.publish(job("scripted", &["echo fine"])).await;
    first.wait_state(id, &["done"]).await;
    first.stop().await;
}
