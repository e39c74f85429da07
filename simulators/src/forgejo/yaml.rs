//! Workflow files as trees that keep how each scalar was written, so that a payload says `3.10` where
//! the file did.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// A value of a YAML document.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// A scalar without quotes, which may be a number, a bool, null or text.
    Plain(String),
    /// A scalar that is text whatever it looks like.
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// Reads the one document of a file.
    pub(super) fn parse(source: &str) -> Result<Self, String> {
        let mut parser = Parser::new_from_str(source);
        let mut builder = Builder::default();
        for event in &mut parser {
            let (event, span) = event.map_err(|error| error.to_string())?;
            builder.event(event).map_err(|error| format!("line {}: {error}", span.start.line()))?;
        }
        builder.root.ok_or_else(|| "there is no document".to_owned())
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The entries of a mapping; none of anything else.
    pub(super) fn entries(&self) -> &[(String, Self)] {
        if let Self::Map(entries) = self { entries } else { &[] }
    }

    /// The items of a list; none of anything else.
    pub(super) fn items(&self) -> &[Self] {
        if let Self::List(items) = self { items } else { &[] }
    }

    /// The text of a scalar, as it was written.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Plain(text) | Self::Text(text) => Some(text),
            Self::List(_) | Self::Map(_) => None,
        }
    }

    /// Whether it is nothing at all.
    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Plain(text) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Whether it says true.
    pub(super) fn is_true(&self) -> bool {
        self.value() == Value::Bool(true)
    }

    /// Every scalar of it as text, as where the server has a map of strings.
    pub(super) fn stringified(&self) -> Self {
        match self {
            Self::Plain(_) if self.is_null() => Self::Text(String::new()),
            Self::Plain(text) | Self::Text(text) => Self::Text(text.clone()),
            Self::List(items) => Self::List(items.iter().map(Self::stringified).collect()),
            Self::Map(entries) => Self::Map(
                entries.iter().map(|(key, value)| (key.clone(), value.stringified())).collect(),
            ),
        }
    }

    /// What it means.
    pub(super) fn value(&self) -> Value {
        match self {
            Self::Plain(_) if self.is_null() => Value::Null,
            Self::Plain(text) => scalar(text),
            Self::Text(text) => Value::String(text.clone()),
            Self::List(items) => items.iter().map(Self::value).collect(),
            Self::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.clone(), value.value()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// A tree that means this.
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Plain("null".to_owned()),
            Value::Bool(flag) => Self::Plain(flag.to_string()),
            Value::Number(number) => Self::Plain(number.to_string()),
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(items) => Self::List(items.iter().map(Self::of).collect()),
            Value::Object(entries) => Self::Map(
                entries.iter().map(|(key, value)| (key.clone(), Self::of(value))).collect(),
            ),
        }
    }
}

/// A scalar without quotes, by YAML's core schema.
fn scalar(text: &str) -> Value {
    match text {
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    let digits = text.trim_start_matches(['-', '+']);
    let numeric = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && digits.chars().any(|character| character.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(number) if numeric => number.into(),
        _ => Value::String(text.to_owned()),
    }
}

/// Collections that are still open.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
}

struct Open {
    node: Node,
    anchor: usize,
    /// The key whose value comes next.
    key: Option<String>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let node = match style {
                    ScalarStyle::Plain => Node::Plain(text.into_owned()),
                    _ => Node::Text(text.into_owned()),
                };
                self.put(node, anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open.push(Open { node: Node::List(Vec::new()), anchor, key: None });
                Ok(())
            }
            Event::MappingStart(_, anchor, _) => {
                self.open.push(Open { node: Node::Map(Vec::new()), anchor, key: None });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop().ok_or("an end without a start")?;
                self.put(open.node, open.anchor)
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().ok_or("an unknown alias")?;
                self.put(node, 0)
            }
            _ => Ok(()),
        }
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), String> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root.get_or_insert(node);
            return Ok(());
        };
        match (&mut open.node, open.key.take()) {
            (Node::List(items), _) => items.push(node),
            (Node::Map(_), None) => {
                open.key = Some(node.text().ok_or("a key is not a scalar")?.to_owned());
            }
            (Node::Map(entries), Some(key)) => {
                if entries.iter().any(|(name, _)| *name == key) {
                    return Err(format!("key {key:?} stands twice"));
                }
                entries.push((key, node));
            }
            (Node::Plain(_) | Node::Text(_), _) => return Err("a scalar is open".to_owned()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_mean_what_the_core_schema_says() {
        let source = "a: 1\nb: '1'\nc: 3.10\nd: yes\ne: true\nf: ~\ng: [x, {y: z}]\nh: .nan\ni: -2.5e3\n\
                      j: &k {l: 1}\nm: *k\n";
        let node = Node::parse(source).unwrap();
        assert_eq!(
            node.value(),
            json!({
                "a": 1, "b": "1", "c": 3.1, "d": "yes", "e": true, "f": null,
                "g": ["x", {"y": "z"}], "h": ".nan", "i": -2500.0, "j": {"l": 1}, "m": {"l": 1},
            })
        );
        assert_eq!(node.get("c").and_then(Node::text), Some("3.10"), "as it was written");
        assert_eq!(Node::of(&node.value()).value(), node.value());
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for source in ["a: [", "a: 1\na: 2\n", ""] {
            assert!(Node::parse(source).is_err(), "{source:?}");
        }
    }
}
