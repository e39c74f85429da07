//! From the settings to what the parts below want to know about this host.

use std::path::PathBuf;

use common::ids::InstanceId;
use orchestrator::{CacheSettings, FetchSettings, Keys, TemplateSettings};
use vm_manager::host::{HostSettings, watchdog};

use crate::exit::CommandError;
use crate::settings::{self, ActionKeys, Settings};

/// What vm-manager wants to know.
pub(crate) fn host_settings(settings: &Settings) -> HostSettings {
    use vm_manager::host::Acceleration;
    HostSettings {
        state: settings.state_dir.clone(),
        runtime: settings.runtime_dir.clone(),
        qemu: settings.qemu.clone().unwrap_or_else(|| PathBuf::from("qemu-system-x86_64")),
        qemu_img: settings.qemu_img.clone().unwrap_or_else(|| PathBuf::from("qemu-img")),
        disk_reserve: settings.disk_reserve,
        acceleration: match settings.acceleration {
            settings::Acceleration::Auto => None,
            settings::Acceleration::Kvm => Some(Acceleration::Kvm),
            settings::Acceleration::Tcg => Some(Acceleration::Tcg),
        },
        limits: vm_manager::host::CapacityLimits {
            cpus: settings.service.max_cpus,
            memory: settings.service.max_memory,
        },
    }
}

/// Where images are kept.
pub(crate) fn image_directory(settings: &Settings) -> PathBuf {
    settings.image_dir.clone().unwrap_or_else(|| settings.state_dir.join("images"))
}

/// Where templates are kept.
pub(crate) fn template_directory(settings: &Settings) -> PathBuf {
    settings.template_dir.clone().unwrap_or_else(|| settings.state_dir.join("templates"))
}

/// Where templates are, unless there shall be none.
pub(crate) fn template_settings(settings: &Settings) -> Option<TemplateSettings> {
    let directory = template_directory(settings);
    let quota = settings.template_quota;
    (quota.0 > 0).then_some(TemplateSettings { directory, quota })
}

/// Where what jobs need comes from, and where it is kept.
pub(crate) fn fetch_settings(settings: &Settings) -> FetchSettings {
    let ActionKeys { directory, quota, github, forgejo, gitea, allow, .. } =
        settings.actions.clone();
    FetchSettings {
        directory: directory.unwrap_or_else(|| settings.state_dir.join("fetched")),
        quota,
        github,
        forgejo,
        gitea,
        trusted: allow,
    }
}

/// Where caches are kept, and how much of them.
pub(crate) fn cache_settings(settings: &Settings) -> CacheSettings {
    let directory = settings.actions.caches.clone();
    CacheSettings {
        directory: directory.unwrap_or_else(|| settings.state_dir.join("caches")),
        quota: settings.actions.cache_quota,
    }
}

/// Where the artifacts of runs are that have no forge, each run in a directory of its own.
pub(crate) fn artifact_directory(settings: &Settings) -> PathBuf {
    settings.state_dir.join("artifacts")
}

/// What everything is sealed with that outlives a machine.
pub(crate) fn keys(settings: &Settings) -> Keys {
    match &settings.service.seal_keys {
        Some(paths) => Keys::Given(paths.clone()),
        None => Keys::Own(settings.state_dir.join("seal.key")),
    }
}

/// What the orchestrator wants to know.
pub(crate) fn orchestrator_settings(settings: &Settings) -> orchestrator::Settings {
    orchestrator::Settings {
        host: host_settings(settings),
        images: image_directory(settings),
        guest_programs: settings.guest_programs.clone(),
        templates: template_settings(settings),
        fetch: fetch_settings(settings),
        caches: cache_settings(settings),
        artifacts: artifact_directory(settings),
        native_commits: settings.actions.commits,
        catalogue: settings.catalogue.clone(),
        watchdog: watchdog_command(settings),
        keys: keys(settings),
        freeze_failed: settings.service.freeze_failed,
        patience: orchestrator::Patience::default(),
    }
}

/// The command line of a watchdog, to which the instance's id is added. It has everything it needs
/// in its arguments: it runs in another directory and must not depend on the environment.
pub(crate) fn watchdog_command(settings: &Settings) -> Option<(PathBuf, Vec<std::ffi::OsString>)> {
    let program = std::env::current_exe().ok()?;
    let arguments = vec![
        "watch-instance".into(),
        "--state".into(),
        settings.state_dir.clone().into(),
        "--runtime".into(),
        settings.runtime_dir.clone().into(),
    ];
    Some((program, arguments))
}

/// The body of the watchdog: waits until the owner of an instance is gone, and removes what it left.
/// Blocks.
///
/// # Errors
/// The id is none, or something could not be removed.
pub(crate) fn watch_instance(
    state: PathBuf,
    runtime: PathBuf,
    id: &str,
) -> Result<(), CommandError> {
    let id: InstanceId = id
        .parse()
        .map_err(|_| CommandError::usage(format!("{id:?} is not the id of an instance")))?;
    let settings = HostSettings {
        state,
        runtime,
        qemu: PathBuf::new(),
        qemu_img: PathBuf::new(),
        disk_reserve: common::size::ByteSize(0),
        acceleration: None,
        limits: vm_manager::host::CapacityLimits::default(),
    };
    watchdog::guard(&settings, id).map_err(|error| CommandError::infrastructure(error.to_string()))
}
