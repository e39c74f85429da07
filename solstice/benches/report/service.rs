//! The service: queue, events, schedule, and what a thousand jobs cost. Guests are scripted.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::JobId;
use common::event::{EventBody, JobEvent, LogBatch, LogLine, Phase, StepStarted, Stream};
use common::frame::Decoder;
use common::guest::GuestEvent;
use common::ids::HostId;
use common::request::JobRequest;
use common::size::ByteSize;
use common::time::Timestamp;
use orchestrator::api::wire::StreamPart;
use orchestrator::clock::Clock;
use orchestrator::events::{EventLog, Outlet};
use orchestrator::journal::{JournalSettings, Journals};
use orchestrator::masking::Masker;
use orchestrator::store::{HostReport, LabelOffer, NewJob, Room, Size, Store};
use queue::message::{Control, JobMessage, Progress};
use queue::seal::KeyRing;
use queue::{Address, Heard, Queue, embedded, rabbit};
use simulators::jobs::job;
use simulators::{PostgresServer, RabbitServer, ScriptedHost};

use super::{Figures, PATIENCE, kill_processes_of, percentile, status_bytes};

/// Jobs that go through the queue.
const JOBS: usize = 3_000;
/// Jobs that are accepted in one transaction at most, as the service does.
const BATCH: usize = 64;
/// Lines that go from a guest's event to a consumer.
const LINES: usize = 400_000;
/// Lines in one event of the guest.
const LINES_PER_EVENT: usize = 500;
/// Jobs that follow each other in one slot.
const FOLLOWING: usize = 60;
/// The many jobs of the load, and the few that they are compared with.
const MANY: usize = 1_000;
const FEW: usize = 10;
/// For how long the processor time of jobs that run is taken.
const SPAN: Duration = Duration::from_secs(20);
/// The size of a scripted machine.
const SIZE: Size = Size { cpus: 1, memory: ByteSize(96 << 20) };
/// A host on which everything fits.
const HUGE: Size = Size { cpus: 1_000_000, memory: ByteSize(1 << 50) };

/// Runs a measurement that waits for many things.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// From the publishing of jobs to their claim, inside one process.
pub(super) fn queue_embedded(directory: &Path) -> Figures {
    let rate = block_on(async {
        let queue = embedded::Embedded::open(&directory.join("queue.db")).await.expect("a queue");
        let store = Store::sqlite(&directory.join("jobs.db"), Clock::system()).await;
        jobs_per_second(Queue::Embedded(queue), store.expect("a database")).await
    });
    Figures::from([("queue_jobs_per_second_embedded", rate)])
}

/// The same over a broker and PostgreSQL.
pub(super) fn queue_rabbitmq(_: &Path) -> Figures {
    let rate = block_on(async {
        let (broker, database) = tokio::join!(RabbitServer::start(), PostgresServer::start());
        let (broker, database) = (broker.expect("RabbitMQ"), database.expect("PostgreSQL"));
        let queue = connect(&broker).await;
        let store = Store::postgres(&database.database().await.expect("a database")).await;
        jobs_per_second(queue, store.expect("a database")).await
    });
    Figures::from([("queue_jobs_per_second_rabbitmq", rate)])
}

async fn connect(broker: &RabbitServer) -> Queue {
    let settings = rabbit::Settings::new(broker.url(), broker.prefix());
    Queue::Rabbit(rabbit::Rabbit::connect(&settings).await.expect("a connection"))
}

async fn jobs_per_second(queue: Queue, store: Store) -> f64 {
    let (host, labels) = (HostId::new(), vec![LabelOffer { label: "scripted".into(), size: SIZE }]);
    let report = HostReport {
        host,
        name: "bench".into(),
        labels: labels.clone(),
        capacity: HUGE,
        usable: HUGE,
        acceleration: "tcg".into(),
        load: 0,
        draining: false,
        version: String::new(),
    };
    store.announce(&report, uuid::Uuid::now_v7()).await.expect("announced");
    let keys = KeyRing::ephemeral();
    let messages: Vec<JobMessage> = (0..JOBS)
        .map(|_| JobMessage::seal(&job("scripted", &["echo x"]), &keys).expect("sealed"))
        .collect();
    let mut receiver = queue.jobs(BATCH as u16).await.expect("a receiver");
    let begun = Instant::now();
    let publish = async {
        // As many runners as a busy installation has.
        let parts = messages.chunks(JOBS.div_ceil(8));
        let queue = &queue;
        let all = parts.map(|part| async move {
            for message in part {
                queue.publish_job(message).await.expect("published");
            }
        });
        futures_util::future::join_all(all).await;
    };
    let accept = async {
        let mut accepted = 0;
        while accepted < JOBS {
            let mut batch = vec![receiver.next().await.expect("a job")];
            while batch.len() < BATCH
                && let Some(Ok(next)) = futures_util::FutureExt::now_or_never(receiver.next())
            {
                batch.push(next);
            }
            let new = batch.iter().map(|delivery| {
                let message = delivery.message.as_ref().expect("a job").clone();
                message.open(&keys).expect("opened");
                NewJob { message, size: Some(SIZE), only: None }
            });
            let new: Vec<NewJob> = new.collect();
            store.accept(&new).await.expect("accepted");
            accepted += batch.len();
            for delivery in batch {
                delivery.acknowledge().await.expect("acknowledged");
            }
        }
    };
    let claim = async {
        let mut claimed = 0;
        let room = Room { free: HUGE, capacity: HUGE };
        while claimed < JOBS {
            claimed += store.claim(host, room, &labels, BATCH as u32).await.expect("claimed").len();
        }
    };
    tokio::join!(publish, accept, claim);
    let rate = JOBS as f64 / begun.elapsed().as_secs_f64();
    queue.close().await;
    store.close().await;
    rate
}

