//! Reading parts of nodes, each error with its place.

use std::sync::Arc;

use common::plan::{Location, Value};
use kdl::{KdlEntry, KdlNode, KdlValue};

use super::super::places::Place;
use super::super::rules::Rules;
use super::super::secrets::SecretUse;
use super::super::suggest;
use super::{ERRORS, children, expressions};
use crate::diagnostic::Diagnostic;
use crate::yaml::{Source, shorten};

/// The state of reading one file.
pub(super) struct Reader {
    pub(super) source: Arc<Source>,
    pub(super) rules: &'static Rules,
    /// The job that is read.
    pub(super) job: Option<String>,
    pub(super) errors: Vec<Diagnostic>,
    pub(super) secrets: Vec<SecretUse>,
}

/// Text of a file, with the place where it stands.
#[derive(Clone, Debug)]
pub(super) struct Text<'a> {
    /// The entry that holds it.
    pub(super) entry: &'a KdlEntry,
    /// What it says.
    pub(super) text: String,
}

impl Reader {
    pub(super) fn new(source: Arc<Source>, rules: &'static Rules) -> Self {
        Self { source, rules, job: None, errors: Vec::new(), secrets: Vec::new() }
    }

    /// Where a byte of the file is.
    pub(super) fn location(&self, byte: usize) -> Location {
        self.source.location(byte)
    }

    /// Where a node stands.
    pub(super) fn place(&self, node: &KdlNode) -> Location {
        self.location(node.name().span().offset())
    }

    /// Keeps an error at a place, with what to do.
    pub(super) fn error(&mut self, at: Location, message: impl Into<String>, hint: Option<&str>) {
        if self.errors.len() < ERRORS {
            let error = self.source.diagnostic(at, message);
            self.errors.push(match hint {
                Some(hint) => error.hint(hint),
                None => error,
            });
        }
    }

    /// Refuses a node that does not belong here.
    pub(super) fn unknown(&mut self, node: &KdlNode, of: &str, known: &[&str]) {
        let name = node.name().value();
        let message = format!("{:?} is no part of {of}", shorten(name));
        let hint = suggest::hint(name, known.iter().copied())
            .unwrap_or_else(|| format!("its parts are {}", known.join(", ")));
        self.error(self.place(node), message, Some(&hint));
    }

    /// The only value of a node, as text without expressions.
    pub(super) fn text(&mut self, node: &KdlNode) -> Option<String> {
        self.single(node).map(|text| text.text)
    }

    /// The only value of a node that has nothing else.
    pub(super) fn single<'a>(&mut self, node: &'a KdlNode) -> Option<Text<'a>> {
        self.refuse_properties(node, &[]);
        self.refuse_children(node);
        let mut texts = texts(node);
        if texts.len() == 1 {
            return texts.pop();
        }
        let name = node.name().value();
        let message = format!("{name:?} has {} values, and must have one", texts.len());
        let hint = format!("write {name} \"...\", with the text in quotes");
        self.error(self.place(node), message, Some(&hint));
        None
    }

    /// Refuses the properties of a node that are not among these.
    pub(super) fn refuse_properties(&mut self, node: &KdlNode, known: &[&str]) {
        for entry in node.entries() {
            let Some(name) = entry.name().map(kdl::KdlIdentifier::value) else { continue };
            if !known.contains(&name) {
                let message =
                    format!("{:?} is no property of {:?}", shorten(name), node.name().value());
                let hint = suggest::hint(name, known.iter().copied());
                self.error(self.location(entry.span().offset()), message, hint.as_deref());
            }
        }
    }

    /// Refuses children where there are none to have.
    pub(super) fn refuse_children(&mut self, node: &KdlNode) {
        if let Some(child) = children(node).first() {
            let message = format!("{:?} has nothing in braces", node.name().value());
            self.error(self.place(child), message, None);
        }
    }

    /// Text in which expressions may stand.
    pub(super) fn template(&mut self, text: &Text<'_>, place: Place) -> Value {
        if !text.text.contains("${{") {
            return Value::Literal(text.text.clone());
        }
        expressions::template(self, text, place);
        Value::Template(text.text.clone())
    }

    /// `env`: children, each a variable with its value, or properties.
    pub(super) fn env(&mut self, node: &KdlNode, place: Place) -> Value {
        let mut pairs = Vec::new();
        for entry in node.entries() {
            match entry.name() {
                Some(name) => {
                    let value = self.template(&text_of(entry), place);
                    pairs.push((Value::literal(name.value()), value));
                }
                None => self.error(
                    self.location(entry.span().offset()),
                    "a variable has a name",
                    Some("write env { NAME \"value\" }"),
                ),
            }
        }
        for child in children(node) {
            let name = Value::literal(child.name().value());
            if let Some(text) = self.single(child) {
                pairs.push((name, self.template(&text, place)));
            }
        }
        Value::Mapping(pairs)
    }
}

/// The values of a node that have no name, as text.
pub(super) fn texts(node: &KdlNode) -> Vec<Text<'_>> {
    let arguments = node.entries().iter().filter(|entry| entry.name().is_none());
    arguments.map(text_of).collect()
}

/// A value as text: numbers and booleans as they are written in YAML.
pub(super) fn text_of(entry: &KdlEntry) -> Text<'_> {
    let text = match entry.value() {
        KdlValue::String(text) => text.clone(),
        KdlValue::Integer(number) => number.to_string(),
        KdlValue::Float(number) => number.to_string(),
        KdlValue::Bool(value) => value.to_string(),
        KdlValue::Null => String::new(),
    };
    Text { entry, text }
}
