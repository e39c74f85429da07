//! `solstice run`: a workflow file in, a virtual machine for each job, the log on the terminal.
//!
//! [`discover`] finds the file, [`git`] and [`event`] make up what a forge would have said,
//! [`planner`] makes requests of jobs, [`schedule`] says which may run, [`drive`] hands them to the
//! host through [`mod@execute`] and shows what comes back. Where a service runs on this host, it runs
//! the jobs.
//! Nothing here knows a machine.

pub(crate) mod called;
pub(crate) mod discover;
mod drive;
mod event;
pub(crate) mod execute;
pub(crate) mod git;
pub(crate) mod planner;
mod schedule;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use common::ids::RunId;
use common::plan::Dialect;
use common::request::{Contexts, MachineSize};
use common::time::Timestamp;
use tokio_util::sync::CancellationToken;
use workflow_runner::workflow::{self, Workflow};

use crate::cli::RunArgs;
use crate::exit::{CommandError, Exit};
use crate::host::artifact_directory;
use crate::message;
use crate::render::{Human, Json, Output, Render, Screen, watch_readers};
use crate::settings::Settings;
use crate::stop::Stop;
use called::Library;
use discover::WorkflowFile;
use drive::Drive;
use event::GithubContext;
use execute::{Host, Labels, Remote, Runner};
use planner::{Unit, Wishes, WorkflowPlanner, context_of};
use schedule::{Node, Schedule, Start};

/// Runs a workflow.
///
/// # Errors
/// The input is wrong, which is found before anything is created, or the host cannot be used.
pub(crate) async fn run(settings: &Settings, arguments: RunArgs) -> Result<Exit, CommandError> {
    let directory = std::env::current_dir()
        .map_err(|error| CommandError::usage(format!("there is no working directory: {error}")))?;
    let prepared = prepare(&directory, &arguments).await?;
    let service = if arguments.standalone { None } else { Remote::find(settings).await? };
    let stop = Stop::on_signals()
        .map_err(|error| CommandError::infrastructure(format!("cannot handle signals: {error}")))?;
    let closed = CancellationToken::new();
    watch_readers(closed.clone());
    let render = |several| -> Box<dyn Render> {
        let output = Output::standard();
        if arguments.json {
            Box::new(Json::new(output))
        } else {
            Box::new(Human::new(output, several, arguments.verbose))
        }
    };
    if let Some(service) = service {
        return execute(&prepared, &arguments, Arc::new(service), &stop, closed, render).await;
    }
    let host = Arc::new(Host::open(settings)?);
    let ended = execute(&prepared, &arguments, Arc::clone(&host), &stop, closed, render).await;
    host.close().await;
    let artifacts = artifact_directory(settings).join(prepared.run.to_string());
    if artifacts.is_dir() {
        message::notice(&format!("Artifacts: {}", artifacts.display()));
    }
    ended
}

/// Everything that is known before the host is asked.
struct Prepared {
    file: WorkflowFile,
    workflow: Arc<Workflow>,
    library: Library,
    dialect: Dialect,
    contexts: Contexts,
    secrets: secrets::Secrets,
    nodes: Vec<Node>,
    repository: String,
    run: RunId,
}

impl Prepared {
    /// The workflow itself, whose jobs have no prefix.
    fn unit(&self) -> Unit {
        Unit {
            workflow: Arc::clone(&self.workflow),
            contexts: self.contexts.clone(),
            secrets: self.secrets.clone(),
            title: String::new(),
        }
    }
}

async fn prepare(directory: &Path, arguments: &RunArgs) -> Result<Prepared, CommandError> {
    let top = git::repository(directory).await;
    let file = discover::discover(
        directory,
        top.as_deref(),
        arguments.workflow.as_deref(),
        arguments.dialect,
    )?;
    let dialect = file.dialect;
    let parsed = workflow::parse_for(&file.text, &file.shown, dialect)?;
    let workflow = parsed.workflow;
    let library = Library::read(&file.project, &workflow, dialect)?;
    for warning in parsed.warnings.iter().chain(&library.warnings) {
        message::warning(&warning.to_string());
    }
    let nodes = nodes(&workflow, &arguments.jobs)?;
    let event = event_name(&workflow, arguments.event.as_deref());
    let inputs = workflow::inputs_from(&workflow, &event, &arguments.inputs)?;
    let mut secrets = secrets::collect(
        &arguments.secrets,
        arguments.secrets_file.as_deref(),
        |name| std::env::var(name).ok(),
        &mut secrets::Terminal,
    )?;
    require_secrets(&workflow, &library, &nodes, &mut secrets)?;
    let facts = git::facts(&file.project, user()).await;
    let payload = match &arguments.event_file {
        Some(path) => event::read_payload(path)?,
        None => event::default_payload(&event, &facts, &inputs),
    };
    let token = ["GITHUB_TOKEN", "FORGEJO_TOKEN", "GITEA_TOKEN"]
        .iter()
        .find_map(|name| secrets.get(*name))
        .map_or("", |secret| secret.expose());
    let github = GithubContext {
        event: &event,
        payload,
        facts: &facts,
        file: &file,
        workflow: workflow.name.as_deref(),
        dialect,
        token,
        run_id: Timestamp::now().as_micros() / 1000,
    };
    let contexts = Contexts {
        github: github.build(),
        vars: context_of(&arguments.vars),
        inputs,
        ..Contexts::default()
    };
    let repository = facts.repository;
    let workflow = Arc::new(workflow);
    let run = RunId::new();
    Ok(Prepared { file, workflow, library, dialect, contexts, secrets, nodes, repository, run })
}

