//! Actions made of steps (github-runner-protocol 8.6). They run as a job inside their step, with an
//! `inputs` and a `steps` context of their own. What of the actions inside comes before the job's
//! first step runs as such a job too, without steps.

use std::collections::BTreeMap;

use common::event::{Conclusion, JobResult};
use common::guest::JobDocument;
use common::plan::{Containers, Plan, Step, Value as Planned};
use common::request::Contexts;
use tokio_util::sync::CancellationToken;

use super::{Found, Later, States};
use crate::engine::fault::Fault;
use crate::engine::interpreter::Said;
use crate::engine::job::{Inside, Job};
use crate::engine::step::{Performed, Performing};
use crate::system::Pending;

/// What came of the steps of an action.
struct Ended {
    result: JobResult,
    outputs: Vec<(String, String)>,
}

impl Job<'_> {
    /// Runs the steps of an action. Boxed: they may use actions made of steps.
    pub(super) fn run_composite<'b>(
        &'b mut self,
        performing: &'b mut Performing<'_>,
        found: &'b Found,
        steps: &'b [Step],
        inputs: Vec<(String, String)>,
    ) -> Pending<'b, Result<Performed, Fault>> {
        Box::pin(async move {
            let document = self.document_of_action(found, steps, inputs);
            let within = self.events.begin_within(performing.step.index, None);
            let ended = self.steps_of_action(&document, performing, found).await;
            self.events.end_within(within);
            let ended = ended?;
            let stop = self.stop_of(&performing.limits);
            let outcome = match ended.result {
                JobResult::Success => Conclusion::Success,
                _ => Conclusion::Failure,
            };
            let said = Said::outputs(ended.outputs);
            Ok(Performed { outcome, said, stop, disk_full: None })
        })
    }

    fn document_of_action(
        &self,
        found: &Found,
        steps: &[Step],
        inputs: Vec<(String, String)>,
    ) -> JobDocument {
        let outer = &self.document.plan;
        let plan = Plan {
            version: outer.version,
            dialect: outer.dialect,
            server_version: outer.server_version.clone(),
            job: outer.job.clone(),
            name: outer.name.clone(),
            env: Vec::new(),
            defaults: Vec::new(),
            containers: Containers::default(),
            steps: steps.to_vec(),
            outputs: found.action.outputs.clone(),
            timeout_minutes: None,
            file: Some(found.reference.clone()),
        };
        let inputs = inputs.into_iter().map(|(name, value)| (name, value.into())).collect();
        JobDocument {
            plan,
            contexts: Contexts { inputs, ..self.document.contexts.clone() },
            // An action gets as an input what it may know.
            secrets: BTreeMap::new(),
            ..self.document.clone()
        }
    }

    async fn steps_of_action(
        &mut self,
        document: &JobDocument,
        performing: &Performing<'_>,
        found: &Found,
    ) -> Result<Ended, Fault> {
        let states = self.states.remove(&performing.step.index).unwrap_or_default().inside;
        let mut job = self.inside_of_action(document, performing, found).await?;
        job.states = states;
        job.steps().await;
        let outputs = match &job.document.plan.outputs {
            Planned::Mapping(pairs) if pairs.is_empty() => Ok(Vec::new()),
            outputs => job.evaluate_outputs(outputs).await,
        };
        let result = job.result();
        let left = job.leave();
        self.take_from_action(left);
        let outputs = outputs.map_err(|error| format!("the outputs of the action: {error}"))?;
        Ok(Ended { result, outputs })
    }

    /// The job that an action is while its steps or parts of them run.
    async fn inside_of_action<'b>(
        &'b mut self,
        document: &'b JobDocument,
        performing: &Performing<'_>,
        found: &Found,
    ) -> Result<Job<'b>, Fault> {
        let cancel = match &performing.limits.cancel {
            Some(cancel) => cancel.clone(),
            // It runs because the job was cancelled.
            None => CancellationToken::new(),
        };
        let (written, paths) = (self.written.clone(), self.paths.clone());
        let (env, is_checked_out) = (self.env.clone(), self.is_checked_out);
        let (matchers, fetched) =
            (std::mem::take(&mut self.matchers), std::mem::take(&mut self.fetched));
        let depth = self.depth + 1;
        let inside = Inside { document, github: found.github(self.containers.paths()), cancel };
        let mut job = self.inside(inside, performing).await?;
        (job.written, job.paths, job.depth) = (written, paths, depth);
        (job.env, job.outer_env) = (env, performing.step_env.clone());
        job.is_checked_out = is_checked_out;
        (job.matchers, job.fetched) = (matchers, fetched);
        Ok(job)
    }

    /// Runs what of the actions inside an action comes before the job's first step, with these
    /// inputs of the action, and keeps what it told their later parts. Boxed: it may be of actions
    /// further inside.
    pub(super) fn run_inside_before<'b>(
        &'b mut self,
        performing: &'b Performing<'_>,
        found: &'b Found,
        (parts, inputs): (&'b [Later], Vec<(String, String)>),
        states: &'b mut States,
    ) -> Pending<'b, Result<Performed, Fault>> {
        Box::pin(async move {
            let document = self.document_of_action(found, &[], inputs);
            // Conditions before the first step are about the job.
            let (had_failed, cancelled) = (self.failed, self.cancelled);
            let mut job = self.inside_of_action(&document, performing, found).await?;
            (job.failed, job.cancelled) = (had_failed, cancelled);
            job.run_before(parts).await;
            *states = std::mem::take(&mut job.states);
            let outcome = match (had_failed, job.failed) {
                (false, true) => Conclusion::Failure,
                _ => Conclusion::Success,
            };
            let left = job.leave();
            self.take_from_action(left);
            let stop = self.stop_of(&performing.limits);
            Ok(Performed { outcome, said: Said::default(), stop, disk_full: None })
        })
    }
}
