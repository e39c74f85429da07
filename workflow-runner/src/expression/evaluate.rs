//! From a tree to a value.

use std::sync::Arc;

use super::ast::{Comparison, Node};
use super::scope::unknown_context;
use super::{Budget, EvaluateError, Scope, Value, call};

/// Evaluates trees in one scope. Recursion is bounded by the depth of a tree, which the parser
/// limits.
pub(super) struct Evaluator<'s> {
    pub(super) scope: &'s dyn Scope,
    pub(super) budget: &'s Budget,
}

/// A value, and whether it is a list made by `*`: an index on such a list is applied to each of its
/// values (github-runner-protocol 5.8).
pub(super) struct Evaluated {
    pub(super) value: Value,
    filtered: bool,
}

impl From<Value> for Evaluated {
    fn from(value: Value) -> Self {
        Self { value, filtered: false }
    }
}

impl<'s> Evaluator<'s> {
    pub(super) fn new(scope: &'s dyn Scope, budget: &'s Budget) -> Self {
        Self { scope, budget }
    }

    /// The value of a tree.
    pub(super) fn evaluate(&self, node: &Node) -> Result<Value, EvaluateError> {
        Ok(self.node(node)?.value)
    }

    /// The value of a tree, with its history.
    pub(super) fn node(&self, node: &Node) -> Result<Evaluated, EvaluateError> {
        match node {
            Node::Literal(value) => Ok(value.clone().into()),
            Node::Context(name, offset) => match self.scope.context(name) {
                Some(value) => Ok(value.into()),
                None => Err(unknown_context(name, self.scope).at(offset.0)),
            },
            Node::Call(function, arguments, offset) => {
                call::call(self, *function, arguments).map_err(|error| error.at(offset.0))
            }
            Node::Index(target, index) => self.index(target, index),
            Node::Filter(target) => self.filter(target),
            Node::Not(value) => Ok(Value::Bool(!self.evaluate(value)?.is_truthy()).into()),
            Node::Compare(comparison, left, right) => {
                let left = self.evaluate(left)?;
                let right = self.evaluate(right)?;
                Ok(Value::Bool(compare(*comparison, &left, &right)).into())
            }
            Node::And(values) => self.first(values, false),
            Node::Or(values) => self.first(values, true),
        }
    }

    /// The first value that counts as `truthy` says, else the last; those after it are not
    /// evaluated.
    fn first(&self, values: &[Node], truthy: bool) -> Result<Evaluated, EvaluateError> {
        let mut last = Evaluated::from(Value::Null);
        for value in values {
            last = self.node(value)?;
            if last.value.is_truthy() == truthy {
                break;
            }
        }
        Ok(last)
    }

    fn index(&self, target: &Node, index: &Node) -> Result<Evaluated, EvaluateError> {
        let target = self.node(target)?;
        let index = self.evaluate(index)?;
        let Some(values) = target.value.as_array().filter(|_| target.filtered) else {
            return Ok(member(&target.value, &index).unwrap_or(Value::Null).into());
        };
        self.charge(values.len())?;
        Ok(filtered(values.iter().filter_map(|value| member(value, &index)).collect()))
    }

    fn filter(&self, target: &Node) -> Result<Evaluated, EvaluateError> {
        let target = self.node(target)?;
        if !target.filtered {
            self.charge(members(&target.value).count())?;
            return Ok(filtered(members(&target.value).cloned().collect()));
        }
        // Counted before it is collected: the same values may be shared many times over.
        let values = target.value.as_array().unwrap_or_default();
        self.charge(values.iter().map(|value| members(value).count()).sum())?;
        Ok(filtered(values.iter().flat_map(members).cloned().collect()))
    }

    /// Takes the entries of a new list from the budget.
    fn charge(&self, entries: usize) -> Result<(), EvaluateError> {
        self.budget.charge(entries.saturating_mul(size_of::<Value>()))
    }
}

/// A list made by `*`.
fn filtered(values: Vec<Value>) -> Evaluated {
    Evaluated { value: Value::Array(Arc::new(values)), filtered: true }
}

/// The member of a value: of a mapping by the text of the index, of a list by its number, rounded
/// down. Nothing else has members.
fn member(target: &Value, index: &Value) -> Option<Value> {
    match target {
        Value::Object(object) if index.is_primitive() => object.get(&index.as_text()).cloned(),
        Value::Array(values) => {
            let number = index.to_number().floor();
            // Also false for NaN.
            if number >= 0.0 { values.get(number as usize).cloned() } else { None }
        }
        _ => None,
    }
}

/// All members of a value.
fn members(target: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match target {
        Value::Object(object) => Box::new(object.values()),
        Value::Array(values) => Box::new(values.iter()),
        _ => Box::new(std::iter::empty()),
    }
}

/// `>=` and `<=` hold for what is equal or ordered: `null >= null` is true, `null > null` is not.
fn compare(comparison: Comparison, left: &Value, right: &Value) -> bool {
    let order = || left.compare(right);
    match comparison {
        Comparison::Equal => left.equals(right),
        Comparison::NotEqual => !left.equals(right),
        Comparison::Less => order().is_some_and(std::cmp::Ordering::is_lt),
        Comparison::Greater => order().is_some_and(std::cmp::Ordering::is_gt),
        Comparison::LessOrEqual => {
            left.equals(right) || order().is_some_and(std::cmp::Ordering::is_lt)
        }
        Comparison::GreaterOrEqual => {
            left.equals(right) || order().is_some_and(std::cmp::Ordering::is_gt)
        }
    }
}
