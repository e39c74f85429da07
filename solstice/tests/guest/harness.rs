//! The story: a directory with a workflow, the program, and what it printed.

mod terminal;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) use terminal::Terminal;

/// How long anything in a test may take. Two emulated guests on a busy machine are slow.
const PATIENCE: Duration = Duration::from_secs(240);
/// The pause between two looks at something that gives no notice.
const LOOK: Duration = Duration::from_millis(20);

/// A directory with a workflow in it, and how to run it.
pub(crate) struct Story {
    directory: PathBuf,
    /// On tmpfs, and short: the path of a unix socket has 107 bytes.
    runtime: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// A command in front of the program, such as `prlimit`.
    wrapper: Vec<String>,
}

/// Runs these steps of one job on the tiny image; each line of `steps` is indented as needed.
pub(crate) fn steps(steps: &str) -> Story {
    let steps: String = steps.trim_matches('\n').lines().map(|l| format!("      {l}\n")).collect();
    workflow(&format!("on: push\njobs:\n  job:\n    runs-on: tiny\n    steps:\n{steps}"))
}

/// Runs this workflow.
pub(crate) fn workflow(text: &str) -> Story {
    let story = empty();
    story.file(".github/workflows/ci.yml", text)
}

/// A directory without a workflow.
pub(crate) fn empty() -> Story {
    let base = std::env::var_os("SOLSTICE_TEST_DIR")
        .expect("SOLSTICE_TEST_DIR names the directory of the tests; run `make test`");
    let base = PathBuf::from(base);
    fs::create_dir_all(&base).unwrap();
    let directory =
        tempfile::Builder::new().prefix("t").rand_bytes(5).tempdir_in(base).unwrap().keep();
    fs::create_dir(directory.join("repo")).unwrap();
    // scripts/leftovers.sh looks for those of one run of scripts/test.sh.
    let run = std::env::var("SOLSTICE_TEST_RUN").unwrap_or_else(|_| std::process::id().to_string());
    let prefix = format!("solstice-test-{run}-");
    let runtime = tempfile::Builder::new().prefix(&prefix).tempdir_in("/dev/shm");
    Story {
        directory,
        runtime: runtime.unwrap().keep(),
        arguments: Vec::new(),
        environment: Vec::new(),
        wrapper: Vec::new(),
    }
}

impl Story {
    /// Adds a file to the repository.
    pub(crate) fn file(self, path: &str, text: &str) -> Self {
        let path = self.repository().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Makes the directory a git repository with one commit of what is in it.
    pub(crate) fn committed(self) -> Self {
        for arguments in
            [&["init", "-q", "-b", "main"][..], &["add", "."], &["commit", "-q", "-m", "one"]]
        {
            let done = Command::new("git")
                .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
                .args(arguments)
                .current_dir(self.repository())
                .status();
            assert!(done.unwrap().success());
        }
        self
    }

    /// Adds arguments of `solstice run`.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|text| (*text).to_owned()));
        self
    }

