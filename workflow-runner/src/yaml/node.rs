//! The tree, and the core rules of YAML 1.2 for plain scalars.

use std::ops::Range;
use std::sync::Arc;

use common::plan::Location;
use serde_json::{Map, Value as Json};

use crate::expression::Value;

/// One value of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where the value starts. For a value that an alias repeats, this is the place of the original.
    pub location: Location,
    /// The bytes of the value in the source.
    pub span: Range<usize>,
    /// The value.
    pub kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Nothing is written: `key:` and the end of the line.
    Null,
    /// Text.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// Pairs in the order of the file. Each key is a scalar, and no two are equal.
    Mapping(Vec<(Node, Node)>),
}

/// A scalar as it stands in the file, with escapes and folding done.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// The text; shared with the values that aliases repeat.
    pub text: Arc<str>,
    /// How it is written.
    pub style: Style,
    /// Whether it stands for text whatever it looks like: it is quoted, a block, or tagged `!!str`.
    pub is_text: bool,
}

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes.
    Plain,
    /// `'text'`
    SingleQuoted,
    /// `"text"`
    DoubleQuoted,
    /// `|`
    Literal,
    /// `>`
    Folded,
}

impl Node {
    /// Whether the value is absent or a plain `~` or `null`.
    pub fn is_null(&self) -> bool {
        match &self.kind {
            Kind::Null => true,
            Kind::Scalar(scalar) => {
                !scalar.is_text && matches!(&*scalar.text, "" | "~" | "null" | "Null" | "NULL")
            }
            Kind::Sequence(_) | Kind::Mapping(_) => false,
        }
    }

    /// The text of a scalar, whatever its style.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// A plain boolean by the core rules: `true`, `True`, `TRUE` and likewise `false`.
    pub fn as_bool(&self) -> Option<bool> {
        match self.plain()? {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => None,
        }
    }

    /// A plain number by the core rules: decimal with sign, fraction and exponent, `0x`, `0o`,
    /// `.inf` and `.nan`.
    pub fn as_number(&self) -> Option<f64> {
        number(self.plain()?)
    }

    /// A plain whole number.
    pub fn as_int(&self) -> Option<i64> {
        let text = self.plain()?;
        number(text)?;
        match text.parse() {
            Ok(int) => Some(int),
            Err(_) => radix(text).and_then(|value| i64::try_from(value).ok()),
        }
    }

    /// The pairs of a mapping.
    pub fn as_mapping(&self) -> Option<&[(Node, Node)]> {
        match &self.kind {
            Kind::Mapping(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// The items of a list.
    pub fn as_sequence(&self) -> Option<&[Node]> {
        match &self.kind {
            Kind::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The value as JSON, with its type by the core rules; expressions stay text.
    pub fn to_json(&self) -> Json {
        if self.is_null() {
            return Json::Null;
        }
        match &self.kind {
            Kind::Sequence(items) => items.iter().map(Self::to_json).collect(),
            Kind::Mapping(pairs) => pairs
                .iter()
                .map(|(key, value)| (key.text().unwrap_or_default().to_owned(), value.to_json()))
                .collect::<Map<_, _>>()
                .into(),
            Kind::Null | Kind::Scalar(_) => match (self.as_bool(), self.as_number()) {
                (Some(value), _) => Json::Bool(value),
                (None, Some(number)) => Value::Number(number).to_json(),
                (None, None) => Json::String(self.text().unwrap_or_default().to_owned()),
            },
        }
    }

    /// The value of a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let pairs = self.as_mapping()?;
        pairs.iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }

    /// What the value is, for a sentence: "a list", "the text \"x\"".
    pub fn describe(&self) -> String {
        if self.is_null() {
            return "nothing".to_owned();
        }
        match &self.kind {
            Kind::Sequence(_) => "a list".to_owned(),
            Kind::Mapping(_) => "a mapping".to_owned(),
            Kind::Null => "nothing".to_owned(),
            Kind::Scalar(scalar) if self.as_bool().is_some() => {
                format!("the boolean {}", scalar.text)
            }
            Kind::Scalar(scalar) if self.as_number().is_some() => {
                format!("the number {}", scalar.text)
            }
            Kind::Scalar(scalar) => format!("the text {:?}", shorten(&scalar.text)),
        }
    }

    fn plain(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(scalar) if !scalar.is_text => Some(&scalar.text),
            _ => None,
        }
    }
}

/// The longest text that a message quotes, in characters.
const QUOTED_CHARACTERS: usize = 40;

/// A text short enough to stand in a message.
pub(crate) fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut short: String = line.chars().take(QUOTED_CHARACTERS).collect();
    if short.len() < text.trim_end().len() {
        short.push('…');
    }
    short
}

/// A number by the core rules of YAML 1.2 (10.3.2).
fn number(text: &str) -> Option<f64> {
    match text {
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    if let Some(value) = radix(text) {
        #[expect(clippy::cast_precision_loss, reason = "numbers of the language are doubles")]
        return Some(value as f64);
    }
    // Rust also reads "inf", "infinity" and "nan", which are text here.
    let digits = text.bytes().any(|byte| byte.is_ascii_digit());
    let allowed =
        text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    if digits && allowed { text.parse().ok() } else { None }
}

fn radix(text: &str) -> Option<u64> {
    let (digits, base) = match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
        (Some(digits), _) => (digits, 16),
        (_, Some(digits)) => (digits, 8),
        _ => return None,
    };
    // A sign after the prefix is not a number, but Rust reads one.
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    u64::from_str_radix(digits, base).ok()
}
