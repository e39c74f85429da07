//! A job's events as frames, for as long as the client reads them.
//!
//! Nothing is read ahead: the next events are taken from the backend when the connection has room
//! for them, so a slow reader slows its own stream and costs no memory. A frame is sent at least
//! every [`KEEP_ALIVE`], so that a client that is gone is noticed, and a client notices a service
//! that is gone.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Bytes;
use common::event::{EventBody, JobEvent};
use common::frame::{self, FrameError};
use common::ids::JobId;
use futures_util::stream::{Stream, StreamExt, unfold};
use tokio::time::{sleep, timeout};

use super::routes::Api;
use super::wire::{Place, StreamPart};
use super::{ApiError, ApiErrorKind, Backend, Events, Extent};
use crate::store::JobState;

/// The longest time without a frame.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How long after it was asked for the events of a job that has none the backend is asked again: at
/// first, and at most.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The frames of a job's events behind a place.
///
/// # Errors
/// There is no such job, its events are not kept any more, or they cannot be read.
pub(super) async fn frames<B: Backend>(
    api: Api<B>,
    job: JobId,
    extent: Extent,
    after: Place,
) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + Send, ApiError> {
    let mut feed = Feed {
        api,
        job,
        extent,
        after,
        events: None,
        frames: VecDeque::new(),
        ask_again: ASK_AGAIN.0,
        over: false,
    };
    feed.open().await?;
    Ok(unfold(feed, async |mut feed| Some((Ok(feed.next().await?), feed))))
}

/// No such job.
pub(super) fn unknown_job(job: JobId) -> ApiError {
    ApiError::new(ApiErrorKind::NotFound, format!("there is no job {job}"))
        .hint("`solstice jobs --all` lists those that are known")
}

struct Feed<B> {
    api: Api<B>,
    job: JobId,
    extent: Extent,
    /// The last event that the client has.
    after: Place,
    /// Absent while the job has no events.
    events: Option<Events>,
    /// Frames that are encoded and not taken.
    frames: VecDeque<Bytes>,
    ask_again: Duration,
    over: bool,
}

impl<B: Backend> Feed<B> {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            if self.over {
                return None;
            }
            let stop = self.api.stop.clone();
            let turn = tokio::select! {
                biased;
                () = stop.cancelled() => Err(stopping()),
                turn = timeout(KEEP_ALIVE, self.turn()) => match turn {
                    Ok(turn) => turn,
                    Err(_) => {
                        self.push(&StreamPart::Alive);
                        Ok(())
                    }
                },
            };
            if let Err(error) = turn {
                self.fail(error);
            }
        }
    }

    /// Takes some events, or asks again for the first. Safe to cancel.
    async fn turn(&mut self) -> Result<(), ApiError> {
        let Some(events) = &mut self.events else {
            sleep(self.ask_again).await;
            self.ask_again = (2 * self.ask_again).min(ASK_AGAIN.1);
            return self.open().await;
        };
        match events.next().await {
            Some(events) => self.take(events?),
            None if self.extent == Extent::Written => {
                self.over = true;
                Ok(())
            }
            None => {
                let text = "the events broke off before the job's final one";
                Err(ApiError::new(ApiErrorKind::Unavailable, text))
            }
        }
    }

    async fn open(&mut self) -> Result<(), ApiError> {
        let backend = &self.api.backend;
        self.events = backend.follow(self.job, self.extent).await?;
        if self.events.is_some() {
            return Ok(());
        }
        let detail = backend.job(self.job).await?.ok_or_else(|| unknown_job(self.job))?;
        if detail.job.state == JobState::Done {
            // It may have ended between the two questions.
            self.events = backend.follow(self.job, self.extent).await?;
            return self.events.as_ref().map(drop).ok_or_else(|| {
                let text = format!("the log of job {} is not kept any more", self.job);
                ApiError::new(ApiErrorKind::Gone, text)
            });
        }
        self.over = self.extent == Extent::Written;
        Ok(())
    }

    fn take(&mut self, mut events: Vec<JobEvent>) -> Result<(), ApiError> {
        let last = events.iter().any(|event| matches!(event.event, EventBody::Finished(_)));
        events.retain(|event| Place::of(event) > self.after);
        self.encode(events)?;
        self.over |= last;
        Ok(())
    }

    /// Makes frames of events, as few as the limit of a frame allows.
    fn encode(&mut self, mut events: Vec<JobEvent>) -> Result<(), ApiError> {
        if events.is_empty() {
            return Ok(());
        }
        let part = StreamPart::Events(events);
        match frame::encode(&part) {
            Ok(frame) => {
                self.frames.push_back(frame.into());
                return Ok(());
            }
            Err(FrameError::TooLong { .. }) => {}
            Err(error) => return Err(internal(&error)),
        }
        let StreamPart::Events(taken) = part else { return Ok(()) };
        events = taken;
        if events.len() == 1 {
            return Err(internal(&"one event is over the limit of a frame"));
        }
        let rest = events.split_off(events.len() / 2);
        self.encode(events)?;
        self.encode(rest)
    }

    fn fail(&mut self, error: ApiError) {
        self.over = true;
        let status = error.kind().status().as_u16();
        self.push(&StreamPart::Failed { status, error: error.into_body() });
    }

    fn push(&mut self, part: &StreamPart) {
        // A part without events is far below the limit; the stream just ends if it were not.
        match frame::encode(part) {
            Ok(frame) => self.frames.push_back(frame.into()),
            Err(_) => self.over = true,
        }
    }
}

fn stopping() -> ApiError {
    ApiError::new(ApiErrorKind::Unavailable, "the service stops")
}

fn internal(error: &impl std::fmt::Display) -> ApiError {
    ApiError::new(ApiErrorKind::Internal, format!("events cannot be sent: {error}"))
}
