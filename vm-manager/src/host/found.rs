//! What an instance finds of its machines, and the end of one of them.

use std::collections::BTreeMap;

use common::ids::VmId;
use common::time::Timestamp;

use super::process::sightings;
use super::reconcile::{Reach, directories, settle_one};
use super::{HostError, Instance, Record};

/// A machine that has files or a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundMachine {
    /// The machine.
    pub vm: VmId,
    /// The label of its image; absent if its record cannot be read.
    pub label: Option<String>,
    /// Whether its QEMU runs.
    pub running: bool,
    /// Whether a [`Machine`](crate::machine::Machine) of this process owns it.
    pub owned: bool,
    /// Whether it outlives its job on purpose, and so is nobody's to adopt.
    pub kept: bool,
}

impl Instance {
    /// All machines of this instance, by id. Blocks for a moment.
    ///
    /// # Errors
    ///
    /// When the directories or `/proc` cannot be read.
    pub fn machines(&self) -> Result<Vec<FoundMachine>, HostError> {
        let mut processes: BTreeMap<VmId, Vec<_>> =
            directories(self)?.into_iter().map(|vm| (vm, Vec::new())).collect();
        let seen = sightings().map_err(HostError::io("list", "/proc".as_ref()))?;
        for seen in seen.into_iter().filter(|seen| seen.name.instance == self.id()) {
            processes.entry(seen.name.vm).or_default().push(seen.identity);
        }
        let found = processes.into_iter().map(|(vm, running)| {
            let record = Record::read(&self.settings().machine(self.id(), vm).record());
            let record = record.ok().flatten();
            let expected = record.as_ref().and_then(|record| record.process);
            let running = match expected {
                Some(expected) => running.contains(&expected),
                None => !running.is_empty(),
            };
            let kept = record.as_ref().is_some_and(|record| record.keep.is_some());
            let label = record.map(|record| record.label);
            FoundMachine { vm, label, running, owned: self.owns(vm), kept }
        });
        Ok(found.collect())
    }

    /// Whether a machine outlives its job on purpose. Blocks for a moment.
    pub(super) fn keeps(&self, vm: VmId) -> bool {
        let record = Record::read(&self.settings().machine(self.id(), vm).record());
        record.ok().flatten().is_some_and(|record| record.keep.is_some())
    }

    /// Ends a machine and removes its files, if no [`Machine`](crate::machine::Machine) of this
    /// process owns it: one that could not be adopted, or nobody wants any more, kept ones as well.
    /// Says whether nothing of it is left. Blocks.
    ///
    /// # Errors
    ///
    /// When its process does not end or its files cannot be removed.
    pub fn destroy(&self, vm: VmId) -> Result<bool, HostError> {
        let seen = sightings().map_err(HostError::io("list", "/proc".as_ref()))?;
        let ours =
            |seen: &super::process::Sighting| seen.name.instance == self.id() && seen.name.vm == vm;
        let seen: Vec<_> = seen.into_iter().filter(ours).collect();
        settle_one(self, vm, &seen, Reach::All, Timestamp::now())
    }
}
