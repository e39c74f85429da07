//! The directory of one server, and the certainty that nothing of it stays.
//!
//! Every process of a server works in the server's directory, whatever group or session it puts
//! itself into: that is how they are found. A watchdog process waits on a pipe whose other end only
//! the test process holds. When that end closes, because the server is dropped or because the test
//! process is gone in whichever way, the watchdog kills what works in the directory and removes it.
//! A server that is being started while the test process is killed is not missed: the end of the
//! pipe closes in it at its exec, after it has entered the directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, chown};

use crate::ServerError;
use crate::account::Account;

/// How long killed processes may take to be gone.
const KILL: Duration = Duration::from_secs(10);

/// Time between two looks at something that cannot be waited on.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// Bytes of a log that an error quotes.
const QUOTED: usize = 2000;

/// Looks for processes until there are none, since a dying one may have forked; then removes the
/// directory. Asks first, because a database that is killed leaves shared memory that outlives it;
/// kills from the second second on, and gives up after ten seconds of tries.
const WATCHDOG: &str = r#"
trap '' HUP INT QUIT TERM
read -r _
tries=0
while [ $tries -lt 200 ]; do
    tries=$((tries + 1))
    found=$(find /proc/[0-9]*/cwd -maxdepth 0 \( -lname "$1" -o -lname "$1/*" \) 2>/dev/null)
    signal=KILL
    if [ $tries -lt 20 ]; then signal=QUIT; fi
    for cwd in $found; do
        pid=${cwd#/proc/}
        kill -$signal "${pid%/cwd}" 2>/dev/null
    done
    if [ -z "$found" ] && rm -rf "$1" 2>/dev/null; then exit 0; fi
    sleep 0.05
done
exit 1
"#;

/// The directory of one server.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    account: Account,
    children: Vec<Child>,
    watchdog: Child,
}

impl Place {
    /// Makes a directory for a server of this name, which runs as `user` if it cannot be root.
    pub(crate) fn make(name: &str, user: &'static str) -> Result<Self, ServerError> {
        let account = Account::choose(user)?;
        let directory = tempfile::Builder::new()
            .prefix(&format!("solstice-{name}-{}-", run()))
            .tempdir_in(account.temporary())
            .map_err(ServerError::system("make a directory for a server"))?;
        // What /proc shows has no links in it.
        let path = directory
            .path()
            .canonicalize()
            .map_err(ServerError::system("find the directory of a server"))?;
        let watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "watch-server"])
            .arg(&path)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(ServerError::system("start the watchdog of a server"))?;
        drop(directory.keep());
        let place = Self { path, account, children: Vec::new(), watchdog };
        place.own(&place.path)?;
        Ok(place)
    }

    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory in it, which belongs to the server.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf, ServerError> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).map_err(ServerError::system(format!("make {path:?}")))?;
        self.own(&path)?;
        Ok(path)
    }

    /// Writes a file in it, which belongs to the server and which nobody else reads.
    pub(crate) fn file(&self, name: &str, content: &str) -> Result<PathBuf, ServerError> {
        let path = self.path.join(name);
        let error = || ServerError::system(format!("write {path:?}"));
        fs::write(&path, content).map_err(error())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(error())?;
        self.own(&path)?;
        Ok(path)
    }

    /// A command that runs in the directory, as the server's user, with nothing of the test's
    /// environment.
    pub(crate) fn command(&self, program: &Path) -> Result<Command, ServerError> {
        if !program.is_file() {
            return Err(ServerError::Missing { program: program.to_owned() });
        }
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", &self.path)
            .env("LANG", "C.UTF-8")
            .env("TMPDIR", &self.path)
            .current_dir(&self.path)
            .stdin(Stdio::null())
            .process_group(0);
        if self.account.other {
            command.uid(self.account.uid.as_raw()).gid(self.account.gid.as_raw());
        }
        Ok(command)
    }

    /// Starts a command that goes on, with what it writes in a log of this name.
    pub(crate) fn spawn(&mut self, mut command: Command, log: &str) -> Result<(), ServerError> {
        let error = || ServerError::system(format!("start {:?}", command.get_program()));
        let path = self.path.join(log);
        let file = fs::OpenOptions::new().create(true).append(true).open(path).map_err(error())?;
        let copy = file.try_clone().map_err(error())?;
        let error = error();
        let child = command.stdout(file).stderr(copy).spawn().map_err(error)?;
        self.children.push(child);
        Ok(())
    }

    /// Runs a command to its end and gives what it wrote.
    pub(crate) fn run(&self, mut command: Command) -> Result<String, ServerError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let Output { status, stdout, stderr } =
            command.output().map_err(ServerError::system(format!("start {program:?}")))?;
        if status.success() {
            return Ok(String::from_utf8_lossy(&stdout).into_owned());
        }
        let output = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
        Err(ServerError::Failed { what: format!("{program:?}"), output: tail(&output) })
    }

    /// Whether one of the started commands has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.children.iter_mut().any(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// The end of a log.
    pub(crate) fn log(&self, name: &str) -> String {
        let bytes = fs::read(self.path.join(name)).unwrap_or_default();
        tail(&String::from_utf8_lossy(&bytes))
    }

    /// Kills every process of the server, as a crash would, and waits until they are gone.
    pub(crate) fn kill(&mut self) -> Result<(), ServerError> {
        let start = Instant::now();
        loop {
            let found = self.processes();
            for &pid in &found {
                // It may have ended meanwhile.
                let _ = kill(pid, Signal::SIGKILL);
            }
            if found.is_empty() {
                break;
            }
            if start.elapsed() > KILL {
                return Err(ServerError::Failed {
                    what: format!("killing the processes {found:?}"),
                    output: "they are still there".to_owned(),
                });
            }
            std::thread::sleep(POLL);
        }
        self.reap();
        Ok(())
    }

    /// The processes that work in the directory.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let cwd = fs::read_link(entry.path().join("cwd")).ok()?;
                cwd.starts_with(&self.path).then_some(Pid::from_raw(pid))
            })
            .collect()
    }

    fn own(&self, path: &Path) -> Result<(), ServerError> {
        if !self.account.other {
            return Ok(());
        }
        chown(path, Some(self.account.uid), Some(self.account.gid)).map_err(|errno| {
            ServerError::System { what: format!("hand {path:?} over"), source: errno.into() }
        })
    }

    fn reap(&mut self) {
        for mut child in self.children.drain(..) {
            drop(child.wait());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let clean = self.watchdog.wait().is_ok_and(|status| status.success());
        self.reap();
        if !clean && !std::thread::panicking() {
            panic!("the server in {:?} could not be cleared away", self.path);
        }
    }
}

