//! Actions in JavaScript, and what of them runs before the job's first step and behind its last
//! (github-runner-protocol 8.4, forgejo-runner-protocol 8.7).

use std::collections::HashMap;
use std::sync::Arc;

use common::event::Conclusion;
use common::plan::Step;
use tokio::time::Instant;

use super::Found;
use crate::engine::container::Trouble;
use crate::engine::deep::deep;
use crate::engine::fault::Fault;
use crate::engine::job::Job;
use crate::engine::native::Saving;
use crate::engine::step::{Performed, Performing};
use crate::engine::text::sentence;
use crate::engine::variables::Variables;
use crate::system::Command;
use crate::workflow::Runs;

/// The program that runs JavaScript.
pub(in crate::engine) const NODE: &str = "node";

/// The condition of what has none.
const ALWAYS: &str = "always()";

/// What such a part does.
#[derive(Clone, Debug)]
enum Work {
    /// Runs a file of an action.
    Script { found: Arc<Found>, script: String },
    /// Runs what of the actions inside an action comes before the first step.
    Inside { found: Arc<Found>, parts: Vec<Later> },
    /// Saves a cache.
    SaveCache(Box<Saving>),
}

/// A part of an action that runs before the first step or behind the last one.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Later {
    /// The step that it belongs to: of the job, or of an action that the job uses.
    step: Step,
    /// The job's step, where what it says belongs.
    outer: u32,
    /// How the log calls it.
    title: String,
    work: Work,
    condition: String,
    /// The inputs of the step; those of one that has not run yet are not known.
    inputs: Option<Vec<(String, String)>>,
    /// What the action has told itself.
    state: Vec<(String, String)>,
    /// The step's own `env`.
    env: Variables,
}

/// What a step's parts before the first step told its later ones.
#[derive(Debug, Default)]
pub(in crate::engine) struct State {
    /// What its action told itself.
    own: Vec<(String, String)>,
    /// That of the steps which its action is made of.
    pub(super) inside: States,
}

/// The same of all steps, by their indices.
pub(in crate::engine) type States = HashMap<u32, State>;

impl Later {
    /// What of an action runs before the first step: a file or program, and its condition.
    pub(super) fn pre(
        step: &Step,
        found: &Arc<Found>,
        (script, condition): (Option<&str>, Option<&str>),
    ) -> Option<Self> {
        let work = Work::Script { found: found.clone(), script: script?.to_owned() };
        Some(Self::before(step, found, work, condition.unwrap_or(ALWAYS)))
    }

    /// What of the actions inside an action runs before the first step.
    pub(super) fn pre_inside(step: &Step, found: &Arc<Found>, parts: Vec<Self>) -> Self {
        Self::before(step, found, Work::Inside { found: found.clone(), parts }, ALWAYS)
    }

    fn before(step: &Step, found: &Found, work: Work, condition: &str) -> Self {
        Self {
            step: step.clone(),
            outer: step.index,
            title: format!("Pre Run {}", found.reference),
            work,
            condition: condition.to_owned(),
            inputs: None,
            state: Vec::new(),
            env: Variables::default(),
        }
    }

    /// Saves a cache behind the last step.
    pub(in crate::engine) fn save_cache(
        performing: &Performing<'_>,
        outer: u32,
        condition: &str,
        saving: Saving,
    ) -> Self {
        Self {
            step: performing.step.clone(),
            outer,
            title: format!("Post {}", performing.name),
            work: Work::SaveCache(Box::new(saving)),
            condition: condition.to_owned(),
            inputs: Some(Vec::new()),
            state: Vec::new(),
            env: performing.step_env.clone(),
        }
    }
}

