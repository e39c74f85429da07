//! A step that runs a script.

use std::io;

use common::event::Conclusion;
use common::plan::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::system::{Command, Exit, Kind, Process, Signal};

use super::container::{Inside, PathMap, relayed};
use super::deep::deep;
use super::environment::{self, Layers, RunnerLayer};
use super::fault::Fault;
use super::header::{self, Header};
use super::interpreter::Interpreter;
use super::job::Job;
use super::pump::Streams;
use super::shell::{self, Programs};
use super::step::{Performed, Performing};
use super::supervise::supervise;
use super::text::{sentence, signal_name};
use super::variables::Variables;
use super::workspace::Directories;

/// The parts of a `run` step as the plan has them.
#[derive(Clone, Copy)]
pub(super) struct RunStep<'a> {
    /// The script.
    pub(super) script: &'a Value,
    /// `shell`.
    pub(super) shell: Option<&'a Value>,
    /// `working-directory`.
    pub(super) working_directory: Option<&'a Value>,
}

/// Where the process of a step runs; on the machine itself without anything.
#[derive(Default)]
pub(super) struct Surroundings {
    /// Where it has the directories of the machine.
    pub(super) paths: PathMap,
    /// The way to reach it in the job's container, if it is there.
    pub(super) inside: Option<Inside>,
}

