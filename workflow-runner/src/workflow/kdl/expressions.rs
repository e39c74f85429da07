//! The expressions of a workflow in KDL are parsed before anything runs.

use kdl::KdlEntry;

use super::super::places::{self, Place};
use super::super::secrets::SecretUse;
use super::node::{Reader, Text};
use crate::expression::Expression;
use crate::template;

/// Parses every `${{ }}` of a text.
pub(super) fn template(reader: &mut Reader, text: &Text<'_>, place: Place) {
    match template::expressions(&text.text) {
        Ok(found) => {
            for (offset, expression) in found {
                self::expression(reader, text.entry, offset, &expression, place);
            }
        }
        Err(error) => {
            let at = position(reader, text.entry, error.offset);
            reader.error(reader.location(at), error.message, None);
        }
    }
}

/// Parses a condition, with or without `${{ }}`.
pub(super) fn condition(reader: &mut Reader, text: &Text<'_>, place: Place) {
    if text.text.contains("${{") {
        template(reader, text, place);
    } else {
        expression(reader, text.entry, 0, &text.text, place);
    }
}

fn expression(reader: &mut Reader, entry: &KdlEntry, offset: usize, text: &str, place: Place) {
    let at = |reader: &Reader, more: usize| reader.location(position(reader, entry, offset + more));
    let expression = match Expression::parse(text) {
        Ok(expression) => expression,
        Err(error) => {
            let at = at(reader, error.offset);
            return reader.error(at, error.message, None);
        }
    };
    for misuse in places::misuses(&expression, place, reader.rules) {
        let at = at(reader, misuse.offset);
        reader.error(at, misuse.message, Some(&misuse.hint));
    }
    for name in expression.properties_of("secrets") {
        let location = at(reader, 0);
        reader.secrets.push(SecretUse { name, job: reader.job.clone(), location });
    }
}

/// The byte of the file at which a character of a text stands, as far as it can be told: exactly in
/// a plain string without escapes, else where the string begins.
fn position(reader: &Reader, entry: &KdlEntry, characters: usize) -> usize {
    let span = entry.span();
    let (start, end) = (span.offset(), span.offset() + span.len());
    let written = reader.source.text().get(start..end).unwrap_or_default();
    let value = entry.value().as_string().unwrap_or_default();
    // A property's span begins at its name.
    match written.find(&format!("\"{value}\"")) {
        Some(quote) => {
            let inside = value.char_indices().nth(characters).map_or(value.len(), |(at, _)| at);
            start + quote + 1 + inside
        }
        None => start,
    }
}
