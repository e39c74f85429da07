//! What the store does, once for both databases. Each function is one call of the store inside a
//! transaction that its caller ends.

pub(super) mod arriving;
pub(super) mod boots;
pub(super) mod claiming;
pub(super) mod ending;
pub(super) mod hosts;
pub(super) mod leased;
pub(super) mod reading;
pub(super) mod reservations;

#[cfg(test)]
mod plans;
