//! The expression language of `${{ }}` (github-runner-protocol 5.8, forgejo-runner-protocol 8.5).
//!
//! [`Expression::parse`] turns a text into a tree, [`Expression::evaluate`] gives its [`Value`] in a
//! [`Scope`]. The language has no loops and no side effects; the text, the nesting of the tree and
//! the bytes that an evaluation produces are bounded ([`common::limits`]), so that any text, from
//! anywhere, either has a value or is an error.
//!
//! The one thing that an expression can ask of the outside is `hashFiles`: the evaluation stops with
//! [`EvaluateError::NeedsHash`], the caller computes the hash, and evaluates again.

mod ast;
mod budget;
mod call;
mod error;
mod evaluate;
mod format;
mod function;
mod json;
mod lexer;
mod number;
mod object;
mod parsed;
mod parser;
mod scope;
mod text;
mod value;

#[cfg(test)]
pub(crate) mod tests;

pub use budget::Budget;
pub use error::{EvaluateError, ParseError};
pub use object::Object;
pub use parsed::{Expression, Use};
pub use scope::{CONTEXTS, HashFiles, Scope};
pub use value::Value;
