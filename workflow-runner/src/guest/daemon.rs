//! The process that runs a job in a machine and outlives the connection that started it.
//!
//! ```text
//!              ready           Finished sent          all acknowledged
//!   claiming ─────────▶ running ───────────▶ lingering ───────────────▶ gone
//!      │                   │  SIGTERM            │ LINGER
//!      ▼ held by another   └──▶ TERMINATE_GRACE ─┴─────────────────────▶ gone
//!   "ready", exit
//! ```
//!
//! One task owns the spool and the connection; the engine is another that only sees a channel for
//! its events and a token for the cancel. While the spool has no room nobody takes events out of the
//! channel, so the engine waits, and with it the step that writes.

use std::future::Future;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixListener as BlockingListener;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::event::{JobResult, LogBatch, LogLine, Stream};
use common::guest::{GuestEvent, JobDocument, ToGuest};
use common::{JobId, Timestamp};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet, LocalSet};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Greeted, Turn, greet};
use super::run_directory::{Claim, RunDirectory};
use super::spool::{Folder, Spool, SpoolLimits};
use super::{GuestError, document, protect};
use crate::engine;
use crate::system::{Local, pressure};

/// The word that the daemon prints when the job runs; anything else is why it does not.
pub(super) const READY: &str = "ready";

/// How long a job that is over waits for a host to take its last events.
const LINGER: Duration = Duration::from_secs(24 * 3600);

/// How long after a SIGTERM, which announces that the machine goes down, the daemon still sends what
/// it has.
const TERMINATE_GRACE: Duration = Duration::from_secs(5);

/// How often a disk that was full is tried again.
const DISK_RETRY: Duration = Duration::from_secs(2);

/// How long a daemon that found another one waits for its socket.
const OTHER_DEADLINE: Duration = Duration::from_secs(20);

/// How often it looks.
const OTHER_INTERVAL: Duration = Duration::from_millis(50);

/// How long accepting connections rests after it failed, for example because of a full table of
/// open files.
const ACCEPT_REST: Duration = Duration::from_millis(200);

/// Connections that may be greeted at the same time.
const GREETINGS: usize = 8;

/// Events between the engine and the spool.
const CHANNEL_EVENTS: usize = 8;

/// Events that are taken out of the channel before the connection is looked at again.
const EVENTS_PER_TURN: usize = 64;

/// Runs the job whose document is on the standard input, as the process that [`super::start`]
/// spawned. Prints one word or sentence, then closes the standard streams.
///
/// # Errors
/// The job could not be started; the sentence was printed as well.
pub fn daemon(base: &Path, input: impl Read) -> Result<(), GuestError> {
    protect::leave_session();
    let started = prepare(base, input);
    // Whoever waits for the answer may be gone; the job runs all the same.
    let mut output = io::stdout();
    drop(match &started {
        Ok(_) => writeln!(output, "{READY}"),
        Err(error) => writeln!(output, "{error}"),
    });
    drop(output.flush());
    let Some(prepared) = started? else { return Ok(()) };

    protect::close_standard_streams().map_err(GuestError::io("open", "/dev/null"))?;
    let Prepared { document, directory, listener, runtime } = prepared;
    let job = document.job;
    let spool = Spool::new(SpoolLimits::default(), Folder(directory.path().to_owned()));
    let served = runtime.block_on(async {
        let terminate = CancellationToken::new();
        heed_signals(&terminate)?;
        let listener = UnixListener::from_std(listener)?;
        let house =
            House { job, spool, listener, linger: LINGER, grace: TERMINATE_GRACE, terminate };
        let run = |events, cancel| engine::run(document, Arc::new(Local::new()), events, cancel);
        house.run(run).await;
        Ok(())
    });
    // Threads that a step's file system blocks must not keep the daemon alive.
    runtime.shutdown_background();
    directory.remove()?;
    served.map_err(GuestError::io("serve", base))
}

/// What a daemon has when it says that it is ready.
struct Prepared {
    document: JobDocument,
    directory: RunDirectory,
    listener: BlockingListener,
    runtime: tokio::runtime::Runtime,
}

