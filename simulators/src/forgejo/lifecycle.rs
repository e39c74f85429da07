//! How jobs start, end and let each other start.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::context;
use super::expression::{Scope as Expressions, Unknown};
use super::state::{Job, Run, State};
use super::status::Status;
use super::workflow::{Draft, Source};

impl State {
    /// Adds the jobs of a new run and starts those that need nobody.
    ///
    /// # Errors
    /// The file has something that the simulator does not play.
    pub(super) fn start(&mut self, run: Run) -> Result<(), String> {
        let id = run.id;
        let scope = self.expressions(&run);
        let mut drafts = Vec::new();
        for source in &run.workflow.jobs {
            if self.profile.expands_reusable() && source.is_expandable_call() {
                return Err(format!(
                    "job {:?} calls a workflow, which is not simulated",
                    source.key
                ));
            }
            match run.workflow.expand(source, &scope) {
                Ok(expanded) => drafts.push((source.clone(), Some(expanded))),
                // Labels or matrix depend on what other jobs say (forgejo-runner-protocol 7.2).
                Err(Unknown(text))
                    if text.contains("needs.")
                        && !source.needs.is_empty()
                        && self.profile.has_concurrency() =>
                {
                    drafts.push((source.clone(), None));
                }
                Err(Unknown(text)) => {
                    return Err(format!("job {:?}: `{text}` is not simulated", source.key));
                }
            }
        }
        self.runs.insert(id, run);
        for (source, expanded) in drafts {
            let drafts = expanded
                .map_or_else(|| vec![None], |expanded| expanded.into_iter().map(Some).collect());
            for draft in drafts {
                self.add_job(id, &source, draft);
            }
        }
        self.supersede(id);
        self.release(id);
        Ok(())
    }

    fn add_job(&mut self, run: i64, source: &Source, draft: Option<Draft>) {
        let id = self.new_id();
        let incomplete = draft.is_none();
        let draft = draft.unwrap_or_else(|| Draft {
            name: source.key.clone(),
            runs_on: Vec::new(),
            payload: String::new(),
            titles: Vec::new(),
        });
        let job = Job {
            id,
            run,
            key: source.key.clone(),
            name: draft.name,
            runs_on: draft.runs_on,
            payload: draft.payload,
            titles: draft.titles,
            needs: source.needs.clone(),
            condition: source.condition.clone(),
            status: Status::Blocked,
            task: None,
            attempt: self.runs.get(&run).map_or(1, |run| run.attempt),
            handle: handle(),
            updated: self.clock.now(),
            incomplete,
        };
        self.jobs.insert(id, job);
    }

    /// What the server's expressions see of a run.
    pub(super) fn expressions(&self, run: &Run) -> Expressions {
        let variables = self.variables(&run.repository);
        Expressions::default()
            .with("github", Value::Object(context::of_run(self, run)))
            .with("vars", json!(variables))
            .with("inputs", run.origin.inputs.clone())
    }

    /// Ends older runs of the group if the new one says so.
    fn supersede(&mut self, run: i64) {
        let Some(new) = self.runs.get(&run).filter(|_| self.profile.has_concurrency()) else {
            return;
        };
        let Some(concurrency) = new.concurrency.clone().filter(|concurrency| concurrency.cancel)
        else {
            return;
        };
        for older in self.older_of_group(run, &concurrency.group) {
            self.cancel(older);
        }
    }

    /// Runs of the same repository and group that began before and have not ended.
    fn older_of_group(&self, run: i64, group: &str) -> Vec<i64> {
        let repository = self.runs.get(&run).map(|run| run.repository.as_str());
        let older = self.runs.range(..run).filter(|(_, other)| {
            Some(other.repository.as_str()) == repository
                && other.concurrency.as_ref().is_some_and(|concurrency| concurrency.group == group)
        });
        older.map(|(id, _)| *id).filter(|id| !self.status_of(*id).is_done()).collect()
    }

