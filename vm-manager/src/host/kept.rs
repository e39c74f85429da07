//! Machines that outlive their job on purpose, for `solstice shell` and `solstice cp`.

use std::net::SocketAddr;

use common::ids::{InstanceId, VmId};
use common::time::Timestamp;

use super::instance::ids;
use super::process::sightings;
use super::{HostError, HostSettings, Keep, MachineName, Record, read_login_key};
use crate::ssh::Keys;

/// A machine that outlives its job, with everything that is needed to log in.
#[derive(Clone, Debug)]
pub struct KeptMachine {
    /// The name under which it is kept.
    pub name: String,
    /// The instance that it belongs to.
    pub instance: InstanceId,
    /// The machine.
    pub vm: VmId,
    /// The label of its image.
    pub label: String,
    /// The host's end of the forwarding to its SSH server.
    pub address: SocketAddr,
    /// The user to log in as.
    pub user: String,
    /// The login key and the guest's host key.
    pub keys: Keys,
    /// When it is destroyed.
    pub until: Timestamp,
}

/// What is written down about a kept machine that runs.
pub(crate) struct Found {
    pub(crate) instance: InstanceId,
    pub(crate) record: Record,
    pub(crate) keep: Keep,
}

impl Found {
    pub(crate) fn machine_name(&self) -> MachineName {
        MachineName { instance: self.instance, vm: self.record.vm }
    }
}

/// Looks a kept machine up.
pub(crate) fn look_up(settings: &HostSettings, name: &str) -> Result<Found, HostError> {
    let mut known = Vec::new();
    for (instance, record) in records(settings)? {
        match record.keep.clone() {
            Some(keep) if keep.name == name => return Ok(Found { instance, record, keep }),
            Some(keep) => known.push(keep.name),
            None => {}
        }
    }
    known.sort();
    Err(HostError::NotKept { name: name.to_owned(), known })
}

/// Finds the machine that is kept under a name.
///
/// # Errors
///
/// [`HostError::NotKept`] with the names that there are, or its key or record cannot be read.
pub fn find(settings: &HostSettings, name: &str) -> Result<KeptMachine, HostError> {
    let Found { instance, record, keep } = look_up(settings, name)?;
    let path = settings.machine(instance, record.vm).login_key();
    let keys = read_login_key(&path, &keep.host_key)
        .map_err(|reason| HostError::KeptKey { name: name.to_owned(), reason })?;
    Ok(KeptMachine {
        name: keep.name,
        instance,
        vm: record.vm,
        label: record.label,
        address: keep.address,
        user: keep.user,
        keys,
        until: keep.until,
    })
}

/// The names of all machines that are kept on this host, each with its label and its end.
///
/// # Errors
///
/// When the records cannot be read.
pub fn list(settings: &HostSettings) -> Result<Vec<(String, String, Timestamp)>, HostError> {
    let mut found: Vec<_> = records(settings)?
        .into_iter()
        .filter_map(|(_, record)| record.keep.map(|keep| (keep.name, record.label, keep.until)))
        .collect();
    found.sort();
    Ok(found)
}

/// Ends the time of the machine that is kept under a name: its owner
/// ([`Instance::maintain`](super::Instance::maintain)) or, when that is dead, the instance's
/// [watchdog](super::watchdog) removes it within seconds, or else the next sweep.
///
/// # Errors
///
/// [`HostError::NotKept`] with the names that there are, or its record cannot be written.
pub fn release(settings: &HostSettings, name: &str) -> Result<(), HostError> {
    let Found { instance, mut record, keep } = look_up(settings, name)?;
    record.keep = Some(Keep { until: Timestamp::now(), ..keep });
    record.write(&settings.machine(instance, record.vm).record())
}

/// All records of machines whose process runs. Records that disappear or that nobody understands are
/// left out: their owners see to them.
fn records(settings: &HostSettings) -> Result<Vec<(InstanceId, Record)>, HostError> {
    let running = sightings().map_err(HostError::io("list", "/proc".as_ref()))?;
    let mut found = Vec::new();
    for instance in ids(settings)? {
        for seen in running.iter().filter(|seen| seen.name.instance == instance) {
            let path = settings.machine(instance, seen.name.vm).record();
            if let Ok(Some(record)) = Record::read(&path)
                && record.process == Some(seen.identity)
            {
                found.push((instance, record));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_kept_are_refused() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        assert!(list(&settings).unwrap().is_empty());
        let error = find(&settings, "r1").unwrap_err();
        assert!(error.to_string().contains("no machine is kept on this host"), "{error}");
    }
}
