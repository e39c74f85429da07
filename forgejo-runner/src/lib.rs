//! The runner protocol of Forgejo and Gitea on one side, JobRequest and JobEvent on the other.

pub mod client;
mod label;
pub mod report;
mod settings;
pub mod translate;

pub use label::{Label, LabelError};
pub use settings::{Connection, RunnerSettings, Trust};
