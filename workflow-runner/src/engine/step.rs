//! One step, from its condition to its result (github-runner-protocol 7.6).

use std::time::Duration;

use common::event::{Conclusion, JobResult, StepFinished, StepStarted};
use common::guest::GuestEvent;
use common::plan::{self, Step, StepAction};
use tokio::time::Instant;

use crate::expression::Value;
use crate::system::Placement;
use crate::workflow;

use super::checkout::{self, Checkout, Source};
use super::container::Trouble;
use super::contexts::JobScope;
use super::deep::deep;
use super::fault::Fault;
use super::header::{self, Header, run_name};
use super::interpreter::Said;
use super::job::{AFTER_CANCEL, Job};
use super::native::Unfit;
use super::script::RunStep;
use super::supervise::{Limits, Stop};
use super::text::{minutes, sentence};
use super::variables::Variables;

/// The name of a step; the rest of a longer one is cut. Forgejo's pages do the same
/// (forgejo-runner-protocol 8.1).
const NAME_BYTES: usize = 255;

/// A step whose condition held.
pub(super) struct Performing<'a> {
    /// The step of the plan.
    pub(super) step: &'a Step,
    /// Its name.
    pub(super) name: String,
    /// What its expressions see.
    pub(super) scope: JobScope,
    /// Its own `env`.
    pub(super) step_env: Variables,
    /// All that the workflow and its steps set: the `env` context.
    pub(super) env: Variables,
    /// What ends it.
    pub(super) limits: Limits,
}

impl Performing<'_> {
    /// A member of the `github` context as text, empty if there is none.
    pub(super) fn context(&self, key: &str) -> String {
        self.scope.github().get(key).map(Value::to_text).unwrap_or_default()
    }
}

/// What a step sees before it begins.
struct Evaluated {
    scope: JobScope,
    step_env: Variables,
    env: Variables,
    /// Whether its condition holds, or what is wrong with it.
    holds: Result<bool, String>,
}

/// What came of a step.
pub(super) struct Performed {
    /// The result before `continue-on-error`, as far as the step itself decides it.
    pub(super) outcome: Conclusion,
    /// What it left.
    pub(super) said: Said,
    /// Why it was ended, if it was.
    pub(super) stop: Option<Stop>,
    /// What could not be written to begin it, if the disk was full.
    pub(super) disk_full: Option<String>,
}

impl Performed {
    /// A step that failed and left nothing.
    pub(super) fn failed() -> Self {
        Self { outcome: Conclusion::Failure, said: Said::default(), stop: None, disk_full: None }
    }
}

/// The result of a step as later steps see it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// The step's id.
    pub(super) id: String,
    /// Its outputs.
    pub(super) outputs: Vec<(String, String)>,
    /// The result before `continue-on-error`.
    pub(super) outcome: Conclusion,
    /// The result after it.
    pub(super) conclusion: Conclusion,
}

