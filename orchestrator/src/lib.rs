//! Takes JobRequests, owns their machines, and streams their events.
//!
//! [`Service`] is the durable form: jobs from a queue, their state in a database, their logs in
//! journals, all of which outlive the process. [`Orchestrator`] runs jobs for one process and keeps
//! nothing. Both carry a job through in the same way: [`events`] and [`masking`] are everything that
//! goes out, [`attach`] is the conversation with the guest program, [`tree`] packs a local working
//! tree, [`lifecycle`] says what to do about a job that was left.
//! Nothing here knows a runner protocol, and QEMU, QMP and SSH belong to `vm-manager`.

mod answer;
pub mod api;
mod artifacts;
pub mod attach;
mod blob;
mod cache;
mod calls;
pub mod clock;
pub mod events;
mod fetch;
mod freezing;
mod job;
pub mod journal;
pub mod lifecycle;
mod machines;
pub mod masking;
pub mod metrics;
mod placing;
pub mod program;
mod record;
mod segment;
pub mod service;
mod standalone;
mod steps;
pub mod store;
mod templates;
pub mod tree;

pub use cache::CacheSettings;
pub use fetch::{FetchSettings, Origin};
pub use freezing::Keys;
pub use job::JobControl;
pub use machines::{Patience, Settings};
pub use service::{Service, ServiceSettings};
pub use standalone::Orchestrator;
pub use templates::TemplateSettings;
