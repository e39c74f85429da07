//! One object per line: each event as it is, and the report last.

use std::io;

use serde::Serialize;

use super::report::Report;
use super::{Item, Output, Render};
use crate::message;

/// Renders for programs.
pub(crate) struct Json {
    output: Output,
}

/// The last line.
#[derive(Serialize)]
struct Last<'a> {
    summary: &'a Report,
}

impl Json {
    pub(crate) fn new(output: Output) -> Self {
        Self { output }
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(self.output.buffer(), value)?;
        self.output.end_line()
    }
}

impl Render for Json {
    fn item(&mut self, item: Item) -> io::Result<()> {
        match item {
            // The events carry the id; the report has the name to it.
            Item::Started(_) => Ok(()),
            Item::Event(event) => self.line(&event),
            Item::Notice(text) => {
                message::notice(&text);
                Ok(())
            }
            Item::Report(report) => self.line(&Last { summary: &report }),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
