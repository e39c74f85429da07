//! What a user sees (forgejo-runner-protocol 8.1).

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use super::log::Row;
use super::state::{Job, State, Step, Task};
use super::status::Status;
use super::trigger::RunId;

/// The title before the first step.
pub(super) const SET_UP: &str = "Set up job";

/// The title after the last step.
pub(super) const COMPLETE: &str = "Complete job";

/// A run as a page shows it.
#[derive(Clone, Debug)]
pub struct RunView {
    /// Which run.
    pub id: RunId,
    /// Its number in the repository.
    pub number: i64,
    /// How often it was started, from 1.
    pub attempt: i64,
    /// The status of all its jobs together.
    pub status: Status,
    /// Its jobs in order.
    pub jobs: Vec<JobView>,
}

/// A job as a page shows it.
#[derive(Clone, Debug)]
pub struct JobView {
    /// What the REST API calls it.
    pub id: i64,
    /// Its key in the file.
    pub key: String,
    /// Its name, with the values of its matrix.
    pub name: String,
    /// How far it is.
    pub status: Status,
    /// Which attempt of the run this is.
    pub attempt: i64,
    /// The task of it, when a runner has it or had it.
    pub task_id: Option<i64>,
    /// What `FetchSingleTask` calls this attempt.
    pub handle: String,
    /// The uuid of its runner.
    pub runner: Option<String>,
    /// When it ended, as its runner said.
    pub stopped: Option<SystemTime>,
    /// `Set up job`, its steps, `Complete job`; nothing before a runner has it.
    pub steps: Vec<StepView>,
    /// Its outputs.
    pub outputs: BTreeMap<String, String>,
    /// All rows of its log.
    pub rows: Vec<Row>,
    /// Whether the log was closed.
    pub log_closed: bool,
}

/// A step as a page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepView {
    /// Its title.
    pub title: String,
    /// How far it is.
    pub status: Status,
    /// When it began.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub stopped: Option<SystemTime>,
    /// The number of its first row.
    pub index: i64,
    /// How many rows it has, as its offsets say.
    pub length: i64,
    /// The rows that are there.
    pub rows: Vec<Row>,
}

impl RunView {
    /// A job by its name or key.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn job(&self, name: &str) -> &JobView {
        self.find(name).unwrap_or_else(|| panic!("the run has no job {name:?}:\n{self}"))
    }

    /// A job by its name or key, if there is one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&JobView> {
        let named = self.jobs.iter().find(|job| job.name == name);
        named.or_else(|| self.jobs.iter().find(|job| job.key == name))
    }
}

impl JobView {
    /// A step by its title.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn step(&self, title: &str) -> &StepView {
        let found = self.steps.iter().find(|step| step.title == title);
        found.unwrap_or_else(|| panic!("the job has no step {title:?}:\n{self}"))
    }

    /// The text of every row of the log.
    #[must_use]
    pub fn log(&self) -> Vec<&str> {
        self.rows.iter().map(|row| row.text.as_str()).collect()
    }
}

impl StepView {
    /// The text of its rows.
    #[must_use]
    pub fn lines(&self) -> Vec<&str> {
        self.rows.iter().map(|row| row.text.as_str()).collect()
    }
}

impl fmt::Display for RunView {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "run {} attempt {}: {}", self.id, self.attempt, self.status)?;
        self.jobs.iter().try_for_each(|job| job.fmt(formatter))
    }
}

impl fmt::Display for JobView {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = if self.log_closed { "closed" } else { "open" };
        let (name, status, rows) = (&self.name, self.status, self.rows.len());
        writeln!(
            formatter,
            "  job {name:?} [{}]: {status}, task {:?}, {rows} rows, log {closed}",
            self.key, self.task_id
        )?;
        if !self.outputs.is_empty() {
            writeln!(formatter, "    outputs {:?}", self.outputs)?;
        }
        for step in &self.steps {
            let StepView { title, status, index, length, .. } = step;
            writeln!(formatter, "    {status:9} {title:?} {index}+{length}")?;
            for line in step.lines() {
                writeln!(formatter, "      | {line}")?;
            }
        }
        Ok(())
    }
}

/// What the page computes from the step rows: `Set up job`, the steps, `Complete job`.
pub(super) fn full_steps(task: &Task) -> Vec<Step> {
    let log = task.log.length();
    let mut set_up = Step {
        status: task.status,
        started: Some(task.started),
        stopped: task.stopped,
        length: log,
        ..Step::new(SET_UP.to_owned())
    };
    let mut complete = Step::new(COMPLETE.to_owned());
    let Some(last) = task.steps.last() else {
        complete.index = log;
        (complete.started, complete.stopped) = (task.stopped, task.stopped);
        complete.status = match task.status {
            Status::Success => Status::Success,
            Status::Skipped => Status::Skipped,
            done if done.is_done() => Status::Cancelled,
            _ => Status::Waiting,
        };
        return vec![set_up, complete];
    };
    let first =
        task.steps.iter().find(|step| step.status.has_run() || step.status == Status::Running);
    if let Some(first) = first {
        set_up.status = Status::Success;
        set_up.stopped = first.started;
        set_up.length = first.index;
    }
    let latest = task.steps.iter().rev().find(|step| step.status.has_run());
    let (failed, stopped) = match latest {
        Some(step) => (step.status == Status::Failure, step.stopped),
        None => (set_up.status == Status::Failure, set_up.stopped),
    };
    if failed || latest.is_some_and(|step| std::ptr::eq(step, last)) {
        complete.index = set_up.length + task.steps.iter().map(|step| step.length).sum::<i64>();
        complete.length = (log - complete.index).max(0);
        complete.started = stopped;
        complete.status = Status::Running;
    }
    if task.status.is_done() {
        complete.status = task.status;
        complete.stopped = task.stopped;
    }
    let mut steps = vec![set_up];
    steps.extend(task.steps.iter().cloned());
    steps.push(complete);
    steps
}

