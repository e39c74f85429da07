//! How programs in containers reach the job's services, which the machine has at its loopback address:
//! by the gateway of their network, where the machine listens for them too.

use std::collections::VecDeque;

use serde_json::Value as Json;

use crate::engine::job::Job;
use crate::engine::supervise::Limits;
use crate::host::ContainerNetwork;

use super::drive::{Order, Trouble};
use super::paths::below;
use super::tool::Tool;

/// Where programs find the job's services.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct ServicePlaces<'a> {
    /// On the machine, if there are any.
    machine: Option<&'a str>,
    /// In containers, if they can there.
    container: Option<&'a str>,
}

impl ServicePlaces<'_> {
    /// The value of a variable in a container; absent where it leads nowhere from there.
    pub(super) fn enter(&self, value: String) -> Option<String> {
        match self.machine.and_then(|machine| below(&value, machine)) {
            Some(rest) => Some(format!("{}{rest}", self.container?)),
            None => Some(value),
        }
    }
}

impl Job<'_> {
    /// Where programs find the job's services.
    pub(in crate::engine) fn service_places(&self) -> ServicePlaces<'_> {
        ServicePlaces { machine: self.host.address(), container: self.containers.services_at() }
    }

    /// Lets the container of an action reach the job's services: in the network of the job's containers,
    /// or in the one that the engine has for those that name none.
    pub(in crate::engine) async fn open_services_to_action(
        &mut self,
        tool: &Tool,
        limits: &Limits,
    ) -> Result<(), Trouble> {
        let network = self.containers.network().unwrap_or(tool.engine.default_network());
        let network = network.to_owned();
        self.open_services(tool, &network, limits).await
    }

    /// Lets the containers of a network reach the job's services. Where that cannot be, they run without.
    pub(super) async fn open_services(
        &mut self,
        tool: &Tool,
        network: &str,
        limits: &Limits,
    ) -> Result<(), Trouble> {
        if self.host.address().is_none() || self.containers.is_services_at_known() {
            return Ok(());
        }
        let words = ["network", "inspect", network];
        let done = self.try_order(tool, Order::silent(words), limits).await?;
        let known = if done.is_well() { read_network(&done.answer) } else { None };
        let address = match known {
            Some(known) => self.host.open_to(known).await,
            None => None,
        };
        if address.is_none() && self.debug {
            let text = format!(
                "##[debug]Programs in containers do not reach the services of this job: the gateway of \
                 the network {network} is not known, or nothing can listen there."
            );
            self.events.say(self.system.now(), &text).await;
        }
        self.containers.set_services_at(address);
        Ok(())
    }
}

/// The first network of IPv4 in what an engine says of one: docker writes `Subnet` and `Gateway`, podman
/// `subnet` and `gateway`, side by side and each engine elsewhere in its answer.
fn read_network(answer: &str) -> Option<ContainerNetwork> {
    let answer: Json = serde_json::from_str(answer).ok()?;
    let mut open = VecDeque::from([&answer]);
    while let Some(value) = open.pop_front() {
        match value {
            Json::Object(members) => {
                let text = |name: &str| {
                    let mut found = members.iter();
                    let found = found.find(|(known, _)| known.eq_ignore_ascii_case(name));
                    found.and_then(|(_, value)| value.as_str())
                };
                if let (Some(gateway), Some(subnet)) = (text("gateway"), text("subnet"))
                    && let Some(network) = ContainerNetwork::read(gateway, subnet)
                {
                    return Some(network);
                }
                open.extend(members.values());
            }
            Json::Array(items) => open.extend(items),
            Json::String(_) | Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_says_where_the_gateway_is() {
        for (answer, gateway, subnet) in [
            // docker
            (
                r#"[{"Name": "x", "EnableIPv6": true, "IPAM": {"Driver": "default", "Options": {},
                "Config": [{"Subnet": "fd00::/64", "Gateway": "fd00::1"},
                {"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]}, "Containers": {}}]"#,
                "172.18.0.1",
                "172.18.0.0/16",
            ),
            // podman with netavark
            (
                r#"[{"name": "x", "driver": "bridge", "network_interface": "podman1",
                "subnets": [{"subnet": "10.89.0.0/24", "gateway": "10.89.0.1"}]}]"#,
                "10.89.0.1",
                "10.89.0.0/24",
            ),
            // podman with CNI
            (
                r#"[{"cniVersion": "0.4.0", "name": "x", "plugins": [{"type": "bridge", "isGateway": true,
                "ipam": {"ranges": [[{"gateway": "10.88.0.1", "subnet": "10.88.0.0/16"}]]}}]}]"#,
                "10.88.0.1",
                "10.88.0.0/16",
            ),
        ] {
            let expected = ContainerNetwork::read(gateway, subnet).unwrap();
            assert_eq!(read_network(answer), Some(expected), "{answer}");
        }
    }

    #[test]
    fn a_gateway_that_nobody_says_is_not_known() {
        for answer in [
            "",
            "no such network",
            "[]",
            r#"[{"IPAM": {"Config": [{"Subnet": "172.18.0.0/16"}]}}]"#,
            r#"[{"IPAM": {"Config": [{"Subnet": "172.18.0.0/16", "Gateway": 1}]}}]"#,
            r#"[{"IPAM": {"Config": [{"Subnet": "172.18.0.0/16", "Gateway": "10.0.0.1"}]}}]"#,
        ] {
            assert_eq!(read_network(answer), None, "{answer}");
        }
    }

    #[test]
    fn addresses_of_the_services_become_those_of_containers() {
        let here = "http://127.0.0.1:40";
        let places = ServicePlaces { machine: Some(here), container: Some("http://172.18.0.1:41") };
        let nowhere = ServicePlaces { container: None, ..places };
        for (value, expected) in [
            (here, "http://172.18.0.1:41"),
            ("http://127.0.0.1:40/", "http://172.18.0.1:41/"),
            ("http://127.0.0.1:40/a?b=c", "http://172.18.0.1:41/a?b=c"),
        ] {
            assert_eq!(places.enter(value.to_owned()).as_deref(), Some(expected));
            assert_eq!(nowhere.enter(value.to_owned()), None);
        }
        for other in ["", "x", "http://127.0.0.1:4011/", "see http://127.0.0.1:40/"] {
            for places in [places, nowhere, ServicePlaces::default()] {
                assert_eq!(places.enter(other.to_owned()).as_deref(), Some(other));
            }
        }
    }
}
