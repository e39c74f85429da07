//! Carries out a schedule: hands legs to the host, collects what comes back, ends them on request.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::event::{EventBody, Finished, JobEvent, JobResult, Kept, Phase};
use common::ids::JobId;
use common::infrastructure::{Cause, Infrastructure};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::execute::{JobControl, Runner};
use super::schedule::{Planner, Schedule, Start, Trace};
use crate::exit::{CommandError, Exit};
use crate::render::{Item, Report, Screen, StartedJob};
use crate::stop::Stop;

/// Events that may wait for the screen. A batch of log lines has up to 64 KiB, so this bounds the
/// memory of a flood that the terminal cannot follow.
const WAITING_EVENTS: usize = 16;

/// How long a cancelled run waits for a screen that takes nothing.
const UNREAD: Duration = Duration::from_secs(5);

/// What a run consists of.
pub(crate) struct Drive<'a, R> {
    /// Who runs jobs.
    pub(crate) runner: Arc<R>,
    /// What may run when.
    pub(crate) schedule: Schedule,
    /// Decides about jobs.
    pub(crate) planner: &'a mut dyn Planner,
    /// Where everything is shown.
    pub(crate) screen: &'a Screen,
    /// How far the user wants to stop.
    pub(crate) stop: &'a Stop,
    /// Cancelled when what has no room on the screen shall be left out; with the stop's `destroy` at
    /// the latest.
    pub(crate) give_up: CancellationToken,
    /// The workflow file as the user named it.
    pub(crate) workflow: String,
}

/// A leg that the host has.
struct Live {
    cancel: CancellationToken,
    started: Instant,
    try_number: u32,
    phases: Vec<(Phase, u64)>,
    outputs: BTreeMap<String, String>,
    kept: Option<Kept>,
}

