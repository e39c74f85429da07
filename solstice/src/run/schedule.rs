//! Which job runs when: pure, without a clock and without I/O.
//!
//! ```text
//!  job:  waiting ──needs over──▶ decided ──▶ legs run ──▶ over
//!           │                       └─ condition false, or an error ─▲
//!           └──────────── the run is cancelled ──────────────────────┘
//!  leg:  waiting ──room under max-parallel──▶ running ──▶ over
//!           └─ fail-fast, or the run is cancelled ────────▲
//! ```
//!
//! A job that calls a workflow adds the jobs of that workflow, each under a key that begins with its
//! own, and is over when they are.
//!
//! A job is decided when the jobs that it needs are over, because its condition, its matrix and its
//! label may read their outputs. The host decides how many machines run at a time; all legs that
//! may run are handed to it at once.

use std::collections::BTreeMap;

use common::event::{Finished, JobResult, Kept, Phase};
use common::ids::JobId;
use common::request::JobRequest;
use serde_json::{Map, Value as Json, json};

use crate::exit::{CommandError, Exit};
use crate::render::JobReport;

/// A job of the workflow and what it needs.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The key in the workflow.
    pub(crate) key: String,
    /// The keys of the jobs that must be over before it.
    pub(crate) needs: Vec<String>,
}

/// Decides about a job when the jobs that it needs are over.
pub(crate) trait Planner {
    /// # Errors
    /// The workflow file is wrong at a place that could not be seen before.
    fn decide(&mut self, key: &str, needs: &Needs) -> Result<Decision, CommandError>;

    /// The outputs of a called workflow whose jobs are over; `jobs` is the context of that name.
    ///
    /// # Errors
    /// They have no value.
    fn outputs(
        &mut self,
        called: &str,
        jobs: &Map<String, Json>,
    ) -> Result<BTreeMap<String, String>, CommandError>;
}

/// How the jobs ended that a job depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    /// The `needs` context: the jobs that it names itself.
    pub(crate) context: Map<String, Json>,
    /// The results of those and of all that they depend on, by key.
    pub(crate) results: BTreeMap<String, JobResult>,
}

/// What becomes of a job.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Its condition is false.
    Skip {
        /// Its name as people read it.
        name: String,
    },
    /// It runs.
    Run(Legs<Leg>),
    /// It calls a workflow.
    Call(Legs<Called>),
}

/// The legs of a job's matrix, or the one leg of a job without one.
#[derive(Debug)]
pub(crate) struct Legs<L> {
    /// In the order of the matrix.
    pub(crate) legs: Vec<L>,
    /// Whether a failed leg cancels the others.
    pub(crate) fail_fast: bool,
    /// How many may run at a time.
    pub(crate) max_parallel: Option<usize>,
}

/// One run of a job.
#[derive(Debug)]
pub(crate) struct Leg {
    /// Its name as people read it.
    pub(crate) name: String,
    /// The values of the matrix, null without one.
    pub(crate) matrix: Json,
    /// Whether its failure is forgiven: `continue-on-error` of the job.
    pub(crate) continue_on_error: bool,
    /// What the host is given.
    pub(crate) request: JobRequest,
}

/// One call of a workflow.
#[derive(Debug)]
pub(crate) struct Called {
    /// What the keys of its jobs begin with.
    pub(crate) prefix: String,
    /// Its jobs, each behind those that it needs.
    pub(crate) nodes: Vec<Node>,
}

/// What comes of a look at all jobs.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// The legs that may start.
    pub(crate) starts: Vec<Start>,
    /// What was wrong with jobs, which have failed then.
    pub(crate) errors: Vec<CommandError>,
    /// The legs that are to be cancelled.
    pub(crate) cancel: Vec<JobId>,
}

/// A leg to be handed to the host now.
#[derive(Debug)]
pub(crate) struct Start {
    /// Its name as people read it.
    pub(crate) name: String,
    /// What the host is given.
    pub(crate) request: JobRequest,
}

/// What is known of a leg when it is over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    /// From its hand-over to its end.
    pub(crate) took_ms: u64,
    /// The phases of its last try.
    pub(crate) phases_ms: Vec<(Phase, u64)>,
    /// Its outputs.
    pub(crate) outputs: BTreeMap<String, String>,
    /// The machine that is kept.
    pub(crate) kept: Option<Kept>,
}

/// The state of every job.
#[derive(Debug)]
pub(crate) struct Schedule {
    jobs: Vec<Job>,
    reports: Vec<JobReport>,
    /// The file turned out to be wrong at a place that could not be seen before.
    mistaken: bool,
    cancelled: bool,
}

