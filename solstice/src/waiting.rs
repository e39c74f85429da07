//! A line that says what the command waits for.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::message;

/// How often the line is redrawn.
const REDRAW: Duration = Duration::from_millis(125);

/// What the command waits for: one line that redraws itself on a terminal, a line for each change
/// elsewhere. Gone when dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    bar: Option<ProgressBar>,
    said: String,
}

impl Waiting {
    /// Shows a text.
    pub(crate) fn start(text: &str) -> Self {
        let bar = io::stderr().is_terminal().then(ProgressBar::new_spinner);
        let mut waiting = Self { bar, said: String::new() };
        waiting.say(text);
        waiting
    }

    /// Shows another text.
    pub(crate) fn say(&mut self, text: &str) {
        if self.said == text {
            return;
        }
        text.clone_into(&mut self.said);
        match &self.bar {
            Some(bar) => {
                bar.enable_steady_tick(REDRAW);
                bar.set_style(spinner());
                bar.set_message(message::visible(text).replace('\n', " "));
            }
            None => message::notice(text),
        }
    }

    /// Takes the line away until the next text, so that a question can be asked.
    pub(crate) fn pause(&mut self) {
        self.said.clear();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            let bar = ProgressBar::new_spinner();
            self.bar = Some(bar);
        }
    }

    /// Shows how many bytes of a download have come.
    pub(crate) fn bytes(&mut self, text: &str, done: u64, total: Option<u64>) {
        let Some(bar) = &self.bar else {
            self.say(text);
            return;
        };
        if self.said != text {
            text.clone_into(&mut self.said);
            bar.set_message(text.to_owned());
            bar.set_style(if total.is_some() { bytes_of() } else { spinner() });
        }
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(done);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}")
        .expect("the template is constant")
}

fn bytes_of() -> ProgressStyle {
    ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}")
        .expect("the template is constant")
}
