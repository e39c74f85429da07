//! `strategy.matrix`: the legs of a job.

use common::limits::MATRIX_LEGS;
use common::plan::Location;
use serde_json::{Map, Value as Json};

use super::model::{Job, Matrix};
use super::scope::NoContexts;
use crate::diagnostic::Diagnostic;
use crate::expression::{EvaluateError, Scope, Value};
use crate::yaml::{Source, shorten};

/// Combinations that are looked at before `exclude` leaves at most [`MATRIX_LEGS`] of them. More
/// are refused.
const COMBINATIONS: usize = 65_536;

/// One leg of a job: the job with one combination of its matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Leg {
    /// The values, by the names of the matrix; null for a job without a matrix.
    pub matrix: Json,
    /// The leg's place, from 0: `strategy.job-index`.
    pub index: usize,
    /// The number of legs: `strategy.job-total`.
    pub total: usize,
    /// The values as they stand behind the job's name, such as `(debian-12, 3)`; empty for a job
    /// without a matrix.
    pub suffix: String,
}

/// Expands the matrix of a job. A job without one has a single leg.
///
/// Every expression in it is evaluated once; `include` and `exclude` follow GitHub's rules.
///
/// # Errors
///
/// If an expression has no value, or the matrix is not one: a name without a list of values, an
/// entry of `include` or `exclude` that is not a mapping, no legs, or more than [`MATRIX_LEGS`].
pub fn expand(job: &Job, scope: &dyn Scope) -> Result<Vec<Leg>, Diagnostic> {
    let Some(matrix) = &job.strategy.matrix else {
        return Ok(vec![Leg { matrix: Json::Null, index: 0, total: 1, suffix: String::new() }]);
    };
    let legs = evaluate(matrix, scope).map_err(|problem| {
        let message = format!("the matrix of job {:?} {}", job.key, problem.message);
        job.diagnostic(problem.place(matrix), message)
    })?;
    let total = legs.len();
    let numbered = legs.into_iter().enumerate().map(|(index, leg)| {
        let matrix = Json::Object(leg);
        Leg { suffix: suffix(&matrix), matrix, index, total }
    });
    Ok(numbered.collect())
}

/// What is wrong with a matrix without expressions is known before any job runs.
pub(super) fn check_literal(matrix: &Matrix, source: &Source) -> Result<(), Diagnostic> {
    evaluate(matrix, &NoContexts).map(|_| ()).map_err(|problem| {
        source.diagnostic(problem.place(matrix), format!("the matrix {}", problem.message))
    })
}

/// What is wrong, fit to stand behind "the matrix", and where.
struct Problem {
    message: String,
    key: Option<String>,
    location: Option<Location>,
}

impl Problem {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), key: None, location: None }
    }

    fn of(key: &str, message: impl Into<String>) -> Self {
        Self { key: Some(key.to_owned()), ..Self::new(message) }
    }

    fn place(&self, matrix: &Matrix) -> Location {
        let key = self.key.as_deref().and_then(|key| matrix.data.place_of(key));
        self.location.or(key).unwrap_or(matrix.location)
    }
}

impl From<(Location, EvaluateError)> for Problem {
    fn from((location, error): (Location, EvaluateError)) -> Self {
        Self { location: Some(location), ..Self::new(format!("has no value: {error}")) }
    }
}

type Combination = Map<String, Json>;

fn evaluate(matrix: &Matrix, scope: &dyn Scope) -> Result<Vec<Combination>, Problem> {
    let Json::Object(fields) = matrix.data.evaluate(scope)? else {
        return Err(Problem::new("must be a mapping, but its expression gives something else"));
    };
    let (mut include, mut exclude) = (Vec::new(), Vec::new());
    let mut dimensions: Vec<(String, Vec<Json>)> = Vec::new();
    for (name, value) in fields {
        match name.as_str() {
            "include" => include = mappings(&name, value)?,
            "exclude" => exclude = mappings(&name, value)?,
            _ => dimensions.push((name.clone(), values(&name, value)?)),
        }
    }
    check_exclude(&exclude, &dimensions)?;
    let originals = combinations(&dimensions, &exclude)?;
    let legs = included(&originals, &include)?;
    if legs.is_empty() {
        return Err(Problem::new("leaves no combination to run"));
    }
    Ok(legs)
}

