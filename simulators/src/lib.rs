//! What tests put in the place of the world: throw-away brokers and databases, scripted guests, a
//! [forge](forgejo).
//!
//! [`RabbitServer`] and [`PostgresServer`] are the real programs, each in a directory of its own
//! with ports of its own. Dropping one ends its processes and removes its directory; a watchdog
//! does the same when the test process is killed. Nothing here knows what the servers are used for.
//!
//! A test that only needs *a* server takes the `shared` one of its process, with a prefix or a
//! database of its own. A test that kills its server starts one for itself.

mod account;
mod dice;
mod error;
pub mod forgejo;
mod git;
mod installation;
pub mod jobs;
mod place;
mod ports;
mod postgres;
mod rabbit;
mod scripted;

pub use dice::dice;
pub use error::ServerError;
pub use git::{GitServer, Repositories, history};
pub use installation::{Installation, Server};
pub use postgres::PostgresServer;
pub use rabbit::RabbitServer;
pub use scripted::{Boot, BootEnd, ScriptedHost};
