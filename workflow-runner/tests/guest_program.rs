//! The guest program as a host uses it: processes, their standard streams and exit codes.

#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that does not work")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::JobId;
use common::event::JobResult;
use common::frame::{Decoder, encode};
use common::guest::{
    ATTACH_VERSION, EXIT_DISK_FULL, FromGuest, GuestEvent, JobDocument, RunnerFacts, START_WORD,
    ToGuest,
};
use common::plan::{Containers, Dialect, PLAN_VERSION, Plan, Step, StepAction, Value};
use common::request::Contexts;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// How long a test waits for anything before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(10);

/// A directory in the place of a machine. When the test is over, no process and no run directory of
/// the guest program may be left.
struct Machine {
    place: tempfile::TempDir,
    /// Process groups of steps that the test leaves behind on purpose.
    groups: Vec<i32>,
}

impl Machine {
    fn new() -> Self {
        Self { place: tempfile::tempdir().unwrap(), groups: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn run_directory(&self) -> PathBuf {
        self.path("run")
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_workflow-runner"));
        command
            .args(arguments)
            .env("SOLSTICE_GUEST_RUN_DIR", self.run_directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end with this input. That this returns shows that no daemon holds on
    /// to the streams.
    fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self.program(arguments).spawn().unwrap();
        // A program that refuses its arguments reads nothing.
        drop(child.stdin.take().unwrap().write_all(input));
        child.wait_with_output().unwrap()
    }

    /// Runs the program with this directory on a small disk of its own, which nobody else sees.
    fn run_on_disk(&self, arguments: &[&str], input: &[u8], at: &str, options: &str) -> Output {
        fs::create_dir(self.path(at)).unwrap();
        let program = self.program(arguments);
        let user: &[&str] =
            if nix::unistd::geteuid().is_root() { &[] } else { &["--map-root-user"] };
        let mut command = Command::new("unshare");
        command
            .args(user)
            .args(["--mount", "sh", "-c"])
            .arg(format!("mount -t tmpfs -o mode=700,{options} none \"$0\" && exec \"$@\""))
            .arg(self.path(at))
            .arg(program.get_program())
            .args(program.get_args())
            .env("SOLSTICE_GUEST_RUN_DIR", self.run_directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdin.take().unwrap().write_all(input));
        child.wait_with_output().unwrap()
    }

    fn start(&self, document: &JobDocument) -> Output {
        self.run(&["start"], &serde_json::to_vec(document).unwrap())
    }

    /// A job whose only step runs this script.
    fn job(&self, script: &str) -> JobDocument {
        let step = Step {
            index: 0,
            id: None,
            name: None,
            condition: None,
            env: Value::empty_mapping(),
            continue_on_error: None,
            timeout_minutes: None,
            action: StepAction::Run {
                script: Value::literal(script),
                shell: Some(Value::literal("sh")),
                working_directory: None,
            },
            location: None,
        };
        JobDocument {
            version: ATTACH_VERSION,
            job: JobId::new(),
            plan: Plan {
                version: PLAN_VERSION,
                dialect: Dialect::Github,
                server_version: None,
                job: "test".to_owned(),
                name: "test".to_owned(),
                env: Vec::new(),
                defaults: Vec::new(),
                containers: Containers::default(),
                steps: vec![step],
                outputs: Value::empty_mapping(),
                timeout_minutes: None,
                file: None,
            },
            contexts: Contexts::default(),
            secrets: BTreeMap::new(),
            runner: RunnerFacts {
                os: "Linux".to_owned(),
                arch: "X64".to_owned(),
                name: "test".to_owned(),
                tool_cache: self.path("tools").display().to_string(),
            },
            work_directory: self.path("work").display().to_string(),
            run_as: None,
            label: None,
            checkout_first: false,
            tree: None,
            services: Vec::new(),
            native_commits: Default::default(),
        }
    }

    fn attach(&self, job: JobId, from: u64) -> Host {
        let mut child = self.program(&["attach", &job.to_string()]).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut host = Host { child, input, output, decoder: Decoder::default() };
        host.send(&ToGuest::Attach { version: ATTACH_VERSION, from });
        host
    }

    /// The daemons that belong to this machine.
    fn daemons(&self) -> Vec<i32> {
        let base = self.run_directory();
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            let ours = words.get(1..3) == Some(&[b"daemon", base.as_os_str().as_encoded_bytes()]);
            // A child that was not yet replaced by a step's program has the same words.
            let session = nix::unistd::getsid(Some(Pid::from_raw(id))).ok()?.as_raw();
            (ours && session == id).then_some(id)
        });
        processes.collect()
    }

    fn assert_nothing_is_left(&self) {
        eventually("the daemon is gone", || self.daemons().is_empty().then_some(()));
        let left = fs::read_dir(self.run_directory()).map_or(0, Iterator::count);
        assert_eq!(left, 0, "run directories are left");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for group in &self.groups {
            let _ = killpg(Pid::from_raw(*group), Signal::SIGKILL);
        }
        for daemon in self.daemons() {
            let _ = kill(Pid::from_raw(daemon), Signal::SIGKILL);
        }
    }
}

/// Waits until something is there.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::sleep(INTERVAL);
    }
}

