//! Values that keep their type: those of a matrix, the default of an input.
//!
//! [`plan::Value`] has text only, which is right for scripts and variables. A
//! boolean of a matrix must stay one, or `if: matrix.experimental` would always be true.

use common::plan::{self, Location};
use serde_json::{Map, Value as Json};

use crate::expression::{EvaluateError, Scope};
use crate::template;

/// A value of a workflow that keeps its type.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Null, a boolean, a number or text.
    Scalar(Json),
    /// Text with `${{ }}` in it.
    Template {
        /// The text.
        value: plan::Value,
        /// Where it stands.
        location: Location,
    },
    /// A list.
    Sequence(Vec<Data>),
    /// Pairs in the order of the file.
    Mapping(Vec<Field>),
}

/// A pair of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The key.
    pub name: String,
    /// Where the key stands.
    pub location: Location,
    /// The value.
    pub value: Data,
}

impl Data {
    /// Whether there is no `${{ }}` in it.
    pub fn is_literal(&self) -> bool {
        match self {
            Self::Scalar(_) => true,
            Self::Template { .. } => false,
            Self::Sequence(items) => items.iter().all(Self::is_literal),
            Self::Mapping(fields) => fields.iter().all(|field| field.value.is_literal()),
        }
    }

    /// The value with every `${{ }}` evaluated, once.
    ///
    /// # Errors
    ///
    /// The place of the expression that has no value, and why.
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<Json, (Location, EvaluateError)> {
        match self {
            Self::Scalar(json) => Ok(json.clone()),
            Self::Template { value, location } => template::evaluate(value, scope)
                .map(|value| value.to_json())
                .map_err(|error| (*location, error)),
            Self::Sequence(items) => items
                .iter()
                .map(|item| item.evaluate(scope))
                .collect::<Result<_, _>>()
                .map(Json::Array),
            Self::Mapping(fields) => fields
                .iter()
                .map(|field| Ok((field.name.clone(), field.value.evaluate(scope)?)))
                .collect::<Result<Map<_, _>, _>>()
                .map(Json::Object),
        }
    }

    /// Where the key of this name stands, in a mapping.
    pub(super) fn place_of(&self, name: &str) -> Option<Location> {
        match self {
            Self::Mapping(fields) => {
                fields.iter().find(|field| field.name == name).map(|field| field.location)
            }
            _ => None,
        }
    }
}
