//! How a broker is reached.

use std::fmt;

use common::limits::MIB;
use zeroize::Zeroizing;

/// What an event queue holds while its forge runner is away, before publishers are told no. A
/// job's whole log fits in it; the rest waits in the orchestrators' segment files.
const EVENT_QUEUE_BYTES: u64 = 256 * MIB;

/// How a broker is reached.
#[derive(Clone)]
pub struct Settings {
    /// `amqp://` or `amqps://`, without user and password where those come from a file. An empty
    /// path is the virtual host `/`.
    pub url: String,
    /// Instead of the URL's user.
    pub user: Option<String>,
    /// Instead of the URL's password.
    pub password: Option<Zeroizing<String>>,
    /// Certificates in PEM form that sign the broker's, besides the well-known authorities.
    pub authority: Option<String>,
    /// Put before the name of everything on the broker, so that installations can share one: up to
    /// 64 letters, digits, dots, dashes and underscores.
    pub prefix: String,
    /// How many bytes one forge runner's event queue may hold. Everybody on one prefix must have the
    /// same value: the broker refuses to declare a queue in two ways.
    pub event_queue_bytes: u64,
}

impl Settings {
    /// A broker by its URL, and a prefix; the rest as it is by default.
    #[must_use]
    pub fn new(url: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            user: None,
            password: None,
            authority: None,
            prefix: prefix.into(),
            event_queue_bytes: EVENT_QUEUE_BYTES,
        }
    }
}

impl fmt::Debug for Settings {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
