//! A service without machines: jobs and events are what a test puts in. The tests of the command
//! line use it as well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use common::event::{EventBody, Finished, JobEvent, JobResult};
use common::ids::{HostId, JobId};
use common::request::{Deadlines, Envelope, Forge, JobRequest, MachineSize, PROTOCOL_VERSION};
use common::size::ByteSize;
use common::time::Timestamp;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use tokio::sync::watch;

use super::api::{ApiError, ApiErrorKind, Backend, Events, Extent, Health};
use super::store::{
    CancelOutcome, HostReport, HostRow, Job, JobDetail, JobFilter, JobState, LabelOffer, Size,
};

/// A service without machines. Clones share everything.
#[derive(Clone)]
pub(crate) struct TestBackend {
    state: Arc<Mutex<State>>,
    /// Counts changes of the state.
    changed: watch::Sender<u64>,
    /// Streams that are open.
    streams: watch::Sender<usize>,
}

/// What a test puts in and looks at.
#[derive(Default)]
pub(crate) struct State {
    /// Newest first.
    pub(crate) jobs: Vec<JobDetail>,
    /// The first is the service's own.
    pub(crate) hosts: Vec<HostRow>,
    /// A job without an entry has no events.
    pub(crate) events: HashMap<JobId, Vec<JobEvent>>,
    /// What happens to a job that is handed in.
    pub(crate) script: Vec<EventBody>,
    /// Jobs that were handed in.
    pub(crate) submitted: Vec<JobRequest>,
    /// What the service was asked to do.
    pub(crate) said: Vec<String>,
    /// What is wrong with it.
    pub(crate) problems: Vec<String>,
    /// What every request is answered with, if anything.
    pub(crate) refusal: Option<ApiError>,
    /// What a job that is handed in is answered with, if anything.
    pub(crate) submit_refusal: Option<ApiError>,
    /// Events that streams have given out.
    pub(crate) given: usize,
}

impl TestBackend {
    /// A service with one host that runs `tiny`.
    pub(crate) fn new() -> Self {
        let state = State { hosts: vec![host("builder-1")], ..State::default() };
        Self {
            state: Arc::new(Mutex::new(state)),
            changed: watch::Sender::new(0),
            streams: watch::Sender::new(0),
        }
    }

    /// What it holds, to be looked at.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes what it holds, and wakes the streams.
    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.send_modify(|count| *count += 1);
    }

    /// Adds a job.
    pub(crate) fn add(&self, detail: JobDetail) -> JobId {
        let id = detail.job.id;
        self.change(|state| state.jobs.insert(0, detail));
        id
    }

    /// Adds events to a job in its first try.
    pub(crate) fn happen(&self, job: JobId, bodies: impl IntoIterator<Item = EventBody>) {
        self.change(|state| state.happen(job, bodies));
    }

    /// Waits until so many streams are open.
    pub(crate) async fn streams(&self, count: usize) {
        let mut streams = self.streams.subscribe();
        streams.wait_for(|open| *open == count).await.unwrap();
    }

    /// Waits until something holds for the state.
    pub(crate) async fn until(&self, holds: impl Fn(&State) -> bool) {
        let mut changed = self.changed.subscribe();
        while !holds(&self.state()) {
            changed.changed().await.unwrap();
        }
    }

    fn check(&self) -> Result<MutexGuard<'_, State>, ApiError> {
        let state = self.state();
        match &state.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(state),
        }
    }

    fn say(&self, what: String) -> Result<(), ApiError> {
        self.check()?.said.push(what);
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }
}

impl State {
    fn happen(&mut self, job: JobId, bodies: impl IntoIterator<Item = EventBody>) {
        let events = self.events.entry(job).or_default();
        for body in bodies {
            let seq = events.len() as u64 + 1;
            let finished = match &body {
                EventBody::Finished(finished) => Some(finished.clone()),
                _ => None,
            };
            let time = Timestamp::from_micros(1_700_000_000_000_000 + seq);
            events.push(JobEvent { job, try_number: 1, seq, time, event: body });
            if let Some(detail) = self.jobs.iter_mut().find(|detail| detail.job.id == job)
                && let Some(finished) = finished
            {
                detail.job.state = JobState::Done;
                detail.job.finished = Some(finished);
                detail.job.ended = Some(Timestamp::now());
            }
        }
    }

