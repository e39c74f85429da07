//! What several Solstice processes share on one host.
//!
//! An [`Instance`] is one process's claim: a state directory whose lock file is held as long as the
//! process lives, and a runtime directory on tmpfs for sockets and keys. Its random id stands in the
//! `-name` of each of its QEMU processes, so whatever a dead process left behind can be found and
//! removed without touching anybody else's machines:
//!
//! ```text
//!  <state>/instances/<instance>/lock                    held with flock by the owner
//!  <state>/instances/<instance>/service.json            of a service: marks it as such
//!  <state>/instances/<instance>/machines/<vm>/          record.json, disk.qcow2
//!  <runtime>/<instance>/last-seen                       of a service: when its owner was there
//!  <runtime>/<instance>/<short vm>/                     qmp, seed.iso, console.log, qemu.log, login-key
//!  <runtime>/ledger                                     memory and processors promised on this host
//! ```
//!
//! The [`Ledger`] keeps instances from promising the same memory twice, the [`watchdog`] cleans up
//! after an owner that was killed, and [`kept`] finds machines that outlive their job on purpose.
//! The [instance of a service](Instance::open_service) has the same id each time the service runs;
//! its machines are left alone for a while after its end, so that it can
//! [adopt](crate::machine::Machine::adopt) them.
//! Nothing here reads the environment; everything comes from [`HostSettings`].

mod acceleration;
mod capacity;
mod dead;
mod disk;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod files;
mod found;
mod grace;
mod instance;
pub mod kept;
mod layout;
mod ledger;
mod lock;
mod login_key;
mod name;
mod probe_rom;
mod process;
mod qemu;
mod reconcile;
mod record;
mod service;
mod settings;
pub mod watchdog;

pub use acceleration::{Acceleration, Accelerator};
pub use capacity::{Capacity, CapacityLimits};
pub use dead::{SweepReport, sweep_dead};
pub use disk::{DiskShort, check_reserve, free_space, is_on_tmpfs};
pub use error::HostError;
pub use found::FoundMachine;
pub use grace::SERVICE_GRACE;
pub use instance::Instance;
pub(crate) use ledger::resident_bytes;
pub use ledger::{CloneUse, Ledger, Need, NoRoom, Promise, Share};
pub use name::MachineName;
pub use qemu::{MINIMUM_QEMU, Qemu, QemuMissing, QemuVersion};
pub use settings::HostSettings;

pub(crate) use error::is_full;
pub(crate) use files::{
    Trust, create_private_directory, make_directory, read_bounded, remove_directory, write_private,
};
pub(crate) use instance::Owned;
pub(crate) use layout::MachinePaths;
pub(crate) use login_key::read_login_key;
pub(crate) use process::{Process, ProcessIdentity};
pub(crate) use record::{Adoption, Keep, Record, RecordedShape};
