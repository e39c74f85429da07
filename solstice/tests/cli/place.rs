//! A project in a directory of its own, and the program run there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// A directory with these files in it, and the program run there.
pub(super) struct Place {
    pub(super) directory: tempfile::TempDir,
}

/// What the program did.
pub(super) struct Done {
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
    /// Whether it made its state or runtime directory.
    pub(super) created: bool,
}

impl Done {
    /// The input was refused with a text that begins like this.
    #[track_caller]
    pub(super) fn refused(&self, start: &str) {
        assert!(self.stderr.starts_with(start), "{}", self.stderr);
        assert_eq!((self.code, self.stdout.as_str()), (64, ""));
    }
}

pub(super) fn place() -> Place {
    Place { directory: tempfile::tempdir().unwrap() }
}

/// A project with this workflow.
pub(super) fn workflow(text: &str) -> Place {
    place().file(".github/workflows/ci.yml", text)
}

impl Place {
    pub(super) fn file(self, path: &str, text: &str) -> Self {
        let path = self.project().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        self
    }

    pub(super) fn project(&self) -> std::path::PathBuf {
        let path = self.directory.path().join("project");
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let directory = self.directory.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_solstice"));
        command
            .args(arguments)
            .current_dir(self.project())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", directory)
            .env("GIT_CEILING_DIRECTORIES", directory)
            .env("SOLSTICE_STATE_DIR", directory.join("state"))
            .env("SOLSTICE_RUNTIME_DIR", directory.join("run"))
            .stdin(Stdio::null());
        command
    }

    pub(super) fn solstice(&self, arguments: &[&str]) -> Done {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let made = |name: &str| Path::new(self.directory.path()).join(name).exists();
        Done {
            code: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            created: made("state") || made("run"),
        }
    }

    /// The command is refused with exactly this text, and nothing was made.
    pub(super) fn refuses(&self, arguments: &[&str], stderr: &str) {
        let done = self.solstice(arguments);
        assert_eq!(done.stderr, stderr, "{arguments:?}");
        assert_eq!((done.code, done.stdout.as_str(), done.created), (64, "", false));
    }
}
