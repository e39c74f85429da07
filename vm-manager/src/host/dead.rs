//! What instances leave behind whose owner is dead.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::ids::{InstanceId, VmId};
use common::time::Timestamp;

use super::grace::grace_left;
use super::instance::{absolute, ids};
use super::lock::Lock;
use super::service::is_service;
use super::{HostError, HostSettings, Instance};

/// So long after its last change, an instance's directory without a lock file is not one that is
/// being made.
pub(super) const UNFINISHED: Duration = Duration::from_secs(60);

/// What a sweep over dead instances did and left.
#[derive(Debug, Default)]
pub struct SweepReport {
    /// Machines that were ended or whose files were removed.
    pub removed: Vec<VmId>,
    /// Instances with a machine that is still kept, and until when; each needs a
    /// [watchdog](super::watchdog) again.
    pub kept: Vec<(InstanceId, Timestamp)>,
    /// What could not be looked at or removed; the next sweep tries again.
    pub errors: Vec<HostError>,
}

/// Cleans up after every dead instance of this host, except services that may still come back
/// ([`SERVICE_GRACE`](super::SERVICE_GRACE)). Blocks. Programs do this when they start. What fails
/// for one instance or machine stands in the report and stops nothing else.
///
/// # Errors
///
/// When the directory of all instances cannot be read or is not ours.
pub fn sweep_dead(settings: &HostSettings) -> Result<SweepReport, HostError> {
    let (dead, errors) = Instance::dead(settings)?;
    let mut report = SweepReport { errors, ..SweepReport::default() };
    for instance in dead {
        match instance.sweep() {
            Ok(pass) => {
                report.removed.extend(pass.removed);
                report.kept.extend(pass.kept_until.map(|until| (instance.id(), until)));
                report.errors.extend(pass.errors);
            }
            Err(error) => report.errors.push(error),
        }
    }
    Ok(report)
}

impl Instance {
    /// Takes over every instance whose owner is dead, with what it left behind. One that cannot be
    /// taken is left out, and [`sweep_dead`] says why; so is a service that may still come back.
    ///
    /// # Errors
    ///
    /// When the directory of all instances cannot be read or is not ours.
    pub fn adopt_dead(settings: &HostSettings) -> Result<Vec<Arc<Self>>, HostError> {
        Ok(Self::dead(settings)?.0)
    }

    /// The instances whose owner is dead, and what failed on the way to further ones.
    fn dead(settings: &HostSettings) -> Result<(Vec<Arc<Self>>, Vec<HostError>), HostError> {
        let settings = &absolute(settings)?;
        settings.check_directories()?;
        let (mut dead, mut errors) = (Vec::new(), Vec::new());
        for id in ids(settings)? {
            match take(settings, id) {
                Ok(Some(lock)) => dead.push(Arc::new(Self::new(id, settings, lock, false))),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(instance.id = %id, %error, "cannot look after an instance");
                    errors.push(error);
                }
            }
        }
        Ok((dead, errors))
    }
}

/// Takes an instance whose owner is dead and does not come back.
fn take(settings: &HostSettings, id: InstanceId) -> Result<Option<Lock>, HostError> {
    let comes_back = || is_service(settings, id) && grace_left(settings, id).is_some();
    // First without the lock, so that a service that does come back finds it free.
    if comes_back() {
        return Ok(None);
    }
    let taken = match Lock::take_free(&settings.instance_lock(id))? {
        None => unfinished(settings, id)?,
        held => held,
    };
    // It may have been there and gone between the two looks.
    Ok(taken.filter(|_| !comes_back()))
}

/// Takes an instance whose owner died before it had a lock file, or after it had removed it. `None`
/// if there is a lock file, or one may still come.
fn unfinished(settings: &HostSettings, id: InstanceId) -> Result<Option<Lock>, HostError> {
    let (state, lock) = (settings.instance_state(id), settings.instance_lock(id));
    let at = |action| HostError::io(action, &state);
    let directory = match fs::File::open(&state) {
        Ok(directory) => directory,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at("open")(error)),
    };
    // One of all processes that sweep at once; to the others it belongs to somebody.
    if directory.try_lock().is_err() || lock.exists() {
        return Ok(None);
    }
    let changed = directory.metadata().and_then(|found| found.modified());
    let age = SystemTime::now().duration_since(changed.map_err(at("look at"))?);
    if age.unwrap_or_default() < UNFINISHED {
        return Ok(None);
    }
    Lock::create_again(&lock).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::create_private_directory;

    #[test]
    fn what_a_dead_owner_left_is_swept() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        let instance = Instance::create(&settings).unwrap();
        let (id, vm) = (instance.id(), VmId::new());
        let paths = settings.machine(id, vm);
        create_private_directory(&paths.state).unwrap();
        fs::write(paths.record(), "not a record").unwrap();
        assert!(!instance.close().unwrap(), "a machine is left");
        // A test beside this one may be between fork and exec, where its child still has the lock.
        drop(Lock::wait(&settings.instance_lock(id)).unwrap());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let report = loop {
            let report = sweep_dead(&settings).unwrap();
            if !report.removed.is_empty() || std::time::Instant::now() > deadline {
                break report;
            }
            std::thread::yield_now();
        };
        assert_eq!(report.removed, [vm]);
        assert!(report.kept.is_empty());
        assert!(!settings.instance_state(id).exists());
    }

    #[test]
    fn one_instance_that_cannot_be_read_does_not_stop_the_others() {
        let directory = crate::host::fake::directory();
        let settings = HostSettings::below(directory.path());
        let broken = settings.instance_state(InstanceId::new());
        create_private_directory(&settings.instances().join("x")).unwrap();
        // Nobody, not even root, can open a directory for writing.
        fs::create_dir_all(broken.join("lock")).unwrap();
        // One whose owner died long before it had its lock, and one that may get it.
        let long_ago = settings.instance_state(InstanceId::new());
        let new = settings.instance_state(InstanceId::new());
        for path in [&long_ago, &new] {
            create_private_directory(path).unwrap();
            fs::write(path.join("lock.new"), "").unwrap();
        }
        let changed = SystemTime::now() - 2 * UNFINISHED;
        fs::File::open(&long_ago).unwrap().set_modified(changed).unwrap();
        let report = sweep_dead(&settings).unwrap();
        assert_eq!(report.errors.len(), 1, "{report:?}");
        assert!(report.errors[0].to_string().contains("lock"), "{report:?}");
        assert!(!long_ago.exists() && new.exists() && broken.exists());
    }
}
