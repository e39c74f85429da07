//! The commands that ask the service, against a service without machines: the real program, the real
//! API, a real socket.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../orchestrator/src/api/tests/backend.rs"]
mod backend;
mod harness;
mod logs;
mod other_services;
mod run;
mod tables;

// What the backend of the tests needs, under the names that it has in its own crate.
use orchestrator::{api, store};
