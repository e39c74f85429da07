//! Whether guests run on the processor itself or in QEMU's translator.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::ids::VmId;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::files::{read_bounded, write_private};
use super::probe_rom::{EXIT_PORT, EXIT_STATUS, rom};
use super::{HostError, HostSettings, Qemu};

/// The probe guest ends within some ten milliseconds of QEMU's start, on a busy host within a second;
/// one that stops in the middle never does, and costs this much at each start of a program.
const PROBE_DEADLINE: Duration = Duration::from_secs(5);

/// A probe's cached answer has some hundred bytes.
const CACHE_BYTES: u64 = 16 * 1024;

/// Of what QEMU writes on a failing probe, at most this much stands in the reason.
const REASON_CHARACTERS: usize = 200;

/// How guests are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acceleration {
    /// On the host's processor, through `/dev/kvm`.
    Kvm,
    /// In QEMU's translator: always works, many times slower.
    Tcg,
}

impl Acceleration {
    /// The name, as QEMU has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// The processor model: all that this way of running can give. Under TCG without five-level page
    /// tables, which a kernel would use and which only make each translated access longer.
    pub(crate) fn cpu(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "max,la57=off",
        }
    }
}

/// The acceleration of this host and, where it is TCG, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accelerator {
    /// How guests are run.
    pub acceleration: Acceleration,
    /// Why not on the processor itself, a sentence for the job's log; absent with KVM.
    pub reason: Option<String>,
}

/// What one run of the probe guest says.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// The guest came through.
    Works,
    /// It did not, for this reason: so it will be until something about the host changes.
    Fails(String),
    /// For this reason the run says nothing for sure: guests are better translated for now.
    Unknown(String),
}

/// The file of the probe guest; removed with this value, also when nobody waits for the probe's end.
struct ProbeFile {
    path: PathBuf,
}

impl ProbeFile {
    /// Writes a file of its own, so that two processes that probe at once do not meet.
    fn write(settings: &HostSettings) -> Result<Self, HostError> {
        let path = settings.runtime.join(format!("probe-{}", VmId::new().short()));
        write_private(&path, &rom())?;
        Ok(Self { path })
    }
}

impl Drop for ProbeFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a probe's file");
        }
    }
}

/// What a probe found. A reboot or another QEMU asks for a new one.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Cached {
    boot_id: String,
    qemu: String,
    failure: Option<String>,
}

impl Accelerator {
    /// Takes what the settings say, else the cached answer of the last probe, else probes: a small
    /// guest is run under KVM for a moment.
    ///
    /// # Errors
    ///
    /// When the state or runtime directory cannot be used. That KVM does not work is an answer.
    pub async fn probe(settings: &HostSettings, qemu: &Qemu) -> Result<Self, HostError> {
        if let Some(acceleration) = settings.acceleration {
            let reason = (acceleration == Acceleration::Tcg).then(|| "as configured".to_owned());
            return Ok(Self { acceleration, reason });
        }
        // This is cheap and changes when the administrator adds us to a group: never cached.
        if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/kvm") {
            return Ok(Self::from_failure(Some(format!("/dev/kvm cannot be opened: {error}"))));
        }
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(HostError::io("read", Path::new("/proc/sys/kernel/random/boot_id")))?;
        let boot_id = boot_id.trim().to_owned();
        if let Some(failure) = cached(settings, qemu, &boot_id)? {
            return Ok(Self::from_failure(failure));
        }
        let failure = match run_probe(settings, qemu, Acceleration::Kvm).await? {
            Finding::Works => None,
            Finding::Fails(reason) => Some(reason),
            // A busy host or an interrupted probe says nothing about the next one.
            Finding::Unknown(reason) => return Ok(Self::from_failure(Some(reason))),
        };
        let found = Cached { boot_id, qemu: build(qemu), failure };
        let text = serde_json::to_vec(&found).expect("an answer has a JSON form");
        write_private(&cache_path(settings), &text)?;
        Ok(Self::from_failure(found.failure))
    }

    fn from_failure(reason: Option<String>) -> Self {
        let acceleration = if reason.is_some() { Acceleration::Tcg } else { Acceleration::Kvm };
        Self { acceleration, reason }
    }
}

fn cache_path(settings: &HostSettings) -> PathBuf {
    settings.state.join("acceleration.json")
}

/// The QEMU that an answer holds for.
fn build(qemu: &Qemu) -> String {
    format!("{} {}", qemu.path.display(), qemu.version)
}

/// What the last probe found, if it holds still: a failure, or none. A file that nobody understands
/// holds nothing.
fn cached(
    settings: &HostSettings,
    qemu: &Qemu,
    boot_id: &str,
) -> Result<Option<Option<String>>, HostError> {
    let text = read_bounded(&cache_path(settings), CACHE_BYTES)?;
    let found = text.and_then(|text| serde_json::from_slice::<Cached>(&text).ok());
    let holds = found.filter(|found| found.boot_id == boot_id && found.qemu == build(qemu));
    Ok(holds.map(|found| found.failure))
}

