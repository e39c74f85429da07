//! git, with nothing of its user's: no configuration, no hooks, no credentials but a job's, and no way
//! to anywhere but to the address that was admitted.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::call::{CallError, CallErrorKind};
use common::limits::{GIB, MIB};
use common::request::Secret;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use reqwest::Url;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// How long one command may take: a fetch over a slow line.
const DEADLINE: Duration = Duration::from_secs(20 * 60);

/// No file that git writes has more bytes: neither what was fetched nor the archive of it.
const FILE_BYTES: u64 = 4 * GIB;

/// No process of git has more address space: a small repository may unfold to a very large tree.
const MEMORY_BYTES: u64 = 6 * GIB;

/// The bytes of what git prints that are kept.
const OUTPUT_BYTES: usize = 64 * 1024;

/// The bytes of records that are kept.
const RECORD_BYTES: usize = 4 * MIB as usize;

/// The characters of what git complains about that are shown.
const COMPLAINT_CHARACTERS: usize = 1000;

/// What a server is told to let a job in, in the form in which the checkout action does it
/// (forgejo-runner-protocol 6.7).
#[derive(Clone, Debug)]
pub(super) struct Credentials(Secret);

impl Credentials {
    pub(super) fn of(token: &Secret) -> Self {
        let basic = BASE64_STANDARD.encode(format!("x-access-token:{}", token.expose()));
        Self(Secret::new(format!("basic {basic}")))
    }

    /// The value of the header `Authorization`.
    pub(super) fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// Where a repository may be asked.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) url: Url,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) credentials: Option<Credentials>,
}

impl Remote {
    /// Settings by which git asks there and nowhere else. They reach it by its environment, which
    /// nobody else can read.
    fn settings(&self) -> Vec<(String, String)> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut settings = vec![
            pair("http.followRedirects", "false"),
            pair("http.proxy", ""),
            // Bytes in a second, and seconds: who sends less is given up. A server that packs a large
            // repository says next to nothing meanwhile.
            pair("http.lowSpeedLimit", "1000"),
            pair("http.lowSpeedTime", "600"),
            pair("protocol.allow", "never"),
            (format!("protocol.{}.allow", self.url.scheme()), "always".to_owned()),
        ];
        // An address needs no resolving.
        if let (Some(name), Some(first)) = (self.url.domain(), self.addresses.first()) {
            let mut line = format!("{name}:{}:", first.port());
            for (number, address) in self.addresses.iter().enumerate() {
                let comma = if number == 0 { "" } else { "," };
                match address {
                    SocketAddr::V4(address) => write!(line, "{comma}{}", address.ip()),
                    SocketAddr::V6(address) => write!(line, "{comma}[{}]", address.ip()),
                }
                .expect("a text takes everything");
            }
            settings.push(("http.curloptResolve".to_owned(), line));
        }
        if let Some(credentials) = &self.credentials {
            let header = format!("Authorization: {}", credentials.expose());
            settings.push(("http.extraHeader".to_owned(), header));
        }
        settings
    }
}

/// Settings for what stays on this host.
pub(super) fn local() -> Vec<(String, String)> {
    vec![
        ("protocol.allow".to_owned(), "never".to_owned()),
        ("protocol.file.allow".to_owned(), "always".to_owned()),
    ]
}

/// What a git is told that reads much, on its command line.
pub(super) const READER: [&str; 4] =
    ["-c", "core.packedGitLimit=1g", "-c", "core.bigFileThreshold=64m"];

/// What git is told beside the settings of a remote.
const SETTINGS: [(&str, &str); 8] = [
    ("core.hooksPath", "/dev/null"),
    ("credential.helper", ""),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    // What comes is there as a whole or not at all: a commit never without its files.
    ("fetch.unpackLimit", "1"),
    ("tar.umask", "0022"),
    ("core.packedGitLimit", "1g"),
    ("core.bigFileThreshold", "64m"),
];

