//! The state of a job, its set-up, its steps in order, and its end.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use common::event::{Conclusion, JobResult, StepFinished};
use common::guest::{GuestEvent, JobDocument};
use common::limits::OUTPUT_BYTES;
use common::plan::{DEFAULT_JOB_MINUTES, PLAN_VERSION, Step, StepAction, Value as Planned};
use serde_json::Value as Json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::expression::{Object, Value};
use crate::host::Host;
use crate::service;
use crate::system::{Control, Facts, Signal, System};

use super::action::{Fetched, Later, States};
use super::container::Containers;
use super::contexts::{JobContexts, JobScope};
use super::deep::deep;
use super::dialect::{ActionNames, DialectRules};
use super::environment::Layers;
use super::events::Events;
use super::fault::Fault;
use super::matcher::Matchers;
use super::step::{Performing, Record, read_minutes};
use super::text::{minutes, sentence};
use super::variables::Variables;
use super::workspace::{COMMAND_FILES, Directories};

/// How long the steps that run after a cancel may take together. The host ends the machine by a
/// deadline of its own.
pub(super) const AFTER_CANCEL: Duration = Duration::from_secs(300);

/// A job while it runs.
pub(super) struct Job<'a> {
    /// What to do.
    pub(super) document: &'a JobDocument,
    /// Whose rules apply.
    pub(super) rules: &'static DialectRules,
    /// The world.
    pub(super) system: &'a dyn System,
    /// Whoever gets what no machine can.
    pub(super) host: &'a dyn Host,
    /// Where everything is reported.
    pub(super) events: &'a mut Events,
    /// The wish of the host to end the job.
    pub(super) cancel: CancellationToken,
    /// The machine and the user of the steps.
    pub(super) facts: Facts,
    /// Where everything lies.
    pub(super) directories: Directories,
    /// The containers that the job asks for.
    pub(super) containers: Containers,
    /// What stays the same for all expressions.
    pub(super) contexts: JobContexts,
    /// `env` of the workflow and the job.
    pub(super) env: Variables,
    /// What steps wrote to `GITHUB_ENV`.
    pub(super) written: Variables,
    /// By what programs find the job's services.
    pub(super) services: Vec<(&'static str, String)>,
    /// What steps wrote to `GITHUB_PATH`, first in the search first.
    pub(super) paths: Vec<String>,
    /// `defaults.run`.
    pub(super) defaults: RunDefaults,
    /// The results of the steps that have an id.
    pub(super) records: Vec<Record>,
    /// Bytes of all outputs of steps.
    pub(super) output_bytes: usize,
    /// A step failed.
    pub(super) failed: bool,
    /// What could not be written when the job failed, if that is why.
    pub(super) disk_full: Option<String>,
    /// When the job was cancelled or reached its limit.
    pub(super) cancelled: Option<Instant>,
    /// It was the limit.
    timed_out: bool,
    /// When the job's limit is reached.
    pub(super) deadline: Instant,
    /// The same in minutes, for the message.
    limit: f64,
    /// Whether debug messages are on.
    pub(super) debug: bool,
    /// The value of `RUNNER_TRACKING_ID`.
    pub(super) tracking: String,
    /// Process groups of steps in which something was left.
    pub(super) groups: Vec<Box<dyn Control>>,
    /// Readers of what such processes print.
    pub(super) readers: JoinSet<()>,
    /// The problem matchers that steps have added.
    pub(super) matchers: Matchers,
    /// Whether a step has placed the local tree in the workspace.
    pub(super) is_checked_out: bool,
    /// How often each generated name was given.
    pub(super) action_names: HashMap<String, u32>,
    /// What all steps see in the `github` context of the action whose steps they are.
    github: Vec<(String, String)>,
    /// The actions whose files are here.
    pub(super) fetched: Fetched,
    /// What of actions runs before the first step.
    pub(super) first: Vec<Later>,
    /// What of actions runs behind the last step.
    pub(super) later: Vec<Later>,
    /// `env` of the steps around this job: an action's are about its own.
    pub(super) outer_env: Variables,
    /// What actions told themselves before the first step.
    pub(super) states: States,
    /// In how many actions this job is.
    pub(super) depth: usize,
    /// What has run inside this job with files of its own.
    insides: usize,
}

/// `defaults.run`; empty where the workflow says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RunDefaults {
    /// `shell`.
    pub(super) shell: String,
    /// `working-directory`.
    pub(super) working_directory: String,
}