/// Everything that can fail. `None` if another daemon runs the job already.
fn prepare(base: &Path, input: impl Read) -> Result<Option<Prepared>, GuestError> {
    let document = document::parse(&document::read(input)?)?;
    let job = document.job;
    let socket = RunDirectory::socket_of(base, job);
    let directory = match RunDirectory::claim(base, job)? {
        Claim::Ours(directory) => directory,
        Claim::Running => return wait_for_other(&socket).map(|()| None),
    };
    protect::keep_last_words(RunDirectory::last_words_of(base, job));
    pressure::protect_this_process();
    let opened = open(&socket).and_then(|listener| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(GuestError::io("start the runtime for", &socket))?;
        Ok((listener, runtime))
    });
    match opened {
        Ok((listener, runtime)) => Ok(Some(Prepared { document, directory, listener, runtime })),
        Err(error) => {
            // No step ran: the job may be started again once the cause is gone.
            drop(directory.remove());
            Err(error)
        }
    }
}

fn open(socket: &PathBuf) -> Result<BlockingListener, GuestError> {
    let listener = BlockingListener::bind(socket).map_err(GuestError::io("listen on", socket))?;
    listener.set_nonblocking(true).map_err(GuestError::io("listen on", socket))?;
    Ok(listener)
}

/// Waits until the daemon that holds the directory listens.
fn wait_for_other(socket: &Path) -> Result<(), GuestError> {
    let deadline = Instant::now() + OTHER_DEADLINE;
    loop {
        match BlockingStream::connect(socket) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(GuestError::io("connect to", socket)(error));
            }
            Err(_) => thread::sleep(OTHER_INTERVAL),
        }
    }
}

/// A hang-up or an interrupt is for whoever started the daemon. SIGTERM announces that the machine
/// goes down. Handlers, not "ignore", because steps would inherit that.
fn heed_signals(terminate: &CancellationToken) -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut end = signal(SignalKind::terminate())?;
    let terminate = terminate.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = hangup.recv() => {}
                _ = interrupt.recv() => {}
                _ = end.recv() => terminate.cancel(),
            }
        }
    });
    Ok(())
}

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
                    Ok(event) => keep(&mut self.spool, event),
                    Err(_) => {
                        if let Some(notice) = notice.take() {
                            self.spool.push(notice);
                        }
                        self.spool.push(GuestEvent::Finished(result));
                        let until = tokio::time::Instant::now() + self.linger;
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
                    keep(&mut self.spool, event);
                    for _ in 1..EVENTS_PER_TURN {
                        if !self.spool.has_room() {
                            break;
                        }
                        let Ok(event) = events.try_recv() else { break };
                        keep(&mut self.spool, event);
                    }
                }
                stream = accept(&self.listener), if greetings.len() < GREETINGS => {
                    greetings.spawn_local(greet(stream));
                }
                Some(greeted) = greetings.join_next(), if !greetings.is_empty() => {
                    if let Ok(Some(greeted)) = greeted {
                        let mut host = Connection::answer(greeted, self.job, &self.spool);
                        hear(&mut host, &mut self.spool, &cancel);
                        connection = Some(host);
                    }
                }
                turn = turn_of(&mut connection) => match (turn, &mut connection) {
                    (Turn::Moved, Some(host)) => hear(host, &mut self.spool, &cancel),
                    _ => connection = None,
                },
                () = sleep(DISK_RETRY), if !has_room => self.spool.relieve(),
                () = until(&phase) => return,
                () = &mut terminated => return,
                // Nothing to wait for: the channel is drained at the top.
                () = std::future::ready(()), if matches!(phase, Phase::Draining(_)) && has_room => {}
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
    Finished { until: tokio::time::Instant },
}

/// Takes an event in. The end is told once, with the engine's result, and by nobody else.
fn keep(spool: &mut Spool, event: GuestEvent) {
    if !matches!(event, GuestEvent::Finished(_)) {
        spool.push(event);
    }
}

/// Acts on every frame that a host has sent.
fn hear(host: &mut Connection, spool: &mut Spool, cancel: &CancellationToken) {
    while let Some(frame) = host.next_frame() {
        match frame {
            ToGuest::Ack { seq } if host.has_sent(seq) => spool.acknowledge(seq),
            ToGuest::Ack { seq } => host.refuse(format!("event {seq} was not sent yet")),
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
