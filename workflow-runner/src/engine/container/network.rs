//! The network of a job's containers, and the end of everything that was made for the job.

use std::time::Duration;

use crate::engine::job::Job;
use crate::engine::supervise::Limits;

use super::drive::{Order, Trouble, Voice};
use super::tool::Tool;

/// How long removing the containers of a job may take; the machine ends soon after.
const CLEAN_UP: Duration = Duration::from_secs(90);

/// The label of everything that is made for a job, with the job's id behind `=`.
const LABEL: &str = "solstice.job";

impl Job<'_> {
    /// The label of what is made for this job.
    pub(in crate::engine) fn container_label(&self) -> String {
        format!("{LABEL}={}", self.document.job)
    }

    /// The name of what is made for this job; that of its network has no end.
    pub(in crate::engine) fn container_name(&self, end: &str) -> String {
        let job = self.document.job.short();
        if end.is_empty() { format!("solstice_{job}") } else { format!("solstice_{job}_{end}") }
    }

    /// Makes the network.
    pub(super) async fn create_network(
        &mut self,
        tool: &Tool,
        limits: &Limits,
    ) -> Result<String, Trouble> {
        let (name, label) = (self.container_name(""), self.container_label());
        let words = ["network", "create", "--label", &label, &name];
        let order = Order { voice: Voice::Command, ..Order::silent(words) };
        self.order(tool, order, limits).await?;
        Ok(name)
    }

    /// Removes every container of this job, and its network. What goes wrong is a warning: all of it
    /// goes with the machine.
    pub(in crate::engine) async fn stop_containers(&mut self) {
        let Some(tool) = self.containers.tool() else { return };
        let limits = Limits::within(CLEAN_UP);
        let removed = self.remove_all(&tool, &limits).await;
        let problem = match removed {
            Ok(()) => return,
            Err(Trouble::Stopped(_)) => format!("it took more than {} s", CLEAN_UP.as_secs()),
            Err(Trouble::Fault(fault)) => fault.sentence(),
        };
        let text = format!("The containers of this job could not be removed: {problem}");
        self.events.warning(self.system.now(), &text).await;
    }

    /// Ends and removes one container, if it is there.
    pub(in crate::engine) async fn remove_container(
        &mut self,
        tool: &Tool,
        name: &str,
        limits: &Limits,
    ) -> Result<(), Trouble> {
        let words = tool.engine.remove().iter().copied().chain([name]);
        self.try_order(tool, Order::silent(words), limits).await.map(drop)
    }

    async fn remove_all(&mut self, tool: &Tool, limits: &Limits) -> Result<(), Trouble> {
        let filter = format!("label={}", self.container_label());
        let list = Order::silent(["ps", "--all", "--quiet", "--filter", &filter]);
        let found = self.order(tool, list, limits).await?;
        let found: Vec<&str> = found.split_whitespace().collect();
        if !found.is_empty() {
            let words = tool.engine.remove().iter().copied().chain(["--volumes"]).chain(found);
            self.order(tool, Order::silent(words), limits).await?;
        }
        if self.containers.are_asked_for() {
            let list = Order::silent(["network", "ls", "--quiet", "--filter", &filter]);
            let found = self.order(tool, list, limits).await?;
            for network in found.split_whitespace() {
                self.order(tool, Order::silent(["network", "rm", network]), limits).await?;
            }
        }
        Ok(())
    }
}
