//! A parsed expression, as the rest of the program sees it.

use std::fmt;
use std::sync::Arc;

use common::limits::EXPRESSION_CHARACTERS;

use super::ast::Node;
use super::evaluate::Evaluator;
use super::{Budget, EvaluateError, ParseError, Scope, Value, parser};

/// A parsed expression. Cloning is cheap.
///
/// Its display form is text that parses to an equal expression.
#[derive(Clone, Debug)]
pub struct Expression {
    inner: Arc<Parsed>,
}

/// What the parser finds.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) root: Node,
    pub(super) contexts: Vec<Use>,
    pub(super) functions: Vec<Use>,
    pub(super) has_status_function: bool,
}

/// A place in which an expression uses something by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The name: of a context in lower case, of a function as it is usually written.
    pub name: String,
    /// Characters of the expression before it.
    pub offset: usize,
}

impl Expression {
    /// Parses the text of an expression, without `${{ }}`. An empty text is `null`.
    ///
    /// # Errors
    /// If the text is not an expression, or exceeds [`EXPRESSION_CHARACTERS`] or
    /// [`common::limits::EXPRESSION_DEPTH`].
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.chars().nth(EXPRESSION_CHARACTERS).is_some() {
            return Err(ParseError::new(
                EXPRESSION_CHARACTERS,
                format!("the expression has more than {EXPRESSION_CHARACTERS} characters"),
            ));
        }
        Ok(Self { inner: Arc::new(parser::parse(text)?) })
    }

    /// Evaluates it.
    ///
    /// # Errors
    /// If a context does not exist, a function refuses its values, `hashFiles` must be computed
    /// first, or more than [`common::limits::EVALUATION_BYTES`] would be produced.
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<Value, EvaluateError> {
        self.evaluate_within(scope, &Budget::default())
    }

    /// Evaluates it as a part of something larger, with which it shares the budget.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn evaluate_within(
        &self,
        scope: &dyn Scope,
        budget: &Budget,
    ) -> Result<Value, EvaluateError> {
        Evaluator::new(scope, budget).evaluate(&self.inner.root)
    }

    /// Whether it calls `success`, `failure`, `always` or `cancelled`.
    #[must_use]
    pub fn has_status_function(&self) -> bool {
        self.inner.has_status_function
    }

    /// The contexts that it reads, each time with the place.
    #[must_use]
    pub fn contexts(&self) -> &[Use] {
        &self.inner.contexts
    }

    /// The functions that it calls, each time with the place.
    #[must_use]
    pub fn functions(&self) -> &[Use] {
        &self.inner.functions
    }

    /// The names of the contexts that it reads, in lower case, each once.
    #[must_use]
    pub fn contexts_used(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for context in self.contexts() {
            if !names.contains(&context.name) {
                names.push(context.name.clone());
            }
        }
        names
    }

    /// The properties that are read of this context by a literal name, such as the names of
    /// secrets: as written, each once, in the order of the text.
    #[must_use]
    pub fn properties_of(&self, context: &str) -> Vec<String> {
        let mut found = Vec::new();
        collect_properties(&self.inner.root, context, &mut found);
        found
    }

    /// The tree.
    #[cfg(test)]
    pub(super) fn root(&self) -> &Node {
        &self.inner.root
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.root.fmt(f)
    }
}

/// Recursion is bounded by the depth of a tree.
fn collect_properties(node: &Node, context: &str, found: &mut Vec<String>) {
    match node {
        Node::Literal(_) | Node::Context(..) => {}
        Node::Index(target, index) => {
            if let (Node::Context(name, _), Node::Literal(Value::String(property))) =
                (&**target, &**index)
                && name.eq_ignore_ascii_case(context)
                && !found.iter().any(|known| known.eq_ignore_ascii_case(property))
            {
                found.push(property.to_string());
            }
            collect_properties(target, context, found);
            collect_properties(index, context, found);
        }
        Node::Filter(value) | Node::Not(value) => collect_properties(value, context, found),
        Node::Compare(_, left, right) => {
            collect_properties(left, context, found);
            collect_properties(right, context, found);
        }
        Node::Call(_, values, _) | Node::And(values) | Node::Or(values) => {
            for value in values {
                collect_properties(value, context, found);
            }
        }
    }
}
