//! The steps of a job: the conversation with the guest program, across lost connections, until the
//! job or its machine ends.

use std::sync::Arc;
use std::time::Duration;

use common::event::JobResult;
use common::infrastructure::{Cause, Infrastructure};
use common::request::JobRequest;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use vm_manager::machine::{ConsoleCause, Machine};
use vm_manager::ssh::{Guest, Stdin, StreamReader};

use crate::attach::{Conversation, Interrupted};
use crate::calls::JobServices;
use crate::events::{EventLog, ReceiverGone};
use crate::job::TryError;
use crate::placing;

/// The pause between two attempts to connect again.
const RECONNECT: Duration = Duration::from_millis(250);
/// How long what a dead machine has already sent may take to be read.
const DRAIN: Duration = Duration::from_secs(2);
/// How long the news of a machine's end may lag behind the loss of its connection.
const END_NEWS: Duration = Duration::from_secs(3);
/// How long a guest may be silent whose kernel said on the console that it ends.
const AFTER_FAREWELL: Duration = Duration::from_secs(30);
/// Lines of the console in a message.
const CONSOLE_LINES: usize = 30;

/// How the steps ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StepsEnd {
    /// The guest program reported the job's result.
    Finished(JobResult),
    /// The deadline came first.
    Late,
}

/// Follows the job in its machine until either ends. Without a connection, such as to a machine that
/// was adopted, one is made; one that is lost is made again for as long as the second part of `help`
/// says, or for half a minute after a kernel's farewell. The first part answers the guest's calls.
pub(crate) async fn run(
    request: &JobRequest,
    machine: &Machine,
    guest: Option<Guest>,
    log: &mut EventLog,
    cancel: &CancellationToken,
    help: (Arc<JobServices>, Duration),
) -> Result<StepsEnd, TryError> {
    let (services, ssh_lost) = help;
    if let Some(result) = log.result() {
        // It was the last that a process before this one took from the guest.
        return Ok(StepsEnd::Finished(result));
    }
    let next = log.next_guest_event();
    let mut conversation = Conversation::new(request.envelope.job, next).serving(services);
    let mut ended = machine.ended();
    let followed = {
        let follow = follow(&mut conversation, ssh_lost, machine, guest, log, cancel);
        tokio::pin!(follow);
        tokio::select! {
            followed = &mut follow => Some(followed),
            // The guard must not live across the wait that follows.
            () = async { drop(ended.wait_for(Option::is_some).await) } => timeout(DRAIN, &mut follow).await.ok(),
        }
    };
    let error = match followed {
        Some(Ok(result)) => {
            if result == JobResult::Failure {
                explain_memory(machine, log).await?;
            }
            return Ok(StepsEnd::Finished(result));
        }
        Some(Err(Interrupted::ReceiverGone(gone))) => return Err(gone.into()),
        Some(Err(Interrupted::Violation(reason))) => {
            return Err(Infrastructure::new(
                Cause::GuestProtocol,
                format!("the guest program broke the rules of its protocol: {reason}"),
            )
            .into());
        }
        Some(Err(Interrupted::Refused(reason))) => {
            drop(timeout(END_NEWS, ended.wait_for(Option::is_some)).await);
            let end = ended.borrow().clone();
            return Err(match end {
                Some(end) => machine.failure(&end).into(),
                None => program_lost(&reason, machine).into(),
            });
        }
        Some(Err(Interrupted::Lost(reason))) => reason,
        None => "its connection did not end with the machine".to_owned(),
    };
    // A machine that ended explains more than the connection that was lost with it.
    drop(timeout(END_NEWS, ended.wait_for(Option::is_some)).await);
    let end = ended.borrow().clone();
    Err(match end.or_else(|| machine.told_end()) {
        Some(end) => machine.failure(&end).into(),
        None => connection_lost(&error, machine).into(),
    })
}

/// Holds the conversation, on new connections as long as they can be had.
async fn follow(
    conversation: &mut Conversation,
    ssh_lost: Duration,
    machine: &Machine,
    mut guest: Option<Guest>,
    log: &mut EventLog,
    cancel: &CancellationToken,
) -> Result<JobResult, Interrupted> {
    let job = conversation.job();
    let command = placing::attach_command(job);
    loop {
        let attempt = async {
            let connect = open_stream(machine, guest.take(), &command);
            tokio::pin!(connect);
            let (connection, reader, writer) = loop {
                tokio::select! {
                    connected = &mut connect => break connected?,
                    said = conversation.watch_silence(log) => said?,
                }
            };
            let heard = || connection.last_heard();
            let held = conversation.hold(reader, writer, log, cancel, heard).await;
            guest = Some(connection);
            held
        };
        match attempt.await {
            Err(Interrupted::Lost(reason)) => {
                let silent = conversation.last_contact().elapsed();
                let told = silent > AFTER_FAREWELL && machine.told_end().is_some();
                if machine.ended().borrow().is_some() || told || silent > ssh_lost {
                    return Err(Interrupted::Lost(reason));
                }
                tracing::info!(job.id = %job, "attaching again");
                let pause = sleep(RECONNECT);
                tokio::pin!(pause);
                loop {
                    tokio::select! {
                        () = &mut pause => break,
                        said = conversation.watch_silence(log) => said?,
                    }
                }
            }
            other => return other,
        }
    }
}

/// Starts the guest program's side of the conversation, over this connection or a new one.
async fn open_stream(
    machine: &Machine,
    guest: Option<Guest>,
    command: &str,
) -> Result<(Guest, StreamReader, Stdin), Interrupted> {
    let connection = match guest {
        Some(connection) if !connection.is_closed() => connection,
        _ => machine.connect().await.map_err(|error| lost(&error))?,
    };
    let (reader, writer) = connection.exec_stream(command).await.map_err(|error| lost(&error))?;
    Ok((connection, reader, writer))
}

fn lost(error: &dyn std::error::Error) -> Interrupted {
    Interrupted::Lost(error.to_string())
}

/// The guest program is gone and the machine is not: the console may know why.
fn program_lost(reason: &str, machine: &Machine) -> Infrastructure {
    match machine.console().cause() {
        Some(ConsoleCause::OutOfMemory(line)) => Infrastructure::new(
            Cause::GuestMemory,
            format!("the guest ran out of memory and its kernel ended the guest program: {line}"),
        ),
        _ => Infrastructure::new(
            Cause::GuestProgramLost,
            format!("{reason}; the console said last:\n{}", tail(machine)),
        ),
    }
}

/// A step whose process the guest's kernel ended for want of memory fails as any other does: the log
/// says why it may have.
async fn explain_memory(machine: &Machine, log: &mut EventLog) -> Result<(), ReceiverGone> {
    let Some(ConsoleCause::OutOfMemory(line)) = machine.console().cause() else { return Ok(()) };
    let (code, cure) = (Cause::GuestMemory.code(), Cause::GuestMemory.cure());
    log.notice(&format!(
        "##[warning]{code}: the guest ran out of memory and its kernel ended a process of the job: \
         {line}\nWhat to do: {cure}."
    ))
    .await
}

fn connection_lost(reason: &str, machine: &Machine) -> Infrastructure {
    Infrastructure::new(
        Cause::SshLost,
        format!(
            "{reason}, and it could not be restored; the console said last:\n{}",
            tail(machine)
        ),
    )
}

fn tail(machine: &Machine) -> String {
    machine.console().tail(CONSOLE_LINES).join("\n")
}