/// The host's end of a connection.
struct Host {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    decoder: Decoder,
}

impl Host {
    fn send(&mut self, frame: &ToGuest) {
        // The daemon may be gone; what it said before is still to be read.
        drop(self.input.write_all(&encode(frame).unwrap()));
    }

    fn receive(&mut self) -> Option<FromGuest> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            let mut buffer = [0; 4096];
            match self.output.read(&mut buffer).unwrap() {
                0 => return None,
                bytes => self.decoder.push(&buffer[..bytes]),
            }
        }
    }

    fn attached(&mut self) -> u64 {
        match self.receive() {
            Some(FromGuest::Attached { next, .. }) => next,
            other => panic!("an answer was expected: {other:?}"),
        }
    }

    /// The next event. The beginning of a step is acknowledged: the guest does nothing before.
    fn event(&mut self) -> (u64, GuestEvent) {
        match self.receive() {
            Some(FromGuest::Event { seq, event }) => {
                if matches!(event, GuestEvent::StepStarted(_)) {
                    self.send(&ToGuest::Ack { seq });
                }
                (seq, event)
            }
            other => panic!("an event was expected: {other:?}"),
        }
    }

    /// Takes events from `next` on to the last, acknowledges all, and sees the connection end.
    fn finish(mut self, next: u64) -> (Vec<GuestEvent>, JobResult) {
        let mut events = Vec::new();
        for number in next.. {
            let (seq, event) = self.event();
            assert_eq!(seq, number);
            self.send(&ToGuest::Ack { seq });
            if let GuestEvent::Finished(result) = event {
                assert_eq!(self.receive(), None);
                assert_eq!(self.exit_code(), 0);
                return (events, result);
            }
            events.push(event);
        }
        unreachable!("the loop has no end")
    }

    fn exit_code(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }

    /// Cuts the connection without a word.
    fn cut(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn texts(events: &[GuestEvent]) -> Vec<String> {
    let batches = events.iter().filter_map(|event| match event {
        GuestEvent::Log(batch) => Some(&batch.lines),
        _ => None,
    });
    batches.flatten().map(|line| line.text.to_text().into_owned()).collect()
}

fn sentence(output: &Output) -> &str {
    let text = std::str::from_utf8(&output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "one line: {text:?}");
    text.trim_end()
}

#[test]
fn a_job_outlives_its_connections_and_runs_once() {
    let machine = Machine::new();
    let gate = machine.path("gate");
    let job = machine.job(&format!(
        "echo ran >>{count}; seq 1 500; until [ -e {gate} ]; do sleep 0.05; done; seq 501 1000",
        count = machine.path("count").display(),
        gate = gate.display(),
    ));
    let first = machine.start(&job);
    assert!(first.status.success(), "{first:?}");
    let expected = format!("{START_WORD} {ATTACH_VERSION} {}\n", job.job);
    assert_eq!(String::from_utf8_lossy(&first.stdout), expected);
    let again = machine.start(&job);
    assert_eq!((again.status.code(), again.stdout), (Some(0), first.stdout));

    let mut host = machine.attach(job.job, 1);
    assert_eq!(host.attached(), 1);
    let mut events = vec![host.event().1];
    host.cut();
    let mut host = machine.attach(job.job, 2);
    assert_eq!(host.attached(), 2);
    while !texts(&events).iter().any(|line| line == "500") {
        events.push(host.event().1);
    }
    host.cut();

    let [daemon] = machine.daemons()[..] else { panic!("one daemon runs") };
    kill(Pid::from_raw(daemon), Signal::SIGHUP).unwrap();
    fs::write(gate, "").unwrap();
    let next = events.len() as u64 + 1;
    let mut host = machine.attach(job.job, next);
    assert_eq!(host.attached(), next);
    let (rest, result) = host.finish(next);
    events.extend(rest);
    assert_eq!(result, JobResult::Success);

    let numbers: Vec<u32> = texts(&events).iter().filter_map(|line| line.parse().ok()).collect();
    assert!(numbers.iter().copied().eq(1..=1000), "{numbers:?}");
    assert_eq!(fs::read_to_string(machine.path("count")).unwrap(), "ran\n");
    machine.assert_nothing_is_left();
}

#[test]
fn a_cancel_ends_the_step() {
    let machine = Machine::new();
    let job = machine.job("echo begun; sleep 600");
    assert!(machine.start(&job).status.success());
    let mut host = machine.attach(job.job, 1);
    assert_eq!(host.attached(), 1);
    let mut events = Vec::new();
    while !texts(&events).iter().any(|line| line == "begun") {
        events.push(host.event().1);
    }
    host.send(&ToGuest::Cancel);
    assert_eq!(host.finish(events.len() as u64 + 1).1, JobResult::Cancelled);
    machine.assert_nothing_is_left();
}

#[test]
fn steps_do_not_inherit_the_daemons_protection() {
    // Where this user may not lower a score, the daemon's stays as it was inherited.
    let may_protect = Command::new("sh")
        .args(["-c", "echo -900 >/proc/self/oom_score_adj"])
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success();
    let inherited = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let (daemon_score, step_score) =
        if may_protect { ("-900", "0") } else { (inherited.trim(), inherited.trim()) };

    let machine = Machine::new();
    let gate = machine.path("gate");
    let job = machine.job(&format!(
        "until [ -e {} ]; do sleep 0.05; done; cat /proc/self/oom_score_adj",
        gate.display()
    ));
    assert!(machine.start(&job).status.success());
    let [daemon] = machine.daemons()[..] else { panic!("one daemon runs") };
    eventually("the daemon is protected", || {
        let score = fs::read_to_string(format!("/proc/{daemon}/oom_score_adj")).unwrap();
        (score.trim() == daemon_score).then_some(())
    });
    fs::write(gate, "").unwrap();
    let mut host = machine.attach(job.job, 1);
    assert_eq!(host.attached(), 1);
    let (events, result) = host.finish(1);
    assert_eq!(result, JobResult::Success);
    let texts = texts(&events);
    assert!(texts.iter().any(|line| line == step_score), "{texts:?}");
    machine.assert_nothing_is_left();
}

#[test]
fn a_job_whose_daemon_was_killed_is_refused_and_never_run_again() {
    let mut machine = Machine::new();
    let pid_file = machine.path("pid");
    let job = machine.job(&format!("echo $$ >{}; sleep 600", pid_file.display()));
    assert!(machine.start(&job).status.success());
    let mut first = machine.attach(job.job, 1);
    assert_eq!(first.attached(), 1);
    first.event();
    let group = eventually("the step runs", || {
        fs::read_to_string(&pid_file).ok()?.strip_suffix('\n')?.parse().ok()
    });
    machine.groups.push(group);
    let [daemon] = machine.daemons()[..] else { panic!("one daemon runs") };
    kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
    first.cut();
    // While the killed process is taken apart, its socket may still take a connection.
    let (answer, mut host) = eventually("the attach is refused", || {
        let mut host = machine.attach(job.job, 1);
        match host.receive() {
            Some(answer) => Some((answer, host)),
            None => {
                assert_eq!(host.exit_code(), 0);
                None
            }
        }
    });
    assert!(matches!(answer, FromGuest::Refused { .. }), "{answer:?}");
    assert_eq!((host.receive(), host.exit_code()), (None, 69));
    let again = machine.start(&job);
    assert_eq!(again.status.code(), Some(70));
    assert!(sentence(&again).contains("run the job in a fresh machine"), "{again:?}");
}

#[test]
fn a_job_that_was_never_started_is_refused() {
    let machine = Machine::new();
    let mut host = machine.attach(JobId::new(), 1);
    let Some(FromGuest::Refused { reason }) = host.receive() else { panic!("it is refused") };
    assert!(reason.contains("has ended or was never started"), "{reason}");
    assert_eq!(host.exit_code(), 69);
}

#[test]
fn bad_documents_are_refused_and_leave_nothing() {
    let machine = Machine::new();
    let mut other = machine.job("true");
    other.version = ATTACH_VERSION + 1;
    let check = |input: &[u8], message: &str| {
        let output = machine.run(&["start"], input);
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        assert!(sentence(&output).contains(message), "{output:?}");
        assert!(output.stdout.is_empty());
    };
    check(b"", "it ends early at line 1, column 0");
    check(b"steps: []", "it is not JSON at line 1, column 1");
    check(&serde_json::to_vec(&other).unwrap(), "upload the guest program that belongs to");
    machine.assert_nothing_is_left();
}

#[test]
fn a_place_that_cannot_be_used_is_named() {
    let machine = Machine::new();
    let elsewhere = machine.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, machine.run_directory()).unwrap();
    let output = machine.start(&machine.job("true"));
    assert_eq!(output.status.code(), Some(70));
    assert!(sentence(&output).contains("it is no directory"), "{output:?}");
    assert_eq!(fs::read_dir(elsewhere).unwrap().count(), 0);
}

