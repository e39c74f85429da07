//! `uses:` of an action: finding its files, reading what it is, and giving it its inputs
//! (github-runner-protocol 8, forgejo-runner-protocol 8.7).

mod composite;
mod docker;
mod node;
mod prepare;

use std::collections::HashMap;
use std::io;

use common::event::Conclusion;

use crate::workflow::{self, Action, DockerImage, Reference, Runs};

use super::container::PathMap;
use super::deep::deep;
use super::fault::Fault;
use super::interpreter::Said;
use super::job::Job;
use super::step::{Performed, Performing};
use super::workspace::inside;
pub(super) use node::{Later, NODE, States};

/// The file of an action has no more bytes.
const FILE_BYTES: u64 = common::limits::MIB;

/// The names of that file, the first first.
const FILES: [&str; 2] = ["action.yml", "action.yaml"];

/// How deep composite actions may use each other (github-runner-protocol 8.1).
const DEPTH: usize = 9;

/// The actions of a job whose files are in the machine, by what stands in `uses` without the path
/// inside the repository.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    directories: HashMap<String, String>,
}

/// An action that can run.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// What stands in `uses`.
    reference: String,
    /// Its directory, which is `GITHUB_ACTION_PATH`.
    directory: String,
    /// `owner/name` of its repository and the version, where it is not the workflow's own.
    origin: Option<(String, String)>,
    /// What its file says.
    action: Action,
}

impl Found {
    /// An image that is an action by itself.
    fn image(reference: &str, image: &str) -> Self {
        Self {
            reference: reference.to_owned(),
            directory: String::new(),
            origin: None,
            action: docker::plain(DockerImage::Named(image.to_owned())),
        }
    }

    /// Whether it takes an input that it does not name: those of its container, or any where it has
    /// no file that could name one.
    fn takes(&self, input: &str) -> bool {
        let Runs::Docker(_) = &self.action.runs else { return false };
        self.directory.is_empty() || docker::INPUTS.iter().any(|i| i.eq_ignore_ascii_case(input))
    }

