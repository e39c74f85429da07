//! Free TCP ports.
//!
//! They are taken from below the range from which the kernel serves outgoing connections and
//! binds to port 0: a server that is started again must find its port free, and nobody gets one of
//! these by chance. Who is faster may still have it, so servers try again with others.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use crate::ServerError;

/// The ports to choose from. Linux hands out 32768 and above by itself.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// Attempts to find a free one.
const ATTEMPTS: u32 = 200;

/// Different ports of the loopback address that nobody listens on now.
pub(crate) fn free<const N: usize>() -> Result<[u16; N], ServerError> {
    let mut held = Vec::with_capacity(N);
    for _ in 0..ATTEMPTS {
        if held.len() == N {
            break;
        }
        // Each state is seeded anew, which is randomness enough to keep apart.
        let random = RandomState::new().hash_one(held.len());
        let offset = random % u64::from(RANGE.end - RANGE.start);
        let port = RANGE.start + u16::try_from(offset).expect("below the length of a u16 range");
        // All are held until the last is found, so that they differ.
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    }
    let mut ports = [0; N];
    for (index, port) in ports.iter_mut().enumerate() {
        let listener = held.get(index).ok_or_else(|| ServerError::System {
            what: "find a free port".to_owned(),
            source: std::io::ErrorKind::AddrInUse.into(),
        })?;
        *port = listener.local_addr().map_err(ServerError::system("read a port"))?.port();
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_are_free() {
        let ports: [u16; 20] = free().unwrap();
        let listeners: Vec<_> = ports
            .iter()
            .map(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap())
            .collect();
        assert_eq!(listeners.len(), 20);
        assert!(ports.iter().all(|port| RANGE.contains(port)));
    }
}
