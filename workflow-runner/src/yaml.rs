//! YAML as workflow files use it: text in, a tree with places out.
//!
//! The syntax comes from an event parser; this module builds the tree from its events, and adds
//! what the events do not have: a budget that also counts what aliases repeat, refusal of duplicate
//! keys and merge keys, and the way back from a character of a scalar to its place in the file.
//! Scalars stay text. Plain ones are read by the core rules of YAML 1.2 only where a consumer asks
//! ([`Node::as_bool`], [`Node::as_number`]), so that the key `on` stays the text `on`.

mod build;
mod node;
mod place;
mod source;
mod syntax;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::diagnostic::Diagnostic;

pub(crate) use node::shorten;
pub use node::{Kind, Node, Scalar, Style};
pub use source::Source;

/// A parsed file.
#[derive(Clone, Debug)]
pub struct Document {
    /// The file's text, for findings about it.
    pub source: Arc<Source>,
    /// The root of the tree; [`Kind::Null`] for a file without content.
    pub root: Node,
}

/// Parses a file of one document.
///
/// A byte-order mark and line ends of either kind are accepted.
///
/// # Errors
///
/// The first finding that makes the text unusable: its size, its syntax, a second document, a
/// duplicate key, a merge key, a tag that is not of YAML's core, a key that is not a scalar, or the
/// node and depth limits of [`common::limits`].
pub fn parse(text: &str, file: &str) -> Result<Document, Diagnostic> {
    let source = Arc::new(Source::new(file, text));
    source.check_size()?;
    let root = build::tree(&source)?;
    Ok(Document { source, root })
}
