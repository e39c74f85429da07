//! Containers of a job: `container`, `services`, and actions that run in one
//! (github-runner-protocol 8.7).
//!
//! ```text
//!  first step ─▶ network ─▶ services ─▶ job's container ─▶ health ─▶ steps ─▶ ... ─▶ all removed
//!                           └── login, pull, create, start ──┘          │
//!                                                 exec (run, JavaScript)┘ run (Docker actions)
//! ```
//!
//! The container engine is `docker` or `podman`, whichever the machine has, driven by its command
//! line through [`crate::system::System`]. Everything that is made carries the job's label or name, so
//! that the end of the job finds it. Nothing secret stands in a command line.

mod arguments;
mod contexts;
mod drive;
mod health;
mod image;
mod inside;
mod network;
mod paths;
mod reach;
mod spec;
mod start;
mod state;
mod tool;
mod words;

pub(super) use arguments::{Arguments, of_workflow};
pub(super) use drive::Trouble;
pub(super) use inside::{Inside, relayed};
pub(super) use paths::PathMap;
pub(super) use start::CONTAINER_HOME;
pub(super) use state::Containers;
pub(super) use words::split;
