//! What to do about each machine of an instance: records on one side, processes on the other.
//!
//! ```text
//!                      process runs                     no process
//!  record              leave, or end when kept too      remove the files
//!                      long or when everything goes
//!  no record           end it                           remove the files
//! ```
//!
//! A machine whose [`Machine`](crate::machine::Machine) lives in this process is its own owner and is
//! left alone. So is one that a service may still adopt, with its files: they say how it ended. The
//! console of a machine that is left to others is cut: nobody reads it, and the guest may write to it
//! for hours.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::ids::VmId;
use common::time::Timestamp;

use super::files::remove_directory;
use super::process::{Sighting, sightings};
use super::{HostError, Instance, Ledger, MachineName, Process, Record};
use crate::machine::{console, qmp};

/// How long a killed process may take to go.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// How long a running QEMU may take to tell its name. One that does not answer is recognised by its
/// command line and start time alone.
const NAME_DEADLINE: Duration = Duration::from_secs(1);

/// How far a pass goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Only machines kept for too long: all others may still be adopted.
    Expired,
    /// Only contradictions between records and processes, and machines kept for too long.
    Contradictions,
    /// Also machines that run without an owner, unless they are kept.
    Abandoned,
    /// Everything.
    All,
}

/// What is known about a machine from its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recorded {
    /// No record.
    Nothing,
    /// It belongs to a job.
    Job,
    /// It is kept until then.
    Kept(Timestamp),
}

/// What to do about a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Nothing.
    Leave,
    /// Nothing until then.
    LeaveUntil(Timestamp),
    /// Remove its files: it does not run.
    Remove,
    /// End its process, then remove its files.
    Kill,
}

fn decide(reach: Reach, owned: bool, recorded: Recorded, runs: bool, now: Timestamp) -> Action {
    if owned {
        return Action::Leave;
    }
    match (recorded, runs) {
        (Recorded::Nothing | Recorded::Job, _) | (_, false) if reach == Reach::Expired => {
            Action::Leave
        }
        (_, false) => Action::Remove,
        (Recorded::Nothing, true) => Action::Kill,
        (Recorded::Kept(until), true) if until > now && reach != Reach::All => {
            Action::LeaveUntil(until)
        }
        (Recorded::Kept(_), true) => Action::Kill,
        (Recorded::Job, true) if reach == Reach::Contradictions => Action::Leave,
        (Recorded::Job, true) => Action::Kill,
    }
}

/// What a pass did and left.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// Machines that were removed.
    pub(super) removed: Vec<VmId>,
    /// When the last of the machines that are kept has to go.
    pub(super) kept_until: Option<Timestamp>,
    /// Whether a machine was left because it may still be adopted.
    pub(super) adoptable: bool,
    /// What could not be settled, for each machine.
    pub(super) errors: Vec<HostError>,
}

impl Pass {
    /// The machines that were removed, or the first failure.
    pub(super) fn into_removed(self) -> Result<Vec<VmId>, HostError> {
        self.errors.into_iter().next().map_or(Ok(self.removed), Err)
    }
}

/// Brings records and processes of one instance together. Blocks for as long as killed processes
/// take to go. What fails is reported, after everything else was tried; the error is that nothing
/// could be looked at.
pub(super) fn pass(instance: &Instance, reach: Reach, now: Timestamp) -> Result<Pass, HostError> {
    let mut done = Pass::default();
    // Machines of the owner start, end and pass into the keeping of their user while this looks and
    // while it waits for others. What it saw of those that were owned at the time means nothing.
    let mut owned = instance.owned_now();
    // Directories first: a machine that starts meanwhile is owned before it has either.
    let mut machines: BTreeMap<VmId, Vec<Sighting>> =
        directories(instance)?.into_iter().map(|vm| (vm, Vec::new())).collect();
    let seen = sightings().map_err(HostError::io("list", "/proc".as_ref()))?;
    for sighting in seen.into_iter().filter(|seen| seen.name.instance == instance.id()) {
        machines.entry(sighting.name.vm).or_default().push(sighting);
    }
    owned.append(&mut instance.owned_now());
    machines.retain(|vm, _| !owned.contains(vm));
    for (vm, seen) in machines {
        let reach = instance.reach_of(vm, reach);
        match settle(instance, vm, &seen, reach, now) {
            Ok(Action::LeaveUntil(until)) => done.kept_until = done.kept_until.max(Some(until)),
            Ok(Action::Leave) => done.adoptable |= reach == Reach::Expired,
            Ok(Action::Remove | Action::Kill) => done.removed.push(vm),
            Err(error) => {
                tracing::warn!(vm.id = %vm, %error, "cannot settle a machine");
                done.errors.push(error);
            }
        }
    }
    Ok(done)
}

