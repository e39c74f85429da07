//! `strategy` of a job.

use super::context::Context;
use super::value::is_template;
use crate::diagnostic::Diagnostic;
use crate::workflow::matrix;
use crate::workflow::model::{Matrix, Strategy};
use crate::yaml::Node;

/// Decodes `strategy`. A matrix without expressions is expanded once, so that what is wrong with it
/// is known now.
pub(super) fn strategy(context: &mut Context, node: Option<&Node>) -> Result<Strategy, Diagnostic> {
    let node = match node {
        Some(node) if !node.is_null() => node,
        _ => return Ok(Strategy::default()),
    };
    let pairs = context.mapping(node, "`strategy`")?;
    context.unknown_keys("`strategy`", pairs, &["matrix", "fail-fast", "max-parallel"]);
    let matrix = pairs.iter().find(|(key, _)| key.text() == Some("matrix"));
    let matrix = match matrix {
        Some((key, value)) if !value.is_null() => Some(self::matrix(context, key, value)?),
        _ => None,
    };
    Ok(Strategy {
        matrix,
        fail_fast: context.optional(node, "fail-fast", Context::flag)?,
        max_parallel: context.optional(node, "max-parallel", Context::amount)?,
    })
}

fn matrix(context: &Context, key: &Node, node: &Node) -> Result<Matrix, Diagnostic> {
    if node.as_mapping().is_none() && !is_template(node) {
        return Err(context
            .wrong(node, "`matrix`", "a mapping or an expression that gives one")
            .hint("each key names a list of values, such as `os: [debian-12, tiny]`"));
    }
    let matrix = Matrix { data: context.data(node)?, location: key.location };
    if matrix.data.is_literal() {
        matrix::check_literal(&matrix, &context.source)?;
    }
    Ok(matrix)
}
