//! The scripted guest: that the host cannot tell it from a real one, and that it does what a script
//! says. Every test has directories of its own and asserts that nothing is left in them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

#[path = "scripted/attach.rs"]
mod attach;
#[path = "scripted/calls.rs"]
mod calls;
#[path = "scripted/host.rs"]
mod host;
#[path = "scripted/machine.rs"]
mod machine;
#[path = "scripted/process.rs"]
mod process;
