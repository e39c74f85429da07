//! The way of everything that the engine says: batches of log lines and single events, in order.

use std::collections::HashSet;
use std::time::Duration;

use common::event::{Annotation, AnnotationLevel, Conclusion, LogBatch, LogLine, Stream, Summary};
use common::guest::GuestEvent;
use common::limits::{
    ANNOTATION_CHARACTERS, ANNOTATIONS_PER_STEP, LOG_BATCH_BYTES, LOG_BATCH_DELAY, LOG_BYTES,
    LOG_LINE_BYTES, LOG_LINES, MASKS, SUMMARY_BYTES,
};
use common::request::Secret;
use common::{LogText, Timestamp};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Lines in one batch, whatever their length: empty lines cost memory too.
const BATCH_LINES: usize = 1024;

/// Lines of the engine itself that still pass when the log of the job is full: what went wrong with
/// the rest of the job must not be lost with its output.
const OWN_LINES: u32 = 1000;

/// How long a line waits for company; shorter than [`LOG_BATCH_DELAY`] by what reading may add.
const FLUSH_DELAY: Duration = LOG_BATCH_DELAY.saturating_sub(Duration::from_millis(10));

/// Sends events in the order in which they happen.
///
/// Sending waits while the channel is full: whoever writes log lines through this is slowed down by
/// whoever reads them. When nobody reads any more, everything is dropped in silence, because the
/// program around the engine is about to end.
pub(super) struct Events {
    sender: mpsc::Sender<GuestEvent>,
    step: Option<u32>,
    lines: Vec<LogLine>,
    /// Bytes in `lines`.
    bytes: usize,
    sent: Instant,
    job_bytes: u64,
    job_lines: u64,
    /// The limits of the job's log, here so that tests can set smaller ones.
    limits: LogLimits,
    /// The log of the job is full.
    muted: bool,
    /// How many lines of the engine may still pass when it is.
    own_lines_left: u32,
    /// Digests of the values that are masked: the values themselves may be long.
    masks: HashSet<[u8; 32]>,
    masks_full: bool,
    /// Annotations of each level in this step.
    annotations: [usize; 3],
    /// The step inside which whole jobs run, and the name of the one that runs.
    within: Option<Inner>,
    /// Bytes of summaries that may still come.
    summary_room: usize,
}

/// A job inside a step.
#[derive(Debug)]
pub(super) struct Inner {
    step: u32,
    /// What its steps are announced by; those of an action are not.
    name: Option<String>,
}

/// The limits of a job's log.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogLimits {
    /// Bytes of all lines.
    pub(super) bytes: u64,
    /// Lines.
    pub(super) lines: u64,
}

impl LogLimits {
    /// The limits of every job.
    pub(super) const JOB: Self = Self { bytes: LOG_BYTES, lines: LOG_LINES };
}

impl Events {
    /// Starts with the lines before the first step. `masks` are known to the reader already.
    pub(super) fn new(
        sender: mpsc::Sender<GuestEvent>,
        limits: LogLimits,
        masks: impl IntoIterator<Item = String>,
    ) -> Self {
        let sent = Instant::now();
        Self {
            sender,
            step: None,
            lines: Vec::new(),
            bytes: 0,
            // The first line is sent at once.
            sent: sent.checked_sub(FLUSH_DELAY).unwrap_or(sent),
            job_bytes: 0,
            job_lines: 0,
            limits,
            muted: false,
            own_lines_left: OWN_LINES,
            masks: masks.into_iter().map(|value| digest(&value)).collect(),
            masks_full: false,
            annotations: [0; 3],
            within: None,
            summary_room: 0,
        }
    }

    /// What follows is of a job inside this step, up to [`Self::end_within`]: its lines, findings and
    /// summaries are the step's, and the begin and the end of its own steps are lines.
    /// Without a name its steps are not announced. Gives what to end it with.
    pub(super) fn begin_within(&mut self, step: u32, name: Option<String>) -> Option<Inner> {
        let step = self.within.as_ref().map_or(step, |outer| outer.step);
        self.within.replace(Inner { step, name })
    }

    /// The step of the job, while a job inside it runs.
    pub(super) fn outer_step(&self) -> Option<u32> {
        self.within.as_ref().map(|outer| outer.step)
    }

    /// So many bytes of summaries may come: those that all steps of the job may write.
    pub(super) fn set_summary_room(&mut self, steps: usize) {
        self.summary_room = steps.saturating_mul(SUMMARY_BYTES);
    }

    /// Whether a summary still finds room, which it takes.
    pub(super) fn has_summary_room(&mut self, bytes: usize) -> bool {
        let rest = self.summary_room.checked_sub(bytes);
        self.summary_room = rest.unwrap_or(self.summary_room);
        rest.is_some()
    }

    /// What follows is again of what was before.
    pub(super) fn end_within(&mut self, before: Option<Inner>) {
        self.within = before;
    }

    /// Says to which step the lines that follow belong.
    pub(super) async fn enter(&mut self, step: Option<u32>) {
        self.flush().await;
        if self.within.is_none() {
            self.step = step;
            self.annotations = [0; 3];
        }
    }

