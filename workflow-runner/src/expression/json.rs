//! Values from JSON and to JSON.

use std::fmt;

use common::limits::YAML_DEPTH;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Budget, EvaluateError, Object, Value, number};

/// Nesting of the text that `fromJSON` reads and of the value that `toJSON` writes. Deeper ones are
/// an error. The same as for YAML, because the one often comes from the other.
const JSON_DEPTH: usize = YAML_DEPTH;

impl Value {
    /// From JSON. Mappings are looked up without regard to case.
    pub fn from_json(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(*value),
            serde_json::Value::Number(number) => Self::Number(number.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(text) => Self::text(text),
            serde_json::Value::Array(values) => Self::array(values.iter().map(Self::from_json)),
            serde_json::Value::Object(pairs) => Self::object(
                pairs.iter().map(|(name, value)| (name.clone(), Self::from_json(value))),
            ),
        }
    }

    /// As `toJSON` writes it: two spaces a level, numbers as in text, so that NaN and infinities
    /// are words and the result is not always JSON.
    ///
    /// # Errors
    /// If the text is larger than [`common::limits::EVALUATION_BYTES`] or the value nests too deep.
    pub fn to_json_text(&self) -> Result<String, EvaluateError> {
        write(self, &Budget::default())
    }

    /// To JSON; NaN and infinities become null, whole numbers have no fraction.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Number(number) if number.fract() == 0.0 && number.abs() <= MAX_EXACT_INTEGER => {
                (*number as i64).into()
            }
            Self::Number(number) => (*number).into(),
            Self::String(text) => (&**text).into(),
            Self::Array(values) => values.iter().map(Self::to_json).collect(),
            Self::Object(object) => object
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

/// Up to here every whole number has a double of its own.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// `fromJSON`: strict JSON, one value and nothing after it.
pub(super) fn read(text: &str, budget: &Budget) -> Result<Value, EvaluateError> {
    if text.trim().is_empty() {
        return Err(EvaluateError::invalid(
            "fromJSON cannot read an empty text: what it was given is empty or not set",
        ));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Seed { budget, depth: 0 }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| EvaluateError::invalid(format!("fromJSON cannot read its text: {error}")))
}

/// `toJSON`: two spaces a level, as GitHub writes it; numbers as in text, so NaN and infinities are
/// words.
pub(super) fn write(value: &Value, budget: &Budget) -> Result<String, EvaluateError> {
    let mut writer = Writer { text: String::new(), budget };
    writer.value(value, 0)?;
    Ok(writer.text)
}

struct Writer<'b> {
    text: String,
    budget: &'b Budget,
}

impl Writer<'_> {
    fn push(&mut self, text: &str) -> Result<(), EvaluateError> {
        self.budget.charge(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), EvaluateError> {
        if depth > JSON_DEPTH {
            return Err(EvaluateError::invalid(format!(
                "toJSON cannot write a value that nests deeper than {JSON_DEPTH} levels"
            )));
        }
        match value {
            Value::Null => self.push("null"),
            Value::Bool(value) => self.push(if *value { "true" } else { "false" }),
            Value::Number(number) => self.push(&number::format(*number)),
            Value::String(text) => self.string(text),
            Value::Array(values) if values.is_empty() => self.push("[]"),
            Value::Array(values) => {
                self.push("[")?;
                for (place, value) in values.iter().enumerate() {
                    self.line(place > 0, depth + 1)?;
                    self.value(value, depth + 1)?;
                }
                self.line(false, depth)?;
                self.push("]")
            }
            Value::Object(object) if object.is_empty() => self.push("{}"),
            Value::Object(object) => {
                self.push("{")?;
                for (place, (name, value)) in object.iter().enumerate() {
                    self.line(place > 0, depth + 1)?;
                    self.string(name)?;
                    self.push(": ")?;
                    self.value(value, depth + 1)?;
                }
                self.line(false, depth)?;
                self.push("}")
            }
        }
    }

    /// Begins a line.
    fn line(&mut self, comma: bool, depth: usize) -> Result<(), EvaluateError> {
        self.push(if comma { ",\n" } else { "\n" })?;
        for _ in 0..depth {
            self.push("  ")?;
        }
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), EvaluateError> {
        self.push("\"")?;
        let mut plain = 0;
        for (at, c) in text.char_indices() {
            let escape = match c {
                '"' => "\\\"",
                '\\' => "\\\\",
                '\n' => "\\n",
                '\r' => "\\r",
                '\t' => "\\t",
                '\u{8}' => "\\b",
                '\u{c}' => "\\f",
                // The line separators too, so that the text stays whole in a script.
                '\0'..='\u{1f}' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                    &format!("\\u{:04x}", u32::from(c))
                }
                _ => continue,
            };
            self.push(&text[plain..at])?;
            self.push(escape)?;
            plain = at + c.len_utf8();
        }
        self.push(&text[plain..])?;
        self.push("\"")
    }
}

/// Reads one value, at a depth.
#[derive(Clone, Copy)]
struct Seed<'b> {
    budget: &'b Budget,
    depth: usize,
}

impl Seed<'_> {
    /// Takes what a value costs from the budget.
    fn charge<E: Error>(self, text: &str) -> Result<(), E> {
        self.budget.charge(size_of::<Value>() + text.len()).map_err(E::custom)
    }

    /// The seed of what is inside a list or mapping.
    fn inside<E: Error>(self) -> Result<Self, E> {
        if self.depth == JSON_DEPTH {
            return Err(E::custom(format!("it nests deeper than {JSON_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.charge("").map(|()| Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.charge("").map(|()| Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.charge("").map(|()| Value::Number(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.charge(value).map(|()| Value::text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.charge("")?;
        let inside = self.inside()?;
        let mut values = Vec::new();
        while let Some(value) = access.next_element_seed(inside)? {
            values.push(value);
        }
        Ok(Value::array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.charge("")?;
        let inside = self.inside()?;
        let mut object = Object::new();
        while let Some(name) = access.next_key::<String>()? {
            // The key stands in the entries and in the index.
            self.charge(&name)?;
            self.charge(&name)?;
            let value = access.next_value_seed(inside)?;
            object.insert(name, value);
        }
        Ok(object.into())
    }
}
