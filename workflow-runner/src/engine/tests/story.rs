//! Building a job, running it, and looking at what it reported.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::JobId;
use common::call::{
    CallErrorKind, ForwardWish, ID_SERVICE, TreeWish, artifact_service, cache_service,
};
use common::event::{Annotation, Conclusion, JobResult, Stream};
use common::guest::{
    ATTACH_VERSION, GuestEvent, GuestService, JobDocument, NativeCommits, RunnerFacts,
};
use common::plan::{Containers, Dialect, PLAN_VERSION, Plan, Step, StepAction, Value};
use common::request::{Contexts, Secret};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::host::{Answered, ContainerNetwork, Fetched, Host, HostError};
use crate::system::{Local, Owner, Pending, System};
use crate::template;

/// The longest that a test waits for a job.
const PATIENCE: Duration = Duration::from_secs(60);

/// Events that the channel holds: few, so that back-pressure is always at work.
const CAPACITY: usize = 4;

/// A job to build and play.
pub(super) struct JobBuilder {
    document: JobDocument,
    tree: Vec<(String, String)>,
    actions: Vec<(String, String, String)>,
    search_path: Option<String>,
    address: Option<String>,
}

/// The port at which the host's services are for containers.
pub(super) const CONTAINER_PORT: u16 = 4712;

/// A host that has these actions: the reference, and the path and the text of a file.
struct Actions {
    files: Vec<(String, String, String)>,
    /// Where programs find the job's services.
    address: Option<String>,
}

impl Host for Actions {
    fn ask<'a>(
        &'a self,
        wish: ForwardWish,
        _body: &'a [u8],
    ) -> Pending<'a, Result<Answered, HostError>> {
        let sentence = format!("the service {} is down", wish.service);
        let error = HostError::new(CallErrorKind::Unavailable, sentence);
        Box::pin(std::future::ready(Err(error)))
    }

    fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    fn open_to(&self, network: ContainerNetwork) -> Pending<'_, Option<String>> {
        let address = format!("http://{}:{CONTAINER_PORT}", network.gateway());
        Box::pin(std::future::ready(Some(address)))
    }

    fn fetch_action<'a>(
        &'a self,
        reference: &'a str,
        to: &'a str,
        _owner: Owner,
    ) -> Pending<'a, Result<Fetched, HostError>> {
        Box::pin(async move {
            let files = self.files.iter().filter(|(known, _, _)| known == reference);
            let mut commit = None;
            for (_, path, text) in files {
                let path = PathBuf::from(to).join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
                commit = Some("c0ffee".to_owned());
            }
            let absent = || {
                // What stands at this address may be there another time.
                let (kind, why) = match reference.starts_with("https://down.example/") {
                    true => (CallErrorKind::Unavailable, "nobody answers"),
                    false => (CallErrorKind::NotFound, "not found"),
                };
                HostError::new(kind, format!("cannot fetch the action {reference}: {why}"))
            };
            Ok(Fetched { commit: commit.ok_or_else(absent)? })
        })
    }

    fn fetch_tree<'a>(
        &'a self,
        wish: &'a TreeWish,
        to: &'a str,
        owner: Owner,
    ) -> Pending<'a, Result<Fetched, HostError>> {
        Box::pin(async move {
            let TreeWish { repository, reference, depth, .. } = wish;
            let commit = wish.commit.as_deref().unwrap_or("none");
            fs::create_dir_all(to).unwrap();
            let text = format!("{repository} {reference} {commit} {depth} {:?}\n", wish.token);
            fs::write(PathBuf::from(to).join("wish"), text).unwrap();
            std::os::unix::fs::chown(to, Some(owner.uid), Some(owner.gid)).unwrap();
            Ok(Fetched { commit: commit.to_owned() })
        })
    }
}

/// A step to build.
pub(super) struct StepBuilder(Step);

