//! Why a machine cannot be adopted.

use std::path::PathBuf;

use common::ids::VmId;
use common::infrastructure::{Cause, Infrastructure};

use super::qmp::QmpError;
use crate::host::HostError;

/// Why a machine cannot be adopted. It is left as it is:
/// [`Instance::destroy`](crate::host::Instance::destroy) ends it.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// A live value of this process is the machine's owner.
    #[error("the machine {vm} has an owner in this process")]
    Owned {
        /// The machine.
        vm: VmId,
    },
    /// Nothing is known about it.
    #[error("nothing is known about the machine {vm}: there is no record `{}`", path.display())]
    NoRecord {
        /// The machine.
        vm: VmId,
        /// Where its record would be.
        path: PathBuf,
    },
    /// It outlives its job on purpose.
    #[error("the machine {vm} is kept for its user under the name `{name}`")]
    Kept {
        /// The machine.
        vm: VmId,
        /// The name by which people find it.
        name: String,
    },
    /// Its record does not have what an owner needs.
    #[error(
        "the record of the machine {vm} does not say how it is reached: it was not started to be \
         adopted, or its owner was killed before it ran"
    )]
    NotAdoptable {
        /// The machine.
        vm: VmId,
    },
    /// Neither its process nor its files on tmpfs are there.
    #[error(
        "the machine {vm} is gone with its files on tmpfs: the host or the container that it ran in \
         was started again"
    )]
    Gone {
        /// The machine.
        vm: VmId,
    },
    /// It cannot be logged in to.
    #[error("the login key of the machine {vm} cannot be used: {reason}")]
    LoginKey {
        /// The machine.
        vm: VmId,
        /// What is wrong with it.
        reason: String,
    },
    /// The recorded process is not that of this machine.
    #[error("the process {pid} in the record of the machine {vm} {what}")]
    OtherProcess {
        /// The machine.
        vm: VmId,
        /// The process id in the record.
        pid: i32,
        /// What it is or says instead.
        what: String,
    },
    /// Its monitor cannot be used: it is broken, or somebody else is connected to it.
    #[error(
        "the machine {vm} runs but does not talk to us; another program may be connected to its monitor"
    )]
    Monitor {
        /// The machine.
        vm: VmId,
        /// What failed.
        source: QmpError,
    },
    /// The host's side failed.
    #[error(transparent)]
    Host(#[from] HostError),
}

impl AdoptError {
    /// The cause that stands in the log of the job that ran on the machine.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::NoRecord { .. } | Self::Gone { .. } | Self::Monitor { .. } => Cause::QemuKilled,
            Self::NotAdoptable { .. } => Cause::QemuStart,
            Self::Host(error) => error.cause(),
            Self::Owned { .. }
            | Self::Kept { .. }
            | Self::LoginKey { .. }
            | Self::OtherProcess { .. } => Cause::Internal,
        }
    }

    /// The cause with this occurrence as a sentence.
    #[must_use]
    pub fn infrastructure(&self) -> Infrastructure {
        let source = std::error::Error::source(self);
        let why = source.map(|source| format!(": {source}")).unwrap_or_default();
        Infrastructure::new(self.cause(), format!("{self}{why}"))
    }
}
