//! The one book of what is promised to machines on this host.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::ids::{InstanceId, VmId};
use common::limits::MIB;
use common::size::ByteSize;
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::lock::Lock;
use super::{Capacity, CapacityLimits, HostError, HostSettings, ProcessIdentity};

/// What QEMU itself needs beside the guest's memory: code cache, device state, its own program.
const MACHINE_OVERHEAD: u64 = 64 * MIB;

/// How often [`Ledger::wait_for_room`] looks again.
const ROOM_INTERVAL: Duration = Duration::from_millis(250);

/// Thousands of machines fit; a larger book is not ours.
const LEDGER_BYTES: u64 = 4 * MIB;

/// The one book of what is promised to machines on this host, shared by all instances whose runtime
/// directory is the same.
///
/// Entries of instances whose lock is free are dropped by whoever opens the book next, unless their
/// machine runs: it uses its memory until somebody ends it or takes the promise over.
#[derive(Clone, Debug)]
pub struct Ledger {
    path: PathBuf,
    limits: CapacityLimits,
}

/// Why a machine has no room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Larger than this host could ever give.
    #[error(
        "a machine with {memory} of memory and {cpus} processors does not fit on this host, which \
         can give at most {most_memory} and {most_cpus} processors"
    )]
    Never {
        /// The memory that was asked for.
        memory: ByteSize,
        /// The processors that were asked for.
        cpus: u32,
        /// What the host could give to one machine alone.
        most_memory: ByteSize,
        /// Likewise.
        most_cpus: u32,
    },
    /// Room may come when other machines end.
    #[error(
        "no room for a machine with {memory} of memory and {cpus} processors: {free_memory} and \
         {free_cpus} processors are free, {promised} are promised to other machines"
    )]
    Now {
        /// The memory that was asked for.
        memory: ByteSize,
        /// The processors that were asked for.
        cpus: u32,
        /// What could be given now.
        free_memory: ByteSize,
        /// Likewise.
        free_cpus: u32,
        /// The memory promised to other machines.
        promised: ByteSize,
    },
}

/// What one owner's machines may use together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Memory, with what QEMU itself needs for each machine; see [`Share::for_guests`].
    pub memory: ByteSize,
    /// Virtual processors.
    pub cpus: u32,
}

impl Share {
    /// The memory that guests may have together if none has less than `least`.
    #[must_use]
    pub fn for_guests(&self, least: ByteSize) -> ByteSize {
        let most = self.memory.0 / least.0.saturating_add(MACHINE_OVERHEAD);
        let machines = most.min(u64::from(self.cpus));
        ByteSize(self.memory.0.saturating_sub(machines.saturating_mul(MACHINE_OVERHEAD)))
    }
}

/// What is asked for a machine that is about to start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Claim {
    /// On whose behalf.
    pub(super) instance: InstanceId,
    /// For which machine.
    pub(super) vm: VmId,
    /// The instance's lock file: once it is free, the claim is void.
    pub(super) lock: PathBuf,
    /// The memory of the guest.
    pub(super) memory: ByteSize,
    /// Its processors.
    pub(super) cpus: u32,
    /// Present for a clone that is expected to use less than all its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) clone: Option<CloneUse>,
}

/// What a clone is expected to use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneUse {
    /// The name of its template.
    pub template: String,
    /// What all clones of the template use together, once.
    pub shared: ByteSize,
    /// What the clone writes itself.
    pub own: ByteSize,
}

/// What is asked for a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The memory of the guest.
    pub memory: ByteSize,
    /// Its processors.
    pub cpus: u32,
    /// Present for a clone that is expected to use less than all its memory.
    pub clone: Option<CloneUse>,
}

impl Need {
    /// All of the memory.
    #[must_use]
    pub fn whole(memory: ByteSize, cpus: u32) -> Self {
        Self { memory, cpus, clone: None }
    }
}

impl Claim {
    /// What is promised to the machine alone.
    fn own(&self) -> u64 {
        let own = self.clone.as_ref().map_or(self.memory, |clone| clone.own.min(self.memory));
        own.0.saturating_add(MACHINE_OVERHEAD)
    }

    /// What the host needs for it beside the machines that it has.
    fn needed(&self, beside: &[Entry]) -> u64 {
        let shared = self.clone.as_ref().filter(|clone| {
            let others = beside.iter().filter_map(|entry| entry.claim.clone.as_ref());
            others.into_iter().all(|other| other.template != clone.template)
        });
        self.own().saturating_add(shared.map_or(0, |clone| clone.shared.0))
    }
}