/// An empty job of GitHub's dialect.
pub(super) fn job() -> JobBuilder {
    let serde_json::Value::Object(github) = json!({
        "sha": "abc", "ref": "refs/heads/main", "ref_name": "main", "repository": "owner/repo",
        "event": { "number": 7 },
    }) else {
        unreachable!()
    };
    let plan = Plan {
        version: PLAN_VERSION,
        dialect: Dialect::Github,
        server_version: None,
        job: "build".to_owned(),
        name: "build".to_owned(),
        env: Vec::new(),
        defaults: Vec::new(),
        containers: Containers::default(),
        steps: Vec::new(),
        outputs: Value::empty_mapping(),
        timeout_minutes: None,
        file: None,
    };
    let document = JobDocument {
        version: ATTACH_VERSION,
        job: JobId::new(),
        plan,
        contexts: Contexts { github, ..Contexts::default() },
        secrets: BTreeMap::new(),
        runner: RunnerFacts {
            os: "Linux".to_owned(),
            arch: "X64".to_owned(),
            name: "test".to_owned(),
            tool_cache: String::new(),
        },
        work_directory: String::new(),
        run_as: None,
        label: None,
        checkout_first: false,
        tree: None,
        services: Vec::new(),
        native_commits: Default::default(),
    };
    JobBuilder { document, tree: Vec::new(), actions: Vec::new(), search_path: None, address: None }
}

/// A step that runs a script.
pub(super) fn run(script: &str) -> StepBuilder {
    StepBuilder(Step {
        index: 0,
        id: None,
        name: None,
        condition: None,
        env: Value::empty_mapping(),
        continue_on_error: None,
        timeout_minutes: None,
        action: StepAction::Run { script: value(script), shell: None, working_directory: None },
        location: None,
    })
}

fn value(text: &str) -> Value {
    // A text that does not parse stays a template, so that the engine meets it.
    template::text_value(text).unwrap_or_else(|_| Value::Template(text.to_owned()))
}

fn mapping(pairs: &[(&str, &str)]) -> Value {
    Value::Mapping(pairs.iter().map(|&(name, v)| (Value::literal(name), value(v))).collect())
}

impl StepBuilder {
    pub(super) fn id(mut self, id: &str) -> Self {
        self.0.id = Some(id.to_owned());
        self
    }

    pub(super) fn name(mut self, name: &str) -> Self {
        self.0.name = Some(value(name));
        self
    }

    pub(super) fn when(mut self, condition: &str) -> Self {
        self.0.condition = Some(condition.to_owned());
        self
    }

    pub(super) fn env(mut self, pairs: &[(&str, &str)]) -> Self {
        self.0.env = mapping(pairs);
        self
    }

    pub(super) fn continue_on_error(mut self, text: &str) -> Self {
        self.0.continue_on_error = Some(value(text));
        self
    }

    pub(super) fn timeout_minutes(mut self, text: &str) -> Self {
        self.0.timeout_minutes = Some(value(text));
        self
    }

    pub(super) fn unsupported(mut self, reason: &str) -> Self {
        self.0.action = StepAction::Unsupported { reason: reason.to_owned() };
        self
    }

    pub(super) fn shell(mut self, name: &str) -> Self {
        if let StepAction::Run { shell, .. } = &mut self.0.action {
            *shell = Some(value(name));
        }
        self
    }

    pub(super) fn directory(mut self, path: &str) -> Self {
        if let StepAction::Run { working_directory, .. } = &mut self.0.action {
            *working_directory = Some(value(path));
        }
        self
    }
}

impl JobBuilder {
    pub(super) fn dialect(mut self, dialect: Dialect) -> Self {
        self.document.plan.dialect = dialect;
        self
    }

    pub(super) fn env(mut self, name: &str, text: &str) -> Self {
        self.document.plan.env.push(mapping(&[(name, text)]));
        self
    }

    pub(super) fn native_commits(mut self, commits: NativeCommits) -> Self {
        self.document.native_commits = commits;
        self
    }

    pub(super) fn secret(mut self, name: &str, text: &str) -> Self {
        self.document.secrets.insert(name.to_owned(), Secret::new(text));
        self
    }

    pub(super) fn defaults(mut self, shell: &str, directory: &str) -> Self {
        let run = mapping(&[("shell", shell), ("working-directory", directory)]);
        self.document.plan.defaults.push(Value::Mapping(vec![(Value::literal("run"), run)]));
        self
    }

    pub(super) fn output(mut self, name: &str, text: &str) -> Self {
        if let Value::Mapping(pairs) = &mut self.document.plan.outputs {
            pairs.push((Value::literal(name), value(text)));
        }
        self
    }

