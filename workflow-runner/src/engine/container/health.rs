//! Waiting until a service is healthy.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::engine::job::Job;
use crate::engine::supervise::Limits;

use super::drive::{Order, Trouble, Voice};
use super::state::Service;
use super::tool::Tool;

/// How long a service may take to be healthy. Its own check gives up sooner, as a rule.
const HEALTHY: Duration = Duration::from_secs(10 * 60);

/// The pause before a service is looked at again; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest such pause (github-runner-protocol 8.7).
const LONGEST_PAUSE: Duration = Duration::from_secs(32);

/// The last lines of a service's log that are shown when it does not become healthy.
const LOG_LINES: &str = "500";

/// Its state, and its health where it has a check.
const FORMAT: &str = "{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}";

/// What a look at a service says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Look {
    /// It can be used.
    Ready,
    /// It cannot be used yet.
    Starting,
    /// It never will be: why.
    Lost(String),
}

fn read(answer: &str) -> Look {
    let mut words = answer.split_whitespace();
    let state = words.next().unwrap_or_default();
    match (words.next().unwrap_or_default(), state) {
        // No check: whoever uses it finds out.
        ("" | "none" | "<no", _) | ("healthy", _) => Look::Ready,
        ("unhealthy", _) => Look::Lost("its health check fails".to_owned()),
        (_, "exited" | "dead" | "stopped") => Look::Lost("it has ended".to_owned()),
        _ => Look::Starting,
    }
}

impl Job<'_> {
    /// Waits until a service is healthy; the log of one that is not is shown.
    pub(super) async fn wait_until_healthy(
        &mut self,
        tool: &Tool,
        service: &Service,
        limits: &Limits,
    ) -> Result<(), Trouble> {
        let deadline = Instant::now() + HEALTHY;
        let mut pause = FIRST_PAUSE;
        let why = loop {
            let order = Order::silent(["inspect", "--format", FORMAT, &service.id]);
            let answer = self.order(tool, order, limits).await?;
            match read(&answer) {
                Look::Ready => return Ok(()),
                Look::Lost(why) => break why,
                Look::Starting if Instant::now() >= deadline => {
                    break format!("it was not healthy within {} minutes", HEALTHY.as_secs() / 60);
                }
                Look::Starting => {}
            }
            let text = format!("Waiting for the service {} to be healthy", service.name);
            self.events.say(self.system.now(), &text).await;
            self.events.flush().await;
            tokio::select! {
                () = sleep(pause) => {}
                stop = limits.reached() => return Err(Trouble::Stopped(stop)),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        let words = ["logs", "--tail", LOG_LINES, &service.id];
        let order = Order { voice: Voice::Full, ..Order::silent(words) };
        drop(self.try_order(tool, order, limits).await?);
        Err(format!("the service {} cannot be used: {why}; its log is above", service.name).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_without_a_check_is_ready() {
        for (answer, expected) in [
            ("running \n", Look::Ready),
            ("exited", Look::Ready),
            ("running healthy", Look::Ready),
            ("running starting", Look::Starting),
            ("created starting", Look::Starting),
            ("running unhealthy", Look::Lost("its health check fails".to_owned())),
            ("exited starting", Look::Lost("it has ended".to_owned())),
        ] {
            assert_eq!(read(answer), expected, "{answer}");
        }
    }
}