impl State {
    /// A run at its newest attempt, or at an older one.
    pub(super) fn view(&self, run: RunId, attempt: Option<i64>) -> Option<RunView> {
        let of = self.runs.get(&run.0)?;
        let attempt = attempt.unwrap_or(of.attempt);
        let jobs: Vec<_> = self.jobs_of(of.id).map(|job| self.job_view(job, attempt)).collect();
        let status = Status::of_all(jobs.iter().map(|job| job.status));
        Some(RunView { id: run, number: of.number, attempt, status, jobs })
    }

    fn job_view(&self, job: &Job, attempt: i64) -> JobView {
        let mut tasks = self.tasks.values();
        let task = tasks.find(|task| task.job == job.id && task.attempt == attempt);
        // What nobody ran in an older attempt is not kept.
        let status = if job.attempt == attempt { job.status } else { Status::Skipped };
        let status = task.map_or(status, |task| task.status);
        JobView {
            id: job.id,
            key: job.key.clone(),
            name: job.name.clone(),
            status,
            attempt,
            task_id: task.map(|task| task.id),
            handle: job.handle.clone(),
            runner: task.map(|task| task.runner_uuid.clone()),
            stopped: task.and_then(|task| task.stopped),
            steps: task.map(steps).unwrap_or_default(),
            outputs: task.map(|task| task.outputs.clone()).unwrap_or_default(),
            rows: task.map(|task| task.log.rows.clone()).unwrap_or_default(),
            log_closed: task.is_some_and(|task| task.log.archived),
        }
    }
}

fn steps(task: &Task) -> Vec<StepView> {
    let view = |step: Step| StepView {
        rows: task.log.slice(step.index, step.length).to_vec(),
        title: step.title,
        status: step.status,
        started: step.started,
        stopped: step.stopped,
        index: step.index,
        length: step.length,
    };
    full_steps(task).into_iter().map(view).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::forgejo::task::tests::task;

    /// Status, first row, rows, start and end in seconds; 0 is not set.
    type Shown = (Status, i64, i64, u64, u64);

    fn second(seconds: u64) -> Option<SystemTime> {
        (seconds > 0).then(|| UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[track_caller]
    fn check(
        name: &str,
        status: Status,
        steps: &[Shown],
        stopped: u64,
        log: usize,
        expected: &[Shown],
    ) {
        let mut task = task(0);
        task.status = status;
        task.started = UNIX_EPOCH + Duration::from_secs(if log > 0 { 10_000 } else { 0 });
        task.stopped = second(stopped);
        task.log.rows = vec![Row { time: UNIX_EPOCH, text: String::new() }; log];
        task.steps = steps
            .iter()
            .map(|(status, index, length, started, stopped)| Step {
                title: String::new(),
                status: *status,
                index: *index,
                length: *length,
                started: second(*started),
                stopped: second(*stopped),
            })
            .collect();
        let seconds = |time: Option<SystemTime>| {
            time.map_or(0, |time| time.duration_since(UNIX_EPOCH).unwrap().as_secs())
        };
        let shown: Vec<_> = full_steps(&task)
            .iter()
            .map(|step| {
                (step.status, step.index, step.length, seconds(step.started), seconds(step.stopped))
            })
            .collect();
        assert_eq!(shown, expected, "{name}");
    }

    #[test]
    fn the_page_shows_set_up_steps_and_completion() {
        use Status::{Cancelled, Failure, Running, Skipped, Success, Waiting};
        const SET_UP: Shown = (Success, 0, 10, 10_000, 10_010);
        const OPEN: Shown = (Cancelled, 0, 0, 0, 0);
        const NOT_RUN: Shown = (Skipped, 0, 0, 0, 0);
        let one = (Success, 10, 80, 10_010, 10_090);
        let done = (Success, 90, 10, 10_090, 10_100);
        check("regular", Success, &[one], 10_100, 100, &[SET_UP, one, done]);
        let first = (Success, 10, 20, 10_010, 10_020);
        let failed = (Failure, 30, 60, 10_020, 10_090);
        let end = (Failure, 90, 10, 10_090, 10_100);
        let steps = [first, failed, OPEN];
        check("failed step", Failure, &steps, 10_100, 100, &[SET_UP, first, failed, OPEN, end]);
        let running = (Running, 10, 80, 10_010, 0);
        let later = (Waiting, 0, 0, 0, 0);
        check("first step running", Running, &[running], 10_100, 100, &[SET_UP, running, later]);
        let all = (Failure, 0, 100, 10_000, 10_100);
        let nothing = (Failure, 100, 0, 10_100, 10_100);
        check("cancelled steps", Failure, &[OPEN], 10_100, 100, &[all, OPEN, nothing]);
        let all = (Success, 0, 100, 10_000, 10_100);
        check("no steps", Success, &[], 10_100, 100, &[all, (Success, 100, 0, 10_100, 10_100)]);
        let completing = (Running, 90, 10, 10_090, 0);
        check("all steps done", Running, &[one], 0, 100, &[SET_UP, one, completing]);
        check("skipped task", Skipped, &[NOT_RUN], 0, 0, &[NOT_RUN, NOT_RUN, NOT_RUN]);
        let steps = [NOT_RUN, one];
        check("first step skipped", Success, &steps, 10_100, 100, &[SET_UP, NOT_RUN, one, done]);
        check("skipped without steps", Skipped, &[], 0, 0, &[NOT_RUN, NOT_RUN]);
    }
}
