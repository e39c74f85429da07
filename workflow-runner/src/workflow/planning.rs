//! From a job and a leg to the plan, its name and its labels.

use common::plan::{Dialect, Location, PLAN_VERSION, Plan, Step, StepAction, Value as PlanValue};
use common::request::Contexts;
use serde_json::{Map, Value as Json};

use super::matrix::Leg;
use super::model::{Job, Steps, Workflow};
use super::rules::Rules;
use super::scope::{JobScope, LegScope, NoContexts};
use super::{KDL_FILE, Reference, is_checkout, suggest};
use crate::diagnostic::Diagnostic;
use crate::expression::{Scope, Value};
use crate::template;

/// Makes the plan of one leg of a job.
///
/// `contexts` are those of the job; their `matrix` is that of the leg, whatever they say.
///
/// # Errors
///
/// If there is no such job, it calls a workflow, or its name has no value.
pub fn plan(
    workflow: &Workflow,
    job_key: &str,
    leg: &Leg,
    contexts: &Contexts,
    dialect: Dialect,
) -> Result<Plan, Diagnostic> {
    let Some(job) = workflow.job(job_key) else {
        let error = workflow.source.about_file(format!("there is no job {job_key:?}"));
        let keys: Vec<_> = workflow.jobs.iter().map(|job| job.key.as_str()).collect();
        return Err(match suggest::hint(job_key, keys.iter().copied()) {
            Some(hint) => error.hint(hint),
            None => error.hint(format!("the jobs are: {}", keys.join(", "))),
        });
    };
    let work = on_machine(job)?;
    let scope = JobScope::new(contexts, dialect).with_leg(leg);
    let layers = |values: [&PlanValue; 2]| {
        values.into_iter().filter(|value| !value.is_empty_mapping()).cloned().collect()
    };
    Ok(Plan {
        version: PLAN_VERSION,
        dialect,
        server_version: None,
        job: job.key.clone(),
        name: display_name(job, leg, &scope)?,
        env: layers([&workflow.env, &work.env]),
        defaults: layers([&workflow.defaults, &work.defaults]),
        containers: work.containers.clone(),
        steps: work.steps.clone(),
        outputs: work.outputs.clone(),
        timeout_minutes: work.timeout_minutes.clone(),
        file: Some(workflow.file.clone()),
    })
}

/// The name of a leg as people read it. Without an expression in its `name`, the values of the
/// matrix stand behind it.
///
/// # Errors
///
/// If the name has no value.
pub fn display_name(job: &Job, leg: &Leg, scope: &dyn Scope) -> Result<String, Diagnostic> {
    let name = match &job.name {
        Some(PlanValue::Literal(name)) => name.clone(),
        Some(name) => {
            let scope = LegScope::new(scope, leg);
            let name = evaluate(job, name, "name", job.places.name, &scope)?.to_text();
            if !name.trim().is_empty() {
                return Ok(name);
            }
            String::new()
        }
        None => String::new(),
    };
    let name = if name.trim().is_empty() { &job.key } else { &name };
    Ok(if leg.suffix.is_empty() { name.clone() } else { format!("{name} {}", leg.suffix) })
}

/// The labels that a job's `runs-on` gives, at least one. Those of a mapping are its labels and then
/// its group (forgejo-runner-protocol 7.1).
///
/// # Errors
///
/// If it has no value, or its value names no label.
pub fn labels(job: &Job, scope: &dyn Scope) -> Result<Vec<String>, Diagnostic> {
    let at = job.places.runs_on;
    let value = evaluate(job, &on_machine(job)?.runs_on, "runs-on", at, scope)?.to_json();
    let mut labels = Vec::new();
    let understood = match &value {
        Json::Object(fields) => ["labels", "group"]
            .into_iter()
            .filter_map(|part| fields.get(part))
            .all(|part| collect(part, &mut labels)),
        other => collect(other, &mut labels),
    };
    if !understood {
        let message =
            format!("`runs-on` of job {:?} gives neither text nor a list of texts", job.key);
        return Err(job.diagnostic(at, message));
    }
    if labels.is_empty() {
        let message = format!("`runs-on` of job {:?} is empty once it is evaluated", job.key);
        let error = job.diagnostic(at, message);
        return Err(error.hint("name the label of an image, such as `runs-on: debian-12`"));
    }
    Ok(labels)
}

/// The labels of a job whose `runs-on` has nothing to evaluate, as [`labels`]; absent if it has.
pub fn literal_labels(job: &Job) -> Option<Result<Vec<String>, Diagnostic>> {
    is_literal(&job.on_machine()?.runs_on).then(|| labels(job, &NoContexts))
}

/// Whether a value has nothing to evaluate.
fn is_literal(value: &PlanValue) -> bool {
    match value {
        PlanValue::Literal(_) => true,
        PlanValue::Sequence(items) => items.iter().all(is_literal),
        PlanValue::Mapping(pairs) => pairs.iter().all(|(k, v)| is_literal(k) && is_literal(v)),
        PlanValue::Template(_) | PlanValue::Expression(_) | PlanValue::Insert => false,
    }
}

fn collect(value: &Json, labels: &mut Vec<String>) -> bool {
    match value {
        Json::String(text) => {
            let label = text.trim();
            if !label.is_empty() {
                labels.push(label.to_owned());
            }
            true
        }
        Json::Array(items) => items.iter().all(|item| !item.is_array() && collect(item, labels)),
        Json::Null => true,
        _ => false,
    }
}

/// How the legs of a job depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StrategyValues {
    /// Whether a failed leg cancels the others.
    pub fail_fast: bool,
    /// How many legs run at once at most; absent means no limit.
    pub max_parallel: Option<usize>,
}