/// Fetches from a remote what these arguments name.
pub(super) async fn fetch(
    repository: &Path,
    remote: &Remote,
    arguments: &[&str],
    wishes: &[&str],
) -> Result<(), CallError> {
    if remote.url.domain().is_some() {
        can_be_told_addresses().await?;
    }
    let mut all = vec!["fetch", "--quiet", "--no-tags", "--no-write-commit-graph"];
    all.extend(arguments);
    all.extend(["--end-of-options", remote.url.as_str()]);
    all.extend(wishes);
    run(repository, &remote.settings(), &all).await.map(drop)
}

/// Whether a server gives out branches and tags only, and no other commits.
pub(super) fn refuses_ids(error: &CallError) -> bool {
    ["unadvertised object", "not our ref"].iter().any(|words| error.message.contains(words))
}

/// The error of a fetch: what a server does not give out is not there, and no other try brings it.
pub(super) fn absent(error: CallError, wish: &str, url: &Url) -> CallError {
    if !refuses_ids(&error) {
        return error;
    }
    let said = &error.message;
    let text = format!(
        "{url} does not give out {wish}; look whether it is right, and in one of its branches or \
         tags ({said})"
    );
    CallError::new(CallErrorKind::NotFound, text)
}

/// The first version of git that can be told at which addresses a name is (git-config(1),
/// `http.curloptResolve`). An older one would ask for them again, and might get others.
const TOLD_ADDRESSES: (u32, u32) = (2, 37);

async fn can_be_told_addresses() -> Result<(), CallError> {
    static KNOWN: OnceCell<String> = OnceCell::const_new();
    let nothing: &[(String, String)] = &[];
    let version = KNOWN.get_or_try_init(|| run(Path::new("/"), nothing, &["version"])).await?;
    match version_of(version) {
        Some(version) if version >= TOLD_ADDRESSES => Ok(()),
        _ => {
            let (major, minor) = TOLD_ADDRESSES;
            let text = format!(
                "this host has {}, and fetching needs git {major}.{minor}; the operator of this \
                 runner has to install it",
                version.trim()
            );
            Err(CallError::new(CallErrorKind::Refused, text))
        }
    }
}

/// The first two numbers of what `git version` prints.
fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("git version ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Runs git in a directory; gives what it prints.
pub(super) async fn run(
    directory: &Path,
    settings: &[(String, String)],
    arguments: &[impl AsRef<OsStr>],
) -> Result<String, CallError> {
    let output = run_reading(directory, settings, arguments, bounded).await?;
    String::from_utf8(output).map_err(|_| unavailable("git's answer is no text".to_owned()))
}

/// Runs git in a directory, and keeps those of the records it prints that `wanted` wants. A record ends
/// with a zero byte; nothing is given if they have more than [`RECORD_BYTES`] together.
pub(super) async fn records(
    directory: &Path,
    arguments: &[&str],
    wanted: impl Fn(&[u8]) -> bool,
) -> Result<Option<Vec<Vec<u8>>>, CallError> {
    let read = async |stream: Option<ChildStdout>| {
        let (mut kept, mut room) = (Vec::new(), RECORD_BYTES);
        let Some(stream) = stream else { return Some(kept) };
        let mut stream = BufReader::new(stream);
        loop {
            let mut record = Vec::new();
            // With the byte at its end.
            let bound = u64::try_from(room).map_or(u64::MAX, |room| room.saturating_add(1));
            match (&mut stream).take(bound).read_until(0, &mut record).await {
                Ok(0) | Err(_) => return Some(kept),
                Ok(_) => {}
            }
            if record.pop() != Some(0) {
                // It ends by itself then.
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap_or_default();
                return None;
            }
            if wanted(&record) {
                room -= record.len();
                kept.push(record);
            }
        }
    };
    run_reading(directory, &local(), arguments, read).await
}

/// Runs git in a directory, and reads what it prints so.
async fn run_reading<T>(
    directory: &Path,
    settings: &[(String, String)],
    arguments: &[impl AsRef<OsStr>],
    read: impl AsyncFnOnce(Option<ChildStdout>) -> T,
) -> Result<T, CallError> {
    let cannot = |error: io::Error| unavailable(format!("git cannot run: {error}"));
    let mut command = Command::from(command(directory, settings, arguments));
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(cannot)?;
    let mut group = Group::of(&child);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ended = async {
        let output = tokio::join!(read(stdout), bounded(stderr));
        child.wait().await.map(|status| (status, output))
    };
    let (status, (output, stderr)) = match timeout(DEADLINE, ended).await {
        Ok(ended) => {
            // Its number may soon be another's.
            group.0 = None;
            ended.map_err(cannot)?
        }
        Err(_) => return Err(unavailable(format!("git did not end in {DEADLINE:?}"))),
    };
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr);
        let said = common::text::cut(said.trim(), COMPLAINT_CHARACTERS).replace('\n', "; ");
        let name = arguments.first().map(|name| name.as_ref().to_string_lossy());
        let name = name.unwrap_or_default();
        return Err(unavailable(format!("git {name} failed ({status}): {said}")));
    }
    Ok(output)
}

