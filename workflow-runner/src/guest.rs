//! The guest program: runs one job inside a machine and keeps its events until the host has them.
//!
//! ```text
//!  workflow-runner start ──spawns──▶ workflow-runner daemon (own session)
//!     job document on stdin            │ engine ──events──▶ spool ──▶ connection
//!                                      │ socket in the run directory      ▲
//!  workflow-runner attach ◀────────────┴──────────── bytes ───────────────┘
//! ```
//!
//! [`start()`] hands the job document to the [`daemon()`] over a pipe, so that it never lies in a file,
//! an environment or an argument. The daemon owns the job's run directory, which
//! [`common::guest::RUN_DIRECTORY`] holds, and serves one connection after the other on a socket in
//! it. [`attach()`] copies bytes between that socket and its own standard input and output; the
//! conversation itself is described in [`common::guest`]. [`unpack()`] places the user's working
//! tree before the job starts. [`personal()`] waits in a template for the clone that it will be.

mod attach;
mod calls;
mod connection;
mod daemon;
mod document;
mod error;
mod forwarder;
mod host;
mod house;
#[cfg(test)]
mod house_tests;
mod personal;
mod protect;
mod random;
mod run_directory;
mod spool;
mod start;
mod unpack;

use std::path::PathBuf;

pub use attach::{attach, refuse};
pub use daemon::daemon;
pub use error::GuestError;
pub use personal::personal;
pub use start::start;
pub use unpack::{unpack, unpack_packed};

/// The variable that names another place than [`common::guest::RUN_DIRECTORY`], for tests.
pub const RUN_DIRECTORY_VARIABLE: &str = "SOLSTICE_GUEST_RUN_DIR";

/// The directory below which run directories lie: `setting`, the value of
/// [`RUN_DIRECTORY_VARIABLE`], or [`common::guest::RUN_DIRECTORY`] without one.
#[must_use]
pub fn run_base(setting: Option<std::ffi::OsString>) -> PathBuf {
    setting
        .filter(|path| !path.is_empty())
        .map_or_else(|| PathBuf::from(common::guest::RUN_DIRECTORY), PathBuf::from)
}

/// What distinguishes this build from others of the same version: a hash of its sources given when
/// it was built, or the version where none was given.
#[must_use]
pub fn build_id() -> &'static str {
    option_env!("SOLSTICE_BUILD_ID").unwrap_or(env!("CARGO_PKG_VERSION"))
}
