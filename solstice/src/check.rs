//! `solstice check`: what is wrong with workflow files, without running them.

use serde::Serialize;
use workflow_runner::diagnostic::Diagnostic;
use workflow_runner::workflow::{self, Inspection, Job, Workflow};

use crate::cli::CheckArgs;
use crate::exit::{CommandError, Exit};
use crate::message;
use crate::run::called::Library;
use crate::run::discover::{WorkflowFile, discover_all};
use crate::run::execute::{Host, Labels};
use crate::run::git;
use crate::run::planner::missing_entry;
use crate::settings::Settings;
use crate::table::print_json;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    /// The workflow, or one of its jobs, cannot run.
    Error,
    /// It changes nothing, or concerns one step.
    Warning,
}

/// Something about a workflow file.
#[derive(Debug)]
struct Finding {
    severity: Severity,
    diagnostic: Diagnostic,
}

/// Checks workflow files and prints what is wrong with them.
///
/// # Errors
/// A file cannot be read, or the catalogue of images cannot be used.
pub(crate) async fn check(
    settings: &Settings,
    arguments: &CheckArgs,
) -> Result<Exit, CommandError> {
    let directory = std::env::current_dir()
        .map_err(|error| CommandError::usage(format!("there is no working directory: {error}")))?;
    let top = git::repository(&directory).await;
    let files = discover_all(&directory, top.as_deref(), &arguments.workflows, arguments.dialect)?;
    let host = Host::open(settings)?;
    let mut findings = Vec::new();
    for file in &files {
        findings.append(&mut of_file(file, arguments.strict, &host));
    }
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if arguments.json {
        print_json(&findings.iter().map(Shown::of).collect::<Vec<_>>())?;
    } else {
        for finding in &findings {
            show(finding);
        }
        let (files, warnings) = (files.len(), findings.len() - errors);
        message::notice(&format!(
            "{}: {}, {}",
            count(files, "workflow"),
            count(errors, "error"),
            count(warnings, "warning")
        ));
    }
    Ok(if errors == 0 { Exit::Passed } else { Exit::Usage })
}

/// Everything about one file, in the order of its lines.
fn of_file(file: &WorkflowFile, strict: bool, labels: &dyn Labels) -> Vec<Finding> {
    let Inspection { workflow, errors, unsupported, warnings } =
        workflow::inspect(&file.text, &file.shown, file.dialect);
    let error = |diagnostic| Finding { severity: Severity::Error, diagnostic };
    let warning = |diagnostic| Finding { severity: Severity::Warning, diagnostic };
    let mut findings: Vec<Finding> = errors.into_iter().map(error).collect();
    findings.extend(warnings.into_iter().map(|found| {
        let severe = strict && found.is_refused;
        if severe { error(found.finding) } else { warning(found.finding) }
    }));
    let called = workflow.iter().map(|workflow| {
        // A job that cannot run here calls nothing here.
        let mut here = workflow.clone();
        here.jobs.retain(|job| unsupported.iter().all(|(key, _)| *key != job.key));
        Library::read(&file.project, &here, file.dialect)
    });
    findings.extend(called.filter_map(Result::err).map(error));
    let jobs = workflow.iter().flat_map(|workflow: &Workflow| &workflow.jobs);
    for job in jobs {
        match runs_here(job, labels) {
            Ok(()) => {
                let of_job = unsupported.iter().filter(|(key, _)| *key == job.key);
                findings.extend(of_job.map(|(_, diagnostic)| error(diagnostic.clone())));
                findings.extend(workflow::unsupported_actions(job).into_iter().map(warning));
                findings.extend(missing_entry(job, &file.project).map(warning));
            }
            Err(elsewhere) => findings.push(warning(elsewhere)),
        }
    }
    findings
        .sort_by_key(|finding| finding.diagnostic.location.map(|place| (place.line, place.column)));
    findings
}

/// Whether a machine of this host can be meant, or what the job's labels name instead.
fn runs_here(job: &Job, labels: &dyn Labels) -> Result<(), Diagnostic> {
    let names = match workflow::literal_labels(job) {
        Some(names) => names?,
        None => return Ok(()),
    };
    let mut unknown = names.iter().map(|name| labels.has_label(name));
    if unknown.clone().any(|found| found.is_ok()) {
        return Ok(());
    }
    match unknown.next() {
        Some(Err(sentence)) => {
            let finding = job.about_runs_on(sentence);
            Err(finding.hint("the job does not run on this host, unless with --image LABEL"))
        }
        _ => Ok(()),
    }
}

fn show(finding: &Finding) {
    match finding.severity {
        Severity::Error => message::error(&finding.diagnostic.clone().into()),
        Severity::Warning => message::warning(&finding.diagnostic.to_string()),
    }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// A finding as JSON.
#[derive(Serialize)]
struct Shown<'a> {
    file: &'a str,
    line: Option<u32>,
    column: Option<u32>,
    severity: Severity,
    message: &'a str,
    hint: Option<&'a str>,
}

impl<'a> Shown<'a> {
    fn of(finding: &'a Finding) -> Self {
        let diagnostic = &finding.diagnostic;
        Self {
            file: &diagnostic.file,
            line: diagnostic.location.map(|place| place.line),
            column: diagnostic.location.map(|place| place.column),
            severity: finding.severity,
            message: &diagnostic.message,
            hint: diagnostic.hint.as_deref(),
        }
    }
}
