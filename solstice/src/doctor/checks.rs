//! The checks themselves.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::limits::MIB;
use common::size::ByteSize;
use orchestrator::program;
use tokio::process::Command;
use vm_manager::host::{
    Acceleration, Accelerator, Capacity, HostSettings, MINIMUM_QEMU, Qemu, check_reserve,
    is_on_tmpfs, kept, sweep_dead,
};
use vm_manager::template::{StoreSettings, TemplateStore};

use super::{Check, forgejo, image_tools, service};
use crate::host::{host_settings, template_directory};
use crate::image::catalogue;
use crate::settings::Settings;

/// How long a program may take to say its version.
const VERSION: Duration = Duration::from_secs(20);

/// The smallest machine of the catalogue needs this much.
const LEAST_MEMORY: ByteSize = ByteSize(256 * MIB);

/// Every check, in the order in which a new host is set up.
pub(super) async fn all(settings: &Settings) -> Vec<Check> {
    let host = host_settings(settings);
    let mut checks = vec![
        source(settings),
        state_directory(&host),
        runtime_directory(&host),
        memory(),
        images(settings),
        image_tools::check(&image_tools::Surroundings::of_host()),
        guest_programs(settings),
        git().await,
        network_isolation(),
    ];
    match Qemu::find(&host.qemu).await {
        Ok(qemu) => {
            checks.push(Check::ok("qemu", format!("QEMU {}", qemu.version)));
            checks.push(qemu_img(&host, &qemu).await);
            checks.push(acceleration(&host, &qemu).await);
        }
        Err(error) => checks.push(Check::failed("qemu", error.to_string(), install_qemu())),
    }
    checks.push(leftovers(host.clone()).await);
    checks.push(kept_machines(&host));
    checks.push(templates(settings));
    checks.extend(service::all(settings).await);
    checks.extend(forgejo::all(settings).await);
    checks
}

fn source(settings: &Settings) -> Check {
    let finding = match &settings.source {
        Some(path) => format!("settings from {}", path.display()),
        None => "no settings file, the defaults apply".to_owned(),
    };
    Check::ok("settings", finding)
}

fn state_directory(host: &HostSettings) -> Check {
    let id = "state-dir";
    let shown = host.state.display();
    if let Err(error) = writable(&host.state) {
        return Check::failed(
            id,
            format!("{shown} cannot be used: {error}"),
            "give it to this user, or set `state_dir`",
        );
    }
    match check_reserve(&host.state, host.disk_reserve) {
        Ok(Ok(())) => {
            let free = vm_manager::host::free_space(&host.state);
            let free = free.map_or_else(|error| error.to_string(), |free| format!("{free} free"));
            Check::ok(id, format!("{shown}, {free}"))
        }
        Ok(Err(short)) => Check::failed(
            id,
            short.to_string(),
            "free space, remove images with `solstice image rm`, or set a smaller `disk_reserve`",
        ),
        Err(error) => Check::failed(id, error.to_string(), "set `state_dir`"),
    }
}

fn runtime_directory(host: &HostSettings) -> Check {
    let id = "runtime-dir";
    let shown = host.runtime.display();
    if let Err(error) = writable(&host.runtime) {
        return Check::failed(
            id,
            format!("{shown} cannot be used: {error}"),
            "give it to this user, or set `runtime_dir`",
        );
    }
    if let Err(error) = host.check_runtime_directory() {
        return Check::failed(id, error.to_string(), "change it as the finding says");
    }
    match is_on_tmpfs(&host.runtime) {
        Ok(true) => Check::ok(id, format!("{shown}, on tmpfs")),
        Ok(false) => Check::warning(
            id,
            format!("{shown} is not on a tmpfs, so login keys of machines reach a disk"),
            "set `runtime_dir` to a directory below /run or /dev/shm",
        ),
        Err(error) => Check::failed(id, error.to_string(), "set `runtime_dir`"),
    }
}

/// Makes a directory for this user alone if it is not there, and tries to write to it.
fn writable(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    tempfile_in(path).and_then(fs::remove_file)
}

fn tempfile_in(directory: &Path) -> std::io::Result<PathBuf> {
    let path = directory.join(format!(".doctor-{}", std::process::id()));
    fs::File::create_new(&path)?;
    Ok(path)
}

fn memory() -> Check {
    let id = "memory";
    match Capacity::of_host() {
        Ok(capacity) if capacity.available >= LEAST_MEMORY => Check::ok(
            id,
            format!(
                "{} for machines, {} of it free now; {} virtual processors",
                capacity.memory, capacity.available, capacity.cpus
            ),
        ),
        Ok(capacity) => Check::failed(
            id,
            format!("only {} is free for machines", capacity.available),
            "end other programs or add memory; the smallest machine needs 256 MiB",
        ),
        Err(error) => Check::failed(id, error.to_string(), "mount /proc"),
    }
}

fn images(settings: &Settings) -> Check {
    let id = "catalogue";
    match catalogue(settings) {
        Ok(catalogue) => {
            let labels: Vec<&str> = catalogue.entries().map(|entry| entry.label.as_str()).collect();
            Check::ok(id, format!("images {}", labels.join(", ")))
        }
        Err(error) => Check::failed(id, error.to_string(), "correct the file or unset `catalogue`"),
    }
}

