//! `solstice expression`: the value of an expression, to try one out before a job does.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use common::event::JobResult;
use common::limits::JOB_REQUEST_BYTES;
use common::plan::Location;
use workflow_runner::diagnostic::Diagnostic;
use workflow_runner::expression::{
    CONTEXTS, EvaluateError, Expression, HashFiles, Object, Scope, Value,
};
use workflow_runner::system::{Local, System};

use crate::cli::ExpressionArgs;
use crate::exit::{CommandError, Exit};
use crate::table::print_text;

/// How long one `hashFiles` may read.
const HASH_LIMIT: Duration = Duration::from_secs(120);

/// What stands for a file's name in errors.
const EXPRESSION: &str = "expression";

/// Prints the value of an expression as JSON.
///
/// # Errors
/// It does not parse or has no value, or the file of contexts cannot be used.
pub(crate) async fn expression(arguments: &ExpressionArgs) -> Result<Exit, CommandError> {
    let contexts = match &arguments.context {
        Some(path) => read_contexts(path)?,
        None => CONTEXTS.map(|name| (name.to_owned(), Object::new().into())).into_iter().collect(),
    };
    let text = &arguments.expression;
    let error = |error: EvaluateError| CommandError::from(located(text, &error));
    let parsed = Expression::parse(text).map_err(|parse| error(parse.into()))?;
    let mut places = Places { contexts, status: arguments.status, hashes: BTreeMap::new() };
    let value = loop {
        match parsed.evaluate(&places) {
            Ok(value) => break value,
            Err(EvaluateError::NeedsHash(patterns)) => {
                let hash = hash_files(&patterns).await?;
                places.hashes.insert(patterns, hash);
            }
            Err(other) => return Err(error(other)),
        }
    };
    let json = value.to_json_text().map_err(error)?;
    print_text(&(json + "\n"))
}

/// The error with its place in the text, shown by a caret.
fn located(text: &str, error: &EvaluateError) -> Diagnostic {
    let diagnostic = Diagnostic::new(EXPRESSION, error.to_string());
    let Some(offset) = error.offset() else { return diagnostic };
    let before: String = text.chars().take(offset).collect();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    diagnostic.at(Location { line: count(line), column: count(column) }, text)
}

/// Reads the contexts that exist.
fn read_contexts(path: &Path) -> Result<Object, CommandError> {
    let shown = path.display();
    let cannot_read =
        |error: std::io::Error| CommandError::usage(format!("cannot read {shown}: {error}"));
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).map_err(cannot_read)?)
    };
    let mut bytes = Vec::new();
    source.take(JOB_REQUEST_BYTES + 1).read_to_end(&mut bytes).map_err(cannot_read)?;
    if bytes.len() as u64 > JOB_REQUEST_BYTES {
        return Err(CommandError::usage(format!(
            "{shown} has more than {JOB_REQUEST_BYTES} bytes, which no job may have"
        )));
    }
    let json: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(|error| CommandError::usage(format!("{shown} is not JSON: {error}")))?;
    match Value::from_json(&json) {
        Value::Object(contexts) => Ok((*contexts).clone()),
        other => Err(CommandError::usage(format!(
            "{shown} holds {}, but must be an object of contexts",
            other.kind()
        ))
        .hint("write it as {\"github\": {\"ref\": \"refs/heads/main\"}}")),
    }
}

/// Hashes files below the working directory, as a step does below its workspace.
async fn hash_files(patterns: &[String]) -> Result<String, CommandError> {
    let directory = std::env::current_dir()
        .map_err(|error| CommandError::usage(format!("the working directory is gone: {error}")))?;
    Local::new()
        .hash_files(&directory.to_string_lossy(), patterns, HASH_LIMIT)
        .await
        .map_err(|error| CommandError::usage(format!("hashFiles failed: {error}")))
}

/// What the expression sees.
struct Places {
    contexts: Object,
    status: JobResult,
    hashes: BTreeMap<Vec<String>, String>,
}

impl Scope for Places {
    fn context(&self, name: &str) -> Option<Value> {
        self.contexts.get(name).cloned()
    }

    fn status(&self) -> Option<JobResult> {
        Some(self.status)
    }

    fn hash_files(&self, patterns: &[String]) -> HashFiles {
        match self.hashes.get(patterns) {
            Some(hash) => HashFiles::Known(hash.clone()),
            None => HashFiles::Unknown,
        }
    }

    fn context_names(&self) -> Vec<String> {
        self.contexts.iter().map(|(name, _)| name.to_owned()).collect()
    }
}
