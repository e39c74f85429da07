//! The way of everything that the engine says: batches of log lines and single events, in order and
//! at the pace at which the spool takes them.

use std::convert::Infallible;
use std::time::Duration;

use common::Timestamp;
use common::event::{Annotation, AnnotationLevel, LogBatch, LogLine, Stream};
use common::guest::GuestEvent;
use common::limits::{LOG_BATCH_BYTES, LOG_BATCH_DELAY, LOG_LINE_BYTES};
use tokio::time::{Instant, sleep_until};

use crate::job::Job;

/// Lines in one batch, whatever their length.
const BATCH_LINES: usize = 1024;

/// How long a line waits for company; shorter than [`LOG_BATCH_DELAY`] by what the way may add.
const FLUSH_DELAY: Duration = LOG_BATCH_DELAY.saturating_sub(Duration::from_millis(10));

/// The log of a job.
pub(crate) struct Log<'a> {
    job: &'a Job,
    step: Option<u32>,
    lines: Vec<LogLine>,
    bytes: usize,
    /// When the lines that wait must be sent: at once if nothing was sent for a while.
    due: Instant,
}

impl<'a> Log<'a> {
    pub(crate) fn new(job: &'a Job) -> Self {
        Self { job, step: None, lines: Vec::new(), bytes: 0, due: Instant::now() }
    }

    /// Says to which step the lines that follow belong.
    pub(crate) async fn enter(&mut self, step: Option<u32>) {
        self.flush().await;
        self.step = step;
    }

    /// Adds a line.
    pub(crate) async fn line(&mut self, stream: Stream, text: String) {
        let mut text = text.into_bytes();
        text.truncate(LOG_LINE_BYTES);
        if self.bytes + text.len() > LOG_BATCH_BYTES || self.lines.len() >= BATCH_LINES {
            self.flush().await;
        }
        self.bytes += text.len();
        self.lines.push(LogLine { time: Timestamp::now(), stream, text: text.into() });
    }

    /// Adds lines of the engine itself.
    pub(crate) async fn say(&mut self, text: &str) {
        for line in text.lines() {
            self.line(Stream::Runner, line.to_owned()).await;
        }
    }

    /// Reports an error of the current step: a line and an annotation.
    pub(crate) async fn error(&mut self, message: &str) {
        self.say(&format!("##[error]{message}")).await;
        if let Some(step) = self.step {
            self.event(GuestEvent::Annotation(Annotation {
                step,
                level: AnnotationLevel::Error,
                message: message.to_owned(),
                title: None,
                file: None,
                line: None,
                end_line: None,
                column: None,
                end_column: None,
            }))
            .await;
        }
    }

    /// Adds an event behind the lines that were written before it.
    pub(crate) async fn event(&mut self, event: GuestEvent) {
        self.flush().await;
        self.job.room().await;
        self.job.push(event);
    }

    /// Sends the lines that wait. May be dropped without loss.
    pub(crate) async fn flush(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        self.job.room().await;
        let lines = std::mem::take(&mut self.lines);
        self.bytes = 0;
        self.job.push(GuestEvent::Log(LogBatch { step: self.step, lines }));
        self.due = Instant::now() + FLUSH_DELAY;
    }

    /// Sends lines when it is time. May be dropped without loss.
    pub(crate) async fn idle(&mut self) -> Infallible {
        if !self.lines.is_empty() {
            sleep_until(self.due).await;
            self.flush().await;
        }
        std::future::pending().await
    }

    /// Sends lines for which it is time, while the step goes on writing.
    pub(crate) async fn flush_due(&mut self) {
        if self.due <= Instant::now() {
            self.flush().await;
        }
    }
}