/// One promise. `process` appears once the machine runs: what it uses already is no longer part of
/// the memory that the host has free.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    claim: Claim,
    process: Option<ProcessIdentity>,
}

impl Entry {
    /// Whether the machine runs that uses the memory.
    fn runs(&self) -> bool {
        let same = |process: ProcessIdentity| {
            ProcessIdentity::of(process.pid).is_ok_and(|found| found == Some(process))
        };
        self.process.is_some_and(same)
    }
}

/// Room for one machine, given back when dropped.
#[derive(Debug)]
pub struct Promise {
    ledger: Ledger,
    claim: Claim,
    released: bool,
}

impl Ledger {
    /// The book of this host.
    #[must_use]
    pub fn new(settings: &HostSettings) -> Self {
        Self { path: settings.ledger(), limits: settings.limits }
    }

    /// Promises room to a machine that is about to start.
    ///
    /// # Errors
    ///
    /// [`HostError::NoRoom`] when the host has none now or could never have, else when the book
    /// cannot be used.
    pub(super) fn reserve(&self, claim: &Claim) -> Result<Promise, HostError> {
        let capacity = Capacity::within(&self.limits)
            .map_err(HostError::io("read", Path::new("/proc/meminfo")))?;
        self.edit(|entries| {
            room(&uses(entries), &capacity, claim, claim.needed(entries))?;
            entries.push(Entry { claim: claim.clone(), process: None });
            Ok(())
        })?;
        Ok(Promise { ledger: self.clone(), claim: claim.clone(), released: false })
    }

    /// Like [`Ledger::reserve`], but waits for room where it may come.
    pub(super) async fn wait_for_room(&self, claim: &Claim) -> Result<Promise, HostError> {
        loop {
            match self.reserve(claim) {
                Err(HostError::NoRoom(NoRoom::Now { .. })) => {
                    tokio::time::sleep(ROOM_INTERVAL).await;
                }
                other => return other,
            }
        }
    }

    /// What the machines that are `ours` may use together beside everything else on this host.
    pub(super) fn share(&self, ours: impl Fn(&Claim) -> bool) -> Result<Share, HostError> {
        let capacity = Capacity::within(&self.limits)
            .map_err(HostError::io("read", Path::new("/proc/meminfo")))?;
        let mut found = Vec::new();
        self.edit(|entries| {
            found.clone_from(entries);
            Ok(())
        })?;
        let (ours, others): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|entry| ours(&entry.claim));
        let ours_used = uses(&ours);
        let share = share(&capacity, &uses(&others), promised(&ours_used), || resident(&ours_used));
        Ok(Share {
            memory: ByteSize(share.memory.0.saturating_add(saved(&ours, &ours_used))),
            ..share
        })
    }

    /// How many machines run on this host, whoever's they are.
    pub(super) fn running(&self) -> Result<usize, HostError> {
        let mut running = 0;
        self.edit(|entries| {
            running = entries.iter().filter(|entry| entry.runs()).count();
            Ok(())
        })?;
        Ok(running)
    }

    /// Takes the promise to a machine over that runs already, from whoever had it. There is room
    /// for it, whatever the book says.
    pub(super) fn take_over(
        &self,
        claim: &Claim,
        process: ProcessIdentity,
    ) -> Result<Promise, HostError> {
        let mut claim = claim.clone();
        self.edit(|entries| {
            let before = entries.iter().find(|entry| entry.claim.vm == claim.vm);
            claim.clone = before.and_then(|entry| entry.claim.clone.clone());
            entries.retain(|entry| entry.claim.vm != claim.vm);
            entries.push(Entry { claim: claim.clone(), process: Some(process) });
            Ok(())
        })?;
        Ok(Promise { ledger: self.clone(), claim, released: false })
    }

    /// Takes the promise to a machine back.
    pub(crate) fn forget(&self, vm: VmId) -> Result<(), HostError> {
        if !self.path.exists() {
            return Ok(());
        }
        self.edit(|entries| {
            entries.retain(|entry| entry.claim.vm != vm);
            Ok(())
        })
    }

    /// Changes the book under its lock. The content is replaced as a whole; a book that was cut off
    /// by a crash of the host is begun anew, for its machines are gone as well.
    fn edit(
        &self,
        change: impl FnOnce(&mut Vec<Entry>) -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        let at = |action| HostError::io(action, &self.path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&self.path)
            .map_err(at("open"))?;
        file.lock().map_err(at("lock"))?;
        let mut text = Vec::new();
        (&file).take(LEDGER_BYTES).read_to_end(&mut text).map_err(at("read"))?;
        let mut entries: Vec<Entry> = serde_json::from_slice(&text).unwrap_or_default();
        entries.retain(|entry| Lock::is_held(&entry.claim.lock).unwrap_or(true) || entry.runs());
        change(&mut entries)?;
        let text = serde_json::to_vec(&entries).expect("entries have a JSON form");
        replace(&mut file, &text).map_err(at("write"))
    }
}

