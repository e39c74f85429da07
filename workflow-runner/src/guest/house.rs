//! A running job with its spool and its host.
//!
//! One task owns the spool and the connection; the engine is another that only sees a channel for
//! its events and a token for the cancel. While the spool has no room nobody takes events out of the
//! channel, so the engine waits, and with it the step that writes.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use common::event::{JobResult, LogBatch, LogLine, Stream};
use common::guest::{GuestEvent, ToGuest};
use common::{JobId, Timestamp};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet, LocalSet};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::calls::Switchboard;
use super::connection::{Connection, Greeted, Turn, greet};
use super::spool::Spool;

/// How often a disk that was full is tried again.
const DISK_RETRY: Duration = Duration::from_secs(2);

/// How long accepting connections rests after it failed, for example because of a full table of
/// open files.
const ACCEPT_REST: Duration = Duration::from_millis(200);

/// Connections that may be greeted at the same time.
const GREETINGS: usize = 8;

/// Events between the engine and the spool.
const CHANNEL_EVENTS: usize = 8;

/// Events that are taken out of the channel before the connection is looked at again.
const EVENTS_PER_TURN: usize = 64;

/// A job with its spool and its host.
pub(super) struct House {
    /// The job.
    pub(super) job: JobId,
    /// Its events.
    pub(super) spool: Spool,
    /// Where hosts attach.
    pub(super) listener: UnixListener,
    /// How long the last events wait for a host.
    pub(super) linger: Duration,
    /// How long it goes on when the machine goes down.
    pub(super) grace: Duration,
    /// Cancelled when the machine goes down.
    pub(super) terminate: CancellationToken,
    /// Becomes true once a host has acknowledged that a step began.
    pub(super) heard: watch::Sender<bool>,
    /// Between the calls to the host and the connection.
    pub(super) switchboard: Switchboard,
}

impl House {
    /// Runs the job and serves hosts until one has acknowledged every event, nobody came for
    /// [`House::linger`], or the machine goes down.
    pub(super) async fn run<F>(
        self,
        engine: impl FnOnce(mpsc::Sender<GuestEvent>, CancellationToken) -> F,
    ) where
        F: Future<Output = JobResult> + 'static,
    {
        LocalSet::new().run_until(self.serve(engine)).await;
    }