fn unavailable(why: String) -> CallError {
    CallError::new(CallErrorKind::Unavailable, why)
}

/// The processes of one git, which end with this.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Who has ended meanwhile needs no killing.
            killpg(group, Signal::SIGKILL).unwrap_or_default();
        }
    }
}

/// Reads to the end, and keeps the beginning: a server may say whatever it likes.
async fn bounded(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 8 * 1024]);
    let Some(mut stream) = stream else { return kept };
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let room = OUTPUT_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    kept
}

/// The command line and the environment of git.
pub(super) fn command(
    directory: &Path,
    settings: &[(String, String)],
    arguments: &[impl AsRef<OsStr>],
) -> std::process::Command {
    let mut command = std::process::Command::new("/bin/sh");
    // The shell's limit holds for all processes that git starts. Blocks have 512 bytes.
    let script = format!(
        "ulimit -f {}; ulimit -v {}; exec git \"$@\"",
        FILE_BYTES / 512,
        MEMORY_BYTES / 1024
    );
    command.args(["-c", &script, "git"]).args(arguments);
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
        .process_group(0)
        .stdin(Stdio::null());
    let own = SETTINGS.iter().map(|&(name, value)| (name, value));
    let given = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut count = 0;
    for (name, value) in own.chain(given) {
        command.env(format!("GIT_CONFIG_KEY_{count}"), name);
        command.env(format!("GIT_CONFIG_VALUE_{count}"), value);
        count += 1;
    }
    command.env("GIT_CONFIG_COUNT", count.to_string());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (text, version) in [
            ("git version 2.39.5\n", Some((2, 39))),
            ("git version 2.37.1 (Apple Git-137.1)", Some((2, 37))),
            ("git version 3.0", Some((3, 0))),
            ("git version next", None),
            ("", None),
        ] {
            assert_eq!(version_of(text), version, "{text:?}");
        }
        assert!(version_of("git version 2.9.5").is_some_and(|version| version < TOLD_ADDRESSES));
    }

    #[test]
    fn a_name_goes_to_the_addresses_that_were_admitted() {
        let remote = Remote {
            url: Url::parse("https://forge.example/own/a").unwrap(),
            addresses: vec!["192.0.2.1:443".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap()],
            credentials: Some(Credentials::of(&Secret::new("t"))),
        };
        let settings = remote.settings();
        let value = |name: &str| {
            settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        let told = "forge.example:443:192.0.2.1,[2001:db8::1]";
        assert_eq!(value("http.curloptResolve"), Some(told));
        assert_eq!(value("http.followRedirects"), Some("false"));
        assert_eq!(value("protocol.allow"), Some("never"));
        assert_eq!(value("protocol.https.allow"), Some("always"));
        let command = command(Path::new("/"), &settings, &["fetch"]);
        let shown = command.get_args().any(|argument| argument.to_string_lossy().contains("eC1h"));
        assert!(!shown, "what lets a job in stands in no command line");
    }
}