impl Promise {
    /// The machine that the room is for.
    #[must_use]
    pub fn vm(&self) -> VmId {
        self.claim.vm
    }

    /// The promised memory of the guest.
    #[must_use]
    pub fn memory(&self) -> ByteSize {
        self.claim.memory
    }

    /// The promised processors.
    #[must_use]
    pub fn cpus(&self) -> u32 {
        self.claim.cpus
    }

    /// Notes the process that now uses the promised memory.
    pub(crate) fn used_by(&self, process: ProcessIdentity) -> Result<(), HostError> {
        self.ledger.edit(|entries| {
            for entry in entries.iter_mut().filter(|entry| entry.claim.vm == self.claim.vm) {
                entry.process = Some(process);
            }
            Ok(())
        })
    }

    /// The same room for another machine, after the one that had it has gone.
    pub(crate) fn renew(mut self) -> Result<Self, HostError> {
        let next = Claim { vm: VmId::new(), ..self.claim.clone() };
        self.ledger.edit(|entries| {
            entries.retain(|entry| entry.claim.vm != self.claim.vm);
            entries.push(Entry { claim: next.clone(), process: None });
            Ok(())
        })?;
        self.released = true;
        Ok(Self { ledger: self.ledger.clone(), claim: next, released: false })
    }

    /// Leaves the entry in the book: the machine outlives this process, and whoever removes it
    /// forgets the entry.
    pub(crate) fn leave(mut self) {
        self.released = true;
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.released
            && let Err(error) = self.ledger.forget(self.claim.vm)
        {
            // The entry goes with its instance's lock at the latest.
            tracing::warn!(vm.id = %self.claim.vm, %error, "cannot give a machine's room back");
        }
    }
}

/// What one promise means for the host's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Use {
    promised: u64,
    /// Of which in use, and so no longer part of the memory that the host has available.
    resident: u64,
    cpus: u32,
}

/// What machines use: each, and each template of theirs once. A clone that wrote more than was
/// expected counts with what it wrote.
fn uses(entries: &[Entry]) -> Vec<Use> {
    let mut uses: Vec<Use> = Vec::new();
    let mut templates = HashSet::new();
    for entry in entries {
        let Entry { claim, process } = entry;
        let process = process.filter(|_| entry.runs());
        // What a clone has of its template only is in the template's file for all of them.
        let what = if claim.clone.is_some() { "RssAnon:" } else { "VmRSS:" };
        let resident = process.and_then(|process| resident_bytes(process.pid, what)).unwrap_or(0);
        let promised = if claim.clone.is_some() { claim.own().max(resident) } else { claim.own() };
        uses.push(Use { promised, resident, cpus: claim.cpus });
        // The system counts it as memory that it could have back, and should not take it back.
        if let Some(clone) = claim.clone.as_ref().filter(|clone| templates.insert(&clone.template))
        {
            uses.push(Use { promised: clone.shared.0, resident: 0, cpus: 0 });
        }
    }
    uses
}

/// What the machines of these uses could have and are not expected to use.
fn saved(entries: &[Entry], uses: &[Use]) -> u64 {
    let whole = entries.iter().map(|entry| entry.claim.memory.0.saturating_add(MACHINE_OVERHEAD));
    whole.fold(0, u64::saturating_add).saturating_sub(promised(uses))
}

/// A line of what the system says of a process' memory (proc(5), `status`).
pub(crate) fn resident_bytes(pid: i32, what: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(what))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn promised(uses: &[Use]) -> u64 {
    uses.iter().map(|one| one.promised).fold(0, u64::saturating_add)
}

