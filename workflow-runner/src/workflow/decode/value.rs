//! Values of a plan, and the parts that a workflow and its jobs have in common.

use common::plan::Value;
use serde_json::Value as Json;

use super::context::Context;
use crate::diagnostic::Diagnostic;
use crate::expression;
use crate::template;
use crate::workflow::check::is_insert;
use crate::workflow::data::{Data, Field};
use crate::yaml::Node;

impl Context {
    /// The value of a key, if it is there and not null.
    pub(super) fn optional<T>(
        &mut self,
        parent: &Node,
        key: &str,
        decode: impl Fn(&Self, &Node, &str) -> Result<T, Diagnostic>,
    ) -> Result<Option<T>, Diagnostic> {
        match parent.get(key) {
            Some(node) if !node.is_null() => decode(self, node, &format!("`{key}`")).map(Some),
            _ => Ok(None),
        }
    }

    /// The text of a scalar as the forge understands it: what is written, but for plain booleans
    /// and numbers in a dialect that reads them.
    pub(super) fn literal(&self, node: &Node) -> String {
        let text = node.text().unwrap_or_default();
        if node.is_null() {
            return String::new();
        }
        if !self.rules.numbers_are_formatted {
            return text.to_owned();
        }
        match (node.as_bool(), node.as_number()) {
            (Some(value), _) => value.to_string(),
            (None, Some(number)) => expression::Value::Number(number).to_text(),
            (None, None) => text.to_owned(),
        }
    }

    /// A scalar: text, or text with expressions.
    pub(super) fn value(&self, node: &Node, what: &str) -> Result<Value, Diagnostic> {
        if node.is_null() {
            return Ok(Value::literal(""));
        }
        match node.text() {
            Some(text) if text.contains("${{") => template::text_value(text).map_err(|error| {
                let place = node.place(&self.source, error.offset);
                self.source.diagnostic(place, error.message)
            }),
            Some(_) => Ok(Value::Literal(self.literal(node))),
            None => Err(self.wrong(node, what, "text")),
        }
    }

    /// A boolean or an expression.
    pub(super) fn flag(&self, node: &Node, what: &str) -> Result<Value, Diagnostic> {
        if is_template(node) {
            return self.value(node, what);
        }
        let value = self.boolean(node, &format!("{what}, where it is no expression,"))?;
        Ok(Value::Literal(value.to_string()))
    }

    /// A number above zero or an expression.
    pub(super) fn amount(&self, node: &Node, what: &str) -> Result<Value, Diagnostic> {
        self.number(node, what, "a number above zero or an expression", |number| number > 0.0)
    }

    /// A number of minutes or an expression; zero is no limit (github-runner-protocol 7.8).
    pub(super) fn minutes(&self, node: &Node, what: &str) -> Result<Value, Diagnostic> {
        self.number(node, what, "a number of minutes or an expression", |number| number >= 0.0)
    }

    fn number(
        &self,
        node: &Node,
        what: &str,
        expected: &str,
        fits: impl Fn(f64) -> bool,
    ) -> Result<Value, Diagnostic> {
        if is_template(node) {
            return self.value(node, what);
        }
        // Forgejo's server hands plain numbers on as quoted text (forgejo-runner-protocol 7.1).
        let number = node.as_number().or_else(|| node.text()?.trim().parse().ok());
        match number {
            Some(number) if number.is_finite() && fits(number) => {
                Ok(Value::Literal(self.literal(node)))
            }
            _ => Err(self.wrong(node, what, expected)),
        }
    }

    /// A mapping of scalars, or an expression that gives one. Absent is an empty mapping.
    pub(super) fn scalars(&self, node: Option<&Node>, what: &str) -> Result<Value, Diagnostic> {
        let node = match node {
            Some(node) if !node.is_null() => node,
            _ => return Ok(Value::empty_mapping()),
        };
        if is_template(node) {
            return self.value(node, what);
        }
        let Some(pairs) = node.as_mapping() else {
            return Err(self.wrong(node, what, "a mapping or an expression that gives one"));
        };
        let mut values = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let name = crate::yaml::shorten(key.text().unwrap_or_default());
            let of = format!("{name:?} in {what}");
            if key.text().is_some_and(is_insert) {
                values.push((Value::Insert, self.scalars(Some(value), &of)?));
            } else {
                values.push((self.value(key, "a key")?, self.value(value, &of)?));
            }
        }
        Ok(Value::Mapping(values))
    }

    /// `env` of a workflow, job or step.
    pub(super) fn env(&self, node: Option<&Node>) -> Result<Value, Diagnostic> {
        self.scalars(node, "`env`")
    }

    /// `defaults` of a workflow or job.
    pub(super) fn defaults(&mut self, node: Option<&Node>) -> Result<Value, Diagnostic> {
        let node = match node {
            Some(node) if !node.is_null() => node,
            _ => return Ok(Value::empty_mapping()),
        };
        if is_template(node) {
            return self.value(node, "`defaults`");
        }
        let pairs = self.mapping(node, "`defaults`")?;
        self.unknown_keys("`defaults`", pairs, &["run"]);
        let Some((key, run)) = pairs.iter().find(|(key, _)| key.text() == Some("run")) else {
            return Ok(Value::empty_mapping());
        };
        if let Some(pairs) = run.as_mapping() {
            self.unknown_keys("`defaults.run`", pairs, &["shell", "working-directory"]);
        }
        let run = self.scalars(Some(run), "`defaults.run`")?;
        Ok(Value::Mapping(vec![(self.value(key, "a key")?, run)]))
    }

    /// `permissions` of a workflow or job.
    pub(super) fn permissions(&self, node: Option<&Node>) -> Result<Option<Json>, Diagnostic> {
        match node {
            Some(node) if node.as_sequence().is_some() => {
                Err(self.wrong(node, "`permissions`", "a mapping, `read-all` or `write-all`"))
            }
            Some(node) if !node.is_null() => Ok(Some(node.to_json())),
            _ => Ok(None),
        }
    }

    /// `concurrency` of a workflow or job.
    pub(super) fn concurrency(&self, node: Option<&Node>) -> Result<Option<Data>, Diagnostic> {
        match node {
            Some(node) if node.as_sequence().is_some() => {
                Err(self.wrong(node, "`concurrency`", "the name of a group, or a mapping"))
            }
            Some(node) if !node.is_null() => self.data(node).map(Some),
            _ => Ok(None),
        }
    }

    /// Any value, with its type.
    pub(super) fn data(&self, node: &Node) -> Result<Data, Diagnostic> {
        if is_template(node) {
            let value = self.value(node, "a value")?;
            return Ok(Data::Template { value, location: node.location });
        }
        if let Some(items) = node.as_sequence() {
            let items = items.iter().map(|item| self.data(item)).collect::<Result<_, _>>()?;
            return Ok(Data::Sequence(items));
        }
        let Some(pairs) = node.as_mapping() else {
            return Ok(Data::Scalar(node.to_json()));
        };
        let mut fields = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let name = key.text().unwrap_or_default().to_owned();
            fields.push(Field { name, location: key.location, value: self.data(value)? });
        }
        Ok(Data::Mapping(fields))
    }
}

/// Whether a value is text with an expression in it.
pub(super) fn is_template(node: &Node) -> bool {
    node.text().is_some_and(|text| text.contains("${{"))
}
