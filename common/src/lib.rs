//! The types that cross the borders between the parts of Solstice.
//!
//! Pure data: no I/O, no C, no TLS, because the guest program links it as well.
//! It knows the shape of a job ([`plan`], [`request`]), of what comes back ([`event`]), of the
//! conversation between the orchestrator and the guest program ([`guest`], [`frame`]), and every
//! bound on untrusted bytes ([`limits`]). It knows no forge protocol, no virtual machine and no
//! queue.

pub mod call;
pub mod event;
pub mod frame;
pub mod guest;
pub mod ids;
pub mod infrastructure;
pub mod limits;
pub mod personal;
pub mod plan;
pub mod request;
pub mod size;
pub mod text;
pub mod time;

pub use ids::{HostId, InstanceId, JobId, LeaseId, ReservationId, RunId, VmId};
pub use text::LogText;
pub use time::Timestamp;
