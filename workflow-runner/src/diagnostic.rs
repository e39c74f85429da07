//! A finding in a user's file, shown with the line it is about.

use std::fmt;

use common::plan::Location;

/// A finding in a user's file.
///
/// Its display form is what a person at a terminal needs:
///
/// ```text
/// .github/workflows/ci.yml:7:14: unknown function "succes"
///   7 |         if: ${{ succes() }}
///     |                 ^
///   did you mean "success"?
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file as the user named it.
    pub file: String,
    /// The place; absent where the finding is about the whole file.
    pub location: Option<Location>,
    /// The line at that place, as it stands in the file.
    pub source_line: Option<String>,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do, one sentence.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A finding about a whole file.
    pub fn new(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            location: None,
            source_line: None,
            message: message.into(),
            hint: None,
        }
    }

    /// Sets the place and takes the line from the file's text.
    #[must_use]
    pub fn at(mut self, location: Location, text: &str) -> Self {
        let index = (location.line as usize).saturating_sub(1);
        self.source_line = text.lines().nth(index).map(|line| line.trim_end().to_owned());
        self.location = Some(location);
        self
    }

    /// Sets what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The longest part of a source line that is shown, in characters on each side of the caret.
const CONTEXT_CHARACTERS: usize = 60;

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(location) = self.location {
            write!(f, ":{}:{}", location.line, location.column)?;
        }
        write!(f, ": {}", self.message)?;
        if let (Some(location), Some(line)) = (self.location, &self.source_line) {
            let column = (location.column as usize).saturating_sub(1);
            let from = column.saturating_sub(CONTEXT_CHARACTERS);
            let shown: String = line
                .chars()
                .skip(from)
                .take(2 * CONTEXT_CHARACTERS)
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            let number = location.line.to_string();
            let margin = " ".repeat(number.len());
            let indent = " ".repeat(column - from);
            write!(f, "\n  {number} | {shown}\n  {margin} | {indent}^")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_below_the_place() {
        let text = "on: push\njobs:\n  a: [\n";
        let shown = Diagnostic::new("ci.yml", "unclosed list")
            .at(Location { line: 3, column: 6 }, text)
            .hint("close it with ]")
            .to_string();
        assert_eq!(
            shown,
            "ci.yml:3:6: unclosed list\n  3 |   a: [\n    |      ^\n  close it with ]"
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = "x".repeat(1000);
        let shown =
            Diagnostic::new("f", "m").at(Location { line: 1, column: 500 }, &text).to_string();
        assert!(shown.lines().all(|line| line.len() < 140), "{shown}");
    }
}