#[derive(Debug)]
struct Job {
    node: Node,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting,
    Running { waiting: Vec<Leg>, running: Vec<Running>, limits: Limits, so_far: Merged },
    Calling { waiting: Vec<Called>, running: Vec<Called>, limits: Limits, so_far: Merged },
    Over(Merged),
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    fail_fast: bool,
    max_parallel: usize,
}

impl Limits {
    fn of<L>(legs: &Legs<L>) -> Self {
        let max_parallel = legs.max_parallel.unwrap_or(usize::MAX).max(1);
        Self { fail_fast: legs.fail_fast, max_parallel }
    }
}

#[derive(Debug)]
struct Running {
    id: JobId,
    name: String,
    matrix: Json,
    continue_on_error: bool,
}

/// The legs of one job as the jobs after it see them.
#[derive(Clone, Debug)]
struct Merged {
    result: JobResult,
    outputs: BTreeMap<String, String>,
}

impl Merged {
    fn of(result: JobResult) -> Self {
        Self { result, outputs: BTreeMap::new() }
    }

    /// A failed leg fails the job, a cancelled one cancels it. Of outputs with the same name the
    /// last that is not empty wins.
    fn add(&mut self, result: JobResult, outputs: &BTreeMap<String, String>) {
        let rank = |result| match result {
            JobResult::Skipped => 0,
            JobResult::Success => 1,
            JobResult::Cancelled => 2,
            JobResult::Failure => 3,
        };
        if rank(result) > rank(self.result) {
            self.result = result;
        }
        for (name, value) in outputs {
            if !value.is_empty() || !self.outputs.contains_key(name) {
                self.outputs.insert(name.clone(), value.clone());
            }
        }
    }
}

impl Schedule {
    /// Every job is waiting; each node stands behind those that it needs.
    pub(crate) fn new(nodes: Vec<Node>) -> Self {
        let jobs = nodes.into_iter().map(|node| Job { node, state: State::Waiting }).collect();
        Self { jobs, reports: Vec::new(), mistaken: false, cancelled: false }
    }

    /// Decides the jobs whose needs are over, and takes out every leg that may start.
    pub(crate) fn start_ready(&mut self, planner: &mut dyn Planner) -> Ready {
        let mut ready = Ready::default();
        // Each look may end a job that others wait for, or add jobs.
        while self.look(planner, &mut ready) {}
        ready
    }

    /// Looks at every job once; whether another look may find more.
    fn look(&mut self, planner: &mut dyn Planner, ready: &mut Ready) -> bool {
        let mut moved = false;
        let mut index = 0;
        while index < self.jobs.len() {
            if matches!(self.jobs[index].state, State::Waiting)
                && let Some(needs) = self.needs(index)
            {
                self.decide(index, &needs, planner, &mut ready.errors);
                moved = true;
            }
            self.start_legs(index, &mut ready.starts);
            moved |= self.start_calls(index);
            moved |= self.end_calls(index, planner, ready);
            index += 1;
        }
        moved
    }

    /// Takes the end of a leg; the legs returned are to be cancelled.
    pub(crate) fn end(&mut self, id: JobId, finished: &Finished, trace: Trace) -> Vec<JobId> {
        let found = self.jobs.iter_mut().find_map(|job| {
            let State::Running { running, .. } = &mut job.state else { return None };
            let position = running.iter().position(|leg| leg.id == id)?;
            Some((running.swap_remove(position), job))
        });
        let Some((leg, job)) = found else { return Vec::new() };
        let State::Running { waiting, running, limits, so_far } = &mut job.state else {
            return Vec::new();
        };
        let failed = finished.result == JobResult::Failure;
        let forgiven = failed && leg.continue_on_error && finished.infrastructure.is_none();
        let counted = if forgiven { JobResult::Success } else { finished.result };
        so_far.add(counted, &trace.outputs);
        self.reports.push(JobReport {
            id: Some(id),
            job: job.node.key.clone(),
            name: leg.name,
            matrix: leg.matrix,
            result: finished.result,
            failure_counts: !forgiven,
            infrastructure: finished.infrastructure.clone(),
            took_ms: trace.took_ms,
            phases_ms: trace.phases_ms,
            outputs: trace.outputs,
            kept: trace.kept,
        });
        let mut cancel = Vec::new();
        if failed && !forgiven && limits.fail_fast {
            for leg in std::mem::take(waiting) {
                so_far.add(JobResult::Cancelled, &BTreeMap::new());
                self.reports.push(unstarted(
                    &job.node.key,
                    leg.name,
                    leg.matrix,
                    JobResult::Cancelled,
                ));
            }
            cancel = running.iter().map(|leg| leg.id).collect();
        }
        if waiting.is_empty() && running.is_empty() {
            job.state = State::Over(so_far.clone());
        }
        cancel
    }

