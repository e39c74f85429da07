//! A machine that was restored from a template and stands still.

use std::sync::Arc;
use std::time::Instant;

use common::ids::VmId;

use super::{Birth, Machine, MachineError, MachineSpec};
use crate::host::Instance;

/// A machine that was restored from a template and stands still. It is nobody's yet: to be of use it
/// has to [become a machine of its own](Restored::become_own). Dropping it ends QEMU and removes
/// every file.
#[derive(Debug)]
pub struct Restored(Machine);

impl Restored {
    /// Restores a machine whose [origin](super::Origin) is a template. Nothing in it runs.
    ///
    /// # Errors
    ///
    /// As [`Machine::start`].
    pub async fn new(instance: &Arc<Instance>, spec: MachineSpec) -> Result<Self, MachineError> {
        Machine::set_up(instance, spec).await.map(Self)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> VmId {
        self.0.id()
    }

    /// Lets the guest go on, and makes it a machine of its own of this name: random numbers, clock,
    /// names and keys.
    ///
    /// # Errors
    ///
    /// It did not become one. It is destroyed then.
    pub async fn become_own(self, hostname: &str) -> Result<Machine, MachineError> {
        let Self(mut machine) = self;
        let begun = Instant::now();
        match machine.personalise(hostname).await {
            Ok(sample) => {
                let birth = machine.birth.take().unwrap_or_default();
                let birth = Birth { sample, personal: begun.elapsed(), ..birth };
                tracing::debug!(vm.id = %machine.id(), ?birth, "a clone is a machine of its own");
                machine.birth = Some(birth);
            }
            Err(error) => {
                machine.destroy().await;
                return Err(Box::new(error).into());
            }
        }
        if machine.adoptable {
            machine.offer()?;
        }
        Ok(machine)
    }
}
