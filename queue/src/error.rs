//! What can go wrong between a part and its queue.

/// Why the queue did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The file or the broker cannot be used now; the caller may try again.
    #[error("the queue cannot be used: {reason}")]
    Unavailable {
        /// What failed, and where.
        reason: String,
    },
    /// There is nobody to take the message: no orchestrator has ever started, or the forge runner's
    /// queue is gone.
    #[error("nobody takes {what}: there is no queue {queue:?}")]
    Unroutable {
        /// Which kind of message.
        what: &'static str,
        /// The queue that is missing.
        queue: String,
    },
    /// No orchestrator answered in time.
    #[error("no orchestrator answered within {} s", deadline.as_secs())]
    NoAnswer {
        /// The time that it had.
        deadline: std::time::Duration,
    },
    /// The stored data is from a newer program.
    #[error(
        "{path} has version {found}, this program knows up to {known}; start the newer program again"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The message cannot be sent as it is.
    #[error(transparent)]
    Message(#[from] crate::message::MessageError),
    /// The queue was closed.
    #[error("the queue is closed")]
    Closed,
}
