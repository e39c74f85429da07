//! A client that does what a test says, right or wrong.

use std::time::Duration;

use connectrpc::client::{CallOptions, ClientConfig, HttpClient};
use connectrpc::{ConnectError, Protocol};
use forgejo_proto::protobuf::Timestamp;
use forgejo_proto::runner::{
    DeclareRequest, FetchSingleTaskRequest, FetchSingleTaskResponse, FetchTaskRequest,
    FetchTaskResponse, LogRow, RunnerServiceClient, StepState, Task, TaskResult, TaskState,
    UpdateLogRequest, UpdateTaskRequest, UpdateTaskResponse,
};
use simulators::forgejo::{Forge, Identity, Scope};

/// How long a test waits for what happens at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A workflow of one job with two steps.
pub(crate) const ONE: &str = "
jobs:
  one:
    runs-on: vm
    steps:
      - name: build
        run: make
      - run: make test
";

/// A runner, or somebody who has its identity.
#[derive(Clone)]
pub(crate) struct Client {
    calls: RunnerServiceClient<HttpClient>,
    pub(crate) identity: Identity,
}

pub(crate) fn config(forge: &Forge) -> ClientConfig {
    let base = format!("{}/api/actions", forge.url());
    ClientConfig::new(base.parse().unwrap()).with_protocol(Protocol::Connect)
}

impl Client {
    pub(crate) fn new(forge: &Forge, identity: Identity) -> Self {
        Self::with(config(forge).proto(), identity)
    }

    pub(crate) fn json(forge: &Forge, identity: Identity) -> Self {
        Self::with(config(forge).json(), identity)
    }

    fn with(config: ClientConfig, identity: Identity) -> Self {
        let config = config
            .with_default_header("x-runner-uuid", identity.uuid.clone())
            .with_default_header("x-runner-token", identity.token.clone());
        Self { calls: RunnerServiceClient::new(HttpClient::plaintext(), config), identity }
    }

    /// A runner for everything that has the label `vm`.
    pub(crate) async fn declared(forge: &Forge) -> Self {
        Self::declared_as(forge, forge.create_runner("one", Scope::Global), &["vm"]).await
    }

    pub(crate) async fn declared_as(forge: &Forge, identity: Identity, labels: &[&str]) -> Self {
        let client = Self::new(forge, identity);
        client.declare(labels).await.unwrap();
        client
    }

    pub(crate) async fn declare(&self, labels: &[&str]) -> Result<bool, ConnectError> {
        let request = DeclareRequest {
            version: "test".to_owned(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            ..DeclareRequest::default()
        };
        let answer = self.calls.declare(request).await?.into_owned();
        Ok(answer.runner.ephemeral)
    }

    /// `FetchTask` with everything that it may have.
    pub(crate) async fn fetch_with(
        &self,
        version: i64,
        capacity: Option<i64>,
        key: Option<&str>,
    ) -> Result<FetchTaskResponse, ConnectError> {
        let request = FetchTaskRequest {
            tasks_version: version,
            task_capacity: capacity,
            ..FetchTaskRequest::default()
        };
        let answer = self.calls.fetch_task_with_options(request, options(key)).await?;
        Ok(answer.into_owned())
    }

    /// The next task, if there is one.
    pub(crate) async fn next(&self) -> Option<Task> {
        self.fetch_with(0, None, None).await.unwrap().task.into_option()
    }

    /// The next task, which is there.
    pub(crate) async fn task(&self) -> Task {
        self.next().await.expect("there is a task")
    }

    pub(crate) async fn fetch_single(
        &self,
        handle: Option<&str>,
        key: Option<&str>,
    ) -> Result<FetchSingleTaskResponse, ConnectError> {
        let request = FetchSingleTaskRequest {
            handle: handle.map(str::to_owned),
            ..FetchSingleTaskRequest::default()
        };
        let answer = self.calls.fetch_single_task_with_options(request, options(key)).await?;
        Ok(answer.into_owned())
    }

    /// `UpdateLog`; gives how many rows the server has.
    pub(crate) async fn log(
        &self,
        task: i64,
        index: i64,
        texts: &[&str],
        no_more: bool,
    ) -> Result<i64, ConnectError> {
        let row = |text: &&str| LogRow {
            time: Timestamp::from_unix_secs(1_700_000_000).into(),
            content: (*text).to_owned(),
            ..LogRow::default()
        };
        let request = UpdateLogRequest {
            task_id: task,
            index,
            rows: texts.iter().map(row).collect(),
            no_more,
            ..UpdateLogRequest::default()
        };
        Ok(self.calls.update_log(request).await?.into_owned().ack_index)
    }

    pub(crate) async fn update(
        &self,
        task: i64,
        result: TaskResult,
        steps: Vec<StepState>,
        outputs: &[(&str, &str)],
    ) -> Result<UpdateTaskResponse, ConnectError> {
        let stopped = (result != TaskResult::RESULT_UNSPECIFIED).then(Timestamp::now);
        let state = TaskState {
            id: task,
            result: result.into(),
            stopped_at: stopped.into(),
            steps,
            ..TaskState::default()
        };
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let request = UpdateTaskRequest {
            state: state.into(),
            outputs: outputs.iter().map(owned).collect(),
            ..UpdateTaskRequest::default()
        };
        Ok(self.calls.update_task(request).await?.into_owned())
    }

    /// A report that the task runs.
    pub(crate) async fn beat(&self, task: i64) -> Result<TaskResult, ConnectError> {
        let answer = self.update(task, TaskResult::RESULT_UNSPECIFIED, Vec::new(), &[]).await?;
        Ok(answer.state.result.as_known().unwrap())
    }

    /// Runs a task of any steps to its end, with a row for each.
    pub(crate) async fn finish(&self, task: &Task, result: TaskResult, outputs: &[(&str, &str)]) {
        let payload = String::from_utf8(task.workflow_payload.clone().unwrap()).unwrap();
        let count = payload.lines().filter(|line| line.starts_with("      - ")).count();
        let mut texts = vec!["boot"];
        texts.extend(vec!["step"; count]);
        texts.push("done");
        self.log(task.id, 0, &texts, true).await.unwrap();
        let steps = (0..i64::try_from(count).unwrap()).map(|id| step(id, result, id + 1, 1));
        let answer = self.update(task.id, result, steps.collect(), outputs).await.unwrap();
        assert_eq!(answer.state.result, result);
    }
}

fn options(key: Option<&str>) -> CallOptions {
    match key {
        Some(key) => CallOptions::default().with_header("x-runner-request-key", key.to_owned()),
        None => CallOptions::default(),
    }
}

/// A step that began, and ended unless the result is unspecified.
pub(crate) fn step(id: i64, result: TaskResult, index: i64, length: i64) -> StepState {
    let stopped = (result != TaskResult::RESULT_UNSPECIFIED).then(Timestamp::now);
    StepState {
        id,
        result: result.into(),
        started_at: Timestamp::now().into(),
        stopped_at: stopped.into(),
        log_index: index,
        log_length: length,
        ..StepState::default()
    }
}

/// The text of a key of a task's context.
pub(crate) fn context(task: &Task, key: &str) -> Option<String> {
    task.context.get(key).and_then(|value| value.as_str()).map(str::to_owned)
}

/// The code of an error, as it is on the wire.
#[track_caller]
pub(crate) fn code<T>(result: Result<T, ConnectError>) -> &'static str {
    match result {
        Ok(_) => panic!("it was answered"),
        Err(error) => error.code.as_str(),
    }
}

/// A request key.
pub(crate) fn key() -> String {
    uuid::Uuid::new_v4().to_string()
}
