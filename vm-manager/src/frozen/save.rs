//! From a kept machine to its frozen files.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use common::limits::MIB;
use common::size::ByteSize;
use common::time::Timestamp;
use tokio::task::spawn_blocking;

use super::sealed::{Cipher, seal};
use super::store::Facts;
use super::{FrozenError, FrozenMachine, FrozenStore};
use crate::host::kept::{self, Found};
use crate::host::{HostError, HostSettings, MachinePaths, RecordedShape, check_reserve};
use crate::machine::stream::{self, Monitor};
use crate::template::files;

/// What a frozen machine has beside its memory and its disk.
const REST: u64 = 64 * MIB;

/// The names of the sealed files.
pub(super) const LOGIN_KEY: &str = "login-key";
pub(super) const SEED: &str = "seed";
pub(super) const DISK: &str = "disk";
pub(super) const GUEST: &str = "guest";

/// Saves the machine that is kept under a name to files that are sealed with `cipher`, and ends it;
/// its memory is free then. It goes on if this fails.
///
/// # Errors
/// [`FrozenError`] says what failed.
pub async fn freeze(
    settings: &HostSettings,
    name: &str,
    until: Timestamp,
    cipher: Arc<dyn Cipher>,
) -> Result<FrozenMachine, FrozenError> {
    let kept = kept::look_up(settings, name)?;
    let unable =
        |reason: &str| FrozenError::Unable { name: name.to_owned(), reason: reason.into() };
    let shape = kept.record.shape.clone();
    let shape = shape.ok_or_else(|| unable("it was started by an older program"))?;
    let paths = settings.machine(kept.instance, kept.record.vm);
    if shape.clone && !files::template(&paths.state).exists() {
        return Err(unable("`template_dir` and `state_dir` lie on different file systems"));
    }
    let store = FrozenStore::of(settings);
    let work = store.begin(name)?;
    check_room(settings, &paths, &shape)?;
    let monitor = Monitor::connect(kept.machine_name(), &paths).await?;
    let Found { keep, record, .. } = kept;
    let facts = Facts {
        name: name.to_owned(),
        label: record.label,
        user: keep.user,
        host_key: keep.host_key,
        shape,
        frozen: Timestamp::now(),
        until,
    };
    let saved = save(&monitor, &paths, work.path(), name, cipher).await;
    let frozen = match saved.and_then(|()| store.finish(&work, facts)) {
        Ok(frozen) => frozen,
        Err(error) => {
            // As if nothing had been. The first error is the one to tell.
            drop(monitor.go_on().await);
            return Err(error);
        }
    };
    // From here on it is the files that count.
    kept::release(settings, name)?;
    Ok(frozen)
}

/// Everything of it may have to be written.
fn check_room(
    settings: &HostSettings,
    paths: &MachinePaths,
    shape: &RecordedShape,
) -> Result<(), FrozenError> {
    let overlay = paths.overlay();
    let disk = fs::metadata(&overlay).map_err(HostError::io("look at", &overlay))?.blocks() * 512;
    let needed = [settings.disk_reserve.0, shape.memory.0, disk, REST];
    let needed = needed.into_iter().fold(0, u64::saturating_add);
    Ok(check_reserve(&settings.state, ByteSize(needed))??)
}

async fn save(
    monitor: &Monitor,
    paths: &MachinePaths,
    partial: &Path,
    name: &str,
    cipher: Arc<dyn Cipher>,
) -> Result<(), FrozenError> {
    monitor.pause().await?;
    let own = name.to_owned();
    let (to, guest_cipher, guest_name) = (partial.to_owned(), Arc::clone(&cipher), own.clone());
    let guest = partial.join(GUEST);
    stream::save(monitor, &paths.runtime, move |from| {
        seal(&*guest_cipher, &guest_name, &to, GUEST, from).map_err(HostError::io("write", &guest))
    })
    .await?;
    let (partial, paths) = (partial.to_owned(), paths.clone());
    let rest = spawn_blocking(move || {
        let sources =
            [(LOGIN_KEY, paths.login_key()), (SEED, paths.seed()), (DISK, paths.overlay())];
        for (file, source) in sources {
            let from = File::open(&source).map_err(HostError::io("open", &source))?;
            seal(&*cipher, &own, &partial, file, from)
                .map_err(HostError::io("write", &partial.join(file)))?;
        }
        files::link_below(&paths.state, &partial)
    });
    rest.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    Ok(())
}
