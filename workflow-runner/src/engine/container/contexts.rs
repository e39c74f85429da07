//! What expressions see of a job's containers: `job.container` and `job.services`.

use crate::expression::Value;

use super::state::{Containers, Service};

impl Containers {
    /// The members of the `job` context that are about containers (github-runner-protocol 5.4).
    pub(in crate::engine) fn members(&self) -> Vec<(String, Value)> {
        let Some(running) = self.running() else { return Vec::new() };
        let text = |name: &str, value: &str| (name.to_owned(), Value::text(value));
        let network = || text("network", &running.network);
        let mut members = Vec::new();
        if let Some(job) = &running.job {
            members.push(("container".to_owned(), Value::object([text("id", &job.id), network()])));
        }
        let services = running.services.iter().map(|Service { name, id, ports }| {
            let ports = Value::object(ports.iter().map(|(inner, outer)| text(inner, outer)));
            (name.clone(), Value::object([text("id", id), network(), ("ports".to_owned(), ports)]))
        });
        members.push(("services".to_owned(), Value::object(services)));
        members
    }
}
