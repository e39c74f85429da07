//! The image catalogue and the image store, from outside: against a server of the test's own.

#![expect(clippy::unwrap_used, reason = "the whole file is tests and their helpers")]

#[path = "images/catalogue.rs"]
mod catalogue;
#[path = "images/server.rs"]
mod server;
#[path = "images/store.rs"]
mod store;