    /// Whether a concurrency queue holds the jobs of a run back.
    pub(super) fn is_held(&self, run: i64) -> bool {
        self.profile.has_concurrency()
            && self
                .runs
                .get(&run)
                .and_then(|run| run.concurrency.as_ref())
                .is_some_and(|concurrency| !self.older_of_group(run, &concurrency.group).is_empty())
    }

    /// Lets those jobs wait for a runner, or skips them, whose needs have all ended.
    pub(super) fn release(&mut self, run: i64) {
        loop {
            let blocked: Vec<_> = self
                .jobs_of(run)
                .filter(|job| job.status == Status::Blocked)
                .filter_map(|job| Some((job.id, self.needs_of(job)?)))
                .collect();
            if blocked.is_empty() {
                return;
            }
            for (job, needs) in blocked {
                self.decide(job, needs.into_iter().map(|(_, status)| status).collect());
            }
        }
    }

    /// How the needed jobs ended, each with all its legs; nothing while one has not.
    pub(super) fn needs_of(&self, job: &Job) -> Option<Vec<(String, Status)>> {
        job.needs
            .iter()
            .map(|need| {
                let legs = self.jobs_of(job.run).filter(|job| job.key == *need);
                let status = Status::of_all(legs.map(|job| job.status));
                status.is_done().then(|| (need.clone(), status))
            })
            .collect()
    }

    /// Outputs of a needed job; of several legs the last one that is not empty counts.
    pub(super) fn outputs_of(&self, run: i64, key: &str) -> Vec<(String, String)> {
        let mut outputs: Vec<(String, String)> = Vec::new();
        for job in self.jobs_of(run).filter(|job| job.key == key) {
            let Some(task) = job.task.and_then(|task| self.tasks.get(&task)) else { continue };
            for (name, value) in &task.outputs {
                match outputs.iter_mut().find(|(known, _)| known == name) {
                    Some((_, known)) if !value.is_empty() => known.clone_from(value),
                    Some(_) => {}
                    None => outputs.push((name.clone(), value.clone())),
                }
            }
        }
        outputs
    }

    /// Whether a job that nothing holds any more goes to a runner (forgejo-runner-protocol 7.3).
    fn decide(&mut self, id: i64, needs: Vec<Status>) {
        let Some(job) = self.jobs.get(&id).cloned() else { return };
        let Some(run) = self.runs.get(&job.run) else { return };
        let succeeded = needs.iter().all(|status| *status == Status::Success);
        let scope = Expressions { needs, ..self.expressions(run) };
        let scope = scope.with("needs", self.needs_context(&job));
        let runs = if self.profile.evaluates_if() {
            let condition = job.condition.as_deref().unwrap_or("success()");
            // What the server cannot tell the runner has to.
            scope.condition(condition).unwrap_or(true)
        } else {
            succeeded || job.condition.is_some()
        };
        if !runs {
            self.end_job(id, Status::Skipped);
            return;
        }
        if job.incomplete {
            let source = run.workflow.jobs.iter().find(|source| source.key == job.key).cloned();
            let expanded = source.as_ref().map(|source| run.workflow.expand(source, &scope));
            let (Some(source), Some(Ok(expanded))) = (source, expanded) else {
                self.end_job(id, Status::Failure);
                return;
            };
            self.jobs.remove(&id);
            for draft in expanded {
                let leg = self.last_id + 1;
                self.add_job(job.run, &source, Some(draft));
                self.wait(leg);
            }
            return;
        }
        self.wait(id);
    }

    fn needs_context(&self, job: &Job) -> Value {
        let needs = self.needs_of(job).unwrap_or_default().into_iter().map(|(key, status)| {
            let outputs: Map<String, Value> = self
                .outputs_of(job.run, &key)
                .into_iter()
                .map(|(name, value)| (name, Value::String(value)))
                .collect();
            (key, json!({"result": status.name(), "outputs": outputs}))
        });
        Value::Object(needs.collect())
    }

