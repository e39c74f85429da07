//! `uses: solstice/workflow@v1`: the jobs of the repository's workflow in KDL that this machine's
//! label fits, one after the other, inside one step of the forge's job.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;

use common::event::{Conclusion, JobResult};
use common::guest::JobDocument;
use common::limits::WORKFLOW_BYTES;
use common::plan::{Plan, StepAction, Value as Planned};
use common::request::Contexts;
use serde_json::json;
use tokio::time::Instant;

use crate::diagnostic::Diagnostic;
use crate::workflow::{self, Inspection, JobScope, KDL_FILE, Workflow};

use super::fault::Fault;
use super::interpreter::Said;
use super::job::{Inside, Job};
use super::step::{Performed, Performing};
use super::supervise::{Limits, Stop};
use super::workspace::inside;

/// The most findings of a wrong file that are shown.
const FINDINGS: usize = 20;

/// A leg of a job of the file that runs here.
struct Chosen {
    key: String,
    name: String,
    document: JobDocument,
}

impl Job<'_> {
    /// Runs the jobs of a workflow in KDL.
    pub(super) async fn run_workflow(
        &mut self,
        performing: &mut Performing<'_>,
        reference: &str,
        with: &Planned,
    ) -> Result<Performed, Fault> {
        let with = self.open_action(performing, reference, with).await?;
        if !self.is_checked_out {
            let placed = self.place_tree(performing, reference, &[]).await?;
            if placed.stop.is_some() {
                return Ok(placed);
            }
        }
        let file = with.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case("file"));
        let file = file.map_or(KDL_FILE, |(_, file)| file.trim());
        let workflow = self.read_workflow(file).await?;
        let chosen = self.choose(&workflow)?;
        // A job for another machine is another job of the forge, which knows its order.
        let elsewhere = |job: &&workflow::Job| !chosen.iter().any(|here| here.key == job.key);
        let mut results: BTreeMap<String, JobResult> = workflow
            .jobs
            .iter()
            .filter(elsewhere)
            .map(|job| (job.key.clone(), JobResult::Success))
            .collect();
        let mut outcome = Conclusion::Success;
        for job in &chosen {
            let result = self.run_chosen(&workflow, job, &results, performing).await?;
            if result == JobResult::Failure {
                outcome = Conclusion::Failure;
            }
            let known = results.entry(job.key.clone()).or_insert(result);
            if *known == JobResult::Success {
                *known = result;
            }
            if self.stop_of(&performing.limits).is_some() {
                break;
            }
        }
        Ok(Performed {
            outcome,
            said: Said::default(),
            stop: self.stop_of(&performing.limits),
            disk_full: None,
        })
    }

    /// Why the step must end, if it must.
    pub(super) fn stop_of(&self, limits: &Limits) -> Option<Stop> {
        let now = Instant::now();
        if limits.cancel.as_ref().is_some_and(tokio_util::sync::CancellationToken::is_cancelled) {
            Some(Stop::Cancelled)
        } else if limits.step.is_some_and(|step| step <= now) {
            Some(Stop::StepLimit)
        } else if limits.job <= now {
            Some(Stop::JobLimit)
        } else {
            None
        }
    }

    /// Reads the file; all that is wrong with it is in the log, the first of it as the error.
    async fn read_workflow(&mut self, file: &str) -> Result<Workflow, Fault> {
        let Some(path) = inside(file).filter(|path| !path.is_empty()) else {
            return Err(format!("the file {file} lies outside the workspace").into());
        };
        let path = self.directories.in_workspace(&path);
        let bytes = match self.system.read(&path, WORKFLOW_BYTES).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(format!(
                    "there is no file {file} in the workspace; add it to the repository, and check \
                     the repository out in an earlier step"
                )
                .into());
            }
            Err(error) => return Err(error.into()),
        };
        let Ok(text) = String::from_utf8(bytes) else {
            return Err(format!("the file {file} is not UTF-8").into());
        };
        let Inspection { workflow, errors, .. } =
            workflow::inspect(&text, file, self.document.plan.dialect);
        for error in errors.iter().take(FINDINGS) {
            self.events.say(self.system.now(), &error.to_string()).await;
        }
        workflow.ok_or_else(|| format!("the workflow {file} cannot run; see above").into())
    }

    /// The legs of the file's jobs that this machine's label fits, each after those it needs.
    fn choose(&self, workflow: &Workflow) -> Result<Vec<Chosen>, Fault> {
        let dialect = self.document.plan.dialect;
        let wrong = |error: Diagnostic| Fault::from(error.to_string());
        let mut contexts = self.document.contexts.clone();
        let scope = JobScope::new(&contexts, dialect);
        let (mut chosen, mut others) = (Vec::new(), Vec::new());
        for key in workflow.order() {
            let Some(job) = workflow.job(key) else { continue };
            for leg in workflow::expand(job, &scope).map_err(wrong)? {
                let labels = workflow::labels(job, &scope.clone().with_leg(&leg)).map_err(wrong)?;
                let fits = |own: &str| labels.iter().any(|label| label.eq_ignore_ascii_case(own));
                if !self.document.label.as_deref().is_none_or(fits) {
                    others.extend(labels);
                    continue;
                }
                contexts.matrix.clone_from(&leg.matrix);
                let plan =
                    workflow::plan(workflow, key, &leg, &contexts, dialect).map_err(wrong)?;
                chosen.push(Chosen {
                    key: key.to_owned(),
                    name: plan.name.clone(),
                    document: self.document_of(plan, contexts.clone()),
                });
            }
        }
        if chosen.is_empty() {
            others.sort();
            others.dedup();
            return Err(format!(
                "no job of {} runs on {}; its labels are {}",
                workflow.file,
                self.document.label.as_deref().unwrap_or_default(),
                others.join(", ")
            )
            .into());
        }
        Ok(chosen)
    }

    /// The document of a job of the file. Its checkout is done already.
    fn document_of(&self, mut plan: Plan, contexts: Contexts) -> JobDocument {
        plan.steps.retain(|step| matches!(step.action, StepAction::Run { .. }));
        plan.job.clone_from(&self.document.plan.job);
        JobDocument { plan, contexts, ..self.document.clone() }
    }

    /// Runs a job of the file if its condition holds.
    async fn run_chosen(
        &mut self,
        workflow: &Workflow,
        job: &Chosen,
        results: &BTreeMap<String, JobResult>,
        performing: &Performing<'_>,
    ) -> Result<JobResult, Fault> {
        let Some(model) = workflow.job(&job.key) else { return Ok(JobResult::Skipped) };
        let mut document = job.document.clone();
        document.contexts.needs = model
            .needs
            .iter()
            .filter_map(|need| Some((need.clone(), json!({ "result": results.get(need)?.name() }))))
            .collect();
        let dialect = self.document.plan.dialect;
        let contexts = &document.contexts;
        let secrets = &document.secrets;
        let holds =
            workflow::job_condition(workflow, model, contexts, secrets, results, false, dialect);
        if !holds.map_err(|error| error.to_string())? {
            let text = format!("##[section]{} is skipped", job.name);
            self.events.say(self.system.now(), &text).await;
            return Ok(JobResult::Skipped);
        }
        let within = self.events.begin_within(performing.step.index, Some(job.name.clone()));
        let ended = self.steps_of(&document, performing).await;
        self.events.end_within(within);
        ended
    }

    /// Boxed: the steps of a job may run a job, whose steps are of the same type.
    fn steps_of<'b>(
        &'b mut self,
        document: &'b JobDocument,
        performing: &'b Performing<'_>,
    ) -> Pin<Box<dyn Future<Output = Result<JobResult, Fault>> + Send + 'b>> {
        Box::pin(async move {
            let cancel = self.cancel.clone();
            let inside = Inside { document, github: Vec::new(), cancel };
            let mut job = self.inside(inside, performing).await?;
            job.steps().await;
            let result = job.result();
            let left = job.leave();
            self.take_processes(left.processes);
            Ok(result)
        })
    }
}
