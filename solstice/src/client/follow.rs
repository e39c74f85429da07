//! A job's events as they happen, across lost connections and a restart of the service.

use std::path::PathBuf;
use std::time::Duration;

use common::event::{EventBody, JobEvent};
use common::frame::Decoder;
use common::ids::JobId;
use orchestrator::api::Extent;
use orchestrator::api::wire::{Place, StreamPart};
use reqwest::Response;
use tokio::time::{Instant, sleep, timeout};

use super::{Client, ClientError};
use crate::message;

/// The longest silence of a stream; the service sends something every ten seconds.
const SILENCE: Duration = Duration::from_secs(60);

/// How long a service may be away, as it is when it restarts.
pub(crate) const AWAY: Duration = Duration::from_secs(60);

/// Between two attempts to reach it.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

/// One stream of events.
#[derive(Debug)]
pub(crate) struct EventStream {
    socket: PathBuf,
    response: Response,
    decoder: Decoder,
}

impl EventStream {
    pub(super) fn new(socket: PathBuf, response: Response) -> Self {
        Self { socket, response, decoder: Decoder::default() }
    }

    /// The next events; none when there were none for a while, `None` at the end of the stream. Safe
    /// to cancel.
    ///
    /// # Errors
    /// The stream broke, or the service says why it ends.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<JobEvent>>, ClientError> {
        loop {
            let part = self.decoder.next_frame::<StreamPart>().map_err(|error| {
                ClientError::Answer { socket: self.socket.clone(), reason: error.to_string() }
            })?;
            match part {
                Some(StreamPart::Events(events)) => return Ok(Some(events)),
                Some(StreamPart::Alive) => return Ok(Some(Vec::new())),
                Some(StreamPart::Failed { status, error }) => {
                    return Err(ClientError::Refused { status, error });
                }
                None => {}
            }
            match timeout(SILENCE, self.response.chunk()).await {
                Ok(Ok(Some(bytes))) => self.decoder.push(&bytes),
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Err(ClientError::from_transport(&self.socket, &error)),
                Err(_) => {
                    let reason = format!("silent for {} s", SILENCE.as_secs());
                    return Err(ClientError::Lost { socket: self.socket.clone(), reason });
                }
            }
        }
    }
}

/// A job's events up to its final one, each once and in order.
#[derive(Debug)]
pub(crate) struct Follow {
    client: Client,
    job: JobId,
    stream: Option<EventStream>,
    /// The last event that was given out.
    last: Place,
    over: bool,
    /// Since when nothing came, and what happened then.
    lost: Option<(Instant, ClientError)>,
}

impl Follow {
    /// From the first event on.
    pub(crate) fn new(client: Client, job: JobId) -> Self {
        Self { client, job, stream: None, last: Place::default(), over: false, lost: None }
    }

    /// The next events, perhaps none; `None` after the final one. Safe to cancel.
    ///
    /// # Errors
    /// The service was away for longer than [`AWAY`], or it has no such events.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<JobEvent>>, ClientError> {
        loop {
            if self.over {
                return Ok(None);
            }
            let error = match self.turn().await {
                Ok(events) => return Ok(Some(self.take(events))),
                Err(error) => error,
            };
            self.stream = None;
            let since = match &self.lost {
                Some((since, _)) => *since,
                None => Instant::now(),
            };
            if !error.may_pass() || since.elapsed() >= AWAY {
                return Err(error);
            }
            if self.lost.is_none() {
                let seconds = AWAY.as_secs();
                message::notice(&format!("{error}; waiting for it for {seconds} s"));
            }
            self.lost = Some((since, error));
        }
    }

    async fn turn(&mut self) -> Result<Vec<JobEvent>, ClientError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                if self.lost.is_some() {
                    sleep(PAUSE).await;
                }
                let events = self.client.events(self.job, Extent::Final, self.last).await?;
                self.stream.insert(events)
            }
        };
        stream.next().await?.ok_or_else(|| ClientError::Lost {
            socket: self.client.socket.clone(),
            reason: "the stream of events ended early".to_owned(),
        })
    }

    fn take(&mut self, mut events: Vec<JobEvent>) -> Vec<JobEvent> {
        if self.lost.take().is_some() {
            message::notice("the service is back");
        }
        events.retain(|event| {
            let place = Place::of(event);
            let new = place > self.last;
            self.last = self.last.max(place);
            new
        });
        self.over = events.iter().any(|event| matches!(event.event, EventBody::Finished(_)));
        events
    }
}
