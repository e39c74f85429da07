//! What keeps a step or a job from being done.

use common::infrastructure::Cause;

use crate::system::SystemError;

use super::text::sentence;

/// What keeps a step or a job from being done, before anything of the user's has a part in it.
#[derive(Debug)]
pub(super) struct Fault {
    message: String,
    is_disk_full: bool,
}

impl Fault {
    /// What could not be written, if it is the disk that has no room for it: then the machine and not
    /// the job is to blame.
    pub(super) fn disk_full(&self) -> Option<&str> {
        self.is_disk_full.then_some(self.message.as_str())
    }

    /// What stands in the log.
    pub(super) fn sentence(&self) -> String {
        match self.disk_full() {
            Some(message) => format!("{}: {message}.", Cause::GuestDiskFull.code()),
            None => sentence(&self.message),
        }
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self { message, is_disk_full: false }
    }
}

impl From<SystemError> for Fault {
    fn from(error: SystemError) -> Self {
        Self { message: error.to_string(), is_disk_full: error.is_disk_full() }
    }
}
