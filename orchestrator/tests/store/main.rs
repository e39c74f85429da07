//! The store's contract: the same tests on SQLite and on a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod accepting;
mod claiming;
mod clocks;
mod crashes;
mod dump;
mod ending;
mod harness;
mod hosts;
mod leases;
mod migrations;
mod reading;
mod reservations;
mod speed;
