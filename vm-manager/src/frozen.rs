//! Frozen machines: guests that were kept for their user, saved to files, so that they hold no
//! memory, and continued later.
//!
//! ```text
//! frozen/
//!   <name>/          machine.json (no secret), and sealed: `login-key`, `seed`, `disk`, `guest`
//!                    for a clone also template.qcow2 (and base.qcow2): the disks below its own
//!   partial/<id>/    one in the making; partial/<id>.lock is held by its maker
//! ```
//!
//! What was in the guest is on the host's disk only as a caller's [`Cipher`] sealed it. A frozen
//! machine becomes one in a single step, the renaming of its directory; it is removed when its time is
//! over.

mod error;
mod save;
mod sealed;
mod store;
mod thaw;

pub use error::FrozenError;
pub use save::freeze;
pub use sealed::Cipher;
pub use store::{FrozenMachine, FrozenStore};
pub use thaw::Thaw;
