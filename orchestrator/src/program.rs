//! The guest programs on this host, one for each system.

use std::path::{Path, PathBuf};

use common::infrastructure::{Cause, Infrastructure};

/// The file name of the guest program for a system: `runner.os` and `runner.arch` in lower case.
#[must_use]
pub fn file_name(runner_os: &str, runner_arch: &str) -> String {
    format!("workflow-runner-{}-{}", runner_os.to_lowercase(), runner_arch.to_lowercase())
}

/// Finds the guest program for a system in the first of these directories that has it.
///
/// # Errors
/// None has it; the message names the file and the directories.
pub fn find(
    directories: &[PathBuf],
    runner_os: &str,
    runner_arch: &str,
) -> Result<PathBuf, Infrastructure> {
    let name = file_name(runner_os, runner_arch);
    let found = directories.iter().map(|directory| directory.join(&name)).find(|p| p.is_file());
    found.ok_or_else(|| {
        let searched: Vec<String> = directories.iter().map(|p| display(p)).collect();
        Infrastructure::new(
            Cause::GuestProgram,
            format!(
                "there is no guest program {name} in {}; build it with scripts/guest-program.sh \
                 or set `guest_programs`",
                searched.join(" or ")
            ),
        )
    })
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_directory_that_has_the_program_wins() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("workflow-runner-linux-x64");
        let directories = [PathBuf::from("/nonexistent"), directory.path().to_owned()];
        let missing = find(&directories, "Linux", "X64").unwrap_err();
        assert!(missing.message.contains("workflow-runner-linux-x64"), "{missing}");
        std::fs::write(&program, "").unwrap();
        assert_eq!(find(&directories, "Linux", "X64").unwrap(), program);
    }
}