/// What belongs to this run of the tests in the names of its directories, so that
/// `scripts/leftovers.sh` tells them from those of another run on the same machine.
fn run() -> String {
    let run = std::env::var("SOLSTICE_TEST_RUN").unwrap_or_default();
    if run.is_empty() { std::process::id().to_string() } else { run }
}

/// Runs what blocks beside the test's own tasks, which go on meanwhile.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn tail(text: &str) -> String {
    let text = text.trim();
    let mut start = text.len().saturating_sub(QUOTED);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

/// Whether a process runs. An orphan that was killed is a zombie until init looks after it, and
/// has no directory any more.
#[cfg(test)]
pub(crate) fn runs(pid: Pid) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(place: &mut Place) {
        let mut command = place.command(Path::new("/bin/sh")).unwrap();
        // A grandchild in a session of its own, as the children of a database are.
        command.args(["-c", "setsid sleep 600 & exec sleep 600"]);
        place.spawn(command, "log").unwrap();
        let start = Instant::now();
        while place.processes().len() < 2 {
            assert!(start.elapsed() < KILL, "the processes did not start");
            std::thread::sleep(POLL);
        }
    }

    fn assert_gone(path: &Path, pids: &[Pid]) {
        assert!(!path.exists(), "{path:?} is still there");
        for &pid in pids {
            assert!(!runs(pid), "process {pid} is still there");
        }
    }

    #[test]
    fn drop_ends_all_processes_and_removes_the_directory() {
        let mut place = Place::make("place", "nobody").unwrap();
        sleeper(&mut place);
        let (path, pids) = (place.path().to_owned(), place.processes());
        drop(place);
        assert_gone(&path, &pids);
    }

    #[test]
    fn kill_ends_all_processes_and_keeps_the_directory() {
        let mut place = Place::make("place", "nobody").unwrap();
        sleeper(&mut place);
        let pids = place.processes();
        place.kill().unwrap();
        assert!(place.path().exists());
        for pid in pids {
            assert!(!runs(pid), "process {pid} is still there");
        }
    }

    /// The test binary runs itself; the child makes a place, tells about it, and is killed.
    #[test]
    fn a_killed_test_process_leaves_nothing() {
        use std::io::{BufRead, BufReader};
        const CHILD: &str = "SOLSTICE_TEST_PLACE_CHILD";
        if std::env::var_os(CHILD).is_some() {
            let mut place = Place::make("place", "nobody").unwrap();
            sleeper(&mut place);
            let pids: Vec<_> = place.processes().iter().map(ToString::to_string).collect();
            println!("\nplace {} {}", place.path().display(), pids.join(" "));
            loop {
                std::thread::park();
            }
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "place::tests::a_killed_test_process_leaves_nothing", "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let line = output
            .lines()
            .map(Result::unwrap)
            .find(|line| line.starts_with("place "))
            .expect("the child tells about its place");
        child.kill().unwrap();
        child.wait().unwrap();
        let mut words = line.split(' ').skip(1);
        let path = PathBuf::from(words.next().unwrap());
        let pids: Vec<_> = words.map(|pid| Pid::from_raw(pid.parse().unwrap())).collect();
        assert_eq!(pids.len(), 2);
        let start = Instant::now();
        while path.exists() {
            assert!(start.elapsed() < KILL, "{path:?} is still there");
            std::thread::sleep(POLL);
        }
        assert_gone(&path, &pids);
    }
}
