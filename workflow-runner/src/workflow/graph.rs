//! The graph of `needs`.

use std::collections::{BTreeSet, HashMap};

use super::model::{Job, Workflow};
use super::suggest;
use crate::diagnostic::Diagnostic;

impl Workflow {
    /// The keys of the jobs, each after all that it needs; otherwise in the order of the file.
    pub fn order(&self) -> Vec<&str> {
        let mut done = BTreeSet::new();
        let mut order = Vec::with_capacity(self.jobs.len());
        let mut waiting: Vec<&Job> = self.jobs.iter().collect();
        while !waiting.is_empty() {
            let before = order.len();
            waiting.retain(|job| {
                let ready = job.needs.iter().all(|need| done.contains(need.as_str()));
                if ready {
                    done.insert(job.key.as_str());
                    order.push(job.key.as_str());
                }
                !ready
            });
            // `parse` has refused cycles and unknown needs; a model changed by hand still ends.
            if order.len() == before {
                order.extend(waiting.drain(..).map(|job| job.key.as_str()));
            }
        }
        order
    }

    /// The keys of all jobs that a job depends on, directly or through others.
    pub fn ancestors(&self, key: &str) -> BTreeSet<&str> {
        let jobs = by_key(self);
        let mut found = BTreeSet::new();
        let mut open: Vec<&Job> = self.job(key).into_iter().collect();
        while let Some(job) = open.pop() {
            for need in job.needs.iter().filter_map(|need| jobs.get(need.as_str()).copied()) {
                if found.insert(need.key.as_str()) {
                    open.push(need);
                }
            }
        }
        found
    }
}

/// Every need of a job that does not exist, and the first cycle.
pub(super) fn check(workflow: &Workflow) -> Vec<Diagnostic> {
    let jobs = by_key(workflow);
    let mut errors = Vec::new();
    for job in &workflow.jobs {
        for (need, location) in job.needs.iter().zip(&job.places.needs) {
            if !jobs.contains_key(need.as_str()) {
                let message = format!("job {:?} needs {need:?}, which is not a job here", job.key);
                let error = job.diagnostic(*location, message);
                let others = jobs.keys().copied().filter(|key| *key != job.key);
                errors.push(match suggest::hint(need, others) {
                    Some(hint) => error.hint(hint),
                    None => error.hint(format!("the jobs are: {}", names(workflow))),
                });
            }
        }
    }
    errors.extend(cycle(workflow, &jobs).map(|cycle| describe(&jobs, &cycle)));
    errors
}

fn by_key(workflow: &Workflow) -> HashMap<&str, &Job> {
    workflow.jobs.iter().map(|job| (job.key.as_str(), job)).collect()
}

fn names(workflow: &Workflow) -> String {
    let keys: Vec<_> = workflow.jobs.iter().map(|job| job.key.as_str()).collect();
    keys.join(", ")
}

/// The first cycle in the order of the file: each job needs the next, the last needs the first.
fn cycle<'a>(workflow: &'a Workflow, jobs: &HashMap<&'a str, &'a Job>) -> Option<Vec<&'a str>> {
    let mut finished = BTreeSet::new();
    for job in &workflow.jobs {
        // A walk with its own stack: a chain of thousands of jobs must not exhaust ours.
        let mut path: Vec<(&'a Job, usize)> = vec![(job, 0)];
        while let Some((job, next)) = path.last_mut() {
            let Some(need) = job.needs.get(*next) else {
                finished.insert(job.key.as_str());
                path.pop();
                continue;
            };
            *next += 1;
            if finished.contains(need.as_str()) {
                continue;
            }
            if let Some(start) = path.iter().position(|(job, _)| job.key == *need) {
                return Some(path[start..].iter().map(|(job, _)| job.key.as_str()).collect());
            }
            if let Some(job) = jobs.get(need.as_str()) {
                path.push((job, 0));
            }
        }
    }
    None
}

fn describe(jobs: &HashMap<&str, &Job>, cycle: &[&str]) -> Diagnostic {
    let first = jobs[cycle[0]];
    let next = cycle.get(1).unwrap_or(&cycle[0]);
    let index = first.needs.iter().position(|need| need == next).unwrap_or_default();
    let location = first.places.needs.get(index).copied().unwrap_or(first.location);
    let mut path = cycle.join(" → ");
    path.push_str(" → ");
    path.push_str(cycle[0]);
    let message = match cycle {
        [only] => format!("job {only:?} needs itself"),
        _ => format!("these jobs wait for each other: {path}"),
    };
    first.diagnostic(location, message).hint("remove one of these entries of `needs`")
}
