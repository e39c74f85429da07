//! A daemon between a simulated forge and hosts that do what a test says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::JobId;
use common::event::{
    Conclusion, EventBody, Finished, JobEvent, LogBatch, LogLine, Phase, PhaseEvent, StepFinished,
    StepStarted, Stream,
};
use common::ids::HostId;
use common::request::{JobRequest, Secret};
use common::text::LogText;
use common::time::Timestamp;
use forgejo_runner::{Connection, Patience, Runner, RunnerSettings, Trust};
use queue::message::{Control, EventBatch, EventPart, Progress, Reserved};
use queue::seal::KeyRing;
use queue::{Heard, Queue, embedded};
use simulators::forgejo::{Forge, Identity, Profile, Scope};
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// How long anything in a test may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A forge, a queue, hosts, and the directory of a daemon.
pub(crate) struct World {
    pub(crate) forge: Forge,
    pub(crate) hosts: Hosts,
    pub(crate) queue: Queue,
    keys: KeyRing,
    place: TempDir,
}

impl World {
    pub(crate) async fn new(profile: Profile) -> Self {
        Self::with(Forge::start(profile).await).await
    }

    pub(crate) async fn with(forge: Forge) -> Self {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("queue.db");
        let queue = Queue::Embedded(embedded::Embedded::open(&file).await.unwrap());
        let keys = KeyRing::ephemeral();
        let hosts = Hosts::start(&queue, &keys).await;
        Self { forge, hosts, queue, keys, place }
    }

    /// A connection to the forge as this runner of it.
    pub(crate) fn connection(&self, name: &str, identity: &Identity) -> Connection {
        Connection {
            name: name.to_owned(),
            url: self.forge.url().parse().unwrap(),
            uuid: identity.uuid.clone(),
            token: Secret::new(identity.token.clone()),
            labels: vec!["tiny".parse().unwrap(), "big:vm://tiny?cpus=2".parse().unwrap()],
            capacity: 4,
            fetch_interval: Duration::from_millis(50),
            fetch_timeout: Duration::from_secs(10),
            trust: Trust::Host,
        }
    }

    pub(crate) fn settings(&self, connections: Vec<Connection>) -> RunnerSettings {
        RunnerSettings {
            state: self.place.path().join("forgejo"),
            connections,
            report_interval: Duration::from_millis(50),
            shutdown: PATIENCE,
            patience: Patience::default(),
        }
    }

    /// The keys of the installation.
    pub(crate) fn keys(&self) -> KeyRing {
        self.keys.clone()
    }

    /// Starts a daemon with these settings.
    pub(crate) async fn start(&self, settings: RunnerSettings) -> Runner {
        Runner::start(settings, self.queue.clone(), self.keys.clone()).await.unwrap()
    }

    /// A daemon with one connection, as a runner for the whole instance.
    pub(crate) async fn daemon(&self) -> Runner {
        let identity = self.forge.create_runner("solstice", Scope::Global);
        self.start(self.settings(vec![self.connection("main", &identity)])).await
    }

    /// Ends a daemon after others were killed, and checks what they did to the protocol.
    pub(crate) async fn end_after_crashes(&self, runner: Runner) {
        let stop = runner.stop(CancellationToken::new());
        tokio::time::timeout(PATIENCE, stop).await.expect("every task is over");
        self.forge.assert_no_violations_but_of_crashes();
    }

