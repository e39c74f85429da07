//! Taking a template apart.

use crate::expression::ParseError;

/// The beginning of an expression in a template.
pub(super) const OPEN: &str = "${{";
/// Its end.
const CLOSE: &str = "}}";

/// A part of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment<'t> {
    /// Text that stands for itself; never empty.
    Text(&'t str),
    /// What stands between `${{` and `}}`.
    Expression {
        /// Without the white space around it; never empty.
        text: &'t str,
        /// Characters of the template before it.
        offset: usize,
    },
}

/// The parts of a template in order. A `}}` within a text in single quotes belongs to the
/// expression.
pub(super) fn segments(template: &str) -> Result<Vec<Segment<'_>>, ParseError> {
    let mut segments = Vec::new();
    let mut rest = template;
    let mut offset = 0;
    while let Some(open) = rest.find(OPEN) {
        let (text, from) = rest.split_at(open);
        if !text.is_empty() {
            segments.push(Segment::Text(text));
        }
        offset += text.chars().count();
        let inner = &from[OPEN.len()..];
        let Some(end) = end_of_expression(inner) else {
            return Err(ParseError::new(
                offset,
                "the ${{ that begins here is not closed with }}, or a text in it has no closing '",
            ));
        };
        let content = &inner[..end];
        let expression = content.trim();
        if expression.is_empty() {
            return Err(ParseError::new(offset, "there is no expression between ${{ and }}"));
        }
        let space = &content[..content.len() - content.trim_start().len()];
        let start = offset + OPEN.len() + space.chars().count();
        segments.push(Segment::Expression { text: expression, offset: start });
        offset += OPEN.len() + content.chars().count() + CLOSE.len();
        rest = &inner[end + CLOSE.len()..];
    }
    if !rest.is_empty() {
        segments.push(Segment::Text(rest));
    }
    Ok(segments)
}

/// Where the first `}}` outside single quotes stands. A doubled quote ends one text and begins the
/// next, which comes to the same.
fn end_of_expression(inner: &str) -> Option<usize> {
    let mut in_text = false;
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            b'\'' => in_text = !in_text,
            b'}' if !in_text && inner[at..].starts_with(CLOSE) => return Some(at),
            _ => {}
        }
    }
    None
}