impl<R: Runner> Drive<'_, R> {
    /// Runs everything, beginning with the legs that `schedule` gave out already.
    pub(crate) async fn run(mut self, first: Vec<Start>) -> Exit {
        let begun = Instant::now();
        let (sender, mut events) = mpsc::channel(WAITING_EVENTS);
        let mut tasks: JoinSet<(JobId, Finished)> = JoinSet::new();
        let mut ids: HashMap<tokio::task::Id, JobId> = HashMap::new();
        let mut live: HashMap<JobId, Live> = HashMap::new();
        let mut said = Said::default();
        let mut starts = first;
        loop {
            for start in starts.drain(..) {
                let id = start.request.envelope.job;
                self.show(Item::Started(StartedJob { id, name: start.name.clone() })).await;
                let (leg, task) = self.start(start, &sender, &mut tasks);
                live.insert(id, leg);
                ids.insert(task, id);
            }
            if live.is_empty() {
                break;
            }
            tokio::select! {
                // Events before ends, so that everything a job said is shown before its end.
                biased;
                () = self.stop.cancel.cancelled(), if !said.cancel => {
                    said.cancel = true;
                    self.schedule.cancel();
                    let text = "cancelling; another Ctrl-C destroys the machines at once";
                    self.show(Item::Notice(text.to_owned())).await;
                }
                () = self.stop.destroy.cancelled(), if !said.destroy => {
                    said.destroy = true;
                    self.show(Item::Notice("destroying the machines".to_owned())).await;
                }
                () = self.screen.closed(), if !said.closed => {
                    said.closed = true;
                    // Nobody reads what the jobs say: end them instead of leaving them behind.
                    crate::message::notice("nobody reads the output; cancelling");
                    self.stop.cancel.cancel();
                }
                Some(event) = events.recv() => self.take(event, &mut live).await,
                Some(joined) = tasks.join_next_with_id() => {
                    while let Ok(event) = events.try_recv() {
                        self.take(event, &mut live).await;
                    }
                    let (task, finished) = match joined {
                        Ok((task, (_, finished))) => (task, finished),
                        Err(error) => (error.id(), lost(&error)),
                    };
                    if let Some(id) = ids.remove(&task)
                        && let Some(leg) = live.remove(&id)
                    {
                        starts = self.end(id, &finished, leg, &live).await;
                    }
                }
            }
        }
        self.finish(begun).await
    }

    fn start(
        &self,
        start: Start,
        events: &mpsc::Sender<JobEvent>,
        tasks: &mut JoinSet<(JobId, Finished)>,
    ) -> (Live, tokio::task::Id) {
        let cancel = self.stop.cancel.child_token();
        let control = JobControl { cancel: cancel.clone(), destroy: self.stop.destroy.clone() };
        let runner = Arc::clone(&self.runner);
        let events = events.clone();
        let id = start.request.envelope.job;
        let task =
            tasks.spawn(async move { (id, runner.run(start.request, events, control).await) }).id();
        let live = Live {
            cancel,
            started: Instant::now(),
            try_number: 1,
            phases: Vec::new(),
            outputs: BTreeMap::new(),
            kept: None,
        };
        (live, task)
    }

    async fn take(&self, event: JobEvent, live: &mut HashMap<JobId, Live>) {
        if let Some(leg) = live.get_mut(&event.job) {
            leg.observe(&event);
        }
        self.show(Item::Event(event)).await;
    }

    /// Takes the end of a leg; what may start then is returned.
    async fn end(
        &mut self,
        id: JobId,
        finished: &Finished,
        leg: Live,
        live: &HashMap<JobId, Live>,
    ) -> Vec<Start> {
        let trace = Trace {
            took_ms: millis(leg.started),
            phases_ms: leg.phases,
            outputs: leg.outputs,
            kept: leg.kept,
        };
        for id in self.schedule.end(id, finished, trace) {
            if let Some(leg) = live.get(&id) {
                leg.cancel.cancel();
            }
        }
        let ready = self.schedule.start_ready(self.planner);
        for error in ready.errors {
            self.show(Item::Notice(sentence(&error))).await;
        }
        for id in ready.cancel {
            if let Some(leg) = live.get(&id) {
                leg.cancel.cancel();
            }
        }
        ready.starts
    }

    async fn finish(self, begun: Instant) -> Exit {
        let (jobs, result, exit) = self.schedule.results();
        let report = Report {
            workflow: self.workflow,
            jobs,
            result,
            exit_code: exit.code(),
            took_ms: millis(begun),
        };
        let destroy = &self.stop.destroy;
        if self.give_up.is_cancelled() && !destroy.is_cancelled() {
            let text = "some of the output was left out: nobody read it when the run was cancelled";
            self.screen.show(Item::Notice(text.to_owned()), destroy).await;
        }
        self.screen.show(Item::Report(report), destroy).await;
        exit
    }

    /// Shows an item, waiting for room. Whoever has cancelled the run does not wait for a terminal
    /// that is stopped: what has no room is left out then, or the jobs could not come to their end.
    async fn show(&self, item: Item) {
        let unread = async {
            self.stop.cancel.cancelled().await;
            sleep(UNREAD).await;
        };
        tokio::select! {
            biased;
            () = self.screen.show(item, &self.give_up) => {}
            () = unread => self.give_up.cancel(),
        }
    }
}

/// What the user was told.
#[derive(Default)]
struct Said {
    cancel: bool,
    destroy: bool,
    closed: bool,
}

impl Live {
    fn observe(&mut self, event: &JobEvent) {
        if event.try_number != self.try_number {
            self.try_number = event.try_number;
            self.phases.clear();
        }
        match &event.event {
            EventBody::Phase(phase) => {
                if let Some(took) = phase.took {
                    let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                    self.phases.push((phase.phase, took));
                }
            }
            EventBody::Outputs(outputs) => self.outputs.clone_from(outputs),
            EventBody::Kept(kept) => self.kept = Some(kept.clone()),
            _ => {}
        }
    }
}

/// The end of a job whose task did not come back.
fn lost(error: &tokio::task::JoinError) -> Finished {
    let message = format!("the task of the job ended early: {error}");
    Finished {
        result: JobResult::Failure,
        infrastructure: Some(Infrastructure::new(Cause::Internal, message)),
    }
}

fn sentence(error: &CommandError) -> String {
    match error.advice() {
        Some(hint) => format!("error: {error}\nhint: {hint}"),
        None => format!("error: {error}"),
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
