//! What happens before and between log lines: a line that redraws itself on a terminal, plain lines
//! elsewhere.

use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::report::human_duration;

/// How often the line on a terminal is redrawn.
const REDRAW: Duration = Duration::from_millis(125);

/// The longest line, in characters; a wrapped line could not be redrawn.
const LINE_CHARACTERS: usize = 72;

/// Where progress is shown.
pub(crate) enum Progress {
    /// One line at the bottom of a terminal.
    Line {
        /// Draws itself.
        bar: ProgressBar,
        /// What it shows.
        status: Arc<Mutex<Status>>,
        /// Whether it is on the terminal now.
        shown: bool,
    },
    /// A line for each change.
    Plain(Box<dyn Write + Send>),
    /// Nowhere.
    #[cfg(test)]
    Hidden,
}

/// What the line shows.
#[derive(Debug, Default)]
pub(crate) struct Status {
    /// Each running job: its name, what it does, since when.
    pub(crate) jobs: Vec<(String, String, Instant)>,
}

impl Progress {
    /// A line at the bottom of the terminal that standard error is.
    pub(crate) fn line() -> Self {
        let status = Arc::new(Mutex::new(Status::default()));
        let shown = Arc::clone(&status);
        let style = ProgressStyle::with_template("{spinner} {status}")
            .expect("the template is constant")
            .with_key("status", move |_: &ProgressState, out: &mut dyn fmt::Write| {
                let status = shown.lock().unwrap_or_else(PoisonError::into_inner);
                out.write_str(&status.text()).unwrap_or_default();
            });
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_style(style);
        Self::Line { bar, status, shown: false }
    }

    /// A line of text for each change.
    pub(crate) fn plain(sink: Box<dyn Write + Send>) -> Self {
        Self::Plain(sink)
    }

    /// Runs something that writes to the terminal, with the line out of the way.
    pub(crate) fn suspended<T>(&self, write: impl FnOnce() -> T) -> T {
        match self {
            Self::Line { bar, .. } => bar.suspend(write),
            _ => write(),
        }
    }

    /// Whether changes are to be given to [`Progress::say`].
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Writes a line where progress is plain.
    pub(crate) fn say(&mut self, text: &str) {
        if let Self::Plain(sink) = self {
            // Standard error may be closed; the log goes on without it.
            drop(sink.write_all(format!("{text}\n").as_bytes()));
        }
    }

    /// Changes what the line shows; without a running job there is no line.
    pub(crate) fn set(&mut self, change: impl FnOnce(&mut Status)) {
        let Self::Line { bar, status, shown } = self else { return };
        let active = {
            let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut status);
            !status.jobs.is_empty()
        };
        if active && !*shown {
            *shown = true;
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.enable_steady_tick(REDRAW);
        } else if !active {
            self.clear();
        }
    }

    /// Removes the line.
    pub(crate) fn clear(&mut self) {
        if let Self::Line { bar, shown, .. } = self
            && std::mem::take(shown)
        {
            bar.disable_steady_tick();
            bar.finish_and_clear();
            bar.set_draw_target(ProgressDrawTarget::hidden());
            // A bar that has finished draws nothing; it may be needed again.
            bar.reset();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Status {
    /// Puts a job's activity in, or replaces it.
    pub(crate) fn activity(&mut self, job: &str, activity: String, since: Instant) {
        match self.jobs.iter_mut().find(|(name, ..)| name == job) {
            Some(entry) => (entry.1, entry.2) = (activity, since),
            None => self.jobs.push((job.to_owned(), activity, since)),
        }
    }

    /// Takes a job out.
    pub(crate) fn remove(&mut self, job: &str) {
        self.jobs.retain(|(name, ..)| name != job);
    }

    fn text(&self) -> String {
        let parts: Vec<String> = self
            .jobs
            .iter()
            .map(|(job, activity, since)| {
                format!("{job}: {activity} {}", human_duration(since.elapsed()))
            })
            .collect();
        let text = parts.join("  ");
        if text.chars().count() <= LINE_CHARACTERS {
            return text;
        }
        let cut: String = text.chars().take(LINE_CHARACTERS - 1).collect();
        format!("{cut}…")
    }
}

/// Standard error as a sink that several may share in tests.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct Shared(pub(crate) Arc<Mutex<Vec<u8>>>);

#[cfg(test)]
impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_every_job_and_is_cut_before_it_wraps() {
        let mut status = Status::default();
        let now = Instant::now();
        status.activity("build", "boot".to_owned(), now);
        status.activity("build", "steps".to_owned(), now);
        assert_eq!(status.text(), "build: steps 0.0s");
        status.activity("test", "x".repeat(100), now);
        assert_eq!(status.text().chars().count(), LINE_CHARACTERS);
        status.remove("test");
        status.remove("build");
        assert_eq!(status.text(), "");
    }
}
