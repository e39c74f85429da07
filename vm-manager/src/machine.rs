//! One QEMU process, from its start to the removal of its last file.
//!
//! ```text
//!  start ──▶ starting ──▶ waiting for guest ──▶ ready ──▶ stopping ──▶ gone
//!               │                │                │           ▲
//!               └────────────────┴────────────────┴───────────┘
//! ```
//!
//! - *starting*: room is promised, files are made, QEMU runs and its monitor answers
//!   ([`Machine::start`]).
//! - *waiting for guest*: the console is followed and the forwarded port is tried until an SSH server
//!   shows itself and lets us in ([`Machine::wait_ready`]).
//! - *ready*: the caller works over SSH and watches [`Machine::ended`]; whatever ends the machine is
//!   noted there once, as the first sign of it.
//! - *stopping*: by request ([`Machine::stop`]), at once ([`Machine::destroy`]), or by dropping the
//!   value, which blocks for the few milliseconds that it takes. Nothing stays behind on any path.
//!
//! A machine outlives its owner in two ways. [`Machine::keep`] leaves it to its user. And a
//! [service](crate::host::Instance::open_service) that starts adoptable machines and is killed, or
//! [leaves](Machine::leave) them, takes them up again with [`Machine::adopt`]. Any other machine
//! whose owner was killed is found by its [record](crate::host) and ended by the watchdog or the next
//! program.

mod adopt;
mod adopt_error;
mod arguments;
mod birth;
mod body;
pub mod console;
mod ended;
mod error;
mod freeze;
mod launch;
mod login;
mod migration;
mod origin;
mod overlay;
mod personalise;
mod port;
pub mod qmp;
mod ready;
mod restored;
mod shape;
mod spec;
mod start;
mod status;
mod stop;
pub(crate) mod stream;
mod watcher;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::ids::VmId;
use common::infrastructure::Infrastructure;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

pub use self::adopt_error::AdoptError;
pub use self::birth::Birth;
pub use self::console::{Console, ConsoleCause, ConsoleLines};
pub use self::ended::Ended;
pub use self::error::MachineError;
pub use self::origin::Origin;
pub use self::port::Port;
pub use self::restored::Restored;
pub(crate) use self::shape::Shape;
pub use self::spec::MachineSpec;
pub use crate::system::{Limits, Privileges};

use self::body::Body;
use self::ended::EndedCell;
use self::qmp::Qmp;
use crate::host::{Accelerator, MachineName};
use crate::ssh::Keys;
use crate::template::Template;

/// A running machine. Dropping it ends QEMU and removes every file.
#[derive(Debug)]
pub struct Machine {
    name: MachineName,
    /// The user to log in as.
    user: String,
    /// The command in front of another that runs it as root.
    privilege: Vec<String>,
    address: SocketAddr,
    keys: Keys,
    adoptable: bool,
    /// Only a restored machine has one.
    birth: Option<Birth>,
    /// That of which it is a clone.
    template: Option<Arc<Template>>,
    accelerator: Accelerator,
    console: Console,
    ended: Arc<EndedCell>,
    /// Absent if it had ended before it was adopted.
    qmp: Option<Arc<Qmp>>,
    /// Follow the console and the process. Before the body: they end first.
    _tasks: Vec<AbortOnDropHandle<()>>,
    body: Body,
}

impl Machine {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> VmId {
        self.name.vm
    }

    /// The name that its process carries.
    #[must_use]
    pub fn name(&self) -> MachineName {
        self.name
    }

    /// The host's end of the forwarding to the guest's SSH port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The keys with which the guest is reached.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// How the guest is run, and why not faster.
    #[must_use]
    pub fn accelerator(&self) -> &Accelerator {
        &self.accelerator
    }

    /// The process id of its QEMU, for measurements and messages. Never send it a signal: use
    /// [`Machine::destroy`].
    #[must_use]
    pub fn process_id(&self) -> Option<i32> {
        self.body.process().map(|process| process.identity().pid)
    }

    /// Whether it is a clone of a template, in which a guest program is already.
    #[must_use]
    pub fn is_clone(&self) -> bool {
        self.birth.is_some()
    }

    /// What is known of a clone's way to a machine of its own; absent for every other machine, and
    /// for one that was [adopted](Machine::adopt).
    #[must_use]
    pub fn birth(&self) -> Option<&Birth> {
        self.birth.as_ref()
    }

    /// Its serial console.
    #[must_use]
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// How it ended, as soon as it has.
    #[must_use]
    pub fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.ended.subscribe()
    }

    /// How it ended as its kernel told it on the console, for a machine that is silent and that QEMU
    /// still runs: one that halted, that waits in its kernel's debugger, or whose power could not be
    /// switched. Any process with the rights of root in the guest can write the same words.
    #[must_use]
    pub fn told_end(&self) -> Option<Ended> {
        Ended::told(&self.console)
    }

    /// What an end means for the job, with the console's last lines.
    #[must_use]
    pub fn failure(&self, ended: &Ended) -> Infrastructure {
        error::ended(ended, &self.console)
    }

    /// Stops the guest's processors: it stands still and answers nothing.
    ///
    /// # Errors
    ///
    /// When QEMU refuses or does not answer.
    pub async fn pause(&self) -> Result<(), qmp::QmpError> {
        self.command("stop").await
    }

    /// Lets a paused guest go on.
    ///
    /// # Errors
    ///
    /// When QEMU refuses or does not answer.
    pub async fn resume(&self) -> Result<(), qmp::QmpError> {
        self.command("cont").await
    }

    async fn command(&self, name: &'static str) -> Result<(), qmp::QmpError> {
        self.command_within(name, qmp::COMMAND_DEADLINE).await
    }

    async fn command_within(
        &self,
        command: &'static str,
        deadline: Duration,
    ) -> Result<(), qmp::QmpError> {
        let qmp = self.qmp.as_ref().ok_or(qmp::QmpError::Closed { command })?;
        qmp.execute(command, serde_json::Value::Null, deadline).await.map(drop)
    }
}

/// How many of the console's last lines stand in an error.
const CONSOLE_TAIL_LINES: usize = 30;
