//! The calls of the protocol.

use std::sync::Arc;

use connectrpc::{
    ConnectError, ErrorCode, RequestContext, Response, ServiceRequest, ServiceResult,
};
use forgejo_proto::ping::{PingRequest, PingResponse, PingService, PingServiceExt};
use forgejo_proto::runner::{
    DeclareRequest, DeclareResponse, FetchSingleTaskRequest, FetchSingleTaskResponse,
    FetchTaskRequest, FetchTaskResponse, RegisterRequest, RegisterResponse,
    Runner as RunnerMessage, RunnerService, RunnerServiceExt, Task as Message, TaskResult,
    UpdateLogRequest, UpdateLogResponse, UpdateTaskRequest, UpdateTaskResponse,
};

use super::calls::Rpc;
use super::faults::Fault;
use super::log::{Closed, Manners};
use super::server::Exchange;
use super::state::{Runner, State};

/// Bytes of a runner's version that are kept.
const VERSION: usize = 64;

/// The two services of the protocol.
#[derive(Debug)]
pub(super) struct Service;

/// The call that a handler is in.
fn exchange(context: &RequestContext) -> Arc<Exchange> {
    context.extensions().get::<Arc<Exchange>>().map(Arc::clone).expect("the server puts it there")
}

/// The text of a header.
fn header(context: &RequestContext, name: &str) -> Option<String> {
    context.header(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

#[expect(refining_impl_trait_internal, reason = "owned messages are all that it answers")]
impl PingService for Service {
    async fn ping(
        &self,
        _context: RequestContext,
        request: ServiceRequest<'_, PingRequest>,
    ) -> ServiceResult<PingResponse> {
        let data = format!("Hello, {}!", request.to_owned_message().data);
        Response::ok(PingResponse { data, ..PingResponse::default() })
    }
}

#[expect(refining_impl_trait_internal, reason = "owned messages are all that it answers")]
impl RunnerService for Service {
    async fn register(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, RegisterRequest>,
    ) -> ServiceResult<RegisterResponse> {
        let (exchange, request) = (exchange(&context), request.to_owned_message());
        let runner = exchange.with(|state| {
            state.calls[exchange.call].labels.clone_from(&request.labels);
            state.judge_labels(exchange.call, &request.labels);
            state.register(&request)
        })?;
        Response::ok(RegisterResponse { runner: runner.into(), ..RegisterResponse::default() })
    }

    async fn declare(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, DeclareRequest>,
    ) -> ServiceResult<DeclareResponse> {
        let (exchange, request) = (exchange(&context), request.to_owned_message());
        let runner = exchange.with(|state| {
            let id = state.authenticate(&context, &exchange)?;
            state.calls[exchange.call].labels.clone_from(&request.labels);
            state.judge_labels(exchange.call, &request.labels);
            let ephemeral = state.profile.has_ephemeral();
            let runner = state.runners.get_mut(&id).ok_or_else(unregistered)?;
            runner.labels = request.labels;
            let end = request.version.floor_char_boundary(VERSION);
            runner.version = request.version.get(..end).unwrap_or_default().to_owned();
            Ok::<_, ConnectError>(RunnerMessage {
                token: String::new(),
                ..runner.message(ephemeral)
            })
        })?;
        Response::ok(DeclareResponse { runner: runner.into(), ..DeclareResponse::default() })
    }

    async fn fetch_task(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, FetchTaskRequest>,
    ) -> ServiceResult<FetchTaskResponse> {
        let (exchange, request) = (exchange(&context), request.to_owned_message());
        let key = header(&context, "x-runner-request-key");
        let answer = exchange.with(|state| {
            let runner = state.authenticate(&context, &exchange)?;
            state.judge_fetch(exchange.call, runner, request.task_capacity, key.as_deref());
            let answer = state.fetch_task(runner, key.as_deref(), &request);
            let call = &mut state.calls[exchange.call];
            call.tasks_version = Some(request.tasks_version);
            call.capacity = request.task_capacity;
            call.given = ids(answer.task.as_option().into_iter().chain(&answer.additional_tasks));
            call.answered = Some(answer.tasks_version);
            Ok::<_, ConnectError>(answer)
        })?;
        Response::ok(answer)
    }

    async fn fetch_single_task(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, FetchSingleTaskRequest>,
    ) -> ServiceResult<FetchSingleTaskResponse> {
        let (exchange, request) = (exchange(&context), request.to_owned_message());
        let key = header(&context, "x-runner-request-key");
        let answer = exchange.with(|state| {
            if !state.profile.has_single_task() {
                return Err(ConnectError::unimplemented("FetchSingleTask is not implemented"));
            }
            let runner = state.authenticate(&context, &exchange)?;
            state.judge_fetch(exchange.call, runner, None, key.as_deref());
            let answer = state.fetch_single_task(runner, key.as_deref(), &request)?;
            let call = &mut state.calls[exchange.call];
            call.tasks_version = Some(request.tasks_version);
            call.handle = request.handle;
            call.given = ids(answer.task.as_option());
            call.answered = Some(answer.tasks_version);
            Ok(answer)
        })?;
        Response::ok(answer)
    }

    async fn update_task(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, UpdateTaskRequest>,
    ) -> ServiceResult<UpdateTaskResponse> {
        let (exchange, request) = (exchange(&context), request.to_owned_message());
        let answer = exchange.with(|state| {
            let runner = state.authenticate(&context, &exchange)?;
            state.update_task(&exchange, runner, &request)
        })?;
        Response::ok(answer)
    }

    async fn update_log(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, UpdateLogRequest>,
    ) -> ServiceResult<UpdateLogResponse> {
        let (exchange, request) = (exchange(&context), request.to_owned_message());
        let ack_index = exchange.with(|state| {
            let runner = state.authenticate(&context, &exchange)?;
            state.update_log(&exchange, runner, &request)
        })?;
        Response::ok(UpdateLogResponse { ack_index, ..UpdateLogResponse::default() })
    }
}

impl Exchange {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.shared.change(change)
    }
}

fn ids<'a>(tasks: impl IntoIterator<Item = &'a Message>) -> Vec<i64> {
    tasks.into_iter().map(|task| task.id).collect()
}

