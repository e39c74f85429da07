//! From a job of the workflow to the requests that the host is given.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::ids::{JobId, RunId};
use common::plan::{DEFAULT_JOB_MINUTES, Dialect, Value as PlanValue};
use common::request::{
    Contexts, Deadlines, Envelope, Forge, JobBody, JobRequest, MachineSize, PROTOCOL_VERSION,
};
use serde_json::{Map, Value as Json};
use workflow_runner::diagnostic::Diagnostic;
use workflow_runner::expression::Value;
use workflow_runner::workflow::{
    self, Call, Job, JobScope, Leg as MatrixLeg, StrategyValues, Workflow,
};

use super::called::Library;
use super::execute::Labels;
use super::schedule::{Called, Decision, Leg, Legs, Needs, Node, Planner, own_key};
use super::secrets::Secrets;
use crate::cli::{KeepHow, LONGEST_JOB};
use crate::exit::CommandError;

/// How often one run may call workflows, each leg and each call within a call counted.
const CALLS: usize = 256;

/// Labels by which forges address their own runners; they name no image.
const PLAIN_LABELS: &[&str] = &["self-hosted"];

/// Makes requests of the jobs of a workflow, and of those that it calls.
pub(crate) struct WorkflowPlanner<'a> {
    /// The workflow, under the empty prefix, and each call of another under the prefix of its jobs.
    pub(crate) units: BTreeMap<String, Unit>,
    /// What is called.
    pub(crate) library: &'a Library,
    /// Whose rules apply.
    pub(crate) dialect: Dialect,
    /// What the user asked for.
    pub(crate) wishes: Wishes,
    /// Knows the images of this host.
    pub(crate) labels: &'a dyn Labels,
    /// Keys of `--matrix` that a job had.
    pub(crate) matrix_keys_seen: BTreeSet<String>,
}

/// A workflow that runs, with what its jobs share.
#[derive(Clone)]
pub(crate) struct Unit {
    /// The workflow.
    pub(crate) workflow: Arc<Workflow>,
    /// The contexts that all jobs share: `github`, `vars`, `inputs`.
    pub(crate) contexts: Contexts,
    /// The secrets.
    pub(crate) secrets: Secrets,
    /// What stands in front of the names of its jobs.
    pub(crate) title: String,
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
    pub(crate) keep: Option<KeepHow>,
    /// `--env`.
    pub(crate) env: Vec<(String, String)>,
    /// `--matrix`.
    pub(crate) matrix: Vec<(String, String)>,
    /// What `actions/checkout` places in the workspace.
    pub(crate) project: PathBuf,
    /// `owner/name`.
    pub(crate) repository: String,
    /// The run, whose jobs share artifacts.
    pub(crate) run: Option<RunId>,
}

/// What is wrong when a job runs a workflow in KDL that the project does not have.
pub(crate) fn missing_entry(job: &Job, project: &Path) -> Option<Diagnostic> {
    let file = workflow::entered_file(job)?;
    (!project.join(&file).is_file()).then(|| {
        let message = format!("job {:?} runs {file}, which does not exist", job.key);
        let error = job.diagnostic(job.location, message);
        error.hint("write the file, or give the job steps")
    })
}

impl WorkflowPlanner<'_> {
    /// Finds what is wrong with a job before any job runs, as far as it does not depend on others.
    ///
    /// # Errors
    /// An image label is unknown, or a workflow in KDL that the job runs does not exist.
    pub(crate) fn check(&self, job: &Job) -> Result<(), CommandError> {
        if let Some(error) = missing_entry(job, &self.wishes.project) {
            return Err(error.into());
        }
        if let Some(image) = &self.wishes.image {
            return self.wished_image(image).map(|_| ());
        }
        match workflow::literal_labels(job) {
            Some(labels) => self.known(job, &labels?).map(|_| ()),
            None => Ok(()),
        }
    }

    /// The keys of `--matrix` that no job had so far.
    pub(crate) fn unused_matrix_keys(&self) -> Vec<&str> {
        let keys = self.wishes.matrix.iter().map(|(key, _)| key.as_str());
        keys.filter(|key| !self.matrix_keys_seen.contains(*key)).collect()
    }

    /// Whether a job runs with these contexts.
    fn runs(
        &self,
        unit: &Unit,
        job: &Job,
        contexts: &Contexts,
        needs: &Needs,
    ) -> Result<bool, Diagnostic> {
        // A run that is cancelled decides nothing any more.
        let cancelled = false;
        let (workflow, results) = (&unit.workflow, &needs.results);
        let secrets = &unit.secrets;
        workflow::job_condition(workflow, job, contexts, secrets, results, cancelled, self.dialect)
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
    fn limit(&self, unit: &Unit, job: &Job, scope: &JobScope) -> (Duration, Option<PlanValue>) {
        let most = self.wishes.timeout.unwrap_or(LONGEST_JOB).min(LONGEST_JOB);
        let scope = scope.clone().with_secrets(&unit.secrets);
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

    fn request(
        &self,
        unit: &Unit,
        job: &Job,
        leg: &MatrixLeg,
        contexts: Contexts,
    ) -> Result<Leg, CommandError> {
        let scope = JobScope::new(&contexts, self.dialect).with_leg(leg);
        let label = match &self.wishes.image {
            Some(image) => self.wished_image(image)?,
            None => self.known(job, &workflow::labels(job, &scope)?)?,
        };
        let mut plan = workflow::plan(&unit.workflow, &job.key, leg, &contexts, self.dialect)?;
        if !self.wishes.env.is_empty() {
            let pairs = self.wishes.env.iter();
            plan.env.push(PlanValue::Mapping(
                pairs.map(|(k, v)| (PlanValue::literal(k), PlanValue::literal(v))).collect(),
            ));
        }
        let continue_on_error = workflow::continues_on_error(job, &scope)?;
        // The engine keeps the limit; the deadline is for one that does not.
        let (running, limit) = self.limit(unit, job, &scope);
        if limit.is_some() {
            plan.timeout_minutes = limit;
        }
        let deadlines = Deadlines { running, ..Deadlines::default() };
        let name = format!("{}{}", unit.title, plan.name);
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
                secrets: unit.secrets.clone(),
                masks: Vec::new(),
                tree: Some(self.wishes.project.clone()),
                has_checkout: workflow::uses_checkout(job),
                keep: self.wishes.keep.map(KeepHow::time),
                keep_frozen: self.wishes.keep == Some(KeepHow::Frozen),
                actions_url: None,
                run: self.wishes.run,
                services: Vec::new(),
                debug: None,
            },
        };
        Ok(Leg { name, matrix: leg.matrix.clone(), continue_on_error, request })
    }
}

