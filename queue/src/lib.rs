//! What crosses between forge runners and orchestrators.
//!
//! [`message`] is the wire form of everything that is queued, [`seal`] keeps bodies and events
//! unreadable for whoever carries them, and [`Queue`] is the transport in two forms: [`embedded`]
//! in one process, [`rabbit`] between many. Both keep one contract, which one suite of tests checks.
//!
//! Nothing here knows a forge's protocol, a machine, or what a job does.

mod address;
mod delivery;
pub mod embedded;
mod error;
pub mod message;
mod queue;
pub mod rabbit;
pub mod seal;
mod sequence;

pub use address::{Address, AddressError};
pub use delivery::{ControlReceiver, Delivery, EventReceiver, Heard, JobReceiver, Replier};
pub use error::QueueError;
pub use queue::{DeadLetter, Queue, RESERVE_ANSWER};
pub use sequence::{SequenceError, Sequencer};