/// Does what is to be done about one machine. Says whether nothing of it is left.
pub(super) fn settle_one(
    instance: &Instance,
    vm: VmId,
    seen: &[Sighting],
    reach: Reach,
    now: Timestamp,
) -> Result<bool, HostError> {
    let action = settle(instance, vm, seen, reach, now)?;
    Ok(matches!(action, Action::Remove | Action::Kill))
}

fn settle(
    instance: &Instance,
    vm: VmId,
    seen: &[Sighting],
    reach: Reach,
    now: Timestamp,
) -> Result<Action, HostError> {
    let paths = instance.settings().machine(instance.id(), vm);
    let record = match Record::read(&paths.record()) {
        Ok(record) => record,
        // Nobody could ever make sense of it, so the machine counts as one without a record.
        Err(HostError::Record { .. }) => None,
        Err(error) => return Err(error),
    };
    let recorded = match &record {
        None => Recorded::Nothing,
        Some(Record { keep: Some(keep), .. }) => Recorded::Kept(keep.until),
        Some(_) => Recorded::Job,
    };
    // A process with another start time than the recorded one only looks like ours.
    let expected = record.as_ref().and_then(|record| record.process);
    let ours: Vec<&Sighting> = seen
        .iter()
        .filter(|seen| expected.is_none_or(|expected| expected == seen.identity))
        .collect();
    let action = decide(reach, instance.owns(vm), recorded, !ours.is_empty(), now);
    if action == Action::Kill {
        for sighting in ours {
            end(sighting, &paths.qmp())?;
        }
    }
    let left_to_others = action == Action::Leave && reach == Reach::Expired;
    if left_to_others || matches!(action, Action::LeaveUntil(_)) {
        console::trim_files(&paths);
    }
    if matches!(action, Action::Kill | Action::Remove) {
        remove_directory(&paths.runtime)?;
        remove_directory(&paths.state)?;
        Ledger::new(instance.settings()).forget(vm)?;
        instance.expect_nobody(vm);
    }
    Ok(action)
}

/// Ends a process, after it was asked for its name.
fn end(sighting: &Sighting, socket: &std::path::Path) -> Result<(), HostError> {
    let pid = sighting.identity.pid;
    let proc = std::path::PathBuf::from(format!("/proc/{pid}"));
    let Some(process) =
        Process::open(sighting.identity).map_err(HostError::io("hold on to", &proc))?
    else {
        return Ok(());
    };
    if let Ok(told) = qmp::ask_name(socket, NAME_DEADLINE)
        && told.parse::<MachineName>().ok() != Some(sighting.name)
    {
        tracing::warn!(process.id = pid, told, "a process has our command line but another name");
        return Ok(());
    }
    process.kill().map_err(HostError::io("kill", &proc))?;
    let gone = process.wait(KILL_DEADLINE).map_err(HostError::io("wait for", &proc))?;
    // Our own child would stay as a zombie.
    drop(process.collect());
    if gone { Ok(()) } else { Err(HostError::Stuck { pid, name: sighting.name }) }
}

/// The machines that have a directory, in the state directory by their full id.
pub(super) fn directories(instance: &Instance) -> Result<BTreeSet<VmId>, HostError> {
    let path = instance.settings().instance_machines(instance.id());
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(HostError::io("list", &path)(error)),
    };
    let mut found = BTreeSet::new();
    for entry in entries {
        let entry = entry.map_err(HostError::io("list", &path))?;
        if let Some(vm) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.insert(vm);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_has_one_action() {
        use Action::{Kill, Leave, LeaveUntil, Remove};
        use Reach::{Abandoned, All, Contradictions, Expired};
        let now = Timestamp::from_micros(100);
        let (past, future) = (Timestamp::from_micros(99), Timestamp::from_micros(101));
        let (kept, expired) = (Recorded::Kept(future), Recorded::Kept(past));
        let table = [
            // record, runs: expired, contradictions, abandoned, all
            (Recorded::Nothing, false, [Leave, Remove, Remove, Remove]),
            (Recorded::Nothing, true, [Leave, Kill, Kill, Kill]),
            (Recorded::Job, false, [Leave, Remove, Remove, Remove]),
            (Recorded::Job, true, [Leave, Leave, Kill, Kill]),
            (kept, false, [Leave, Remove, Remove, Remove]),
            (kept, true, [LeaveUntil(future), LeaveUntil(future), LeaveUntil(future), Kill]),
            (expired, false, [Leave, Remove, Remove, Remove]),
            (expired, true, [Kill, Kill, Kill, Kill]),
        ];
        let reaches = [Expired, Contradictions, Abandoned, All];
        for (recorded, runs, expected) in table {
            for (reach, expected) in reaches.into_iter().zip(expected) {
                let case = format!("{recorded:?}, runs: {runs}, {reach:?}");
                assert_eq!(decide(reach, false, recorded, runs, now), expected, "{case}");
                assert_eq!(decide(reach, true, recorded, runs, now), Leave, "owned: {case}");
            }
        }
    }
}