/// From a guest's event to the consumer of the job's events, inside one process.
pub(super) fn events_embedded(directory: &Path) -> Figures {
    let rate = block_on(async {
        let queue = embedded::Embedded::open(&directory.join("events.db")).await.expect("a queue");
        lines_per_second(Queue::Embedded(queue), directory).await
    });
    Figures::from([("event_lines_per_second_embedded", rate)])
}

/// The same over a broker.
pub(super) fn events_rabbitmq(directory: &Path) -> Figures {
    let rate = block_on(async {
        let broker = RabbitServer::start().await.expect("RabbitMQ");
        lines_per_second(connect(&broker).await, directory).await
    });
    Figures::from([("event_lines_per_second_rabbitmq", rate)])
}

async fn lines_per_second(queue: Queue, directory: &Path) -> f64 {
    let (host, id, keys) = (HostId::new(), JobId::new(), KeyRing::ephemeral());
    let address: Address = "bench".parse().expect("an address");
    let mut events = queue.events(&address, 16).await.expect("a receiver");
    let mut control = queue.control(host).await.expect("a receiver");
    let settings = JournalSettings {
        directory: directory.join(format!("journals-{}", id.short())),
        host,
        days: 1,
        bytes: 1 << 40,
    };
    let journals = Journals::open(settings, keys.clone(), Some(queue.clone())).expect("journals");
    let sender = journals.create(id, Some(address)).expect("a journal");
    let masker = Masker::new(["a-secret-of-the-job"]);
    let mut log = EventLog::new(id, 1, masker, Outlet::Journal(sender));
    log.begin_try(1);
    let begun = Instant::now();
    let write = async {
        let time = Timestamp::now();
        let started = StepStarted { step: 0, name: "step".into(), time };
        log.record(GuestEvent::StepStarted(started)).expect("recorded");
        for number in 0..LINES / LINES_PER_EVENT {
            let line = |index: usize| LogLine {
                time,
                stream: Stream::Stdout,
                text: format!("line {} of what a build prints", number * LINES_PER_EVENT + index)
                    .into(),
            };
            let lines = (0..LINES_PER_EVENT).map(line).collect();
            let batch = LogBatch { step: Some(0), lines };
            log.record(GuestEvent::Log(batch)).expect("recorded");
            log.commit().await.expect("committed");
        }
        log
    };
    let read = async {
        let mut seen = 0;
        while seen < LINES {
            let delivery = events.next().await.expect("events");
            let batch = delivery.message.as_ref().expect("a batch").clone();
            for part in &batch.parts {
                for event in part.open(&keys).expect("opened") {
                    if let EventBody::Log(batch) = event.event {
                        seen += batch.lines.len();
                    }
                }
                let seq = part.first + u64::from(part.count) - 1;
                let progress = Progress { job: id, try_number: part.try_number, seq };
                queue.progress(host, progress).await.expect("progress");
            }
            delivery.acknowledge().await.expect("acknowledged");
        }
    };
    // The host's part of a service.
    let hear = async {
        loop {
            let Heard::Control(delivery) = control.next().await.expect("control") else { continue };
            if let Ok(Control::Progress(progress)) = &delivery.message {
                journals.progress(*progress);
            }
            delivery.acknowledge().await.expect("acknowledged");
        }
    };
    let log = tokio::select! {
        (log, ()) = futures_util::future::join(write, read) => log,
        never = hear => never,
    };
    let rate = LINES as f64 / begun.elapsed().as_secs_f64();
    drop(log);
    journals.close().await;
    queue.close().await;
    rate
}

/// A service with scripted guests, as its own process.
pub(super) struct Service {
    child: Child,
    client: reqwest::Client,
    guests: tempfile::TempDir,
}

impl Service {
    async fn start(directory: &Path, runtime: &Path, cpus: usize) -> Self {
        Self::start_with(directory, runtime, cpus, &[]).await
    }