    /// Sets a variable of the program's environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs the program through this command.
    pub(crate) fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|text| (*text).to_owned()).collect();
        self
    }

    /// Where the workflow is.
    pub(crate) fn repository(&self) -> PathBuf {
        self.directory.join("repo")
    }

    /// The state directory of the program.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Runs to the end.
    pub(crate) fn run(self) -> Ended {
        self.start().end()
    }

    /// Runs another command of the program to its end, in the same directories.
    pub(crate) fn solstice(&self, arguments: &[&str]) -> (i32, String, String) {
        self.solstice_with_input(arguments, "")
    }

    /// The same, with this on its standard input; a few lines at most.
    pub(crate) fn solstice_with_input(
        &self,
        arguments: &[&str],
        input: &str,
    ) -> (i32, String, String) {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(input.as_bytes()).unwrap();
        drop(writer);
        let done = self.command(arguments).stdin(reader).output().unwrap();
        (
            done.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&done.stdout).into_owned(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        )
    }

    /// The command line of the program with these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_solstice");
        let mut command = match self.wrapper.split_first() {
            None => Command::new(program),
            Some((wrapper, rest)) => {
                let mut command = Command::new(wrapper);
                command.args(rest).arg(program);
                command
            }
        };
        let images = std::env::var_os("SOLSTICE_IMAGE_DIR").expect("run `make test`");
        // Shared as they are: the first that needs a template makes it.
        let templates = Path::new(&images).with_file_name("templates");
        let guests = Path::new(program).parent().and_then(Path::parent).unwrap().join("guest");
        command
            .args(arguments)
            .current_dir(self.repository())
            .env_remove("SOLSTICE_TEST_DIR")
            .env_remove("SOLSTICE_TEST_RUN")
            .env("SOLSTICE_STATE_DIR", self.state())
            .env("SOLSTICE_RUNTIME_DIR", &self.runtime)
            .env("SOLSTICE_IMAGE_DIR", images)
            .env("SOLSTICE_TEMPLATE_DIR", templates)
            .env("SOLSTICE_GUEST_PROGRAMS", guests)
            // The same on every host, whatever its processor can do.
            .env("SOLSTICE_ACCELERATION", "tcg")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Whether the program has a machine, be it only its files.
    pub(crate) fn has_machine(&self) -> bool {
        let below = |directory: PathBuf| {
            fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
        };
        let instances = below(self.state().join("instances"));
        instances.flat_map(|instance| below(instance.join("machines"))).next().is_some()
    }

    /// Waits until the last machine is gone.
    pub(crate) fn wait_until_no_machine(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.has_machine() {
            assert!(Instant::now() < deadline, "a machine stays");
            std::thread::park_timeout(LOOK);
        }
    }

    /// The ends of the consoles of all machines, to be read by people.
    fn consoles(&self) -> String {
        let below = |directory: PathBuf| {
            fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
        };
        let machines = below(self.runtime.clone()).flat_map(below);
        let consoles = machines.filter_map(|machine| fs::read(machine.join("console.log")).ok());
        let ends = consoles.map(|console| {
            let text = String::from_utf8_lossy(&console).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(30)..].join("\n")
        });
        ends.collect::<Vec<_>>().join("\n---\n")
    }

    /// What a run must not leave: machines, instances, sockets.
    fn left(&self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        for place in [&self.state().join("instances"), &self.runtime] {
            let Ok(entries) = fs::read_dir(place) else { continue };
            left.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
        }
        // A service keeps its instance, whose machines it would find again.
        if let Ok(host) = fs::read_to_string(self.state().join("host-id")) {
            left.retain(|path| !path.ends_with(host.trim()));
            left.extend(self.has_machine().then(|| self.state()));
        }
        left
    }

    /// Starts `solstice serve` and waits until it answers.
    pub(crate) fn serve(&self) -> Service {
        self.answering("serve")
    }

    /// Starts `solstice orchestrator` and waits until it answers.
    pub(crate) fn orchestrator(&self) -> Service {
        self.answering("orchestrator")
    }

    /// Starts a part of the service by its command.
    pub(crate) fn part(&self, command: &str) -> Service {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.service_log());
        let child = self
            .command(&[command])
            .env("SOLSTICE_METRICS_LISTEN", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        Service(child)
    }

    fn answering(&self, command: &str) -> Service {
        let service = self.part(command);
        let deadline = Instant::now() + PATIENCE;
        while self.solstice(&["jobs"]).0 != 0 {
            let said = fs::read_to_string(self.service_log()).unwrap_or_default();
            assert!(Instant::now() < deadline, "the service does not answer:\n{said}");
            std::thread::park_timeout(LOOK);
        }
        service
    }

    /// What services of this story wrote to their log.
    pub(crate) fn service_says(&self) -> String {
        fs::read_to_string(self.service_log()).unwrap_or_default()
    }

    fn service_log(&self) -> PathBuf {
        self.directory.join("service.log")
    }

    /// Starts the program.
    pub(crate) fn start(self) -> Live {
        let mut arguments = vec!["run"];
        arguments.extend(self.arguments.iter().map(String::as_str));
        let mut child = self
            .command(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Arc::new(Output::default());
        let readers = [
            read(child.stdout.take().unwrap(), output.clone()),
            read(child.stderr.take().unwrap(), output.clone()),
        ];
        Live { story: self, child, output, readers: Vec::from(readers) }
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the directory of the failed test: {}", self.directory.display());
            for pid in processes_of(&self.directory) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            drop(fs::remove_dir_all(&self.runtime));
            return;
        }
        let clean = || processes_of(&self.directory).is_empty() && self.left().is_empty();
        let since = Instant::now();
        while !clean() && since.elapsed() < Duration::from_secs(20) {
            std::thread::park_timeout(LOOK);
        }
        let processes = processes_of(&self.directory);
        assert!(
            processes.is_empty(),
            "processes left: {processes:?} of {}",
            self.directory.display()
        );
        let left = self.left();
        assert!(left.is_empty(), "files left: {left:?}");
        fs::remove_dir_all(&self.runtime).unwrap();
        fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// A `solstice serve`, or a part of it, that runs.
pub(crate) struct Service(Child);

impl Service {
    /// Ends it by SIGKILL.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Ends it as a service manager does.
    pub(crate) fn stop(mut self) {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Service {
    /// A story that failed leaves none behind; its command line does not say whose it is.
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
}

/// Processes that name this directory in their command line.
fn processes_of(directory: &Path) -> Vec<i32> {
    let name = directory.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_string_lossy().parse::<i32>().ok() else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&name) {
            found.push(pid);
        }
    }
    found
}

/// What the program printed so far.
#[derive(Default)]
struct Output {
    text: Mutex<String>,
    more: Condvar,
}

fn read(
    stream: impl std::io::Read + Send + 'static,
    output: Arc<Output>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            output.text.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            output.more.notify_all();
            line.clear();
        }
    })
}

