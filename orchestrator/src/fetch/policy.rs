//! Which addresses the host may ask for a job.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use common::call::{CallError, CallErrorKind};
use reqwest::Url;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::Origin;

/// How long a name may take to be resolved.
const RESOLVE: Duration = Duration::from_secs(20);

/// What a job may make the host ask.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    /// The job's own forge, wherever it is.
    pub(crate) forge: Option<Origin>,
    /// Origins that the operator has named, wherever they are.
    pub(crate) trusted: Vec<Origin>,
}

impl Policy {
    /// The addresses at which this origin may be asked: they are resolved once, and whoever asks uses
    /// these and no others.
    ///
    /// # Errors
    /// It must not be asked, or its name cannot be resolved.
    pub(crate) async fn admit(&self, url: &Url) -> Result<Vec<SocketAddr>, CallError> {
        let refused = |why: String| CallError::new(CallErrorKind::Refused, why);
        let origin = Origin::parse(url.as_str()).map_err(refused)?;
        let known = self.forge.as_ref() == Some(&origin) || self.trusted.contains(&origin);
        if !known && !origin.is_secure() {
            return Err(refused(format!(
                "{origin} is not asked, because it is not https; the operator of this runner may \
                 allow it by the setting `actions_allow`"
            )));
        }
        let addresses = resolve(url, &origin).await?;
        if known {
            return Ok(addresses);
        }
        let public: Vec<SocketAddr> =
            addresses.iter().copied().filter(|address| is_public(address.ip())).collect();
        if public.is_empty() {
            let list: Vec<String> = addresses.iter().map(|a| a.ip().to_string()).collect();
            return Err(refused(format!(
                "{origin} is not asked, because its address {} belongs to this host or to a private \
                 network; the operator of this runner may allow it by the setting `actions_allow`",
                list.join(", ")
            )));
        }
        Ok(public)
    }
}

async fn resolve(url: &Url, origin: &Origin) -> Result<Vec<SocketAddr>, CallError> {
    let unavailable = |why: String| CallError::new(CallErrorKind::Unavailable, why);
    let port = url.port_or_known_default().unwrap_or(443);
    let addresses = match url.host() {
        Some(url::Host::Ipv4(address)) => return Ok(vec![(address, port).into()]),
        Some(url::Host::Ipv6(address)) => return Ok(vec![(address, port).into()]),
        Some(url::Host::Domain(name)) => timeout(RESOLVE, lookup_host((name, port))).await,
        None => return Err(unavailable(format!("{origin} names no host"))),
    };
    match addresses {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => {
            Err(unavailable(format!("the name of {origin} cannot be resolved: {error}")))
        }
        Err(_) => Err(unavailable(format!("the name of {origin} was not resolved in {RESOLVE:?}"))),
    }
}

/// Whether an address is one of the Internet's, and no host's own or private network's (the registries
/// of special addresses, RFC 6890 and its updates).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a, b & 0xc0) == (100, 64)
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99)
        || (a, b & 0xfe) == (198, 18))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // An IPv4 address in another form: mapped, by NAT64, by 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            embedded(high, low)
        }
        [0x2002, high, low, ..] => embedded(high, low),
        // What is given out to the Internet is 2000::/3; Teredo and documentation are not.
        [0x2001, 0, ..] | [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn admit(policy: &Policy, url: &str) -> Result<usize, CallErrorKind> {
        let admitted = policy.admit(&Url::parse(url).unwrap()).await;
        admitted.map(|addresses| addresses.len()).map_err(|error| error.kind)
    }

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "203.0.113.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "::127.0.0.1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "140.82.121.3",
            "172.32.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "2002:101:101::",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[tokio::test]
    async fn a_stranger_must_be_secure_and_public() {
        let policy = Policy::default();
        assert_eq!(admit(&policy, "https://1.1.1.1/x").await, Ok(1));
        for refused in [
            "http://1.1.1.1/",
            "https://127.0.0.1/",
            "https://localhost/",
            "https://[::1]/",
            "https://169.254.169.254/",
            "https://192.168.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://user@1.1.1.1/",
        ] {
            assert_eq!(admit(&policy, refused).await, Err(CallErrorKind::Refused), "{refused}");
        }
    }

    #[tokio::test]
    async fn the_forge_and_who_is_trusted_may_be_anywhere_but_only_they() {
        let policy = Policy {
            forge: Some(Origin::parse("http://127.0.0.1:3000").unwrap()),
            trusted: vec![Origin::parse("http://10.0.0.5").unwrap()],
        };
        assert_eq!(admit(&policy, "http://127.0.0.1:3000/owner/name").await, Ok(1));
        assert_eq!(admit(&policy, "http://10.0.0.5/x").await, Ok(1));
        for other in ["http://127.0.0.1:3001/", "https://127.0.0.1:3000/", "http://10.0.0.6/"] {
            assert_eq!(admit(&policy, other).await, Err(CallErrorKind::Refused), "{other}");
        }
    }
}