    /// The same with further settings.
    pub(super) async fn start_with(
        directory: &Path,
        runtime: &Path,
        cpus: usize,
        settings: &[(&str, &str)],
    ) -> Self {
        let guests = tempfile::tempdir_in(directory).expect("a directory");
        let scripted = ScriptedHost::new(guests.path()).expect("scripted guests");
        let child = Command::new(env!("CARGO_BIN_EXE_solstice"))
            .arg("serve")
            .env("SOLSTICE_STATE_DIR", directory.join("service"))
            .env("SOLSTICE_RUNTIME_DIR", runtime)
            .env("SOLSTICE_MAX_CPUS", cpus.to_string())
            .env("SOLSTICE_MAX_MEMORY", "1T")
            .env("SOLSTICE_LABELS", ScriptedHost::LABEL)
            .env("SOLSTICE_METRICS_LISTEN", "off")
            .env("SOLSTICE_LOG", "warn")
            .envs(scripted.environment())
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .spawn()
            .expect("solstice starts");
        let socket = runtime.join("solstice.sock");
        let client = reqwest::Client::builder().unix_socket(socket).no_proxy().build();
        let service = Self { child, client: client.expect("a client"), guests };
        let begun = Instant::now();
        while service.client.get("http://localhost/health").send().await.is_err() {
            assert!(begun.elapsed() < PATIENCE, "the service does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        service
    }

    pub(super) async fn submit(&self, request: &JobRequest) {
        let mut bytes = Vec::new();
        let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
        serde::Serialize::serialize(request, &mut serializer).expect("a request has a form");
        let url = "http://localhost/v1/jobs";
        let answer = self.client.post(url).body(bytes).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{:?}", answer.text().await);
    }

    /// All events of a job.
    pub(super) async fn events(&self, job: JobId) -> Vec<JobEvent> {
        let url = format!("http://localhost/v1/jobs/{job}/events");
        let mut answer = self.client.get(url).send().await.expect("an answer");
        let (mut decoder, mut events) = (Decoder::default(), Vec::new());
        while let Ok(Some(bytes)) = answer.chunk().await {
            decoder.push(&bytes);
            while let Some(part) = decoder.next_frame::<StreamPart>().expect("a part") {
                if let StreamPart::Events(more) = part {
                    events.extend(more);
                }
            }
        }
        events
    }

    /// How many jobs are in these states.
    async fn count(&self, states: &str) -> usize {
        let url = format!("http://localhost/v1/jobs?state={states}&most=10000");
        let answer = self.client.get(url).send().await.expect("an answer");
        let text = answer.text().await.expect("a text");
        serde_json::from_str::<Vec<serde_json::Value>>(&text).expect("a list").len()
    }

    /// Processor time that it has used.
    fn cpu(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.child.id());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        // The second field is a name in brackets, which may hold spaces.
        let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 =
            fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // Its machines outlive it; nothing of them is needed.
        kill_processes_of(self.guests.path());
    }
}

/// From the end of a job to the start of the machine of the next, which waits for its slot.
pub(super) fn schedule(directory: &Path, runtime: &Path) -> Figures {
    let mut gaps = block_on(async {
        let service = Service::start(directory, runtime, 1).await;
        let jobs: Vec<JobRequest> =
            (0..FOLLOWING).map(|_| job(ScriptedHost::LABEL, &["echo x"])).collect();
        for request in &jobs {
            service.submit(request).await;
        }
        let mut spans = Vec::new();
        for request in &jobs {
            let events = service.events(request.envelope.job).await;
            let end = events.last().expect("events").time;
            let is_boot = |event: &&JobEvent| match &event.event {
                EventBody::Phase(phase) => phase.phase == Phase::Boot && phase.took.is_none(),
                _ => false,
            };
            let start = events.iter().find(is_boot).expect("a boot").time;
            spans.push((start, end));
        }
        spans.sort();
        let pairs = spans.windows(2);
        pairs.map(|pair| pair[1].0.since(pair[0].1).as_secs_f64() * 1000.0).collect::<Vec<f64>>()
    });
    Figures::from([("schedule_p95_ms", percentile(&mut gaps, 95))])
}

/// What jobs that print ten lines a second cost the service.
pub(super) fn many_jobs(directory: &Path, runtime: &Path) -> Figures {
    let (few, many) = block_on(async {
        let few = cost(directory, runtime, FEW).await;
        (few, cost(directory, runtime, MANY).await)
    });
    Figures::from([
        ("orchestrator_rss_1000_jobs_bytes", many.rss),
        ("orchestrator_cpu_1000_jobs", many.cores),
        ("cost_growth_10_to_1000", (many.cores / MANY as f64) / (few.cores / FEW as f64)),
    ])
}

struct Cost {
    rss: f64,
    cores: f64,
}

async fn cost(directory: &Path, runtime: &Path, jobs: usize) -> Cost {
    let service = Service::start(directory, runtime, jobs + 10).await;
    for _ in 0..jobs {
        service.submit(&job(ScriptedHost::LABEL, &["lines 100000 100"])).await;
    }
    let begun = Instant::now();
    while service.count("running").await < jobs {
        assert!(begun.elapsed() < 2 * PATIENCE, "not all of {jobs} jobs run");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // What the starts left to do is not what running jobs cost.
    tokio::time::sleep(SPAN / 4).await;
    let (before, since) = (service.cpu(), Instant::now());
    tokio::time::sleep(SPAN).await;
    let used = service.cpu() - before;
    Cost {
        rss: status_bytes(service.child.id(), "VmRSS:"),
        cores: used.as_secs_f64() / since.elapsed().as_secs_f64(),
    }
}
