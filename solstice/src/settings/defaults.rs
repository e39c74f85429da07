//! Where things lie when nobody says so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::limits::GIB;
use common::size::ByteSize;

use super::{Acceleration, ActionKeys, ForgejoKeys, ServiceKeys, Settings, Surroundings};
use crate::exit::CommandError;

/// The file for all users.
const SYSTEM_FILE: &str = "/etc/solstice/solstice.toml";

/// The name of the file.
const FILE_NAME: &str = "solstice.toml";

/// The settings without a file and an environment.
pub(super) fn settings(surroundings: &Surroundings) -> Result<Settings, CommandError> {
    let (state_dir, runtime_dir) = directories(surroundings)?;
    Ok(Settings {
        state_dir,
        image_dir: None,
        template_dir: None,
        template_quota: ByteSize(10 * GIB),
        actions: ActionKeys::default(),
        runtime_dir,
        catalogue: None,
        disk_reserve: ByteSize(2 * GIB),
        qemu: None,
        qemu_img: None,
        guest_programs: guest_programs(surroundings),
        acceleration: Acceleration::Auto,
        service: ServiceKeys::default(),
        forgejo: ForgejoKeys::default(),
        source: None,
        origins: BTreeMap::new(),
        warnings: Vec::new(),
    })
}

/// The file to read: the one asked for, else the first that exists.
pub(super) fn file(surroundings: &Surroundings, requested: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = requested {
        return Some(surroundings.directory.join(path));
    }
    let user = surroundings
        .path("XDG_CONFIG_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| surroundings.path("HOME").map(|home| home.join(".config")))
        .map(|directory| directory.join("solstice").join(FILE_NAME));
    let here = surroundings.directory.join(FILE_NAME);
    [Some(here), user, Some(PathBuf::from(SYSTEM_FILE))]
        .into_iter()
        .flatten()
        .find(|path| path.exists())
}

fn directories(surroundings: &Surroundings) -> Result<(PathBuf, PathBuf), CommandError> {
    if surroundings.user_id == 0 {
        return Ok((PathBuf::from("/var/lib/solstice"), PathBuf::from("/run/solstice")));
    }
    // The XDG base directory specification: a relative path in these variables is ignored.
    let state = surroundings
        .path("XDG_STATE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| surroundings.path("HOME").map(|home| home.join(".local/state")))
        .or_else(|| surroundings.path("SOLSTICE_STATE_DIR"))
        .ok_or_else(|| {
            CommandError::usage(
                "there is no place for images: neither HOME nor XDG_STATE_HOME is set",
            )
            .hint("set SOLSTICE_STATE_DIR to a directory on a disk with some gigabytes free")
        })?;
    let runtime = surroundings.path("XDG_RUNTIME_DIR").filter(|path| path.is_absolute());
    let runtime = match runtime {
        Some(directory) => directory.join("solstice"),
        None => PathBuf::from(format!("/dev/shm/solstice-{}", surroundings.user_id)),
    };
    Ok((state.join("solstice"), runtime))
}

/// Beside this program, in a build tree, and where a package puts them.
fn guest_programs(surroundings: &Surroundings) -> Vec<PathBuf> {
    let Some(directory) = &surroundings.program_directory else { return Vec::new() };
    let mut found = vec![directory.clone()];
    if let Some(parent) = directory.parent() {
        found.push(parent.join("guest"));
        found.push(parent.join("lib/solstice"));
    }
    found
}
