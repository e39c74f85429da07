//! The machines of one orchestrator: its instance, its images, and the way of a job's machine from
//! nothing to a guest that is ready for its job.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use common::event::{Finished, JobEvent, Phase};
use common::infrastructure::{Cause, Infrastructure};
use common::request::JobRequest;
use common::size::ByteSize;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use vm_manager::host::{HostError, HostSettings, Instance, Ledger, Promise, watchdog};
use vm_manager::image::{Catalogue, CatalogueError, Entry, Image, ImageStore, Progress};
use vm_manager::machine::{Machine, MachineSpec, Privileges};
use vm_manager::ssh::Guest;

use crate::events::EventLog;
use crate::job::{self, JobControl, TryError};
use crate::{placing, program};

/// What an orchestrator needs to know about its host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directories and programs.
    pub host: HostSettings,
    /// Where the guest programs are looked for, in order.
    pub guest_programs: Vec<PathBuf>,
    /// A file of further images.
    pub catalogue: Option<PathBuf>,
    /// The program and arguments of the watchdog; the instance's id is added behind them. Absent
    /// means that nobody cleans up after a crash until the next start.
    pub watchdog: Option<(PathBuf, Vec<OsString>)>,
}

/// Why there is no orchestrator.
#[derive(Debug, thiserror::Error)]
pub enum OrchestratorError {
    /// The catalogue cannot be used.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The host's directories cannot be used.
    #[error(transparent)]
    Host(#[from] HostError),
}
