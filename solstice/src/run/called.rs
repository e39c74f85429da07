//! The workflows that a workflow calls: read before anything runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};
use std::sync::Arc;

use common::plan::Dialect;
use workflow_runner::diagnostic::Diagnostic;
use workflow_runner::workflow::{self, Call, CallSecrets, Job, Workflow};

use super::discover;

/// How deep calls may nest, the first workflow not counted; GitHub has the same limit.
const DEPTH: usize = 10;

/// How many workflows one may call, directly and through others.
const WORKFLOWS: usize = 50;

/// The workflows of a repository that one of them calls, by their paths.
#[derive(Clone, Debug, Default)]
pub(crate) struct Library {
    workflows: BTreeMap<String, Arc<Workflow>>,
    /// Those whose own calls were looked at.
    followed: BTreeSet<String>,
    /// What is odd about them.
    pub(crate) warnings: Vec<Diagnostic>,
}

impl Library {
    /// Reads every workflow that `root` calls, directly and through others.
    ///
    /// # Errors
    /// A file cannot be read or is wrong, a call does not fit what it calls, or calls go in a circle.
    pub(crate) fn read(
        project: &Path,
        root: &Workflow,
        dialect: Dialect,
    ) -> Result<Self, Diagnostic> {
        let mut library = Self::default();
        library.follow(project, root, dialect, &mut Vec::new())?;
        Ok(library)
    }

    /// What a job calls.
    pub(crate) fn of(&self, call: &Call) -> Option<&Arc<Workflow>> {
        self.workflows.get(&call.path)
    }

    /// All workflows.
    pub(crate) fn workflows(&self) -> impl Iterator<Item = &Arc<Workflow>> {
        self.workflows.values()
    }

    /// The names of the secrets that a job reads, through the workflows that inherit them too.
    pub(crate) fn secrets_of(&self, workflow: &Workflow, job: &Job) -> Vec<String> {
        let mut names = Vec::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![(workflow, job)];
        while let Some((workflow, job)) = open.pop() {
            let own = workflow::secrets_used_by(workflow, &job.key);
            names.extend(own.into_iter().map(|(name, _)| name));
            if let Some(call) = job.call()
                && matches!(call.secrets, CallSecrets::Inherit)
                && seen.insert(&call.path)
                && let Some(called) = self.of(call)
            {
                open.extend(called.jobs.iter().map(|job| (&**called, job)));
            }
        }
        names
    }

    /// Recursion is bounded by [`DEPTH`].
    fn follow(
        &mut self,
        project: &Path,
        workflow: &Workflow,
        dialect: Dialect,
        above: &mut Vec<String>,
    ) -> Result<(), Diagnostic> {
        for job in &workflow.jobs {
            let Some(call) = job.call() else { continue };
            if above.contains(&call.path) {
                let circle = format!("{} → {}", above.join(" → "), call.path);
                let message = format!("the calls go in a circle: {circle}");
                return Err(job.diagnostic(call.location, message));
            }
            if above.len() == DEPTH {
                let message = format!("calls nest deeper than {DEPTH} levels");
                return Err(job.diagnostic(call.location, message));
            }
            let called = match self.workflows.get(&call.path) {
                Some(known) => Arc::clone(known),
                None => self.add(project, job, call, dialect)?,
            };
            workflow::check_call(job, call, &called)?;
            if !self.followed.insert(call.path.clone()) {
                continue;
            }
            above.push(call.path.clone());
            self.follow(project, &called, dialect, above)?;
            above.pop();
        }
        Ok(())
    }

    fn add(
        &mut self,
        project: &Path,
        job: &Job,
        call: &Call,
        dialect: Dialect,
    ) -> Result<Arc<Workflow>, Diagnostic> {
        if self.workflows.len() == WORKFLOWS {
            let message = format!("more than {WORKFLOWS} workflows are called");
            return Err(job.diagnostic(call.location, message));
        }
        let path = Path::new(&call.path);
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            let message = format!("{} lies outside the repository", call.path);
            return Err(job.diagnostic(call.location, message));
        }
        let text = discover::read(&project.join(path), project)
            .map_err(|error| job.diagnostic(call.location, error.to_string()))?;
        let parsed = workflow::parse_for(&text, &call.path, dialect)?;
        self.warnings.extend(parsed.warnings);
        let called = Arc::new(parsed.workflow);
        self.workflows.insert(call.path.clone(), Arc::clone(&called));
        Ok(called)
    }
}
