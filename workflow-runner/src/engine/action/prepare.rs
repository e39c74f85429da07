//! Before the first step of a job: the actions that it uses are fetched, and what of them runs then
//! is found (github-runner-protocol 8.1 and 8.6, forgejo-runner-protocol 8.7).

use std::collections::HashMap;
use std::sync::Arc;

use common::limits::STEPS;
use common::plan::{Step, StepAction};

use super::{DEPTH, Found, Later, is_native, too_deep};
use crate::engine::fault::Fault;
use crate::engine::job::Job;
use crate::workflow::{Reference, Runs};

/// What is known while the actions of a job are fetched.
#[derive(Default)]
struct Preparing {
    /// What stands in `uses`, of all that was looked at; with the action where something of it, or
    /// of the actions inside it, runs before the first step. Only those are looked at again where
    /// they are used again: actions that use each other many times do not take long.
    known: HashMap<String, Option<Arc<Found>>>,
    /// How many files and programs run before the first step.
    parts: usize,
}

impl Preparing {
    /// Counts what runs before the first step.
    fn count(&mut self) -> Result<(), Fault> {
        self.parts += 1;
        if self.parts > STEPS {
            return Err(format!(
                "more than {STEPS} parts of actions would run before the first step of this job; \
                 use fewer actions that have such a part, or use them less often"
            )
            .into());
        }
        Ok(())
    }
}

impl Job<'_> {
    /// Fetches every action that the job's steps name, and those that composite actions name,
    /// before the first step; gives what of them runs then.
    pub(in crate::engine) async fn prepare_actions(&mut self) -> Result<Vec<Later>, Fault> {
        let (mut preparing, mut first) = (Preparing::default(), Vec::new());
        let steps = self.document.plan.steps.clone();
        let limits = self.limits(None, false);
        let prepare = Box::pin(self.prepare_steps(&steps, 0, &mut preparing, &mut first));
        tokio::select! {
            prepared = prepare => prepared?,
            // The steps find out why.
            _ = limits.reached() => {}
        }
        Ok(first)
    }

    async fn prepare_steps(
        &mut self,
        steps: &[Step],
        depth: usize,
        preparing: &mut Preparing,
        first: &mut Vec<Later>,
    ) -> Result<(), Fault> {
        for step in steps {
            let StepAction::Uses { reference, .. } = &step.action else { continue };
            if is_native(reference) {
                continue;
            }
            // The workflow's own actions come with the checkout.
            let Ok(Reference::Remote(_)) = Reference::parse(reference) else { continue };
            let found = match preparing.known.get(reference) {
                Some(None) => continue,
                Some(Some(found)) => found.clone(),
                None => {
                    // Inside itself it is not looked at again; its step finds out that it is there.
                    preparing.known.insert(reference.clone(), None);
                    Arc::new(self.find(reference).await?)
                }
            };
            let Some(part) = self.part_before(step, &found, depth, preparing).await? else {
                continue;
            };
            preparing.known.insert(reference.clone(), Some(found));
            first.push(part);
        }
        Ok(())
    }

    /// What of an action that a step uses runs before the first step.
    async fn part_before(
        &mut self,
        step: &Step,
        found: &Arc<Found>,
        depth: usize,
        preparing: &mut Preparing,
    ) -> Result<Option<Later>, Fault> {
        let part = match &found.action.runs {
            Runs::Composite(steps) if depth < DEPTH => {
                let mut parts = Vec::new();
                Box::pin(self.prepare_steps(steps, depth + 1, preparing, &mut parts)).await?;
                return Ok((!parts.is_empty()).then(|| Later::pre_inside(step, found, parts)));
            }
            Runs::Composite(_) => return Err(too_deep(&found.reference)),
            Runs::Node(node) => (node.pre.as_deref(), node.pre_if.as_deref()),
            Runs::Docker(docker) => (docker.pre_entrypoint.as_deref(), docker.pre_if.as_deref()),
            Runs::Other(_) => return Ok(None),
        };
        let part = Later::pre(step, found, part);
        if part.is_some() {
            preparing.count()?;
        }
        Ok(part)
    }
}