    /// Nothing that has not started will.
    pub(crate) fn cancel(&mut self) {
        self.cancelled = true;
        // Every key begins so; who runs the legs cancels all of them anyway.
        self.cancel_below("");
    }

    /// Every job and leg that is over, the result of the run, and its exit code.
    pub(crate) fn results(self) -> (Vec<JobReport>, JobResult, Exit) {
        let any = |wanted: fn(&JobReport) -> bool| self.reports.iter().any(wanted);
        let failed = any(|job| job.result == JobResult::Failure && job.failure_counts);
        let infrastructure = any(|job| job.infrastructure.is_some());
        let stopped = any(|job| job.result == JobResult::Cancelled);
        let (result, exit) = if self.cancelled {
            (JobResult::Cancelled, Exit::Cancelled)
        } else if infrastructure {
            (JobResult::Failure, Exit::Infrastructure)
        } else if self.mistaken {
            (JobResult::Failure, Exit::Usage)
        } else if failed {
            (JobResult::Failure, Exit::Failed)
        } else if stopped {
            (JobResult::Cancelled, Exit::Failed)
        } else {
            (JobResult::Success, Exit::Passed)
        };
        (self.reports, result, exit)
    }

    fn decide(
        &mut self,
        index: usize,
        needs: &Needs,
        planner: &mut dyn Planner,
        errors: &mut Vec<CommandError>,
    ) {
        let key = self.jobs[index].node.key.clone();
        self.jobs[index].state = match planner.decide(&key, needs) {
            Ok(Decision::Skip { name }) => {
                self.reports.push(unstarted(&key, name, Json::Null, JobResult::Skipped));
                State::Over(Merged::of(JobResult::Skipped))
            }
            Ok(Decision::Run(legs)) if legs.legs.is_empty() => {
                self.reports.push(unstarted(&key, key.clone(), Json::Null, JobResult::Skipped));
                State::Over(Merged::of(JobResult::Skipped))
            }
            Ok(Decision::Run(legs)) => State::Running {
                limits: Limits::of(&legs),
                waiting: legs.legs,
                running: Vec::new(),
                so_far: Merged::of(JobResult::Skipped),
            },
            Ok(Decision::Call(legs)) => State::Calling {
                limits: Limits::of(&legs),
                waiting: legs.legs,
                running: Vec::new(),
                so_far: Merged::of(JobResult::Skipped),
            },
            Err(error) => {
                self.mistaken |= error.exit() == Exit::Usage;
                errors.push(error);
                self.reports.push(unstarted(&key, key.clone(), Json::Null, JobResult::Failure));
                State::Over(Merged::of(JobResult::Failure))
            }
        };
    }

    fn start_legs(&mut self, index: usize, starts: &mut Vec<Start>) {
        let State::Running { waiting, running, limits, .. } = &mut self.jobs[index].state else {
            return;
        };
        let room = limits.max_parallel.saturating_sub(running.len()).min(waiting.len());
        for leg in waiting.drain(..room) {
            running.push(Running {
                id: leg.request.envelope.job,
                name: leg.name.clone(),
                matrix: leg.matrix,
                continue_on_error: leg.continue_on_error,
            });
            starts.push(Start { name: leg.name, request: leg.request });
        }
    }

    /// Adds the jobs of calls for which there is room; whether there were any.
    fn start_calls(&mut self, index: usize) -> bool {
        let State::Calling { waiting, running, limits, .. } = &mut self.jobs[index].state else {
            return false;
        };
        let room = limits.max_parallel.saturating_sub(running.len()).min(waiting.len());
        let started: Vec<Called> = waiting.drain(..room).collect();
        let nodes: Vec<Node> = started.iter().flat_map(|call| call.nodes.clone()).collect();
        running.extend(started);
        self.jobs.extend(nodes.into_iter().map(|node| Job { node, state: State::Waiting }));
        room > 0
    }

