//! The image catalogue and the image store, from outside: against a server of the test's own.

#[path = "images/catalogue.rs"]
mod catalogue;
#[path = "images/server.rs"]
mod server;
#[path = "images/store.rs"]
mod store;
