//! `solstice freeze`, `thaw` and `frozen`: kept machines that hold no memory.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::time::Timestamp;
use serde::Serialize;
use vm_manager::frozen::{self, Cipher, FrozenError, FrozenMachine, FrozenStore, Thaw};
use vm_manager::host::{HostError, kept};
use vm_manager::image::Image;
use vm_manager::machine::{Machine, MachineSpec, Origin};

use crate::exit::{CommandError, Exit};
use crate::host::{host_settings, keys};
use crate::image::{catalogue, ensure};
use crate::machine::Claim;
use crate::message;
use crate::settings::Settings;
use crate::table::{self, Cell};
use crate::waiting::Waiting;

/// Freezes a kept machine.
///
/// # Errors
/// There is none of the name, or it cannot be frozen; it runs on then.
pub(crate) async fn freeze(
    settings: &Settings,
    name: Option<&str>,
    time: Duration,
) -> Result<Exit, CommandError> {
    let host = host_settings(settings);
    let names = kept::list(&host).map_err(|error| failed(&error.into()))?;
    let names: Vec<String> = names.into_iter().map(|(name, ..)| name).collect();
    let name = one_of(name, &names, "kept")?;
    let until = Timestamp::from(SystemTime::now() + time);
    let waiting = Waiting::start(&format!("freezing {name}"));
    let frozen = frozen::freeze(&host, &name, until, cipher(settings)?).await;
    drop(waiting);
    let frozen = frozen.map_err(|error| failed(&error))?;
    let until = humantime::format_rfc3339_seconds(frozen.until().into());
    message::notice(&format!("{name} is frozen until {until}: {}", frozen.bytes()));
    Ok(Exit::Passed)
}

/// Continues a frozen machine, and keeps it for a while.
///
/// # Errors
/// There is none of the name, its image is gone, or it cannot go on; its files stay.
pub(crate) async fn thaw(
    settings: &Settings,
    name: Option<&str>,
    time: Duration,
) -> Result<Exit, CommandError> {
    let store = FrozenStore::of(&host_settings(settings));
    let names = store.list().map_err(|error| failed(&error))?;
    let names: Vec<String> = names.iter().map(|machine| machine.name().to_owned()).collect();
    let name = one_of(name, &names, "frozen")?;
    let machine = store.find(&name).map_err(|error| failed(&error))?;
    let image = image_of(settings, &machine).await?;
    let until = Timestamp::from(SystemTime::now() + time);
    let waiting = Waiting::start(&format!("thawing {name}"));
    let claim = Claim::make(settings).await?;
    let thawed = start(&claim, image, machine.clone(), cipher(settings)?).await;
    let thawed = thawed.and_then(|started| started.keep(&name, until));
    claim.give_back().await;
    drop(waiting);
    thawed.map_err(|error| {
        let cure = error.infrastructure().cause.cure();
        CommandError::infrastructure(error.to_string()).hint(cure)
    })?;
    store.remove(&machine).map_err(|error| failed(&error))?;
    let until = humantime::format_rfc3339_seconds(until.into());
    message::notice(&format!("{name} goes on and is kept until {until}: solstice shell {name}"));
    Ok(Exit::Passed)
}

async fn start(
    claim: &Claim,
    image: Image,
    machine: FrozenMachine,
    cipher: Arc<dyn Cipher>,
) -> Result<Machine, vm_manager::machine::MachineError> {
    let (cpus, memory) = machine.size();
    let spec = MachineSpec {
        cpus,
        memory,
        origin: Origin::Thawed(Thaw::new(machine, cipher)),
        ..MachineSpec::of(Arc::new(image), "solstice-thawed")
    };
    Machine::start(claim.instance(), spec).await
}

/// The image that is below the machine's disk.
async fn image_of(settings: &Settings, machine: &FrozenMachine) -> Result<Image, CommandError> {
    let entry = catalogue(settings)?.get(machine.label());
    let entry = entry.map_err(|error| CommandError::usage(error.to_string()))?;
    let image = ensure(settings, &entry, false).await?;
    if image.digest == machine.image() {
        return Ok(image);
    }
    let text = format!(
        "the machine was started from the image {}, and that of {} is {} now",
        machine.image(),
        machine.label(),
        image.digest
    );
    Err(CommandError::infrastructure(text).hint("it cannot go on without its image"))
}

/// A frozen machine, for `--json`.
#[derive(Serialize)]
struct Listed {
    run: String,
    image: String,
    bytes: u64,
    frozen: Timestamp,
    until: Timestamp,
}

/// Lists frozen machines.
///
/// # Errors
/// They cannot be read.
pub(crate) fn list(settings: &Settings, json: bool) -> Result<Exit, CommandError> {
    let store = FrozenStore::of(&host_settings(settings));
    let all = store.list().map_err(|error| failed(&error))?;
    if json {
        let listed = |machine: &FrozenMachine| Listed {
            run: machine.name().to_owned(),
            image: machine.label().to_owned(),
            bytes: machine.bytes().0,
            frozen: machine.frozen(),
            until: machine.until(),
        };
        return table::print_json(&all.iter().map(listed).collect::<Vec<_>>());
    }
    let time = |time: Timestamp| humantime::format_rfc3339_seconds(time.into()).to_string();
    let row = |machine: &FrozenMachine| -> [Cell; 5] {
        [
            machine.name().into(),
            machine.label().into(),
            machine.bytes().to_string().into(),
            time(machine.frozen()).into(),
            time(machine.until()).into(),
        ]
    };
    table::print(&["RUN", "IMAGE", "SIZE", "FROZEN", "UNTIL"], all.iter().map(row))
}

/// The name that was given, or the only one that there is.
fn one_of(given: Option<&str>, names: &[String], what: &str) -> Result<String, CommandError> {
    match (given, names) {
        (Some(name), _) => Ok(name.to_owned()),
        (None, [name]) => Ok(name.clone()),
        (None, []) => Err(CommandError::usage(format!("no machine is {what} on this host"))),
        (None, names) => {
            Err(CommandError::usage(format!("{what} machines are {}", names.join(", ")))
                .hint("name one"))
        }
    }
}

fn cipher(settings: &Settings) -> Result<Arc<dyn Cipher>, CommandError> {
    keys(settings).cipher().map_err(|error| CommandError::usage(error.to_string()))
}

/// A wrong name is the user's.
fn failed(error: &FrozenError) -> CommandError {
    match error {
        FrozenError::Unknown { .. }
        | FrozenError::There { .. }
        | FrozenError::Host(HostError::NotKept { .. }) => CommandError::usage(error.to_string()),
        _ => CommandError::infrastructure(error.to_string()),
    }
}