impl Job<'_> {
    /// Runs a script; the error is what kept it from starting.
    pub(super) async fn run_script(
        &mut self,
        performing: &mut Performing<'_>,
        run: RunStep<'_>,
    ) -> Result<Performed, Fault> {
        let scope = &mut performing.scope;
        let script = scope.text(run.script, self.system).await.map_err(|e| format!("run: {e}"))?;
        let shell = match run.shell {
            Some(shell) => {
                scope.text(shell, self.system).await.map_err(|e| format!("shell: {e}"))?
            }
            None => self.defaults.shell.clone(),
        };
        let directory = match run.working_directory {
            Some(directory) => scope
                .text(directory, self.system)
                .await
                .map_err(|e| format!("working-directory: {e}"))?,
            None => self.defaults.working_directory.clone(),
        };
        let environment = self.environment(performing);
        let programs = match self.containers.of_job() {
            Some(container) => Programs::Container { has_bash: container.has_bash },
            None => Programs::Machine(environment.get("PATH").unwrap_or_default(), self.system),
        };
        let shell = shell::find(&shell, &performing.name, programs, self.rules)
            .await
            .map_err(|error| error.to_string())?;
        let directory = self.seen().in_workspace(&directory);
        // A directory that only the job's container has is found there, or found missing.
        let here = self.containers.paths().leave(&directory);
        if let Some(here) = here
            && self.system.kind(&here).await? != Some(Kind::Directory)
        {
            return Err(format!(
                "the working directory {directory} does not exist; make it in an earlier step, or \
                 correct \"working-directory\" (a checkout comes first where it lies in the \
                 repository)"
            )
            .into());
        }
        let index = performing.step.index;
        let file = self.directories.script(index, shell.extension);
        let text = shell.file_text(&script);
        self.system.create_file(&file, text.as_bytes(), 0o755, self.facts.owner).await?;
        self.create_command_files(index).await?;

        let header = Header::Script { script: &script, shell: &shell.shown() };
        header::write(header, &performing.env, self.system.now(), self.events).await;

        let seen = self.seen().script(index, shell.extension);
        let command = Command {
            arguments: shell.arguments(&seen),
            program: shell.program,
            environment: environment.clone().into_pairs(),
            directory,
            identity: self.facts.identity.clone(),
        };
        self.start_and_attend(performing, command, &environment).await
    }

    /// Runs the process of a step, in the job's container if it has one.
    pub(super) async fn start_and_attend(
        &mut self,
        performing: &Performing<'_>,
        command: Command,
        environment: &Variables,
    ) -> Result<Performed, Fault> {
        let (command, inside) =
            self.enter_container(command, &performing.env, performing.step.index);
        let around = Surroundings { paths: self.containers.paths().clone(), inside };
        deep(|| self.start_at(performing, command, environment, around)).await
    }

    /// Runs the process of a step there.
    pub(super) async fn start_at(
        &mut self,
        performing: &Performing<'_>,
        command: Command,
        environment: &Variables,
        around: Surroundings,
    ) -> Result<Performed, Fault> {
        let process = self.system.start(command).await.map_err(|error| match error.kind() {
            io::ErrorKind::ArgumentListTooLong => format!(
                "the environment of this step has {} KiB, more than this system allows a process; \
                 pass large values in files",
                environment.bytes() / 1024
            ),
            _ => error.to_string(),
        })?;
        Ok(self.attend(performing, process, environment, around).await)
    }

    /// The job's directories as its steps see them.
    pub(super) fn seen(&self) -> Directories {
        self.directories.within(self.containers.paths())
    }

    /// The environment of a step's process.
    pub(super) fn environment(&self, performing: &Performing<'_>) -> Variables {
        let layers = Layers { job: &self.env, written: &self.written, step: &performing.step_env };
        let runner = RunnerLayer {
            facts: &self.facts,
            runner: &self.document.runner,
            directories: &self.seen(),
            github: performing.scope.github(),
            tracking: &self.tracking,
            debug: self.debug,
            services: &self.services,
            paths: &self.paths,
        };
        environment::build(self.rules, &layers, &runner)
    }

    /// Stays with a process until it has ended, and says how it did.
    async fn attend(
        &mut self,
        performing: &Performing<'_>,
        process: Process,
        environment: &Variables,
        Surroundings { paths, inside }: Surroundings,
    ) -> Performed {
        let index = performing.step.index;
        let exited = CancellationToken::new();
        // A task of its own: the process must be ended in time also while its output waits for
        // whoever reads the log.
        let mut supervisor = JoinSet::new();
        let ladder = self.rules.ladder;
        let (limits, done) = (performing.limits.clone(), exited.clone());
        let (control, mut signals) = match &inside {
            Some(_) => relayed(process.control),
            None => (process.control, mpsc::unbounded_channel().1),
        };
        supervisor.spawn(async move {
            let ended = supervise(control, limits, ladder).await;
            done.cancel();
            ended
        });

        let mut streams = Streams::new(process.stdout, process.stderr);
        let variable = |name: &str| environment.get(name);
        let mut interpreter = Interpreter::new(
            self.rules,
            self.system,
            self.events,
            &mut self.matchers,
            index,
            self.debug,
            variable,
        )
        .seeing(paths);
        let work = async {
            streams.pump(&mut interpreter, self.system, &exited).await;
            supervisor.join_next().await
        };
        let ended = match &inside {
            None => work.await,
            Some(inside) => tokio::select! {
                ended = work => ended,
                never = inside.relay(&mut signals, self.system) => match never {},
            },
        };
        let mut said = interpreter.said;

        let Some(Ok(ended)) = ended else {
            // The task neither panics nor is aborted while it is awaited here.
            self.error("The engine lost the process of this step.").await;
            return Performed { said, ..Performed::failed() };
        };
        if let (Some(inside), Some(_)) = (&inside, ended.stop) {
            // The end of its client is not that of a process in a container.
            inside.signal(Signal::Kill, self.system).await;
        }
        if streams.is_open() {
            self.readers.spawn(streams.discard());
        }
        let alive = ended.control.is_alive();
        if alive {
            self.groups.push(ended.control);
        }
        let failure = match (ended.stop, ended.exit) {
            (Some(_), _) | (None, Ok(Exit::Code(0))) => None,
            (None, Ok(Exit::Code(code))) => {
                Some(format!("Process completed with exit code {code}."))
            }
            (None, Ok(Exit::Signal(signal))) => {
                Some(format!("Process ended by {}.", signal_name(signal)))
            }
            (None, Err(error)) => Some(sentence(&error.to_string())),
        };
        self.read_command_files(index, &mut said).await;
        let outcome = if failure.is_some() || said.failed {
            Conclusion::Failure
        } else {
            Conclusion::Success
        };
        if let Some(failure) = failure {
            self.error(&failure).await;
        }
        if outcome == Conclusion::Failure && ended.stop.is_none() {
            self.explain_full_disk(environment).await;
        }
        Performed { outcome, said, stop: ended.stop, disk_full: None }
    }
}