    pub(super) fn timeout_minutes(mut self, text: &str) -> Self {
        self.document.plan.timeout_minutes = Some(value(text));
        self
    }

    /// What the job asks for.
    pub(super) fn containers(mut self, containers: Containers) -> Self {
        self.document.plan.containers = containers;
        self
    }

    /// Where the machine has its programs.
    pub(super) fn search_path(mut self, search_path: &str) -> Self {
        self.search_path = Some(search_path.to_owned());
        self
    }

    /// The services that a job may have, at this address of its machine.
    pub(super) fn services_at(mut self, address: &str) -> Self {
        let id = GuestService {
            name: ID_SERVICE.to_owned(),
            base_url: "https://forge.example".to_owned(),
            token: None,
            paths: vec!["/id".to_owned()],
        };
        let artifacts = artifact_service(Some(Secret::new("t0k3n")));
        self.document.services = vec![cache_service(), artifacts, id];
        self.address = Some(address.to_owned());
        self
    }

    pub(super) fn label(mut self, label: &str) -> Self {
        self.document.label = Some(label.to_owned());
        self
    }

    pub(super) fn checkout_first(mut self) -> Self {
        self.document.checkout_first = true;
        self
    }

    /// A file of an action that the host has.
    pub(super) fn action(mut self, reference: &str, path: &str, text: &str) -> Self {
        self.actions.push((reference.to_owned(), path.to_owned(), text.to_owned()));
        self
    }

    pub(super) fn run_as(mut self, user: &str) -> Self {
        self.document.run_as = Some(user.to_owned());
        self
    }

    pub(super) fn tree(mut self, files: &[(&str, &str)]) -> Self {
        self.tree = files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect();
        self
    }

    pub(super) fn step(mut self, step: StepBuilder) -> Self {
        let index = u32::try_from(self.document.plan.steps.len()).unwrap();
        self.document.plan.steps.push(Step { index, ..step.0 });
        self
    }

    pub(super) fn run(self, script: &str) -> Self {
        self.step(run(script))
    }

    pub(super) fn uses(self, reference: &str, with: &[(&str, &str)]) -> Self {
        let mut step = run("");
        step.0.action = StepAction::Uses { reference: reference.to_owned(), with: mapping(with) };
        self.step(step)
    }

    /// A step with an id that uses an action.
    pub(super) fn step_uses(self, id: &str, reference: &str, with: &[(&str, &str)]) -> Self {
        let mut job = self.uses(reference, with);
        if let Some(step) = job.document.plan.steps.last_mut() {
            step.id = Some(id.to_owned());
        }
        job
    }

    /// Gives the last step so far a variable.
    pub(super) fn step_env(mut self, name: &str, text: &str) -> Self {
        if let Some(step) = self.document.plan.steps.last_mut() {
            step.env = mapping(&[(name, text)]);
        }
        self
    }

    /// A step with a condition that uses an action.
    pub(super) fn step_uses_when(self, reference: &str, condition: &str) -> Self {
        let mut job = self.uses(reference, &[]);
        if let Some(step) = job.document.plan.steps.last_mut() {
            step.condition = Some(condition.to_owned());
        }
        job
    }

    /// The document as it stands.
    pub(super) fn into_document(self) -> JobDocument {
        self.document
    }

    /// Runs the job to its end.
    pub(super) async fn play(self) -> Story {
        self.play_with(|_, _| {}).await
    }

    /// Runs the job; `watch` sees each event and may cancel.
    pub(super) async fn play_with(
        self,
        watch: impl FnMut(&GuestEvent, &CancellationToken),
    ) -> Story {
        let system = match &self.search_path {
            Some(search_path) => Local::new().looking_in(search_path),
            None => Local::new(),
        };
        self.play_on(system, watch).await
    }

