//! Workflows in real guests, as a user runs them: `solstice run` in a directory of its own.
//!
//! Needs the images `tiny`, `debian-12`, `debian-12-node` and `debian-12-podman`: `make test` builds
//! them. Each test reads as a story: a workflow, what happens, what the user saw. At the end of each the
//! harness checks that nothing is left behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod actions;
mod bad_input;
mod containers;
mod everyday;
mod examples;
mod faults;
mod forgejo;
mod frozen;
mod harness;
mod load;
mod machines;
mod node;
mod project;
mod service;
mod services;
mod templates;
mod terminals;
