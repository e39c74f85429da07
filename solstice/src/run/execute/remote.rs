//! Jobs that the service of this host runs.

use std::path::PathBuf;
use std::time::Duration;

use common::event::{EventBody, Finished, JobEvent, JobResult, LogBatch, LogLine, Stream};
use common::ids::JobId;
use common::infrastructure::{Cause, Infrastructure};
use common::request::JobRequest;
use common::text::LogText;
use common::time::Timestamp;
use orchestrator::api::Health;
use orchestrator::api::wire::Place;
use orchestrator::store::LabelOffer;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::{JobControl, Labels, Runner};
use crate::client::{AWAY, Client, ClientError, Follow, PAUSE};
use crate::exit::CommandError;
use crate::message;
use crate::settings::Settings;

/// How long the service may take to destroy a job's machine and say so.
const DESTROY: Duration = Duration::from_secs(10);

/// Below this similarity a suggestion confuses more than it helps.
const SIMILAR: f64 = 0.7;

/// The service of this host.
#[derive(Debug)]
pub(crate) struct Remote {
    client: Client,
    labels: Vec<LabelOffer>,
}

impl Remote {
    /// The service, if one answers that this user may use, and says on standard error which one it
    /// is.
    ///
    /// # Errors
    /// There is one, but it cannot be used.
    pub(crate) async fn find(settings: &Settings) -> Result<Option<Self>, CommandError> {
        let standalone = |error: ClientError| {
            CommandError::from(error).hint("--standalone runs the jobs without the service")
        };
        let client = Client::open(&settings.socket_path()).map_err(standalone)?;
        let health = match client.health().await {
            Ok(health) => health,
            Err(ClientError::Absent { .. }) => return Ok(None),
            Err(error @ ClientError::Denied { .. }) => {
                message::warning(&format!("{error}; the jobs run without it"));
                return Ok(None);
            }
            Err(error) => return Err(standalone(error)),
        };
        let labels = client.labels().await.map_err(standalone)?;
        if labels.is_empty() {
            return Err(nothing_new(&client, &health));
        }
        message::notice(&format!(
            "jobs run on the service at {} (host {}, version {})",
            client.socket().display(),
            health.name,
            health.version
        ));
        Ok(Some(Self { client, labels }))
    }
}

/// The service's host takes no jobs.
fn nothing_new(client: &Client, health: &Health) -> CommandError {
    let socket = client.socket().display();
    let why = if health.draining { "it drains" } else { "its host runs no label" };
    CommandError::infrastructure(format!("the service at {socket} takes no jobs: {why}"))
        .hint("see `solstice hosts`; --standalone runs the jobs without the service")
}

impl Labels for Remote {
    fn has_label(&self, label: &str) -> Result<(), String> {
        let offered = || self.labels.iter().map(|offer| offer.label.as_str());
        if offered().any(|known| known.eq_ignore_ascii_case(label)) {
            return Ok(());
        }
        let likeness = |known| strsim::jaro_winkler(known, label);
        let nearest = offered().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let hint = match nearest.filter(|known| likeness(known) >= SIMILAR) {
            Some(near) => format!(", did you mean {near:?}?"),
            None => String::new(),
        };
        Err(format!("no host of the service runs the label {label:?}{hint}"))
    }
}

impl Runner for Remote {
    async fn run(
        &self,
        mut request: JobRequest,
        events: mpsc::Sender<JobEvent>,
        control: JobControl,
    ) -> Finished {
        // No forge waits for the events: they are read over the socket.
        request.envelope.reply_to.clear();
        if let Some(tree) = &mut request.body.tree {
            // The service has another working directory.
            *tree = absolute(tree);
        }
        let mut course = Course {
            client: &self.client,
            job: request.envelope.job,
            events,
            control,
            last: Place::default(),
        };
        match course.run(&request).await {
            Ok(finished) => finished,
            Err(end) => course.finish(end).await,
        }
    }
}

fn absolute(path: &std::path::Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

/// Why a job has no final event of the service's.
enum End {
    /// The service cannot be used.
    Infrastructure(Infrastructure),
    /// The user does not wait for it.
    Cancelled,
}

/// One job that the service has.
struct Course<'a> {
    client: &'a Client,
    job: JobId,
    events: mpsc::Sender<JobEvent>,
    control: JobControl,
    /// The last event that was passed on.
    last: Place,
}

