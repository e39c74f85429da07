//! Which secrets a workflow reads, so that a missing one is named before a machine starts.

use std::collections::HashSet;

use common::plan::Location;

use super::model::Workflow;

/// A secret that an expression reads by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SecretUse {
    pub(super) name: String,
    /// The job that reads it; absent for a part of the workflow that all jobs share.
    pub(super) job: Option<String>,
    pub(super) location: Location,
}

/// The secrets that any part of a workflow reads by name, each with the first place.
///
/// Names are as written, and differ by more than case. Secrets that the forge makes itself, such as
/// `GITHUB_TOKEN`, are among them. Secrets read by a computed name cannot be.
pub fn secrets_used(workflow: &Workflow) -> Vec<(String, Location)> {
    distinct(workflow, |_| true)
}

/// As [`secrets_used`], for one job and what it shares with all jobs.
pub fn secrets_used_by(workflow: &Workflow, job_key: &str) -> Vec<(String, Location)> {
    distinct(workflow, |job| job.is_none_or(|job| job == job_key))
}

fn distinct(workflow: &Workflow, wanted: impl Fn(Option<&str>) -> bool) -> Vec<(String, Location)> {
    let mut seen = HashSet::new();
    workflow
        .secrets
        .iter()
        .filter(|used| wanted(used.job.as_deref()))
        .filter(|used| seen.insert(used.name.to_lowercase()))
        .map(|used| (used.name.clone(), used.location))
        .collect()
}
