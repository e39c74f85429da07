//! How a guest boots.
//!
//! vm-manager starts QEMU without an environment, so this stands in files beside the program:
//! `boot.conf` for every boot, and in the directory `boots` files for one boot each, of which a boot
//! takes the first by name. Each has lines `SCRIPTED_BOOT_MS=MILLISECONDS` and
//! `SCRIPTED_BOOT=ready|full|hang|panic|refuse|fail`; variables of these names are the defaults.

use std::path::Path;
use std::time::Duration;

/// The longest boot: more is a slip.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How a guest boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boot {
    /// How long it takes until it comes to [`Boot::end`].
    pub(crate) time: Duration,
    /// What comes of it.
    pub(crate) end: BootEnd,
}

/// What comes of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BootEnd {
    /// The SSH server answers and lets the host in.
    Ready,
    /// The SSH server answers and lets the host in, and the disk has no room for a working tree.
    Full,
    /// The SSH server answers and lets the host in, and the guest program takes its time to start a job.
    Slow,
    /// The SSH server never answers.
    Hang,
    /// The kernel panics.
    Panic,
    /// The SSH server answers and lets nobody in.
    Refuse,
    /// QEMU itself does not start.
    Fail,
}

impl Default for Boot {
    fn default() -> Self {
        Self { time: Duration::ZERO, end: BootEnd::Ready }
    }
}

impl Boot {
    /// How this boot goes; the error is a sentence.
    pub(crate) fn load(
        directory: Option<&Path>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let mut boot = Self::default();
        for name in ["SCRIPTED_BOOT_MS", "SCRIPTED_BOOT"] {
            if let Some(value) = variable(name) {
                boot.set(name, &value)?;
            }
        }
        if let Some(directory) = directory {
            if let Ok(text) = std::fs::read_to_string(directory.join("boot.conf")) {
                boot.read(&text)?;
            }
            if let Some(text) = take_first(&directory.join("boots")) {
                boot.read(&text)?;
            }
        }
        Ok(boot)
    }

    fn read(&mut self, text: &str) -> Result<(), String> {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once('=').ok_or(format!("no value in {line:?}"))?;
            self.set(name, value)?;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match (name, value) {
            ("SCRIPTED_BOOT_MS", _) => {
                let time = value.parse().map(Duration::from_millis).ok();
                self.time = time
                    .filter(|time| *time <= LONGEST)
                    .ok_or(format!("{value:?} is no time of a boot"))?;
            }
            ("SCRIPTED_BOOT", "ready") => self.end = BootEnd::Ready,
            ("SCRIPTED_BOOT", "full") => self.end = BootEnd::Full,
            ("SCRIPTED_BOOT", "slow") => self.end = BootEnd::Slow,
            ("SCRIPTED_BOOT", "hang") => self.end = BootEnd::Hang,
            ("SCRIPTED_BOOT", "panic") => self.end = BootEnd::Panic,
            ("SCRIPTED_BOOT", "refuse") => self.end = BootEnd::Refuse,
            ("SCRIPTED_BOOT", "fail") => self.end = BootEnd::Fail,
            _ => return Err(format!("{name}={value} is nothing that a boot knows")),
        }
        Ok(())
    }
}

/// Takes the first file of a directory. Removing it is what decides between two that start at once.
fn take_first(directory: &Path) -> Option<String> {
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).ok()?.flatten().map(|file| file.path()).collect();
    paths.sort();
    paths.into_iter().find_map(|path| {
        let text = std::fs::read_to_string(&path).ok()?;
        std::fs::remove_file(&path).ok().map(|()| text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_file_counts() {
        let directory = tempfile::tempdir().unwrap();
        let load = || Boot::load(Some(directory.path()), |_| None);
        assert_eq!(load(), Ok(Boot::default()));
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text);
        write("boot.conf", "SCRIPTED_BOOT_MS=50\n").unwrap();
        std::fs::create_dir(directory.path().join("boots")).unwrap();
        write("boots/2", "SCRIPTED_BOOT=panic\n").unwrap();
        write("boots/1", "SCRIPTED_BOOT=hang\nSCRIPTED_BOOT_MS=7").unwrap();
        let boot = |ms, end| Ok(Boot { time: Duration::from_millis(ms), end });
        assert_eq!(load(), boot(7, BootEnd::Hang));
        assert_eq!(load(), boot(50, BootEnd::Panic));
        assert_eq!(load(), boot(50, BootEnd::Ready));
        write("boot.conf", "SCRIPTED_BOOT=sleep").unwrap();
        assert!(load().is_err());
    }

    #[test]
    fn variables_are_defaults() {
        let boot = Boot::load(None, |name| (name == "SCRIPTED_BOOT").then(|| "refuse".to_owned()));
        assert_eq!(boot.unwrap().end, BootEnd::Refuse);
        assert!(Boot::load(None, |_| Some("x".to_owned())).is_err());
    }
}
