//! One object per line: each event with the name of its job, and the report last.

use std::collections::HashMap;
use std::io;

use common::event::JobEvent;
use common::ids::JobId;
use serde::Serialize;

use super::report::Report;
use super::{Item, Output, Render};
use crate::message;

/// Renders for programs.
pub(crate) struct Json {
    output: Output,
    /// The names of the jobs that were started.
    names: HashMap<JobId, String>,
}

/// An event as it is, and beside it what people call its job.
#[derive(Serialize)]
struct Named<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(flatten)]
    event: &'a JobEvent,
}

/// The last line.
#[derive(Serialize)]
struct Last<'a> {
    summary: &'a Report,
}

impl Json {
    pub(crate) fn new(output: Output) -> Self {
        Self { output, names: HashMap::new() }
    }
}

impl Render for Json {
    fn item(&mut self, item: Item) -> io::Result<()> {
        match item {
            Item::Started(started) => {
                self.names.insert(started.id, started.name);
                Ok(())
            }
            Item::Event(event) => {
                let name = self.names.get(&event.job).map(String::as_str);
                line(&mut self.output, &Named { name, event: &event })
            }
            Item::Notice(text) => {
                message::notice(&text);
                Ok(())
            }
            Item::Report(report) => line(&mut self.output, &Last { summary: &report }),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

fn line(output: &mut Output, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(output.buffer(), value)?;
    output.end_line()
}
