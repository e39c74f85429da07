//! Which jobs a runner gets (forgejo-runner-protocol 4).

use connectrpc::ConnectError;
use forgejo_proto::runner::{
    FetchSingleTaskRequest, FetchSingleTaskResponse, FetchTaskRequest, FetchTaskResponse,
    Task as Message,
};

use super::calls::Conduct;
use super::log::Log;
use super::state::{Job, Runner, State, Step, Task, hexadecimal};
use super::status::Status;

impl State {
    /// Answers `FetchTask`.
    pub(super) fn fetch_task(
        &mut self,
        runner: i64,
        key: Option<&str>,
        request: &FetchTaskRequest,
    ) -> FetchTaskResponse {
        let recovered = self.recover(runner, key);
        if !recovered.is_empty() {
            // No version: the runner has to look again (forgejo-runner-protocol 4.4).
            return self.fetched(recovered, 0);
        }
        let version = self.version_for(runner);
        if request.tasks_version == version {
            return self.fetched(Vec::new(), version);
        }
        let capacity =
            if self.profile.has_capacity() { request.task_capacity.unwrap_or(1) } else { 1 };
        let mut tasks = Vec::new();
        for _ in 0..capacity.max(1) {
            let Some(task) = self.assign(runner, None, key) else { break };
            tasks.push(task);
        }
        self.fetched(tasks, version)
    }

    /// Answers `FetchSingleTask`.
    ///
    /// # Errors
    /// Several tasks were handed out under the key.
    pub(super) fn fetch_single_task(
        &mut self,
        runner: i64,
        key: Option<&str>,
        request: &FetchSingleTaskRequest,
    ) -> Result<FetchSingleTaskResponse, ConnectError> {
        let answer = |task: Option<Message>, tasks_version| FetchSingleTaskResponse {
            tasks_version,
            task: task.into(),
            ..FetchSingleTaskResponse::default()
        };
        let mut recovered = self.recover(runner, key);
        if recovered.len() > 1 {
            return Err(ConnectError::internal("several tasks have this request key"));
        }
        if let Some(task) = recovered.pop() {
            return Ok(answer(Some(task), 0));
        }
        let version = self.version_for(runner);
        if request.tasks_version == version {
            return Ok(answer(None, version));
        }
        let handle = request.handle.as_deref().filter(|handle| !handle.is_empty());
        Ok(answer(self.assign(runner, handle, key), version))
    }

    fn version_for(&self, runner: i64) -> i64 {
        self.runners.get(&runner).map_or(1, |runner| self.version(&runner.scope))
    }

    fn fetched(&self, mut tasks: Vec<Message>, tasks_version: i64) -> FetchTaskResponse {
        let leave_out = self.profile.leaves_first_task_out() && tasks.len() > 1;
        let first = if tasks.is_empty() || leave_out { None } else { Some(tasks.remove(0)) };
        FetchTaskResponse {
            task: first.into(),
            tasks_version,
            additional_tasks: tasks,
            ..FetchTaskResponse::default()
        }
    }

    /// The tasks that were made under a request key, with new tokens. Their state does not matter
    /// (forgejo-runner-protocol 4.4).
    fn recover(&mut self, runner: i64, key: Option<&str>) -> Vec<Message> {
        let Some(key) = key.filter(|_| self.profile.has_request_key()) else { return Vec::new() };
        let found: Vec<_> = self
            .tasks
            .values()
            .filter(|task| task.runner == runner && task.request_key.as_deref() == Some(key))
            .map(|task| task.id)
            .collect();
        for id in &found {
            let runtime_token = self.tasks.get(id).and_then(|task| {
                self.runtime_token(task.id, self.jobs.get(&task.job)?, task.attempt)
            });
            if let Some(task) = self.tasks.get_mut(id) {
                task.token = hexadecimal();
                task.runtime_token = runtime_token.unwrap_or_default();
                task.hidden.extend([task.token.clone(), task.runtime_token.clone()]);
            }
        }
        found.iter().filter_map(|id| self.message(self.tasks.get(id)?)).collect()
    }

    /// Gives the runner its next job, or the one of a handle.
    fn assign(&mut self, runner: i64, handle: Option<&str>, key: Option<&str>) -> Option<Message> {
        let runner = self.runners.get(&runner)?;
        // One task in its life (forgejo-runner-protocol 3.7).
        if runner.ephemeral && self.tasks.values().any(|task| task.runner == runner.id) {
            return None;
        }
        let job = self.next_job(runner, handle)?.clone();
        let (runner_id, runner_uuid) = (runner.id, runner.uuid.clone());
        let id = self.new_id();
        let now = self.clock.now();
        let token = hexadecimal();
        let runtime_token = self.runtime_token(id, &job, job.attempt)?;
        let mut hidden: Vec<_> = self.secrets(self.runs.get(&job.run)?).into_values().collect();
        hidden.extend([token.clone(), runtime_token.clone()]);
        hidden.retain(|secret| !secret.is_empty());
        let steps: Vec<_> = job.titles.iter().cloned().map(Step::new).collect();
        let conduct = Conduct { steps: vec![None; steps.len()], ..Conduct::default() };
        let task = Task {
            id,
            job: job.id,
            run: job.run,
            attempt: job.attempt,
            runner: runner_id,
            runner_uuid,
            status: Status::Running,
            // VM boot counts into the job's time (forgejo-runner-protocol 4.2).
            started: now,
            stopped: None,
            updated: now,
            steps,
            log: Log::default(),
            outputs: Default::default(),
            token,
            runtime_token,
            hidden,
            request_key: key.map(str::to_owned),
            conduct,
        };
        self.tasks.insert(id, task);
        let job = self.jobs.get_mut(&job.id)?;
        job.status = Status::Running;
        job.task = Some(id);
        job.updated = now;
        self.message(self.tasks.get(&id)?)
    }

    /// The first job that waits for a runner with these labels: by the run's priority, then by how long
    /// it waits in whole seconds, then by id.
    fn next_job(&self, runner: &Runner, handle: Option<&str>) -> Option<&Job> {
        let fits = |job: &&Job| {
            job.status == Status::Waiting
                && job.task.is_none()
                && matches(&job.runs_on, &runner.labels)
                && handle.is_none_or(|handle| job.handle == handle)
                && self.runs.get(&job.run).is_some_and(|run| runner.scope.covers(&run.repository))
                && !self.is_held(job.run)
        };
        let order = |job: &&Job| {
            let priority = self.runs.get(&job.run).map_or(0, |run| run.priority);
            let since = job.updated.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            (-priority, since.as_secs(), job.id)
        };
        self.jobs.values().filter(fits).min_by_key(order)
    }
}

/// Whether a runner has all labels of a job; nothing on either side never fits
/// (forgejo-runner-protocol 4.2).
pub(super) fn matches(runs_on: &[String], labels: &[String]) -> bool {
    !runs_on.is_empty() && !labels.is_empty() && runs_on.iter().all(|label| labels.contains(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_match_exactly() {
        let cases: &[(&[&str], &[&str], bool)] = &[
            (&["a"], &["a"], true),
            (&["a"], &["a", "b"], true),
            (&["a", "b"], &["a"], false),
            (&["A"], &["a"], false),
            (&[], &["a"], false),
            (&["a"], &[], false),
        ];
        for (runs_on, labels, expected) in cases {
            let [runs_on, labels] = [runs_on, labels]
                .map(|all| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
            assert_eq!(matches(&runs_on, &labels), *expected, "{runs_on:?} {labels:?}");
        }
    }
}