    /// What expressions and variables say of an action while it runs where the paths are these.
    fn github(&self, paths: &PathMap) -> Vec<(String, String)> {
        let (repository, version) = self.origin.clone().unwrap_or_default();
        [
            ("action_path", paths.enter(&self.directory)),
            ("action_repository", repository),
            ("action_ref", version),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

impl Job<'_> {
    /// Runs the action of a step.
    pub(super) async fn run_action(
        &mut self,
        performing: &mut Performing<'_>,
        reference: &str,
        with: Vec<(String, String)>,
    ) -> Result<Performed, Fault> {
        let limits = performing.limits.clone();
        let found = tokio::select! {
            found = self.find(reference) => found?,
            stop = limits.reached() => {
                let (outcome, said) = (Conclusion::Failure, Said::default());
                return Ok(Performed { outcome, said, stop: Some(stop), disk_full: None });
            }
        };
        let inputs = self.inputs(&found, &with, performing).await?;
        self.warn_of_inputs(&found, &with, &inputs).await;
        match &found.action.runs {
            Runs::Composite(steps) => self.run_composite(performing, &found, steps, inputs).await,
            Runs::Node(_) => deep(|| self.run_node(performing, &found, inputs)).await,
            Runs::Docker(docker) => {
                deep(|| self.run_docker(performing, &found, docker, inputs)).await
            }
            Runs::Other(using) => Err(format!(
                "the action {reference} runs \"using: {using}\", which this runner does not know; \
                 it knows composite and node12 to node24"
            )
            .into()),
        }
    }

    /// Finds the files of an action, fetching them where needed, and reads what it is.
    async fn find(&mut self, text: &str) -> Result<Found, Fault> {
        if self.depth > DEPTH {
            return Err(too_deep(text));
        }
        let (directory, origin) = match Reference::parse(text)? {
            Reference::Local(path) => {
                let Some(path) = inside(path) else {
                    return Err(format!("the action {text} lies outside the workspace").into());
                };
                (self.directories.in_workspace(&path), None)
            }
            Reference::Container(image) => return Ok(Found::image(text, image)),
            Reference::Remote(remote) => {
                let root = self.fetch(&remote.whole, &remote.directory()).await?;
                let directory = match remote.path.as_str() {
                    "" => root,
                    path => format!("{root}/{path}"),
                };
                (directory, Some((remote.repository.clone(), remote.version.clone())))
            }
        };
        let action = self.read_action(text, &directory).await?;
        Ok(Found { reference: text.to_owned(), directory, origin, action })
    }

    /// The directory with the repository of an action.
    async fn fetch(&mut self, whole: &str, directory: &str) -> Result<String, Fault> {
        if let Some(known) = self.fetched.directories.get(whole) {
            return Ok(known.clone());
        }
        let mut place = format!("{}/{directory}", self.directories.actions);
        // Characters that no path should have are replaced; two references may become one so.
        while self.fetched.directories.values().any(|taken| *taken == place) {
            place.push('_');
        }
        let fetched = self.host.fetch_action(whole, &place, self.facts.owner).await;
        let fetched = fetched.map_err(|error| error.of_fetch())?;
        let text = format!("Download action '{whole}' (SHA:{})", fetched.commit);
        self.events.say(self.system.now(), &text).await;
        self.fetched.directories.insert(whole.to_owned(), place.clone());
        Ok(place)
    }

    async fn read_action(&mut self, text: &str, directory: &str) -> Result<Action, Fault> {
        for name in FILES {
            let path = format!("{directory}/{name}");
            let bytes = match self.system.read(&path, FILE_BYTES).await {
                Ok(bytes) => bytes,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let Ok(bytes) = String::from_utf8(bytes) else {
                return Err(format!("the file {name} of the action {text} is not UTF-8").into());
            };
            return match workflow::action(&bytes, name, self.document.plan.dialect) {
                Ok(action) => Ok(action),
                Err(error) => {
                    self.events.say(self.system.now(), &error.to_string()).await;
                    Err(format!("the action {text} is wrong; see above").into())
                }
            };
        }
        let image = "Dockerfile";
        if self.system.kind(&format!("{directory}/{image}")).await?.is_some() {
            return Ok(docker::plain(DockerImage::Built(image.to_owned())));
        }
        let before = if text.starts_with("./") {
            "; check the repository out in an earlier step, or correct the path"
        } else {
            "; look whether the repository and its version are an action"
        };
        Err(format!("the action {text} has neither action.yml nor action.yaml{before}").into())
    }

    /// The inputs of an action: what the step gives, and its defaults.
    async fn inputs(
        &mut self,
        found: &Found,
        with: &[(String, String)],
        performing: &mut Performing<'_>,
    ) -> Result<Vec<(String, String)>, Fault> {
        let declared = &found.action.inputs;
        let mut inputs: Vec<(String, String)> = Vec::new();
        for input in declared {
            let given = with.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(&input.name));
            let value = match (given, &input.default) {
                (Some((_, value)), _) => value.clone(),
                (None, Some(default)) => {
                    let value = performing.scope.text(default, self.system).await;
                    value.map_err(|error| format!("the default of {}: {error}", input.name))?
                }
                (None, None) => String::new(),
            };
            inputs.push((input.name.clone(), value));
        }
        let is_known = |given: &str| declared.iter().any(|i| i.name.eq_ignore_ascii_case(given));
        inputs.extend(with.iter().filter(|(given, _)| !is_known(given)).cloned());
        Ok(inputs)
    }

    /// Warns of what is missing, deprecated or unknown in what a step gives to an action whose inputs
    /// are these.
    async fn warn_of_inputs(
        &mut self,
        found: &Found,
        with: &[(String, String)],
        inputs: &[(String, String)],
    ) {
        let declared = &found.action.inputs;
        // The declared ones come first, in their order.
        for (input, (name, value)) in declared.iter().zip(inputs) {
            if input.required && value.is_empty() {
                let text = format!("Input required and not supplied: {name}");
                self.events.warning(self.system.now(), &text).await;
            }
            let is_given = with.iter().any(|(given, _)| name.eq_ignore_ascii_case(given));
            if let (true, Some(text)) = (is_given, &input.deprecation) {
                let text = format!("Input '{name}' has been deprecated with message: {text}");
                self.events.warning(self.system.now(), &text).await;
            }
        }
        let valid: Vec<&str> = declared.iter().map(|input| input.name.as_str()).collect();
        let mut unknown = unknown(with, &valid);
        unknown.retain(|given| !found.takes(given));
        self.warn_of_unknown(&unknown, &valid).await;
    }

    /// Warns of the inputs that an action does not have.
    pub(super) async fn warn_of_unknown(&mut self, unknown: &[&str], valid: &[&str]) {
        if unknown.is_empty() {
            return;
        }
        let list = |names: &[&str]| {
            names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
        };
        let text =
            format!("Unexpected input(s) {}, valid inputs are [{}]", list(unknown), list(valid));
        self.events.warning(self.system.now(), &text).await;
    }
}

/// The inputs of a step that are not among these, which have no case.
pub(super) fn unknown<'a>(with: &'a [(String, String)], valid: &[&str]) -> Vec<&'a str> {
    let is_known = |given: &str| valid.iter().any(|name| name.eq_ignore_ascii_case(given));
    with.iter().map(|(given, _)| given.as_str()).filter(|given| !is_known(given)).collect()
}

/// Whether this program does what an action does.
fn is_native(reference: &str) -> bool {
    workflow::native(reference).is_some() || workflow::enters_kdl(reference)
}

fn too_deep(reference: &str) -> Fault {
    format!(
        "the action {reference} is used by more than {DEPTH} actions one inside the other; does \
         one of them use itself?"
    )
    .into()
}