#[test]
fn the_command_line_is_strict() {
    let machine = Machine::new();
    for arguments in
        [&[][..], &["begin"], &["start", "x"], &["attach"], &["attach", "../x"], &["unpack"]]
    {
        let output = machine.run(arguments, b"");
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(sentence(&output).contains("usage: "), "{output:?}");
    }
    let version = machine.run(&["version"], b"").stdout;
    let words: Vec<&str> = std::str::from_utf8(&version).unwrap().split_whitespace().collect();
    assert_eq!(words[..2], ["workflow-runner", env!("CARGO_PKG_VERSION")]);
    assert_eq!(words.len(), 3);
}

#[test]
fn an_archive_is_unpacked_from_the_standard_input() {
    let machine = Machine::new();
    let tree = machine.path("tree");
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_path_with_name(here(), "a/b").unwrap();
    let archive = archive.into_inner().unwrap();
    let output = machine.run(&["unpack", tree.to_str().unwrap()], &archive);
    assert!(output.status.success(), "{output:?}");
    assert!(tree.join("a/b").is_file());

    let output = machine.run(&["unpack", tree.to_str().unwrap()], &archive[..700]);
    assert_eq!(output.status.code(), Some(64));
    assert!(sentence(&output).contains("a/b"), "{output:?}");
}