/// A job that is to run inside a step.
pub(super) struct Inside<'a> {
    /// What to do.
    pub(super) document: &'a JobDocument,
    /// What its steps see in the `github` context beside what all steps see.
    pub(super) github: Vec<(String, String)>,
    /// What ends it.
    pub(super) cancel: CancellationToken,
}

/// Process groups in which something was left, and the readers of what it prints.
type Processes = (Vec<Box<dyn Control>>, JoinSet<()>);

/// What is left of a job inside a step.
pub(super) struct Left {
    pub(super) processes: Processes,
    written: Variables,
    paths: Vec<String>,
    matchers: Matchers,
    fetched: Fetched,
    later: Vec<Later>,
    output_bytes: usize,
    is_checked_out: bool,
}

impl<'a> Job<'a> {
    /// Prepares directories, contexts and `env`.
    pub(super) async fn set_up(
        document: &'a JobDocument,
        (system, host): (&'a dyn System, &'a dyn Host),
        events: &'a mut Events,
        cancel: CancellationToken,
    ) -> Result<Self, Fault> {
        let plan = &document.plan;
        if plan.version > PLAN_VERSION {
            return Err(format!(
                "the plan of this job has version {}, but this program knows versions up to \
                 {PLAN_VERSION}; the guest program is older than the host's",
                plan.version
            )
            .into());
        }
        events.set_summary_room(plan.steps.len());
        let rules = DialectRules::of(plan.dialect);
        let facts = system.facts(document.run_as.as_deref()).await?;
        let github = &document.contexts.github;
        let repository = github.get("repository").and_then(Json::as_str).unwrap_or_default();
        let job_id = document.job.short();
        let directories =
            Directories::new(&document.work_directory, repository, &document.runner, &job_id);
        let event = github.get("event").unwrap_or(&Json::Null);
        directories.prepare(system, facts.owner, event).await?;

        let debug_wished = wants_debug(document, rules);
        let mut scope = JobContexts::new(document, rules, &directories, debug_wished).scope(rules);
        let mut env = Variables::default();
        for layer in &plan.env {
            let texts = scope.texts(layer, system).await.map_err(|e| format!("env: {e}"))?;
            env.extend(texts.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            scope.set_env(&env);
        }
        let search_path = env.get("PATH").unwrap_or(&facts.search_path);
        let place = (search_path, &directories);
        let scope_of_containers = &mut scope;
        let containers =
            deep(move || Containers::of_plan(&plan.containers, scope_of_containers, place, system));
        let containers = containers.await?;
        let debug = debug_wished || env.get("RUNNER_DEBUG").is_some_and(is_on);
        let defaults = run_defaults(&plan.defaults, &mut scope, system).await?;
        let limit = match &plan.timeout_minutes {
            None => None,
            Some(value) => {
                let failed = |error| format!("timeout-minutes of the job: {error}");
                let value = scope.evaluate(value, system).await.map_err(failed)?;
                read_minutes(&value).map_err(failed)?
            }
        };
        let limit = limit.unwrap_or(DEFAULT_JOB_MINUTES as f64);
        Ok(Self {
            document,
            rules,
            system,
            host,
            events,
            cancel,
            facts,
            github: Vec::new(),
            fetched: Fetched::default(),
            first: Vec::new(),
            later: Vec::new(),
            outer_env: Variables::default(),
            states: States::new(),
            depth: 0,
            insides: 0,
            contexts: JobContexts::new(
                document,
                rules,
                &directories.within(containers.paths()),
                debug,
            ),
            directories,
            containers,
            env,
            written: Variables::default(),
            services: host.address().map_or_else(Vec::new, |address| {
                service::variables(&document.services, address, plan.dialect)
            }),
            paths: Vec::new(),
            defaults,
            records: Vec::new(),
            output_bytes: 0,
            failed: false,
            disk_full: None,
            cancelled: None,
            timed_out: false,
            deadline: Instant::now() + Duration::from_secs_f64(limit * 60.0),
            limit,
            debug,
            tracking: format!("github_{}", document.job),
            groups: Vec::new(),
            readers: JoinSet::new(),
            matchers: Matchers::default(),
            is_checked_out: false,
            action_names: HashMap::new(),
        })
    }

    /// Runs the steps in order and ends the job.
    pub(super) async fn run(mut self) -> JobResult {
        if self.document.checkout_first {
            self.check_out_first().await;
        }
        match self.prepare_actions().await {
            Ok(first) => {
                self.first = first;
                self.steps().await;
            }
            Err(fault) => {
                self.failed = true;
                self.error(&fault.sentence()).await;
                skip_all(self.document, self.system, self.events).await;
            }
        }
        self.run_behind().await;
        self.outputs().await;
        self.clean_up().await;
        let result = self.result();
        if self.cancelled.is_none()
            && let Some(message) = self.disk_full
        {
            self.events.event(GuestEvent::DiskFull(message)).await;
        }
        result
    }

    /// Runs the steps in order.
    pub(super) async fn steps(&mut self) {
        let document = self.document;
        for step in &document.plan.steps {
            self.notice_end().await;
            let this = &mut *self;
            deep(move || this.step(step)).await;
        }
        self.notice_end().await;
    }

    /// What came of the steps.
    pub(super) fn result(&self) -> JobResult {
        match self.cancelled {
            Some(_) if self.timed_out => self.rules.timed_out_job,
            Some(_) => JobResult::Cancelled,
            None if self.failed => JobResult::Failure,
            None => JobResult::Success,
        }
    }

    /// The directories of what runs inside this job with files of its own.
    pub(super) fn next_directories(&mut self) -> Directories {
        self.insides += 1;
        self.directories.for_job_inside(self.insides)
    }

    /// A job that runs inside a step of this one, in the same directories: with a plan and contexts of
    /// its own, and with the variables that the step has.
    pub(super) async fn inside<'b>(
        &'b mut self,
        inside: Inside<'b>,
        performing: &Performing<'_>,
    ) -> Result<Job<'b>, Fault> {
        let Inside { document, github, cancel } = inside;
        let directories = self.next_directories();
        let seen = directories.within(self.containers.paths());
        let contexts = JobContexts::new(document, self.rules, &seen, self.debug);
        let mut scope = contexts.scope(self.rules);
        let mut env = performing.env.clone();
        for layer in &document.plan.env {
            scope.set_env(&env);
            let texts = scope.texts(layer, self.system).await.map_err(|e| format!("env: {e}"))?;
            env.extend(texts.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        }
        let own = match &document.plan.timeout_minutes {
            None => None,
            Some(value) => {
                let failed = |error| format!("timeout-minutes of the job: {error}");
                let value = scope.evaluate(value, self.system).await.map_err(failed)?;
                read_minutes(&value).map_err(failed)?
            }
        };
        let limit = own.unwrap_or(self.limit);
        let own = own.map(|own| Instant::now() + Duration::from_secs_f64(own * 60.0));
        let limits = [own, performing.limits.step, Some(performing.limits.job)];
        let deadline = limits.into_iter().flatten().min().unwrap_or(self.deadline);
        Ok(Job {
            document,
            rules: self.rules,
            system: self.system,
            host: self.host,
            events: &mut *self.events,
            cancel,
            facts: self.facts.clone(),
            github,
            fetched: Fetched::default(),
            first: Vec::new(),
            later: Vec::new(),
            outer_env: Variables::default(),
            states: States::new(),
            depth: self.depth,
            insides: 0,
            contexts,
            directories,
            containers: self.containers.clone(),
            env,
            written: Variables::default(),
            services: self.services.clone(),
            paths: self.paths.clone(),
            defaults: RunDefaults::default(),
            records: Vec::new(),
            output_bytes: self.output_bytes,
            failed: false,
            disk_full: None,
            cancelled: None,
            timed_out: false,
            deadline,
            limit,
            debug: self.debug,
            tracking: self.tracking.clone(),
            groups: Vec::new(),
            readers: JoinSet::new(),
            matchers: Matchers::default(),
            is_checked_out: true,
            action_names: HashMap::new(),
        })
    }

