//! The text of a file, with its line starts.

use common::limits::WORKFLOW_BYTES;
use common::plan::Location;

use crate::diagnostic::Diagnostic;

/// The text of a file, without its byte-order mark.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    file: String,
    text: String,
    /// The byte at which each line starts.
    lines: Vec<usize>,
}

impl Source {
    /// Keeps a file's text.
    pub fn new(file: &str, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut lines = vec![0];
        let bytes = text.as_bytes();
        for (index, byte) in bytes.iter().enumerate() {
            // A carriage return on its own ends a line as well (YAML 1.2, 5.4).
            let ends = *byte == b'\n' || (*byte == b'\r' && bytes.get(index + 1) != Some(&b'\n'));
            if ends {
                lines.push(index + 1);
            }
        }
        Self { file: file.to_owned(), text: text.to_owned(), lines }
    }

    /// The file as the user named it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The place of a byte of the text; a byte beyond the end is the end.
    pub fn location(&self, byte: usize) -> Location {
        let byte = byte.min(self.text.len());
        let index = self.lines.partition_point(|start| *start <= byte).saturating_sub(1);
        let column = self.text.get(self.lines[index]..byte).map_or(0, |part| part.chars().count());
        Location { line: count(index + 1), column: count(column + 1) }
    }

    /// A finding at a place of this file, with the line it is about.
    pub fn diagnostic(&self, location: Location, message: impl Into<String>) -> Diagnostic {
        let mut diagnostic = Diagnostic::new(&self.file, message);
        diagnostic.location = Some(location);
        diagnostic.source_line = self.line(location.line).map(str::to_owned);
        diagnostic
    }

    /// A finding about the whole file.
    pub fn about_file(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(&self.file, message)
    }

    /// Refuses a file above [`WORKFLOW_BYTES`].
    pub(super) fn check_size(&self) -> Result<(), Diagnostic> {
        let size = self.text.len() as u64;
        if size <= WORKFLOW_BYTES {
            return Ok(());
        }
        Err(self
            .about_file(format!("the file has {size} bytes; a workflow may have {WORKFLOW_BYTES}"))
            .hint("move long scripts into files of the repository and call them"))
    }

    /// The line of this number, counted from 1, without its end.
    fn line(&self, number: u32) -> Option<&str> {
        let index = (number as usize).checked_sub(1)?;
        let start = *self.lines.get(index)?;
        let end = self.lines.get(index + 1).copied().unwrap_or(self.text.len());
        self.text.get(start..end).map(str::trim_end)
    }
}

/// Lines and columns are bounded by [`WORKFLOW_BYTES`]; a larger count is cut.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