impl WorkflowPlanner<'_> {
    /// A call of a workflow: its jobs are of a unit of their own from now on.
    fn called(
        &mut self,
        node: &str,
        unit: &Unit,
        job: &Job,
        call: &Call,
        (leg, contexts): (MatrixLeg, Contexts),
    ) -> Result<Called, CommandError> {
        if self.units.len() > CALLS {
            let message = format!("this run calls workflows more than {CALLS} times");
            return Err(job.diagnostic(call.location, message).into());
        }
        let Some(workflow) = self.library.of(call) else {
            let message = format!("{} was not read", call.path);
            return Err(job.diagnostic(call.location, message).into());
        };
        let scope = JobScope::new(&contexts, self.dialect).with_leg(&leg);
        let name = workflow::display_name(job, &leg, &scope)?;
        let mut prefix = format!("{node}{}/", leg.suffix);
        if self.units.contains_key(&prefix) {
            // Legs with different values can read alike.
            prefix = format!("{node}{}[{}]/", leg.suffix, leg.index);
        }
        let inputs = workflow::call_inputs(job, call, workflow, &scope)?;
        let called = Unit {
            workflow: Arc::clone(workflow),
            contexts: Contexts { inputs, ..unit.contexts.clone() },
            secrets: workflow::call_secrets(job, call, &unit.secrets, &scope)?,
            title: format!("{}{name} / ", unit.title),
        };
        let order = called.workflow.order();
        let nodes = order.into_iter().filter_map(|key| called.workflow.job(key)).map(|job| Node {
            key: format!("{prefix}{}", job.key),
            needs: job.needs.iter().map(|need| format!("{prefix}{need}")).collect(),
        });
        let nodes = nodes.collect();
        self.units.insert(prefix.clone(), called);
        Ok(Called { prefix, nodes })
    }
}

impl Planner for WorkflowPlanner<'_> {
    fn decide(&mut self, node: &str, needs: &Needs) -> Result<Decision, CommandError> {
        let key = own_key(node);
        let unit = self.units.get(&node[..node.len() - key.len()]).cloned();
        let Some((unit, job)) =
            unit.as_ref().and_then(|unit| Some((unit, unit.workflow.job(key)?)))
        else {
            return Err(CommandError::usage(format!("there is no job {node:?}")));
        };
        let mut contexts = unit.contexts.clone();
        contexts.needs = needs.context.clone();
        let scope = JobScope::new(&contexts, self.dialect);
        let skip = || Decision::Skip { name: format!("{}{}", unit.title, plain_name(job)) };
        let legs = match workflow::expand(job, &scope) {
            Ok(legs) => legs,
            // A condition often guards a matrix that could not be made otherwise.
            Err(_) if !self.runs(unit, job, &contexts, needs)? => return Ok(skip()),
            Err(error) => return Err(error.into()),
        };
        let strategy = workflow::strategy_values(job, &scope)?;
        let mut running = Vec::new();
        for leg in legs {
            let mut contexts = contexts.clone();
            contexts.matrix = leg.matrix.clone();
            contexts.strategy = strategy.context(&leg, self.dialect);
            if self.runs(unit, job, &contexts, needs)? {
                running.push((leg, contexts));
            }
        }
        if running.is_empty() {
            return Ok(skip());
        }
        let running = self.filter(job, running)?.into_iter();
        let StrategyValues { fail_fast, max_parallel } = strategy;
        if let Some(call) = job.call() {
            let legs = running.map(|leg| self.called(node, unit, job, call, leg));
            let legs = legs.collect::<Result<Vec<_>, _>>()?;
            return Ok(Decision::Call(Legs { legs, fail_fast, max_parallel }));
        }
        let legs = running.map(|(leg, contexts)| self.request(unit, job, &leg, contexts));
        let legs = legs.collect::<Result<Vec<_>, _>>()?;
        Ok(Decision::Run(Legs { legs, fail_fast, max_parallel }))
    }

    fn outputs(
        &mut self,
        called: &str,
        jobs: &Map<String, Json>,
    ) -> Result<BTreeMap<String, String>, CommandError> {
        let Some(unit) = self.units.get(called) else { return Ok(BTreeMap::new()) };
        Ok(workflow::call_outputs(&unit.workflow, &unit.contexts, jobs, self.dialect)?)
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

/// Pairs of the command line as a context; of a name that is given twice the last value counts.
pub(crate) fn context_of(pairs: &[(String, String)]) -> Map<String, Json> {
    pairs.iter().map(|(name, value)| (name.clone(), Json::String(value.clone()))).collect()
}
