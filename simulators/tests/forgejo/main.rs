//! The simulated Forgejo over the wire, with the generated client.

#![expect(clippy::unwrap_used, reason = "a test ends where its story does")]

mod artifacts;
mod artifacts_older;
mod client;
mod faults;
mod fetch;
mod id_token;
mod job;
mod life;
mod report;
mod rest;