/// The programs for the systems whose images are known to boot; for others they are optional.
fn guest_programs(settings: &Settings) -> Check {
    let id = "guest-programs";
    let Ok(catalogue) = catalogue(settings) else {
        return Check::failed(id, "the catalogue cannot be read", "see the check `catalogue`");
    };
    let verified = catalogue.entries().filter(|entry| entry.verified);
    let systems: BTreeSet<(&str, &str)> =
        verified.map(|entry| (entry.runner_os.as_str(), entry.runner_arch.as_str())).collect();
    let mut found = Vec::new();
    for (os, arch) in systems {
        match program::find(&settings.guest_programs, os, arch) {
            Ok(path) => found.push(path.display().to_string()),
            Err(error) => {
                let cure = "build it with scripts/guest-program.sh, or set `guest_programs`";
                return Check::failed(id, error.message, cure);
            }
        }
    }
    Check::ok(id, found.join(", "))
}

async fn git() -> Check {
    match version("git".as_ref()).await {
        Ok(version) => Check::ok("git", version),
        Err(error) => Check::warning(
            "git",
            format!(
                "git cannot be run: {error}; commit, branch and ignored files are not known, and \
                 jobs can use no actions and check nothing out"
            ),
            "install git 2.37 or later",
        ),
    }
}

/// What guests can reach. Not looked at but known: nothing restricts the user network yet.
fn network_isolation() -> Check {
    Check::warning(
        "network-isolation",
        "guests are not isolated: each can reach the services on this host's loopback (as 10.0.2.2) \
         and the private networks that this host reaches, because isolation rules are not built yet",
        "run only workflows that you trust, and give local services authentication",
    )
}

async fn qemu_img(host: &HostSettings, qemu: &Qemu) -> Check {
    let id = "qemu-img";
    match version(&host.qemu_img).await {
        Ok(version) if version.contains(&format!("version {}", qemu.version)) => {
            Check::ok(id, version)
        }
        Ok(version) => Check::warning(
            id,
            format!("{version}, but QEMU is {}", qemu.version),
            "install both from the same release",
        ),
        Err(error) => Check::failed(
            id,
            format!("{} cannot be run: {error}", host.qemu_img.display()),
            install_qemu(),
        ),
    }
}

async fn acceleration(host: &HostSettings, qemu: &Qemu) -> Check {
    let id = "acceleration";
    match Accelerator::probe(host, qemu).await {
        Ok(Accelerator { acceleration: Acceleration::Kvm, .. }) => Check::ok(id, "kvm"),
        Ok(Accelerator { acceleration: Acceleration::Tcg, reason }) => Check::warning(
            id,
            format!("tcg, many times slower than kvm: {}", reason.unwrap_or_default()),
            "use a host with working KVM and give this user access to /dev/kvm",
        ),
        Err(error) => Check::failed(id, error.to_string(), "see the checks of the directories"),
    }
}

/// Whatever processes that were killed left is removed here, as it is before each start.
async fn leftovers(host: HostSettings) -> Check {
    let id = "leftovers";
    match tokio::task::spawn_blocking(move || sweep_dead(&host)).await {
        Ok(Ok(report)) if report.removed.is_empty() => Check::ok(id, "nothing is left behind"),
        Ok(Ok(report)) => Check::ok(
            id,
            format!("{} machines of killed processes were removed", report.removed.len()),
        ),
        Ok(Err(error)) => Check::failed(
            id,
            error.to_string(),
            "remove what the finding names, or end the process that it names",
        ),
        Err(error) => Check::failed(id, error.to_string(), "report this as a defect"),
    }
}

/// Looks only: nothing is made here.
fn templates(settings: &Settings) -> Check {
    let id = "templates";
    let quota = settings.template_quota;
    if quota.0 == 0 {
        return Check::warning(
            id,
            "`template_quota` is 0, so every machine boots".to_owned(),
            "give it some gigabytes, and jobs start in a second or two",
        );
    }
    let directory = template_directory(settings);
    let limits = StoreSettings { quota, reserve: settings.disk_reserve };
    let found = match directory.is_dir() {
        true => TemplateStore::open(&directory, limits).and_then(|store| store.list()),
        false => Ok(Vec::new()),
    };
    match found {
        Ok(found) if found.is_empty() => {
            Check::ok(id, "there is none yet; the first job of an image makes one".to_owned())
        }
        Ok(found) => {
            let bytes = ByteSize(found.iter().map(|template| template.bytes.0).sum());
            Check::ok(id, format!("{} with {bytes} of {quota}", found.len()))
        }
        Err(error) => Check::warning(
            id,
            error.to_string(),
            "correct `template_dir`; until then machines boot",
        ),
    }
}

fn kept_machines(host: &HostSettings) -> Check {
    let id = "kept-machines";
    match kept::list(host) {
        Ok(kept) if kept.is_empty() => Check::ok(id, "no machine is kept"),
        Ok(kept) => {
            let names: Vec<String> = kept
                .into_iter()
                .map(|(name, label, until)| {
                    let until = humantime::format_rfc3339_seconds(until.into());
                    format!("{name} ({label}) until {until}")
                })
                .collect();
            Check::ok(id, names.join(", "))
        }
        Err(error) => Check::failed(id, error.to_string(), "see the check `state-dir`"),
    }
}

/// The first line of `PROGRAM --version`.
async fn version(program: &Path) -> Result<String, String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(VERSION, command.output())
        .await
        .map_err(|_| format!("it says no version within {} s", VERSION.as_secs()))?
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("it ends with {}", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

fn install_qemu() -> String {
    format!(
        "install QEMU {MINIMUM_QEMU} or later with qemu-img (on Debian qemu-system-x86 and \
         qemu-utils, for Debian 12 from backports)"
    )
}