/// A program that runs.
pub(crate) struct Live {
    story: Story,
    child: Child,
    output: Arc<Output>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Live {
    /// Waits until the program has printed this.
    pub(crate) fn wait_for(&mut self, text: &str) -> &mut Self {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.output.text.lock().unwrap();
        while !seen.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {text:?} in {PATIENCE:?}; it printed:\n{seen}");
            assert!(
                !matches!(self.child.try_wait(), Ok(Some(_))) || !self.readers_done(),
                "it ended without {text:?}; it printed:\n{seen}"
            );
            seen = self.output.more.wait_timeout(seen, LOOK.max(left.min(LOOK * 10))).unwrap().0;
        }
        drop(seen);
        self
    }

    /// Starts `solstice serve` beside it.
    pub(crate) fn serve(&self) -> Service {
        self.story.serve()
    }

    fn readers_done(&self) -> bool {
        self.readers.iter().all(std::thread::JoinHandle::is_finished)
    }

    /// Waits until a machine runs.
    pub(crate) fn wait_until_machine(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.qemu().is_empty() {
            assert!(Instant::now() < deadline, "no machine in {PATIENCE:?}");
            std::thread::park_timeout(LOOK);
        }
    }

    /// Sends a signal to the program.
    pub(crate) fn signal(&mut self, signal: Signal) -> &mut Self {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
        self
    }

    /// The processes of QEMU that run for this story.
    pub(crate) fn qemu(&self) -> Vec<i32> {
        let is_qemu = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().starts_with("qemu")
        };
        processes_of(&self.story.directory).into_iter().filter(is_qemu).collect()
    }

    /// Waits until no process of this story is left, the program included.
    pub(crate) fn wait_until_gone(&mut self) -> &mut Self {
        drop(self.child.wait());
        let deadline = Instant::now() + PATIENCE;
        while !processes_of(&self.story.directory).is_empty() {
            assert!(Instant::now() < deadline, "processes left after {PATIENCE:?}");
            std::thread::park_timeout(LOOK);
        }
        self
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let consoles = self.story.consoles();
                drop(self.child.kill());
                let seen = self.output.text.lock().unwrap();
                panic!("no end in {PATIENCE:?}; it printed:\n{seen}\nconsoles:\n{consoles}");
            }
            std::thread::park_timeout(LOOK);
        };
        for reader in self.readers {
            reader.join().unwrap();
        }
        let text = self.output.text.lock().unwrap().clone();
        Ended { story: self.story, status, text }
    }
}

/// A program that has ended.
pub(crate) struct Ended {
    /// Where it ran.
    pub(crate) story: Story,
    status: ExitStatus,
    /// What it printed, both streams.
    pub(crate) text: String,
}

impl Ended {
    /// The exit code is this.
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{}", self.text);
        self
    }

    /// It printed this.
    pub(crate) fn shows(self, text: &str) -> Self {
        assert!(self.text.contains(text), "no {text:?} in:\n{}", self.text);
        self
    }

    /// It did not print this.
    pub(crate) fn hides(self, text: &str) -> Self {
        assert!(!self.text.contains(text), "{text:?} in:\n{}", self.text);
        self
    }

    /// It printed these, in this order.
    pub(crate) fn shows_in_order(self, texts: &[&str]) -> Self {
        let mut rest = self.text.as_str();
        for text in texts {
            let Some(at) = rest.find(text) else {
                panic!("no {text:?} (in order {texts:?}) in:\n{}", self.text);
            };
            rest = &rest[at + text.len()..];
        }
        self
    }

    /// It printed `line 1.` and so on to `line N.`, each once and in order.
    pub(crate) fn shows_each_line_once(self, to: usize) -> Self {
        let lines = self.text.lines().map(str::trim);
        let seen: Vec<&str> = lines.filter(|line| line.starts_with("line ")).collect();
        let wanted: Vec<String> = (1..=to).map(|number| format!("line {number}.")).collect();
        assert_eq!(seen, wanted, "{}", self.text);
        self
    }

    /// The events that it printed with `--json`, the summary last.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        let lines = self.text.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
