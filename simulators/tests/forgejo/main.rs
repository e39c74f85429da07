//! The simulated Forgejo over the wire, with the generated client.

#![expect(clippy::unwrap_used, reason = "a test ends where its story does")]

mod client;
mod faults;
mod fetch;
mod life;
mod report;
mod rest;
