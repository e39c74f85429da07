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
//! What it does while it runs is in [`super::house`].

use std::io::{self, Read, Write};
use std::os::unix::net::UnixListener as BlockingListener;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::guest::JobDocument;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::calls::calls;
use super::forwarder::Forwarder;
use super::host::Orchestrator;
use super::house::House;
use super::run_directory::{Claim, RunDirectory};
use super::spool::{Folder, Spool, SpoolLimits};
use super::{GuestError, document, protect};
use crate::engine;
use crate::system::{Local, pressure};

/// The word that the daemon prints when the job runs; anything else is why it does not.
pub(super) const READY: &str = "ready";

/// What stands in front of the reason when a file system has no room.
pub(super) const FULL: &str = "disk full: ";

/// How long a job that is over waits for a host to take its last events.
const LINGER: Duration = Duration::from_secs(24 * 3600);

/// How long after a SIGTERM, which announces that the machine goes down, the daemon still sends what
/// it has.
const TERMINATE_GRACE: Duration = Duration::from_secs(5);

/// How long a daemon that found another one waits for its socket.
const OTHER_DEADLINE: Duration = Duration::from_secs(20);

/// How often it looks.
const OTHER_INTERVAL: Duration = Duration::from_millis(50);

/// Runs the job whose document is on the standard input, as the process that [`super::start()`]
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
        Err(error) if error.is_disk_full() => writeln!(output, "{FULL}{error}"),
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
        let heard = watch::Sender::new(false);
        let system = Local::new().held_until(heard.subscribe());
        let (linger, grace) = (LINGER, TERMINATE_GRACE);
        let (calls, switchboard) = calls();
        // Without a loopback network the programs of steps have no services; the engine has.
        let services = document.services.clone();
        let forwarder = match services.is_empty() {
            true => None,
            false => Forwarder::start(calls.clone(), services).await.ok(),
        };
        let host = Arc::new(Orchestrator::new(calls).with(forwarder));
        let house = House { job, spool, listener, linger, grace, terminate, heard, switchboard };
        let run = |events, cancel| engine::run(document, Arc::new(system), host, events, cancel);
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