    async fn serve<F>(
        mut self,
        engine: impl FnOnce(mpsc::Sender<GuestEvent>, CancellationToken) -> F,
    ) where
        F: Future<Output = JobResult> + 'static,
    {
        let (sender, mut events) = mpsc::channel(CHANNEL_EVENTS);
        let cancel = CancellationToken::new();
        let mut engine = tokio::task::spawn_local(engine(sender, cancel.clone()));
        let mut phase = Phase::Running;
        let mut notice = None;
        let mut greetings: JoinSet<Option<Greeted>> = JoinSet::new();
        let mut connection: Option<Connection> = None;
        // The number of the first event that says that a step began.
        let mut begun: Option<u64> = None;
        let (terminate, grace, cancel_then) = (self.terminate.clone(), self.grace, cancel.clone());
        let mut terminated = pin!(async move {
            terminate.cancelled().await;
            cancel_then.cancel();
            sleep(grace).await;
        });

        loop {
            if let Phase::Draining(result) = phase
                && self.spool.has_room()
            {
                // The engine is gone, and what is in the channel is all there will be.
                match events.try_recv() {
                    Ok(event) => keep(&mut self.spool, event, &mut begun),
                    Err(_) => {
                        if let Some(notice) = notice.take() {
                            self.spool.push(notice);
                        }
                        self.spool.push(GuestEvent::Finished(result));
                        let until = Instant::now() + self.linger;
                        phase = Phase::Finished { until };
                    }
                }
            }
            if let Some(host) = &mut connection {
                host.fill(&self.spool);
            }
            let has_room = self.spool.has_room();
            tokio::select! {
                result = &mut engine, if phase == Phase::Running => {
                    events.close();
                    let result = result.unwrap_or_else(|error| {
                        notice = Some(broken(&error));
                        JobResult::Failure
                    });
                    phase = Phase::Draining(result);
                }
                Some(event) = events.recv(), if phase == Phase::Running && has_room => {
                    keep(&mut self.spool, event, &mut begun);
                    for _ in 1..EVENTS_PER_TURN {
                        if !self.spool.has_room() {
                            break;
                        }
                        let Ok(event) = events.try_recv() else { break };
                        keep(&mut self.spool, event, &mut begun);
                    }
                }
                stream = accept(&self.listener), if greetings.len() < GREETINGS => {
                    greetings.spawn_local(greet(stream));
                }
                Some(greeted) = greetings.join_next(), if !greetings.is_empty() => {
                    if let Ok(Some(greeted)) = greeted {
                        let mut host = Connection::answer(greeted, self.job, &self.spool);
                        // Who asks only for what comes after it has it.
                        let knows = |begun| host.has_sent(begun) && !host.has_sent(self.spool.next());
                        if begun.is_some_and(knows) {
                            self.heard.send_replace(true);
                        }
                        self.switchboard.attach();
                        hear(&mut host, &mut self.spool, &mut self.switchboard, &cancel);
                        connection = Some(host);
                    }
                }
                turn = turn_of(&mut connection) => match (turn, &mut connection) {
                    (Turn::Moved, Some(host)) => {
                        hear(host, &mut self.spool, &mut self.switchboard, &cancel);
                    }
                    _ => {
                        connection = None;
                        self.switchboard.detach();
                    }
                },
                message = self.switchboard.next(), if connection.as_ref().is_some_and(Connection::has_room) => {
                    let mut message = Some(message);
                    while let (Some(host), Some(frame)) = (&mut connection, message.take()) {
                        host.say(&frame);
                        message = host.has_room().then(|| self.switchboard.try_next()).flatten();
                    }
                }
                () = sleep(DISK_RETRY), if !has_room => self.spool.relieve(),
                () = until(&phase) => return,
                () = &mut terminated => return,
                // Nothing to wait for: the channel is drained at the top.
                () = std::future::ready(()), if matches!(phase, Phase::Draining(_)) && has_room => {}
            }
            if begun.is_some_and(|begun| begun < self.spool.first()) {
                self.heard.send_if_modified(|heard| !std::mem::replace(heard, true));
            }
            if matches!(phase, Phase::Finished { .. }) && self.spool.is_empty() {
                return;
            }
        }
    }
}

/// The last line of a job whose engine broke.
fn broken(error: &JoinError) -> GuestEvent {
    let text = format!("the step engine broke, which is a bug in Solstice: {error}");
    let line = LogLine { time: Timestamp::now(), stream: Stream::Runner, text: text.into() };
    GuestEvent::Log(LogBatch { step: None, lines: vec![line] })
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// The engine runs.
    Running,
    /// The engine ended with this; its last events are still in the channel.
    Draining(JobResult),
    /// The last event is in the spool.
    Finished { until: Instant },
}

/// Takes an event in. The end is told once, with the engine's result, and by nobody else.
fn keep(spool: &mut Spool, event: GuestEvent, begun: &mut Option<u64>) {
    if matches!(event, GuestEvent::StepStarted(_)) {
        begun.get_or_insert(spool.next());
    }
    if !matches!(event, GuestEvent::Finished(_)) {
        spool.push(event);
    }
}

/// Acts on every frame that a host has sent.
fn hear(
    host: &mut Connection,
    spool: &mut Spool,
    switchboard: &mut Switchboard,
    cancel: &CancellationToken,
) {
    while let Some(frame) = host.next_frame() {
        match frame {
            ToGuest::Ack { seq } if host.has_sent(seq) => spool.acknowledge(seq),
            ToGuest::Ack { seq } => host.refuse(format!("event {seq} was not sent yet")),
            ToGuest::Call { call, reply } => switchboard.take(call, reply),
            ToGuest::Cancel => cancel.cancel(),
            ToGuest::Attach { .. } => host.refuse("this connection is attached".to_owned()),
        }
    }
}

/// Waits for the next connection.
async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => sleep(ACCEPT_REST).await,
        }
    }
}

/// Waits for a connection, where there is one.
async fn turn_of(connection: &mut Option<Connection>) -> Turn {
    match connection {
        Some(connection) => connection.turn().await,
        None => std::future::pending().await,
    }
}

/// Waits for the end of the linger time, once it runs.
async fn until(phase: &Phase) {
    match phase {
        Phase::Finished { until } => sleep_until(*until).await,
        Phase::Running | Phase::Draining(_) => std::future::pending().await,
    }
}
