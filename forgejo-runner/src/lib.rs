//! The runner protocol of Forgejo and Gitea on one side, JobRequest and JobEvent on the other.

mod label;
mod settings;

pub use label::{Label, LabelError};
pub use settings::{Connection, RunnerSettings, Trust};