    fn wait(&mut self, id: i64) {
        let now = self.clock.now();
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.status = Status::Waiting;
        job.updated = now;
        let run = job.run;
        if let Some(repository) = self.runs.get(&run).map(|run| run.repository.clone()) {
            self.raise_versions(&repository);
        }
    }

    /// Sets the last status of a job.
    pub(super) fn end_job(&mut self, id: i64, status: Status) {
        let now = self.clock.now();
        if let Some(job) = self.jobs.get_mut(&id) {
            job.status = status;
            job.updated = now;
        }
    }

    /// What follows when a task has its last status, which its job takes.
    pub(super) fn task_ended(&mut self, task: i64) {
        let Some(task) = self.tasks.get(&task) else { return };
        let (job, run, runner, status) = (task.job, task.run, task.runner, task.status);
        // A job that was started anew has another task.
        if self.jobs.get(&job).is_some_and(|job| job.task == Some(task.id)) {
            self.end_job(job, status);
        }
        self.release(run);
        // A finished task may let a run of the same group go (forgejo-runner-protocol 4.1).
        if self.profile.has_concurrency()
            && let Some(repository) = self.runs.get(&run).map(|run| run.repository.clone())
        {
            self.raise_versions(&repository);
        }
        if self.runners.get(&runner).is_some_and(|runner| runner.ephemeral) {
            self.runners.remove(&runner);
        }
    }

    /// Ends a task from the server's side; open steps get the same status (forgejo-runner-protocol 6.3).
    pub(super) fn stop_task(&mut self, id: i64, status: Status, archive: bool) {
        let now = self.clock.now();
        let Some(task) = self.tasks.get_mut(&id).filter(|task| !task.status.is_done()) else {
            return;
        };
        task.status = status;
        task.stopped = Some(now);
        task.updated = now;
        for step in task.steps.iter_mut().filter(|step| !step.status.is_done()) {
            step.status = status;
        }
        task.log.archived |= archive;
        self.task_ended(id);
    }

    /// Cancels what of a run has not ended.
    pub(super) fn cancel(&mut self, run: i64) {
        // Those that wait first, so that nothing is let go by the end of the others.
        let open: Vec<_> = self
            .jobs_of(run)
            .filter(|job| !job.status.is_done())
            .map(|job| (job.id, job.task))
            .collect();
        for (job, _) in open.iter().filter(|(_, task)| task.is_none()) {
            self.end_job(*job, Status::Cancelled);
        }
        for (_, task) in open {
            if let Some(task) = task {
                self.stop_task(task, Status::Cancelled, false);
            }
        }
        if let Some(repository) = self.runs.get(&run).map(|run| run.repository.clone())
            && self.profile.has_concurrency()
        {
            self.raise_versions(&repository);
        }
    }

    /// Runs all jobs of an ended run again.
    pub(super) fn rerun(&mut self, id: i64) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.attempt += 1;
        let attempt = run.attempt;
        for job in self.jobs.values_mut().filter(|job| job.run == id) {
            job.status = Status::Blocked;
            job.attempt = attempt;
            job.task = None;
            job.handle = handle();
        }
        self.release(id);
    }

    /// What waited or was blocked since before this is cancelled.
    pub(super) fn abandon(&mut self, before: SystemTime) {
        let open = [Status::Waiting, Status::Blocked];
        let abandoned: Vec<_> = self
            .jobs
            .values()
            .filter(|job| open.contains(&job.status) && job.updated < before)
            .map(|job| (job.id, job.run))
            .collect();
        for (job, run) in abandoned {
            self.end_job(job, Status::Cancelled);
            self.release(run);
        }
    }
}

/// The handle of an attempt, which nobody can guess.
fn handle() -> String {
    uuid::Uuid::new_v4().to_string()
}
