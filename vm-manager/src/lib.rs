//! Images, QEMU machines, and the SSH connection to a guest.
//!
//! [`image`] knows what can be booted and keeps it on disk; [`host`] is the state directory, the
//! lock and the ledger that let several Solstice processes share a host; [`machine`] starts, watches
//! and ends one QEMU process; [`template`] keeps guests that were frozen, to start machines from;
//! [`ssh`] is the connection into a guest.
//! Nothing here knows a forge, a workflow or a job.

pub mod frozen;
pub mod host;
pub mod image;
pub mod machine;
pub mod seed;
pub mod ssh;
mod system;
pub mod template;
