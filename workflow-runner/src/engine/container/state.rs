//! What is known of the containers of a job, from their being asked for to their end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::paths::PathMap;
use super::spec::Spec;
use super::tool::Tool;

/// The containers of a job. Jobs inside its steps share them.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct Containers {
    phase: Phase,
    /// Where the job's container has the directories of the machine.
    paths: PathMap,
    shared: Arc<Shared>,
}

/// What is found out while the job runs, wherever in it.
#[derive(Debug, Default)]
struct Shared {
    /// The engine, once it was found to work.
    tool: OnceLock<Arc<Tool>>,
    /// The images of actions that are here, by what they were made of.
    images: Mutex<HashMap<String, String>>,
    /// How many containers of actions there were.
    actions: Mutex<usize>,
    /// Where programs in containers find the job's services, once the engine was asked; absent inside
    /// where they cannot.
    services_at: OnceLock<Option<String>>,
}

/// How far the containers are.
#[derive(Clone, Debug, Default)]
enum Phase {
    /// The job asks for none.
    #[default]
    None,
    /// They start with the first step.
    Wanted(Arc<Wanted>),
    /// They run.
    Running(Arc<Running>),
    /// They could not be started: no step can run.
    Missing,
}

/// What a job asks for, evaluated; at least one container.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) job: Option<Spec>,
    /// With the names by which the job reaches them.
    pub(super) services: Vec<(String, Spec)>,
}

/// Containers that run.
#[derive(Debug)]
pub(super) struct Running {
    /// The network that they share.
    pub(super) network: String,
    pub(super) job: Option<JobContainer>,
    pub(super) services: Vec<Service>,
}

/// The container in which the steps of a job run.
#[derive(Debug)]
pub(in crate::engine) struct JobContainer {
    /// What the engine calls it.
    pub(in crate::engine) id: String,
    /// The `PATH` of its image.
    pub(in crate::engine) search_path: String,
    /// Whether bash is the default shell.
    pub(in crate::engine) has_bash: bool,
}

/// A service that runs.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) id: String,
    /// Ports of the container and where the machine has them.
    pub(super) ports: Vec<(String, String)>,
}

impl Containers {
    /// The containers that a job asks for; `paths` are those of its own, if it has one.
    pub(super) fn wanted(wanted: Wanted, paths: PathMap) -> Self {
        let paths = if wanted.job.is_some() { paths } else { PathMap::default() };
        let is_none = wanted.job.is_none() && wanted.services.is_empty();
        let phase = if is_none { Phase::None } else { Phase::Wanted(Arc::new(wanted)) };
        Self { phase, paths, shared: Arc::default() }
    }

    /// What is to be started before anything runs, if it has not been.
    pub(super) fn waiting(&self) -> Option<Arc<Wanted>> {
        match &self.phase {
            Phase::Wanted(wanted) => Some(Arc::clone(wanted)),
            _ => None,
        }
    }

    /// Whether they have yet to be started.
    pub(in crate::engine) fn are_waiting(&self) -> bool {
        matches!(self.phase, Phase::Wanted(_))
    }

    /// Whether they could not be started.
    pub(in crate::engine) fn are_missing(&self) -> bool {
        matches!(self.phase, Phase::Missing)
    }

    /// Whether the job asks for any, whatever became of them.
    pub(super) fn are_asked_for(&self) -> bool {
        !matches!(self.phase, Phase::None)
    }

    /// They run.
    pub(super) fn run(&mut self, running: Running) {
        self.phase = Phase::Running(Arc::new(running));
    }

    /// They never will.
    pub(in crate::engine) fn give_up(&mut self) {
        self.phase = Phase::Missing;
    }

    /// Those that run.
    pub(super) fn running(&self) -> Option<&Running> {
        match &self.phase {
            Phase::Running(running) => Some(running),
            _ => None,
        }
    }

    /// The container in which the steps run, if they do.
    pub(in crate::engine) fn of_job(&self) -> Option<&JobContainer> {
        self.running()?.job.as_ref()
    }

    /// The network of the job's containers.
    pub(in crate::engine) fn network(&self) -> Option<&str> {
        self.running().map(|running| running.network.as_str())
    }

    /// Where the job's container has the directories of the machine.
    pub(in crate::engine) fn paths(&self) -> &PathMap {
        &self.paths
    }

    /// The engine, if it was needed before.
    pub(in crate::engine) fn tool(&self) -> Option<Arc<Tool>> {
        self.shared.tool.get().cloned()
    }

    /// Remembers the engine.
    pub(super) fn set_tool(&self, tool: Tool) -> Arc<Tool> {
        Arc::clone(self.shared.tool.get_or_init(|| Arc::new(tool)))
    }

    /// The image that was made of this before.
    pub(super) fn image(&self, source: &str) -> Option<String> {
        let images = self.shared.images.lock().unwrap_or_else(PoisonError::into_inner);
        images.get(source).cloned()
    }

    /// Remembers what an image was made of.
    pub(super) fn set_image(&self, source: &str, image: &str) {
        let mut images = self.shared.images.lock().unwrap_or_else(PoisonError::into_inner);
        images.insert(source.to_owned(), image.to_owned());
    }

    /// Where programs in containers find the job's services, if they can.
    pub(super) fn services_at(&self) -> Option<&str> {
        self.shared.services_at.get()?.as_deref()
    }

    /// Whether that was found out, whatever came of it.
    pub(super) fn is_services_at_known(&self) -> bool {
        self.shared.services_at.get().is_some()
    }

    /// Remembers it.
    pub(super) fn set_services_at(&self, address: Option<String>) {
        self.shared.services_at.get_or_init(|| address);
    }

    /// A number that no container of an action had.
    pub(in crate::engine) fn next_action(&self) -> usize {
        let mut actions = self.shared.actions.lock().unwrap_or_else(PoisonError::into_inner);
        *actions += 1;
        *actions
    }
}
