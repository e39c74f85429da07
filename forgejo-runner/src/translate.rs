//! From a task as a server hands it out to the request that orchestrators are given
//! (forgejo-runner-protocol 5 and 7).

mod context;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::event::Conclusion;
use common::ids::{JobId, ReservationId};
use common::limits::{REPOSITORY_CHARACTERS, STEPS, WORKFLOW_BYTES};
use common::plan::{DEFAULT_JOB_MINUTES, Dialect};
use common::request::{
    Contexts, Deadlines, Envelope, Forge, JobBody, JobRequest, PROTOCOL_VERSION, Secret,
};
use forgejo_proto::runner::Task;
use workflow_runner::workflow::{self, Delivered, JobScope, Leg, Undeliverable};

use crate::client::Kind;
use crate::label::Label;
use context::TaskContext;

/// How long a job may wait for a host: servers end a task 3 hours after they handed it out
/// (forgejo-runner-protocol 6.5).
const QUEUED: Duration = Duration::from_secs(3 * 3600);
/// The longest time that a job may run, as a server with its own limit raised may allow.
const RUNNING: Duration = Duration::from_secs(7 * 24 * 3600);
/// Findings of one workflow that are shown.
const FINDINGS: usize = 20;

/// What is known of the place that a task comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The instance's URL, without a final slash.
    pub url: &'a str,
    /// What the server is, where it said so.
    pub kind: Option<Kind>,
    /// What this runner offers there.
    pub labels: &'a [Label],
    /// Where the events of its jobs go.
    pub reply_to: &'a str,
}

/// What a task becomes.
#[derive(Clone, Debug)]
pub struct Translated {
    /// How many steps the server shows.
    pub steps: usize,
    /// Rows for the set-up, before anything happens.
    pub opening: Vec<String>,
    /// What is to be done.
    pub work: Work,
}

/// What is to be done about a task.
#[derive(Clone, Debug)]
pub enum Work {
    /// A machine runs it.
    Run(Box<JobRequest>),
    /// Nothing runs: it ends so, for these reasons.
    End(Conclusion, Vec<String>),
}

/// Translates a task; what cannot run ends with a sentence in its log.
#[must_use]
pub fn translate(
    task: &Task,
    origin: &Origin<'_>,
    reservation: Option<ReservationId>,
) -> Translated {
    let id = JobId::new();
    let opening = vec![format!("Solstice {}, job {id}", env!("CARGO_PKG_VERSION"))];
    let refuse = |steps, lines| Translated {
        steps,
        opening: opening.clone(),
        work: Work::End(Conclusion::Failure, lines),
    };
    let context = TaskContext::of(task, origin);
    let dialect = context.dialect;
    let payload = task.workflow_payload.as_deref().unwrap_or_default();
    if payload.len() as u64 > WORKFLOW_BYTES {
        let bytes = payload.len();
        return refuse(
            0,
            vec![format!("The workflow has {bytes} bytes, {WORKFLOW_BYTES} at most")],
        );
    }
    let Ok(text) = str::from_utf8(payload) else {
        return refuse(0, vec!["The workflow that the server delivered is not UTF-8".to_owned()]);
    };
    let delivered = match workflow::delivered(text, &context.file, dialect) {
        Ok(delivered) => delivered,
        Err(Undeliverable { errors, steps }) => {
            let mut lines = vec!["The workflow cannot run:".to_owned()];
            lines.extend(errors.iter().take(FINDINGS).flat_map(lines_of));
            return refuse(steps, lines);
        }
    };
    let steps = delivered.workflow.jobs[0].steps().len();
    let opening: Vec<String> =
        opening
            .iter()
            .cloned()
            .chain(delivered.warnings.iter().take(FINDINGS).flat_map(|found| {
                lines_of(found).into_iter().map(|line| format!("Warning: {line}"))
            }))
            .collect();
    let work = match work(task, delivered, &context, origin, (id, reservation)) {
        Ok(work) => work,
        Err(mut lines) => {
            // An error may quote what an expression gave; no orchestrator masks these lines.
            let secrets = secrets(task);
            let mut hidden = masks(&context, &secrets);
            hidden.extend(secrets.into_values());
            hide(&mut lines, hidden);
            Work::End(Conclusion::Failure, lines)
        }
    };
    Translated { steps, opening, work }
}

/// Takes secrets out of lines; the longest first, because one may be a part of another.
fn hide(lines: &mut [String], mut secrets: Vec<Secret>) {
    secrets.retain(|secret| !secret.expose().is_empty());
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
    for secret in secrets {
        for line in &mut *lines {
            *line = line.replace(secret.expose(), "***");
        }
    }
}

/// A finding as rows.
fn lines_of(finding: &impl ToString) -> Vec<String> {
    finding.to_string().lines().map(str::to_owned).collect()
}