impl StrategyValues {
    /// The `strategy` context of a leg.
    pub fn context(&self, leg: &Leg, dialect: Dialect) -> Map<String, Json> {
        let mut context = Map::new();
        context.insert("fail-fast".to_owned(), self.fail_fast.into());
        if Rules::of(dialect).strategy_has_place {
            context.insert("job-index".to_owned(), leg.index.into());
            context.insert("job-total".to_owned(), leg.total.into());
        }
        let max_parallel = self.max_parallel.unwrap_or(leg.total);
        context.insert("max-parallel".to_owned(), max_parallel.into());
        context
    }
}

/// Evaluates `fail-fast` and `max-parallel` of a job.
///
/// # Errors
///
/// If one has no value, or `max-parallel` is not a number above zero.
pub fn strategy_values(job: &Job, scope: &dyn Scope) -> Result<StrategyValues, Diagnostic> {
    let at = job.places.strategy;
    let fail_fast = match &job.strategy.fail_fast {
        Some(value) => truth(&evaluate(job, value, "fail-fast", at, scope)?),
        None => true,
    };
    let max_parallel = match &job.strategy.max_parallel {
        Some(value) => {
            let number = evaluate(job, value, "max-parallel", at, scope)?.to_number();
            if number.is_nan() || number < 1.0 {
                let message =
                    format!("`max-parallel` of job {:?} is no number above zero", job.key);
                return Err(job.diagnostic(at, message));
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "at least 1; the cast keeps what is too large at the largest number"
            )]
            Some(number as usize)
        }
        None => None,
    };
    Ok(StrategyValues { fail_fast, max_parallel })
}

/// Evaluates the `continue-on-error` of a job: whether its failure leaves the run a success.
///
/// # Errors
///
/// If it has no value.
pub fn continues_on_error(job: &Job, scope: &dyn Scope) -> Result<bool, Diagnostic> {
    match job.on_machine().and_then(|work| work.continue_on_error.as_ref()) {
        Some(value) => Ok(truth(&evaluate(job, value, "continue-on-error", job.location, scope)?)),
        None => Ok(false),
    }
}

/// Evaluates the `timeout-minutes` of a job: its limit in minutes, absent where it has none of its
/// own, which is also what zero and less mean.
///
/// # Errors
///
/// If it has no value here, or one that is no number. The engine, which knows more contexts, may
/// still find one.
pub fn timeout_minutes(job: &Job, scope: &dyn Scope) -> Result<Option<f64>, Diagnostic> {
    let limit = job.on_machine().and_then(|work| work.timeout_minutes.as_ref());
    let Some(value) = limit else { return Ok(None) };
    let at = job.location;
    let minutes = evaluate(job, value, "timeout-minutes", at, scope)?.to_number();
    if !minutes.is_finite() {
        let message = format!("`timeout-minutes` of job {:?} is no number", job.key);
        return Err(job.diagnostic(at, message));
    }
    Ok((minutes > 0.0).then_some(minutes))
}

/// The text `false` of a literal is false here.
fn truth(value: &Value) -> bool {
    match value {
        Value::String(text) => text.eq_ignore_ascii_case("true"),
        other => other.is_truthy(),
    }
}

/// Whether a step of the job needs the repository: it checks it out by `actions/checkout`, from any
/// forge, or enters its workflow in KDL.
pub fn uses_checkout(job: &Job) -> bool {
    job.steps().iter().any(|step| match &step.action {
        StepAction::Uses { reference, .. } => is_checkout(reference) || enters_kdl(reference),
        StepAction::Run { .. } | StepAction::Unsupported { .. } => false,
    })
}

/// The steps whose action cannot run, whatever machine they get: each fails when it is reached.
pub fn unsupported_actions(job: &Job) -> Vec<Diagnostic> {
    let finding = |step: &Step| {
        let StepAction::Uses { reference, .. } = &step.action else { return None };
        let message = Reference::parse(reference).err()?;
        Some(job.diagnostic(step.location.unwrap_or(job.location), message))
    };
    job.steps().iter().filter_map(finding).collect()
}

/// The action that runs the jobs of the repository's workflow in KDL, without its version.
const ENTRY: &str = "solstice/workflow";

/// The same with the version that this program has.
pub(super) const ENTRY_STEP: &str = "solstice/workflow@v1";

/// The file that a job enters, where it is known before the job runs.
pub fn entered_file(job: &Job) -> Option<String> {
    job.steps().iter().find_map(|step| match &step.action {
        StepAction::Uses { reference, with: PlanValue::Mapping(inputs) }
            if enters_kdl(reference) =>
        {
            let named = |name: &PlanValue| *name == PlanValue::literal("file");
            match inputs.iter().find(|(name, _)| named(name)) {
                None => Some(KDL_FILE.to_owned()),
                Some((_, PlanValue::Literal(file))) => Some(file.clone()),
                Some(_) => None,
            }
        }
        _ => None,
    })
}

/// Whether a step's `uses` enters the repository's workflow in KDL.
pub fn enters_kdl(reference: &str) -> bool {
    let Some((name, version)) = reference.split_once('@') else { return false };
    name.eq_ignore_ascii_case(ENTRY) && !version.is_empty()
}

fn on_machine(job: &Job) -> Result<&Steps, Diagnostic> {
    job.on_machine().ok_or_else(|| {
        let message = format!("job {:?} calls a workflow and has no steps of its own", job.key);
        job.diagnostic(job.location, message)
    })
}

fn evaluate(
    job: &Job,
    value: &PlanValue,
    what: &str,
    at: Location,
    scope: &dyn Scope,
) -> Result<Value, Diagnostic> {
    template::evaluate(value, scope)
        .map_err(|error| job.diagnostic(at, format!("`{what}` of job {:?}: {error}", job.key)))
}
