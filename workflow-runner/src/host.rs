//! The small interface through which the engine asks the orchestrator for what no machine of a job can
//! get by itself: a guest may have no route to the forge, no certificates and no git.

use std::fmt;
use std::net::Ipv4Addr;

use common::call::{CallErrorKind, ForwardWish, TreeWish};
use tokio::io::AsyncRead;

use crate::system::{Owner, Pending};

/// The orchestrator, as the engine sees it.
pub trait Host: Send + Sync {
    /// Places the files of an action in the directory `to`, which is made.
    ///
    /// `reference` is what stands in `uses`, without the path inside the repository.
    fn fetch_action<'a>(
        &'a self,
        reference: &'a str,
        to: &'a str,
        owner: Owner,
    ) -> Pending<'a, Result<Fetched, HostError>>;

    /// Places a commit of a repository of the job's forge, with `.git`, in the directory `to`, which is
    /// made.
    fn fetch_tree<'a>(
        &'a self,
        wish: &'a TreeWish,
        to: &'a str,
        owner: Owner,
    ) -> Pending<'a, Result<Fetched, HostError>>;

    /// Asks a service of the job, once more where the connection is lost before it answers.
    fn ask<'a>(
        &'a self,
        wish: ForwardWish,
        body: &'a [u8],
    ) -> Pending<'a, Result<Answered, HostError>>;

    /// Where programs of this machine find the job's services, as `http://HOST:PORT`.
    fn address(&self) -> Option<&str> {
        None
    }

    /// Lets the containers of a network ask the job's services as well, until the job ends. Gives where
    /// their programs find them, as `http://HOST:PORT`; absent where they cannot.
    fn open_to(&self, _network: ContainerNetwork) -> Pending<'_, Option<String>> {
        Box::pin(std::future::ready(None))
    }
}

/// A network of containers inside this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerNetwork {
    gateway: Ipv4Addr,
    /// The bits that all addresses of the network have in common.
    mask: u32,
}

impl ContainerNetwork {
    /// Reads the two as container engines write them, such as `10.89.0.1` and `10.89.0.0/24`; absent
    /// where they are not those of one network of IPv4.
    #[must_use]
    pub fn read(gateway: &str, subnet: &str) -> Option<Self> {
        let (base, prefix) = subnet.split_once('/')?;
        let (base, prefix): (Ipv4Addr, u32) = (base.parse().ok()?, prefix.parse().ok()?);
        // What has no bit in common is no network.
        let mask = u32::MAX.checked_shl(u32::BITS.checked_sub(prefix)?)?;
        let network = Self { gateway: gateway.parse().ok()?, mask };
        network.has(base).then_some(network)
    }

    /// The machine's own address in it.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Whether an address belongs to it.
    #[must_use]
    pub fn has(&self, address: Ipv4Addr) -> bool {
        (u32::from(address) ^ u32::from(self.gateway)) & self.mask == 0
    }
}

/// What a service answers.
pub struct Answered {
    /// The status of HTTP.
    pub status: u16,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body, as it comes. An error when the connection is lost before its end.
    pub body: Box<dyn AsyncRead + Send + Unpin>,
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answered").field("status", &self.status).finish_non_exhaustive()
    }
}

/// What is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The commit that the reference stood for.
    pub commit: String,
}

/// What the host could not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct HostError {
    /// Of which kind the reason is; absent where the host did it and this machine could not make use
    /// of it.
    pub kind: Option<CallErrorKind>,
    /// A sentence that says what and why, and what to look at.
    pub message: String,
}

impl HostError {
    /// An error of this kind.
    pub fn new(kind: impl Into<Option<CallErrorKind>>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into() }
    }

    /// The sentence about something that could not be fetched, which also says whether it may come
    /// another time. The host has tried several times by then.
    pub(crate) fn of_fetch(&self) -> String {
        let message = &self.message;
        match self.kind {
            Some(CallErrorKind::Unavailable | CallErrorKind::Busy) => format!(
                "{message}; the forge could not be reached or the host could not fetch from it just \
                 now, and running the job again may help"
            ),
            Some(CallErrorKind::NotFound | CallErrorKind::Refused | CallErrorKind::Invalid)
            | None => message.clone(),
        }
    }
}

/// Nobody: for a job that runs without an orchestrator.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHost;

impl Host for NoHost {
    fn fetch_action<'a>(
        &'a self,
        reference: &'a str,
        _to: &'a str,
        _owner: Owner,
    ) -> Pending<'a, Result<Fetched, HostError>> {
        let sentence = format!("the action {reference} cannot be fetched: this job has no host");
        Box::pin(async move { Err(HostError::new(CallErrorKind::Refused, sentence)) })
    }

    fn fetch_tree<'a>(
        &'a self,
        wish: &'a TreeWish,
        _to: &'a str,
        _owner: Owner,
    ) -> Pending<'a, Result<Fetched, HostError>> {
        let name = &wish.repository;
        let sentence = format!("the repository {name} cannot be fetched: this job has no host");
        Box::pin(async move { Err(HostError::new(CallErrorKind::Refused, sentence)) })
    }

    fn ask<'a>(
        &'a self,
        wish: ForwardWish,
        _body: &'a [u8],
    ) -> Pending<'a, Result<Answered, HostError>> {
        let sentence =
            format!("the service {} cannot be asked: this job has no host", wish.service);
        Box::pin(async move { Err(HostError::new(CallErrorKind::Refused, sentence)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_come_another_time_is_worth_another_run() {
        for (kind, is_worth) in [
            (Some(CallErrorKind::Unavailable), true),
            (Some(CallErrorKind::Busy), true),
            (Some(CallErrorKind::NotFound), false),
            (Some(CallErrorKind::Refused), false),
            (Some(CallErrorKind::Invalid), false),
            (None, false),
        ] {
            let text = HostError::new(kind, "cannot fetch it").of_fetch();
            assert!(text.starts_with("cannot fetch it"), "{text}");
            assert_eq!(
                text.contains("running the job again may help"),
                is_worth,
                "{kind:?}: {text}"
            );
        }
    }

    #[test]
    fn a_network_has_the_addresses_of_its_subnet() {
        for (gateway, subnet, inside, outside) in [
            ("10.89.0.1", "10.89.0.0/24", ["10.89.0.0", "10.89.0.255"], "10.89.1.0"),
            ("172.18.0.1", "172.18.0.0/16", ["172.18.0.2", "172.18.255.255"], "172.19.0.2"),
            ("10.0.0.6", "10.0.0.4/30", ["10.0.0.4", "10.0.0.7"], "10.0.0.8"),
        ] {
            let network = ContainerNetwork::read(gateway, subnet).unwrap();
            assert_eq!(network.gateway().to_string(), gateway);
            for address in inside {
                assert!(network.has(address.parse().unwrap()), "{subnet} {address}");
            }
            assert!(!network.has(outside.parse().unwrap()), "{subnet} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_of_ipv4_is_none() {
        for (gateway, subnet) in [
            ("10.89.0.1", "10.88.0.0/24"),
            ("10.89.0.1", "10.89.0.0"),
            ("10.89.0.1", "10.89.0.0/33"),
            ("10.89.0.1", "0.0.0.0/0"),
            ("", "10.89.0.0/24"),
            ("fd00::1", "fd00::/64"),
        ] {
            assert_eq!(ContainerNetwork::read(gateway, subnet), None, "{gateway} {subnet}");
        }
    }
}
