//! The server's clock, which tests may put forward.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use forgejo_proto::protobuf::Timestamp;

/// The time of a server: that of the machine plus what a test added. Its clones are one clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead: Arc<Mutex<Duration>>,
}

impl Clock {
    /// What time it is on the server.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        SystemTime::now() + *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the clock forward. Nothing happens on the server by that, before [`Forge::reap`].
    ///
    /// [`Forge::reap`]: super::Forge::reap
    pub fn advance(&self, by: Duration) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

/// A moment of a message; nothing and nonsense are 1970, as on the server.
pub(super) fn moment(timestamp: Option<&Timestamp>) -> SystemTime {
    timestamp
        .and_then(|timestamp| SystemTime::try_from(timestamp.clone()).ok())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
