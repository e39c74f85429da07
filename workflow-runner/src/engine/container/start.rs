//! Starting the containers of a job, in the log of its first step.

use common::plan;

use crate::engine::contexts::JobScope;
use crate::engine::deep::deep;
use crate::engine::fault::Fault;
use crate::engine::job::Job;
use crate::engine::supervise::Limits;
use crate::engine::workspace::Directories;
use crate::expression::Value;
use crate::system::{Facts, Kind, System};

use super::arguments::Arguments;
use super::drive::{Order, Trouble, Voice};
use super::paths::PathMap;
use super::spec::Spec;
use super::state::{Containers, JobContainer, Running, Service, Wanted};
use super::tool::{Tool, no_engine};

/// The home directory of what runs in containers.
pub(in crate::engine) const CONTAINER_HOME: &str = "/github/home";

/// Where a daemon listens, for what runs in containers and drives it too.
const SOCKET: &str = "/var/run/docker.sock";

/// The directory of the job's container in which the machine's work directory is.
const WORK: &str = "/__w";

/// The same for the tool cache.
const TOOLS: &str = "/__t";

impl Containers {
    /// Evaluates what a job asks for; refuses it where the machine has no engine.
    pub(in crate::engine) async fn of_plan(
        asked: &plan::Containers,
        scope: &mut JobScope,
        (search_path, directories): (&str, &Directories),
        system: &dyn System,
    ) -> Result<Self, Fault> {
        let mut wanted = Wanted { job: None, services: Vec::new() };
        scope.set("job", Value::object([("status".to_owned(), Value::text("success"))]));
        if let Some(value) = &asked.job {
            let value = scope.evaluate(value, system).await;
            let value = value.map_err(|error| format!("container: {error}"))?;
            wanted.job = Spec::read(&value, "container")?;
        }
        for (name, value) in &asked.services {
            let what = format!("the service {name}");
            let value = scope.evaluate(value, system).await;
            let value = value.map_err(|error| format!("{what}: {error}"))?;
            wanted.services.extend(Spec::read(&value, &what)?.map(|spec| (name.clone(), spec)));
        }
        let containers = Self::wanted(wanted, job_paths(directories));
        if containers.are_waiting() && !Tool::is_there(search_path, system).await {
            return Err(no_engine("the job asks for containers").into());
        }
        Ok(containers)
    }
}

/// Where the job's container has the directories of the machine (github-runner-protocol 8.7).
fn job_paths(directories: &Directories) -> PathMap {
    PathMap::new([
        (directories.work.as_str(), WORK),
        (&directories.tool_cache, TOOLS),
        (&directories.home, CONTAINER_HOME),
        (directories.workflow(), "/github/workflow"),
    ])
}

