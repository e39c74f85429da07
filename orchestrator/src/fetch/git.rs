//! git, with nothing of its user's: no configuration, no hooks, no credentials, and no way to anywhere
//! but to the address that was admitted.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::call::{CallError, CallErrorKind};
use common::limits::MIB;
use reqwest::Url;
use tokio::process::Command;
use tokio::time::timeout;

/// How long one command may take: a fetch over a slow line.
const DEADLINE: Duration = Duration::from_secs(20 * 60);

/// No file that git writes has more bytes: neither what was fetched nor the archive of it.
const FILE_BYTES: u64 = 1024 * MIB;

/// The bytes of what git complains about that are shown.
const COMPLAINT_BYTES: usize = 1000;

/// Where a repository may be asked.
pub(super) struct Remote {
    pub(super) url: Url,
    pub(super) addresses: Vec<SocketAddr>,
}

impl Remote {
    /// Settings by which git asks there and nowhere else.
    fn settings(&self) -> Vec<String> {
        let mut settings = vec![
            "http.followRedirects=false".to_owned(),
            "http.proxy=".to_owned(),
            "protocol.allow=never".to_owned(),
            format!("protocol.{}.allow=always", self.url.scheme()),
        ];
        // An address needs no resolving.
        if let (Some(name), Some(first)) = (self.url.domain(), self.addresses.first()) {
            let mut line = format!("http.curloptResolve={name}:{}:", first.port());
            for (number, address) in self.addresses.iter().enumerate() {
                let comma = if number == 0 { "" } else { "," };
                match address {
                    SocketAddr::V4(address) => write!(line, "{comma}{}", address.ip()),
                    SocketAddr::V6(address) => write!(line, "{comma}[{}]", address.ip()),
                }
                .expect("a text takes everything");
            }
            settings.push(line);
        }
        settings
    }
}

/// Makes an empty repository.
pub(super) async fn init(repository: &Path) -> Result<(), CallError> {
    run(repository.parent().unwrap_or(repository), &[], &["init", "--quiet", "--bare"], repository)
        .await
        .map(drop)
}

/// Fetches a branch, a tag or a commit, without what was before it; gives the commit.
pub(super) async fn fetch(
    repository: &Path,
    remote: &Remote,
    wish: &str,
) -> Result<String, CallError> {
    let settings = remote.settings();
    let arguments = [
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-write-commit-graph",
        "--depth=1",
        "--end-of-options",
    ];
    let mut arguments: Vec<&str> = arguments.into();
    arguments.extend([remote.url.as_str(), wish]);
    run(repository, &settings, &arguments, "").await?;
    let commit =
        run(repository, &[], &["rev-parse", "--verify", "FETCH_HEAD^{commit}"], "").await?;
    Ok(commit.trim().to_owned())
}

/// Writes the files of a commit as a tar archive.
pub(super) async fn archive(repository: &Path, commit: &str, to: &Path) -> Result<(), CallError> {
    let output = format!("--output={}", to.display());
    run(repository, &[], &["archive", "--format=tar", &output, commit], "").await.map(drop)
}

async fn run(
    directory: &Path,
    settings: &[String],
    arguments: &[&str],
    last: impl AsRef<std::ffi::OsStr>,
) -> Result<String, CallError> {
    let unavailable = |why: String| CallError::new(CallErrorKind::Unavailable, why);
    let mut command = Command::new("/bin/sh");
    // The shell's limit holds for all processes that git starts. Blocks have 512 bytes.
    let script = format!("ulimit -f {}; exec git \"$@\"", FILE_BYTES / 512);
    command.args(["-c", &script, "git"]);
    for setting in ["core.hooksPath=/dev/null", "credential.helper=", "gc.auto=0"] {
        command.args(["-c", setting]);
    }
    for setting in settings {
        command.args(["-c", setting]);
    }
    command.args(arguments);
    if !last.as_ref().is_empty() {
        command.arg(last);
    }
    command
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("LC_ALL", "C")
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ASKPASS", "/bin/false")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = match timeout(DEADLINE, command.output()).await {
        Ok(output) => output.map_err(|error| unavailable(format!("git cannot run: {error}")))?,
        Err(_) => return Err(unavailable(format!("git did not end in {DEADLINE:?}"))),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = common::text::cut(said.trim(), COMPLAINT_BYTES).replace('\n', "; ");
        let name = arguments.first().copied().unwrap_or_default();
        return Err(unavailable(format!("git {name} failed ({}): {said}", output.status)));
    }
    String::from_utf8(output.stdout).map_err(|_| unavailable("git's answer is no text".to_owned()))
}
