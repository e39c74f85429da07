//! Conditions: the text of `if`.

use common::event::JobResult;

use crate::expression::{Budget, EvaluateError, Expression, ParseError, Scope};

use super::segments::{OPEN, Segment, segments};

/// A parsed condition.
///
/// Its text may stand with or without `${{ }}`. With other text around it (white space counts) it is
/// a template, whose value is text and so is true unless it is empty: GitHub has it so
/// (github-runner-protocol 5.5), and [`Condition::is_mixed`] lets a checker warn about it.
#[derive(Clone, Debug)]
pub struct Condition {
    expressions: Vec<Expression>,
    /// Whether the template has text of its own. It is not kept: it makes the condition true
    /// whatever it is.
    mixed: bool,
}

impl Condition {
    /// Parses the text of an `if`. An empty one is `success()`.
    ///
    /// # Errors
    /// If a `${{` is not closed or an expression does not parse; the offset counts characters of
    /// `text`.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.trim().is_empty() {
            return Ok(Self { expressions: Vec::new(), mixed: false });
        }
        if !text.contains(OPEN) {
            return Ok(Self { expressions: vec![Expression::parse(text)?], mixed: false });
        }
        let mut expressions = Vec::new();
        let mut mixed = false;
        for segment in segments(text)? {
            match segment {
                Segment::Text(_) => mixed = true,
                Segment::Expression { text, offset } => {
                    let parsed = Expression::parse(text).map_err(|error| error.moved(offset))?;
                    expressions.push(parsed);
                }
            }
        }
        Ok(Self { expressions, mixed })
    }

    /// Whether text stands around `${{ }}`, so that the condition is always true, or true but for
    /// `success()`. Hardly ever meant.
    #[must_use]
    pub fn is_mixed(&self) -> bool {
        self.mixed
    }

    /// The expressions in it.
    #[must_use]
    pub fn expressions(&self) -> &[Expression] {
        &self.expressions
    }

    /// Whether the step or job runs. Without a status function the condition is and-ed with
    /// `success()`, and is not evaluated when that is false.
    ///
    /// # Errors
    /// If an expression has no value.
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<bool, EvaluateError> {
        if !self.expressions.iter().any(Expression::has_status_function) {
            let status = scope
                .status()
                .ok_or_else(|| EvaluateError::invalid("the status of the job is not known here"))?;
            if status != JobResult::Success || self.expressions.is_empty() {
                return Ok(status == JobResult::Success);
            }
        }
        let budget = Budget::default();
        if let ([expression], false) = (&self.expressions[..], self.mixed) {
            return Ok(expression.evaluate_within(scope, &budget)?.is_truthy());
        }
        // Every part is evaluated, as in any template, so that an error does not go unnoticed.
        let mut any_text = self.mixed;
        for expression in &self.expressions {
            any_text |= !expression.evaluate_within(scope, &budget)?.as_text().is_empty();
        }
        Ok(any_text)
    }
}
