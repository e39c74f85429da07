//! The record of what clients called.

use std::collections::HashSet;
use std::fmt;
use std::time::SystemTime;

use forgejo_proto::runner::TaskResult;

/// A call of the protocol (forgejo-runner-protocol 1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rpc {
    /// Is there a server?
    Ping,
    /// A runner with a registration token wants an identity.
    Register,
    /// A runner says which labels it has.
    Declare,
    /// A runner asks for work.
    FetchTask,
    /// A runner asks for one task, perhaps for a certain one.
    FetchSingleTask,
    /// A runner says how far a task is.
    UpdateTask,
    /// A runner sends rows of a log.
    UpdateLog,
}

impl Rpc {
    /// The call of a path below `/api/actions`.
    pub(super) fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/ping.v1.PingService/Ping" => Self::Ping,
            "/runner.v1.RunnerService/Register" => Self::Register,
            "/runner.v1.RunnerService/Declare" => Self::Declare,
            "/runner.v1.RunnerService/FetchTask" => Self::FetchTask,
            "/runner.v1.RunnerService/FetchSingleTask" => Self::FetchSingleTask,
            "/runner.v1.RunnerService/UpdateTask" => Self::UpdateTask,
            "/runner.v1.RunnerService/UpdateLog" => Self::UpdateLog,
            _ => return None,
        })
    }

    /// Whether it asks for work.
    #[must_use]
    pub fn is_fetch(self) -> bool {
        matches!(self, Self::FetchTask | Self::FetchSingleTask)
    }
}

/// What became of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// It is still going on, or the connection ended before there was an answer.
    #[default]
    None,
    /// The message of the call.
    Ok,
    /// An error of the protocol: its code in lower snake case.
    Error(String),
    /// A page of something in between, with this status.
    Page(u16),
}

/// One call, with what of it matters to tests. Fields that a call does not have are empty.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which one.
    pub rpc: Rpc,
    /// When, by the server's clock.
    pub at: SystemTime,
    /// The runner's uuid, as the client sent it.
    pub runner: Option<String>,
    /// `x-runner-request-key`.
    pub request_key: Option<String>,
    /// Whether it was in JSON.
    pub json: bool,
    /// Bytes of the request, as they came.
    pub size: usize,
    /// `tasks_version`, as the client sent it.
    pub tasks_version: Option<i64>,
    /// `task_capacity`.
    pub capacity: Option<i64>,
    /// `handle`.
    pub handle: Option<String>,
    /// Names of labels.
    pub labels: Vec<String>,
    /// The task that it is about.
    pub task: Option<i64>,
    /// Where its rows start.
    pub index: Option<i64>,
    /// How many rows it has.
    pub rows: usize,
    /// Whether they are the last ones.
    pub no_more: bool,
    /// The result that it reports.
    pub result: Option<TaskResult>,
    /// Keys of its outputs, in order.
    pub outputs: Vec<String>,
    /// Tasks that it was given.
    pub given: Vec<i64>,
    /// How many rows the server says that it has, or the version of the fetch.
    pub answered: Option<i64>,
    /// The result that the server answered.
    pub answered_result: Option<TaskResult>,
    /// What became of it.
    pub answer: Answer,
    /// Whether the whole answer was handed to the connection.
    pub delivered: bool,
    /// The fault that was played on it.
    pub fault: Option<String>,
}

impl Call {
    pub(super) fn new(rpc: Rpc, at: SystemTime) -> Self {
        Self {
            rpc,
            at,
            runner: None,
            request_key: None,
            json: false,
            size: 0,
            tasks_version: None,
            capacity: None,
            handle: None,
            labels: Vec::new(),
            task: None,
            index: None,
            rows: 0,
            no_more: false,
            result: None,
            outputs: Vec::new(),
            given: Vec::new(),
            answered: None,
            answered_result: None,
            answer: Answer::None,
            delivered: false,
            fault: None,
        }
    }
}

/// What a client has said of one task so far, whatever the server made of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Conduct {
    /// Calls of `UpdateLog` that are going on.
    pub(super) in_flight: HashSet<usize>,
    /// The client closed the log itself.
    pub(super) closed: bool,
    /// The server lost rows, and the client has not been told yet.
    pub(super) untold_loss: bool,
    /// The server lost rows at some time.
    pub(super) loss: bool,
    /// The first final result.
    pub(super) result: Option<TaskResult>,
    /// What it said of each step.
    pub(super) steps: Vec<Option<forgejo_proto::runner::StepState>>,
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.rpc)?;
        let numbers = [
            ("task", self.task),
            ("index", self.index),
            ("version", self.tasks_version),
            ("capacity", self.capacity),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                write!(formatter, " {name} {number}")?;
            }
        }
        if self.rpc == Rpc::UpdateLog {
            write!(
                formatter,
                " rows {}{}",
                self.rows,
                if self.no_more { ", the last" } else { "" }
            )?;
        }
        if let Some(result) = self.result {
            write!(formatter, " {result:?}")?;
        }
        write!(formatter, " -> {:?}", self.answer)?;
        if let Some(answered) = self.answered {
            write!(formatter, " {answered}")?;
        }
        if let Some(result) = self.answered_result {
            write!(formatter, " {result:?}")?;
        }
        if !self.given.is_empty() {
            write!(formatter, " tasks {:?}", self.given)?;
        }
        if let Some(fault) = &self.fault {
            write!(formatter, ", fault {fault}")?;
        }
        if !self.delivered {
            formatter.write_str(", not delivered")?;
        }
        Ok(())
    }
}