    /// Ends the calls of a job whose jobs are all over; whether there was one.
    fn end_calls(&mut self, index: usize, planner: &mut dyn Planner, ready: &mut Ready) -> bool {
        let State::Calling { running, limits, .. } = &self.jobs[index].state else { return false };
        let fail_fast = limits.fail_fast;
        let is_over = |call: &Called| call.nodes.iter().all(|node| self.over(&node.key).is_some());
        let Some(place) = running.iter().position(is_over) else { return false };
        let call = &running[place];
        let (mut merged, mut jobs) = (Merged::of(JobResult::Skipped), Map::new());
        for node in &call.nodes {
            let Some(over) = self.over(&node.key) else { continue };
            merged.add(over.result, &BTreeMap::new());
            let entry = json!({ "result": over.result.name(), "outputs": over.outputs });
            jobs.insert(own_key(&node.key).to_owned(), entry);
        }
        match planner.outputs(&call.prefix, &jobs) {
            Ok(outputs) => merged.outputs = outputs,
            Err(error) => {
                self.mistaken |= error.exit() == Exit::Usage;
                ready.errors.push(error);
                merged = Merged::of(JobResult::Failure);
            }
        }
        let failed = fail_fast && merged.result == JobResult::Failure;
        let State::Calling { waiting, running, so_far, .. } = &mut self.jobs[index].state else {
            return false;
        };
        running.remove(place);
        so_far.add(merged.result, &merged.outputs);
        let others: Vec<String> = if failed {
            if !std::mem::take(waiting).is_empty() {
                so_far.add(JobResult::Cancelled, &BTreeMap::new());
            }
            running.iter().map(|call| call.prefix.clone()).collect()
        } else {
            Vec::new()
        };
        if waiting.is_empty() && running.is_empty() {
            self.jobs[index].state = State::Over(so_far.clone());
        }
        for prefix in others {
            ready.cancel.extend(self.cancel_below(&prefix));
        }
        true
    }

    /// Nothing of a call that has not started will; the legs that run are to be cancelled.
    fn cancel_below(&mut self, prefix: &str) -> Vec<JobId> {
        let mut ids = Vec::new();
        for job in self.jobs.iter_mut().filter(|job| job.node.key.starts_with(prefix)) {
            let key = job.node.key.clone();
            let cancelled =
                |name: String, matrix: Json| unstarted(&key, name, matrix, JobResult::Cancelled);
            match &mut job.state {
                State::Waiting => {
                    self.reports.push(cancelled(key.clone(), Json::Null));
                    job.state = State::Over(Merged::of(JobResult::Cancelled));
                }
                State::Running { waiting, running, so_far, .. } => {
                    for leg in std::mem::take(waiting) {
                        so_far.add(JobResult::Cancelled, &BTreeMap::new());
                        self.reports.push(cancelled(leg.name, leg.matrix));
                    }
                    ids.extend(running.iter().map(|leg| leg.id));
                    if running.is_empty() {
                        job.state = State::Over(so_far.clone());
                    }
                }
                State::Calling { waiting, so_far, .. } => {
                    if !std::mem::take(waiting).is_empty() {
                        so_far.add(JobResult::Cancelled, &BTreeMap::new());
                    }
                }
                State::Over(_) => {}
            }
        }
        ids
    }

    /// How the jobs before this one ended; `None` while one of them is not over.
    fn needs(&self, index: usize) -> Option<Needs> {
        let mut needs = Needs::default();
        for key in &self.jobs[index].node.needs {
            let merged = self.over(key)?;
            let entry = json!({ "result": merged.result.name(), "outputs": merged.outputs });
            needs.context.insert(own_key(key).to_owned(), entry);
        }
        let mut open: Vec<&str> = self.jobs[index].node.needs.iter().map(String::as_str).collect();
        while let Some(key) = open.pop() {
            if needs.results.contains_key(own_key(key)) {
                continue;
            }
            needs.results.insert(own_key(key).to_owned(), self.over(key)?.result);
            if let Some(job) = self.jobs.iter().find(|job| job.node.key == key) {
                open.extend(job.node.needs.iter().map(String::as_str));
            }
        }
        Some(needs)
    }

    fn over(&self, key: &str) -> Option<&Merged> {
        let job = self.jobs.iter().find(|job| job.node.key == key)?;
        match &job.state {
            State::Over(merged) => Some(merged),
            _ => None,
        }
    }
}

/// The key of a job in its own workflow: what stands behind the prefix of the call.
pub(crate) fn own_key(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, own)| own)
}

/// The report of something that no host was given.
fn unstarted(key: &str, name: String, matrix: Json, result: JobResult) -> JobReport {
    JobReport {
        id: None,
        job: key.to_owned(),
        name,
        matrix,
        result,
        failure_counts: true,
        infrastructure: None,
        took_ms: 0,
        phases_ms: Vec::new(),
        outputs: BTreeMap::new(),
        kept: None,
    }
}