    fn find(&self, job: JobId) -> Option<&JobDetail> {
        self.jobs.iter().find(|detail| detail.job.id == job)
    }
}

impl Backend for TestBackend {
    async fn jobs(&self, filter: JobFilter) -> Result<Vec<Job>, ApiError> {
        let state = self.check()?;
        let jobs = state.jobs.iter().map(|detail| &detail.job);
        let jobs = jobs.filter(|job| {
            (filter.states.is_empty() || filter.states.contains(&job.state))
                && filter.repository.as_ref().is_none_or(|wanted| *wanted == job.repository)
                && filter.label.as_ref().is_none_or(|wanted| *wanted == job.label)
        });
        let most = if filter.most == 0 { 1000 } else { filter.most as usize };
        Ok(jobs.take(most).cloned().collect())
    }

    async fn job(&self, job: JobId) -> Result<Option<JobDetail>, ApiError> {
        Ok(self.check()?.find(job).cloned())
    }

    async fn cancel(&self, job: JobId) -> Result<CancelOutcome, ApiError> {
        self.say(format!("cancel {job}"))?;
        let state = self.state();
        Ok(match state.find(job).map(|detail| (detail.job.state, detail.job.host)) {
            None => CancelOutcome::Remembered,
            Some((JobState::Queued, _)) => CancelOutcome::WasQueued,
            Some((JobState::Done, _)) => CancelOutcome::WasDone,
            Some((_, host)) => CancelOutcome::Leased(host.unwrap_or_else(HostId::new)),
        })
    }

    async fn destroy(&self, job: JobId) -> Result<CancelOutcome, ApiError> {
        self.say(format!("destroy {job}"))?;
        self.cancel(job).await
    }

    async fn retry(&self, job: JobId) -> Result<JobId, ApiError> {
        self.say(format!("retry {job}"))?;
        match self.state().find(job).map(|detail| detail.job.state) {
            Some(JobState::Done) => Ok(JobId::new()),
            Some(state) => Err(ApiError::new(
                ApiErrorKind::Conflict,
                format!("job {job} is {}, and only a job that is over runs again", state.name()),
            )),
            None => Err(ApiError::new(ApiErrorKind::NotFound, format!("there is no job {job}"))),
        }
    }

    async fn hosts(&self) -> Result<Vec<HostRow>, ApiError> {
        Ok(self.check()?.hosts.clone())
    }

    async fn drain(&self, host: Option<HostId>, on: bool) -> Result<(), ApiError> {
        let mut state = self.check()?;
        let host = host.unwrap_or(state.hosts[0].report.host);
        let row = state.hosts.iter_mut().find(|row| row.report.host == host);
        let row = row.ok_or_else(|| {
            ApiError::new(ApiErrorKind::NotFound, format!("there is no host {host}"))
        })?;
        row.report.draining = on;
        drop(state);
        self.say(format!("drain {on}"))
    }

    async fn submit(&self, request: JobRequest) -> Result<JobId, ApiError> {
        if let Some(refusal) = &self.check()?.submit_refusal {
            return Err(refusal.clone());
        }
        let job = request.envelope.job;
        self.change(|state| {
            if state.find(job).is_none() {
                let mut detail = detail(JobState::Running);
                detail.job.id = job;
                state.jobs.insert(0, detail);
                let script = state.script.clone();
                state.happen(job, script);
            }
            state.submitted.push(request);
        });
        Ok(job)
    }

    async fn labels(&self) -> Result<Vec<LabelOffer>, ApiError> {
        let state = self.check()?;
        let hosts = state.hosts.iter().filter(|row| !row.report.draining);
        Ok(hosts.flat_map(|row| row.report.labels.clone()).collect())
    }