async fn execute<R: Runner + Labels>(
    prepared: &Prepared,
    arguments: &RunArgs,
    host: Arc<R>,
    stop: &Stop,
    closed: CancellationToken,
    render: impl FnOnce(bool) -> Box<dyn Render>,
) -> Result<Exit, CommandError> {
    let labels = Arc::clone(&host);
    let mut planner = WorkflowPlanner {
        units: BTreeMap::from([(String::new(), prepared.unit())]),
        library: &prepared.library,
        dialect: prepared.dialect,
        wishes: Wishes {
            image: arguments.image.clone(),
            size: MachineSize { cpus: arguments.cpus, memory: arguments.memory },
            timeout: arguments.timeout,
            keep: arguments.keep,
            env: arguments.env.clone(),
            matrix: arguments.matrix.clone(),
            project: prepared.file.project.clone(),
            repository: prepared.repository.clone(),
            run: Some(prepared.run),
        },
        labels: labels.as_ref(),
        matrix_keys_seen: BTreeSet::new(),
    };
    let mut schedule = Schedule::new(prepared.nodes.clone());
    let first = begin(prepared, &mut planner, &mut schedule)?;
    let mut chosen = prepared.nodes.iter().filter_map(|node| prepared.workflow.job(&node.key));
    let calls = chosen.any(|job| job.call().is_some());
    let several = calls || prepared.nodes.len() > 1 || first.len() > 1;
    let screen = Screen::start(render(several), closed)
        .map_err(|error| CommandError::infrastructure(format!("cannot start: {error}")))?;
    let drive = Drive {
        runner: host,
        schedule,
        planner: &mut planner,
        screen: &screen,
        stop,
        give_up: stop.destroy.child_token(),
        workflow: prepared.file.shown.clone(),
    };
    let exit = drive.run(first).await;
    screen.finish(&stop.destroy).await;
    Ok(exit)
}

/// Decides the jobs that need no other, with every mistake that can be seen before one runs.
fn begin(
    prepared: &Prepared,
    planner: &mut WorkflowPlanner<'_>,
    schedule: &mut Schedule,
) -> Result<Vec<Start>, CommandError> {
    let jobs = prepared.nodes.iter().filter_map(|node| prepared.workflow.job(&node.key));
    let called = prepared.library.workflows().flat_map(|workflow| &workflow.jobs);
    for job in jobs.clone().chain(called) {
        planner.check(job)?;
    }
    let ready = schedule.start_ready(planner);
    if let Some(error) = ready.errors.into_iter().next() {
        return Err(error);
    }
    let later = jobs.into_iter().any(|job| {
        job.call().is_some() || (!job.needs.is_empty() && job.strategy.matrix.is_some())
    });
    if let (Some(key), false) = (planner.unused_matrix_keys().first(), later) {
        return Err(CommandError::usage(format!("no job has the matrix value {key:?}")));
    }
    Ok(ready.starts)
}

/// The chosen jobs and all that they need, each behind those that it needs.
fn nodes(workflow: &Workflow, chosen: &[String]) -> Result<Vec<Node>, CommandError> {
    let mut wanted: BTreeSet<&str> = BTreeSet::new();
    for key in chosen {
        let Some(job) = workflow.job(key) else {
            let keys: Vec<&str> = workflow.jobs.iter().map(|job| job.key.as_str()).collect();
            return Err(CommandError::usage(format!("{}: there is no job {key:?}", workflow.file))
                .hint(format!("the jobs are {}", keys.join(", "))));
        };
        wanted.insert(&job.key);
        wanted.extend(workflow.ancestors(key));
    }
    let order = workflow.order();
    let keys = order.into_iter().filter(|key| chosen.is_empty() || wanted.contains(key));
    let jobs = keys.filter_map(|key| workflow.job(key));
    Ok(jobs.map(|job| Node { key: job.key.clone(), needs: job.needs.clone() }).collect())
}

fn event_name(workflow: &Workflow, requested: Option<&str>) -> String {
    match requested {
        Some(name) => {
            if workflow.event(name).is_none() {
                message::warning(&format!("a forge would not start this workflow on {name:?}"));
            }
            name.to_owned()
        }
        None => workflow.on.first().map_or("push", |event| &event.name).to_owned(),
    }
}

fn require_secrets(
    workflow: &Workflow,
    library: &Library,
    nodes: &[Node],
    secrets: &mut secrets::Secrets,
) -> Result<(), CommandError> {
    let jobs = nodes.iter().filter_map(|node| workflow.job(&node.key));
    let used: Vec<String> = jobs.flat_map(|job| library.secrets_of(workflow, job)).collect();
    if let Some(warning) = secrets::require(used.iter().map(String::as_str), secrets)? {
        message::warning(&warning);
    }
    Ok(())
}

/// The name of the user, where the environment has it.
fn user() -> Option<String> {
    ["LOGNAME", "USER"].iter().find_map(|name| std::env::var(name).ok()).filter(|n| !n.is_empty())
}

#[cfg(test)]
mod tests;
