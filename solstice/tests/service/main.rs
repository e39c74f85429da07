//! Stories about the durable service: `solstice serve` with scripted guests, killed, cut and starved
//! in every way, and what must hold all the same.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod adoption;
mod bad_input;
mod bad_messages;
mod chaos;
mod clock;
mod disk;
mod ending;
mod faults;
mod forgejo;
mod harness;
mod keys;
mod operators;
mod recorded;
mod runners;
mod services;
mod shared;
mod two_of_one;