impl Course<'_> {
    async fn run(&mut self, request: &JobRequest) -> Result<Finished, End> {
        let destroy = self.control.destroy.clone();
        tokio::select! {
            biased;
            () = destroy.cancelled() => return Err(End::Cancelled),
            submitted = self.submit(request) => submitted?,
        }
        self.follow().await
    }

    /// Hands the job in, waiting for a service that is away.
    async fn submit(&self, request: &JobRequest) -> Result<(), End> {
        let deadline = Instant::now() + AWAY;
        loop {
            let Err(error) = self.client.submit(request).await else { return Ok(()) };
            if !error.may_pass() {
                return Err(refused(&error));
            }
            if self.control.cancel.is_cancelled() {
                return Err(End::Cancelled);
            }
            if Instant::now() >= deadline {
                return Err(lost(&error));
            }
            sleep(PAUSE).await;
        }
    }

    /// Passes the events on, and the wish to end the job.
    async fn follow(&mut self) -> Result<Finished, End> {
        let mut follow = Follow::new(self.client.clone(), self.job);
        let JobControl { cancel, destroy } = self.control.clone();
        // Both are asked for beside the events, which must flow meanwhile.
        let mut cancelling = None;
        let mut destroying = None;
        let mut patience = None;
        loop {
            let next = tokio::select! {
                biased;
                () = destroy.cancelled(), if destroying.is_none() => {
                    destroying = Some(self.ask_to_end(true));
                    patience = Some(Instant::now() + DESTROY);
                    continue;
                }
                () = cancel.cancelled(), if cancelling.is_none() => {
                    cancelling = Some(self.ask_to_end(false));
                    continue;
                }
                () = until(patience) => return Err(End::Cancelled),
                next = follow.next() => next,
            };
            let events = match next {
                Ok(Some(events)) => events,
                // The final event ended this loop before.
                Ok(None) => return Err(End::Cancelled),
                Err(error) if error.may_pass() => return Err(lost(&error)),
                Err(error) => return Err(refused(&error)),
            };
            for event in events {
                let finished = match &event.event {
                    EventBody::Finished(finished) => Some(finished.clone()),
                    _ => None,
                };
                self.last = Place::of(&event);
                let taken = self.events.send(event).await.is_ok();
                if let Some(finished) = finished {
                    return Ok(finished);
                }
                if !taken {
                    // Nobody is left to be told about the job.
                    drop(self.client.cancel(self.job, true).await);
                    return Err(End::Cancelled);
                }
            }
        }
    }

    fn ask_to_end(&self, now: bool) -> AbortOnDropHandle<()> {
        let (client, job) = (self.client.clone(), self.job);
        AbortOnDropHandle::new(tokio::spawn(async move {
            while let Err(error) = client.cancel(job, now).await {
                if !error.may_pass() {
                    message::warning(&format!("the job could not be cancelled: {error}"));
                    return;
                }
                sleep(PAUSE).await;
            }
        }))
    }

    /// Ends the job's events in the service's place.
    async fn finish(&self, end: End) -> Finished {
        let finished = match end {
            End::Cancelled => Finished { result: JobResult::Cancelled, infrastructure: None },
            End::Infrastructure(cause) => {
                Finished { result: JobResult::Failure, infrastructure: Some(cause) }
            }
        };
        let mut bodies = Vec::new();
        if let Some(cause) = &finished.infrastructure {
            bodies.push(EventBody::Log(error_lines(cause)));
        }
        bodies.push(EventBody::Finished(finished.clone()));
        for (seq, body) in (self.last.seq + 1..).zip(bodies) {
            let event = JobEvent {
                job: self.job,
                try_number: self.last.try_number.max(1),
                seq,
                time: Timestamp::now(),
                event: body,
            };
            if self.events.send(event).await.is_err() {
                break;
            }
        }
        finished
    }
}

/// An infrastructure failure as lines of the log.
fn error_lines(cause: &Infrastructure) -> LogBatch {
    let line = |text: String| LogLine {
        time: Timestamp::now(),
        stream: Stream::Runner,
        text: LogText::from(text),
    };
    let error = format!("##[error]{}: {}", cause.cause.code(), cause.message);
    let cure = format!("What to do: {}.", cause.cause.cure());
    LogBatch { step: None, lines: vec![line(error), line(cure)] }
}

fn lost(error: &ClientError) -> End {
    let seconds = AWAY.as_secs();
    let message = format!("{error}; it did not come back within {seconds} s");
    End::Infrastructure(Infrastructure::new(Cause::ServiceLost, message))
}

fn refused(error: &ClientError) -> End {
    End::Infrastructure(Infrastructure::new(Cause::ServiceRefused, error.to_string()))
}

/// Waits until then, or for ever.
async fn until(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
