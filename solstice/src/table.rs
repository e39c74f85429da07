//! Data on standard output: tables for people, JSON for programs.

use std::io::{self, Write};

use serde::Serialize;

use crate::exit::{CommandError, Exit};
use crate::message::visible;

/// Prints a table.
///
/// # Errors
/// Standard output cannot be written, other than because nobody reads it any more.
pub(crate) fn print<const N: usize>(
    headings: &[&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> Result<Exit, CommandError> {
    write(&text(headings, rows))
}

/// Prints a value as JSON on several lines.
///
/// # Errors
/// As for `print`.
pub(crate) fn print_json(value: &impl Serialize) -> Result<Exit, CommandError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| CommandError::infrastructure(format!("cannot make JSON: {error}")))?;
    write(&(text + "\n"))
}

fn text<const N: usize>(headings: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut lines = vec![headings.map(str::to_owned)];
    lines.extend(rows.map(|row| row.map(|cell| visible(&cell))));
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn write(text: &str) -> Result<Exit, CommandError> {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CommandError::infrastructure(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(Exit::Passed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["tiny", "yes"], ["debian-12", "n\x1b"]].map(|row| row.map(str::to_owned));
        assert_eq!(
            text(&["LABEL", "HERE"], rows.into_iter()),
            "LABEL      HERE\ntiny       yes\ndebian-12  n␛\n"
        );
    }
}
