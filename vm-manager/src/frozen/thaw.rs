//! From the files of a frozen machine to one that runs.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::save::{DISK, GUEST, LOGIN_KEY, SEED};
use super::sealed::{Cipher, open};
use super::{FrozenError, FrozenMachine};
use crate::host::{HostError, MachinePaths, RecordedShape};
use crate::machine::qmp::Qmp;
use crate::machine::stream;
use crate::ssh::Keys;
use crate::template::files;

/// A frozen machine, and what opens its files.
#[derive(Clone)]
pub struct Thaw {
    machine: FrozenMachine,
    cipher: Arc<dyn Cipher>,
}

impl fmt::Debug for Thaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thaw({})", self.machine.name())
    }
}

impl Thaw {
    /// Continues this machine. Its files stay as they are.
    #[must_use]
    pub fn new(machine: FrozenMachine, cipher: Arc<dyn Cipher>) -> Self {
        Self { machine, cipher }
    }

    pub(crate) fn shape(&self) -> &RecordedShape {
        &self.machine.facts.shape
    }

    /// The keys by which it is reached, as before.
    pub(crate) fn keys(&self) -> Result<Keys, FrozenError> {
        let mut text = Zeroizing::new(Vec::new());
        self.open(LOGIN_KEY, &mut *text)?;
        let text = std::str::from_utf8(&text).unwrap_or_default();
        let keys = Keys::from_login(text, &self.machine.facts.host_key);
        keys.map_err(|error| FrozenError::Unable {
            name: self.machine.name().to_owned(),
            reason: error.to_string(),
        })
    }

    /// Puts its disk and its seed where a machine has them.
    pub(crate) async fn place(&self, paths: &MachinePaths) -> Result<(), FrozenError> {
        let (this, paths) = (self.clone(), paths.clone());
        let placed = spawn_blocking(move || {
            files::link_below(&this.machine.directory, &paths.state)?;
            for (file, path) in [(DISK, paths.overlay()), (SEED, paths.seed())] {
                let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
                this.open(file, made.map_err(HostError::io("create", &path))?)?;
            }
            Ok(())
        });
        placed.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Gives the guest back to a QEMU that waits for it.
    pub(crate) async fn restore(&self, qmp: &Qmp, runtime: &Path) -> Result<(), FrozenError> {
        let this = self.clone();
        stream::restore(qmp, runtime, move |to| this.open(GUEST, to)).await
    }

    fn open(&self, file: &str, to: impl io::Write) -> Result<(), FrozenError> {
        let FrozenMachine { directory, facts } = &self.machine;
        let path = directory.join(file);
        open(&*self.cipher, &facts.name, directory, file, to).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => FrozenError::Sealed { path },
            _ => HostError::io("read", &path)(error).into(),
        })
    }
}