/// What the server says to who it does not know (forgejo-runner-protocol 1.3).
fn unregistered() -> ConnectError {
    ConnectError::unauthenticated("unregistered runner")
}

impl State {
    /// The runner of a call, and that it was here (forgejo-runner-protocol 1.4).
    fn authenticate(
        &mut self,
        context: &RequestContext,
        exchange: &Exchange,
    ) -> Result<i64, ConnectError> {
        let now = self.clock.now();
        let uuid = header(context, "x-runner-uuid").ok_or_else(unregistered)?;
        let token = header(context, "x-runner-token").ok_or_else(unregistered)?;
        if matches!(exchange.fault(), Some(Fault::ForgetRunner)) {
            self.runners.retain(|_, runner| runner.uuid != uuid);
        }
        let active = matches!(exchange.rpc, Rpc::UpdateLog | Rpc::UpdateTask);
        let runner = self.runners.values_mut().find(|runner| runner.uuid == uuid);
        let runner = runner.filter(|runner| runner.token == token).ok_or_else(unregistered)?;
        runner.last_online = Some(now);
        if active {
            runner.last_active = Some(now);
        }
        Ok(runner.id)
    }

    fn update_task(
        &mut self,
        exchange: &Exchange,
        runner: i64,
        request: &UpdateTaskRequest,
    ) -> Result<UpdateTaskResponse, ConnectError> {
        let now = self.clock.now();
        let call = &mut self.calls[exchange.call];
        call.task = Some(request.state.id);
        call.result = request.state.result.as_known();
        call.outputs = request.outputs.keys().cloned().collect();
        call.outputs.sort();
        let check = self.profile.checks_task_owner();
        let task = self.tasks.get_mut(&request.state.id);
        let task = task.filter(|task| !check || task.runner == runner);
        let task = task.ok_or_else(|| ConnectError::internal("invalid runner for task"))?;
        let found = task.judge_update(request);
        let ended = task.update(&request.state, &request.outputs, now);
        let mut answer = task.answer();
        if exchange.is(|fault| matches!(fault, Fault::FailureForCancelled)) {
            if answer.state.result == TaskResult::RESULT_CANCELLED {
                let state = answer.state.get_or_insert_default();
                state.result = TaskResult::RESULT_FAILURE.into();
            } else if let Some(fault) = exchange.give_fault_back() {
                self.faults.put_back(exchange.rpc, fault);
                self.calls[exchange.call].fault = None;
            }
        }
        self.calls[exchange.call].answered_result = answer.state.result.as_known();
        for what in found {
            self.violation(exchange.call, what);
        }
        if ended {
            self.task_ended(request.state.id);
        }
        Ok(answer)
    }

    fn update_log(
        &mut self,
        exchange: &Exchange,
        runner: i64,
        request: &UpdateLogRequest,
    ) -> Result<i64, ConnectError> {
        let call = &mut self.calls[exchange.call];
        call.task = Some(request.task_id);
        call.index = Some(request.index);
        call.rows = request.rows.len();
        call.no_more = request.no_more;
        let fault = exchange.fault();
        let closes_on_empty = self.profile.closes_on_empty_batch();
        let task = self.tasks.get_mut(&request.task_id).filter(|task| task.runner == runner);
        let task = task.ok_or_else(|| ConnectError::internal("invalid runner for task"))?;
        if matches!(fault, Some(Fault::LoseLog)) {
            task.lose_log();
        }
        let found = task.judge_log(request);
        let keeps = if let Some(Fault::AckFewer(rows)) = fault { Some(rows) } else { None };
        let manners = Manners { closes_on_empty, keeps };
        let answer = task.log.append(request.index, &request.rows, request.no_more, manners);
        if keeps.is_some() && !task.log.archived {
            task.conduct.closed = false;
        }
        self.judge_overlap(exchange.call, request.task_id);
        for what in found {
            self.violation(exchange.call, what);
        }
        let mut held = answer.map_err(|Closed| {
            ConnectError::new(ErrorCode::AlreadyExists, "log file has been archived")
        })?;
        if let Some(Fault::AckBack(rows)) = fault {
            held = (held - rows).max(0);
        }
        self.calls[exchange.call].answered = Some(held);
        Ok(held)
    }
}

impl super::state::Task {
    /// The server lost the rows of a log that is not closed (forgejo-runner-protocol 11.3).
    pub(super) fn lose_log(&mut self) {
        if !self.log.archived {
            self.log.rows.clear();
            self.conduct.untold_loss = true;
            self.conduct.loss = true;
            self.conduct.closed = false;
        }
    }
}

impl Runner {
    /// The runner as a message, with its token.
    pub(super) fn message(&self, knows_ephemeral: bool) -> RunnerMessage {
        RunnerMessage {
            id: self.id,
            uuid: self.uuid.clone(),
            token: self.token.clone(),
            name: self.name.clone(),
            version: self.version.clone(),
            labels: self.labels.clone(),
            ephemeral: knows_ephemeral && self.ephemeral,
            ..RunnerMessage::default()
        }
    }
}

/// The services behind one router.
pub(super) fn router() -> connectrpc::Router {
    let service = Arc::new(Service);
    let router = RunnerServiceExt::add_to(Arc::clone(&service), connectrpc::Router::new());
    PingServiceExt::add_to(service, router)
}