impl Job<'_> {
    /// Runs or skips a step and reports it.
    pub(super) async fn step(&mut self, step: &Step) {
        let began = Instant::now();
        let this = &mut *self;
        let mut evaluated = deep(move || this.evaluate_step(step)).await;
        let name = self.name(step, &mut evaluated.scope).await;
        if self.containers.are_waiting() && self.cancelled.is_some() {
            self.containers.give_up();
        }
        // Containers start with the first step, whatever its condition says without them.
        let waits = self.containers.are_waiting();
        let is_skipped = evaluated.holds == Ok(false) && !waits;
        if is_skipped || self.containers.are_missing() || self.is_past_cancel() {
            self.finish(step, name, began, [Conclusion::Skipped; 2], Vec::new()).await;
            return;
        }
        self.events.enter(Some(step.index)).await;
        let started = StepStarted { step: step.index, name: name.clone(), time: self.system.now() };
        self.events.event(GuestEvent::StepStarted(started)).await;
        // What of actions comes before the first step is the first of the user's that runs, and so the
        // host must know that a step has begun. What it sets and how it ends counts for the step.
        if waits {
            let this = &mut *self;
            if let Some(outcome) = deep(move || this.begin_containers()).await {
                self.finish(step, name, began, [outcome; 2], Vec::new()).await;
                return;
            }
        }
        let first = std::mem::take(&mut self.first);
        if waits || !first.is_empty() {
            let this = &mut *self;
            deep(|| this.run_before(&first)).await;
            self.notice_end().await;
            self.action_names.clear();
            let this = &mut *self;
            evaluated = deep(move || this.evaluate_step(step)).await;
            if evaluated.holds == Ok(false) || self.is_past_cancel() {
                self.finish(step, name, began, [Conclusion::Skipped; 2], Vec::new()).await;
                return;
            }
        }
        let Evaluated { mut scope, step_env, env, holds } = evaluated;
        let limit = match holds {
            Ok(_) => self.step_limit(step, &mut scope).await,
            Err(error) => Err(error),
        };
        let mut performed = match limit {
            Ok(limit) => {
                let survives = self.survives_cancel(step, &mut scope).await;
                let limits = self.limits(limit, survives);
                let name = name.clone();
                let mut performing = Performing { step, name, scope, step_env, env, limits };
                let (this, doing) = (&mut *self, &mut performing);
                let performed = deep(move || this.perform(doing)).await;
                self.after(performing, performed, limit).await
            }
            Err(error) => {
                self.error(&sentence(&error)).await;
                (Performed::failed(), scope)
            }
        };
        let outputs = self.take_over(&mut performed.0.said).await;
        if performed.0.said.failed && performed.0.outcome == Conclusion::Success {
            performed.0.outcome = Conclusion::Failure;
        }
        let outcome = performed.0.outcome;
        let conclusion = if outcome == Conclusion::Failure
            && self.continues_on_error(step, &mut performed.1).await
        {
            Conclusion::Success
        } else {
            outcome
        };
        if conclusion == Conclusion::Failure && !self.failed {
            // What failed first decides: a job of which a step had failed before is not the machine's
            // fault.
            self.disk_full = performed.0.disk_full.take();
        }
        self.finish(step, name, began, [outcome, conclusion], outputs).await;
    }

    /// Starts the containers of the job; if that is not possible, says why and gives the result of
    /// the first step.
    async fn begin_containers(&mut self) -> Option<Conclusion> {
        match self.start_containers().await {
            Ok(()) => None,
            Err(Trouble::Stopped(Stop::Cancelled)) => {
                self.error("The operation was canceled.").await;
                self.cancelled.get_or_insert_with(Instant::now);
                Some(Conclusion::Cancelled)
            }
            Err(Trouble::Stopped(Stop::StepLimit | Stop::JobLimit)) => {
                self.note_job_limit().await;
                Some(Conclusion::Cancelled)
            }
            Err(Trouble::Fault(fault)) => {
                if !self.failed {
                    self.disk_full = fault.disk_full().map(str::to_owned);
                }
                self.error(&fault.sentence()).await;
                Some(Conclusion::Failure)
            }
        }
    }

    /// What a step sees, and whether it runs.
    async fn evaluate_step(&mut self, step: &Step) -> Evaluated {
        let mut scope = self.step_scope(step);
        let mut step_env = self.outer_env.clone();
        let system = self.system;
        let evaluated = scope.texts(&step.env, system).await.map(|pairs| {
            step_env.extend(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        });
        let env = self.visible_env(&step_env);
        scope.set_env(&env);
        let holds = match evaluated {
            Ok(()) => {
                let condition = step.condition.as_deref();
                let holds = scope.condition(condition, self.status(), system).await;
                holds.map_err(|error| format!("the condition of this step is wrong: {error}"))
            }
            Err(error) => Err(format!("the env of this step is wrong: {error}")),
        };
        Evaluated { scope, step_env, env, holds }
    }

    /// Says why a step was ended, and takes its result from that.
    pub(super) async fn after(
        &mut self,
        mut performing: Performing<'_>,
        performed: Result<Performed, Fault>,
        limit: Option<f64>,
    ) -> (Performed, JobScope) {
        // Files that the step made count in what is evaluated after it.
        performing.scope.forget_hashes();
        let mut performed = match performed {
            Ok(performed) => performed,
            Err(fault) => {
                self.error(&fault.sentence()).await;
                let disk_full = fault.disk_full().map(str::to_owned);
                Performed { disk_full, ..Performed::failed() }
            }
        };
        match performed.stop {
            None => {}
            Some(Stop::StepLimit) => {
                let limit = minutes(limit.unwrap_or_default());
                let name = &performing.name;
                self.error(&format!("The action '{name}' has timed out after {limit}.")).await;
                performed.outcome = Conclusion::Failure;
            }
            Some(Stop::Cancelled) => {
                self.error("The operation was canceled.").await;
                self.cancelled.get_or_insert_with(Instant::now);
                performed.outcome = Conclusion::Cancelled;
            }
            Some(Stop::JobLimit) => {
                self.note_job_limit().await;
                performed.outcome = Conclusion::Cancelled;
            }
        }
        (performed, performing.scope)
    }

    /// Does what a step says.
    async fn perform(&mut self, performing: &mut Performing<'_>) -> Result<Performed, Fault> {
        match &performing.step.action {
            StepAction::Run { script, shell, working_directory } => {
                let run = RunStep {
                    script,
                    shell: shell.as_ref(),
                    working_directory: working_directory.as_ref(),
                };
                self.run_script(performing, run).await
            }
            StepAction::Uses { reference, with } if workflow::enters_kdl(reference) => {
                self.run_workflow(performing, reference, with).await
            }
            StepAction::Uses { reference, with } => {
                deep(move || self.use_action(performing, reference, with)).await
            }
            StepAction::Unsupported { reason } => Err(reason.clone().into()),
        }
    }

    /// Evaluates `with` of an action, and says in the log what the step does.
    pub(super) async fn open_action(
        &mut self,
        performing: &mut Performing<'_>,
        reference: &str,
        with: &plan::Value,
    ) -> Result<Vec<(String, String)>, Fault> {
        let with = performing.scope.texts(with, self.system).await;
        let with = with.map_err(|error| format!("with: {error}"))?;
        let header = Header::Action { reference, with: &with };
        header::write(header, &performing.env, self.system.now(), self.events).await;
        Ok(with)
    }

    /// Places the local tree before the first step; the job fails if that is not possible.
    pub(super) async fn check_out_first(&mut self) {
        let Some(tree) = &self.document.tree else { return };
        let scope = self.contexts.scope(self.rules);
        let notice = "native checkout (by the label's setting): local working tree";
        self.events.say(self.system.now(), notice).await;
        self.events.flush().await;
        let placed = match Checkout::new(&[], scope.github(), &self.directories, true) {
            Ok(checkout) => {
                checkout.place(tree, Placement::Move, self.facts.owner, self.system).await
            }
            Err(unfit) => Err(unfit.into()),
        };
        match placed {
            Ok(()) => self.is_checked_out = true,
            Err(fault) => {
                self.failed = true;
                self.disk_full = fault.disk_full().map(str::to_owned);
                self.error(&fault.sentence()).await;
            }
        }
    }

    /// Places a tree in the workspace, by the inputs of the checkout action.
    pub(super) async fn place_tree(
        &mut self,
        performing: &mut Performing<'_>,
        reference: &str,
        with: &[(String, String)],
    ) -> Result<Performed, Unfit> {
        let tree = self.document.tree.as_deref();
        let github = performing.scope.github();
        // Whoever writes a path of the job's container means that of the machine.
        let paths = self.containers.paths();
        let here = |path: &String| paths.leave(path).unwrap_or_else(|| path.clone());
        let with: Vec<_> = with.iter().map(|(name, path)| (name.clone(), here(path))).collect();
        let checkout = Checkout::new(&with, github, &self.directories, tree.is_some())?;
        let from = match &checkout.source {
            Source::Here { .. } => "local working tree".to_owned(),
            Source::Forge(wish) => match wish.reference.as_str() {
                "" => wish.repository.clone(),
                reference => format!("{} at {reference}", wish.repository),
            },
        };
        let notice = format!("native checkout (for {reference}): {from}");
        self.events.say(self.system.now(), &notice).await;
        self.events.flush().await;
        let limits = performing.limits.clone();
        let (commit, stop) = tokio::select! {
            placed = self.fetch_and_place(&checkout, performing.step.index) => (placed?, None),
            stop = limits.reached() => (String::new(), Some(stop)),
        };
        if matches!(checkout.source, Source::Forge(_)) && stop.is_none() {
            self.events.say(self.system.now(), &format!("The commit is {commit}")).await;
        }
        self.is_checked_out = true;
        let said = Said::outputs(checkout.outputs(&commit));
        Ok(Performed { outcome: Conclusion::Success, said, stop, disk_full: None })
    }

    /// Gets a tree from where it is and places it; gives its commit.
    async fn fetch_and_place(&self, checkout: &Checkout, step: u32) -> Result<String, Fault> {
        let (system, owner) = (self.system, self.facts.owner);
        match &checkout.source {
            Source::Here { commit } => {
                let tree = self.document.tree.as_deref().unwrap_or_default();
                let how = match self.depth {
                    0 => checkout::placement(&self.document.plan, step),
                    _ => Placement::Copy,
                };
                checkout.place(tree, how, owner, system).await?;
                Ok(commit.clone())
            }
            Source::Forge(wish) => {
                let tree = self.directories.fetched_tree(step);
                let fetched = self.host.fetch_tree(wish, &tree, owner).await;
                let fetched = fetched.map_err(|error| error.of_fetch())?;
                checkout.place(&tree, Placement::Move, owner, system).await?;
                system.remove(&tree).await?;
                Ok(fetched.commit)
            }
        }
    }

    /// The step's name: its author's, or one made of what it does.
    async fn name(&self, step: &Step, scope: &mut JobScope) -> String {
        let value = match (&step.name, &step.action) {
            (Some(name), _) => name,
            (None, StepAction::Run { script, .. }) => script,
            (None, StepAction::Uses { reference, .. }) => return run_name(reference),
            (None, StepAction::Unsupported { .. }) => return format!("Step {}", step.index + 1),
        };
        // A name that cannot be evaluated is shown as it was written: a skipped step has none of
        // the values that it may need.
        let text = match scope.text(value, self.system).await {
            Ok(text) => text,
            Err(_) => match value {
                plan::Value::Literal(text) | plan::Value::Template(text) => text.clone(),
                plan::Value::Expression(text) => format!("${{{{ {text} }}}}"),
                _ => String::new(),
            },
        };
        if step.name.is_none() || text.trim().is_empty() {
            return run_name(&text);
        }
        let end = text.floor_char_boundary(NAME_BYTES);
        text[..end].trim().replace(['\n', '\r'], " ")
    }

    /// The step's own limit in minutes.
    async fn step_limit(&self, step: &Step, scope: &mut JobScope) -> Result<Option<f64>, String> {
        let Some(value) = &step.timeout_minutes else { return Ok(None) };
        let failed = |error| format!("timeout-minutes: {error}");
        let value = scope.evaluate(value, self.system).await.map_err(failed)?;
        read_minutes(&value).map_err(failed)
    }

    /// What ends a step that begins now.
    pub(super) fn limits(&self, minutes: Option<f64>, survives_cancel: bool) -> Limits {
        let step = minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(minutes * 60.0));
        match self.cancelled {
            None => Limits {
                cancel: Some(self.cancel.clone()),
                step,
                job: self.deadline,
                reprieve: if survives_cancel { AFTER_CANCEL } else { Duration::ZERO },
            },
            Some(at) => {
                Limits { cancel: None, step, job: at + AFTER_CANCEL, reprieve: Duration::ZERO }
            }
        }
    }

    /// Whether the condition of a step holds for a cancelled job too, where that counts.
    async fn survives_cancel(&self, step: &Step, scope: &mut JobScope) -> bool {
        self.rules.condition_can_survive_cancel
            && self.cancelled.is_none()
            && scope.condition(step.condition.as_deref(), JobResult::Cancelled, self.system).await
                == Ok(true)
    }

    /// `continue-on-error` of a step that failed.
    async fn continues_on_error(&mut self, step: &Step, scope: &mut JobScope) -> bool {
        let Some(value) = &step.continue_on_error else { return false };
        let result = match scope.evaluate(value, self.system).await {
            Ok(value) => read_boolean(&value),
            Err(error) => Err(error),
        };
        match result {
            Ok(value) => value,
            Err(error) => {
                self.error(&sentence(&format!("continue-on-error: {error}"))).await;
                false
            }
        }
    }

    /// Records and reports the result of a step: its outcome and its conclusion.
    async fn finish(
        &mut self,
        step: &Step,
        name: String,
        began: Instant,
        [outcome, conclusion]: [Conclusion; 2],
        outputs: Vec<(String, String)>,
    ) {
        if conclusion == Conclusion::Failure {
            self.failed = true;
        }
        if let Some(id) = step.id.clone().filter(|id| !id.is_empty()) {
            self.records.push(Record { id, outputs, outcome, conclusion });
        }
        let finished = StepFinished {
            step: step.index,
            name,
            outcome,
            conclusion,
            took: began.elapsed(),
            time: self.system.now(),
        };
        self.events.event(GuestEvent::StepFinished(finished)).await;
        self.events.enter(None).await;
    }
}

/// A number of minutes; `None` when it is no limit.
pub(super) fn read_minutes(value: &Value) -> Result<Option<f64>, String> {
    let number = value.to_number();
    if !number.is_finite() {
        return Err(format!("\"{}\" is not a number of minutes", value.to_text()));
    }
    Ok((number > 0.0).then_some(number.min(MAX_MINUTES)))
}

/// The longest limit that is told apart from none: ten years, in minutes.
const MAX_MINUTES: f64 = 10.0 * 366.0 * 24.0 * 60.0;

fn read_boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(value) => Ok(*value),
        other => match other.to_text().trim().to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" | "" => Ok(false),
            text => Err(format!("\"{text}\" is neither true nor false")),
        },
    }
}
