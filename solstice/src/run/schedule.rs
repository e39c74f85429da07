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
    Run(Legs),
}

/// The legs of a job's matrix, or the one leg of a job without one.
#[derive(Debug)]
pub(crate) struct Legs {
    /// In the order of the matrix.
    pub(crate) legs: Vec<Leg>,
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
    Over(Merged),
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    fail_fast: bool,
    max_parallel: usize,
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
    ///
    /// # Errors
    /// Those of the planner, each with the key of its job; that job has failed then.
    pub(crate) fn start_ready(
        &mut self,
        planner: &mut dyn Planner,
    ) -> (Vec<Start>, Vec<CommandError>) {
        let mut starts = Vec::new();
        let mut errors = Vec::new();
        // One pass is enough for skipped jobs in a row: each stands behind those that it needs.
        for index in 0..self.jobs.len() {
            if matches!(self.jobs[index].state, State::Waiting)
                && let Some(needs) = self.needs(index)
            {
                self.decide(index, &needs, planner, &mut errors);
            }
            self.start_legs(index, &mut starts);
        }
        (starts, errors)
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
        for job in &mut self.jobs {
            match &mut job.state {
                State::Waiting => {
                    let key = &job.node.key;
                    let cancelled = JobResult::Cancelled;
                    self.reports.push(unstarted(key, key.clone(), Json::Null, cancelled));
                    job.state = State::Over(Merged::of(cancelled));
                }
                State::Running { waiting, running, so_far, .. } => {
                    for leg in std::mem::take(waiting) {
                        so_far.add(JobResult::Cancelled, &BTreeMap::new());
                        let cancelled = JobResult::Cancelled;
                        self.reports.push(unstarted(
                            &job.node.key,
                            leg.name,
                            leg.matrix,
                            cancelled,
                        ));
                    }
                    if running.is_empty() {
                        job.state = State::Over(so_far.clone());
                    }
                }
                State::Over(_) => {}
            }
        }
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
                limits: Limits {
                    fail_fast: legs.fail_fast,
                    max_parallel: legs.max_parallel.unwrap_or(usize::MAX).max(1),
                },
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

    /// How the jobs before this one ended; `None` while one of them is not over.
    fn needs(&self, index: usize) -> Option<Needs> {
        let mut needs = Needs::default();
        for key in &self.jobs[index].node.needs {
            let merged = self.over(key)?;
            let entry = json!({ "result": merged.result.name(), "outputs": merged.outputs });
            needs.context.insert(key.clone(), entry);
        }
        let mut open: Vec<&str> = self.jobs[index].node.needs.iter().map(String::as_str).collect();
        while let Some(key) = open.pop() {
            if needs.results.contains_key(key) {
                continue;
            }
            needs.results.insert(key.to_owned(), self.over(key)?.result);
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