    /// Ends the daemon, whose tasks must be over, and checks what it did to the protocol.
    pub(crate) async fn end(&self, runner: Runner) {
        let stop = runner.stop(CancellationToken::new());
        tokio::time::timeout(PATIENCE, stop).await.expect("every task is over");
        let violations = self.forge.violations();
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

/// Hosts with room for so many jobs, which run as a test says.
pub(crate) struct Hosts {
    inner: Arc<Inner>,
    jobs: tokio::sync::Mutex<mpsc::UnboundedReceiver<JobRequest>>,
    queue: Queue,
    keys: KeyRing,
    host: HostId,
    tasks: Vec<AbortHandle>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    room: u32,
    labels: Vec<String>,
    /// Questions for room.
    questions: u32,
    /// Reservations that were granted, and what came back of them.
    granted: u32,
    released: u32,
    cancelled: Vec<JobId>,
    progress: Vec<Progress>,
}

impl Hosts {
    async fn start(queue: &Queue, keys: &KeyRing) -> Self {
        let host = HostId::new();
        let inner = Arc::new(Inner::default());
        inner.state.lock().unwrap().room = 4;
        inner.state.lock().unwrap().labels = vec!["tiny".to_owned()];
        let mut control = queue.control(host).await.unwrap();
        let mut incoming = queue.jobs(16).await.unwrap();
        let (sender, jobs) = mpsc::unbounded_channel();
        let (heard, ring) = (Arc::clone(&inner), keys.clone());
        let listens = tokio::spawn(async move {
            while let Ok(next) = control.next().await {
                match next {
                    Heard::Reserve(question, replier) => {
                        let answer = {
                            let mut state = heard.state.lock().unwrap();
                            state.questions += 1;
                            let count = state.room.min(question.want);
                            state.room -= count;
                            state.granted += count;
                            let expires = Timestamp::now();
                            let labels = state.labels.clone();
                            Reserved { id: question.id, count, labels, expires }
                        };
                        replier.answer(answer).await;
                        heard.changed.notify_waiters();
                    }
                    Heard::Control(delivery) => {
                        if let Ok(message) = &delivery.message {
                            heard.take(message);
                        }
                        delivery.acknowledge().await.unwrap();
                    }
                }
            }
        });
        let takes = tokio::spawn(async move {
            let mut known = Vec::new();
            while let Ok(delivery) = incoming.next().await {
                let request = delivery.message.as_ref().unwrap().open(&ring).unwrap();
                // A job may be handed over twice.
                if !known.contains(&request.envelope.job) {
                    known.push(request.envelope.job);
                    drop(sender.send(request));
                }
                delivery.acknowledge().await.unwrap();
            }
        });
        let tasks = vec![listens.abort_handle(), takes.abort_handle()];
        let (queue, keys) = (queue.clone(), keys.clone());
        Self { inner, jobs: tokio::sync::Mutex::new(jobs), queue, keys, host, tasks }
    }

    /// Says for how many more jobs there is room.
    pub(crate) fn set_room(&self, room: u32) {
        self.inner.state.lock().unwrap().room = room;
    }

    /// Says which labels live hosts can run.
    pub(crate) fn set_labels(&self, labels: &[&str]) {
        self.inner.state.lock().unwrap().labels =
            labels.iter().map(|label| (*label).to_owned()).collect();
    }

    /// How often they were asked for room.
    pub(crate) fn questions(&self) -> u32 {
        self.inner.state.lock().unwrap().questions
    }

    /// How many reservations are neither used nor given back.
    pub(crate) fn held(&self) -> u32 {
        let state = self.inner.state.lock().unwrap();
        state.granted - state.released
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, what: &str, mut is_so: impl FnMut(&Hosts) -> bool) {
        let wait = async {
            loop {
                let changed = self.inner.changed.notified();
                if is_so(self) {
                    return;
                }
                changed.await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "it never was so: {what}");
    }

    /// The next job that the daemon hands over.
    pub(crate) async fn job(&self) -> Job {
        let next = async { self.jobs.lock().await.recv().await.unwrap() };
        let request =
            tokio::time::timeout(PATIENCE, next).await.expect("a job is handed to the hosts");
        Job {
            request,
            queue: self.queue.clone(),
            keys: self.keys.clone(),
            host: self.host,
            inner: Arc::clone(&self.inner),
            try_number: 1,
            seq: 0,
            sent: VecDeque::new(),
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Inner {
    fn take(&self, message: &Control) {
        let mut state = self.state.lock().unwrap();
        match message {
            Control::Cancel { job, .. } => state.cancelled.push(*job),
            Control::Progress(progress) => state.progress.push(*progress),
            Control::Release(release) => {
                state.room += release.count;
                state.released += release.count;
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

/// A job on these hosts. Its events are what a test makes them.
pub(crate) struct Job {
    pub(crate) request: JobRequest,
    queue: Queue,
    keys: KeyRing,
    host: HostId,
    inner: Arc<Inner>,
    try_number: u32,
    seq: u64,
    sent: VecDeque<Vec<JobEvent>>,
}

impl Job {
    pub(crate) fn id(&self) -> JobId {
        self.request.envelope.job
    }

    /// Publishes events.
    pub(crate) async fn tell(&mut self, bodies: Vec<EventBody>) {
        let events: Vec<JobEvent> = bodies
            .into_iter()
            .map(|event| {
                self.seq += 1;
                let (job, try_number, seq) = (self.id(), self.try_number, self.seq);
                JobEvent { job, try_number, seq, time: Timestamp::now(), event }
            })
            .collect();
        self.publish(&events).await;
        self.sent.push_back(events);
    }

    async fn publish(&self, events: &[JobEvent]) {
        let part = EventPart::seal(events, &self.keys).unwrap();
        let batch = EventBatch { host: self.host, parts: vec![part] };
        let to = self.request.envelope.reply_to.parse().unwrap();
        self.queue.publish_events(&to, &batch).await.unwrap();
    }

    /// Publishes everything once more, as an orchestrator that was restarted.
    pub(crate) async fn tell_again(&self) {
        for events in &self.sent {
            self.publish(events).await;
        }
    }

    /// The machine boots.
    pub(crate) async fn boot(&mut self) {
        let phase = |phase, took, detail: Option<&str>| {
            let detail = detail.map(str::to_owned);
            EventBody::Phase(PhaseEvent { phase, took, detail })
        };
        self.tell(vec![
            phase(Phase::Boot, None, Some("tiny with 1 CPU")),
            phase(Phase::Boot, Some(Duration::from_millis(10)), None),
            phase(Phase::Steps, None, None),
        ])
        .await;
    }

    pub(crate) async fn start_step(&mut self, step: u32) {
        let (name, time) = (format!("step {step}"), Timestamp::now());
        self.tell(vec![EventBody::StepStarted(StepStarted { step, name, time })]).await;
    }

    pub(crate) async fn log(&mut self, step: Option<u32>, lines: &[&str]) {
        let lines = lines.iter().map(|text| LogLine {
            time: Timestamp::now(),
            stream: Stream::Stdout,
            text: LogText::from(*text),
        });
        let lines = lines.collect();
        self.tell(vec![EventBody::Log(LogBatch { step, lines })]).await;
    }

    pub(crate) async fn end_step(&mut self, step: u32, conclusion: Conclusion) {
        let time = Timestamp::now();
        let (name, took) = (format!("step {step}"), Duration::from_millis(1));
        let outcome = conclusion;
        let event = StepFinished { step, name, outcome, conclusion, took, time };
        self.tell(vec![EventBody::StepFinished(event)]).await;
    }

    /// A step from begin to end.
    pub(crate) async fn step(&mut self, step: u32, lines: &[&str], conclusion: Conclusion) {
        self.start_step(step).await;
        self.log(Some(step), lines).await;
        self.end_step(step, conclusion).await;
    }

    pub(crate) async fn outputs(&mut self, outputs: &[(&str, &str)]) {
        let outputs = outputs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.tell(vec![EventBody::Outputs(outputs)]).await;
    }

    /// The job is over; there is room for another.
    pub(crate) async fn finish(&mut self, result: Conclusion) {
        self.tell(vec![EventBody::Finished(Finished { result, infrastructure: None })]).await;
        self.inner.state.lock().unwrap().room += 1;
    }

    /// The whole of a job with one step.
    pub(crate) async fn pass(&mut self, lines: &[&str]) {
        self.boot().await;
        self.step(0, lines, Conclusion::Success).await;
        self.finish(Conclusion::Success).await;
    }

    /// Waits until its end was asked for.
    pub(crate) async fn cancelled(&self) {
        let wait = async {
            loop {
                let changed = self.inner.changed.notified();
                if self.inner.state.lock().unwrap().cancelled.contains(&self.id()) {
                    return;
                }
                changed.await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "nobody cancelled the job");
    }

    /// How often its end was asked for.
    pub(crate) fn cancels(&self) -> usize {
        let state = self.inner.state.lock().unwrap();
        state.cancelled.iter().filter(|job| **job == self.id()).count()
    }

    /// Waits until the daemon said that it has everything.
    pub(crate) async fn taken(&self) {
        let wait = async {
            loop {
                let changed = self.inner.changed.notified();
                let (id, seq) = (self.id(), self.seq);
                let has = |p: &Progress| p.job == id && p.seq >= seq;
                if self.inner.state.lock().unwrap().progress.iter().any(has) {
                    return;
                }
                changed.await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "events were not taken");
    }
}
