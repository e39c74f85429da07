//! Actions in containers of their own, and images that are used as actions
//! (github-runner-protocol 8.7).

use std::time::Duration;

use common::event::Conclusion;
use common::plan::Value as Planned;

use super::Found;
use crate::engine::container::{Arguments, CONTAINER_HOME, PathMap, Trouble};
use crate::engine::container::{of_workflow, split};
use crate::engine::fault::Fault;
use crate::engine::interpreter::Said;
use crate::engine::job::Job;
use crate::engine::script::Surroundings;
use crate::engine::step::{Performed, Performing};
use crate::engine::supervise::Limits;
use crate::engine::variables::Variables;
use crate::expression::Value;
use crate::workflow::{Action, DockerAction, DockerImage, Runs};

/// What a step may give to any action in a container, in any case.
pub(super) const INPUTS: [&str; 2] = ["entrypoint", "args"];

/// The workspace in the container of an action.
const WORKSPACE: &str = "/github/workspace";

/// How long removing the container of an action may take that was ended.
const REMOVAL: Duration = Duration::from_secs(30);

/// A main part that is whatever the image runs by itself.
const OF_THE_IMAGE: &str = "";

/// An action that is an image and nothing else.
pub(super) fn plain(image: DockerImage) -> Action {
    Action {
        name: None,
        inputs: Vec::new(),
        outputs: Planned::empty_mapping(),
        runs: Runs::Docker(DockerAction::of_image(image)),
    }
}

/// The members of the `github` context that are other paths in a container.
fn moved_members(github: &Value, paths: &PathMap) -> Vec<(String, String)> {
    let Some(members) = github.as_object() else { return Vec::new() };
    let moved = members.iter().filter_map(|(name, value)| {
        let path = value.as_str()?;
        let moved = paths.enter(path);
        (moved != path).then(|| (name.to_owned(), moved))
    });
    moved.collect()
}

/// The value of an input, if it has one.
fn input<'a>(inputs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = inputs.iter().rev().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str()).filter(|value| !value.trim().is_empty())
}

impl Job<'_> {
    /// Runs the main part of an action in a container.
    pub(super) async fn run_docker(
        &mut self,
        performing: &mut Performing<'_>,
        found: &Found,
        docker: &DockerAction,
        inputs: Vec<(String, String)>,
    ) -> Result<Performed, Fault> {
        let entrypoint = docker.entrypoint.as_deref().or_else(|| input(&inputs, "entrypoint"));
        let entrypoint = entrypoint.unwrap_or(OF_THE_IMAGE).to_owned();
        let post = (docker.post_entrypoint.as_deref(), docker.post_if.as_deref());
        self.run_main(performing, found, &entrypoint, post, inputs).await
    }

    /// Runs a program of the image of an action.
    pub(super) async fn run_in_image(
        &mut self,
        performing: &mut Performing<'_>,
        found: &Found,
        docker: &DockerAction,
        (entrypoint, inputs): (&str, &[(String, String)]),
        environment: Variables,
    ) -> Result<Performed, Fault> {
        let program = (docker, entrypoint, inputs);
        match self.try_in_image(performing, found, program, environment).await {
            Ok(performed) => Ok(performed),
            Err(Trouble::Fault(fault)) => Err(fault),
            Err(Trouble::Stopped(stop)) => {
                let (outcome, said) = (Conclusion::Failure, Said::default());
                Ok(Performed { outcome, said, stop: Some(stop), disk_full: None })
            }
        }
    }

    async fn try_in_image(
        &mut self,
        performing: &mut Performing<'_>,
        found: &Found,
        (docker, entrypoint, inputs): (&DockerAction, &str, &[(String, String)]),
        environment: Variables,
    ) -> Result<Performed, Trouble> {
        let limits = performing.limits.clone();
        let who = format!("the action {} runs in a container", found.reference);
        let search_path = environment.get("PATH").unwrap_or_default().to_owned();
        let tool = self.container_tool(&who, &search_path, &limits).await?;
        let image = match &docker.image {
            DockerImage::Named(name) => self.fetch_image(&tool, name, &limits).await?,
            DockerImage::Built(file) => {
                let Some(file) = super::inside(file) else {
                    let text =
                        format!("the image of the action {} lies outside it", found.reference);
                    return Err(text.into());
                };
                let file = format!("{}/{file}", found.directory);
                self.build_image(&tool, &file, &limits).await?
            }
        };
        let paths = self.action_paths();
        let mut scope = performing.scope.clone();
        scope.set("inputs", Value::object(inputs.iter().map(|(k, v)| (k.clone(), Value::text(v)))));
        scope.extend_github(moved_members(scope.github(), &paths));
        let words = match &docker.args {
            Some(args) => {
                let mut words = Vec::new();
                for value in args {
                    let word = scope.text(value, self.system).await;
                    let word = word.map_err(|error| format!("the args of the action: {error}"))?;
                    words.push(paths.enter(&word));
                }
                words
            }
            None => {
                let words = split(input(inputs, "args").unwrap_or_default());
                words.map_err(|error| format!("args: {error}"))?
            }
        };
        let own = scope.texts(&docker.env, self.system).await;
        let own = own.map_err(|error| format!("the env of the action: {error}"))?;
        self.open_services_to_action(&tool, &limits).await?;
        let name = self.container_name(&format!("action_{}", self.containers.next_action()));
        let mut arguments = self.action_arguments(&name, entrypoint, &paths).await?;
        let mut variables = Variables::default();
        variables.set("HOME", CONTAINER_HOME);
        variables.extend(own.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        // What the workflow and the runner say comes first.
        let pairs = environment.clone().into_pairs();
        for (name, value) in of_workflow(&pairs, &performing.env, &paths, self.service_places()) {
            variables.set(name, value);
        }
        for (name, value) in variables.iter() {
            arguments.variable(name, value);
        }
        arguments.words([image.as_str()]);
        arguments.words(words.iter().map(String::as_str));
        self.create_command_files(performing.step.index).await?;
        let (arguments, handed_on) = arguments.take();
        let command = tool.command(arguments, handed_on);
        let around = Surroundings { paths, inside: None };
        let performed = self.start_at(performing, command, &environment, around).await?;
        if performed.stop.is_some() {
            // The end of its client is not that of a container.
            let limits = Limits::within(REMOVAL);
            drop(self.remove_container(&tool, &name, &limits).await);
        }
        Ok(performed)
    }

    /// Where the container of an action has the directories of the machine.
    fn action_paths(&self) -> PathMap {
        let directories = &self.directories;
        let paths = PathMap::new([
            (directories.workspace.as_str(), WORKSPACE),
            (&directories.home, CONTAINER_HOME),
            (directories.workflow(), "/github/workflow"),
            (&directories.file_commands, "/github/file_commands"),
            (&directories.temp, "/github/runner_temp"),
        ]);
        paths.after(self.containers.paths())
    }

    /// What the container of an action runs with, up to its variables.
    async fn action_arguments(
        &self,
        name: &str,
        entrypoint: &str,
        paths: &PathMap,
    ) -> Result<Arguments, Fault> {
        self.system.create_directory(&self.directories.home, self.facts.owner).await?;
        let mut arguments = Arguments::default();
        let label = self.container_label();
        arguments.words(["run", "--rm", "--name", name, "--label", &label]);
        arguments.words(["--workdir", WORKSPACE]);
        if let Some(network) = self.containers.network() {
            arguments.words(["--network", network]);
        }
        if entrypoint != OF_THE_IMAGE {
            arguments.words(["--entrypoint", entrypoint]);
        }
        self.mount(&mut arguments, paths).await?;
        Ok(arguments)
    }
}
