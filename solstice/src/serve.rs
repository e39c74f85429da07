//! `solstice serve` and `solstice orchestrator`: the durable service of this host.
//!
//! Both are the same parts. `serve` needs nothing beside this host; `orchestrator` insists on a
//! broker and a database that several hosts can share.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use orchestrator::clock::Clock;
use orchestrator::service::{Database, ServiceSettings, StartError, Transport};
use orchestrator::{Service, api, metrics};
use tokio_util::sync::CancellationToken;

use crate::exit::{CommandError, Exit};
use crate::forgejo::connections::room;
use crate::forgejo::daemon::{self, Daemon, Prepared};
use crate::host::orchestrator_settings;
use crate::message;
use crate::settings::{self, Settings, with_password};
use crate::stop::Stop;

/// How long the service may take to end after the last signal.
const END: Duration = Duration::from_secs(60);

/// Runs the service until a signal.
///
/// # Errors
/// It cannot start; nothing was taken then.
pub(crate) async fn serve(settings: &Settings, shared: bool) -> Result<Exit, CommandError> {
    if shared {
        check_shared(settings)?;
    }
    // Hosts that share everything share their runners too, which are processes of their own.
    let runners = if shared { None } else { daemon::prepare(settings, room(settings))? };
    let prepared = service_settings(settings)?;
    raise_file_limit();
    let stop = Stop::on_signals()
        .map_err(|error| CommandError::infrastructure(format!("cannot handle signals: {error}")))?;
    metrics::install();
    let service = Service::start(prepared).await.map_err(|error| refused(&error))?;
    let closing = CancellationToken::new();
    tokio::spawn(metrics::upkeep(closing.clone()));
    let listening = listen(settings, &service, closing.clone()).await;
    let runs = match listening {
        Ok(()) => start_runners(runners, &service).await,
        Err(error) => Err(error),
    };
    let has_runners = matches!(runs, Ok(Some(_)));
    let ended = match runs {
        Ok(runners) => {
            until_signal(runners, &service, &stop).await;
            Ok(())
        }
        Err(error) => Err(error),
    };
    closing.cancel();
    // With runners the second signal was for their jobs.
    let at_once = if has_runners { &stop.abandon } else { &stop.destroy };
    tokio::select! {
        () = service.stop() => {}
        () = at_once.cancelled() => {}
        () = tokio::time::sleep(END) => message::warning("the service did not end in time"),
    }
    ended.map(|()| Exit::Passed)
}

/// Starts the runners of instances on the queue of the service.
async fn start_runners(
    runners: Option<Prepared>,
    service: &Service,
) -> Result<Option<Daemon>, CommandError> {
    match runners {
        Some(runners) => runners.start(service.queue(), service.keys()).await.map(Some),
        None => Ok(None),
    }
}

/// Serves until a signal, and ends the runners.
async fn until_signal(runners: Option<Daemon>, service: &Service, stop: &Stop) {
    tracing::info!(host.id = %service.host(), "ready");
    tell_manager("READY=1");
    stop.cancel.cancelled().await;
    tell_manager("STOPPING=1");
    match runners {
        Some(runners) => runners.stop(stop).await,
        None => message::notice(
            "ending; jobs whose steps run go on in their machines for 10 minutes, to be continued \
             by the next start",
        ),
    }
}

/// Opens the operators' socket and the page of metrics.
async fn listen(
    settings: &Settings,
    service: &Service,
    closing: CancellationToken,
) -> Result<(), CommandError> {
    let path = settings.socket_path();
    let cannot = |what: String| {
        move |error: std::io::Error| CommandError::infrastructure(format!("{what}: {error}"))
    };
    let server = api::UnixServer::bind(&path);
    let server = server.map_err(cannot(format!("cannot listen on {}", path.display())))?;
    let backend = service.backend();
    tokio::spawn(server.serve(std::sync::Arc::clone(&backend), closing.clone()));
    tracing::info!(path = %path.display(), "operators");
    if let Some(address) = settings.service.metrics_listen {
        let bound = api::serve_observability(backend, address, closing)
            .await
            .map_err(cannot(format!("cannot listen on {address} (`metrics_listen`)")))?;
        tracing::info!(address = %bound, "metrics and health");
    }
    Ok(())
}

fn check_shared(settings: &Settings) -> Result<(), CommandError> {
    let service = &settings.service;
    let missing = match (&service.queue, &service.database, &service.seal_keys) {
        (settings::Queue::Embedded, _, _) => "`queue`",
        (_, settings::Database::Default | settings::Database::File(_), _) => "`database`",
        (_, _, None) => "`seal_keys`",
        _ => return Ok(()),
    };
    Err(CommandError::usage(format!("{missing} is not set: hosts of one installation share it"))
        .hint("set `queue`, `database` and `seal_keys`, see docs/operations.md; or use `solstice serve` on a single host"))
}

fn service_settings(settings: &Settings) -> Result<ServiceSettings, CommandError> {
    let service = &settings.service;
    let database = match (&service.database, settings.database_path()) {
        (settings::Database::Postgres(url), _) => {
            Database::Postgres(with_password(url, service.database_password_file.as_deref())?)
        }
        (_, path) => Database::Sqlite(path.unwrap_or_default()),
    };
    let transport = match &service.queue {
        settings::Queue::Embedded => Transport::Embedded(settings.state_dir.join("queue.db")),
        settings::Queue::Broker(url) => Transport::Rabbit(queue::rabbit::Settings::new(
            with_password(url, service.queue_password_file.as_deref())?,
            service.queue_prefix.clone(),
        )),
    };
    Ok(ServiceSettings {
        machines: orchestrator_settings(settings),
        state: settings.state_dir.clone(),
        name: service.host_name.clone(),
        labels: service.labels.clone(),
        database,
        transport,
        keep_days: service.keep_events_days,
        keep_bytes: service.keep_events_size.0,
        clock: Clock::system(),
    })
}

/// Each job needs some files and sockets at the same time, and the ordinary limit is for programs
/// that have a dozen. What the administrator set as the hard limit stays the limit.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

fn refused(error: &StartError) -> CommandError {
    let refused = CommandError::infrastructure(error.to_string());
    match error {
        StartError::Label(_) => CommandError::usage(error.to_string())
            .hint("see `solstice image list` for the labels of this host"),
        StartError::Host(_) => refused.hint("run `solstice doctor`"),
        _ => refused,
    }
}

/// Tells a service manager, where there is one, how far the service is (sd_notify).
pub(crate) fn tell_manager(state: &str) {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return };
    // Nobody depends on it but the manager, which has a deadline of its own.
    if let Ok(socket) = UnixDatagram::unbound() {
        drop(socket.send_to(state.as_bytes(), std::path::Path::new(&address)));
    }
}