    /// Runs the job on this system.
    pub(super) async fn play_on(
        mut self,
        system: impl System + 'static,
        mut watch: impl FnMut(&GuestEvent, &CancellationToken),
    ) -> Story {
        // Another user must be able to reach what lies in it, wherever this repository is.
        let base = self.document.run_as.as_ref().map_or_else(std::env::temp_dir, |_| "/tmp".into());
        let directory = tempfile::tempdir_in(base).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        self.document.work_directory = directory.path().join("work").to_str().unwrap().to_owned();
        if !self.tree.is_empty() {
            let tree = directory.path().join("tree");
            for (path, text) in &self.tree {
                let path = tree.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            self.document.tree = Some(tree.to_str().unwrap().to_owned());
        }
        let (sender, mut receiver) = mpsc::channel(CAPACITY);
        let cancel = CancellationToken::new();
        let host = Arc::new(Actions { files: self.actions, address: self.address });
        let job = self.document.job;
        let engine =
            crate::engine::run(self.document, Arc::new(system), host, sender, cancel.clone());
        let collect = async {
            let mut events = Vec::new();
            while let Some(event) = receiver.recv().await {
                watch(&event, &cancel);
                events.push(event);
            }
            events
        };
        let both = async { tokio::join!(engine, collect) };
        let (result, events) = tokio::time::timeout(PATIENCE, both).await.expect("the job ends");
        assert_eq!(events.last(), Some(&GuestEvent::Finished(result)));
        Story { job, result, events, directory }
    }
}

/// What a job reported.
pub(super) struct Story {
    /// The job.
    pub(super) job: JobId,
    /// Its result.
    pub(super) result: JobResult,
    /// All events in order.
    pub(super) events: Vec<GuestEvent>,
    directory: TempDir,
}

impl Story {
    fn lines(&self, wanted: impl Fn(Stream) -> bool) -> String {
        let mut lines = Vec::new();
        for event in &self.events {
            if let GuestEvent::Log(batch) = event {
                let batch = batch.lines.iter().filter(|line| wanted(line.stream));
                lines.extend(batch.map(|line| line.text.to_text().into_owned()));
            }
        }
        lines.join("\n")
    }

    /// The whole log.
    pub(super) fn log(&self) -> String {
        self.lines(|_| true)
    }

    /// What the processes printed.
    pub(super) fn output(&self) -> String {
        self.lines(|stream| stream != Stream::Runner)
    }

    /// Outcome and conclusion of each step.
    pub(super) fn outcomes(&self) -> Vec<(Conclusion, Conclusion)> {
        self.finished(|step| (step.outcome, step.conclusion))
    }

    /// The name of each step.
    pub(super) fn names(&self) -> Vec<String> {
        self.finished(|step| step.name.trim().to_owned())
    }

    fn finished<T>(&self, get: impl Fn(&common::event::StepFinished) -> T) -> Vec<T> {
        let steps = self.events.iter().filter_map(|event| match event {
            GuestEvent::StepFinished(step) => Some(get(step)),
            _ => None,
        });
        steps.collect()
    }

    /// The steps that started.
    pub(super) fn started(&self) -> Vec<u32> {
        let steps = self.events.iter().filter_map(|event| match event {
            GuestEvent::StepStarted(step) => Some(step.step),
            _ => None,
        });
        steps.collect()
    }

    /// The job's outputs.
    pub(super) fn outputs(&self) -> Option<BTreeMap<String, String>> {
        self.events.iter().find_map(|event| match event {
            GuestEvent::Outputs(outputs) => Some(outputs.clone()),
            _ => None,
        })
    }

    /// The values to mask.
    pub(super) fn masks(&self) -> Vec<String> {
        let masks = self.events.iter().filter_map(|event| match event {
            GuestEvent::Mask(secret) => Some(secret.expose().to_owned()),
            _ => None,
        });
        masks.collect()
    }

    /// The annotations.
    pub(super) fn annotations(&self) -> Vec<Annotation> {
        let annotations = self.events.iter().filter_map(|event| match event {
            GuestEvent::Annotation(annotation) => Some(annotation.clone()),
            _ => None,
        });
        annotations.collect()
    }

    /// The summaries.
    pub(super) fn summaries(&self) -> Vec<String> {
        let summaries = self.events.iter().filter_map(|event| match event {
            GuestEvent::Summary(summary) => Some(summary.markdown.clone()),
            _ => None,
        });
        summaries.collect()
    }

    /// A path in the job's directory.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// The path of a program as a step finds it; empty where there is none.
    pub(super) fn program(&self, name: &str) -> String {
        let search = std::env::var("PATH").unwrap();
        let mut found = search.split(':').map(|directory| format!("{directory}/{name}"));
        found.find(|path| fs::metadata(path).is_ok()).unwrap_or_default()
    }
}