fn values(name: &str, value: Json) -> Result<Vec<Json>, Problem> {
    let shown = shorten(name);
    match value {
        Json::Array(values) if values.is_empty() => {
            Err(Problem::of(name, format!("has no values for {shown:?}")))
        }
        Json::Array(values) => Ok(values),
        _ => Err(Problem::of(name, format!("needs a list of values for {shown:?}"))),
    }
}

fn mappings(name: &str, value: Json) -> Result<Vec<Combination>, Problem> {
    let wrong = || Problem::of(name, format!("needs a list of mappings for `{name}`"));
    let Json::Array(items) = value else {
        return if value.is_null() { Ok(Vec::new()) } else { Err(wrong()) };
    };
    items
        .into_iter()
        .map(|item| match item {
            Json::Object(fields) => Ok(fields),
            _ => Err(wrong()),
        })
        .collect()
}

fn check_exclude(
    exclude: &[Combination],
    dimensions: &[(String, Vec<Json>)],
) -> Result<(), Problem> {
    for name in exclude.iter().flat_map(Map::keys) {
        if !dimensions.iter().any(|(known, _)| known == name) {
            let message = format!("excludes by {:?}, which is not a name in it", shorten(name));
            return Err(Problem::of("exclude", message));
        }
    }
    Ok(())
}

/// Every combination of the dimensions that is not excluded; the first dimension changes slowest.
fn combinations(
    dimensions: &[(String, Vec<Json>)],
    exclude: &[Combination],
) -> Result<Vec<Combination>, Problem> {
    if dimensions.is_empty() {
        return Ok(Vec::new());
    }
    let count = dimensions
        .iter()
        .try_fold(1_usize, |count, (_, values)| count.checked_mul(values.len()))
        .filter(|count| *count <= COMBINATIONS)
        .ok_or_else(too_many)?;
    let mut legs = Vec::new();
    for number in 0..count {
        let mut rest = number;
        let mut chosen = Vec::with_capacity(dimensions.len());
        for (name, values) in dimensions.iter().rev() {
            chosen.push((name, &values[rest % values.len()]));
            rest /= values.len();
        }
        let excluded = exclude.iter().any(|filter| {
            filter.iter().all(|(name, wanted)| {
                chosen.iter().any(|(known, value)| *known == name && contains(value, wanted))
            })
        });
        if excluded {
            continue;
        }
        if legs.len() == MATRIX_LEGS {
            return Err(too_many());
        }
        let pairs = chosen.into_iter().rev();
        legs.push(pairs.map(|(name, value)| (name.clone(), value.clone())).collect());
    }
    Ok(legs)
}

/// Whether a value has everything that a filter names.
fn contains(value: &Json, filter: &Json) -> bool {
    match (value, filter) {
        (Json::Object(value), Json::Object(filter)) => filter
            .iter()
            .all(|(name, wanted)| value.get(name).is_some_and(|value| contains(value, wanted))),
        _ => value == filter,
    }
}

/// Adds each entry of `include` to every combination of which it changes no original value, or else
/// makes a leg of it. Values that an earlier entry added may be changed.
fn included(
    originals: &[Combination],
    include: &[Combination],
) -> Result<Vec<Combination>, Problem> {
    let mut legs = originals.to_vec();
    let mut added = Vec::new();
    for entry in include {
        let mut matched = false;
        for (original, leg) in originals.iter().zip(&mut legs) {
            let keeps = entry
                .iter()
                .all(|(name, value)| original.get(name).is_none_or(|original| original == value));
            if keeps {
                matched = true;
                leg.extend(entry.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
        if !matched {
            added.push(entry.clone());
        }
        if legs.len() + added.len() > MATRIX_LEGS {
            return Err(too_many());
        }
    }
    legs.append(&mut added);
    Ok(legs)
}

fn too_many() -> Problem {
    Problem::new(format!("has more than {MATRIX_LEGS} legs"))
}

/// The values of a leg as they stand behind a job's name.
fn suffix(matrix: &Json) -> String {
    let mut values = Vec::new();
    leaves(matrix, &mut values);
    if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) }
}

/// Recursion is bounded: the depth of a file and of what `fromJSON` reads is.
fn leaves(value: &Json, found: &mut Vec<String>) {
    match value {
        Json::Object(fields) => fields.values().for_each(|value| leaves(value, found)),
        Json::Array(items) => items.iter().for_each(|value| leaves(value, found)),
        scalar => {
            let text = Value::from_json(scalar).to_text();
            if !text.is_empty() {
                found.push(text);
            }
        }
    }
}