fn resident(uses: &[Use]) -> u64 {
    uses.iter().map(|one| one.resident).fold(0, u64::saturating_add)
}

/// What is left beside others for an owner who was promised `ours` and uses `resident` of it, which
/// is asked for only where the host's own memory is scarcer than what machines may have.
fn share(capacity: &Capacity, others: &[Use], ours: u64, resident: impl FnOnce() -> u64) -> Share {
    let sum = |value: fn(&Use) -> u64| others.iter().map(value).fold(0, u64::saturating_add);
    let memory = capacity.memory.0.saturating_sub(sum(|other| other.promised));
    let to_come = sum(|other| other.promised.saturating_sub(other.resident));
    let available = capacity.available.0.saturating_sub(to_come);
    let memory = match available >= memory.saturating_sub(ours) {
        true => memory,
        false => memory.min(available.saturating_add(resident())),
    };
    let cpus = others.iter().map(|other| other.cpus).fold(0, u32::saturating_add);
    Share { memory: ByteSize(memory), cpus: capacity.cpus.saturating_sub(cpus) }
}

/// Whether a machine that needs so much fits beside the others.
fn room(uses: &[Use], capacity: &Capacity, claim: &Claim, needed: u64) -> Result<(), NoRoom> {
    let Claim { memory, cpus, .. } = *claim;
    // However little it is expected to write: it may write everywhere.
    let most = memory.0.saturating_add(MACHINE_OVERHEAD);
    if most > capacity.memory.0 || cpus > capacity.cpus {
        let most_memory = ByteSize(capacity.memory.0.saturating_sub(MACHINE_OVERHEAD));
        return Err(NoRoom::Never { memory, cpus, most_memory, most_cpus: capacity.cpus });
    }
    let sum = |value: fn(&Use) -> u64| uses.iter().map(value).fold(0, u64::saturating_add);
    let promised = promised(uses);
    let to_come = sum(|other| other.promised.saturating_sub(other.resident));
    let free = (capacity.memory.0.saturating_sub(promised))
        .min(capacity.available.0.saturating_sub(to_come));
    let used_cpus = uses.iter().map(|other| other.cpus).fold(0, u32::saturating_add);
    let free_cpus = capacity.cpus.saturating_sub(used_cpus);
    if needed <= free && cpus <= free_cpus {
        return Ok(());
    }
    Err(NoRoom::Now {
        memory,
        cpus,
        free_memory: ByteSize(free.saturating_sub(MACHINE_OVERHEAD)),
        free_cpus,
        promised: ByteSize(promised),
    })
}

