//! Data on standard output: tables for people, JSON for programs, scripts for shells.

use std::io::{self, Write};

use anstyle::Style;
use serde::Serialize;

use crate::exit::{CommandError, Exit};
use crate::message::visible;

/// A cell of a table, in a style that shows on a terminal only.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell in a style.
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::new())
    }
}

/// Prints a table.
///
/// # Errors
/// Standard output cannot be written, other than because nobody reads it any more.
pub(crate) fn print<const N: usize, C: Into<Cell>>(
    headings: &[&str; N],
    rows: impl Iterator<Item = [C; N]>,
) -> Result<Exit, CommandError> {
    print_text(&text(headings, rows))
}

/// Prints a value as JSON on several lines.
///
/// # Errors
/// As for `print`.
pub(crate) fn print_json(value: &impl Serialize) -> Result<Exit, CommandError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| CommandError::infrastructure(format!("cannot make JSON: {error}")))?;
    print_text(&(text + "\n"))
}

/// Prints lines as they are, with styles that show on a terminal only.
///
/// # Errors
/// As for [`print()`].
pub(crate) fn print_text(text: &str) -> Result<Exit, CommandError> {
    // The stream takes the styles out where nobody wants them.
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CommandError::infrastructure(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(Exit::Passed),
    }
}

fn text<const N: usize, C: Into<Cell>>(
    headings: &[&str; N],
    rows: impl Iterator<Item = [C; N]>,
) -> String {
    let mut lines = vec![headings.map(Cell::from)];
    lines.extend(rows.map(|row| row.map(Into::into)));
    for cell in lines.iter_mut().flatten() {
        cell.text = visible(&cell.text);
    }
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let end = line.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |last| last + 1);
        let cells = line[..end].iter().zip(widths).enumerate();
        let cells: Vec<String> = cells
            .map(|(column, (Cell { text, style }, width))| {
                let gap = if column + 1 < end { width - text.chars().count() + 2 } else { 0 };
                format!("{style}{text}{style:#}{:gap$}", "")
            })
            .collect();
        text.push_str(&cells.concat());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_take_no_room() {
        let bold = Style::new().bold();
        let rows = [[Cell::styled("a", bold), "x".into()], ["bb".into(), "".into()]];
        assert_eq!(
            text(&["N", "M"], rows.into_iter()),
            format!("N   M\n{bold}a{bold:#}   x\nbb\n")
        );
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["tiny", "yes"], ["debian-12", "n\x1b"]].map(|row| row.map(str::to_owned));
        assert_eq!(
            text(&["LABEL", "HERE"], rows.into_iter()),
            "LABEL      HERE\ntiny       yes\ndebian-12  n␛\n"
        );
    }
}