/// This file, wherever the test runs.
fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest_program.rs")
}

/// Checks that the program has failed for want of room, and said where.
fn assert_disk_full(ended: &Output, place: &str) {
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(i32::from(EXIT_DISK_FULL)), "{said}");
    assert!(said.contains(place) && said.contains("No space left on device"), "{said}");
}

#[test]
fn an_archive_that_does_not_fit_has_an_exit_code_of_its_own() {
    let machine = Machine::new();
    let mut archive = tar::Builder::new(Vec::new());
    let content = vec![1; 1 << 20];
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "large/file", content.as_slice()).unwrap();
    let archive = archive.into_inner().unwrap();
    let target = machine.path("disk/tree");
    let unpack = ["unpack", target.to_str().unwrap()];
    let ended = machine.run_on_disk(&unpack, &archive, "disk", "size=64k");
    assert_disk_full(&ended, "large/file");
}

#[test]
fn a_job_without_room_for_its_run_directory_is_not_started() {
    let machine = Machine::new();
    let document = serde_json::to_vec(&machine.job("echo never")).unwrap();
    // One file is the root of the file system.
    let ended = machine.run_on_disk(&["start"], &document, "run", "nr_inodes=1");
    assert_disk_full(&ended, machine.run_directory().to_str().unwrap());
    assert!(ended.stdout.is_empty());
}