    /// What is left of a job inside a step when it is over.
    pub(super) fn leave(mut self) -> Left {
        Left {
            processes: (std::mem::take(&mut self.groups), std::mem::take(&mut self.readers)),
            written: std::mem::take(&mut self.written),
            paths: std::mem::take(&mut self.paths),
            matchers: std::mem::take(&mut self.matchers),
            fetched: std::mem::take(&mut self.fetched),
            later: std::mem::take(&mut self.later),
            output_bytes: self.output_bytes,
            is_checked_out: self.is_checked_out,
        }
    }

    /// Takes over the processes that such a job has left.
    pub(super) fn take_processes(&mut self, (groups, mut readers): Processes) {
        self.groups.extend(groups);
        self.readers.spawn(async move { while readers.join_next().await.is_some() {} });
    }

    /// Takes over what the steps of an action have left, which is as if the step had left it.
    pub(super) fn take_from_action(&mut self, left: Left) {
        self.take_processes(left.processes);
        self.written = left.written;
        self.paths = left.paths;
        self.matchers = left.matchers;
        self.fetched = left.fetched;
        self.later.extend(left.later);
        self.output_bytes = left.output_bytes;
        self.is_checked_out = left.is_checked_out;
    }

    /// Looks between two steps whether the job was cancelled or has reached its limit.
    pub(super) async fn notice_end(&mut self) {
        if self.cancelled.is_some() {
            return;
        }
        if self.cancel.is_cancelled() {
            self.cancelled = Some(Instant::now());
            self.events.say(self.system.now(), "##[error]The operation was canceled.").await;
        } else if self.deadline <= Instant::now() {
            self.note_job_limit().await;
        }
    }