impl Job<'_> {
    /// The engine: the first on the search path that works.
    pub(in crate::engine) async fn container_tool(
        &mut self,
        who: &str,
        search_path: &str,
        limits: &Limits,
    ) -> Result<std::sync::Arc<Tool>, Trouble> {
        if let Some(tool) = self.containers.tool() {
            return Ok(tool);
        }
        let own: Facts = self.system.facts(None).await?;
        let mut problems = Vec::new();
        for tool in Tool::all(search_path, &own, self.system).await {
            let done = self.try_order(&tool, Order::silent(["version"]), limits).await?;
            if done.is_well() {
                return Ok(self.containers.set_tool(tool));
            }
            problems.push(format!("{} says: {}", tool.engine.program(), done.last_line()));
        }
        if problems.is_empty() {
            return Err(no_engine(who).into());
        }
        let problems = problems.join("; ");
        Err(format!("{who}, and the container engine of this machine does not work: {problems}")
            .into())
    }

    /// Starts all containers of the job. Whatever keeps one from running keeps every step from it.
    pub(in crate::engine) async fn start_containers(&mut self) -> Result<(), Trouble> {
        let Some(wanted) = self.containers.waiting() else { return Ok(()) };
        self.events.say(self.system.now(), "##[group]Initialize containers").await;
        let limits = self.limits(None, false);
        let (this, all) = (&mut *self, &limits);
        let started = deep(|| this.start_all(&wanted, all)).await;
        self.events.say(self.system.now(), "##[endgroup]").await;
        match started {
            Ok(running) => {
                self.containers.run(running);
                Ok(())
            }
            Err(trouble) => {
                self.containers.give_up();
                Err(trouble)
            }
        }
    }

    async fn start_all(&mut self, wanted: &Wanted, limits: &Limits) -> Result<Running, Trouble> {
        let search_path = self.env.get("PATH").unwrap_or(&self.facts.search_path).to_owned();
        let tool = self.container_tool("the job asks for containers", &search_path, limits).await?;
        let network = self.create_network(&tool, limits).await?;
        self.open_services(&tool, &network, limits).await?;
        let mut services = Vec::new();
        for (name, spec) in &wanted.services {
            let started = self.start_service(&tool, name, spec, &network, limits).await;
            services.push(started?);
        }
        let job = match &wanted.job {
            Some(spec) => Some(self.start_job_container(&tool, spec, &network, limits).await?),
            None => None,
        };
        for service in &services {
            self.wait_until_healthy(&tool, service, limits).await?;
        }
        Ok(Running { network, job, services })
    }

    async fn start_service(
        &mut self,
        tool: &Tool,
        name: &str,
        spec: &Spec,
        network: &str,
        limits: &Limits,
    ) -> Result<Service, Trouble> {
        let mut arguments = self.create_arguments(name, spec, network);
        arguments.words(["--network-alias", name]);
        for (name, value) in &spec.env {
            arguments.variable(name, value);
        }
        let id = self.create_and_start(tool, spec, arguments, &[], limits).await?;
        let mut ports = Vec::new();
        if !spec.ports.is_empty() || !spec.options.is_empty() {
            let answer = self.order(tool, Order::silent(["port", &id]), limits).await?;
            ports = read_ports(&answer);
        }
        Ok(Service { name: name.to_owned(), id, ports })
    }

    async fn start_job_container(
        &mut self,
        tool: &Tool,
        spec: &Spec,
        network: &str,
        limits: &Limits,
    ) -> Result<JobContainer, Trouble> {
        self.system.create_directory(&self.directories.home, self.facts.owner).await?;
        let paths = self.containers.paths().clone();
        let workspace = paths.enter(&self.directories.workspace);
        let mut arguments = self.create_arguments("job", spec, network);
        arguments.words(["--workdir", &workspace, "--entrypoint", "tail"]);
        for (name, value) in [("HOME", CONTAINER_HOME), ("GITHUB_ACTIONS", "true"), ("CI", "true")]
        {
            if !spec.env.iter().any(|(known, _)| known == name) {
                arguments.variable(name, value);
            }
        }
        for (name, value) in &spec.env {
            arguments.variable(name, &paths.enter(value));
        }
        self.mount(&mut arguments, &paths).await?;
        let id = self.create_and_start(tool, spec, arguments, &["-f", "/dev/null"], limits).await?;
        let format = "{{range .Config.Env}}{{println .}}{{end}}";
        let words = ["inspect", "--format", format, &id];
        let env = self.order(tool, Order::silent(words), limits).await?;
        let search_path = env.lines().find_map(|line| line.strip_prefix("PATH="));
        let search_path = search_path.unwrap_or_default().to_owned();
        let mut has_bash = false;
        if self.rules.containers_prefer_bash {
            let look = Order::silent(["exec", &id, "sh", "-c", "command -v bash"]);
            has_bash = self.try_order(tool, look, limits).await?.is_well();
        }
        Ok(JobContainer { id, search_path, has_bash })
    }

    /// Places the directories of the machine, and the socket of its daemon, in a container.
    pub(in crate::engine) async fn mount(
        &self,
        arguments: &mut Arguments,
        paths: &PathMap,
    ) -> Result<(), Fault> {
        let mut there = Vec::new();
        for pair in paths.iter() {
            // A tool cache that could not be made is none.
            if self.system.kind(pair.0).await? == Some(Kind::Directory) {
                there.push(pair);
            }
        }
        arguments.mounts(&PathMap::new(there));
        if self.system.kind(SOCKET).await? == Some(Kind::Other) {
            arguments.mounts(&PathMap::new([(SOCKET, SOCKET)]));
        }
        Ok(())
    }

    /// What every container of the job is created with.
    fn create_arguments(&self, end: &str, spec: &Spec, network: &str) -> Arguments {
        let mut arguments = Arguments::default();
        let (name, label) = (self.container_name(end), self.container_label());
        arguments.words(["create", "--name", &name, "--label", &label, "--network", network]);
        for port in &spec.ports {
            arguments.words(["--publish", port]);
        }
        for volume in &spec.volumes {
            arguments.words(["--volume", volume]);
        }
        arguments.words(spec.options.iter().map(String::as_str));
        arguments
    }

    /// Fetches the image, makes a container of it and starts it; gives its id.
    async fn create_and_start(
        &mut self,
        tool: &Tool,
        spec: &Spec,
        mut arguments: Arguments,
        command: &[&str],
        limits: &Limits,
    ) -> Result<String, Trouble> {
        let credentials = spec.credentials.as_ref();
        let image = self.fetch_image_as(tool, &spec.image, credentials, limits).await?;
        arguments.words([image.as_str()]);
        arguments.words(command.iter().copied());
        let (arguments, environment) = arguments.take();
        let order = Order { arguments, environment, voice: Voice::Command, ..Order::silent([]) };
        let answer = self.order(tool, order, limits).await?;
        let id = answer.lines().last().unwrap_or_default().trim().to_owned();
        if id.is_empty() {
            return Err(format!("the engine did not say what it made of {}", spec.image).into());
        }
        let order = Order { voice: Voice::Command, ..Order::silent(["start", &id]) };
        self.order(tool, order, limits).await?;
        Ok(id)
    }
}

/// What `port` says: a port of the container, an arrow, and an address of the machine with a port.
fn read_ports(answer: &str) -> Vec<(String, String)> {
    let mut ports: Vec<(String, String)> = Vec::new();
    for line in answer.lines() {
        let Some((inner, outer)) = line.split_once(" -> ") else { continue };
        let Some((_, outer)) = outer.rsplit_once(':') else { continue };
        let inner = inner.split('/').next().unwrap_or(inner).trim();
        if !ports.iter().any(|(known, _)| known == inner) {
            ports.push((inner.to_owned(), outer.trim().to_owned()));
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_those_of_the_first_address() {
        let answer =
            "5432/tcp -> 0.0.0.0:49153\n5432/tcp -> [::]:49153\n53/udp -> 127.0.0.1:53\nodd\n";
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(read_ports(answer), [pair("5432", "49153"), pair("53", "53")]);
    }
}
