//! From a job of the workflow to the requests that the host is given.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use common::ids::JobId;
use common::plan::{DEFAULT_JOB_MINUTES, Dialect, Value as PlanValue};
use common::request::{
    Contexts, Deadlines, Envelope, Forge, JobBody, JobRequest, MachineSize, PROTOCOL_VERSION,
};
use serde_json::{Map, Value as Json};
use workflow_runner::diagnostic::Diagnostic;
use workflow_runner::expression::Value;
use workflow_runner::workflow::{self, Job, JobScope, Leg as MatrixLeg, Workflow};

use super::execute::Labels;
use super::schedule::{Decision, Leg, Legs, Needs, Planner};
use super::secrets::Secrets;
use crate::cli::LONGEST_JOB;
use crate::exit::CommandError;

/// How long the machine of a failed job is kept with `--keep`.
const KEEP: Duration = Duration::from_secs(2 * 3600);

/// Labels by which forges address their own runners; they name no image.
const PLAIN_LABELS: &[&str] = &["self-hosted"];

/// Makes requests of the jobs of one workflow.
pub(crate) struct WorkflowPlanner<'a> {
    /// The workflow.
    pub(crate) workflow: &'a Workflow,
    /// Whose rules apply.
    pub(crate) dialect: Dialect,
    /// The contexts that all jobs share: `github`, `vars`, `inputs`.
    pub(crate) contexts: Contexts,
    /// The secrets.
    pub(crate) secrets: Secrets,
    /// What the user asked for.
    pub(crate) wishes: Wishes,
    /// Knows the images of this host.
    pub(crate) labels: &'a dyn Labels,
    /// Keys of `--matrix` that a job had.
    pub(crate) matrix_keys_seen: BTreeSet<String>,
}

/// What the user asked for on the command line, for every job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// `--image`.
    pub(crate) image: Option<String>,
    /// `--cpus` and `--memory`.
    pub(crate) size: MachineSize,
    /// `--timeout`.
    pub(crate) timeout: Option<Duration>,
    /// `--keep`.
    pub(crate) keep: bool,
    /// `--env`.
    pub(crate) env: Vec<(String, String)>,
    /// `--matrix`.
    pub(crate) matrix: Vec<(String, String)>,
    /// What `actions/checkout` places in the workspace.
    pub(crate) project: PathBuf,
    /// `owner/name`.
    pub(crate) repository: String,
}

