//! The daemon against a simulated forge, with hosts that do what each test says
//! (forgejo-runner-protocol 11.4).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod bad_input;
mod chaos;
mod fetching;
mod harness;
mod logs;
mod recovery;
mod shutdown;
mod states;
mod transport;
