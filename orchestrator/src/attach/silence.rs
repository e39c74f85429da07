//! A guest that is not heard of: the log says so once, and once more when it is back.

use std::time::Duration;

use tokio::time::Instant;

use crate::events::{EventLog, ReceiverGone};

/// How long a guest may not be heard of before the log says so (design, section 5). It ends nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// How often a guest that is silent is looked for. What it says over the attached stream is seen at
/// once.
const LOOK: Duration = Duration::from_secs(5);

/// Whether the log has said that the guest is silent.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    /// The last sign of life before it.
    since: Option<Instant>,
}

impl Silence {
    /// When to look again, if this was the last sign of life.
    pub(crate) fn due(&self, contact: Instant) -> Instant {
        match self.since {
            Some(_) => Instant::now() + LOOK,
            None => contact + SILENCE,
        }
    }

    /// Says in the log what has changed.
    pub(crate) async fn look(
        &mut self,
        contact: Instant,
        log: &mut EventLog,
    ) -> Result<(), ReceiverGone> {
        match self.since {
            None if contact.elapsed() >= SILENCE => {
                self.since = Some(contact);
                let text = format!(
                    "##[warning]The machine has not answered for {} s; it may be out of memory or \
                     very busy. The job goes on when it answers.",
                    contact.elapsed().as_secs()
                );
                log.notice(&text).await
            }
            Some(since) if contact > since => {
                self.since = None;
                let text =
                    format!("The machine answers again after {} s.", (contact - since).as_secs());
                log.notice(&text).await
            }
            _ => Ok(()),
        }
    }
}
