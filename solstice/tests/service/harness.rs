//! A host with a service on it: its directories, the program, and what it is asked over its socket.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use common::JobId;
use common::event::JobEvent;
use common::frame::Decoder;
use common::request::JobRequest;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use orchestrator::api::wire::{EVENTS_TYPE, Place, REQUEST_TYPE, StreamPart, Submitted};
use rand::Rng;
use simulators::jobs::Received;
use simulators::{Boot, BootEnd, ScriptedHost};

use crate::shared::Shared;

/// How long anything in a test may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// The pause between two looks at something that gives no notice.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// What a program prints, line by line.
pub(crate) type Lines = std::io::Lines<BufReader<ChildStdout>>;

/// A host. Its directories outlive the service.
pub(crate) struct Host {
    directory: PathBuf,
    runtime: PathBuf,
    scripted: ScriptedHost,
    environment: Vec<(String, String)>,
    /// A command in front of the service.
    wrapper: Vec<String>,
    /// The command of the program that is this host's service.
    service: &'static str,
}

/// Where a story happens: on one host by itself, or on one that has its queue and its table of jobs
/// on servers.
pub(crate) enum World {
    Alone,
    Together(Box<Shared>),
}

impl World {
    pub(crate) fn host(&self) -> Host {
        match self {
            Self::Alone => Host::new(),
            Self::Together(shared) => shared.host(),
        }
    }
}