impl Job<'_> {
    /// Runs the main part of an action, and remembers the part behind the last step.
    pub(super) async fn run_node(
        &mut self,
        performing: &mut Performing<'_>,
        found: &Found,
        inputs: Vec<(String, String)>,
    ) -> Result<Performed, Fault> {
        let Runs::Node(node) = &found.action.runs else { return Ok(Performed::failed()) };
        let post = (node.post.as_deref(), node.post_if.as_deref());
        self.run_main(performing, found, &node.main, post, inputs).await
    }

    /// Runs the main part of an action, and remembers what it has to run behind the last step.
    pub(super) async fn run_main(
        &mut self,
        performing: &mut Performing<'_>,
        found: &Found,
        main: &str,
        (post, post_if): (Option<&str>, Option<&str>),
        inputs: Vec<(String, String)>,
    ) -> Result<Performed, Fault> {
        let index = performing.step.index;
        let mut state = self.states.remove(&index).unwrap_or_default().own;
        let performed = self.run_part(performing, found, main, &inputs, &state).await;
        if let Ok(performed) = &performed {
            state.extend(performed.said.state.iter().cloned());
        }
        if let Some(script) = post {
            let outer = self.events.outer_step().unwrap_or(index);
            self.later.push(Later {
                step: performing.step.clone(),
                outer,
                title: format!("Post {}", performing.name),
                work: Work::Script { found: Arc::new(found.clone()), script: script.to_owned() },
                condition: post_if.unwrap_or(ALWAYS).to_owned(),
                inputs: Some(inputs),
                state,
                env: performing.step_env.clone(),
            });
        }
        performed
    }

    /// Runs what of actions comes before the first step.
    pub(in crate::engine) async fn run_before(&mut self, parts: &[Later]) {
        for part in parts {
            self.notice_end().await;
            let index = part.step.index;
            let state = Box::pin(self.run_later(part)).await;
            self.states.insert(index, state);
        }
    }

    /// Runs what of actions comes behind the last step, the last first.
    pub(in crate::engine) async fn run_behind(&mut self) {
        while let Some(part) = self.later.pop() {
            self.notice_end().await;
            self.run_later(&part).await;
        }
    }

    /// Runs such a part, and gives what it has told the later ones. It has its own files.
    async fn run_later(&mut self, part: &Later) -> State {
        let inside = self.next_directories();
        let outer = std::mem::replace(&mut self.directories, inside);
        let mut state = State::default();
        let within = self.events.begin_within(part.outer, None);
        match self.try_later(part, &mut state.inside).await {
            Ok(None) => {}
            Ok(Some(mut performed)) => {
                state.own = std::mem::take(&mut performed.said.state);
                drop(self.take_over(&mut performed.said).await);
                if performed.outcome == Conclusion::Failure || performed.said.failed {
                    self.failed = true;
                }
            }
            Err(fault) => {
                self.failed = true;
                self.error(&fault.sentence()).await;
            }
        }
        self.events.flush().await;
        self.events.end_within(within);
        self.directories = outer;
        state
    }

    async fn try_later(
        &mut self,
        part: &Later,
        inside: &mut States,
    ) -> Result<Option<Performed>, Fault> {
        let mut scope = self.step_scope(&part.step);
        let mut step_env = part.env.clone();
        if part.inputs.is_none() {
            step_env = self.outer_env.clone();
            let texts = scope.texts(&part.step.env, self.system).await;
            let texts = texts.map_err(|error| format!("the env of {}: {error}", part.title))?;
            step_env.extend(texts.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        }
        let env = self.visible_env(&step_env);
        scope.set_env(&env);
        let holds = scope.condition(Some(&part.condition), self.status(), self.system).await;
        if !holds.map_err(|error| format!("the condition of {}: {error}", part.title))?
            || self.is_past_cancel()
        {
            return Ok(None);
        }
        self.events.say(self.system.now(), &format!("##[group]{}", part.title)).await;
        self.events.say(self.system.now(), "##[endgroup]").await;
        let limits = self.limits(None, true);
        let mut performing =
            Performing { step: &part.step, name: part.title.clone(), scope, step_env, env, limits };
        let began = Instant::now();
        let performed = match &part.work {
            Work::Script { found, script } => {
                let inputs = match &part.inputs {
                    Some(inputs) => inputs.clone(),
                    None => self.inputs_before(part, found, &mut performing).await?,
                };
                self.run_part(&mut performing, found, script, &inputs, &part.state).await
            }
            Work::Inside { found, parts } => {
                let inputs = self.inputs_before(part, found, &mut performing).await?;
                self.run_inside_before(&performing, found, (parts, inputs), inside).await
            }
            Work::SaveCache(saving) => {
                let limits = performing.limits.clone();
                tokio::select! {
                    saved = self.save_cache(saving) => saved,
                    stop = limits.reached() => Ok(Performed { stop: Some(stop), ..Performed::failed() }),
                }
            }
        };
        let (performed, _) = self.after(performing, performed, None).await;
        let took = began.elapsed().as_secs_f64();
        if performed.outcome == Conclusion::Failure {
            let text = sentence(&format!("{} failed after {took:.1} s", part.title));
            self.events.say(self.system.now(), &text).await;
        }
        Ok(Some(performed))
    }

    /// The inputs of an action before any step has run.
    async fn inputs_before(
        &mut self,
        part: &Later,
        found: &Found,
        performing: &mut Performing<'_>,
    ) -> Result<Vec<(String, String)>, Fault> {
        let common::plan::StepAction::Uses { with, .. } = &part.step.action else {
            return Ok(Vec::new());
        };
        let with = performing.scope.texts(with, self.system).await;
        let with = with.map_err(|error| format!("with: {error}"))?;
        self.inputs(found, &with, performing).await
    }

    /// Runs one file of an action, or one program of its container.
    async fn run_part(
        &mut self,
        performing: &mut Performing<'_>,
        found: &Found,
        script: &str,
        inputs: &[(String, String)],
        state: &[(String, String)],
    ) -> Result<Performed, Fault> {
        performing.scope.extend_github(found.github(self.containers.paths()));
        let mut environment = self.environment(performing);
        for (name, value) in inputs {
            let plain = |c: char| match c {
                ' ' => '_',
                c if self.rules.plain_input_names && !c.is_ascii_alphanumeric() && c != '-' => '_',
                c => c,
            };
            let name = name.chars().map(plain).collect::<String>().to_ascii_uppercase();
            environment.set(format!("INPUT_{name}"), value.as_str());
        }
        for (name, value) in &self.services {
            environment.set(*name, value.as_str());
        }
        for (name, value) in state {
            environment.set(format!("STATE_{name}"), value.as_str());
        }
        if let Runs::Docker(docker) = &found.action.runs {
            let (this, program) = (&mut *self, (script, inputs));
            return deep(move || {
                this.run_in_image(performing, found, docker, program, environment)
            })
            .await;
        }
        let name = match &found.action.runs {
            Runs::Node(action) => action.program,
            _ => NODE,
        };
        let Some(program) = self.find_in_job(name, performing, &environment).await? else {
            let here = match self.containers.of_job() {
                Some(_) => "the job's container",
                None => "this machine",
            };
            return Err(format!(
                "the action {} is written in JavaScript, and {here} has no node; install it in an \
                 earlier step, or choose an image that has it",
                found.reference
            )
            .into());
        };
        self.create_command_files(performing.step.index).await?;
        let path = format!("{}/{script}", found.directory);
        let command = Command {
            program,
            arguments: vec![self.containers.paths().enter(&path)],
            environment: environment.clone().into_pairs(),
            directory: self.seen().workspace,
            identity: self.facts.identity.clone(),
        };
        self.start_and_attend(performing, command, &environment).await
    }

    /// A program, where the steps of the job run.
    pub(in crate::engine) async fn find_in_job(
        &mut self,
        name: &str,
        performing: &Performing<'_>,
        environment: &Variables,
    ) -> Result<Option<String>, Fault> {
        if self.containers.of_job().is_none() {
            let search_path = environment.get("PATH").unwrap_or_default();
            return Ok(self.system.find_program(name, search_path).await);
        }
        let (this, Performing { env, limits, .. }) = (&mut *self, performing);
        match deep(move || this.container_has(name, env, limits)).await {
            Ok(true) => Ok(Some(name.to_owned())),
            Ok(false) => Ok(None),
            // It is started all the same, and ended for the same reason.
            Err(Trouble::Stopped(_)) => Ok(Some(name.to_owned())),
            Err(Trouble::Fault(fault)) => Err(fault),
        }
    }
}
