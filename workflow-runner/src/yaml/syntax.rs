//! Findings of the event parser, in the words of someone who writes a workflow.

use common::limits::YAML_DEPTH;
use common::plan::Location;
use granit_parser::{ErrorKind, Marker, ScanError};

use super::source::Source;
use crate::diagnostic::Diagnostic;

/// A finding for an error of the event parser.
pub(super) fn diagnostic(source: &Source, error: &ScanError) -> Diagnostic {
    let at = location(error.marker());
    if *error.kind() == ErrorKind::RecursionLimitExceeded {
        return too_deep(source, at);
    }
    let (message, hint) = words(error.kind());
    let diagnostic = source.diagnostic(at, format!("invalid YAML: {message}"));
    match hint {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }
}

/// A finding for a value at more than [`YAML_DEPTH`] levels.
pub(super) fn too_deep(source: &Source, at: Location) -> Diagnostic {
    source.diagnostic(at, format!("values are nested more than {YAML_DEPTH} levels deep"))
}

/// The place that a marker says; it counts lines from 1 and columns from 0.
pub(super) fn location(marker: &Marker) -> Location {
    let line = u32::try_from(marker.line()).unwrap_or(u32::MAX).max(1);
    let column = u32::try_from(marker.col()).unwrap_or(u32::MAX).saturating_add(1);
    Location { line, column }
}

/// Most often it is an expression: its braces mean something there.
const FLOW_HINT: &str = "put quotes around each `${{ }}` in it";

fn words(kind: &ErrorKind) -> (String, Option<&'static str>) {
    let (message, hint) = match kind {
        ErrorKind::UnknownAnchor => {
            ("this alias names no anchor above it", Some("text that starts with `*` needs quotes"))
        }
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => (
            "a `:` is not expected here",
            Some(
                "check the indentation, and for an open `[`, `{` or quote above; text with `: ` in \
                 it needs quotes",
            ),
        ),
        ErrorKind::MissingAnchorOrAliasName => (
            "an anchor or alias has no name",
            Some("text that starts with `*` or `&` needs quotes"),
        ),
        ErrorKind::InvalidQuotedScalarIndent | ErrorKind::InvalidFlowScalarIndent => (
            "this line belongs to a text or list above it, but is not indented below it",
            Some("perhaps a closing quote or bracket is missing above"),
        ),
        ErrorKind::ExpectedBlockMappingKey => (
            "a key is expected here",
            Some("check the indentation: keys of one mapping start in the same column"),
        ),
        ErrorKind::ExpectedBlockSequenceEntry => (
            "a `-` is expected here",
            Some("check the indentation: items of one list start in the same column"),
        ),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => (
            "a `:` is expected after this key",
            Some("check the indentation; text of several lines needs `|`"),
        ),
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => {
            ("a tab stands where only spaces may", Some("indent by spaces"))
        }
        ErrorKind::UnclosedQuotedScalar => {
            ("the quoted text that starts here has no end", Some("close it with the same quote"))
        }
        ErrorKind::UnclosedFlowCollection { open: '[' }
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::ExpectedFlowSequenceSeparator => {
            ("a list in `[ ]` goes on here without `,` or has no `]`", Some(FLOW_HINT))
        }
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::ExpectedFlowMappingSeparator => {
            ("a mapping in `{ }` goes on here without `,` or has no `}`", Some(FLOW_HINT))
        }
        ErrorKind::UnknownQuotedScalarEscape => (
            "there is no such escape in a text in double quotes",
            Some("write `\\\\` for a backslash, or use single quotes"),
        ),
        other => {
            let text = other.to_string();
            let mut characters = text.chars();
            let first = characters.next().map(|c| c.to_ascii_lowercase());
            let rest = characters.as_str().trim_end_matches('.');
            return (first.into_iter().chain(rest.chars()).collect(), None);
        }
    };
    (message.to_owned(), hint)
}
