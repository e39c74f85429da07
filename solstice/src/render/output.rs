//! Standard output behind a buffer, and the progress line that must not mix with it.

use std::io::{self, IsTerminal, Write};

use anstream::ColorChoice;
use anstyle::Style;

use super::progress::Progress;
use crate::stream::Unbuffered;

/// The buffer is written at the latest when it has this many bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// Where rendered text goes.
pub(crate) struct Output {
    buffer: Vec<u8>,
    sink: Box<dyn Write + Send>,
    colours: bool,
    pub(super) progress: Progress,
}

impl Output {
    /// Standard output and standard error of this process.
    pub(crate) fn standard() -> Self {
        let choice = anstream::AutoStream::choice(&io::stdout());
        let progress = if io::stderr().is_terminal() {
            Progress::line()
        } else {
            Progress::plain(Box::new(io::stderr()))
        };
        Self::new(Box::new(Unbuffered(io::stdout())), choice != ColorChoice::Never, progress)
    }

    pub(super) fn new(sink: Box<dyn Write + Send>, colours: bool, progress: Progress) -> Self {
        Self { buffer: Vec::with_capacity(BUFFER_BYTES + 4096), sink, colours, progress }
    }

    /// Whether colours are wanted.
    pub(super) fn colours(&self) -> bool {
        self.colours
    }

    /// The buffer to append whole lines to.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Appends text in a style.
    pub(super) fn styled(&mut self, style: Style, text: &str) {
        if self.colours {
            // Writing to a vector cannot fail.
            drop(write!(self.buffer, "{style}{text}{style:#}"));
        } else {
            self.buffer.extend_from_slice(text.as_bytes());
        }
    }

    /// Ends a line, and writes the buffer if it is full.
    pub(super) fn end_line(&mut self) -> io::Result<()> {
        self.buffer.push(b'\n');
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let Self { buffer, sink, progress, .. } = self;
        let result = progress.suspended(|| {
            sink.write_all(buffer)?;
            sink.flush()
        });
        buffer.clear();
        // One line of many megabytes must not keep its memory.
        buffer.shrink_to(2 * BUFFER_BYTES);
        result
    }
}