    async fn follow(&self, job: JobId, extent: Extent) -> Result<Option<Events>, ApiError> {
        if !self.check()?.events.contains_key(&job) {
            return Ok(None);
        }
        let stream = Reader {
            backend: self.clone(),
            changed: self.changed.subscribe(),
            job,
            extent,
            at: 0,
            _open: Open::new(&self.streams),
        };
        Ok(Some(
            unfold(stream, |mut reader| async { Some((Ok(reader.next().await?), reader)) }).boxed(),
        ))
    }

    async fn health(&self) -> Health {
        let state = self.state();
        let own = &state.hosts[0].report;
        Health {
            host: own.host,
            name: own.name.clone(),
            version: own.version.clone(),
            started: Timestamp::from_micros(1_700_000_000_000_000),
            draining: own.draining,
            problems: state.problems.clone(),
        }
    }

    fn metrics(&self) -> String {
        "solstice_machines 3\n".to_owned()
    }
}

/// One stream of a job's events.
struct Reader {
    backend: TestBackend,
    changed: watch::Receiver<u64>,
    job: JobId,
    extent: Extent,
    at: usize,
    _open: Open,
}

/// Events that a stream gives out at a time.
const BATCH: usize = 4;

impl Reader {
    async fn next(&mut self) -> Option<Vec<JobEvent>> {
        loop {
            self.changed.mark_unchanged();
            {
                let mut state = self.backend.state();
                let events = &state.events[&self.job];
                let next: Vec<JobEvent> =
                    events.iter().skip(self.at).take(BATCH).cloned().collect();
                let over = matches!(events.last().map(|e| &e.event), Some(EventBody::Finished(_)));
                self.at += next.len();
                state.given += next.len();
                if !next.is_empty() {
                    return Some(next);
                }
                if over || self.extent == Extent::Written {
                    return None;
                }
            }
            self.changed.changed().await.ok()?;
        }
    }
}

/// Counts itself as long as it lives.
struct Open(watch::Sender<usize>);

impl Open {
    fn new(streams: &watch::Sender<usize>) -> Self {
        streams.send_modify(|open| *open += 1);
        Self(streams.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// A final event.
pub(crate) fn finished(result: JobResult) -> EventBody {
    EventBody::Finished(Finished { result, infrastructure: None })
}

/// A live host that runs `tiny`.
pub(crate) fn host(name: &str) -> HostRow {
    let size = |cpus, gibibytes: u64| Size { cpus, memory: ByteSize(gibibytes << 30) };
    HostRow {
        report: HostReport {
            host: HostId::new(),
            name: name.to_owned(),
            labels: vec![LabelOffer { label: "tiny".to_owned(), size: size(1, 1) }],
            capacity: size(8, 16),
            usable: size(8, 16),
            acceleration: "kvm".to_owned(),
            load: 125,
            draining: false,
            version: "0.1.0".to_owned(),
        },
        heartbeat: Timestamp::now(),
        alive: true,
        jobs: 0,
        used: size(2, 2),
    }
}

/// A job in a state, without tries.
pub(crate) fn detail(state: JobState) -> JobDetail {
    let id = JobId::new();
    let now = Timestamp::now();
    JobDetail {
        job: Job {
            id,
            forge: Forge::Forgejo,
            repository: "me/app".to_owned(),
            label: "tiny".to_owned(),
            priority: 0,
            state,
            since: now,
            deadline: None,
            size: None,
            only: None,
            host: None,
            lease: None,
            tries: 0,
            user_step_started: false,
            cancel_requested: false,
            created: now,
            claimed: None,
            finished: None,
            ended: None,
        },
        tries: Vec::new(),
        envelope: envelope(id),
    }
}

/// What schedulers read of a job.
pub(crate) fn envelope(job: JobId) -> Envelope {
    Envelope {
        version: PROTOCOL_VERSION,
        job,
        forge: Forge::Forgejo,
        repository: "me/app".to_owned(),
        label: "tiny".to_owned(),
        size: MachineSize::default(),
        priority: 0,
        deadlines: Deadlines::default(),
        reply_to: "forgejo-1".to_owned(),
        reservation: None,
    }
}
