//! Takes JobRequests, owns their machines, and streams their events.
//!
//! [`Orchestrator::run`] takes one job from its request to its final event. [`events`] and
//! [`masking`] are everything that goes out; [`attach`] is the conversation with the guest program;
//! [`tree`] packs a local working tree.
//! Nothing here knows a runner protocol, and QEMU, QMP and SSH belong to `vm-manager`.

pub mod attach;
pub mod events;
mod job;
mod machines;
pub mod masking;
mod placing;
pub mod program;
mod steps;
pub mod tree;

pub use job::JobControl;
pub use machines::{Orchestrator, Settings};
