//! One row of a task's log.

use std::time::Duration;

use common::event::{LogLine, Stream};
use common::text::LogText;
use common::time::Timestamp;
use forgejo_proto::protobuf;
use forgejo_proto::runner::LogRow;
use serde::{Deserialize, Serialize};

/// The longest text of a row; servers cut longer ones, also inside a character
/// (forgejo-runner-protocol 6.1).
pub const ROW_BYTES: usize = 65_536;
/// What stands at the end of a row that was cut.
const CUT: &str = " [cut]";

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// When the line was written.
    pub time: Timestamp,
    /// The line: text without line ends.
    pub text: String,
}

impl Row {
    /// A row of this program. Line ends become blanks.
    #[must_use]
    pub fn new(time: Timestamp, text: impl AsRef<str>) -> Self {
        let mut text = text.as_ref().replace(['\n', '\r'], " ");
        cut(&mut text);
        Self { time, text }
    }

    /// A row for a line of a job; one of the console says so, unless it stands among its like.
    #[must_use]
    pub fn of_line(line: &LogLine, in_console: bool) -> Self {
        let text = of_text(&line.text);
        let mut text = match line.stream {
            Stream::Console if !in_console => format!("console: {text}"),
            Stream::Console | Stream::Stdout | Stream::Stderr | Stream::Runner => text,
        };
        cut(&mut text);
        Self { time: line.time, text }
    }

    /// The row as it is sent.
    #[must_use]
    pub fn wire(&self) -> LogRow {
        LogRow {
            time: Some(wire_time(self.time)).into(),
            content: self.text.clone(),
            ..LogRow::default()
        }
    }

    /// About so many bytes of a message.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        self.text.len() + 24
    }
}

/// Text of a process: what is no UTF-8 is replaced, line ends at its end are dropped.
fn of_text(text: &LogText) -> String {
    text.to_text().trim_end_matches(['\r', '\n']).replace('\0', "\u{fffd}")
}

fn cut(text: &mut String) {
    if text.len() > ROW_BYTES {
        text.truncate(text.floor_char_boundary(ROW_BYTES - CUT.len()));
        text.push_str(CUT);
    }
}

/// A time as messages have it.
pub(crate) fn wire_time(time: Timestamp) -> protobuf::Timestamp {
    let since = Duration::from_micros(time.as_micros());
    protobuf::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        ..protobuf::Timestamp::default()
    }
}