    /// The job has reached its limit, or what may run after a cancel has.
    pub(super) async fn note_job_limit(&mut self) {
        if self.cancelled.is_some() {
            let limit = minutes(AFTER_CANCEL.as_secs_f64() / 60.0);
            let message = format!("The steps after the cancel have taken longer than {limit}.");
            self.error(&message).await;
            return;
        }
        self.cancelled = Some(Instant::now());
        self.timed_out = true;
        let limit = minutes(self.limit);
        self.error(&format!("The job has exceeded its maximum execution time of {limit}.")).await;
    }

    /// Whether nothing may start any more after a cancel.
    pub(super) fn is_past_cancel(&self) -> bool {
        self.cancelled.is_some_and(|at| at.elapsed() >= AFTER_CANCEL)
    }

    /// The state of the job as conditions see it.
    pub(super) fn status(&self) -> JobResult {
        match (self.cancelled.is_some(), self.failed) {
            (true, true) if self.rules.failure_outlives_cancel => JobResult::Failure,
            (true, _) => JobResult::Cancelled,
            (false, true) => JobResult::Failure,
            (false, false) => JobResult::Success,
        }
    }

    /// Reports an error of the current step.
    pub(super) async fn error(&mut self, message: &str) {
        self.events.error(self.system.now(), message).await;
    }

    /// The `env` context of a step.
    pub(super) fn visible_env(&self, step: &Variables) -> Variables {
        Layers { job: &self.env, written: &self.written, step }.visible()
    }

    /// What the expressions of a step see, all but `env`.
    pub(super) fn step_scope(&mut self, step: &Step) -> JobScope {
        let seen = self.seen();
        let files =
            COMMAND_FILES.map(|(key, kind)| (key.to_owned(), seen.command_file(kind, step.index)));
        let action = ("action".to_owned(), self.action_name(step));
        let mut github: Vec<_> = files.into_iter().chain(std::iter::once(action)).collect();
        if self.depth > 0 {
            github.extend(self.github.iter().cloned());
            github.push(("action_status".to_owned(), self.status().name().to_owned()));
        }
        let mut scope = self.contexts.step_scope(self.rules, github, &self.directories);
        // The step's own env is evaluated with what was set before it.
        self.set_so_far(&mut scope);
        scope
    }

    /// Sets what the steps so far have made of the job.
    fn set_so_far(&self, scope: &mut JobScope) {
        scope.set("steps", self.steps_context());
        let status = Value::text(self.status().name());
        let mut job = self.containers.members();
        job.push(("status".to_owned(), status));
        scope.set("job", Value::object(job));
        scope.set_env(&self.visible_env(&self.outer_env));
    }

    /// `github.action`.
    fn action_name(&mut self, step: &Step) -> String {
        if let Some(id) = step.id.clone().filter(|id| !id.is_empty()) {
            return id;
        }
        if self.rules.action_names == ActionNames::Index {
            return step.index.to_string();
        }
        let name = match &step.action {
            StepAction::Uses { reference, .. } => {
                let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
                format!("__{}", reference_name(reference).chars().map(plain).collect::<String>())
            }
            _ => "__run".to_owned(),
        };
        let count = self.action_names.entry(name.clone()).or_default();
        *count += 1;
        if *count == 1 { name } else { format!("{name}_{count}") }
    }

