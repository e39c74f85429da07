//! The runner protocol of Forgejo and Gitea on one side, JobRequest and JobEvent on the other.

pub mod client;
mod daemon;
mod events;
mod fetch;
pub mod identity;
mod journal;
mod label;
mod metrics;
pub mod report;
mod settings;
mod state;
mod task;
pub mod translate;

pub use daemon::{Runner, StartError};
pub use fetch::OneJob;
pub use label::{Label, LabelError};
pub use settings::{Connection, Patience, RunnerSettings, Trust};
