//! A real OpenSSH server for one test, in a directory of its own.
//!
//! There is no daemon: the test accepts each connection and gives it to an `sshd -i`, so that no
//! port is guessed, connections can be cut, and nothing runs on after the test.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::PATIENCE;
use crate::ssh::{Guest, Keys};

const SSHD: &str = "/usr/sbin/sshd";
const RUN_DIRECTORY: &str = "/run/sshd";

pub(super) struct Sshd {
    pub(super) address: SocketAddr,
    pub(super) keys: Keys,
    directory: tempfile::TempDir,
    cut: CancellationToken,
    tasks: TaskTracker,
}

impl Sshd {
    pub(super) async fn start() -> Self {
        Self::with("Subsystem sftp internal-sftp").await
    }

    /// A server with further lines of configuration.
    pub(super) async fn with(configuration: &str) -> Self {
        assert!(
            Path::new(SSHD).exists(),
            "the tests of the ssh connection need {SSHD}: run `scripts/setup.sh test` or install \
             openssh-server"
        );
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::generate().unwrap();
        let file = |name: &str, mode: u32, text: &str| -> PathBuf {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let host_key = file("host_key", 0o600, &keys.host_private_openssh().unwrap());
        let authorized = file("authorized_keys", 0o644, &(keys.login_public_line() + "\n"));
        let text = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nUsePAM no\nStrictModes no\nPidFile none\n\
             PasswordAuthentication no\nPrintMotd no\nPrintLastLog no\nLogLevel VERBOSE\n\
             {configuration}\n",
            host_key.display(),
            authorized.display()
        );
        let configuration = file("sshd_config", 0o644, &text);

        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, tasks) = (CancellationToken::new(), TaskTracker::new());
        let log = directory.path().join("log");
        let accept = {
            let (cut, tasks) = (cut.clone(), tasks.clone());
            async move {
                while let Some(Ok((socket, _))) = cut.run_until_cancelled(listener.accept()).await {
                    tasks.spawn(serve(socket, configuration.clone(), log.clone(), cut.clone()));
                }
            }
        };
        tasks.spawn(accept);
        Self { address, keys, directory, cut, tasks }
    }

    /// A directory for the test's files, which the guest sees as well.
    pub(super) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    pub(super) async fn login(&self) -> Guest {
        match Guest::connect(self.address, &user(), &self.keys, PATIENCE).await {
            Ok(guest) => guest,
            Err(error) => {
                let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
                panic!("{error}\n{log}");
            }
        }
    }

    /// Cuts all connections, and takes no new ones.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Waits until nothing of the server runs any more. All guests must be gone before.
    pub(super) async fn stop(self) {
        self.cut.cancel();
        self.tasks.close();
        tokio::time::timeout(PATIENCE, self.tasks.wait()).await.expect("the server ends");
    }
}

/// The user who runs the tests: the one that an unprivileged sshd can log in.
pub(super) fn user() -> String {
    nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name
}

async fn serve(
    mut socket: TcpStream,
    configuration: PathBuf,
    log: PathBuf,
    cut: CancellationToken,
) {
    let mut child = sshd(&configuration, &log)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut server = tokio::io::join(output, input);
    // An error here is a connection that a test has cut.
    drop(cut.run_until_cancelled(tokio::io::copy_bidirectional(&mut socket, &mut server)).await);
    drop((socket, server));
    child.wait().await.unwrap();
}

/// sshd with an input and output for one connection. Started by root it wants an empty directory
/// below /run: where the system has none, it gets a private /run.
fn sshd(configuration: &Path, log: &Path) -> Command {
    let private = nix::unistd::geteuid().is_root() && !Path::new(RUN_DIRECTORY).exists();
    let mut command = if private {
        let mut command = Command::new("unshare");
        let prepare = format!("mount -t tmpfs none /run && mkdir {RUN_DIRECTORY} && exec \"$@\"");
        command.args(["--mount", "sh", "-c", &prepare, "sh", SSHD]);
        command
    } else {
        Command::new(SSHD)
    };
    command.args(["-i", "-f"]).arg(configuration).arg("-E").arg(log);
    command
}