    /// Adds a line to the log. Lines over [`LOG_LINE_BYTES`] are cut without a notice: those of
    /// processes were cut before.
    pub(super) async fn line(&mut self, time: Timestamp, stream: Stream, mut text: Vec<u8>) {
        text.truncate(LOG_LINE_BYTES);
        if !self.muted {
            self.job_lines += 1;
            self.job_bytes += text.len() as u64;
            if self.job_lines > self.limits.lines || self.job_bytes > self.limits.bytes {
                self.muted = true;
                self.push(time, Stream::Runner, self.full_notice().into_bytes()).await;
            }
        }
        if self.muted {
            if stream != Stream::Runner || self.own_lines_left == 0 {
                return;
            }
            self.own_lines_left -= 1;
        }
        self.push(time, stream, text).await;
    }

    async fn push(&mut self, time: Timestamp, stream: Stream, text: Vec<u8>) {
        if self.bytes + text.len() > LOG_BATCH_BYTES || self.lines.len() >= BATCH_LINES {
            self.flush().await;
        }
        self.bytes += text.len();
        self.lines.push(LogLine { time, stream, text: LogText::from(text) });
    }

    /// Adds text of the engine itself to the log, a line for each of its lines.
    pub(super) async fn say(&mut self, time: Timestamp, text: &str) {
        for line in text.lines() {
            self.line(time, Stream::Runner, line.as_bytes().to_vec()).await;
        }
    }

    /// Reports an error of the current step: a line in the log and an annotation.
    pub(super) async fn error(&mut self, time: Timestamp, message: &str) {
        self.say(time, &format!("##[error]{message}")).await;
        if let Some(step) = self.step {
            self.annotation(Annotation {
                step,
                level: AnnotationLevel::Error,
                message: message.to_owned(),
                title: None,
                file: None,
                line: None,
                end_line: None,
                column: None,
                end_column: None,
            })
            .await;
        }
    }

    /// Reports a warning: a line in the log.
    pub(super) async fn warning(&mut self, time: Timestamp, message: &str) {
        self.say(time, &format!("##[warning]{message}")).await;
    }

    /// Sends an annotation, as long as the step has not had too many of its level.
    pub(super) async fn annotation(&mut self, mut annotation: Annotation) {
        let count = match annotation.level {
            AnnotationLevel::Notice => &mut self.annotations[0],
            AnnotationLevel::Warning => &mut self.annotations[1],
            AnnotationLevel::Error => &mut self.annotations[2],
        };
        if *count == ANNOTATIONS_PER_STEP {
            return;
        }
        *count += 1;
        let cut = common::text::cut(&annotation.message, ANNOTATION_CHARACTERS).len();
        annotation.message.truncate(cut);
        self.event(GuestEvent::Annotation(annotation)).await;
    }

    /// Makes a value and each of its lines invisible in everything that follows.
    pub(super) async fn mask(&mut self, time: Timestamp, value: &str) {
        let lines = value.lines().map(str::trim).filter(|line| !line.is_empty());
        for part in std::iter::once(value.trim()).chain(lines) {
            if part.is_empty() || self.masks.contains(&digest(part)) {
                continue;
            }
            if self.masks.len() >= MASKS {
                if !self.masks_full {
                    self.masks_full = true;
                    let notice = format!(
                        "This job masks more than {MASKS} values; further ones are NOT masked."
                    );
                    self.warning(time, &notice).await;
                }
                return;
            }
            self.masks.insert(digest(part));
            self.event(GuestEvent::Mask(Secret::new(part))).await;
        }
    }

    /// Sends an event after the lines that were written before it.
    pub(super) async fn event(&mut self, event: GuestEvent) {
        let event = match &self.within {
            None => event,
            Some(Inner { step, name }) => match within(*step, name.as_deref(), event) {
                Within::Event(event) => event,
                Within::Line(time, line) => return self.say(time, &line).await,
                Within::Nothing => return,
            },
        };
        self.flush().await;
        self.send(event).await;
    }

    /// Sends the lines that wait.
    pub(super) async fn flush(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let capacity = self.lines.len();
        let lines = std::mem::replace(&mut self.lines, Vec::with_capacity(capacity));
        self.bytes = 0;
        self.send(GuestEvent::Log(LogBatch { step: self.step, lines })).await;
        self.sent = Instant::now();
    }

    /// When the lines that wait must be sent; `None` when none wait. In the past when nothing was
    /// sent for a while: then the first line need not wait for company.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.lines.is_empty()).then(|| self.sent + FLUSH_DELAY)
    }

    async fn send(&mut self, event: GuestEvent) {
        // Fails only when the receiver is gone; see the type's documentation.
        drop(self.sender.send(event).await);
    }

    fn full_notice(&self) -> String {
        format!(
            "##[warning]The log of this job has reached its limit of {} MiB or {} lines; the job \
             goes on, its output from here on is not kept.",
            self.limits.bytes / (1024 * 1024),
            self.limits.lines
        )
    }
}

/// What is left of an event of a job inside a step.
enum Within {
    Event(GuestEvent),
    Line(Timestamp, String),
    Nothing,
}