fn work(
    task: &Task,
    delivered: Delivered,
    context: &TaskContext,
    origin: &Origin<'_>,
    (id, reservation): (JobId, Option<ReservationId>),
) -> Result<Work, Vec<String>> {
    let Delivered { mut workflow, name, labels, matrix, strategy, unsupported, .. } = delivered;
    let dialect = context.dialect;
    let secrets = secrets(task);
    let needs = context::needs(task);
    // The server took them out and delivers what came of them.
    workflow.jobs[0].needs = needs.keys().cloned().collect();
    let event = workflow::inputs_of_event(&workflow, &context.event_name, &context.event_inputs);
    let contexts = Contexts {
        github: context.github.clone(),
        vars: context::vars(task),
        needs: needs.iter().map(|(key, need)| (key.clone(), need.context.clone())).collect(),
        matrix: matrix.clone(),
        strategy,
        inputs: event,
    };
    let results = needs.iter().map(|(key, need)| (key.clone(), need.result)).collect();
    let job = &workflow.jobs[0];
    let runs =
        workflow::job_condition(&workflow, job, &contexts, &secrets, &results, false, dialect)
            .map_err(|error| lines_of(&error))?;
    if !runs {
        return Ok(Work::End(Conclusion::Skipped, Vec::new()));
    }
    if !unsupported.is_empty() {
        return Err(unsupported.iter().flat_map(lines_of).collect());
    }
    if job.steps().len() > STEPS {
        return Err(vec![format!("The job has {} steps; {STEPS} at most", job.steps().len())]);
    }
    let label = label(&labels, origin.labels)?;
    let leg = Leg { matrix, index: 0, total: 1, suffix: String::new() };
    let mut plan = workflow::plan(&workflow, &job.key, &leg, &contexts, dialect)
        .map_err(|error| lines_of(&error))?;
    if let Some(name) = name {
        plan.name = name;
    }
    plan.server_version.clone_from(&context.server_version);
    let scope = JobScope::new(&contexts, dialect).with_secrets(&secrets);
    // What has no value here may have one in the guest, whose engine keeps the limit.
    let minutes = workflow::timeout_minutes(job, &scope).ok().flatten();
    let running = Duration::try_from_secs_f64(minutes.unwrap_or(DEFAULT_JOB_MINUTES as f64) * 60.0);
    let deadlines = Deadlines { queued: QUEUED, running: running.unwrap_or(RUNNING).min(RUNNING) };
    let has_checkout = workflow::uses_checkout(job);
    let (services, secrets) = context.services(origin.url, secrets);
    Ok(Work::Run(Box::new(JobRequest {
        envelope: Envelope {
            version: PROTOCOL_VERSION,
            job: id,
            forge: forge(dialect),
            repository: context.repository.chars().take(REPOSITORY_CHARACTERS).collect(),
            label: label.image.clone(),
            size: label.size,
            priority: 0,
            deadlines,
            reply_to: origin.reply_to.to_owned(),
            reservation,
        },
        body: JobBody {
            plan,
            contexts,
            masks: masks(context, &secrets),
            secrets,
            tree: None,
            has_checkout,
            keep: None,
            keep_frozen: false,
            actions_url: context.actions_url.clone(),
            run: None,
            services,
            debug: None,
        },
    })))
}

fn forge(dialect: Dialect) -> Forge {
    match dialect {
        Dialect::Gitea => Forge::Gitea,
        Dialect::Forgejo | Dialect::Github => Forge::Forgejo,
    }
}

/// The first of a job's labels that this runner has (forgejo-runner-protocol 7.4).
fn label<'a>(wanted: &[String], offered: &'a [Label]) -> Result<&'a Label, Vec<String>> {
    let found = wanted.iter().find_map(|name| offered.iter().find(|label| label.name == *name));
    found.ok_or_else(|| {
        let names: Vec<&str> = offered.iter().map(|label| label.name.as_str()).collect();
        vec![format!(
            "`runs-on` names {}, and this runner has {}; correct `runs-on`",
            if wanted.is_empty() { "nothing".to_owned() } else { wanted.join(", ") },
            names.join(", ")
        )]
    })
}

fn secrets(task: &Task) -> BTreeMap<String, Secret> {
    let pairs = task.secrets.iter();
    pairs.map(|(name, value)| (name.clone(), Secret::new(value.clone()))).collect()
}

/// What must not be seen beside the secrets: the tokens, and the form in which checkouts write the
/// job's into git's configuration (forgejo-runner-protocol 6.7).
fn masks(context: &TaskContext, secrets: &BTreeMap<String, Secret>) -> Vec<Secret> {
    let mut masks: Vec<Secret> = context.tokens.iter().map(Secret::new).collect();
    let tokens = ["FORGEJO_TOKEN", "GITEA_TOKEN", "GITHUB_TOKEN"];
    let tokens = tokens.iter().filter_map(|name| secrets.get(*name)).map(Secret::expose);
    let own = context.github.get("token").and_then(serde_json::Value::as_str);
    for token in tokens.chain(own).filter(|token| !token.is_empty()) {
        masks.push(Secret::new(token));
        masks.push(Secret::new(BASE64_STANDARD.encode(format!("x-access-token:{token}"))));
    }
    masks.sort_by(|a, b| a.expose().cmp(b.expose()));
    masks.dedup();
    masks
}
