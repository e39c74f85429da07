//! The daemon of the runners: inside `solstice serve`, and as `solstice forgejo-runner`.

use std::time::Duration;

use forgejo_runner::{OneJob, Runner, RunnerSettings, StartError};
use queue::rabbit::{self, Rabbit};
use queue::seal::KeyRing;

use super::connections::{MOST_JOBS, identities, runner_settings};
use crate::cli::ForgejoRunnerArgs;
use crate::exit::{CommandError, Exit};
use crate::message;
use crate::serve::tell_manager;
use crate::settings::{self, Settings, with_password};
use crate::stop::Stop;

/// The daemon before its start.
#[derive(Debug)]
pub(crate) struct Prepared {
    settings: RunnerSettings,
}

/// A daemon that runs.
#[derive(Debug)]
pub(crate) struct Daemon {
    runner: Runner,
    /// How long it waits for jobs at the end.
    shutdown: Duration,
}

/// What the settings say of the daemon; `None` where it would have nothing to do. What looks like a
/// mistake is said.
///
/// # Errors
/// A connection cannot be used.
pub(crate) fn prepare(settings: &Settings, room: u32) -> Result<Option<Prepared>, CommandError> {
    let Some((prepared, warnings)) = runner_settings(settings, room)? else { return Ok(None) };
    for warning in &warnings {
        message::warning(warning);
    }
    identities(settings).prepare()?;
    Ok(Some(Prepared { settings: prepared }))
}

impl Prepared {
    /// One connection, for one job.
    fn alone(mut self, arguments: &ForgejoRunnerArgs) -> Result<Self, CommandError> {
        let names: Vec<String> =
            self.settings.connections.iter().map(|one| one.name.clone()).collect();
        if let Some(name) = &arguments.connection {
            self.settings.connections.retain(|one| one.name == *name);
        }
        if self.settings.connections.len() != 1 {
            let what = match &arguments.connection {
                Some(name) => format!("there is no connection {name:?}"),
                None => "a job of which connection?".to_owned(),
            };
            let hint = format!("name one of {} with --connection", names.join(", "));
            return Err(CommandError::usage(what).hint(hint));
        }
        Ok(self)
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// Something that it needs cannot be used; nothing was taken then.
    pub(crate) async fn start(
        self,
        queue: queue::Queue,
        keys: KeyRing,
    ) -> Result<Daemon, CommandError> {
        for connection in &self.settings.connections {
            tracing::info!(
                connection = connection.name,
                url = %connection.url,
                labels = connection.labels.len(),
                capacity = connection.capacity,
                "runner"
            );
        }
        let shutdown = self.settings.shutdown;
        let runner = Runner::start(self.settings, queue, keys).await;
        Ok(Daemon { runner: runner.map_err(|error| refused(&error))?, shutdown })
    }
}

impl Daemon {
    /// Ends it: takes no more jobs and waits for those in hand. The second signal cancels them and
    /// still lets them be reported, the third leaves them to the next start.
    pub(crate) async fn stop(self, stop: &Stop) {
        let wait = if self.shutdown.is_zero() {
            "those in hand are cancelled".to_owned()
        } else {
            let most = humantime::format_duration(self.shutdown);
            format!("waiting up to {most} for those in hand; a second signal cancels them")
        };
        message::notice(&format!("ending; no more jobs are taken from instances, {wait}"));
        tokio::select! {
            () = self.runner.stop(stop.destroy.clone()) => {}
            () = stop.abandon.cancelled() => {
                message::warning("jobs are left that were not reported; the next start goes on");
            }
        }
    }
}

/// Runs the daemon as a process of its own, until a signal.
///
/// # Errors
/// It cannot start; nothing was taken then.
pub(crate) async fn run(
    settings: &Settings,
    arguments: &ForgejoRunnerArgs,
) -> Result<Exit, CommandError> {
    let service = &settings.service;
    let (settings::Queue::Broker(url), Some(keys)) = (&service.queue, &service.seal_keys) else {
        let missing =
            if service.seal_keys.is_some() { "`queue`" } else { "`queue` and `seal_keys`" };
        let text =
            format!("{missing} must be set: by them the runners reach the hosts of machines");
        return Err(CommandError::usage(text).hint(
            "set them as on every host, see docs/operations.md; `solstice serve` on a single host \
             has the runners inside and needs neither",
        ));
    };
    let prepared = prepare(settings, MOST_JOBS)?.ok_or_else(|| {
        CommandError::usage("there is no connection to an instance")
            .hint("make one with `solstice forgejo register`, see docs/forgejo.md")
    })?;
    let prepared = if arguments.one_job { prepared.alone(arguments)? } else { prepared };
    let stop = Stop::on_signals()
        .map_err(|error| CommandError::infrastructure(format!("cannot handle signals: {error}")))?;
    let keys = KeyRing::load(keys).map_err(|error| CommandError::usage(error.to_string()))?;
    let address = with_password(url, service.queue_password_file.as_deref())?;
    let broker = rabbit::Settings::new(address, service.queue_prefix.clone());
    let broker = Rabbit::connect(&broker).await;
    let broker = broker.map_err(|error| {
        CommandError::infrastructure(error.to_string()).hint("run `solstice doctor`")
    })?;
    let queue = queue::Queue::Rabbit(broker);
    let ended = if arguments.one_job {
        one_job(prepared, queue.clone(), keys, arguments, &stop).await
    } else {
        until_signal(prepared, queue.clone(), keys, &stop).await
    };
    queue.close().await;
    ended
}

/// Takes one job and reports it.
async fn one_job(
    prepared: Prepared,
    queue: queue::Queue,
    keys: KeyRing,
    arguments: &ForgejoRunnerArgs,
    stop: &Stop,
) -> Result<Exit, CommandError> {
    let wish = OneJob { handle: arguments.handle.clone(), wait: arguments.wait };
    let words = (stop.cancel.clone(), stop.destroy.clone());
    let taken = Runner::one_job(prepared.settings, queue, keys, wish, words).await;
    if taken.map_err(|error| refused(&error))? {
        return Ok(Exit::Passed);
    }
    message::notice("there was no job");
    Ok(if stop.cancel.is_cancelled() { Exit::Cancelled } else { Exit::Infrastructure })
}

async fn until_signal(
    prepared: Prepared,
    queue: queue::Queue,
    keys: KeyRing,
    stop: &Stop,
) -> Result<Exit, CommandError> {
    let daemon = prepared.start(queue, keys).await?;
    tracing::info!("ready");
    tell_manager("READY=1");
    stop.cancel.cancelled().await;
    tell_manager("STOPPING=1");
    daemon.stop(stop).await;
    Ok(Exit::Passed)
}

fn refused(error: &StartError) -> CommandError {
    match error {
        StartError::Connection { .. } => CommandError::usage(error.to_string())
            .hint("see `solstice forgejo status` for all connections"),
        StartError::State { .. } => CommandError::infrastructure(error.to_string())
            .hint("give `forgejo` in `state_dir` to this user"),
        _ => CommandError::infrastructure(error.to_string()),
    }
}
