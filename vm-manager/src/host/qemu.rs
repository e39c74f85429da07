//! The QEMU of this host.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// The oldest major version that the command lines of this crate were measured with.
pub const MINIMUM_QEMU: u32 = 10;

/// How long QEMU may take to print its version, on a host that is busy with other machines.
const VERSION_DEADLINE: Duration = Duration::from_secs(20);

/// A usable QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// The program.
    pub path: PathBuf,
    /// Its version.
    pub version: QemuVersion,
}

/// A version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QemuVersion {
    /// The number before the first point.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The third number.
    pub micro: u32,
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// Why there is no usable QEMU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QemuMissing {
    /// The program is not there or cannot be run.
    #[error(
        "cannot run `{}`: {reason}; install QEMU {MINIMUM_QEMU} or later (on Debian \
         `qemu-system-x86` and `qemu-utils`, for Debian 12 from backports)",
        path.display()
    )]
    NotFound {
        /// The program.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The program is older than this crate knows how to drive.
    #[error(
        "`{}` is QEMU {version}, and {MINIMUM_QEMU} or later is needed (Debian 12 has it in \
         backports)",
        path.display()
    )]
    TooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        version: QemuVersion,
    },
}

impl Qemu {
    /// Asks the program for its version. A name without a directory is looked up in `PATH`, once: a
    /// machine's QEMU runs without an environment.
    ///
    /// # Errors
    ///
    /// When it cannot be run, prints something else than QEMU does, or is too old.
    pub async fn find(path: &Path) -> Result<Self, QemuMissing> {
        let missing = |reason| QemuMissing::NotFound { path: path.to_owned(), reason };
        let path = &look_up(path, std::env::var_os("PATH").as_deref())
            .ok_or_else(|| missing("it is not in PATH".to_owned()))?;
        let mut command = Command::new(path);
        command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(VERSION_DEADLINE, command.output())
            .await
            .map_err(|_| missing(format!("it printed no version within {VERSION_DEADLINE:?}")))?
            .map_err(|error| missing(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = parse_version(&text)
            .ok_or_else(|| missing("it does not answer --version as QEMU does".to_owned()))?;
        if version.major < MINIMUM_QEMU {
            return Err(QemuMissing::TooOld { path: path.to_owned(), version });
        }
        Ok(Self { path: path.to_owned(), version })
    }
}

impl Qemu {
    /// What tells this build from others, of the same version too.
    ///
    /// # Errors
    ///
    /// When the program is gone.
    pub fn build(&self) -> std::io::Result<String> {
        let file = std::fs::metadata(&self.path)?;
        let modified = file.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(format!("{} {} {}", self.version, file.len(), modified.as_nanos()))
    }
}

/// Where a program lies, as a shell finds it; a path stays right in another directory.
fn look_up(program: &Path, search: Option<&OsStr>) -> Option<PathBuf> {
    if program.components().count() != 1 || program.has_root() {
        return std::path::absolute(program).ok();
    }
    std::env::split_paths(search?).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// `QEMU emulator version 10.0.2 (Debian ...)`.
fn parse_version(text: &str) -> Option<QemuVersion> {
    let rest = text.lines().next()?.strip_prefix("QEMU emulator version ")?;
    let number = rest.split([' ', '(']).next()?;
    let mut parts = number.split('.').map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..digits].parse::<u32>().ok()
    });
    let mut next = || parts.next().flatten();
    Some(QemuVersion { major: next()?, minor: next()?, micro: next().unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_qemu_prints_them() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(parse_version(text).map(|v| v.to_string()).as_deref(), expected, "{text}");
        };
        check("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright", Some("10.0.2"));
        check("QEMU emulator version 7.2.17", Some("7.2.17"));
        check("QEMU emulator version 10.1", Some("10.1.0"));
        check("QEMU emulator version 10.2.0-rc1", Some("10.2.0"));
        check("QEMU emulator version x", None);
        check("qemu-img version 10.0.2", None);
        check("", None);
    }

    #[test]
    fn names_are_looked_up_and_paths_are_not() {
        let check = |program: &str, expected: Option<&str>| {
            let found = look_up(Path::new(program), Some(OsStr::new("/nonexistent:/bin")));
            assert_eq!(found, expected.map(PathBuf::from), "{program}");
        };
        check("sh", Some("/bin/sh"));
        check("/opt/qemu", Some("/opt/qemu"));
        let here = std::env::current_dir().unwrap();
        check("./qemu", here.join("qemu").to_str());
        check("bin/qemu", here.join("bin/qemu").to_str());
        check("no-such-program", None);
        assert_eq!(look_up(Path::new("sh"), None), None);
    }

    #[tokio::test]
    async fn other_programs_are_not_qemu() {
        let error = Qemu::find(Path::new("/nonexistent/qemu")).await.unwrap_err();
        assert!(error.to_string().contains("install QEMU 10"), "{error}");
        let error = Qemu::find(Path::new("/bin/true")).await.unwrap_err();
        assert!(matches!(error, QemuMissing::NotFound { .. }), "{error}");

        let directory = tempfile::tempdir().unwrap();
        let old = directory.path().join("qemu");
        std::fs::write(&old, "#!/bin/sh\necho QEMU emulator version 7.2.1\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&old, mode).unwrap();
        let error = Qemu::find(&old).await.unwrap_err();
        assert!(error.to_string().contains("is QEMU 7.2.1"), "{error}");
    }
}
