//! Messages of the newer interface: protobuf as JSON. Fields may have either of their two spellings,
//! and one that the server does not know is an error.

use serde_json::{Map, Value};

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// A whole number, which may be written as text.
    Number,
    /// A moment, such as `2026-01-31T12:00:00Z`.
    Moment,
}

/// The fields that a message may have.
pub(super) type Fields = &'static [(&'static str, Kind)];

/// A message, with its fields under their names in the protocol's file.
#[derive(Debug)]
pub(super) struct Message(Map<String, Value>);

impl Message {
    /// Reads a message with such fields.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(body: &[u8], fields: Fields) -> Result<Self, String> {
        let sent: Map<String, Value> =
            serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let mut message = Map::new();
        for (key, value) in sent {
            let known = fields.iter().find(|(name, _)| *name == key || camel(name) == key);
            let (name, kind) = known.ok_or_else(|| format!("unknown field {key:?}"))?;
            if value.is_null() {
                continue;
            }
            let fits = match kind {
                Kind::Text => value.is_string(),
                Kind::Number => number(&value).is_some(),
                Kind::Moment => {
                    value.as_str().is_some_and(|text| humantime::parse_rfc3339(text).is_ok())
                }
            };
            if !fits {
                return Err(format!("the field {key:?} is {value}"));
            }
            if message.insert((*name).to_owned(), value).is_some() {
                return Err(format!("the field {key:?} is there twice"));
            }
        }
        Ok(Self(message))
    }

    /// The text of a field, empty if it is not there.
    pub(super) fn text(&self, name: &str) -> &str {
        self.optional_text(name).unwrap_or_default()
    }

    pub(super) fn optional_text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.0.get(name).and_then(number)
    }
}

fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// The name of a field in JSON: `artifact_id` is `artifactId`.
fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (first, rest) = part.split_at(part.len().min(1));
        text.push_str(&first.to_uppercase());
        text.push_str(rest);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: Fields =
        &[("backend_run_id", Kind::Text), ("size", Kind::Number), ("expires_at", Kind::Moment)];

    #[test]
    fn both_spellings_are_read() {
        for text in [
            r#"{"backend_run_id": "7", "size": 5, "expires_at": "2026-01-31T12:00:00Z"}"#,
            r#"{"backendRunId": "7", "size": "5", "expiresAt": "2026-01-31T12:00:00.5Z"}"#,
        ] {
            let message = Message::read(text.as_bytes(), FIELDS).unwrap();
            assert_eq!((message.text("backend_run_id"), message.number("size")), ("7", Some(5)));
        }
        let message = Message::read(br#"{"size": null}"#, FIELDS).unwrap();
        assert_eq!((message.text("backend_run_id"), message.number("size")), ("", None));
    }

    #[test]
    fn what_is_no_such_message_is_refused() {
        for text in [
            "",
            "[]",
            r#"{"other": 1}"#,
            r#"{"backend_run_id": 7}"#,
            r#"{"size": "x"}"#,
            r#"{"expires_at": "tomorrow"}"#,
            r#"{"backend_run_id": "7", "backendRunId": "7"}"#,
        ] {
            assert!(Message::read(text.as_bytes(), FIELDS).is_err(), "{text}");
        }
    }
}
