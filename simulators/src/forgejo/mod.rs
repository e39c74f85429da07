//! A Forgejo or Gitea for tests of runners: the server's side of the runner protocol, and what a user
//! would see of its runs.
//!
//! [`Forge`] is one server on a port of its own, with its state in memory. It is written after the
//! protocol's description, which comments call `forgejo-runner-protocol`, and shares nothing with the
//! runner but the generated messages. A [`Profile`] says which server it is like, a [`Scope`] whose jobs
//! a runner gets. A test tells a story:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use simulators::forgejo::{Fault, Forge, Profile, Rpc, Scope, Status};
//! # async fn story() {
//! let forge = Forge::start(Profile::V15).await;
//! let identity = forge.create_runner("one", Scope::Global);
//! forge.faults().next(Rpc::UpdateLog, Fault::DropResponse);
//! // A runner with this identity is started at `forge.url()` here.
//! let run = forge.push_workflow("acme/widget", "ci.yml", "jobs: {a: {runs-on: vm, steps: [{run: make}]}}");
//! let view = forge.wait_for_run(run, Duration::from_secs(20)).await;
//! assert_eq!(view.job("a").step("make").status, Status::Success);
//! forge.assert_no_violations();
//! # let _ = identity;
//! # }
//! ```
//!
//! What happens, from the outside in:
//!
//! - `server` has the connections. Every call goes into the record ([`Forge::calls`]) and may get a
//!   [`Fault`].
//! - `service` has the calls of the protocol, `rest` the few of the REST API. `artifacts` and `id_token`
//!   are what jobs use themselves, with the `runtime_token` of their task.
//! - `runners`, `fetch`, `log` and `task` have the rules of the calls, `lifecycle` those by which jobs
//!   let each other go, `reaper` those by the [`Clock`].
//! - `workflow`, `matrix`, `expression`, `yaml` and `emit` make jobs and payloads of workflow files,
//!   `context` makes the rest of a task.
//! - `view` is what the pages show ([`RunView`]); `conduct` finds what no client may do, though the
//!   server bears it ([`Forge::violations`]).
//!
//! Waiting is by events: everything that changes the state wakes who waits.
//!
//! Left out: expansion of reusable workflows (a job that a newer server would expand is refused),
//! filters of `on` (a [`Trigger`] always fits), approval of pull requests, schedules, commit status, the
//! time for which artifacts are kept, the public key of ID tokens, the pages themselves, and expressions
//! that a server would not evaluate.

mod artifacts;
mod calls;
mod clock;
mod conduct;
mod context;
mod emit;
mod expression;
mod faults;
mod fetch;
mod forge;
mod id_token;
mod json_web_token;
mod lifecycle;
mod log;
mod matrix;
mod profile;
mod reaper;
mod rest;
mod runners;
mod runtime_token;
mod server;
mod service;
mod state;
mod status;
mod task;
mod trigger;
mod view;
mod workflow;
mod yaml;

pub use artifacts::ArtifactView;
pub use calls::{Answer, Call, Rpc};
pub use clock::Clock;
pub use faults::{Fault, FaultSwitch, Hold};
pub use forge::{Builder, Forge};
pub use log::Row;
pub use profile::Profile;
pub use runners::Identity;
pub use state::Scope;
pub use status::Status;
pub use trigger::{RunId, Trigger};
pub use view::{JobView, RunView, StepView};