fn replace(file: &mut File, text: &[u8]) -> io::Result<()> {
    file.rewind()?;
    file.write_all(text)?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use common::limits::GIB;

    use super::*;

    fn capacity() -> Capacity {
        Capacity { memory: ByteSize(8 * GIB), available: ByteSize(6 * GIB), cpus: 4 }
    }

    #[test]
    fn room_beside_others() {
        let idle = |gib: u64| Use { promised: gib * GIB, resident: 0, cpus: 1 };
        let busy = |gib: u64| Use { promised: gib * GIB, resident: gib * GIB, cpus: 1 };
        let check = |uses: &[Use], gib: u64, cpus: u32, expected: &str| {
            let claim = claim(Path::new("/"), gib * GIB, cpus);
            let found = match room(uses, &capacity(), &claim, claim.needed(&[])) {
                Ok(()) => "fits",
                Err(NoRoom::Never { .. }) => "never",
                Err(NoRoom::Now { .. }) => "not now",
            };
            assert_eq!(found, expected, "{uses:?} {gib} {cpus}");
        };
        check(&[], 5, 1, "fits");
        check(&[], 6, 1, "not now");
        check(&[], 7, 1, "not now");
        check(&[], 8, 1, "never");
        check(&[], 1, 5, "never");
        check(&[], u64::MAX / GIB, 1, "never");
        check(&[idle(3)], 2, 1, "fits");
        check(&[idle(3)], 3, 1, "not now");
        // What a machine uses already is not taken off twice.
        check(&[busy(3)], 4, 1, "fits");
        check(&[busy(3)], 5, 1, "not now");
        check(&[idle(1), idle(1), idle(1)], 1, 1, "fits");
        check(&[idle(1), idle(1), idle(1)], 1, 2, "not now");
    }

    #[test]
    fn a_share_beside_others() {
        let others = |gib: u64, resident: u64| {
            vec![Use { promised: gib * GIB, resident: resident * GIB, cpus: 1 }]
        };
        let check = |others: &[Use], ours: u64, resident: u64, gib: u64, cpus: u32| {
            let found = share(&capacity(), others, ours * GIB, || resident * GIB);
            assert_eq!(found, Share { memory: ByteSize(gib * GIB), cpus }, "{others:?} {ours}");
        };
        // Of eight, two are used by somebody who has no machine.
        check(&[], 0, 0, 6, 4);
        check(&[], 2, 0, 8, 4);
        check(&[], 1, 1, 7, 4);
        check(&others(3, 0), 0, 0, 3, 3);
        check(&others(3, 3), 0, 0, 5, 3);
        check(&others(3, 3), 2, 2, 5, 3);
        check(&others(9, 0), 0, 0, 0, 3);
        let many: Vec<Use> = (0..5).flat_map(|_| others(1, 1)).collect();
        check(&many, 0, 0, 3, 0);
    }

    #[test]
    fn guests_leave_room_for_their_qemu() {
        let share = Share { memory: ByteSize(8 * GIB), cpus: 4 };
        assert_eq!(share.for_guests(ByteSize(GIB)), ByteSize(8 * GIB - 4 * MACHINE_OVERHEAD));
        let share = Share { memory: ByteSize(GIB), cpus: 1000 };
        let guests = share.for_guests(ByteSize(256 * MIB));
        assert_eq!(guests, ByteSize(GIB - 3 * MACHINE_OVERHEAD));
        assert!(3 * (256 * MIB + MACHINE_OVERHEAD) <= share.memory.0);
        assert_eq!(Share { memory: ByteSize(5), cpus: 1 }.for_guests(ByteSize(GIB)), ByteSize(5));
        assert_eq!(Share { memory: ByteSize(0), cpus: 0 }.for_guests(ByteSize(0)), ByteSize(0));
    }

    #[test]
    fn a_share_is_what_others_leave() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, path) = ledger(directory.path());
        let _lock = Lock::create(&path).unwrap();
        let first = ledger.reserve(&claim(&path, MIB, 1)).unwrap();
        let ours = |claim: &Claim| claim.vm == first.vm();
        let all = ledger.share(ours).unwrap();
        let _other = ledger.reserve(&claim(&path, MIB, 1)).unwrap();
        let left = ledger.share(ours).unwrap();
        assert_eq!(left.cpus, all.cpus - 1);
    }

    fn ledger(directory: &Path) -> (Ledger, PathBuf) {
        (
            Ledger { path: directory.join("ledger"), limits: CapacityLimits::default() },
            directory.join("lock"),
        )
    }

    fn claim(lock: &Path, memory: u64, cpus: u32) -> Claim {
        let (instance, vm) = (InstanceId::new(), VmId::new());
        Claim { instance, vm, lock: lock.to_owned(), memory: ByteSize(memory), cpus, clone: None }
    }

    /// A clone of a gibibyte that is expected to write some of it.
    fn clone_of(template: &str, shared: u64, own: u64) -> Entry {
        let clone = CloneUse {
            template: template.to_owned(),
            shared: ByteSize(shared * MIB),
            own: ByteSize(own * MIB),
        };
        let claim = Claim { clone: Some(clone), ..claim(Path::new("/"), GIB, 1) };
        Entry { claim, process: None }
    }

    #[test]
    fn clones_count_with_what_they_write_and_their_template_once() {
        let (a, b) = (clone_of("a", 300, 100), clone_of("b", 200, 2000));
        let overhead = MACHINE_OVERHEAD / MIB;
        let needed = |entry: &Entry, beside: &[Entry]| entry.claim.needed(beside) / MIB;
        assert_eq!(needed(&a, &[]), 300 + 100 + overhead);
        assert_eq!(needed(&a, &[a.clone(), b.clone()]), 100 + overhead);
        assert_eq!(
            needed(&b, std::slice::from_ref(&a)),
            200 + 1024 + overhead,
            "not more than all of it"
        );
        let all = [a.clone(), a.clone(), b];
        let sum = 2 * (100 + overhead) + 300 + 1024 + overhead + 200;
        assert_eq!(promised(&uses(&all)) / MIB, sum);
        assert_eq!(saved(&all, &uses(&all)) / MIB, 3 * (1024 + overhead) - sum);
        // Ten clones where three machines that boot would have no room.
        let ten = vec![a.clone(); 10];
        let capacity = Capacity { cpus: 64, ..capacity() };
        room(&uses(&ten), &capacity, &a.claim, a.claim.needed(&ten)).unwrap();
        let whole = claim(Path::new("/"), 5 * GIB, 1);
        assert!(room(&uses(&ten), &capacity, &whole, whole.needed(&ten)).is_err());
    }

    #[test]
    fn a_clone_that_writes_more_than_expected_counts_with_what_it_wrote() {
        let process = ProcessIdentity::of(std::process::id().cast_signed()).unwrap();
        let frugal = Entry { process, ..clone_of("a", 0, 0) };
        let written = vec![1_u8; 256 * MIB as usize];
        assert!(uses(&[frugal])[0].promised >= 256 * MIB, "{}", written.len());
    }

    fn entries(ledger: &Ledger) -> usize {
        let mut count = 0;
        ledger
            .edit(|entries| {
                count = entries.len();
                Ok(())
            })
            .unwrap();
        count
    }

    #[test]
    fn promises_end_with_their_holder_or_their_instance() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, path) = ledger(directory.path());
        let lock = Lock::create(&path).unwrap();
        let reserve = || ledger.reserve(&claim(&path, MIB, 1));
        let first = reserve().unwrap();
        assert_eq!((entries(&ledger), first.memory(), first.cpus()), (1, ByteSize(MIB), 1));
        drop(first);
        assert_eq!(entries(&ledger), 0);

        reserve().unwrap().leave();
        assert_eq!(entries(&ledger), 1);
        drop(lock);
        // A test beside this one may be between fork and exec, where its child still has the lock.
        drop(Lock::wait(&path).unwrap());
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while entries(&ledger) > 0 {
            assert!(std::time::Instant::now() < deadline, "nobody holds the instance's lock");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_promise_to_a_machine_that_runs_is_neither_lost_nor_doubled() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, path) = ledger(directory.path());
        let lock = Lock::create(&path).unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let process = ProcessIdentity::of(child.id().cast_signed()).unwrap().unwrap();
        let claim = claim(&path, MIB, 1);
        let promise = ledger.reserve(&claim).unwrap();
        promise.used_by(process).unwrap();
        promise.leave();
        drop(lock);
        // A test beside this one may be between fork and exec, where its child still has the lock.
        drop(Lock::wait(&path).unwrap());
        assert_eq!(entries(&ledger), 1, "the machine runs without an owner");

        let _lock = Lock::wait(&path).unwrap().unwrap();
        let promise = ledger.take_over(&claim, process).unwrap();
        assert_eq!((entries(&ledger), promise.vm()), (1, claim.vm));
        drop(promise);
        assert_eq!(entries(&ledger), 0, "the new owner gives it back");
        let promise = ledger.take_over(&claim, process).unwrap();
        assert_eq!(entries(&ledger), 1, "a promise that was lost is made again");
        drop(promise);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_book_that_was_cut_off_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, path) = ledger(directory.path());
        let _lock = Lock::create(&path).unwrap();
        std::fs::write(&ledger.path, "[{\"instance\": ").unwrap();
        let promise = ledger.reserve(&claim(&path, MIB, 1)).unwrap();
        assert_eq!(entries(&ledger), 1);
        drop(promise);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_at_once_where_room_never_comes() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, path) = ledger(directory.path());
        let error = ledger.wait_for_room(&claim(&path, u64::MAX, 1)).await.unwrap_err();
        assert!(matches!(error, HostError::NoRoom(NoRoom::Never { .. })), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_when_another_machine_ends() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, path) = ledger(directory.path());
        let _lock = Lock::create(&path).unwrap();
        let host = Capacity::of_host().unwrap();
        let all = ledger.wait_for_room(&claim(&path, MIB, host.cpus)).await.unwrap();
        let one = claim(&path, MIB, 1);
        let second = ledger.wait_for_room(&one);
        tokio::pin!(second);
        tokio::select! {
            biased;
            _ = &mut second => panic!("all processors are promised"),
            () = tokio::time::sleep(ROOM_INTERVAL * 3) => {}
        }
        drop(all);
        second.await.unwrap();
    }
}
