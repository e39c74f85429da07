//! Waiting for the first sign of a guest's SSH server.
//!
//! QEMU's user network accepts a connection at once, also while the guest has no network; it then
//! repeats its own attempt only after seconds, so a connection that came early hears the guest late
//! (vm-facts 1). Therefore a new connection is opened every tenth of a second. But a server may also
//! need seconds to answer a connection that did reach it, so not all old ones may be given up: those
//! that are kept are spread over the ages.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

/// Between two connections.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(100);

/// Connections open at the same time.
const OPEN_ATTEMPTS: usize = 4;

/// What an SSH server sends first (RFC 4253, 4.2).
const BANNER: &[u8] = b"SSH-";

/// Waits without a limit until an SSH server shows its banner.
pub(super) async fn banner(address: SocketAddr) {
    let mut attempts = JoinSet::new();
    let mut open = Vec::new();
    let mut ticks = tokio::time::interval(ATTEMPT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(result) = attempts.join_next_with_id() => {
                let id = match result {
                    Ok((_, Ok(true))) => return,
                    Ok((id, _)) => id,
                    Err(error) => error.id(),
                };
                open.retain(|(_, attempt): &(Instant, tokio::task::AbortHandle)| {
                    attempt.id() != id
                });
            }
            now = ticks.tick() => {
                if open.len() >= OPEN_ATTEMPTS {
                    let ages: Vec<Duration> = open.iter().map(|(since, _)| now - *since).collect();
                    let (_, given_up) = open.remove(least_telling(&ages));
                    given_up.abort();
                }
                open.push((now, attempts.spawn(shows_banner(address))));
            }
        }
    }
}

/// Which of the connections to give up, given their ages from the oldest to the youngest: the one
/// between whose neighbours the smallest ratio lies, so that the rest stays spread over the ages; the
/// oldest when it is so old that a server would have answered it.
fn least_telling(ages: &[Duration]) -> usize {
    /// No server takes longer to greet.
    const OLD: Duration = Duration::from_secs(10);
    if ages.first().is_some_and(|oldest| *oldest > OLD) {
        return 0;
    }
    let gap = |index: usize| {
        let younger = ages.get(index + 1).copied().unwrap_or_default();
        ages[index - 1].as_secs_f64() / younger.max(ATTEMPT_INTERVAL).as_secs_f64()
    };
    (1..ages.len()).min_by(|a, b| gap(*a).total_cmp(&gap(*b))).unwrap_or(0)
}

/// Whether whoever listens there greets as an SSH server does. Reads no further than that.
async fn shows_banner(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let mut start = [0; BANNER.len()];
    stream.read_exact(&mut start).await?;
    Ok(start == BANNER)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// Answers the nth connection (from 0) as `answer` says: nothing ever, or bytes.
    async fn listen(answer: fn(usize) -> Option<&'static [u8]>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut held = Vec::new();
            for count in 0.. {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                match answer(count) {
                    Some(bytes) => drop(stream.write_all(bytes).await),
                    None => held.push(stream),
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn connections_that_hang_do_not_hold_up_later_ones() {
        let address = listen(|count| (count >= 6).then_some(b"SSH-2.0-test\r\n".as_slice())).await;
        tokio::time::timeout(Duration::from_secs(60), banner(address)).await.unwrap();
    }

    #[tokio::test]
    async fn other_servers_are_not_ssh() {
        let address = listen(|count| match count {
            0 => Some(b"HTTP/1.1 400\r\n"),
            1 => Some(b""),
            2 => Some(b"SS"),
            _ => Some(b"SSH-2.0-test\r\n"),
        })
        .await;
        tokio::time::timeout(Duration::from_secs(60), banner(address)).await.unwrap();
    }

    #[test]
    fn ages_stay_spread() {
        let mut ages: Vec<Duration> = Vec::new();
        let mut oldest = Duration::ZERO;
        for _ in 0..300 {
            for age in &mut ages {
                *age += ATTEMPT_INTERVAL;
            }
            if ages.len() >= OPEN_ATTEMPTS {
                ages.remove(least_telling(&ages));
            }
            ages.push(Duration::ZERO);
            oldest = oldest.max(ages[0]);
            assert!(ages[0] <= Duration::from_secs(11), "{ages:?}");
        }
        // A server that needs ten seconds to greet is waited for, and so is one that needs one.
        assert!(oldest > Duration::from_secs(9), "{oldest:?}");
    }
}