/// Runs the probe guest.
async fn run_probe(
    settings: &HostSettings,
    qemu: &Qemu,
    acceleration: Acceleration,
) -> Result<Finding, HostError> {
    let file = ProbeFile::write(settings)?;
    let mut command = Command::new(&qemu.path);
    command
        .args(["-machine", "q35", "-accel", acceleration.name(), "-cpu", acceleration.cpu()])
        .args(["-m", "32", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .arg("-device")
        .arg(format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=0x4"))
        .arg("-bios")
        .arg(&file.path)
        .stdin(Stdio::null())
        // A Ctrl-C on the terminal is for this program, which ends the probe by dropping it.
        .process_group(0)
        .kill_on_drop(true);
    let output = tokio::time::timeout(PROBE_DEADLINE, command.output()).await;
    let device = "/dev/kvm opens, but a probe guest";
    Ok(match output {
        Ok(Ok(output)) if output.status.code() == Some(EXIT_STATUS) => Finding::Works,
        Ok(Ok(output)) => {
            let said = last_line(&output.stderr);
            let reason = format!("{device} did not run under it: QEMU {}{said}", output.status);
            // A signal may have come from anybody.
            if output.status.code().is_some() {
                Finding::Fails(reason)
            } else {
                Finding::Unknown(reason)
            }
        }
        Ok(Err(error)) => Finding::Unknown(format!("{device} could not be started: {error}")),
        Err(_) => {
            Finding::Unknown(format!("{device} did not get through within {PROBE_DEADLINE:?}"))
        }
    })
}

fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    last.map_or_else(String::new, |line| {
        let line = line.chars().filter(|c| !c.is_control()).take(REASON_CHARACTERS);
        format!(", {}", line.collect::<String>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(directory: &Path) -> HostSettings {
        HostSettings {
            state: directory.to_owned(),
            runtime: directory.to_owned(),
            qemu: "/usr/bin/qemu-system-x86_64".into(),
            ..HostSettings::below(directory)
        }
    }

    #[tokio::test]
    async fn the_probe_guest_comes_through_where_everything_is_emulated() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let qemu = Qemu::find(&settings.qemu).await.unwrap();
        assert_eq!(run_probe(&settings, &qemu, Acceleration::Tcg).await.unwrap(), Finding::Works);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_program_that_runs_no_guest_gives_a_reason() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let version = super::super::QemuVersion { major: 10, minor: 0, micro: 0 };
        let qemu = Qemu { path: "/bin/false".into(), version };
        let found = run_probe(&settings, &qemu, Acceleration::Kvm).await.unwrap();
        let Finding::Fails(failure) = found else { panic!("{found:?}") };
        assert!(failure.contains("exit status: 1"), "{failure}");
    }

    #[tokio::test]
    async fn a_probe_that_could_not_run_or_was_dropped_says_nothing_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let version = super::super::QemuVersion { major: 10, minor: 0, micro: 0 };
        let qemu = Qemu { path: "/nonexistent".into(), version };
        let found = run_probe(&settings, &qemu, Acceleration::Kvm).await.unwrap();
        assert!(matches!(found, Finding::Unknown(_)), "{found:?}");
        let qemu = Qemu::find(&settings.qemu).await.unwrap();
        {
            let probe = run_probe(&settings, &qemu, Acceleration::Tcg);
            tokio::pin!(probe);
            // One look starts the program.
            let look = std::future::poll_fn(|context| {
                std::task::Poll::Ready(probe.as_mut().poll(context).is_pending())
            });
            assert!(look.await);
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn the_settings_decide_without_a_probe() {
        let directory = tempfile::tempdir().unwrap();
        let version = super::super::QemuVersion { major: 10, minor: 0, micro: 0 };
        let qemu = Qemu { path: "/nonexistent".into(), version };
        for acceleration in [Acceleration::Kvm, Acceleration::Tcg] {
            let settings =
                HostSettings { acceleration: Some(acceleration), ..settings(directory.path()) };
            let found = Accelerator::probe(&settings, &qemu).await.unwrap();
            assert_eq!(found.acceleration, acceleration);
            assert_eq!(found.reason.is_some(), acceleration == Acceleration::Tcg);
        }
    }

    /// Whatever this host can do, the answer is the same twice, and a slow one has a reason.
    #[tokio::test]
    async fn this_host_gives_one_answer() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let qemu = Qemu::find(&settings.qemu).await.unwrap();
        let first = Accelerator::probe(&settings, &qemu).await.unwrap();
        assert_eq!(first.reason.is_some(), first.acceleration == Acceleration::Tcg);
        assert_eq!(Accelerator::probe(&settings, &qemu).await.unwrap(), first);
        let rest = std::fs::read_dir(directory.path()).unwrap().flatten();
        let rest: Vec<_> = rest.map(|entry| entry.file_name()).collect();
        assert!(rest.iter().all(|name| name == "acceleration.json"), "{rest:?}");
    }

    #[test]
    fn an_answer_is_kept_until_something_changes() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let version = super::super::QemuVersion { major: 10, minor: 0, micro: 0 };
        let qemu = Qemu { path: "/q".into(), version };
        let check = |text: &str, expected: Option<Option<&str>>| {
            std::fs::write(cache_path(&settings), text).unwrap();
            let found = cached(&settings, &qemu, "b1").unwrap();
            assert_eq!(found, expected.map(|failure| failure.map(str::to_owned)), "{text}");
        };
        check(r#"{"boot_id":"b1","qemu":"/q 10.0.0","failure":"no"}"#, Some(Some("no")));
        check(r#"{"boot_id":"b1","qemu":"/q 10.0.0","failure":null}"#, Some(None));
        check(r#"{"boot_id":"b2","qemu":"/q 10.0.0","failure":null}"#, None);
        check(r#"{"boot_id":"b1","qemu":"/q 10.0.1","failure":null}"#, None);
        check("garbage", None);
    }

    #[test]
    fn reasons_are_one_clean_line() {
        assert_eq!(last_line(b"one\ntwo\x1b\n\n"), ", two");
        assert_eq!(last_line(b""), "");
        assert_eq!(last_line(&[b'x'; 1000]).len(), 202);
    }
}
