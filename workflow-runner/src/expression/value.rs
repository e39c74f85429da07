//! The values of the language and how they turn into one another.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use super::{Object, number, text};

/// A value of the expression language.
#[derive(Clone, Debug)]
pub enum Value {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// Every number is a double.
    Number(f64),
    /// Text.
    String(Arc<str>),
    /// A list; identity counts for `==`.
    Array(Arc<Vec<Value>>),
    /// A mapping with keys in order; identity counts for `==`.
    Object(Arc<Object>),
}

impl Value {
    /// Builds text.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::String(Arc::from(text.as_ref()))
    }

    /// Builds a mapping whose keys are looked up without regard to case.
    pub fn object(pairs: impl IntoIterator<Item = (String, Value)>) -> Self {
        Self::from(pairs.into_iter().collect::<Object>())
    }

    /// Builds a list.
    pub fn array(values: impl IntoIterator<Item = Value>) -> Self {
        Self::Array(Arc::new(values.into_iter().collect()))
    }

    /// As text: null is empty, numbers as GitHub formats them, `Array`, `Object`
    /// (github-runner-protocol 5.8).
    pub fn to_text(&self) -> String {
        self.as_text().into_owned()
    }

    /// As text, borrowed where it is text.
    pub fn as_text(&self) -> Cow<'_, str> {
        match self {
            Self::Null => Cow::Borrowed(""),
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
            Self::Number(number) => Cow::Owned(number::format(*number)),
            Self::String(text) => Cow::Borrowed(text),
            Self::Array(_) => Cow::Borrowed("Array"),
            Self::Object(_) => Cow::Borrowed("Object"),
        }
    }

    /// As a number: null and false are 0, true is 1, text is parsed, lists and mappings are NaN
    /// (github-runner-protocol 5.8).
    #[must_use]
    pub fn to_number(&self) -> f64 {
        match self {
            Self::Null | Self::Bool(false) => 0.0,
            Self::Bool(true) => 1.0,
            Self::Number(number) => *number,
            Self::String(text) => number::parse(text),
            Self::Array(_) | Self::Object(_) => f64::NAN,
        }
    }

    /// Whether it counts as true: everything but null, false, 0, NaN and empty text.
    pub fn is_truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Number(number) => *number != 0.0 && !number.is_nan(),
            Self::String(text) => !text.is_empty(),
            Self::Array(_) | Self::Object(_) => true,
        }
    }

    /// Whether it is neither a list nor a mapping.
    #[must_use]
    pub fn is_primitive(&self) -> bool {
        !matches!(self, Self::Array(_) | Self::Object(_))
    }

    /// The kind with its article, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "text",
            Self::Array(_) => "a list",
            Self::Object(_) => "a mapping",
        }
    }

    /// The text, if it is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The values, if it is a list.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }

    /// The mapping, if it is one.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The value of a key, if it is a mapping that has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.as_object()?.get(name)
    }

    /// The `==` of the language: values of one kind directly, text without regard to case, lists and
    /// mappings by identity, and different kinds as numbers.
    pub(super) fn equals(&self, other: &Value) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::String(a), Self::String(b)) => text::equal(a, b),
            (Self::Array(a), Self::Array(b)) => Arc::ptr_eq(a, b),
            (Self::Object(a), Self::Object(b)) => Arc::ptr_eq(a, b),
            _ => self.to_number() == other.to_number(),
        }
    }

    /// The order of two values, `None` if they have none: then `<` and `>` are both false.
    pub(super) fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Self::Null, Self::Null) => None,
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::String(a), Self::String(b)) => Some(text::compare(a, b)),
            _ => self.to_number().partial_cmp(&other.to_number()),
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::text(value)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::String(Arc::from(value))
    }
}

impl From<Object> for Value {
    fn from(value: Object) -> Self {
        Self::Object(Arc::new(value))
    }
}
