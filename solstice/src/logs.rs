//! `solstice logs`: a job's events as `solstice run` shows them.

use common::event::{EventBody, Finished, JobEvent, JobResult};
use common::ids::JobId;
use orchestrator::api::Extent;
use orchestrator::api::wire::Place;
use tokio_util::sync::CancellationToken;

use crate::cli::LogsArgs;
use crate::client::{Client, ClientError, Follow};
use crate::exit::{CommandError, Exit};
use crate::jobs::{find, result};
use crate::render::{Human, Item, Json, Output, Render, Screen, StartedJob, watch_readers};
use crate::settings::Settings;
use crate::stop::Stop;

/// `solstice logs`. With `--follow` the exit code is the job's.
///
/// # Errors
/// The job is not known, its log is not kept, or the service cannot be used.
pub(crate) async fn logs(settings: &Settings, arguments: LogsArgs) -> Result<Exit, CommandError> {
    let client = Client::open(&settings.socket_path())?;
    let job = find(&client, &arguments.job).await?;
    let stop = Stop::on_signals()
        .map_err(|error| CommandError::infrastructure(format!("cannot handle signals: {error}")))?;
    let closed = CancellationToken::new();
    watch_readers(closed.clone());
    let output = Output::standard();
    let render: Box<dyn Render> = if arguments.json {
        Box::new(Json::new(output))
    } else {
        Box::new(Human::new(output, false, arguments.verbose))
    };
    let screen = Screen::start(render, closed)
        .map_err(|error| CommandError::infrastructure(format!("cannot start: {error}")))?;
    let logs = Logs { client, job, screen: &screen, stop: &stop };
    let ended = logs.run(arguments.follow).await;
    screen.finish(&stop.cancel).await;
    ended
}

struct Logs<'a> {
    client: Client,
    job: JobId,
    screen: &'a Screen,
    stop: &'a Stop,
}

impl Logs<'_> {
    async fn run(&self, follow: bool) -> Result<Exit, CommandError> {
        self.show(Item::Started(StartedJob { id: self.job, name: self.job.short() })).await;
        let read = async { if follow { self.follow().await } else { self.written().await } };
        tokio::select! {
            biased;
            () = self.stop.cancel.cancelled() => Ok(Exit::Cancelled),
            // As with any other command whose output nobody reads to its end.
            () = self.screen.closed() => Ok(Exit::Passed),
            ended = read => Ok(ended?),
        }
    }

    /// Shows what there is.
    async fn written(&self) -> Result<Exit, ClientError> {
        let first = Place::default();
        let mut stream = self.client.events(self.job, Extent::Written, first).await?;
        let mut any = false;
        while let Some(events) = stream.next().await? {
            any |= !events.is_empty();
            self.show_all(events).await;
        }
        if !any {
            let state = self.client.job(self.job).await?.job.state.name();
            let text = format!("{} has no log yet: it is {state}", self.job.short());
            self.show(Item::Notice(text)).await;
        }
        Ok(Exit::Passed)
    }

    /// Shows everything up to the end of the job.
    async fn follow(&self) -> Result<Exit, ClientError> {
        let mut follow = Follow::new(self.client.clone(), self.job);
        let mut exit = Exit::Passed;
        while let Some(events) = follow.next().await? {
            if let Some(finished) = self.show_all(events).await {
                let (word, _) = result(&finished);
                let text = format!("{} is over: {word}", self.job.short());
                self.show(Item::Notice(text)).await;
                exit = exit_of(&finished);
            }
        }
        Ok(exit)
    }

    async fn show_all(&self, events: Vec<JobEvent>) -> Option<Finished> {
        let mut end = None;
        for event in events {
            if let EventBody::Finished(finished) = &event.event {
                end = Some(finished.clone());
            }
            self.show(Item::Event(event)).await;
        }
        end
    }

    async fn show(&self, item: Item) {
        self.screen.show(item, &self.stop.cancel).await;
    }
}

/// The exit code that `solstice run` has for such a job.
fn exit_of(finished: &Finished) -> Exit {
    match finished.result {
        _ if finished.infrastructure.is_some() => Exit::Infrastructure,
        JobResult::Success | JobResult::Skipped => Exit::Passed,
        // 130 is for a user who cancels this command.
        JobResult::Failure | JobResult::Cancelled => Exit::Failed,
    }
}