fn within(step: u32, job: Option<&str>, event: GuestEvent) -> Within {
    match (event, job) {
        (GuestEvent::StepStarted(begin), Some(job)) => {
            Within::Line(begin.time, format!("##[section]{job}: {}", begin.name))
        }
        (GuestEvent::StepFinished(end), Some(job)) if end.conclusion == Conclusion::Skipped => {
            Within::Line(end.time, format!("##[section]{job}: {} is skipped", end.name))
        }
        (event, _) => within_any(step, event),
    }
}

fn within_any(step: u32, event: GuestEvent) -> Within {
    match event {
        GuestEvent::StepStarted(_)
        | GuestEvent::StepFinished(_)
        | GuestEvent::Outputs(_)
        | GuestEvent::Finished(_) => Within::Nothing,
        GuestEvent::Annotation(found) => {
            Within::Event(GuestEvent::Annotation(Annotation { step, ..found }))
        }
        GuestEvent::Summary(summary) => {
            Within::Event(GuestEvent::Summary(Summary { step, ..summary }))
        }
        other => Within::Event(other),
    }
}

fn digest(value: &str) -> [u8; 32] {
    Sha256::digest(value).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time() -> Timestamp {
        Timestamp::from_micros(0)
    }

    fn batches(receiver: &mut mpsc::Receiver<GuestEvent>) -> Vec<Vec<String>> {
        let mut batches = Vec::new();
        while let Ok(event) = receiver.try_recv() {
            if let GuestEvent::Log(batch) = event {
                batches.push(
                    batch.lines.iter().map(|line| line.text.to_text().into_owned()).collect(),
                );
            }
        }
        batches
    }

    async fn fill(limits: LogLimits, lines: &[&str]) -> Vec<Vec<String>> {
        let (sender, mut receiver) = mpsc::channel(10_000);
        let mut events = Events::new(sender, limits, []);
        for line in lines {
            events.line(time(), Stream::Stdout, line.as_bytes().to_vec()).await;
        }
        events.flush().await;
        batches(&mut receiver)
    }

    #[tokio::test]
    async fn batches_are_bounded_in_bytes_and_lines() {
        let long = "x".repeat(LOG_BATCH_BYTES / 2);
        let got = fill(LogLimits::JOB, &[&long, &long, &long]).await;
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        let got = fill(LogLimits::JOB, &[""; BATCH_LINES + 1]).await;
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [BATCH_LINES, 1]);
    }

    #[tokio::test]
    async fn a_full_log_gets_one_notice() {
        for limits in [LogLimits { bytes: 2, lines: 100 }, LogLimits { bytes: 100, lines: 2 }] {
            let got = fill(limits, &["a", "b", "c", "d"]).await.concat();
            assert_eq!(got[..2], ["a", "b"]);
            assert!(got[2].contains("reached its limit"), "{got:?}");
            assert_eq!(got.len(), 3);
        }
    }

    #[tokio::test]
    async fn what_the_engine_says_passes_a_full_log_within_bounds() {
        let (sender, mut receiver) = mpsc::channel(10_000);
        let mut events = Events::new(sender, LogLimits { bytes: 100, lines: 1 }, []);
        events.line(time(), Stream::Stdout, b"a".to_vec()).await;
        events.error(time(), "this filled it").await;
        events.line(time(), Stream::Stdout, b"b".to_vec()).await;
        for _ in 0..2 * OWN_LINES {
            events.error(time(), "lost").await;
        }
        events.flush().await;
        let got = batches(&mut receiver).concat();
        assert!(got[1].contains("reached its limit"), "{got:?}");
        assert_eq!(got[2..4], ["##[error]this filled it", "##[error]lost"]);
        assert_eq!(got.len(), 2 + OWN_LINES as usize);
    }

    #[tokio::test]
    async fn a_mask_comes_after_what_was_said_before_it_and_once() {
        let (sender, mut receiver) = mpsc::channel(100);
        let mut events = Events::new(sender, LogLimits::JOB, ["known".to_owned()]);
        events.say(time(), "before").await;
        events.mask(time(), " a\n b \n\nknown").await;
        events.mask(time(), "b").await;
        let mut got = Vec::new();
        while let Ok(event) = receiver.try_recv() {
            got.push(match event {
                GuestEvent::Mask(secret) => secret.expose().to_owned(),
                GuestEvent::Log(_) => "log".to_owned(),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(got, ["log", "a\n b \n\nknown", "a", "b"]);
    }

    #[tokio::test]
    async fn annotations_are_bounded_for_each_level() {
        let (sender, mut receiver) = mpsc::channel(100);
        let mut events = Events::new(sender, LogLimits::JOB, []);
        events.enter(Some(1)).await;
        for _ in 0..20 {
            events.error(time(), &"é".repeat(ANNOTATION_CHARACTERS + 1)).await;
        }
        let mut count = 0;
        while let Ok(event) = receiver.try_recv() {
            if let GuestEvent::Annotation(annotation) = event {
                assert_eq!(annotation.message.chars().count(), ANNOTATION_CHARACTERS);
                count += 1;
            }
        }
        assert_eq!(count, ANNOTATIONS_PER_STEP);
    }
}