/// Tells each story in both worlds.
macro_rules! on_both {
    ($($(#[$doc:meta])* async fn $name:ident($world:ident) $body:block)*) => { $(
        $(#[$doc])*
        async fn $name($world: $crate::harness::World) $body

        mod $name {
            use $crate::harness::World;
            use $crate::shared::Shared;

            #[tokio::test(flavor = "multi_thread")]
            async fn alone() {
                super::$name(World::Alone).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn together() {
                super::$name(World::Together(Box::new(Shared::of_all().await))).await;
            }
        }
    )* };
}
pub(crate) use on_both;

impl Host {
    /// A host with nothing on it but scripted guests.
    pub(crate) fn new() -> Self {
        let base = std::env::var_os("SOLSTICE_TEST_DIR")
            .expect("SOLSTICE_TEST_DIR names the directory of the tests; run `make test`");
        fs::create_dir_all(&base).unwrap();
        let directory =
            tempfile::Builder::new().prefix("t").rand_bytes(5).tempdir_in(base).unwrap().keep();
        let run =
            std::env::var("SOLSTICE_TEST_RUN").unwrap_or_else(|_| std::process::id().to_string());
        let prefix = format!("solstice-test-{run}-");
        let runtime = tempfile::Builder::new().prefix(&prefix).tempdir_in("/dev/shm");
        let scripted = directory.join("scripted");
        fs::create_dir(&scripted).unwrap();
        let scripted = ScriptedHost::new(&scripted).unwrap();
        let runtime = runtime.unwrap().keep();
        Self {
            directory,
            runtime,
            scripted,
            environment: Vec::new(),
            wrapper: Vec::new(),
            service: "serve",
        }
    }

    /// Its service is one part of several: `solstice orchestrator`.
    pub(crate) fn part(mut self) -> Self {
        self.service = "orchestrator";
        self
    }

    /// Sets a variable of the service's environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Says how every guest boots from now on.
    pub(crate) fn boots(&self, time: Duration, end: BootEnd) {
        self.scripted.set_boot(Boot { time, end }).unwrap();
    }

    /// Its scripted guests.
    pub(crate) fn scripted(&self) -> &ScriptedHost {
        &self.scripted
    }

    /// The runtime directory.
    pub(crate) fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Puts a file where [`Host::command`] runs.
    pub(crate) fn file(&self, name: &str, text: &str) {
        fs::write(self.directory.join(name), text).unwrap();
    }

    /// Starts the service through this command.
    pub(crate) fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|text| (*text).to_owned()).collect();
        self
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    fn socket(&self) -> PathBuf {
        self.runtime.join("solstice.sock")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("service.log")
    }

    /// What the service wrote on standard error so far.
    pub(crate) fn diagnostics(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The command line of the program on this host.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.prepared(Command::new(env!("CARGO_BIN_EXE_solstice")), arguments)
    }

    fn prepared(&self, mut command: Command, arguments: &[&str]) -> Command {
        command
            .args(arguments)
            .current_dir(&self.directory)
            .env_remove("SOLSTICE_TEST_DIR")
            .env_remove("SOLSTICE_TEST_RUN")
            .env("SOLSTICE_STATE_DIR", self.state())
            .env("SOLSTICE_RUNTIME_DIR", &self.runtime)
            .env("SOLSTICE_METRICS_LISTEN", "127.0.0.1:0")
            .envs(self.scripted.environment())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs another command of the program to its end.
    pub(crate) fn solstice(&self, arguments: &[&str]) -> (i32, String, String) {
        let done = self.command(arguments).stdin(Stdio::null()).output().unwrap();
        (
            done.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&done.stdout).into_owned(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        )
    }

    /// Starts a job with one step without the service, and waits until it has said something.
    pub(crate) fn run_alone(&self, step: &str, until: &str) -> (Child, Lines) {
        let job = format!("runs-on: scripted, steps: [{{run: {step}}}]");
        self.file("ci.yml", &format!("on: push\njobs: {{job: {{{job}}}}}\n"));
        let mut command = self.command(&["run", "--standalone", "ci.yml"]);
        let mut run = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut said = BufReader::new(run.stdout.take().unwrap()).lines();
        assert!(said.by_ref().any(|line| line.unwrap().contains(until)), "no {until:?}");
        (run, said)
    }

    /// Starts its service and waits until it answers.
    pub(crate) async fn serve(&self) -> Running<'_> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut words = self.wrapper.iter().map(String::as_str);
        let program = env!("CARGO_BIN_EXE_solstice");
        let arguments: Vec<&str> = match words.next() {
            Some(_) => words.chain([program, self.service]).collect(),
            None => vec![self.service],
        };
        let first = self.wrapper.first().map_or(program, String::as_str);
        let child = self
            .prepared(Command::new(first), &arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let client =
            reqwest::Client::builder().unix_socket(self.socket()).no_proxy().build().unwrap();
        let mut running = Running { host: self, child, client };
        let deadline = Instant::now() + PATIENCE;
        while running.client.get("http://localhost/health").send().await.is_err() {
            if let Some(status) = running.child.try_wait().unwrap() {
                panic!("the service ended with {status}:\n{}", self.diagnostics());
            }
            assert!(Instant::now() < deadline, "no answer:\n{}", self.diagnostics());
            tokio::time::sleep(LOOK).await;
        }
        running
    }

    /// Processes of scripted guests on this host.
    pub(crate) fn guests(&self) -> Vec<i32> {
        processes_of(&self.directory, |name| name.starts_with("qemu-system"))
    }

    /// Ends every guest by SIGKILL, and waits until they are gone.
    pub(crate) async fn kill_guests(&self) {
        for pid in self.guests() {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.guests().is_empty() {
            assert!(Instant::now() < deadline, "left: {:?}", self.guests());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until no machine is left: no process, no file.
    pub(crate) async fn wait_until_empty(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = (self.guests(), self.files());
            if left.0.is_empty() && left.1.is_empty() {
                return;
            }
            let log = self.diagnostics();
            assert!(Instant::now() < deadline, "left: {left:?}\n{log}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Files of machines.
    fn files(&self) -> Vec<PathBuf> {
        let entries = |path: &Path| -> Vec<PathBuf> {
            fs::read_dir(path)
                .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
                .unwrap_or_default()
        };
        let instances = entries(&self.state().join("instances"));
        instances.iter().flat_map(|instance| entries(&instance.join("machines"))).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let processes = processes_of(&self.directory, |_| true);
        for pid in &processes {
            // It may have ended meanwhile.
            kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap_or_default();
        }
        drop(fs::remove_dir_all(&self.runtime));
        if std::thread::panicking() {
            eprintln!("the directory of the failed test: {}", self.directory.display());
            eprintln!("{}", self.diagnostics());
            return;
        }
        drop(fs::remove_dir_all(&self.directory));
    }
}

/// Processes that name this directory in their command line, by the name of their program.
fn processes_of(directory: &Path, wanted: impl Fn(&str) -> bool) -> Vec<i32> {
    let text = directory.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_string_lossy().parse::<i32>().ok() else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&text) && wanted(&name) {
            found.push(pid);
        }
    }
    found
}

/// A service that runs.
pub(crate) struct Running<'a> {
    pub(crate) host: &'a Host,
    child: Child,
    client: reqwest::Client,
}

impl Running<'_> {
    /// Hands a job in.
    pub(crate) async fn submit(&self, request: &JobRequest) -> JobId {
        self.try_submit(request).await.unwrap()
    }

    /// Hands a job in that may be refused, with the answer's status and text.
    pub(crate) async fn try_submit(&self, request: &JobRequest) -> Result<JobId, String> {
        let mut bytes = Vec::new();
        let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
        serde::Serialize::serialize(request, &mut serializer).unwrap();
        let answer = self
            .client
            .post("http://localhost/v1/jobs")
            .header("content-type", REQUEST_TYPE)
            .body(bytes)
            .send()
            .await
            .unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        if !status.is_success() {
            return Err(format!("{status}: {text}"));
        }
        Ok(serde_json::from_str::<Submitted>(&text).unwrap().job)
    }

    /// The id of its host.
    pub(crate) fn host_id(&self) -> String {
        fs::read_to_string(self.host.state().join("host-id")).unwrap().trim().to_owned()
    }

    /// Asks for an object.
    pub(crate) async fn get(&self, path: &str) -> serde_json::Value {
        let answer = self.client.get(format!("http://localhost{path}")).send().await.unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    /// Says something without a body.
    pub(crate) async fn post(&self, path: &str) -> serde_json::Value {
        let answer = self.client.post(format!("http://localhost{path}")).send().await.unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    /// Takes a job's events until the final one.
    pub(crate) async fn finish(&self, job: JobId) -> Received {
        let mut received = Received::default();
        let done = self.follow(job, &mut received, |received| received.finished().is_some());
        let ended = tokio::time::timeout(PATIENCE, done).await;
        let log = received.log().join("\n");
        assert!(ended.is_ok(), "no end; its log:\n{log}\n{}", self.host.diagnostics());
        received.assert_whole();
        received
    }

    /// Takes a job's events until its log has this.
    pub(crate) async fn wait_for(&self, job: JobId, text: &str) -> Received {
        self.wait_long_for(job, text, PATIENCE).await
    }

    /// The same for what takes longer than others may take.
    pub(crate) async fn wait_long_for(
        &self,
        job: JobId,
        text: &str,
        patience: Duration,
    ) -> Received {
        let mut received = Received::default();
        let done = self.follow(job, &mut received, |received| {
            received.log().iter().any(|line| line.contains(text))
        });
        let seen = tokio::time::timeout(patience, done).await;
        let log = received.log().join("\n");
        assert!(seen.is_ok(), "no {text:?}; its log:\n{log}\n{}", self.host.diagnostics());
        received
    }

    /// Takes a job's events until there are this many.
    pub(crate) async fn wait_for_events(&self, job: JobId, least: usize) {
        let mut received = Received::default();
        let done = self.follow(job, &mut received, |received| received.events().count() >= least);
        let seen = tokio::time::timeout(PATIENCE, done).await;
        assert!(seen.is_ok(), "not {least} events\n{}", self.host.diagnostics());
    }

    /// Takes events, over as many streams as it needs, until enough were seen.
    async fn follow(
        &self,
        job: JobId,
        received: &mut Received,
        enough: impl Fn(&Received) -> bool,
    ) {
        let mut last = Place::default();
        loop {
            let url = format!("http://localhost/v1/jobs/{job}/events?after={last}");
            let Ok(mut answer) = self.client.get(url).send().await else {
                tokio::time::sleep(LOOK).await;
                continue;
            };
            let kind = answer.headers()["content-type"].clone();
            if kind != EVENTS_TYPE {
                // The service is about to end, or the job is still on its way through the queue.
                let status = answer.status().as_u16();
                assert!(matches!(status, 404 | 503), "{:?}", answer.text().await);
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let mut decoder = Decoder::default();
            while let Ok(Some(bytes)) = answer.chunk().await {
                decoder.push(&bytes);
                while let Some(part) = decoder.next_frame::<StreamPart>().unwrap() {
                    let StreamPart::Events(events) = part else { continue };
                    for event in events {
                        last = last.max(Place::of(&event));
                        take(received, event, job);
                    }
                }
                if enough(received) {
                    return;
                }
            }
        }
    }

    /// Waits until a job is in a state.
    pub(crate) async fn wait_state(&self, job: JobId, states: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let detail = self.get(&format!("/v1/jobs/{job}")).await;
            let state = detail["job"]["state"].as_str().unwrap_or_default().to_owned();
            if states.contains(&state.as_str()) {
                return;
            }
            let log = self.host.diagnostics();
            assert!(Instant::now() < deadline, "{state} instead of {states:?}\n{log}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The service's view of a path, which may have file systems of its own.
    pub(crate) fn view(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        root.join(path.strip_prefix("/").unwrap())
    }

    /// The text of `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        let answer = self.client.get("http://localhost/metrics").send().await.unwrap();
        answer.text().await.unwrap()
    }

    /// Waits until an error of a kind was counted.
    pub(crate) async fn wait_for_error(&self, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.errors(what).await == 0.0 {
            assert!(Instant::now() < deadline, "no error of {what:?}: {}", self.metrics().await);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until its `/health` names no problem.
    pub(crate) async fn wait_until_healthy(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let health = self.get("/health").await;
            if health["problems"] == serde_json::json!([]) {
                return;
            }
            assert!(Instant::now() < deadline, "{health}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The value of one series of `/metrics`; 0 if there is none.
    pub(crate) async fn value(&self, series: &str) -> f64 {
        let text = self.metrics().await;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a series of `/metrics` has this value.
    pub(crate) async fn wait_for_value(&self, series: &str, expected: f64) {
        let deadline = Instant::now() + PATIENCE;
        while self.value(series).await != expected {
            assert!(Instant::now() < deadline, "{series} is not {expected}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How many errors of a kind were counted.
    pub(crate) async fn errors(&self, what: &str) -> f64 {
        self.value(&format!("solstice_errors_total{{what=\"{what}\"}}")).await
    }

    /// Does not let it run for so long.
    pub(crate) async fn asleep_for(&self, time: Duration) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGSTOP).unwrap();
        tokio::time::sleep(time).await;
        kill(pid, Signal::SIGCONT).unwrap();
    }

    /// Ends it by SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as a service manager does.
    pub(crate) async fn stop(mut self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.host.diagnostics());
            tokio::time::sleep(LOOK).await;
        };
        assert!(status.success(), "{status}:\n{}", self.host.diagnostics());
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn take(received: &mut Received, event: JobEvent, job: JobId) {
    assert_eq!(event.job, job);
    received.take(event);
}

/// The lines `from` to `to` as `lines N EVERY` prints them.
/// One of so many lines of [`numbered`], from the dice: the moment at which something is broken.
pub(crate) fn moment(to: u32) -> String {
    format!("line {}", simulators::dice().random_range(1..=to))
}

pub(crate) fn numbered(to: usize) -> Vec<String> {
    (1..=to).map(|number| format!("line {number}")).collect()
}