    /// The `steps` context (github-runner-protocol 5.8).
    fn steps_context(&self) -> Value {
        let text = |name: &str, value: &str| (name.to_owned(), Value::text(value));
        Value::object(self.records.iter().map(|record| {
            let mut outputs = Object::new();
            for (name, value) in &record.outputs {
                outputs.insert(name.as_str(), Value::text(value));
            }
            let fields = [
                ("outputs".to_owned(), Value::from(outputs)),
                text("outcome", record.outcome.name()),
                text("conclusion", record.conclusion.name()),
            ];
            (record.id.clone(), Value::object(fields))
        }))
    }

    /// Evaluates and reports the job's outputs (github-runner-protocol 7.11).
    async fn outputs(&mut self) {
        if self.document.plan.outputs.is_empty_mapping() {
            return;
        }
        if self.status() != JobResult::Success && !self.rules.failed_jobs_have_outputs {
            return;
        }
        let texts = match self.evaluate_outputs(&self.document.plan.outputs).await {
            Ok(texts) => texts,
            Err(error) => {
                self.failed = true;
                self.error(&sentence(&format!("the outputs of the job are wrong: {error}"))).await;
                return;
            }
        };
        let bytes: usize = texts.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > OUTPUT_BYTES {
            self.failed = true;
            let limit = OUTPUT_BYTES / 1024;
            let message = format!("The outputs of the job are larger than {limit} KiB together.");
            self.error(&message).await;
            return;
        }
        let outputs: BTreeMap<String, String> =
            texts.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        if !outputs.is_empty() {
            self.events.event(GuestEvent::Outputs(outputs)).await;
        }
    }

    /// The outputs of the job, or of the action whose steps it has.
    pub(super) async fn evaluate_outputs(
        &self,
        outputs: &Planned,
    ) -> Result<Vec<(String, String)>, String> {
        let mut scope = self.contexts.step_scope(self.rules, [], &self.directories);
        self.set_so_far(&mut scope);
        scope.texts(outputs, self.system).await
    }

    /// Ends what steps left running and removes temporary files.
    async fn clean_up(&mut self) {
        for group in std::mem::take(&mut self.groups) {
            group.signal(Signal::Kill);
        }
        self.readers.shutdown().await;
        let this = &mut *self;
        deep(move || this.stop_containers()).await;
        // Whatever is left goes with the machine; a job does not fail for it.
        if let Err(error) = self.directories.clear_temporary(self.system).await {
            self.events.warning(self.system.now(), &sentence(&error.to_string())).await;
        }
    }
}

/// Reports every step of a job that could not be set up as skipped.
pub(super) async fn skip_all(document: &JobDocument, system: &dyn System, events: &mut Events) {
    for step in &document.plan.steps {
        let name = match &step.name {
            Some(Planned::Literal(name) | Planned::Template(name)) => name.clone(),
            _ => format!("Step {}", step.index + 1),
        };
        let finished = StepFinished {
            step: step.index,
            name,
            outcome: Conclusion::Skipped,
            conclusion: Conclusion::Skipped,
            took: Duration::ZERO,
            time: system.now(),
        };
        events.event(GuestEvent::StepFinished(finished)).await;
    }
}

/// Whether a secret or variable of the repository turns debug messages on.
fn wants_debug(document: &JobDocument, rules: &DialectRules) -> bool {
    const NAME: &str = "ACTIONS_STEP_DEBUG";
    let secret = document.secrets.get(NAME).is_some_and(|secret| is_on(secret.expose()));
    let variable = document.contexts.vars.get(NAME).and_then(Json::as_str).is_some_and(is_on);
    secret || (rules.debug_by_variable && variable)
}

fn is_on(value: &str) -> bool {
    value == "1" || value.eq_ignore_ascii_case("true")
}

/// The name in a reference such as `owner/name/path@version` or an address.
fn reference_name(reference: &str) -> &str {
    let name = reference.rsplit_once('@').map_or(reference, |(name, _)| name);
    name.split_once("://").map_or(name, |(_, rest)| rest)
}

/// Evaluates `defaults` of the workflow, then of the job.
async fn run_defaults(
    layers: &[Planned],
    scope: &mut JobScope,
    system: &dyn System,
) -> Result<RunDefaults, String> {
    let mut defaults = RunDefaults::default();
    for layer in layers {
        let value = scope.evaluate(layer, system).await.map_err(|e| format!("defaults: {e}"))?;
        let Some(run) = value.get("run") else { continue };
        let text = |name: &str| run.get(name).map(Value::to_text);
        if let Some(shell) = text("shell") {
            defaults.shell = shell;
        }
        if let Some(directory) = text("working-directory") {
            defaults.working_directory = directory;
        }
    }
    Ok(defaults)
}