impl WorkflowPlanner<'_> {
    /// Finds what is wrong with a job before any job runs, as far as it does not depend on others.
    ///
    /// # Errors
    /// An image label is unknown.
    pub(crate) fn check(&self, job: &Job) -> Result<(), CommandError> {
        if let Some(image) = &self.wishes.image {
            return self.wished_image(image).map(|_| ());
        }
        if !is_literal(&job.runs_on) {
            return Ok(());
        }
        let scope = JobScope::new(&self.contexts, self.dialect);
        self.known(job, &workflow::labels(job, &scope)?).map(|_| ())
    }

    /// The keys of `--matrix` that no job had so far.
    pub(crate) fn unused_matrix_keys(&self) -> Vec<&str> {
        let keys = self.wishes.matrix.iter().map(|(key, _)| key.as_str());
        keys.filter(|key| !self.matrix_keys_seen.contains(*key)).collect()
    }

    /// Whether a job runs with these contexts.
    fn runs(&self, job: &Job, contexts: &Contexts, needs: &Needs) -> Result<bool, Diagnostic> {
        // A run that is cancelled decides nothing any more.
        let cancelled = false;
        let (workflow, results) = (self.workflow, &needs.results);
        workflow::job_condition(workflow, job, contexts, results, cancelled, self.dialect)
    }

    /// The image of `--image`.
    fn wished_image(&self, label: &str) -> Result<String, CommandError> {
        match self.labels.has_label(label) {
            Ok(()) => Ok(label.to_owned()),
            Err(sentence) => Err(CommandError::usage(sentence)),
        }
    }

    /// The first of a job's labels that names an image of this host.
    fn known(&self, job: &Job, labels: &[String]) -> Result<String, CommandError> {
        let mut first = None;
        for label in labels {
            match self.labels.has_label(label) {
                Ok(()) => return Ok(label.clone()),
                Err(sentence) if !PLAIN_LABELS.contains(&label.as_str()) => {
                    first.get_or_insert(sentence);
                }
                Err(_) => {}
            }
        }
        let sentence = first.unwrap_or_else(|| {
            format!("the label {:?} names no image", labels.first().map_or("", String::as_str))
        });
        let hint = "choose an image for every job with --image LABEL";
        Err(job.about_runs_on(sentence).hint(hint).into())
    }

    /// How long a leg may run, and what its plan must say so that the engine ends it by its own
    /// rules: nothing where the workflow says it already.
    fn limit(&self, job: &Job, scope: &JobScope) -> (Duration, Option<PlanValue>) {
        let most = self.wishes.timeout.unwrap_or(LONGEST_JOB).min(LONGEST_JOB);
        let scope = scope.clone().with_secrets(&self.secrets);
        // What has no value here may have one in the guest; the engine reports it if not.
        let Ok(own) = workflow::timeout_minutes(job, &scope) else { return (most, None) };
        let own = own.unwrap_or(DEFAULT_JOB_MINUTES as f64) * 60.0;
        if own <= most.as_secs_f64() {
            return (Duration::from_secs_f64(own), None);
        }
        (most, Some(PlanValue::Literal((most.as_secs_f64() / 60.0).to_string())))
    }

    fn matches(&self, leg: &MatrixLeg) -> bool {
        self.wishes.matrix.iter().all(|(key, wanted)| {
            leg.matrix.get(key).is_none_or(|value| matrix_text(value) == *wanted)
        })
    }

    /// The legs that `--matrix` leaves.
    fn filter<T>(
        &mut self,
        job: &Job,
        legs: Vec<(MatrixLeg, T)>,
    ) -> Result<Vec<(MatrixLeg, T)>, CommandError> {
        for (key, _) in &self.wishes.matrix {
            if legs.iter().any(|(leg, _)| leg.matrix.get(key).is_some()) {
                self.matrix_keys_seen.insert(key.clone());
            }
        }
        let all: Vec<String> = legs.iter().map(|(leg, _)| leg.suffix.clone()).collect();
        let left: Vec<_> = legs.into_iter().filter(|(leg, _)| self.matches(leg)).collect();
        if left.is_empty() && !all.is_empty() {
            let wishes: Vec<String> =
                self.wishes.matrix.iter().map(|(key, value)| format!("{key}={value}")).collect();
            return Err(CommandError::usage(format!(
                "no leg of the job {:?} has {}",
                job.key,
                wishes.join(" and ")
            ))
            .hint(format!("its legs are {}", all.join(", "))));
        }
        Ok(left)
    }

    fn request(&self, job: &Job, leg: &MatrixLeg, contexts: Contexts) -> Result<Leg, CommandError> {
        let scope = JobScope::new(&contexts, self.dialect).with_leg(leg);
        let label = match &self.wishes.image {
            Some(image) => self.wished_image(image)?,
            None => self.known(job, &workflow::labels(job, &scope)?)?,
        };
        let mut plan = workflow::plan(self.workflow, &job.key, leg, &contexts, self.dialect)?;
        if !self.wishes.env.is_empty() {
            let pairs = self.wishes.env.iter();
            plan.env.push(PlanValue::Mapping(
                pairs.map(|(k, v)| (PlanValue::literal(k), PlanValue::literal(v))).collect(),
            ));
        }
        let continue_on_error = workflow::continues_on_error(job, &scope)?;
        // The engine keeps the limit; the deadline is for one that does not.
        let (running, limit) = self.limit(job, &scope);
        if limit.is_some() {
            plan.timeout_minutes = limit;
        }
        let deadlines = Deadlines { running, ..Deadlines::default() };
        let name = plan.name.clone();
        let request = JobRequest {
            envelope: Envelope {
                version: PROTOCOL_VERSION,
                job: JobId::new(),
                forge: Forge::Local,
                repository: self.wishes.repository.clone(),
                label,
                size: self.wishes.size,
                priority: 0,
                deadlines,
                reply_to: "local".to_owned(),
                reservation: None,
            },
            body: JobBody {
                plan,
                contexts,
                secrets: self.secrets.clone(),
                masks: Vec::new(),
                tree: workflow::uses_checkout(job).then(|| self.wishes.project.clone()),
                keep: self.wishes.keep.then_some(KEEP),
                services: Vec::new(),
                debug: None,
            },
        };
        Ok(Leg { name, matrix: leg.matrix.clone(), continue_on_error, request })
    }
}

impl Planner for WorkflowPlanner<'_> {
    fn decide(&mut self, key: &str, needs: &Needs) -> Result<Decision, CommandError> {
        let workflow = self.workflow;
        let Some(job) = workflow.job(key) else {
            return Err(CommandError::usage(format!("there is no job {key:?}")));
        };
        let mut contexts = self.contexts.clone();
        contexts.needs = needs.context.clone();
        let scope = JobScope::new(&contexts, self.dialect);
        let legs = match workflow::expand(job, &scope) {
            Ok(legs) => legs,
            // A condition often guards a matrix that could not be made otherwise.
            Err(_) if !self.runs(job, &contexts, needs)? => {
                return Ok(Decision::Skip { name: plain_name(job) });
            }
            Err(error) => return Err(error.into()),
        };
        let strategy = workflow::strategy_values(job, &scope)?;
        let mut running = Vec::new();
        for leg in legs {
            let mut contexts = contexts.clone();
            contexts.matrix = leg.matrix.clone();
            contexts.strategy = strategy.context(&leg);
            if self.runs(job, &contexts, needs)? {
                running.push((leg, contexts));
            }
        }
        if running.is_empty() {
            return Ok(Decision::Skip { name: plain_name(job) });
        }
        let legs = self
            .filter(job, running)?
            .into_iter()
            .map(|(leg, contexts)| self.request(job, &leg, contexts))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Decision::Run(Legs {
            legs,
            fail_fast: strategy.fail_fast,
            max_parallel: strategy.max_parallel,
        }))
    }
}

/// The name of a job that is not expanded.
fn plain_name(job: &Job) -> String {
    match &job.name {
        Some(PlanValue::Literal(name)) if !name.trim().is_empty() => name.clone(),
        _ => job.key.clone(),
    }
}

/// A value of a matrix as a user writes it in `--matrix`.
fn matrix_text(value: &Json) -> String {
    match value {
        Json::Object(_) | Json::Array(_) => value.to_string(),
        scalar => Value::from_json(scalar).to_text(),
    }
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

/// Pairs of the command line as a context; of a name that is given twice the last value counts.
pub(crate) fn context_of(pairs: &[(String, String)]) -> Map<String, Json> {
    pairs.iter().map(|(name, value)| (name.clone(), Json::String(value.clone()))).collect()
}
