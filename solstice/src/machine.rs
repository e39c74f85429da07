//! Fresh and kept machines for `shell` and `cp`.

use std::sync::Arc;
use std::time::Duration;

use common::size::ByteSize;
use tokio::time::{Instant, sleep};
use vm_manager::host::kept::{self, KeptMachine};
use vm_manager::host::watchdog::{self, Watchdog};
use vm_manager::host::{HostError, HostSettings, Instance};
use vm_manager::image::{Entry, Image};
use vm_manager::machine::{Machine, MachineSpec};
use vm_manager::ssh::Guest;

use crate::exit::CommandError;
use crate::host::{host_settings, watchdog_command};
use crate::image::{catalogue, ensure};
use crate::message;
use crate::settings::Settings;
use crate::waiting::Waiting;

/// How long a kept machine's SSH server may take to answer.
const CONNECT: Duration = Duration::from_secs(60);

/// How long a connection that breaks before anybody is logged in is made again: a guest that is busy
/// may refuse one or let it drop.
const RECONNECT: Duration = Duration::from_secs(15);
/// The pause between two of them.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// How long the watchdog may take to see that its instance is closed.
const WATCHDOG_END: Duration = Duration::from_secs(5);

/// The machine that is kept under a name.
///
/// # Errors
/// There is none, and the text has the names that there are; or its key cannot be read.
pub(crate) fn kept_machine(settings: &Settings, name: &str) -> Result<KeptMachine, CommandError> {
    kept::find(&host_settings(settings), name).map_err(|error| kept_error(&error))
}

/// As errors of the host, but a wrong name is the user's.
pub(crate) fn kept_error(error: &HostError) -> CommandError {
    match error {
        HostError::NotKept { .. } => CommandError::usage(error.to_string()),
        _ => CommandError::infrastructure(error.to_string()),
    }
}

/// Logs in to a kept machine. Commands run as root.
///
/// # Errors
/// Its SSH server does not answer or does not let us in.
pub(crate) async fn connect(
    settings: &Settings,
    machine: &KeptMachine,
) -> Result<Guest, CommandError> {
    let until = Instant::now() + RECONNECT;
    let guest = loop {
        match Guest::connect(machine.address, &machine.user, &machine.keys, CONNECT).await {
            Ok(guest) => break guest,
            Err(error) if error.is_disconnected() && Instant::now() < until => {
                tracing::debug!(%error, "connecting to the kept machine again");
                sleep(RECONNECT_PAUSE).await;
            }
            Err(error) => return Err(CommandError::infrastructure(error.to_string())),
        }
    };
    // The image may be gone from the catalogue meanwhile; then commands run as the user.
    let entry = catalogue(settings)?.get(&machine.label);
    Ok(match entry {
        Ok(entry) => guest.with_privilege(&entry.privilege),
        Err(_) => guest,
    })
}

/// A machine of our own, gone when it is closed, dropped, or this process ends.
#[derive(Debug)]
pub(crate) struct FreshMachine {
    machine: Machine,
    claim: Claim,
}

/// What the machine's owner holds on this host.
#[derive(Debug)]
pub(crate) struct Claim {
    instance: Arc<Instance>,
    watchdog: Option<Watchdog>,
}

impl FreshMachine {
    /// Fetches the image, starts a machine and waits until it lets us in.
    ///
    /// # Errors
    /// Each step can fail; nothing is left then.
    pub(crate) async fn start(
        settings: &Settings,
        entry: &Arc<Entry>,
        cpus: Option<u32>,
        memory: Option<ByteSize>,
    ) -> Result<(Self, Guest), CommandError> {
        let image = ensure(settings, entry, false).await?;
        let _waiting = Waiting::start(&format!("booting {}", entry.label));
        let claim = Claim::make(settings).await?;
        let started = boot(&claim.instance, image, cpus, memory).await;
        match started {
            Ok((machine, guest)) => Ok((Self { machine, claim }, guest)),
            Err(error) => {
                claim.give_back().await;
                Err(error)
            }
        }
    }

    /// Waits until the machine has ended by itself, and says how.
    pub(crate) async fn ended(&self) -> CommandError {
        let mut ended = self.machine.ended();
        let end = ended.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        let text = match end {
            Some(end) => self.machine.failure(&end).to_string(),
            None => "the machine ended".to_owned(),
        };
        CommandError::infrastructure(text)
    }

    /// Removes the machine.
    pub(crate) async fn close(self) {
        self.machine.destroy().await;
        self.claim.give_back().await;
    }
}

async fn boot(
    instance: &Arc<Instance>,
    image: Image,
    cpus: Option<u32>,
    memory: Option<ByteSize>,
) -> Result<(Machine, Guest), CommandError> {
    let failed = |error: vm_manager::machine::MachineError| {
        let cause = error.infrastructure();
        CommandError::infrastructure(format!("{}: {}", cause.cause.code(), cause.message))
            .hint(cause.cause.cure())
    };
    let ceiling = image.entry.boot_ceiling;
    let mut spec = MachineSpec::of(Arc::new(image), "solstice-shell");
    spec.cpus = cpus.unwrap_or(spec.cpus);
    spec.memory = memory.unwrap_or(spec.memory);
    let machine = Machine::start(instance, spec).await.map_err(failed)?;
    let guest = machine.wait_ready(ceiling).await.map_err(failed)?;
    Ok((machine, guest))
}

impl Claim {
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    pub(crate) async fn make(settings: &Settings) -> Result<Self, CommandError> {
        let failed = |error: HostError| CommandError::infrastructure(error.to_string());
        let host = host_settings(settings);
        sweep(host.clone()).await;
        let instance = Instance::create(&host).map_err(failed)?;
        let watchdog = match watchdog_command(settings) {
            None => None,
            Some((program, mut arguments)) => {
                arguments.push(instance.id().to_string().into());
                Some(watchdog::spawn(&program, &arguments).map_err(failed)?)
            }
        };
        Ok(Self { instance, watchdog })
    }

    pub(crate) async fn give_back(self) {
        // Files are removed and a process is waited for.
        let closed = tokio::task::spawn_blocking(move || match self.instance.close() {
            Ok(true) => self.watchdog.is_none_or(|watchdog| watchdog.finish(WATCHDOG_END)),
            Ok(false) => false,
            Err(error) => {
                message::warning(&error.to_string());
                false
            }
        });
        if !matches!(closed.await, Ok(true)) {
            tracing::warn!("the instance is not closed yet");
        }
    }
}

/// Removes what killed processes left.
async fn sweep(host: HostSettings) {
    let swept = tokio::task::spawn_blocking(move || vm_manager::host::sweep_dead(&host)).await;
    if let Ok(Err(error)) = swept {
        tracing::warn!(%error, "cannot remove what a dead instance left");
    }
}
